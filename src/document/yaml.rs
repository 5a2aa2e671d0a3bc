//! YAML into nodes.
//!
//! The parser gives events with places and keeps no stack of calls; the tree is put together here, so that aliases and
//! merge keys are counted before they are expanded, and scalars keep the spelling that people gave them.

use std::collections::{HashMap, HashSet};

use granit_parser::{
    ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, StructureStyle, Tag,
};

use crate::document::budget::{Exceeded, Meter, Resource};
use crate::document::{Content, Entry, Node, Scalar, ScalarKind, Span, Wrong};

pub(super) fn parse(text: &str, meter: &mut Meter) -> Result<Node, Wrong> {
    let most_depth = meter.most(Resource::Depth);
    let mut tree = Tree {
        text,
        meter,
        open: Vec::new(),
        anchors: HashMap::new(),
        root: None,
    };
    for event in Parser::new_from_str_with_options(text, options(most_depth)) {
        let (event, span) = event.map_err(|error| explained(&error, text, most_depth))?;
        tree.take(event, span)?;
    }
    let nothing = || Node::of_scalar("", ScalarKind::Null, Span::default());
    Ok(tree.root.unwrap_or_else(nothing))
}

fn options(most_depth: usize) -> Options {
    granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: most_depth,
        block_nesting_limit: most_depth,
    }
}

/// The tree while it grows.
struct Tree<'a> {
    text: &'a str,
    meter: &'a mut Meter,
    /// The lists and maps around the next value.
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    root: Option<Node>,
}

/// A list or map whose end has not come yet.
struct Open {
    anchor: usize,
    span: Span,
    style: StructureStyle,
    content: Partial,
}

enum Partial {
    List(Vec<Node>),
    Map {
        /// The key whose value comes next.
        key: Option<Key>,
        entries: Vec<Entry>,
        /// What `<<` merges in, in order of strength.
        merged: Vec<Entry>,
    },
}

struct Key {
    text: String,
    span: Span,
    is_merge: bool,
}

/// A value with an anchor, and what each use of it costs.
struct Anchored {
    node: Node,
    values: usize,
    bytes: usize,
}

