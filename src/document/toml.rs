//! TOML into nodes.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::document::budget::{Meter, Resource};
use crate::document::problem::Problem;
use crate::document::{Content, Entry, Node, Scalar, ScalarKind, Source, Span, Wrong, problem_at};

pub(super) fn parse(source: &Arc<Source>, meter: &mut Meter) -> Result<Node, Vec<Problem>> {
    let (table, errors) = read(&source.text);
    let wrong = |error: &toml::de::Error| {
        let span = error.span().map_or(Span::default(), span_of);
        problem_at(source, span, explained(error.message()))
    };
    let Some(table) = table.filter(|_| errors.is_empty()) else {
        let most = meter.most(Resource::Problems);
        return Err(errors.iter().take(most).map(wrong).collect());
    };
    let span = span_of(table.span());
    let mut tree = Tree {
        text: &source.text,
        meter,
        level: 0,
    };
    tree.map(table.into_inner(), span)
        .map(|content| Node { span, content })
        .map_err(|wrong| vec![problem_at(source, wrong.span, wrong.message)])
}

/// All mistakes of a small file; of a large one the first, since each costs the parser more than a good line.
fn read(text: &str) -> (Option<Spanned<DeTable<'_>>>, Vec<toml::de::Error>) {
    const LARGE: usize = 64 * 1024;
    if text.len() < LARGE {
        let (table, errors) = DeTable::parse_recoverable(text);
        return (Some(table), errors);
    }
    match DeTable::parse(text) {
        Ok(table) => (Some(table), Vec::new()),
        Err(error) => (None, vec![error]),
    }
}

fn explained(message: &str) -> String {
    if message.contains("recurs") {
        // The parser's own limit, which is near ours.
        return "too much: too many levels in each other".to_owned();
    }
    format!("not TOML: {message}")
}

fn span_of(range: Range<usize>) -> Span {
    Span {
        start: range.start,
        end: range.end,
    }
}

/// The tree while it grows.
struct Tree<'a> {
    text: &'a str,
    meter: &'a mut Meter,
    level: usize,
}

impl Tree<'_> {
    fn charge(&mut self, span: Span, bytes: usize) -> Result<(), Wrong> {
        self.meter
            .spend(Resource::Values, 1)
            .and_then(|()| self.meter.spend(Resource::Text, bytes))
            .and_then(|()| self.meter.reach(Resource::Depth, self.level))
            .map_err(|exceeded| Wrong::beyond(span, exceeded))
    }

    fn map(&mut self, table: DeTable<'_>, span: Span) -> Result<Content, Wrong> {
        self.level += 1;
        self.charge(span, 0)?;
        let mut entries = Vec::new();
        for (key, value) in table {
            entries.push(Entry {
                key_span: span_of(key.span()),
                key: key.into_inner().into_owned(),
                value: self.node(value)?,
            });
        }
        // The parser sorts them by name.
        entries.sort_by_key(|entry| entry.key_span.start);
        self.level -= 1;
        Ok(Content::Map(entries))
    }

    fn node(&mut self, value: Spanned<DeValue<'_>>) -> Result<Node, Wrong> {
        let span = span_of(value.span());
        let content = match value.into_inner() {
            DeValue::String(value) => self.scalar(span, value.into_owned(), ScalarKind::Text)?,
            DeValue::Integer(value) => {
                let written = self.written(span, &value.to_string());
                self.scalar(span, written, ScalarKind::Integer)?
            }
            DeValue::Float(value) => {
                let written = self.written(span, &value.to_string());
                // Of no use to anybody here, and YAML writes them otherwise.
                let is_finite = !written.ends_with("inf") && !written.ends_with("nan");
                let kind = if is_finite {
                    ScalarKind::Float
                } else {
                    ScalarKind::Text
                };
                self.scalar(span, written, kind)?
            }
            DeValue::Boolean(value) => self.scalar(span, value.to_string(), ScalarKind::Bool)?,
            DeValue::Datetime(value) => {
                let written = self.written(span, &value.to_string());
                self.scalar(span, written, ScalarKind::Datetime)?
            }
            DeValue::Array(items) => {
                self.level += 1;
                self.charge(span, 0)?;
                let items = items
                    .into_iter()
                    .map(|item| self.node(item))
                    .collect::<Result<_, _>>()?;
                self.level -= 1;
                Content::List(items)
            }
            DeValue::Table(table) => self.map(table, span)?,
        };
        Ok(Node { span, content })
    }

    fn scalar(&mut self, span: Span, text: String, kind: ScalarKind) -> Result<Content, Wrong> {
        self.charge(span, text.len())?;
        Ok(Content::Scalar(Scalar { text, kind }))
    }

    /// As written: the parser drops the sign's plus, underscores and the radix.
    fn written(&self, span: Span, parsed: &str) -> String {
        self.text
            .get(span.start..span.end)
            .unwrap_or(parsed)
            .to_owned()
    }
}
