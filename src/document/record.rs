//! Maps read by their tables: what stands where, as values of the right kind.
//!
//! Whatever is wrong is reported here, once; what is handed on is right, so that those who take it need not ask again.

use std::time::Duration;

use crate::document::decode::Report;
use crate::document::reader::{Called, Reader};
use crate::document::shape::{Kind, Shape};
use crate::document::{Node, Span};

/// Something and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct At<T> {
    /// It.
    pub value: T,
    /// Its place.
    pub span: Span,
}

/// A value that has the kind of its key.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// A text, a word, or what was written.
    Text(&'a str),
    /// A duration.
    Duration(Duration),
    /// A size in bytes.
    Size(u64),
    /// A whole number.
    Whole(i64),
    /// A number.
    Number(f64),
    /// A truth value.
    Truth(bool),
    /// A list.
    List(Vec<At<Self>>),
    /// A map of names.
    Map(Vec<(At<&'a str>, At<Self>)>),
    /// A map whose keys are known.
    Record(Record<'a>),
    /// What somebody else reads.
    Node(&'a Node),
}

/// A map whose keys are known.
#[derive(Clone, Debug, Default)]
pub struct Record<'a> {
    pub(super) fields: Vec<Field<'a>>,
}

#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    pub(super) name: &'static str,
    pub(super) key_span: Span,
    pub(super) value: At<Value<'a>>,
}

impl<'a> Record<'a> {
    /// Reads a whole document, which is called `what` in mistakes.
    pub fn read(report: &Report, node: &'a Node, shape: &'static Shape, what: &str) -> Self {
        let start = Span {
            end: node.span.start,
            ..node.span
        };
        Reader { report }.record(node, shape, start, &Called::Whole(what))
    }

    fn field(&self, name: &str) -> Option<&Field<'a>> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The value of a key.
    pub fn get(&self, name: &str) -> Option<&At<Value<'a>>> {
        self.field(name).map(|field| &field.value)
    }

    /// Where a key itself stands.
    pub fn key_span(&self, name: &str) -> Option<Span> {
        self.field(name).map(|field| field.key_span)
    }

    /// A text, a word, or what was written.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.get(name)?.value.text()
    }

    /// A duration.
    pub fn duration(&self, name: &str) -> Option<Duration> {
        let Value::Duration(duration) = self.get(name)?.value else {
            return None;
        };
        Some(duration)
    }

    /// A size in bytes.
    pub fn size(&self, name: &str) -> Option<u64> {
        let Value::Size(bytes) = self.get(name)?.value else {
            return None;
        };
        Some(bytes)
    }

    /// A whole number; its bounds are in the table, so that it fits.
    pub fn whole<T: TryFrom<i64>>(&self, name: &str) -> Option<T> {
        self.get(name)?.value.whole()
    }

    /// A number.
    pub fn number(&self, name: &str) -> Option<f64> {
        let Value::Number(number) = self.get(name)?.value else {
            return None;
        };
        Some(number)
    }

    /// A truth value.
    pub fn truth(&self, name: &str) -> Option<bool> {
        let Value::Truth(truth) = self.get(name)?.value else {
            return None;
        };
        Some(truth)
    }

    /// A map whose keys are known.
    pub fn record(&self, name: &str) -> Option<&Self> {
        self.get(name)?.value.record()
    }

    /// The items of a list; none if there is no list.
    pub fn list(&self, name: &str) -> &[At<Value<'a>>] {
        self.get(name).map_or(&[], |at| at.value.list())
    }

    /// The entries of a map of names; none if there is no map.
    pub fn map(&self, name: &str) -> &[(At<&'a str>, At<Value<'a>>)] {
        if let Some(Value::Map(entries)) = self.get(name).map(|at| &at.value) {
            entries
        } else {
            &[]
        }
    }
}

impl<'a> Value<'a> {
    /// Reads one value, which is called `what` in mistakes.
    pub fn read(report: &Report, node: &'a Node, kind: &'static Kind, what: &str) -> Option<Self> {
        Reader { report }.value(node, kind, node.span, &Called::Whole(what))
    }

    /// The text that it is.
    pub fn text(&self) -> Option<&'a str> {
        let Self::Text(text) = self else {
            return None;
        };
        Some(text)
    }

    /// The whole number that it is.
    pub fn whole<T: TryFrom<i64>>(&self) -> Option<T> {
        let Self::Whole(number) = self else {
            return None;
        };
        T::try_from(*number).ok()
    }

    /// What somebody else reads.
    pub fn node(&self) -> Option<&'a Node> {
        let Self::Node(node) = self else {
            return None;
        };
        Some(node)
    }

    /// The map whose keys are known that it is.
    pub fn record(&self) -> Option<&Record<'a>> {
        let Self::Record(record) = self else {
            return None;
        };
        Some(record)
    }

    /// The items of the list that it is.
    pub fn list(&self) -> &[At<Self>] {
        if let Self::List(items) = self {
            items
        } else {
            &[]
        }
    }
}
