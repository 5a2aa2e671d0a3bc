//! A text as a scalar of YAML or TOML, for files that are put together line by line.

use std::fmt::Write as _;

use crate::quantity;

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::document::{Format, Source, parse};

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
            for (format, written) in [
                (Format::Yaml, format!("a: {}\n", yaml_text(given))),
                (Format::Toml, format!("a = {}\n", toml_text(given))),
            ] {
                let source = Arc::new(Source {
                    name: "written".to_owned(),
                    text: written,
                });
                let node = parse(&source, format).unwrap();
                let read = node.get("a").and_then(|node| node.scalar()).unwrap();
                assert_eq!(read.text, given, "{}", source.text);
            }
        }
    }
}