impl Tree<'_> {
    fn take(&mut self, event: Event<'_>, span: granit_parser::Span) -> Result<(), Wrong> {
        let tag_span = span.tag_span().map(|span| span_of(&span));
        let span = span_of(&span);
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the parser may learn more events"
        )]
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                let message = "expected one document, found a second one";
                return Err(Wrong::new(span, message));
            }
            Event::Scalar(text, style, anchor, tag) => {
                let kind = kind_of(&text, style, tag.as_deref())
                    .map_err(|message| Wrong::new(tag_span.unwrap_or(span), message))?;
                let is_merge = style == ScalarStyle::Plain && text == "<<";
                // For an empty value the parser makes a text up.
                let text = if kind == ScalarKind::Null {
                    self.text.get(span.start..span.end).unwrap_or("").to_owned()
                } else {
                    text.into_owned()
                };
                self.charge(span, 1, text.len())?;
                self.add(Node::of_scalar(text, kind, span), anchor, is_merge)?;
            }
            Event::Alias(anchor) => {
                let node = self.expand(anchor, span)?;
                self.add(node, 0, false)?;
            }
            Event::SequenceStart(style, anchor, tag) => {
                check_tag(tag.as_deref(), "seq", tag_span.unwrap_or(span))?;
                self.enter(anchor, span, style, Partial::List(Vec::new()))?;
            }
            Event::MappingStart(style, anchor, tag) => {
                check_tag(tag.as_deref(), "map", tag_span.unwrap_or(span))?;
                let content = Partial::Map {
                    key: None,
                    entries: Vec::new(),
                    merged: Vec::new(),
                };
                self.enter(anchor, span, style, content)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.leave(span)?,
            // Starts and ends of what has no content, and what was not asked for.
            _ => {}
        }
        Ok(())
    }

    fn charge(&mut self, span: Span, values: usize, bytes: usize) -> Result<(), Wrong> {
        self.meter
            .spend(Resource::Values, values)
            .and_then(|()| self.meter.spend(Resource::Text, bytes))
            .map_err(|exceeded| Wrong::beyond(span, exceeded))
    }

    fn charge_aliases(&mut self, span: Span, values: usize, bytes: usize) -> Result<(), Wrong> {
        self.meter
            .spend(Resource::Aliases, values)
            .map_err(|exceeded| Wrong::beyond(span, exceeded))?;
        self.charge(span, values, bytes)
    }

    fn enter(
        &mut self,
        anchor: usize,
        span: Span,
        style: StructureStyle,
        content: Partial,
    ) -> Result<(), Wrong> {
        self.charge(span, 1, 0)?;
        self.open.push(Open {
            anchor,
            span,
            style,
            content,
        });
        self.meter
            .reach(Resource::Depth, self.open.len())
            .map_err(|exceeded| Wrong::beyond(span, exceeded))
    }

    fn leave(&mut self, end: Span) -> Result<(), Wrong> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let content = match open.content {
            Partial::List(items) => Content::List(items),
            Partial::Map {
                entries, merged, ..
            } => Content::Map(with_merged(entries, merged)),
        };
        let end = match (open.style, last_of(&content)) {
            (StructureStyle::Block, Some(last)) => last.max(open.span.start),
            (StructureStyle::Block | StructureStyle::Flow, _) => end.end,
        };
        let span = Span {
            start: open.span.start,
            end,
        };
        self.add(Node { span, content }, open.anchor, false)
    }

    /// A value is whole: it is the root, an item, a key, or the value of a key.
    fn add(&mut self, node: Node, anchor: usize, is_merge: bool) -> Result<(), Wrong> {
        if anchor != 0 {
            self.remember(anchor, &node)?;
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.content {
            Partial::List(items) => items.push(node),
            Partial::Map {
                key,
                entries,
                merged,
            } => match key.take() {
                None => *key = Some(key_of(node, is_merge)?),
                Some(key) if key.is_merge => merge_in(merged, node)?,
                Some(key) => entries.push(Entry {
                    key: key.text,
                    key_span: key.span,
                    value: node,
                }),
            },
        }
        Ok(())
    }

    fn remember(&mut self, anchor: usize, node: &Node) -> Result<(), Wrong> {
        let (values, bytes) = size_of(node);
        // The copy that is kept is paid for like one that is used: anchors in each other hold the same values again.
        self.charge_aliases(node.span, values, bytes)?;
        let node = node.clone();
        let anchored = Anchored {
            node,
            values,
            bytes,
        };
        self.anchors.insert(anchor, anchored);
        Ok(())
    }

    fn expand(&mut self, anchor: usize, span: Span) -> Result<Node, Wrong> {
        let Some(Anchored { values, bytes, .. }) = self.anchors.get(&anchor) else {
            return Err(Wrong::new(
                span,
                "this alias stands inside of what it names",
            ));
        };
        let (values, bytes) = (*values, *bytes);
        self.charge_aliases(span, values, bytes)?;
        // Its places stay those of the anchor: what is wrong is wrong there.
        let node = self.anchors[&anchor].node.clone();
        let depth = self.open.len() + depth_of(&node);
        self.meter
            .reach(Resource::Depth, depth)
            .map_err(|exceeded| Wrong::beyond(span, exceeded))?;
        Ok(node)
    }
}

/// How many values are in it, itself included, and how many bytes of text.
fn size_of(node: &Node) -> (usize, usize) {
    let sum =
        |(values, bytes), (more_values, more_bytes)| (values + more_values, bytes + more_bytes);
    match &node.content {
        Content::Scalar(scalar) => (1, scalar.text.len()),
        Content::List(items) => items.iter().map(size_of).fold((1, 0), sum),
        Content::Map(entries) => entries
            .iter()
            .map(|entry| sum((0, entry.key.len()), size_of(&entry.value)))
            .fold((1, 0), sum),
    }
}

