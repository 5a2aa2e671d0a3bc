//! A tree of nodes as text that reads back to the same tree.

use std::fmt::Write as _;

use crate::document::{Content, Entry, Format, Node, Scalar, ScalarKind};
use crate::quantity;

/// A whole document in a format.
pub fn document(node: &Node, format: Format) -> Result<String, toml::ser::Error> {
    match format {
        Format::Yaml => {
            let mut text = String::new();
            write_yaml(node, 0, &mut text);
            Ok(text)
        }
        Format::Toml => toml::to_string(&as_toml(node)),
    }
}

/// As a value of JSON.
pub fn json(node: &Node) -> serde_json::Value {
    match &node.content {
        Content::Scalar(scalar) => json_scalar(scalar),
        Content::List(items) => items.iter().map(json).collect(),
        Content::Map(entries) => entries
            .iter()
            .map(|entry| (entry.key.clone(), json(&entry.value)))
            .collect(),
    }
}

/// A text as a scalar of YAML within a line.
pub fn yaml_text(text: &str) -> String {
    if is_plain(text) {
        text.to_owned()
    } else {
        // What JSON quotes, YAML reads, but for a few characters that it wants escaped.
        let quoted = serde_json::Value::from(text).to_string();
        let mut shown = String::with_capacity(quoted.len());
        for c in quoted.chars() {
            if is_special(c) {
                // Writing to a string cannot fail.
                let _infallible = write!(shown, "\\u{:04x}", u32::from(c));
            } else {
                shown.push(c);
            }
        }
        shown
    }
}

/// Characters that YAML does not take as they are, or takes for the end of a line.
fn is_special(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        )
}

/// A text as a string of TOML.
pub fn toml_text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Whether every reader of YAML takes it for this text without quotes; in doubt it does not.
fn is_plain(text: &str) -> bool {
    /// What YAML 1.1 takes for something else.
    const WORDS: [&str; 12] = [
        "y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "nan", "inf",
    ];
    // Signs that mean something at the beginning only, or not at all; commas and brackets do in a list.
    let is_calm = |c: char| c.is_ascii_alphanumeric() || " _-./:$=+@;()~%&*<>|!'\"^".contains(c);
    let begins = |c: char| c.is_ascii_alphabetic() || c == '/';
    let is_word = WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    quantity::duration(text).is_ok()
        || (text.starts_with(begins) || text.starts_with("./"))
            && text.chars().all(is_calm)
            && !text.ends_with([' ', ':'])
            && !text.contains(": ")
            && !is_word
}

fn write_yaml(node: &Node, depth: usize, text: &mut String) {
    match &node.content {
        Content::Scalar(scalar) => {
            text.push_str(&yaml_scalar(scalar, depth));
            text.push('\n');
        }
        Content::List(items) => {
            for item in items {
                text.push_str(&"  ".repeat(depth));
                text.push_str("- ");
                text.push_str(&flow(item));
                text.push('\n');
            }
        }
        Content::Map(entries) => {
            for entry in entries {
                write_entry(entry, depth, text);
            }
        }
    }
}

fn write_entry(entry: &Entry, depth: usize, text: &mut String) {
    let key = yaml_text(&entry.key);
    let indent = "  ".repeat(depth);
    let _infallible = write!(text, "{indent}{key}:");
    match &entry.value.content {
        Content::Map(entries) if !entries.is_empty() => {
            text.push('\n');
            write_yaml(&entry.value, depth + 1, text);
        }
        Content::Scalar(scalar) => {
            text.push(' ');
            text.push_str(&yaml_scalar(scalar, depth + 1));
            text.push('\n');
        }
        Content::Map(_) | Content::List(_) => {
            text.push(' ');
            text.push_str(&flow(&entry.value));
            text.push('\n');
        }
    }
}

