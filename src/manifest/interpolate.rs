//! Variables in values: `$NAME`, `${NAME}`, `${NAME:-default}` and the other forms of compose, and `$$` for a dollar.
//!
//! | form | set | empty | not set |
//! |---|---|---|---|
//! | `$V`, `${V}` | its value | empty | an error |
//! | `${V-d}`, `${V:-d}` | its value | empty, `d` | `d` |
//! | `${V?e}`, `${V:?e}` | its value | empty, an error that says `e` | an error that says `e` |
//! | `${V+r}`, `${V:+r}` | `r` | `r`, empty | empty |
//!
//! Variables may stand in `d` and `r` again; what a variable holds is never looked through for others. Keys are left as they
//! are, and so are the lines of `shell`, where dollars belong to the shell, and all below `x-…`.
//!
//! Whatever variables hold may be secret: no message has any of it.

use std::sync::Arc;

use crate::document::budget::{Exceeded, Meter, Resource};
use crate::document::problem::{Place, Problem};
use crate::document::{Content, Filled, Node, Scalar, ScalarKind, Source, Span, problem_at};
use crate::manifest::variables::{Found, Variables};

/// What happened to the variables of a file.
#[derive(Debug, Default)]
pub(super) struct Interpolated {
    /// The scalars that hold values of variables.
    pub(super) filled: Vec<Filled>,
    /// The scalars that stay as they are, since something in them is wrong.
    pub(super) unknown: Vec<Span>,
    /// What is wrong with them.
    pub(super) problems: Vec<Problem>,
}

/// Puts variables into the values of a file.
pub(super) fn interpolate(
    root: &mut Node,
    source: &Arc<Source>,
    variables: &mut Variables<'_>,
    meter: &mut Meter,
) -> Interpolated {
    let mut walk = Walk {
        source,
        variables,
        meter,
        done: Interpolated::default(),
        is_over: false,
    };
    each_value(root, Below::Keys, &mut |scalar, span| {
        walk.scalar(scalar, span);
    });
    let mut done = walk.done;
    // An alias brings the same scalar to several places.
    done.filled.sort_by_key(|filled| filled.span);
    done.filled.dedup();
    done.unknown.sort_unstable();
    done.unknown.dedup();
    done.problems.sort_by_key(|problem| match &problem.place {
        Place::File { span, .. } => span.start,
        Place::Environment(_) | Place::Flag(_) => 0,
    });
    done.problems.dedup();
    done
}

/// What the keys of a map are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Below {
    /// Words of ours.
    Keys,
    /// Names that people chose; below each are words of ours.
    Names,
    /// Names of environment variables: none of them means anything here.
    Variables,
}

/// The maps whose keys are names.
fn below(key: &str) -> Below {
    match key {
        "services" | "supervisors" | "depends_on" => Below::Names,
        "env" => Below::Variables,
        _ => Below::Keys,
    }
}

/// Doubles each dollar in the values of a tree, so that what is written of it is read as the same again.
pub fn escape_dollars(root: &mut Node) {
    each_value(root, Below::Keys, &mut |scalar, _| {
        if scalar.kind == ScalarKind::Text {
            scalar.text = scalar.text.replace('$', "$$");
        }
    });
}

/// Every scalar in which variables are looked for.
fn each_value(node: &mut Node, keys: Below, act: &mut impl FnMut(&mut Scalar, Span)) {
    match &mut node.content {
        Content::Scalar(scalar) => act(scalar, node.span),
        Content::List(items) => {
            for item in items {
                each_value(item, Below::Keys, act);
            }
        }
        Content::Map(entries) => {
            for entry in entries {
                let is_free = keys != Below::Variables && entry.key.starts_with("x-");
                let is_shell = keys == Below::Keys && entry.key == "shell";
                if is_free || is_shell {
                    continue;
                }
                let inside = match keys {
                    Below::Keys => below(&entry.key),
                    Below::Names | Below::Variables => Below::Keys,
                };
                each_value(&mut entry.value, inside, act);
            }
        }
    }
}

