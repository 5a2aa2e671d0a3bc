//! Mistakes in what people wrote, and how they are shown.

use std::fmt;
use std::sync::Arc;

use crate::document::{Source, Span};

/// One mistake: where, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was made.
    pub place: Place,
    /// What is wrong, what was expected, and the nearest known name.
    pub message: String,
    /// What was expected, if the mistake is a value of another kind.
    pub expected: Option<String>,
    /// Whether the line of the file may be shown.
    pub snippet: Snippet,
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a part of a file.
    File {
        /// The file.
        source: Arc<Source>,
        /// The part.
        span: Span,
    },
    /// In an environment variable.
    Environment(String),
    /// In a flag, as it was given.
    Flag(String),
}

/// Whether the line of the file may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snippet {
    /// It may.
    Shown,
    /// It may not: it can hold a secret.
    Hidden,
}

/// All mistakes that were found together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problem {
    /// A mistake whose line may be shown.
    pub fn new(place: Place, message: impl Into<String>) -> Self {
        Self {
            place,
            message: message.into(),
            expected: None,
            snippet: Snippet::Shown,
        }
    }

    /// The line of the file in which it was made, if there is one that may be shown.
    pub fn line(&self) -> Option<&str> {
        match (&self.place, self.snippet) {
            (Place::File { source, span }, Snippet::Shown) => {
                Some(line_around(&source.text, span.start))
            }
            _ => None,
        }
    }

    /// The same with a mark below the part that is meant.
    pub fn snippet(&self) -> Option<String> {
        let Place::File { source, span } = &self.place else {
            return None;
        };
        if self.snippet == Snippet::Hidden {
            return None;
        }
        let at = line_and_column(&source.text, span.start);
        let mut text = String::new();
        write_snippet(&mut text, &source.text, *span, at).ok()?;
        (!text.is_empty()).then(|| text.split_off(1))
    }
}

impl Place {
    /// The name of the file, if it is a part of one.
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::File { source, .. } => Some(&source.name),
            Self::Environment(_) | Self::Flag(_) => None,
        }
    }

    /// The last line of the part, from 1, if it is a part of a file.
    pub fn last_line(&self) -> Option<usize> {
        match self {
            Self::File { source, span } => {
                let last = span.end.saturating_sub(1).max(span.start);
                Some(line_and_column(&source.text, last).0)
            }
            Self::Environment(_) | Self::Flag(_) => None,
        }
    }

    /// The line and column of its first character, both from 1, if it is a part of a file.
    pub fn line_and_column(&self) -> Option<(usize, usize)> {
        match self {
            Self::File { source, span } => Some(line_and_column(&source.text, span.start)),
            Self::Environment(_) | Self::Flag(_) => None,
        }
    }

    /// The line and column behind its last character.
    pub fn end(&self) -> Option<(usize, usize)> {
        match self {
            Self::File { source, span } => Some(line_and_column(&source.text, span.end)),
            Self::Environment(_) | Self::Flag(_) => None,
        }
    }
}

/// The line in which an offset lies.
fn line_around(text: &str, offset: usize) -> &str {
    let offset = boundary(text, offset);
    let start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
    text[start..].lines().next().unwrap_or("")
}

/// Columns count characters, not bytes.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    Lines::default().locate(text, offset)
}

/// Counts lines on from the place that was asked for last: many mistakes in one file cost one look through it.
#[derive(Default)]
struct Lines<'a> {
    text: &'a str,
    offset: usize,
    /// Line ends up to there.
    ends: usize,
}

impl<'a> Lines<'a> {
    fn locate(&mut self, text: &'a str, offset: usize) -> (usize, usize) {
        let offset = boundary(text, offset);
        if !std::ptr::eq(self.text, text) || offset < self.offset {
            *self = Self {
                text,
                ..Self::default()
            };
        }
        self.ends += text[self.offset..offset].matches('\n').count();
        self.offset = offset;
        let start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        (self.ends + 1, text[start..offset].chars().count() + 1)
    }
}

