//! Trees as text that reads back to the same tree.
//!
//! What a format does not have is written as the nearest thing that it has: YAML and JSON take a date for text, JSON a number
//! in a spelling that it does not know for its value, and TOML, which has no nothing, leaves an empty entry out and takes
//! an empty item for an empty text.

use std::fmt::Write as _;

use crate::document::{Content, Entry, Node, Scalar, ScalarKind};

/// Whether a scalar may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// It may.
    Whole,
    /// It may not: [`HIDDEN`] stands for it.
    Hidden,
}

/// Stands for what must not be shown.
pub const HIDDEN: &str = "***";

/// Decides about each scalar, by the keys on the way to it; an item of a list has the way of its list.
pub type Veil<'a> = dyn Fn(&[&str], &Node) -> Shown + 'a;

/// A veil that hides nothing.
pub fn unveiled(_: &[&str], _: &Node) -> Shown {
    Shown::Whole
}

/// A tree as YAML.
pub fn yaml(root: &Node, veil: &Veil<'_>) -> String {
    let mut writer = Writer::new(veil);
    match &root.content {
        Content::Map(entries) if !entries.is_empty() => writer.yaml_map(entries, 0),
        Content::List(items) if !items.is_empty() => writer.yaml_list(items, 0),
        Content::Scalar(_) | Content::List(_) | Content::Map(_) => {
            writer.yaml_inline(root, Around::Line);
            writer.out.push('\n');
        }
    }
    writer.out
}

/// A tree as TOML; what is no map at its root becomes the only value, under an empty key.
pub fn toml(root: &Node, veil: &Veil<'_>) -> String {
    let mut writer = Writer::new(veil);
    if let Content::Map(entries) = &root.content {
        writer.toml_table(entries, "");
    } else {
        writer.toml_entry("\"\"", root);
    }
    writer.out
}

/// A tree as JSON.
pub fn json(root: &Node, veil: &Veil<'_>) -> String {
    let mut writer = Writer::new(veil);
    writer.json(root, 0);
    writer.out.push('\n');
    writer.out
}

struct Writer<'a> {
    veil: &'a Veil<'a>,
    /// The keys on the way to what is written.
    path: Vec<&'a str>,
    out: String,
}

/// What a YAML text without quotes must be told apart from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    /// The end of a line.
    Line,
    /// The brackets and commas of a list.
    Flow,
}

impl<'a> Writer<'a> {
    fn new(veil: &'a Veil<'a>) -> Self {
        Self {
            veil,
            path: Vec::new(),
            out: String::new(),
        }
    }

    fn shown(&self, node: &Node) -> Shown {
        (self.veil)(&self.path, node)
    }

    fn start_line(&mut self, indent: usize) {
        self.out.extend(std::iter::repeat_n(' ', indent));
    }

    fn yaml_map(&mut self, entries: &'a [Entry], indent: usize) {
        for (index, entry) in entries.iter().enumerate() {
            // The first key of an item stands behind its dash.
            if index > 0 || self.out.is_empty() || self.out.ends_with('\n') {
                self.start_line(indent);
            }
            let key = yaml_key(&entry.key);
            if key.len() > LONGEST_KEY {
                self.out.push_str("? ");
                self.out.push_str(&key);
                self.out.push('\n');
                self.start_line(indent);
            } else {
                self.out.push_str(&key);
            }
            self.out.push(':');
            self.path.push(&entry.key);
            self.yaml_value(&entry.value, indent);
            self.path.pop();
        }
    }

    /// What stands behind a colon.
    fn yaml_value(&mut self, value: &'a Node, indent: usize) {
        match &value.content {
            Content::Map(entries) if !entries.is_empty() => {
                self.out.push('\n');
                self.yaml_map(entries, indent + 2);
            }
            Content::List(items) if !items.is_empty() && !self.fits_in_a_line(items) => {
                self.out.push('\n');
                self.yaml_list(items, indent + 2);
            }
            Content::Scalar(scalar)
                if scalar.kind == ScalarKind::Text
                    && is_block(&scalar.text)
                    && self.shown(value) == Shown::Whole =>
            {
                self.yaml_block(&scalar.text, indent + 2);
            }
            Content::Scalar(_) | Content::List(_) | Content::Map(_) => {
                self.out.push(' ');
                self.yaml_inline(value, Around::Line);
                self.out.push('\n');
            }
        }
    }