struct Walk<'a, 'v> {
    source: &'a Arc<Source>,
    variables: &'a mut Variables<'v>,
    meter: &'a mut Meter,
    done: Interpolated,
    /// The budget is used up, and has been reported.
    is_over: bool,
}

impl Walk<'_, '_> {
    fn scalar(&mut self, scalar: &mut Scalar, span: Span) {
        if scalar.kind != ScalarKind::Text || !scalar.text.contains('$') || self.is_over {
            return;
        }
        let mut reader = Reader {
            text: &scalar.text,
            at: 0,
            variables: self.variables,
            meter: self.meter,
            faults: Vec::new(),
            mentions: 0,
        };
        let mut value = String::new();
        let ended = reader.text(&mut value, Inside::Value, Wanted::Yes);
        let (mut faults, mentions) = (reader.faults, reader.mentions);
        if let Err(fault) = ended {
            self.is_over = fault.is_last;
            faults.push(fault);
        }
        if !faults.is_empty() {
            self.done.unknown.push(span);
            self.report(&faults, &scalar.text, span);
            return;
        }
        let written = std::mem::replace(&mut scalar.text, value);
        if mentions > 0 {
            scalar.kind = kind_of(&scalar.text);
            self.done.filled.push(Filled { span, written });
        }
    }

    fn report(&mut self, faults: &[Fault], text: &str, span: Span) {
        let dollars = Dollars::of(&self.source.text, text, span);
        for fault in faults {
            if self.meter.spend(Resource::Problems, 1).is_err() {
                return;
            }
            let span = dollars.place(fault);
            let message = fault.message.as_str();
            self.done
                .problems
                .push(problem_at(self.source, span, message));
        }
    }
}

/// A value that a variable has made is a number or a truth value if it looks like one, with or without quotes around it.
fn kind_of(text: &str) -> ScalarKind {
    // An empty variable is an empty text.
    match ScalarKind::of_plain(text) {
        ScalarKind::Null => ScalarKind::Text,
        kind @ (ScalarKind::Text
        | ScalarKind::Integer
        | ScalarKind::Float
        | ScalarKind::Bool
        | ScalarKind::Datetime) => kind,
    }
}

/// Where the dollars of a scalar stand in the file. They are found by their number: escapes and folding change all but them.
struct Dollars<'a> {
    source: &'a str,
    text: &'a str,
    span: Span,
    in_text: Vec<usize>,
    in_source: Vec<usize>,
}

impl<'a> Dollars<'a> {
    fn of(source: &'a str, text: &'a str, span: Span) -> Self {
        let written = source.get(span.start..span.end).unwrap_or("");
        let of = |text: &str, start| text.match_indices('$').map(|(at, _)| start + at).collect();
        Self {
            source,
            text,
            span,
            in_text: of(text, 0),
            in_source: of(written, span.start),
        }
    }

    /// What a fault is about, or the whole scalar.
    fn place(&self, fault: &Fault) -> Span {
        let number = self.in_text.binary_search(&fault.at);
        let (Ok(number), true) = (number, self.in_text.len() == self.in_source.len()) else {
            return self.span;
        };
        let start = self.in_source[number];
        let mention = &self.text[fault.at..fault.end];
        let is_same = self.source[start..].starts_with(mention);
        let end = start + if is_same { mention.len() } else { 1 };
        Span { start, end }
    }
}

/// Something wrong with what begins at a dollar.
struct Fault {
    at: usize,
    end: usize,
    message: String,
    /// Whether nothing more can be read in the whole file.
    is_last: bool,
}

/// Around what is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// Nothing: it is the whole value.
    Value,
    /// So many pairs of braces, the innermost of which ends it.
    Braces(usize),
}

/// Whether what is read counts: a default does not if its variable is set, and what is wrong with its variables neither.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Yes,
    No,
}

