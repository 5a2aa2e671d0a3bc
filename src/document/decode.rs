//! From nodes to meaning: keys that are known, values of the right kind, and a report of all that is wrong.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use crate::document::nearest::did_you_mean;
use crate::document::problem::{Place, Problem, Snippet};
use crate::document::{Content, Entry, Node, ScalarKind, Source, Span, problem_at};
use crate::quantity;

/// Collects what is wrong with one source.
#[derive(Debug)]
pub struct Report {
    source: Arc<Source>,
    problems: RefCell<Vec<Problem>>,
    /// Where values stand that must not be shown.
    secrets: RefCell<Vec<Span>>,
}

impl Report {
    /// Nothing is wrong with it so far.
    pub fn new(source: Arc<Source>) -> Self {
        Self {
            source,
            problems: RefCell::default(),
            secrets: RefCell::default(),
        }
    }

    /// An empty report about the same source, to try something out.
    #[must_use]
    pub fn trial(&self) -> Self {
        Self::new(Arc::clone(&self.source))
    }

    /// Whether nothing is wrong so far.
    pub fn is_clean(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    /// Notes a mistake.
    pub fn wrong(&self, span: Span, message: impl Into<String>) {
        let problem = problem_at(&self.source, span, message);
        self.problems.borrow_mut().push(problem);
    }

    /// Lets no mistake show a line in which this, or a part of it, stands.
    pub fn keep_secret(&self, node: &Node) {
        match &node.content {
            Content::Scalar(_) => self.secrets.borrow_mut().push(node.span),
            Content::List(items) => {
                for item in items {
                    self.keep_secret(item);
                }
            }
            Content::Map(entries) => {
                for entry in entries {
                    self.keep_secret(&entry.value);
                }
            }
        }
    }

    /// `; did you mean …?`, or nothing. After many mistakes nobody needs it, and to look for it takes its time.
    pub fn did_you_mean<'a>(
        &self,
        given: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> String {
        const MOST: usize = 20;
        if self.problems.borrow().len() < MOST {
            did_you_mean(given, known)
        } else {
            String::new()
        }
    }

    /// The place of a part of the source.
    pub fn place(&self, span: Span) -> Place {
        Place::File {
            source: Arc::clone(&self.source),
            span,
        }
    }

    /// All that is wrong, in the order of the file.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| match &problem.place {
            Place::File { span, .. } => span.start,
            Place::Environment(_) | Place::Flag(_) => 0,
        });
        hide_lines(&mut problems, self.secrets.into_inner());
        problems
    }

    /// The entries of a map, or a mistake.
    pub fn map<'a>(&self, node: &'a Node, what: &str) -> Option<&'a [Entry]> {
        match &node.content {
            Content::Map(entries) => Some(entries),
            Content::Scalar(_) | Content::List(_) => {
                self.expected(node, &format!("{what} to be a map"));
                None
            }
        }
    }

    /// The items of a list, or a mistake.
    pub fn list<'a>(&self, node: &'a Node, what: &str) -> Option<&'a [Node]> {
        match &node.content {
            Content::List(items) => Some(items),
            Content::Scalar(_) | Content::Map(_) => {
                self.expected(node, &format!("{what} to be a list"));
                None
            }
        }
    }

    /// A text, or a mistake.
    pub fn text<'a>(&self, node: &'a Node, what: &str) -> Option<&'a str> {
        let text = node
            .scalar()
            .filter(|scalar| scalar.kind == ScalarKind::Text);
        if text.is_none() {
            self.expected(node, &format!("{what} to be text"));
        }
        text.map(|scalar| scalar.text.as_str())
    }

    /// A text, number or truth value as it was written, or a mistake.
    pub fn verbatim<'a>(&self, node: &'a Node, what: &str) -> Option<&'a str> {
        let text = node
            .scalar()
            .filter(|scalar| scalar.kind != ScalarKind::Null);
        if text.is_none() {
            self.expected(node, &format!("{what} to be text"));
        }
        text.map(|scalar| scalar.text.as_str())
    }

    /// A whole number, or a mistake.
    pub fn whole(&self, node: &Node, what: &str) -> Option<i64> {
        let number = node
            .scalar()
            .filter(|scalar| scalar.kind == ScalarKind::Integer)
            .and_then(|scalar| scalar.text.replace('_', "").parse().ok());
        if number.is_none() {
            self.expected(node, &format!("{what} to be a whole number"));
        }
        number
    }

    /// A truth value, or a mistake.
    pub fn truth(&self, node: &Node, what: &str) -> Option<bool> {
        let truth = node
            .scalar()
            .filter(|scalar| scalar.kind == ScalarKind::Bool)
            .and_then(|scalar| scalar.text.to_ascii_lowercase().parse().ok());
        if truth.is_none() {
            self.expected(node, &format!("{what} to be `true` or `false`"));
        }
        truth
    }

    /// A size in bytes, or a mistake.
    pub fn size(&self, node: &Node, what: &str) -> Option<u64> {
        let scalar = node
            .scalar()
            .filter(|scalar| matches!(scalar.kind, ScalarKind::Text | ScalarKind::Integer));
        let Some(scalar) = scalar else {
            self.expected(node, &format!("{what} to be a size such as `10MiB`"));
            return None;
        };
        quantity::size(&scalar.text)
            .map_err(|error| self.wrong(node.span, format!("{what}: {error}")))
            .ok()
    }

    /// A number, or a mistake.
    pub fn number(&self, node: &Node, what: &str) -> Option<f64> {
        let number = node
            .scalar()
            .filter(|scalar| matches!(scalar.kind, ScalarKind::Integer | ScalarKind::Float))
            .and_then(|scalar| scalar.text.parse().ok())
            .filter(|number: &f64| number.is_finite());
        if number.is_none() {
            self.expected(node, &format!("{what} to be a number"));
        }
        number
    }

    /// A duration, or a mistake.
    pub fn duration(&self, node: &Node, what: &str) -> Option<Duration> {
        let read = match node.scalar().map(|scalar| (scalar.kind, &scalar.text)) {
            Some((ScalarKind::Text, text)) => quantity::duration(text),
            Some((ScalarKind::Integer | ScalarKind::Float, text)) => {
                Err(quantity::NotADuration::without_unit(text))
            }
            Some((ScalarKind::Bool | ScalarKind::Datetime | ScalarKind::Null, _)) | None => {
                self.expected(node, &format!("{what} to be a duration such as `10s`"));
                return None;
            }
        };
        read.map_err(|error| self.wrong(node.span, format!("{what}: {error}")))
            .ok()
    }

    /// Notes that something else was expected here.
    pub fn expected(&self, node: &Node, expected: &str) {
        self.wrong(
            node.span,
            format!("expected {expected}, found {}", node.describe()),
        );
    }
}

/// Hides the lines that hold secrets. The problems are sorted; many may stand in one line, which is looked for once.
fn hide_lines(problems: &mut [Problem], mut secrets: Vec<Span>) {
    secrets.sort_by_key(|span| span.start);
    let mut line: Option<Span> = None;
    for problem in problems {
        let Place::File { source, span } = &problem.place else {
            continue;
        };
        let here = line
            .filter(|line| (line.start..=line.end).contains(&span.start))
            .unwrap_or_else(|| line_around(&source.text, *span));
        line = Some(here);
        let first = secrets.partition_point(|secret| secret.end < here.start);
        if secrets
            .get(first)
            .is_some_and(|secret| secret.start <= here.end)
        {
            problem.snippet = Snippet::Hidden;
        }
    }
}

/// The whole line in which a part begins.
fn line_around(text: &str, span: Span) -> Span {
    let bytes = text.as_bytes();
    let at = span.start.min(bytes.len());
    let newline = |byte: &u8| *byte == b'\n';
    Span {
        start: bytes[..at].iter().rposition(newline).map_or(0, |n| n + 1),
        end: bytes[at..]
            .iter()
            .position(newline)
            .map_or(bytes.len(), |n| at + n),
    }
}