    fn yaml_list(&mut self, items: &'a [Node], indent: usize) {
        for (index, item) in items.iter().enumerate() {
            if index > 0 || self.out.is_empty() || self.out.ends_with('\n') {
                self.start_line(indent);
            }
            self.out.push_str("- ");
            match &item.content {
                Content::Map(entries) if !entries.is_empty() => self.yaml_map(entries, indent + 2),
                Content::List(items) if !items.is_empty() => self.yaml_list(items, indent + 2),
                Content::Scalar(_) | Content::List(_) | Content::Map(_) => {
                    self.yaml_inline(item, Around::Line);
                    self.out.push('\n');
                }
            }
        }
    }

    /// Whether a list is short enough, and simple enough, to be read in one line.
    fn fits_in_a_line(&self, items: &[Node]) -> bool {
        const WIDEST: usize = 80;
        let width = items.iter().map(|item| match &item.content {
            Content::Scalar(scalar) if self.shown(item) == Shown::Whole => {
                scalar.text.chars().count() + 2
            }
            Content::Scalar(_) => HIDDEN.len() + 4,
            Content::List(_) | Content::Map(_) => WIDEST,
        });
        width.sum::<usize>() < WIDEST
    }

    /// A scalar, a list of scalars, or something empty.
    fn yaml_inline(&mut self, node: &Node, around: Around) {
        match &node.content {
            Content::Scalar(scalar) => {
                let text = match self.shown(node) {
                    Shown::Hidden => yaml_text(HIDDEN, around),
                    Shown::Whole => yaml_scalar(scalar, around),
                };
                self.out.push_str(&text);
            }
            Content::List(items) => {
                self.out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.out.push_str(", ");
                    }
                    self.yaml_inline(item, Around::Flow);
                }
                self.out.push(']');
            }
            Content::Map(_) => self.out.push_str("{}"),
        }
    }

    /// A text of several lines, as it stands.
    fn yaml_block(&mut self, text: &str, indent: usize) {
        let body = text.trim_end_matches('\n');
        let chomping = match text.len() - body.len() {
            0 => "-",
            1 => "",
            _ => "+",
        };
        self.out.push_str(" |");
        self.out.push_str(chomping);
        self.out.push('\n');
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            if !line.is_empty() {
                self.start_line(indent);
                self.out.push_str(line);
            }
            self.out.push('\n');
        }
    }

    /// Entries in their order: maps at the end get headers of their own, since nothing else can follow a header.
    fn toml_table(&mut self, entries: &'a [Entry], header: &str) {
        let is_table = |entry: &&Entry| matches!(&entry.value.content, Content::Map(entries) if !entries.is_empty());
        let tables = entries.iter().rev().take_while(is_table).count();
        let (before, tables) = entries.split_at(entries.len() - tables);
        if !before.is_empty() && !header.is_empty() {
            self.toml_header(header);
        }
        for entry in before {
            self.path.push(&entry.key);
            self.toml_entry(&toml_key(&entry.key), &entry.value);
            self.path.pop();
        }
        for entry in tables {
            let key = toml_key(&entry.key);
            let header = if header.is_empty() {
                key
            } else {
                format!("{header}.{key}")
            };
            self.path.push(&entry.key);
            if let Content::Map(entries) = &entry.value.content {
                // Where all is left out, the header alone says that there is a map.
                if entries.iter().all(|entry| is_null(&entry.value)) {
                    self.toml_header(&header);
                } else {
                    self.toml_table(entries, &header);
                }
            }
            self.path.pop();
        }
    }

    fn toml_header(&mut self, header: &str) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        // Writing to a string cannot fail.
        let _infallible = writeln!(self.out, "[{header}]");
    }

    /// One key with its value; a map has its keys dotted.
    fn toml_entry(&mut self, key: &str, value: &'a Node) {
        match &value.content {
            Content::Map(entries) if !entries.iter().all(|entry| is_null(&entry.value)) => {
                for entry in entries {
                    self.path.push(&entry.key);
                    self.toml_entry(&format!("{key}.{}", toml_key(&entry.key)), &entry.value);
                    self.path.pop();
                }
            }
            Content::Scalar(scalar) if scalar.kind == ScalarKind::Null => {}
            Content::Scalar(_) | Content::List(_) | Content::Map(_) => {
                self.out.push_str(key);
                self.out.push_str(" = ");
                self.toml_inline(value);
                self.out.push('\n');
            }
        }
    }

    fn toml_inline(&mut self, node: &'a Node) {
        match &node.content {
            Content::Scalar(scalar) => {
                let text = match self.shown(node) {
                    Shown::Hidden => toml_text(HIDDEN),
                    Shown::Whole => toml_scalar(scalar),
                };
                self.out.push_str(&text);
            }
            Content::List(items) => {
                self.out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.out.push_str(", ");
                    }
                    self.toml_inline(item);
                }
                self.out.push(']');
            }
            Content::Map(entries) => {
                self.out.push('{');
                let entries = entries.iter().filter(|entry| !is_null(&entry.value));
                for (index, entry) in entries.enumerate() {
                    self.out.push_str(if index > 0 { ", " } else { " " });
                    self.out.push_str(&toml_key(&entry.key));
                    self.out.push_str(" = ");
                    self.path.push(&entry.key);
                    self.toml_inline(&entry.value);
                    self.path.pop();
                }
                if !self.out.ends_with('{') {
                    self.out.push(' ');
                }
                self.out.push('}');
            }
        }
    }

    fn json(&mut self, node: &'a Node, indent: usize) {
        match &node.content {
            Content::Scalar(scalar) => {
                let text = match self.shown(node) {
                    Shown::Hidden => json_text(HIDDEN),
                    Shown::Whole => json_scalar(scalar),
                };
                self.out.push_str(&text);
            }
            Content::List(items) => {
                self.out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.json_next(index, indent + 2);
                    self.json(item, indent + 2);
                }
                self.json_end(items.is_empty(), indent);
                self.out.push(']');
            }
            Content::Map(entries) => {
                self.out.push('{');
                for (index, entry) in entries.iter().enumerate() {
                    self.json_next(index, indent + 2);
                    self.out.push_str(&json_text(&entry.key));
                    self.out.push_str(": ");
                    self.path.push(&entry.key);
                    self.json(&entry.value, indent + 2);
                    self.path.pop();
                }
                self.json_end(entries.is_empty(), indent);
                self.out.push('}');
            }
        }
    }

    fn json_next(&mut self, index: usize, indent: usize) {
        self.out.push_str(if index > 0 { ",\n" } else { "\n" });
        self.start_line(indent);
    }

    fn json_end(&mut self, is_empty: bool, indent: usize) {
        if !is_empty {
            self.out.push('\n');
            self.start_line(indent);
        }
    }
}

