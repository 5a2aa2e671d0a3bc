//! Files of variables, `NAME=value` a line.
//!
//! A value stands as it is, in single quotes, or in double quotes with `\n`, `\r`, `\t`, `\"`, `\\` and `\$`; quoted ones may
//! go on over lines. A `#` at the start of a line, or after a blank, begins a comment, `export` before a name is passed over,
//! and nothing is put in for `$`. Of a name that stands twice the last value counts.

use std::sync::Arc;

use crate::document::problem::{Place, Problem, Snippet};
use crate::document::{Source, Span};

/// The variables of a file, in its order; otherwise all that is wrong with it. No mistake shows a line: each may hold a secret.
pub fn parse(source: &Arc<Source>) -> Result<Vec<(String, String)>, Vec<Problem>> {
    let mut parser = Parser {
        text: &source.text,
        at: 0,
    };
    let mut variables = Vec::new();
    let mut problems = Vec::new();
    while let Some(start) = parser.next_entry() {
        match parser.entry() {
            Ok(variable) => variables.push(variable),
            Err(wrong) => {
                parser.skip_line();
                let span = Span {
                    start: wrong.at.unwrap_or(start),
                    end: wrong.at.unwrap_or(start),
                };
                let source = Arc::clone(source);
                problems.push(Problem {
                    snippet: Snippet::Hidden,
                    ..Problem::new(Place::File { source, span }, wrong.message)
                });
            }
        }
    }
    if problems.is_empty() {
        Ok(variables)
    } else {
        Err(problems)
    }
}

/// What is wrong, and where, if it is not the whole entry.
struct Wrong {
    at: Option<usize>,
    message: &'static str,
}

fn wrong(message: &'static str) -> Wrong {
    Wrong { at: None, message }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Moves to the next entry, past blank lines and comments; nothing at the end.
    fn next_entry(&mut self) -> Option<usize> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with('#') {
                return (!trimmed.is_empty()).then_some(self.at);
            }
            self.skip_line();
        }
    }

    fn skip_line(&mut self) {
        let rest = self.rest();
        self.at += rest.find('\n').map_or(rest.len(), |newline| newline + 1);
    }

    fn entry(&mut self) -> Result<(String, String), Wrong> {
        let line = self.rest().lines().next().unwrap_or("");
        let Some((name, value)) = line.split_once('=') else {
            return Err(wrong(
                "expected `NAME=value`; to inherit a variable use `env_inherit`",
            ));
        };
        let start_of_value = self.at + (line.len() - value.len());
        let name = name.trim_end();
        let name = name
            .strip_prefix("export")
            .filter(|rest| rest.starts_with([' ', '\t']))
            .map_or(name, str::trim_start);
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !is_name || !name.chars().all(is_part) {
            return Err(wrong(
                "expected the name of a variable before `=`: a letter or `_`, then letters, digits, `_`, `.` or `-`",
            ));
        }
        let name = name.to_owned();
        let blanks = value.len() - value.trim_start_matches([' ', '\t']).len();
        self.at = start_of_value + blanks;
        let value = match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote)?,
            Some(_) | None => self.plain(),
        };
        if value.contains('\0') {
            return Err(Wrong {
                at: Some(start_of_value),
                message: "the value contains a NUL character",
            });
        }
        Ok((name, value))
    }

    /// Up to the end of the line, or to a comment.
    fn plain(&mut self) -> String {
        let line = self.rest().lines().next().unwrap_or("");
        let comment = line
            .char_indices()
            .find(|(at, c)| *c == '#' && (*at == 0 || line[..*at].ends_with([' ', '\t'])))
            .map_or(line.len(), |(at, _)| at);
        let value = line[..comment].trim().to_owned();
        self.skip_line();
        value
    }

    fn quoted(&mut self, quote: char) -> Result<String, Wrong> {
        let opened = self.at;
        let mut value = String::new();
        let mut characters = self.text[opened + 1..].char_indices();
        let end = loop {
            match characters.next() {
                None => {
                    return Err(Wrong {
                        at: Some(opened),
                        message: "this quote is never closed",
                    });
                }
                Some((at, c)) if c == quote => break opened + 1 + at + 1,
                Some((_, '\\')) if quote == '"' => match characters.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, 'r')) => value.push('\r'),
                    Some((_, 't')) => value.push('\t'),
                    Some((_, c @ ('"' | '\\' | '$'))) => value.push(c),
                    Some((_, c)) => value.extend(['\\', c]),
                    None => {}
                },
                Some((_, c)) => value.push(c),
            }
        };
        self.at = end;
        let after = self.rest().lines().next().unwrap_or("").trim_start();
        if !after.is_empty() && !after.starts_with('#') {
            return Err(Wrong {
                at: Some(end),
                message: "expected nothing, or a comment, after the closing quote",
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
        parse(&source)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn values_are_plain_or_quoted() {
        for (text, name, value) in [
            ("A=1", "A", "1"),
            ("A=", "A", ""),
            ("\u{feff}A=1\r\n", "A", "1"),
            ("export A = b c ", "A", "b c"),
            ("A=b # c", "A", "b"),
            ("A=b#c", "A", "b#c"),
            ("A=# c", "A", ""),
            ("A=$B ${C}", "A", "$B ${C}"),
            ("A='a\\n\"$b' # c", "A", "a\\n\"$b"),
            ("A=\"a\\n\\\"\\$\\x\" # c", "A", "a\n\"$\\x"),
            ("A=\"two\nlines\"\n", "A", "two\nlines"),
            ("A=a=b", "A", "a=b"),
            ("a.b-c_1=x", "a.b-c_1", "x"),
            ("export=x", "export", "x"),
            ("A=ä'", "A", "ä'"),
        ] {
            let expected = vec![(name.to_owned(), value.to_owned())];
            assert_eq!(parsed(text), Ok(expected), "{text:?}");
        }
        let several = parsed("# c\n\nA=1\n  B='2'\n\tC=3\nA=4").unwrap();
        assert_eq!(several.len(), 4);
        assert_eq!(parsed(""), Ok(Vec::new()));
        assert_eq!(parsed("# only\n"), Ok(Vec::new()));
    }

    #[test]
    fn mistakes_have_places_and_show_no_line() {
        for (text, place, phrase) in [
            ("A", ".env:1:1", "expected `NAME=value`"),
            ("A=1\n=hunter2", ".env:2:1", "the name of a variable"),
            ("A=1\n  1A=hunter2", ".env:2:3", "the name of a variable"),
            ("A B=hunter2", ".env:1:1", "the name of a variable"),
            ("A='hunter2", ".env:1:3", "never closed"),
            ("A=\"hunter2\\", ".env:1:3", "never closed"),
            ("A='x' hunter2", ".env:1:6", "after the closing quote"),
            ("A=hunter2\0", ".env:1:3", "NUL"),
        ] {
            let found = parsed(text).unwrap_err();
            assert_eq!(found.len(), 1, "{found:#?}");
            assert!(found[0].starts_with(&format!("{place}: ")), "{found:#?}");
            assert!(found[0].contains(phrase), "{found:#?}");
            assert!(!found[0].contains("hunter2"), "{found:#?}");
        }
        assert_eq!(parsed("A\nB\nC=1\nD").unwrap_err().len(), 3);
    }
}