/// How many lists and maps are in each other.
fn depth_of(node: &Node) -> usize {
    match &node.content {
        Content::Scalar(_) => 0,
        Content::List(items) => 1 + items.iter().map(depth_of).max().unwrap_or(0),
        Content::Map(entries) => {
            let below = entries.iter().map(|entry| depth_of(&entry.value));
            1 + below.max().unwrap_or(0)
        }
    }
}

/// Where the last part of a list or map ends.
fn last_of(content: &Content) -> Option<usize> {
    match content {
        Content::Scalar(_) => None,
        Content::List(items) => items.last().map(|item| item.span.end),
        Content::Map(entries) => entries
            .last()
            .map(|entry| entry.value.span.end.max(entry.key_span.end)),
    }
}

fn key_of(node: Node, is_merge: bool) -> Result<Key, Wrong> {
    match node.content {
        Content::Scalar(Scalar { text, kind })
            if !(kind == ScalarKind::Null && text.is_empty()) =>
        {
            Ok(Key {
                text,
                span: node.span,
                is_merge,
            })
        }
        Content::Scalar(_) => Err(Wrong::new(node.span, "there is no key before this `:`")),
        Content::List(_) | Content::Map(_) => {
            let message = format!("expected a key to be text, found {}", node.describe());
            Err(Wrong::new(node.span, message))
        }
    }
}

/// Takes in what `<<` names: a map, or a list of maps of which the first is the strongest.
fn merge_in(merged: &mut Vec<Entry>, node: Node) -> Result<(), Wrong> {
    match node.content {
        Content::Map(entries) => merged.extend(entries),
        Content::List(maps) => {
            for map in maps {
                let Content::Map(entries) = map.content else {
                    return Err(not_a_map(&map));
                };
                merged.extend(entries);
            }
        }
        Content::Scalar(_) => return Err(not_a_map(&node)),
    }
    Ok(())
}

fn not_a_map(node: &Node) -> Wrong {
    let found = node.describe();
    Wrong::new(
        node.span,
        format!("expected a map to merge with `<<`, found {found}"),
    )
}

/// What stands in the map itself is stronger than what is merged in. A key that it has twice stays there twice: the decoder
/// says so.
fn with_merged(entries: Vec<Entry>, merged: Vec<Entry>) -> Vec<Entry> {
    if merged.is_empty() {
        return entries;
    }
    let mut seen: HashSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
    let mut all: Vec<Entry> = merged
        .into_iter()
        .filter(|entry| seen.insert(entry.key.clone()))
        .collect();
    all.extend(entries);
    all
}