fn is_null(node: &Node) -> bool {
    node.scalar()
        .is_some_and(|scalar| scalar.kind == ScalarKind::Null)
}

/// Beyond, YAML wants a key to say that it is one.
const LONGEST_KEY: usize = 512;

fn yaml_key(key: &str) -> String {
    // Merged in, if it stood without quotes.
    if key == "<<" {
        return quoted(key, yaml_escape);
    }
    // Whatever a key is taken for, it is the text of a key.
    if ScalarKind::of_plain(key) != ScalarKind::Null && is_plain(key, Around::Flow) {
        return key.to_owned();
    }
    quoted(key, yaml_escape)
}

fn yaml_scalar(scalar: &Scalar, around: Around) -> String {
    match scalar.kind {
        ScalarKind::Null => "null".to_owned(),
        ScalarKind::Integer | ScalarKind::Float | ScalarKind::Bool
            if ScalarKind::of_plain(&scalar.text) == scalar.kind =>
        {
            scalar.text.clone()
        }
        ScalarKind::Text
        | ScalarKind::Datetime
        | ScalarKind::Integer
        | ScalarKind::Float
        | ScalarKind::Bool => yaml_text(&scalar.text, around),
    }
}

fn yaml_text(text: &str, around: Around) -> String {
    // Others take these for truth values, and a file is read by more than one program.
    const OLD_TRUTHS: [&str; 6] = ["yes", "no", "on", "off", "y", "n"];
    let is_truth = OLD_TRUTHS.iter().any(|old| text.eq_ignore_ascii_case(old));
    if ScalarKind::of_plain(text) == ScalarKind::Text && !is_truth && is_plain(text, around) {
        text.to_owned()
    } else {
        quoted(text, yaml_escape)
    }
}