/// The last start of a character up to here.
fn boundary(text: &str, offset: usize) -> usize {
    (0..=offset.min(text.len()))
        .rev()
        .find(|offset| text.is_char_boundary(*offset))
        .unwrap_or(0)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { source, span } => {
                let (line, column) = line_and_column(&source.text, span.start);
                write!(f, "{}:{line}:{column}", source.name)
            }
            Self::Environment(variable) => f.write_str(variable),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_problem(f, self, &mut Lines::default())
    }
}

fn write_problem<'a>(
    f: &mut fmt::Formatter<'_>,
    problem: &'a Problem,
    lines: &mut Lines<'a>,
) -> fmt::Result {
    let Place::File { source, span } = &problem.place else {
        return write!(f, "{}: {}", problem.place, problem.message);
    };
    let (line, column) = lines.locate(&source.text, span.start);
    write!(f, "{}:{line}:{column}: {}", source.name, problem.message)?;
    match problem.snippet {
        Snippet::Shown => write_snippet(f, &source.text, *span, (line, column)),
        Snippet::Hidden => Ok(()),
    }
}

/// The line, and a mark below the part of it that is meant.
fn write_snippet(
    f: &mut impl fmt::Write,
    text: &str,
    span: Span,
    (number, column): (usize, usize),
) -> fmt::Result {
    const WIDEST: usize = 120;
    let line = line_around(text, span.start);
    if line.is_empty() && span.start >= text.len() {
        return Ok(());
    }
    if column > WIDEST {
        return Ok(());
    }
    // Control characters would move the cursor of a terminal, and tabs would move the mark.
    let shown: String = line
        .chars()
        .take(WIDEST)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let start = boundary(text, span.start);
    let end = boundary(text, span.end).max(start);
    let on_this_line = text[start..end].lines().next().unwrap_or("");
    let marks = on_this_line
        .chars()
        .count()
        .clamp(1, (WIDEST + 1).saturating_sub(column).max(1));
    write!(
        f,
        "\n{number:>5} | {shown}\n      | {:indent$}{}",
        "",
        "^".repeat(marks),
        indent = column - 1
    )
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Nobody reads more at once.
        const MOST: usize = 50;
        let mut lines = Lines::default();
        for (index, problem) in self.0.iter().take(MOST).enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write_problem(f, problem, &mut lines)?;
        }
        if self.0.len() > MOST {
            write!(f, "\nand {} more", self.0.len() - MOST)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, span: Span) -> String {
        let source = Arc::new(Source {
            name: "a.yaml".to_owned(),
            text: text.to_owned(),
        });
        Problem::new(Place::File { source, span }, "wrong").to_string()
    }

    #[test]
    fn columns_count_characters_and_the_mark_stands_below_the_part() {
        assert_eq!(
            shown("a: 1\nä: böse\n", Span { start: 9, end: 14 }),
            "a.yaml:2:4: wrong\n    2 | ä: böse\n      |    ^^^^"
        );
    }

    #[test]
    fn a_mistake_can_be_taken_apart() {
        let source = Arc::new(Source {
            name: "a.yaml".to_owned(),
            text: "a: 1\nb: x\nc: 2\n".to_owned(),
        });
        let span = Span { start: 8, end: 9 };
        let problem = Problem::new(Place::File { source, span }, "wrong");
        assert_eq!(problem.place.file(), Some("a.yaml"));
        assert_eq!(problem.place.line_and_column(), Some((2, 4)));
        assert_eq!(problem.place.end(), Some((2, 5)));
        assert_eq!(problem.line(), Some("b: x"));
        let snippet = Snippet::Hidden;
        assert_eq!(Problem { snippet, ..problem }.line(), None);
    }

    #[test]
    fn places_beyond_the_text_and_inside_a_character_are_shown_without_harm() {
        for (start, end) in [(0, 0), (1, 1), (1, 99), (99, 120), (99, 2)] {
            assert!(shown("ä", Span { start, end }).starts_with("a.yaml:1:"));
        }
        assert!(shown("", Span::default()).starts_with("a.yaml:1:1: wrong"));
    }
}