/// What a scalar is taken for, by its tag, its quotes, or its spelling.
fn kind_of(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<ScalarKind, String> {
    let by_spelling = ScalarKind::of_plain(text);
    let Some(tag) = tag else {
        let is_plain = style == ScalarStyle::Plain;
        return Ok(if is_plain {
            by_spelling
        } else {
            ScalarKind::Text
        });
    };
    let wanted = match tag.core_suffix() {
        Some("str") => return Ok(ScalarKind::Text),
        Some("int") => ScalarKind::Integer,
        Some("float") => ScalarKind::Float,
        Some("bool") => ScalarKind::Bool,
        Some("null") => ScalarKind::Null,
        _ => return Err(unknown(tag)),
    };
    if wanted == by_spelling {
        Ok(wanted)
    } else {
        Err(format!(
            "what follows is not what the tag `{}` says",
            tag.original()
        ))
    }
}

fn check_tag(tag: Option<&Tag>, known: &str, span: Span) -> Result<(), Wrong> {
    match tag {
        Some(tag) if tag.core_suffix() != Some(known) => Err(Wrong::new(span, unknown(tag))),
        Some(_) | None => Ok(()),
    }
}

fn unknown(tag: &Tag) -> String {
    let written = tag.original();
    format!("the tag `{written}` means nothing here; if it is text, put it in quotes")
}

fn span_of(span: &granit_parser::Span) -> Span {
    let range = span.byte_range().unwrap_or_default();
    Span {
        start: range.start,
        end: range.end.max(range.start),
    }
}

/// What the parser has refused, in the words of people who do not know YAML's grammar.
fn explained(error: &ScanError, text: &str, most_depth: usize) -> Wrong {
    let at = error.marker().byte_offset().unwrap_or(0).min(text.len());
    let here = |length: usize| Span {
        start: at,
        end: (at + length).min(text.len()),
    };
    let first = text[at..].chars().next().unwrap_or(' ');
    // What is unexpected may stand further on in what began here.
    let found = |character: char| {
        let start = text[at..]
            .find(character)
            .map_or(at, |further| at + further);
        let end = start + character.len_utf8();
        Span { start, end }
    };
    if text[..at].ends_with('$') && first == '{' {
        let span = Span {
            start: at - 1,
            end: at + 1,
        };
        let message =
            "`${` cannot stand without quotes inside of `{…}` or `[…]`; put the value in quotes";
        return Wrong::new(span, message);
    }
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "most errors of the parser need no other words than its own"
    )]
    match error.kind() {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart
        | ErrorKind::TabInPlainScalar => Wrong::new(
            tab_near(text, at),
            "a tab cannot indent in YAML; use spaces",
        ),
        ErrorKind::UnknownAnchor => {
            let alias = text[at..]
                .split(|c: char| c.is_whitespace() || ",[]{}".contains(c))
                .next()
                .unwrap_or("*");
            let message = format!(
                "`{alias}` names an anchor that does not exist above; if it is text, put it in quotes"
            );
            Wrong::new(here(alias.len()), message)
        }
        ErrorKind::MissingAnchorOrAliasName => Wrong::new(here(1), unquoted(first)),
        ErrorKind::UnexpectedCharacter { character } if character.is_control() => {
            let code = u32::from(*character);
            let message = format!(
                "the control character U+{code:04X} cannot stand here; in double quotes write `\\u{code:04x}`"
            );
            Wrong::new(found(*character), message)
        }
        ErrorKind::UnexpectedCharacter { character } => {
            Wrong::new(found(*character), unquoted(*character))
        }
        ErrorKind::MappingValueNotAllowed => Wrong::new(
            here(1),
            "a `:` cannot stand here; if it is part of a text, put the text in quotes",
        ),
        ErrorKind::RecursionLimitExceeded => {
            let resource = Resource::Depth;
            let most = most_depth;
            Wrong::beyond(here(1), Exceeded { resource, most })
        }
        _ => Wrong::new(here(0), format!("not YAML: {}", error.info())),
    }
}

fn unquoted(character: char) -> String {
    format!("a text without quotes cannot begin with `{character}`; put it in quotes")
}