/// In one line.
fn flow(node: &Node) -> String {
    match &node.content {
        Content::Scalar(scalar) => match scalar.kind {
            ScalarKind::Text => yaml_text(&scalar.text),
            ScalarKind::Integer
            | ScalarKind::Float
            | ScalarKind::Bool
            | ScalarKind::Datetime
            | ScalarKind::Null => unquoted(scalar),
        },
        Content::List(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Content::Map(entries) => {
            let entries: Vec<String> = entries
                .iter()
                .map(|entry| format!("{}: {}", yaml_text(&entry.key), flow(&entry.value)))
                .collect();
            if entries.is_empty() {
                "{}".to_owned()
            } else {
                format!("{{ {} }}", entries.join(", "))
            }
        }
    }
}

fn unquoted(scalar: &Scalar) -> String {
    if scalar.kind == ScalarKind::Null {
        "null".to_owned()
    } else {
        scalar.text.clone()
    }
}

fn yaml_scalar(scalar: &Scalar, depth: usize) -> String {
    if scalar.kind != ScalarKind::Text {
        return unquoted(scalar);
    }
    if is_block(&scalar.text) {
        return block(&scalar.text, depth);
    }
    yaml_text(&scalar.text)
}

/// Whether a text of several lines can stand as it is, with nothing in it that only quotes can show.
fn is_block(text: &str) -> bool {
    let shows = |line: &str| !line.ends_with([' ', '\t']) && !line.chars().any(is_special);
    let body = text.strip_suffix('\n').unwrap_or(text);
    body.contains('\n')
        && !body.starts_with([' ', '\n'])
        && !body.ends_with('\n')
        && body.split('\n').all(shows)
}

fn block(text: &str, depth: usize) -> String {
    let (sign, body) = match text.strip_suffix('\n') {
        Some(body) => ("|", body),
        None => ("|-", text),
    };
    let mut shown = sign.to_owned();
    for line in body.split('\n') {
        shown.push('\n');
        if !line.is_empty() {
            shown.push_str(&"  ".repeat(depth));
            shown.push_str(line);
        }
    }
    shown
}

/// TOML has no null: a key without a value is left out.
fn as_toml(node: &Node) -> toml::Value {
    match &node.content {
        Content::Scalar(scalar) => toml_scalar(scalar),
        Content::List(items) => toml::Value::Array(items.iter().map(as_toml).collect()),
        Content::Map(entries) => toml::Value::Table(
            entries
                .iter()
                .filter(|entry| {
                    let scalar = entry.value.scalar();
                    scalar.is_none_or(|scalar| scalar.kind != ScalarKind::Null)
                })
                .map(|entry| (entry.key.clone(), as_toml(&entry.value)))
                .collect(),
        ),
    }
}

fn toml_scalar(scalar: &Scalar) -> toml::Value {
    let text = || toml::Value::from(scalar.text.as_str());
    let digits = || scalar.text.replace('_', "");
    match scalar.kind {
        ScalarKind::Text | ScalarKind::Datetime | ScalarKind::Null => text(),
        ScalarKind::Integer => digits().parse::<i64>().map_or_else(|_| text(), Into::into),
        ScalarKind::Float => digits().parse::<f64>().map_or_else(|_| text(), Into::into),
        ScalarKind::Bool => scalar
            .text
            .parse::<bool>()
            .map_or_else(|_| text(), Into::into),
    }
}

fn json_scalar(scalar: &Scalar) -> serde_json::Value {
    let text = || serde_json::Value::from(scalar.text.as_str());
    let digits = || scalar.text.replace('_', "");
    match scalar.kind {
        ScalarKind::Null => serde_json::Value::Null,
        ScalarKind::Text | ScalarKind::Datetime => text(),
        ScalarKind::Integer => digits().parse::<i64>().map_or_else(|_| text(), Into::into),
        ScalarKind::Float => digits().parse::<f64>().map_or_else(|_| text(), Into::into),
        ScalarKind::Bool => scalar
            .text
            .parse::<bool>()
            .map_or_else(|_| text(), Into::into),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::document::{self, Source};

    fn text(text: &str) -> Node {
        Node {
            span: document::Span::default(),
            content: Content::Scalar(Scalar {
                text: text.to_owned(),
                kind: ScalarKind::Text,
            }),
        }
    }

    #[test]
    fn every_text_reads_back_as_it_was() {
        let texts = [
            "",
            " ",
            "a",
            "no",
            "ON",
            "~",
            "1.10",
            "10s",
            "0x1f",
            "1e3",
            "22:22",
            "2026-11-01",
            "a: b",
            "a:",
            "a:b",
            "http://x:80/y=z",
            "a -p $X; b 'c' | \"d\" && !e",
            "a #b",
            "- a",
            "***",
            "*a",
            "&a",
            "!a",
            "@a",
            "%a",
            "{a",
            "[a",
            "|",
            ">",
            "'a'",
            "\"a\"",
            "a\\b",
            "ä",
            "\u{7f}",
            "\u{85}",
            "\u{2028}",
            "\u{feff}a",
            "a\tb",
            "a\nb",
            "a\nb\n",
            "a\n\nb\n",
            "a\n  b\nc",
            " a\nb",
            "a\nb\n\n",
            "a \nb",
            "\na",
            "a\r\nb",
            "${X}",
            "./a",
            "../a",
            "null",
            "a,b",
            "a]",
        ];
        for given in texts {
            let entry = |key: &str, value| Entry {
                key: key.to_owned(),
                key_span: document::Span::default(),
                value,
            };
            let list = Node {
                span: document::Span::default(),
                content: Content::List(vec![text(given), text("x")]),
            };
            let tree = Node {
                span: document::Span::default(),
                content: Content::Map(vec![
                    entry("one", text(given)),
                    entry("list", list),
                    entry("last", text("end")),
                ]),
            };
            for format in [Format::Yaml, Format::Toml] {
                let written = document(&tree, format).unwrap();
                let source = Arc::new(Source {
                    name: "written".to_owned(),
                    text: written.clone(),
                });
                let read = document::parse(&source, format);
                let read = read.unwrap_or_else(|error| panic!("{given:?} {error:?}\n{written}"));
                assert_eq!(json(&read), json(&tree), "{given:?}\n{written}");
            }
        }
    }
}
