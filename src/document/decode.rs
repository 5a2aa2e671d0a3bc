//! From nodes to meaning: keys that are known, values of the right kind, and a report of all that is wrong.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use crate::document::budget::{Cost, Resource};
use crate::document::nearest::did_you_mean;
use crate::document::problem::{Place, Problem, Snippet};
use crate::document::{Content, Document, Entry, Node, ScalarKind, Source, Sources, Span};
use crate::quantity;

/// Collects what is wrong with a document.
#[derive(Debug)]
pub struct Report {
    sources: Sources,
    /// Where values of variables stand, in order.
    filled: Vec<Span>,
    problems: RefCell<Vec<(Span, Problem)>>,
    /// Where values stand that must not be shown.
    secrets: RefCell<Vec<Span>>,
}

impl Report {
    /// Nothing is wrong with what stands in this source so far.
    pub fn new(source: Arc<Source>) -> Self {
        Self::over(source.into(), Vec::new())
    }

    /// Nothing is wrong with this document so far.
    pub fn about(document: &Document) -> Self {
        let filled = document.filled.iter().map(|filled| filled.span);
        Self::over(document.sources.clone(), filled.collect())
    }

    fn over(sources: Sources, filled: Vec<Span>) -> Self {
        Self {
            sources,
            filled,
            problems: RefCell::default(),
            secrets: RefCell::default(),
        }
    }

    /// An empty report about the same source, to try something out.
    #[must_use]
    pub fn trial(&self) -> Self {
        Self::over(self.sources.clone(), self.filled.clone())
    }

    /// Whether nothing is wrong so far.
    pub fn is_clean(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    /// Notes a mistake. Beyond the budget nobody reads them, and they are not kept.
    pub fn wrong(&self, span: Span, message: impl Into<String>) {
        self.note(span, Problem::new(self.place(span), message));
    }

    fn note(&self, span: Span, problem: Problem) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() < Cost::BUDGET.of(Resource::Problems) {
            problems.push((span, problem));
        }
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

    /// The place of a part of the sources.
    pub fn place(&self, span: Span) -> Place {
        let (source, span) = self.sources.find(span);
        Place::File {
            source: Arc::clone(source),
            span,
        }
    }

    /// All that is wrong, in the order of the files.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|(span, _)| span.start);
        hide_lines(&mut problems, &self.sources, self.secrets.into_inner());
        problems.into_iter().map(|(_, problem)| problem).collect()
    }

    /// Whether it came through a variable. Such a value is text wherever text is wanted, though it looks like a number.
    pub fn is_filled(&self, node: &Node) -> bool {
        self.filled.binary_search(&node.span).is_ok()
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
            .filter(|scalar| scalar.kind == ScalarKind::Text || self.is_filled(node));
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
        let found = node.describe();
        let advice = advice(node, expected);
        let message = format!("expected {expected}, found {found}{advice}");
        let problem = Problem {
            expected: Some(expected.to_owned()),
            ..Problem::new(self.place(node.span), message)
        };
        self.note(node.span, problem);
    }
}

/// What to write instead, where YAML's rules are not what people have in mind.
fn advice(node: &Node, expected: &str) -> &'static str {
    let Some(scalar) = node.scalar() else {
        return "";
    };
    let wants = |what| expected.contains(what);
    let spelling = ScalarKind::of_plain(&scalar.text);
    match scalar.text.to_ascii_lowercase().as_str() {
        "yes" | "y" | "on" if wants("`true`") => "; write `true`",
        "no" | "n" | "off" if wants("`true`") => "; write `false`",
        _ if wants("`true`") && scalar.kind == ScalarKind::Text && spelling == ScalarKind::Bool => {
            "; write it without quotes"
        }
        text if wants("number") && has_other_base(text) => "; numbers are decimal here",
        _ if wants("number")
            && scalar.kind == ScalarKind::Text
            && matches!(spelling, ScalarKind::Integer | ScalarKind::Float) =>
        {
            "; write it without quotes"
        }
        _ if wants(" text") && !matches!(scalar.kind, ScalarKind::Text | ScalarKind::Null) => {
            "; if it is text, put it in quotes"
        }
        _ => "",
    }
}

/// Whether it is a number that is, or that some take to be, octal, hexadecimal or binary.
fn has_other_base(text: &str) -> bool {
    ["0x", "0o", "0b"].iter().any(|sign| text.starts_with(sign))
        || text.len() > 1 && text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Hides the lines that hold secrets. The problems are sorted; many may stand in one line, which is looked for once.
fn hide_lines(problems: &mut [(Span, Problem)], sources: &Sources, mut secrets: Vec<Span>) {
    secrets.sort_unstable();
    let mut line: Option<Span> = None;
    for (span, problem) in problems {
        let here = line
            .filter(|line| (line.start..=line.end).contains(&span.start))
            .unwrap_or_else(|| {
                let (source, within) = sources.find(*span);
                line_around(&source.text, within).moved(span.start - within.start)
            });
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