/// What follows the name of a variable in braces.
#[derive(Clone, Copy)]
struct Form {
    sign: &'static str,
    word: Word,
    /// Whether an empty value counts as none.
    is_strict: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Default,
    Complaint,
    Replacement,
}

/// The longer signs stand before the shorter ones that they end with.
const FORMS: [Form; 6] = [
    form(":-", Word::Default),
    form("-", Word::Default),
    form(":?", Word::Complaint),
    form("?", Word::Complaint),
    form(":+", Word::Replacement),
    form("+", Word::Replacement),
];

const fn form(sign: &'static str, word: Word) -> Form {
    Form {
        sign,
        word,
        is_strict: sign.len() > 1,
    }
}

struct Reader<'t, 'a, 'v> {
    text: &'t str,
    at: usize,
    variables: &'a mut Variables<'v>,
    meter: &'a mut Meter,
    faults: Vec<Fault>,
    mentions: usize,
}

impl<'t> Reader<'t, '_, '_> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    /// Reads up to the end, or up to the brace that ends it.
    fn text(&mut self, out: &mut String, inside: Inside, wanted: Wanted) -> Result<(), Fault> {
        loop {
            let rest = self.rest();
            let stop = rest
                .find(|c| c == '$' || c == '}' && inside != Inside::Value)
                .unwrap_or(rest.len());
            self.put(out, &rest[..stop], wanted)?;
            self.at += stop;
            match rest.as_bytes()[stop..] {
                [b'$', b'$', ..] => {
                    self.put(out, "$", wanted)?;
                    self.at += 2;
                }
                [b'$', ..] => self.mention(out, inside, wanted)?,
                _ => return Ok(()),
            }
        }
    }

    fn put(&mut self, out: &mut String, text: &str, wanted: Wanted) -> Result<(), Fault> {
        if wanted == Wanted::Yes {
            self.meter
                .spend(Resource::Text, text.len())
                .map_err(|exceeded| self.beyond(self.at, exceeded))?;
            out.push_str(text);
        }
        Ok(())
    }

    /// Reads from a dollar to the end of what it introduces.
    fn mention(&mut self, out: &mut String, inside: Inside, wanted: Wanted) -> Result<(), Fault> {
        let start = self.at;
        self.meter
            .spend(Resource::Variables, 1)
            .map_err(|exceeded| self.beyond(start, exceeded))?;
        self.mentions += 1;
        self.at += 1;
        let is_braced = self.rest().starts_with('{');
        self.at += usize::from(is_braced);
        let name = self.name();
        if name.is_empty() {
            let message = if is_braced {
                "expected the name of a variable after `${`"
            } else {
                "expected the name of a variable, or `{`, after `$`; for a dollar sign write `$$`"
            };
            return Err(self.fault(start, message));
        }
        if !is_braced {
            return self.value(start, name, out, wanted);
        }
        if self.rest().starts_with('}') {
            self.at += 1;
            return self.value(start, name, out, wanted);
        }
        self.with_word(start, name, out, inside, wanted)
    }

    fn name(&mut self) -> &'t str {
        let rest = self.rest();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        if rest.starts_with(|c: char| c.is_ascii_digit()) {
            return "";
        }
        self.at += end;
        &rest[..end]
    }

    /// `$NAME` or `${NAME}`.
    fn value(
        &mut self,
        start: usize,
        name: &str,
        out: &mut String,
        wanted: Wanted,
    ) -> Result<(), Fault> {
        if wanted == Wanted::No {
            return Ok(());
        }
        match self.variables.get(name) {
            Found::Set(value) => self.put(out, &value, wanted)?,
            Found::NotText => self.complain(start, not_text(name)),
            Found::Absent => {
                let hint = self.variables.hint(name);
                let message = format!("the variable `{name}` is not set{hint}");
                self.complain(start, message);
            }
            Found::Untold => {}
        }
        Ok(())
    }

    /// `${NAME:-…}` and its like, from behind the name.
    fn with_word(
        &mut self,
        start: usize,
        name: &str,
        out: &mut String,
        inside: Inside,
        wanted: Wanted,
    ) -> Result<(), Fault> {
        let rest = self.rest();
        let Some(form) = FORMS.iter().find(|form| rest.starts_with(form.sign)) else {
            let message = if rest.is_empty() {
                "this `${` is never closed".to_owned()
            } else {
                format!(
                    "expected `}}`, or one of `:-`, `-`, `:?`, `?`, `:+`, `+`, after `${{{name}`"
                )
            };
            return Err(self.fault(start, message));
        };
        self.at += form.sign.len();
        let found = self.variables.get(name);
        if found == Found::NotText && wanted == Wanted::Yes {
            self.complain(start, not_text(name));
        }
        let value = match &found {
            Found::Set(value) if !form.is_strict || !value.is_empty() => Some(value),
            Found::Set(_) | Found::NotText | Found::Absent | Found::Untold => None,
        };
        let is_word_wanted = match form.word {
            Word::Default => value.is_none(),
            Word::Complaint => false,
            Word::Replacement => value.is_some(),
        };
        let level = match inside {
            Inside::Value => 1,
            Inside::Braces(level) => level + 1,
        };
        self.meter
            .reach(Resource::Depth, level)
            .map_err(|exceeded| self.beyond(start, exceeded))?;
        let word_start = self.at;
        let of_word = if is_word_wanted { wanted } else { Wanted::No };
        self.text(out, Inside::Braces(level), of_word)?;
        let word = &self.text[word_start..self.at];
        if self.rest().is_empty() {
            return Err(self.fault(start, "this `${` is never closed"));
        }
        self.at += 1;
        match (form.word, value, &found) {
            (Word::Default | Word::Complaint, Some(value), _) => self.put(out, value, wanted)?,
            (Word::Complaint, None, Found::Set(_) | Found::Absent) if wanted == Wanted::Yes => {
                let is_empty = found != Found::Absent;
                let state = if is_empty { "empty" } else { "not set" };
                let colon = if word.is_empty() { "" } else { ": " };
                let message = format!("the variable `{name}` is {state}{colon}{word}");
                self.complain(start, message);
            }
            _ => {}
        }
        Ok(())
    }

    /// Notes what is wrong with a mention that is read to its end.
    fn complain(&mut self, start: usize, message: impl Into<String>) {
        let fault = self.fault(start, message);
        self.faults.push(fault);
    }

    fn fault(&self, at: usize, message: impl Into<String>) -> Fault {
        Fault {
            at,
            end: self.at,
            message: message.into(),
            is_last: false,
        }
    }

    fn beyond(&self, at: usize, exceeded: Exceeded) -> Fault {
        Fault {
            is_last: true,
            ..self.fault(at, exceeded.to_string())
        }
    }
}