/// Whether a text needs no quotes, as far as its characters tell. Stricter than YAML: what looks odd is quoted.
fn is_plain(text: &str, around: Around) -> bool {
    const ANYWHERE: &str = "_/.$+-@%=~^()' :";
    const IN_A_LINE: &str = ",;|&*<>?!";
    let may_follow = |c: char| {
        c.is_alphanumeric()
            || ANYWHERE.contains(c)
            || around == Around::Line && IN_A_LINE.contains(c)
    };
    let begins_well = match text.strip_prefix("--").or_else(|| text.strip_prefix('-')) {
        // A flag.
        Some(rest) => rest.starts_with(char::is_alphabetic),
        None => text.starts_with(|c: char| c.is_alphanumeric() || "_/.$+".contains(c)),
    };
    // Older readers know more numbers and dates: octal, base 60 with colons.
    let is_like_a_number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
        && text
            .chars()
            .all(|c| c.is_ascii_hexdigit() || "+-._:xoTZ ".contains(c));
    let is_like_a_key = match around {
        Around::Line => text.contains(": ") || text.ends_with(':'),
        Around::Flow => text.contains(':'),
    };
    begins_well
        && !is_like_a_number
        && !is_like_a_key
        && !text.ends_with(' ')
        && text.chars().all(may_follow)
}

/// Whether a text is best read as a block: lines that hold nothing that a block would lose.
fn is_block(text: &str) -> bool {
    let is_good = |c: char| c == '\n' || c == '\t' || !c.is_control() && !is_odd(c);
    let body = text.trim_end_matches('\n');
    body.contains('\n')
        && !body.starts_with([' ', '\t', '\n'])
        && body.chars().all(is_good)
        && body
            .split('\n')
            .all(|line| !line.ends_with([' ', '\t']) && !line.starts_with('\t'))
}

/// Characters that are lines or nothing to the eye.
fn is_odd(c: char) -> bool {
    matches!(
        c,
        '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
    )
}

/// In double quotes, each character that cannot stand there itself escaped.
fn quoted(text: &str, escape: fn(char) -> String) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if c.is_control() || is_odd(c) => out.push_str(&escape(c)),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

/// All that needs it lies in the basic plane; JSON and TOML have the same.
fn yaml_escape(c: char) -> String {
    format!("\\u{:04X}", u32::from(c))
}

fn toml_key(key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !key.is_empty() && key.chars().all(is_bare) {
        key.to_owned()
    } else {
        toml_text(key)
    }
}

fn toml_text(text: &str) -> String {
    quoted(text, yaml_escape)
}

fn toml_scalar(scalar: &Scalar) -> String {
    let text = scalar.text.as_str();
    match scalar.kind {
        ScalarKind::Null => "\"\"".to_owned(),
        ScalarKind::Bool => text.to_ascii_lowercase(),
        ScalarKind::Datetime => text.to_owned(),
        ScalarKind::Integer if integer(text).is_some() => text.to_owned(),
        ScalarKind::Float => toml_float(text),
        ScalarKind::Text | ScalarKind::Integer => toml_text(text),
    }
}

/// TOML wants digits on both sides of the point.
fn toml_float(text: &str) -> String {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let sign_length = mantissa.len() - mantissa.trim_start_matches(['+', '-']).len();
    let (sign, digits) = mantissa.split_at(sign_length);
    let before = if digits.starts_with('.') { "0" } else { "" };
    let after = if digits.ends_with('.') { "0" } else { "" };
    format!("{sign}{before}{digits}{after}{exponent}")
}

/// The value of a whole number, if it is not too large for any reader.
fn integer(text: &str) -> Option<i64> {
    let digits = text.replace('_', "");
    for (sign, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = digits.strip_prefix(sign) {
            return i64::from_str_radix(digits, radix).ok();
        }
    }
    digits.parse().ok()
}

fn json_text(text: &str) -> String {
    quoted(text, yaml_escape)
}