/// The tab that the parser has stumbled over: before the place, in the same line, or the next one after it.
fn tab_near(text: &str, at: usize) -> Span {
    let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let start = text[line..at]
        .rfind('\t')
        .map(|tab| line + tab)
        .or_else(|| text[at..].find('\t').map(|tab| at + tab))
        .unwrap_or(at);
    let end = start + usize::from(start < text.len());
    Span { start, end }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::document::budget::{Cost, Meter, Resource};
    use crate::document::{Content, Format, Node, ScalarKind, Source, parse_within, write};

    fn read(text: &str, meter: &mut Meter) -> Result<Node, String> {
        let source = Arc::new(Source {
            name: "a".to_owned(),
            text: text.to_owned(),
        });
        parse_within(&source, Format::Yaml, meter).map_err(|problems| {
            assert_eq!(problems.len(), 1);
            problems[0].to_string()
        })
    }

    fn tree(text: &str) -> String {
        let root = read(text, &mut Meter::default()).unwrap_or_else(|error| panic!("{error}"));
        write::yaml(&root, &write::unveiled)
    }

    fn refusal(text: &str) -> String {
        read(text, &mut Meter::default()).expect_err(text)
    }

    #[test]
    fn scalars_keep_their_spelling() {
        let text = "[1.10, 0123, 1_000, 22:22, NO, 2026-01-01, True, 0x1F, \"5\", '5', !!str 5]";
        let root = read(text, &mut Meter::default()).unwrap();
        let Content::List(items) = root.content else {
            panic!("no list");
        };
        let scalars: Vec<(&str, ScalarKind)> = items
            .iter()
            .filter_map(Node::scalar)
            .map(|scalar| (scalar.text.as_str(), scalar.kind))
            .collect();
        assert_eq!(
            scalars,
            [
                ("1.10", ScalarKind::Float),
                ("0123", ScalarKind::Text),
                ("1_000", ScalarKind::Integer),
                ("22:22", ScalarKind::Text),
                ("NO", ScalarKind::Text),
                ("2026-01-01", ScalarKind::Text),
                ("True", ScalarKind::Bool),
                ("0x1F", ScalarKind::Integer),
                ("5", ScalarKind::Text),
                ("5", ScalarKind::Text),
                ("5", ScalarKind::Text),
            ]
        );
    }

    #[test]
    fn anchors_and_merge_keys_are_expanded() {
        for (text, expected) in [
            ("a: &x [1]\nb: *x\n", "a: [1]\nb: [1]\n"),
            (
                "a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\n",
                "a:\n  b: 1\n  c: 2\nd:\n  b: 1\n  c: 3\n",
            ),
            ("d: {c: 3, <<: {b: 1, c: 2}}\n", "d:\n  b: 1\n  c: 3\n"),
            (
                "a: &a {k: 1}\nb: &b {k: 2, l: 2}\nc: {<<: [*a, *b]}\n",
                "a:\n  k: 1\nb:\n  k: 2\n  l: 2\nc:\n  k: 1\n  l: 2\n",
            ),
            ("a: &x k\n*x : 1\n", "a: k\nk: 1\n"),
            ("\"<<\": 1\n", "\"<<\": 1\n"),
            ("a: &x 1\nb: &x 2\nc: *x\n", "a: 1\nb: 2\nc: 2\n"),
        ] {
            assert_eq!(tree(text), expected, "{text}");
        }
    }

    #[test]
    fn line_ends_and_markers_do_not_matter() {
        for text in [
            "a: 1\nb: [x]\n",
            "a: 1\r\nb:\r\n  - x\r\n",
            "---\na: 1\nb: [x]\n...\n",
            "# c\n\na: 1\nb: [x] # c",
        ] {
            assert_eq!(tree(text), "a: 1\nb: [x]\n", "{text:?}");
        }
        for text in ["", "\n", "# only\n# comments\n", "---\n", "~"] {
            assert_eq!(tree(text), "null\n", "{text:?}");
        }
    }

    #[test]
    fn what_people_stumble_over_is_explained_where_it_stands() {
        for (text, place, phrase) in [
            (
                "a:\n\tb: 1\n",
                "a:2:1",
                "a tab cannot indent in YAML; use spaces",
            ),
            ("a:\n  b: 1\n\tc: 2\n", "a:3:1", "use spaces"),
            ("a:\n  b: 1\n \tc: 2\n", "a:3:2", "use spaces"),
            (
                "a: @x\n",
                "a:1:4",
                "cannot begin with `@`; put it in quotes",
            ),
            ("a: `x`\n", "a:1:4", "cannot begin with ``"),
            ("a: %x\n", "a:1:4", "cannot begin with `%`"),
            (
                "a: *x\n",
                "a:1:4",
                "`*x` names an anchor that does not exist above",
            ),
            ("a: */5 * * * *\n", "a:1:4", "put it in quotes"),
            ("a: * * *\n", "a:1:4", "cannot begin with `*`"),
            ("a: &x [*x]\n", "a:1:8", "stands inside of what it names"),
            (
                "a: !reset null\n",
                "a:1:4",
                "the tag `!reset` means nothing here",
            ),
            ("a: !!int x\n", "a:1:4", "not what the tag"),
            ("a: b: c\n", "a:1:5", "put the text in quotes"),
            (
                "a: 1\n---\nb: 2\n",
                "a:2:1",
                "expected one document, found a second one",
            ),
            (
                "a: {<<: 5}\n",
                "a:1:9",
                "expected a map to merge with `<<`, found the number 5",
            ),
            (
                "? [a]\n: b\n",
                "a:1:3",
                "expected a key to be text, found a list",
            ),
            (": b\n", "a:1:1", "no key before this `:`"),
            ("a: x\u{7f}\n", "a:1:5", "U+007F"),
            ("a: x\0\n", "a:1:5", "a NUL character"),
            ("a: 'x\n", "a:1:4", "not YAML: unclosed quote"),
            ("a: { b: ${C} }\n", "a:1:9", "put the value in quotes"),
            ("a: [b, ${C}]\n", "a:1:8", "put the value in quotes"),
        ] {
            let found = refusal(text);
            assert!(
                found.starts_with(place) && found.contains(phrase),
                "expected {place} {phrase:?} for {text:?}, found {found}"
            );
        }
    }

    #[test]
    fn what_is_too_much_is_refused_before_it_is_made() {
        let level = |n: usize| {
            let ten = vec![format!("*l{}", n - 1); 10].join(", ");
            format!("- &l{n} [{ten}]\n")
        };
        let levels: Vec<String> = (1..10).map(level).collect();
        let laughs = format!("- &l0 [ha, ha]\n{}", levels.concat());
        let long = format!("- &a {}\n{}", "z".repeat(100_000), "- *a\n".repeat(100));
        let nested = "&a [".repeat(64) + &"z".repeat(100_000) + &"]".repeat(64);
        let merges = format!(
            "a: &a {{k: v}}\nb:\n  <<: [{}]\n",
            vec!["*a"; 20_000].join(", ")
        );
        let flow = "[".repeat(10_000);
        let block = "- ".repeat(10_000);
        let keys: Vec<String> = (0..1_000).map(|n| " ".repeat(n) + "a:\n").collect();
        let wide = "[1,".to_owned() + &"1,".repeat(200_000) + "1]";
        let deep_alias = format!(
            "- &a {}{}\n- {}*a{}\n",
            "[".repeat(40),
            "]".repeat(40),
            "[".repeat(40),
            "]".repeat(40)
        );
        for (bomb, resource) in [
            (laughs, Resource::Aliases),
            (long, Resource::Text),
            (nested, Resource::Text),
            (merges, Resource::Aliases),
            (flow, Resource::Depth),
            (block, Resource::Depth),
            (keys.concat(), Resource::Depth),
            (wide, Resource::Values),
            (deep_alias, Resource::Depth),
            (
                "x".repeat(Cost::BUDGET.of(Resource::Bytes) + 1),
                Resource::Bytes,
            ),
        ] {
            let mut meter = Meter::default();
            let found = read(&bomb, &mut meter).unwrap_err();
            let most = Cost::BUDGET.of(resource);
            assert!(
                found.contains(&format!("too much: more than {most} {resource}")),
                "{found}"
            );
            for resource in [
                Resource::Values,
                Resource::Text,
                Resource::Aliases,
                Resource::Depth,
            ] {
                assert!(meter.cost().of(resource) <= Cost::BUDGET.of(resource));
            }
        }
    }

    #[test]
    fn the_cost_is_what_comes_out() {
        let mut meter = Meter::default();
        read("a: &x {b: cd}\ne: *x\n", &mut meter).unwrap();
        let cost = meter.cost();
        // The map that is kept for the anchor counts too.
        for (resource, amount) in [
            (Resource::Bytes, 20),
            (Resource::Depth, 2),
            (Resource::Aliases, 4),
            (Resource::Values, 10),
        ] {
            assert_eq!(cost.of(resource), amount, "{resource}");
        }
    }
}