fn not_text(name: &str) -> String {
    format!("the variable `{name}` is not UTF-8 text")
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::document::budget::Cost;
    use crate::document::{self, Format, write};

    const ENVIRONMENT: [(&str, &str); 5] = [
        ("SET", "value"),
        ("EMPTY", ""),
        ("PORT", "8080"),
        ("DOLLARS", "$SET ${SET}"),
        ("NO", "no"),
    ];

    fn environment() -> Vec<(OsString, OsString)> {
        let pair = |(name, value): (&str, &str)| (name.into(), value.into());
        ENVIRONMENT.into_iter().map(pair).collect()
    }

    fn read(text: &str, meter: &mut Meter) -> (Node, Interpolated) {
        let source = Arc::new(Source {
            name: "a".to_owned(),
            text: text.to_owned(),
        });
        let mut root = document::parse(&source, Format::Yaml).unwrap();
        let environment = environment();
        let mut variables = Variables::new(&environment, None);
        let done = interpolate(&mut root, &source, &mut variables, meter);
        (root, done)
    }

    /// What a text becomes, or the places and words of what is wrong.
    fn filled(text: &str) -> Result<String, Vec<String>> {
        let (root, done) = read(&format!("- {text:?}"), &mut Meter::default());
        if done.problems.is_empty() {
            let Content::List(items) = root.content else {
                panic!("no list");
            };
            return Ok(items[0].scalar().unwrap().text.clone());
        }
        let told = |problem: &Problem| {
            let column = problem.place.line_and_column().unwrap().1;
            // Before the text stand a dash, a blank and a quote.
            format!("{} {}", column - 4, problem.message)
        };
        Err(done.problems.iter().map(told).collect())
    }

    #[test]
    fn every_form_means_what_it_means_to_compose() {
        for (text, expected) in [
            ("a $SET b", "a value b"),
            ("${SET}", "value"),
            ("$SET.$SET-x", "value.value-x"),
            ("$EMPTY|${EMPTY}", "|"),
            ("${SET-d}|${EMPTY-d}|${NONE-d}", "value||d"),
            ("${SET:-d}|${EMPTY:-d}|${NONE:-d}|${NONE:-}", "value|d|d|"),
            ("${SET+r}|${EMPTY+r}|${NONE+r}", "r|r|"),
            ("${SET:+r}|${EMPTY:+r}|${NONE:+r}", "r||"),
            ("${SET?e}|${EMPTY?e}|${SET:?e}", "value||value"),
            ("${NONE:-${NOR:-${SET}}}", "value"),
            ("${NONE:-a ${SET} b}c", "a value bc"),
            ("${SET:-${NONE}}", "value"),
            ("${SET:+${PORT}}", "8080"),
            ("${NONE+$NONE}", ""),
            ("${NONE:-$$x}", "$x"),
            ("$$|$$$$|$${SET}|$$SET", "$|$$|${SET}|$SET"),
            ("$DOLLARS", "$SET ${SET}"),
            ("{}}", "{}}"),
            ("${NONE:-a:-b?c}", "a:-b?c"),
            ("${NONE:-\n}", "\n"),
        ] {
            assert_eq!(filled(text), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_at_its_dollar_and_all_at_once() {
        for (text, expected) in [
            (
                "a $NONE",
                &["2 the variable `NONE` is not set; a default is written `${NONE:-default}`"][..],
            ),
            (
                "${SETT} $PROT",
                &[
                    "0 the variable `SETT` is not set; did you mean `SET`?",
                    "8 the variable `PROT` is not set; did you mean `PORT`?",
                ],
            ),
            (
                "a ${NONE?give it}",
                &["2 the variable `NONE` is not set: give it"],
            ),
            ("${EMPTY:?}", &["0 the variable `EMPTY` is empty"]),
            (
                "${NONE:?see $SET}",
                &["0 the variable `NONE` is not set: see $SET"],
            ),
            ("${NONE:-${NOR}}", &["8 the variable `NOR` is not set"]),
            (
                "costs 5$",
                &[
                    "7 expected the name of a variable, or `{`, after `$`; for a dollar sign write `$$`",
                ],
            ),
            ("$1", &["0 expected the name"]),
            ("$(date)", &["0 expected the name"]),
            ("${}", &["0 expected the name of a variable after `${`"]),
            ("${SET", &["0 this `${` is never closed"]),
            ("${SET:-a", &["0 this `${` is never closed"]),
            ("${SET:-${SET}", &["0 this `${` is never closed"]),
            ("${SET!}", &["0 expected `}`, or one of"]),
            ("${SET:}", &["0 expected `}`, or one of"]),
        ] {
            let found = filled(text).unwrap_err();
            assert_eq!(found.len(), expected.len(), "{text}: {found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.starts_with(expected), "{text}: {found}");
            }
        }
    }

    #[test]
    fn only_values_are_looked_through_and_neither_shells_nor_what_is_free() {
        let text = "$SET: $SET
x-a: &a { shell: $SET, b: $NONE }
services:
  shell: { shell: $SET, cwd: $SET, x-b: $SET, command: [a, $SET] }
  env: { env: { shell: $SET, x-c: $SET }, readiness: { shell: $SET, tcp: $SET } }
defaults: { shell: $SET, stop: { command: { shell: $SET } } }
";
        let expected = "$SET: value
x-a:
  shell: $SET
  b: $NONE
services:
  shell:
    shell: $SET
    cwd: value
    x-b: $SET
    command: [a, value]
  env:
    env:
      shell: value
      x-c: value
    readiness:
      shell: $SET
      tcp: value
defaults:
  shell: $SET
  stop:
    command:
      shell: $SET
";
        let (root, done) = read(text, &mut Meter::default());
        assert_eq!(write::yaml(&root, &write::unveiled), expected);
        assert!(done.problems.is_empty());
        assert_eq!(done.filled.len(), 6);
    }

    #[test]
    fn a_value_has_the_kind_that_it_looks_like_with_or_without_quotes() {
        for (text, kind) in [
            ("$PORT", ScalarKind::Integer),
            ("\"${PORT}\"", ScalarKind::Integer),
            ("${NONE:-true}", ScalarKind::Bool),
            ("${NONE:-1.5}", ScalarKind::Float),
            ("$EMPTY", ScalarKind::Text),
            ("${NONE:-null}", ScalarKind::Text),
            ("$NO", ScalarKind::Text),
            ("0$PORT", ScalarKind::Text),
            ("\"$$5\"", ScalarKind::Text),
        ] {
            let (root, _) = read(text, &mut Meter::default());
            assert_eq!(root.scalar().unwrap().kind, kind, "{text}");
        }
    }

    #[test]
    fn dollars_are_found_in_every_kind_of_scalar() {
        for (text, place) in [
            ("a: x $NONE", (1, 6)),
            ("a: 'it''s $NONE'", (1, 11)),
            ("a: \"\\t\\t$NONE\"", (1, 9)),
            ("a: |\n  x\n  y $NONE\n", (3, 5)),
            ("a: >\n  $SET\n\n  $NONE\n", (4, 3)),
            ("a: x\n  $NONE y\n", (2, 3)),
            // The escape is a dollar too, so that they cannot be told apart.
            ("a: \"\\x24$ $NONE\"", (1, 4)),
        ] {
            let (_, done) = read(text, &mut Meter::default());
            let places: Vec<_> = done
                .problems
                .iter()
                .map(|it| it.place.line_and_column())
                .collect();
            assert_eq!(places, [Some(place)], "{text}");
        }
    }

    #[test]
    fn what_variables_cost_is_bounded() {
        let many = format!(
            "- {}",
            "$EMPTY".repeat(Cost::BUDGET.of(Resource::Variables) + 1)
        );
        let deep = format!("- {}{}", "${NONE:-".repeat(10_000), "}".repeat(10_000));
        let unset: String = "- $NONE\n".repeat(2_000);
        for (text, resource) in [
            (many, Resource::Variables),
            (deep, Resource::Depth),
            (unset, Resource::Problems),
        ] {
            let mut meter = Meter::default();
            let (_, done) = read(&text, &mut meter);
            let most = Cost::BUDGET.of(resource);
            assert!(meter.cost().of(resource) <= most);
            if resource == Resource::Problems {
                assert_eq!(done.problems.len(), most);
            } else {
                let told = &done.problems[0].message;
                assert!(told.contains("too much"), "{told}");
            }
        }
        let mut meter = Meter::within(Cost::BUDGET.with(Resource::Text, 20));
        let (_, done) = read("- $SET $SET $SET $SET\n- $SET\n", &mut meter);
        assert_eq!(done.problems.len(), 1);
        assert_eq!(
            done.problems[0].message,
            "too much: more than 20 bytes of text with aliases and variables expanded"
        );
        assert_eq!(meter.cost().of(Resource::Text), 18);
    }
}