fn json_scalar(scalar: &Scalar) -> String {
    let text = scalar.text.as_str();
    let is_json = serde_json::from_str::<serde_json::Number>(text).is_ok();
    match scalar.kind {
        ScalarKind::Null => "null".to_owned(),
        ScalarKind::Bool => text.to_ascii_lowercase(),
        ScalarKind::Integer | ScalarKind::Float if is_json => text.to_owned(),
        ScalarKind::Integer => integer(text).map_or_else(|| json_text(text), |n| n.to_string()),
        ScalarKind::Float => {
            let float = toml_float(text).replace('_', "");
            float.strip_prefix('+').unwrap_or(&float).to_owned()
        }
        ScalarKind::Text | ScalarKind::Datetime => json_text(text),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::document::{self, Format, Source, Span};

    fn read(text: &str, format: Format) -> Node {
        let source = Arc::new(Source {
            name: "a".to_owned(),
            text: text.to_owned(),
        });
        document::parse(&source, format)
            .unwrap_or_else(|problems| panic!("{problems:?} in\n{text}"))
    }

    /// A tree without its places.
    fn plain(node: &Node) -> Node {
        let span = Span::default();
        let content = match &node.content {
            Content::Scalar(scalar) if scalar.kind == ScalarKind::Null => {
                return Node::of_scalar("", ScalarKind::Null, span);
            }
            Content::Scalar(scalar) => Content::Scalar(scalar.clone()),
            Content::List(items) => Content::List(items.iter().map(plain).collect()),
            Content::Map(entries) => Content::Map(
                entries
                    .iter()
                    .map(|entry| Entry {
                        key: entry.key.clone(),
                        key_span: span,
                        value: plain(&entry.value),
                    })
                    .collect(),
            ),
        };
        Node { span, content }
    }

    fn scalar(text: &str, kind: ScalarKind) -> Node {
        Node::of_scalar(text, kind, Span::default())
    }

    fn map(entries: Vec<(String, Node)>) -> Node {
        let entries = entries.into_iter().map(|(key, value)| Entry {
            key,
            key_span: Span::default(),
            value,
        });
        Node {
            span: Span::default(),
            content: Content::Map(entries.collect()),
        }
    }

    fn list(items: Vec<Node>) -> Node {
        Node {
            span: Span::default(),
            content: Content::List(items),
        }
    }

    const TRAPS: [&str; 60] = [
        "",
        " ",
        "~",
        "null",
        "true",
        "True",
        "NO",
        "no",
        "on",
        "y",
        "1.10",
        "0123",
        "0o17",
        "0x1F",
        "1_000",
        "22:22",
        "1e3",
        ".5",
        "5.",
        "-1",
        "+1",
        "inf",
        ".inf",
        "2026-01-01",
        "12:00:00",
        "- a",
        "-",
        "--",
        "---",
        "...",
        "a: b",
        "a:",
        ": a",
        "a #b",
        "#a",
        "*a",
        "&a",
        "!a",
        "@a",
        "`a`",
        "%a",
        "|",
        ">",
        "[a",
        "{a",
        "a]",
        "a, b",
        "\"a\"",
        "'a'",
        "a\nb",
        "a\n",
        "\na",
        "a\n\nb\n\n",
        " a\nb",
        "a\tb",
        "\ta\nb",
        "a\r\nb",
        "a \nb",
        "? a",
        "<<",
    ];

    fn texts() -> impl Strategy<Value = String> {
        prop_oneof![
            proptest::sample::select(TRAPS.to_vec()).prop_map(str::to_owned),
            "[a-z/._-]{1,12}",
            proptest::collection::vec(any::<char>(), 0..12)
                .prop_map(|chars| chars.into_iter().collect()),
            "([ -~\n\t\u{85}\u{2028}\u{feff}\u{e9}\u{1f600}]{0,20})",
        ]
    }

    fn scalars() -> impl Strategy<Value = Node> {
        let number = |texts: &[&'static str], kind| {
            proptest::sample::select(texts.to_vec()).prop_map(move |text| scalar(text, kind))
        };
        prop_oneof![
            6 => texts().prop_map(|text| scalar(&text, ScalarKind::Text)),
            1 => number(&["0", "-7", "1_000", "0x1F", "0o17", "0b1", "+5"], ScalarKind::Integer),
            1 => number(&["1.10", "-0.5", "1e3", "1_0.5E-7"], ScalarKind::Float),
            1 => number(&["true", "false"], ScalarKind::Bool),
        ]
    }

    /// Trees of what every format has.
    fn trees() -> impl Strategy<Value = Node> {
        let inner = scalars().prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(list),
                maps(inner),
            ]
        });
        maps(inner)
    }

    fn maps(values: impl Strategy<Value = Node>) -> impl Strategy<Value = Node> {
        proptest::collection::vec((texts(), values), 0..5).prop_map(|mut entries| {
            let mut seen = std::collections::HashSet::new();
            entries.retain(|(key, _)| seen.insert(key.clone()));
            map(entries)
        })
    }

    proptest! {
        #[test]
        fn a_tree_survives_yaml(tree in trees()) {
            let text = yaml(&tree, &unveiled);
            prop_assert_eq!(plain(&read(&text, Format::Yaml)), tree, "{}", text);
        }

        #[test]
        fn a_tree_survives_toml(tree in trees()) {
            let text = toml(&tree, &unveiled);
            prop_assert_eq!(plain(&read(&text, Format::Toml)), tree, "{}", text);
        }

        #[test]
        fn a_tree_survives_json_but_for_the_spelling_of_numbers(tree in trees()) {
            let text = json(&tree, &unveiled);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
            let again = json(&read(&text, Format::Yaml), &unveiled);
            prop_assert_eq!(again, text);
        }
    }

    #[test]
    fn what_is_written_is_what_people_would_write() {
        let text = "version: 1
services:
  api:
    command: [./api, --port, \"8080\", NO=1]
    env:
      COUNTRY: \"NO\"
      RATIO: \"1.10\"
      EMPTY: \"\"
      URL: http://localhost:80/a?b
    shell: |
      echo one
        echo two
    readiness:
      tcp: \"127.0.0.1:80\"
    description: It's \u{e9}.
    list:
      - a: 1
        b: [x]
      - - z
";
        assert_eq!(yaml(&read(text, Format::Yaml), &unveiled), text);
        let text = "version = 1

[services.api]
command = [\"./api\"]
env.A = \"1\"
restart = \"never\"

[services.api.stop]
signal = \"SIGINT\"

[services.db]
shell = \"redis-server\"

[supervisors.s]
children = [\"api\", { a = 1 }]
";
        assert_eq!(toml(&read(text, Format::Toml), &unveiled), text);
    }

    #[test]
    fn what_a_format_lacks_is_written_as_the_nearest_it_has() {
        let tree = read(
            "a: null\nb: [~, .5]\nc: {d: null}\ne: True\nf: 5.\ng: 99999999999999999999\n",
            Format::Yaml,
        );
        assert_eq!(
            toml(&tree, &unveiled),
            "b = [\"\", 0.5]\nc = {}\ne = true\nf = 5.0\ng = \"99999999999999999999\"\n"
        );
        let dates = read("a = 2026-01-01\n", Format::Toml);
        assert_eq!(yaml(&dates, &unveiled), "a: \"2026-01-01\"\n");
        assert_eq!(json(&dates, &unveiled), "{\n  \"a\": \"2026-01-01\"\n}\n");
        let numbers = read("a: [0x1F, +5, .5, -5., 1_0e+1, 1.10]", Format::Yaml);
        assert_eq!(
            json(&numbers, &unveiled)
                .split_whitespace()
                .collect::<String>(),
            "{\"a\":[31,5,0.5,-5.0,10e+1,1.10]}"
        );
    }

    #[test]
    fn what_must_not_be_shown_is_not() {
        let tree = read(
            "a: {env: {K: hunter2, L: [1, hunter2]}, b: 1}\nc: [hunter2, {d: hunter2}]\n",
            Format::Yaml,
        );
        let veil = |path: &[&str], node: &Node| {
            let is_secret =
                path.contains(&"env") || node.scalar().is_some_and(|it| it.text == "hunter2");
            if is_secret {
                Shown::Hidden
            } else {
                Shown::Whole
            }
        };
        let texts = [yaml(&tree, &veil), toml(&tree, &veil), json(&tree, &veil)];
        assert_eq!(
            texts[0],
            "a:\n  env:\n    K: \"***\"\n    L: [\"***\", \"***\"]\n  b: 1\nc:\n  - \"***\"\n  - d: \"***\"\n"
        );
        for text in texts {
            assert!(
                !text.contains("hunter2") && text.matches("***").count() == 5,
                "{text}"
            );
        }
    }
}
