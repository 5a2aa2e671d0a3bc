//! TOML into nodes.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::document::problem::Problem;
use crate::document::{Content, Entry, Node, Scalar, ScalarKind, Source, Span, problem_at};

pub(super) fn parse(source: &Arc<Source>) -> Result<Node, Vec<Problem>> {
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    if !errors.is_empty() {
        return Err(errors
            .iter()
            .map(|error| {
                let span = error.span().map_or(Span::default(), span_of);
                problem_at(source, span, format!("not TOML: {}", error.message()))
            })
            .collect());
    }
    let span = span_of(table.span());
    Ok(Node {
        span,
        content: map(table.into_inner(), &source.text),
    })
}

fn span_of(range: Range<usize>) -> Span {
    Span {
        start: range.start,
        end: range.end,
    }
}

fn map(table: DeTable<'_>, text: &str) -> Content {
    Content::Map(
        table
            .into_iter()
            .map(|(key, value)| Entry {
                key_span: span_of(key.span()),
                key: key.into_inner().into_owned(),
                value: node(value, text),
            })
            .collect(),
    )
}

fn node(value: Spanned<DeValue<'_>>, text: &str) -> Node {
    let span = span_of(value.span());
    let scalar = |kind, parsed: String| {
        // As written: the parser drops the sign's plus, underscores and the radix.
        let written = text.get(span.start..span.end).map(str::to_owned);
        Content::Scalar(Scalar {
            text: written.unwrap_or(parsed),
            kind,
        })
    };
    let content = match value.into_inner() {
        DeValue::String(value) => Content::Scalar(Scalar {
            text: value.into_owned(),
            kind: ScalarKind::Text,
        }),
        DeValue::Integer(value) => scalar(ScalarKind::Integer, value.to_string()),
        DeValue::Float(value) => scalar(ScalarKind::Float, value.to_string()),
        DeValue::Boolean(value) => scalar(ScalarKind::Bool, value.to_string()),
        DeValue::Datetime(value) => scalar(ScalarKind::Datetime, value.to_string()),
        DeValue::Array(items) => {
            Content::List(items.into_iter().map(|item| node(item, text)).collect())
        }
        DeValue::Table(table) => map(table, text),
    };
    Node { span, content }
}
