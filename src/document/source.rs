//! The texts that a document was read from, and places in them.

use std::sync::Arc;

/// The text of a file and the name under which people know it.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// A path, or what stands for one.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// A part of a source, in bytes; or of several sources that stand one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// One past the last.
    pub end: usize,
}

/// The sources of a document, as if they stood one after the other: so a span alone tells in which of them it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources(Vec<Placed>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Placed {
    start: usize,
    source: Arc<Source>,
}

impl Span {
    /// The same part when all before it has grown by so many bytes.
    #[must_use]
    pub fn moved(self, by: usize) -> Self {
        Self {
            start: self.start + by,
            end: self.end + by,
        }
    }
}

impl From<Arc<Source>> for Sources {
    fn from(source: Arc<Source>) -> Self {
        Self(vec![Placed { start: 0, source }])
    }
}

impl Sources {
    /// Puts one more behind the others, and says where it begins.
    pub fn add(&mut self, source: Arc<Source>) -> usize {
        // One byte between them belongs to none, so that the end of one is not the start of the next.
        let start = self
            .0
            .last()
            .map_or(0, |last| last.start + last.source.text.len() + 1);
        self.0.push(Placed { start, source });
        start
    }

    /// The source in which a part begins, and the part in that source alone.
    pub fn find(&self, span: Span) -> (&Arc<Source>, Span) {
        let after = self.0.partition_point(|placed| placed.start <= span.start);
        let Placed { start, source } = &self.0[after.saturating_sub(1)];
        let within = Span {
            start: span.start - start,
            end: span.end.max(span.start) - start,
        };
        (source, within)
    }

    /// The part of all of them that a part of one is.
    pub fn locate(&self, source: &Arc<Source>, within: Span) -> Option<Span> {
        let placed = self.0.iter().find(|it| Arc::ptr_eq(&it.source, source))?;
        Some(within.moved(placed.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, text: &str) -> Arc<Source> {
        Arc::new(Source {
            name: name.to_owned(),
            text: text.to_owned(),
        })
    }

    #[test]
    fn a_span_tells_its_source_to_its_very_ends() {
        let mut sources = Sources::from(source("a", "abc"));
        assert_eq!(sources.add(source("b", "")), 4);
        assert_eq!(sources.add(source("c", "x")), 5);
        for (start, end, name, within) in [
            (0, 3, "a", (0, 3)),
            (3, 3, "a", (3, 3)),
            (4, 4, "b", (0, 0)),
            (5, 6, "c", (0, 1)),
            (99, 2, "c", (94, 94)),
        ] {
            let (source, span) = sources.find(Span { start, end });
            assert_eq!(
                sources.locate(source, span).map(|span| span.start),
                Some(start)
            );
            assert_eq!(
                (source.name.as_str(), (span.start, span.end)),
                (name, within)
            );
        }
    }
}
