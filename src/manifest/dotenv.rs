//! Files of variables, `NAME=value` a line.
//!
//! A value stands as it is, or in single quotes, or in double quotes with `\n`, `\r`, `\t`, `\"`, `\\` and `\$`; quoted ones
//! may go on over lines. `#` begins a comment at the start of a line or after a blank; `export` before a name is passed over.
//! Nothing is put in for `$`. Of a name that stands twice the last value counts.

use std::sync::Arc;

use crate::document::problem::{Place, Problem, Snippet};
use crate::document::{Source, Span};

/// The variables of a file, in its order, or all that is wrong with it. No mistake shows its line: it may hold a secret.
pub(super) fn parse(source: &Arc<Source>) -> Result<Vec<(String, String)>, Vec<Problem>> {
    let mut lines = Lines {
        text: &source.text,
        at: 0,
    };
    let mut variables = Vec::new();
    let mut problems = Vec::new();
    while let Some(start) = lines.next_entry() {
        match lines.entry() {
            Ok(variable) => variables.push(variable),
            Err(wrong) => {
                let start = wrong.at.unwrap_or(start);
                let place = Place::File {
                    source: Arc::clone(source),
                    span: Span { start, end: start },
                };
                problems.push(Problem {
                    snippet: Snippet::Hidden,
                    ..Problem::new(place, wrong.message)
                });
                lines.skip_line();
            }
        }
    }
    if problems.is_empty() {
        Ok(variables)
    } else {
        Err(problems)
    }
}

/// What is wrong, and where, if not at the start of the entry.
struct Wrong {
    at: Option<usize>,
    message: &'static str,
}

struct Lines<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lines<'a> {
    /// What is left of the line.
    fn line(&self) -> &'a str {
        self.text[self.at..].lines().next().unwrap_or("")
    }

    fn skip_line(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.find('\n').map_or(rest.len(), |newline| newline + 1);
    }

    /// Moves to the next entry, past blank lines and comments; nothing at the end.
    fn next_entry(&mut self) -> Option<usize> {
        loop {
            let rest = &self.text[self.at..];
            self.at += rest.len() - rest.trim_start().len();
            if self.at == self.text.len() {
                return None;
            }
            if !self.line().starts_with('#') {
                return Some(self.at);
            }
            self.skip_line();
        }
    }

    fn entry(&mut self) -> Result<(String, String), Wrong> {
        let line = self.line();
        let (name, value) = line.split_once('=').ok_or(Wrong {
            at: None,
            message: "expected `NAME=value`",
        })?;
        let name = name.trim_end();
        let name = name
            .strip_prefix("export")
            .filter(|rest| rest.starts_with([' ', '\t']))
            .map_or(name, str::trim_start);
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            || !name.chars().all(is_part)
        {
            return Err(Wrong {
                at: None,
                message: "expected a name before `=`: a letter or `_`, then letters, digits, `_`, `.` or `-`",
            });
        }
        let value = value.trim_start_matches([' ', '\t']);
        self.at += line.len() - value.len();
        let start = self.at;
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote)?,
            Some(_) | None => self.plain(),
        };
        if value.contains('\0') {
            return Err(Wrong {
                at: Some(start),
                message: "the value contains a NUL character",
            });
        }
        Ok((name.to_owned(), value))
    }

    /// Up to a comment, or to the end of the line.
    fn plain(&mut self) -> String {
        let line = self.line();
        let begins_comment = |at: usize| at == 0 || line[..at].ends_with([' ', '\t']);
        let end = line
            .match_indices('#')
            .map(|(at, _)| at)
            .find(|at| begins_comment(*at))
            .unwrap_or(line.len());
        self.skip_line();
        line[..end].trim_end().to_owned()
    }

    fn quoted(&mut self, quote: char) -> Result<String, Wrong> {
        let opened = self.at;
        let mut value = String::new();
        let mut characters = self.text[opened + 1..].char_indices();
        loop {
            let Some((at, c)) = characters.next() else {
                return Err(Wrong {
                    at: Some(opened),
                    message: "this quote is never closed",
                });
            };
            match c {
                _ if c == quote => {
                    self.at = opened + 1 + at + 1;
                    break;
                }
                '\\' if quote == '"' => match characters.next().map(|(_, c)| c) {
                    Some('n') => value.push('\n'),
                    Some('r') => value.push('\r'),
                    Some('t') => value.push('\t'),
                    Some(c @ ('"' | '\\' | '$')) => value.push(c),
                    Some(c) => value.extend(['\\', c]),
                    None => {}
                },
                _ => value.push(c),
            }
        }
        let after = self.line().trim();
        if !after.is_empty() && !after.starts_with('#') {
            return Err(Wrong {
                at: Some(self.at),
                message: "expected the end of the line, or a comment, after the closing quote",
            });
        }
        self.skip_line();
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<(String, String)>, Vec<String>> {
        let source = Arc::new(Source {
            name: ".env".to_owned(),
            text: text.to_owned(),
        });
        parse(&source).map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn values_are_plain_or_quoted() {
        for (text, name, value) in [
            ("A=1", "A", "1"),
            ("A=", "A", ""),
            ("A=1\r\n", "A", "1"),
            ("  export  A = b c  ", "A", "b c"),
            ("exporter=1", "exporter", "1"),
            ("A=b # c", "A", "b"),
            ("A=b#c", "A", "b#c"),
            ("A= # c", "A", ""),
            ("A='b # \\n'", "A", "b # \\n"),
            ("A=\"b\\n\\\"\\$\\x\" # c", "A", "b\n\"$\\x"),
            ("A='b\nc'", "A", "b\nc"),
            ("A=$B ${C}", "A", "$B ${C}"),
            ("A=b=c", "A", "b=c"),
            ("a.b-c=ä", "a.b-c", "ä"),
        ] {
            let expected = vec![(name.to_owned(), value.to_owned())];
            assert_eq!(parsed(text), Ok(expected), "{text:?}");
        }
        assert_eq!(parsed("\n# c\n\t\n"), Ok(Vec::new()));
    }

    #[test]
    fn mistakes_have_places_and_show_no_values() {
        let found = parsed("A=hunter2\nhunter2\n1=hunter2\nB=\"hunter2\" hunter2\n\nC='hunter2")
            .unwrap_err();
        let places: Vec<&str> = found
            .iter()
            .map(|it| it.split(": ").next().unwrap())
            .collect();
        assert_eq!(places, [".env:2:1", ".env:3:1", ".env:4:12", ".env:6:3"]);
        assert!(!found.concat().contains("hunter2"), "{found:?}");
    }
}
