//! YAML into nodes.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, NonFiniteFloatPolicy, Options, Spanned};

use crate::document::problem::Problem;
use crate::document::{Content, Entry, Node, Scalar, ScalarKind, Source, Span, problem_at, read};

/// Text of a document with its aliases expanded; a file with sensible aliases is far below.
const MOST_EXPANDED_BYTES: usize = 4 * 1024 * 1024;
const _: () = assert!(MOST_EXPANDED_BYTES as u64 > read::MOST_BYTES);

pub(super) fn parse(source: &Arc<Source>) -> Result<Node, Vec<Problem>> {
    let raw: Spanned<Raw<'_>> = serde_saphyr::from_str_with_options(&source.text, options())
        .map_err(|error| {
            let span = error
                .location()
                .map_or(Span::default(), |location| span_of(location, &source.text));
            vec![problem_at(source, span, message(&error))]
        })?;
    let mut left = MOST_EXPANDED_BYTES;
    node(raw, &source.text, &mut left).ok_or_else(|| {
        let message = "too large with its aliases expanded";
        vec![problem_at(source, Span::default(), message)]
    })
}

/// Bounds within which any real manifest lies, and which end a bomb within milliseconds.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 200_000,
            max_nodes: 50_000,
            max_depth: 32,
            flow_nesting_limit: 32,
            max_documents: 1,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_merge_keys: 1_000,
            max_recorded_anchor_events: 50_000,
            max_recorded_anchor_bytes: 4 * 1024 * 1024,
            max_total_scalar_bytes: 4 * 1024 * 1024,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 20_000,
            max_replay_stack_depth: 16,
        },
        // Reported by the decoder instead, so that one does not hide the mistakes after it.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        with_snippet: false,
    }
}

/// What the parser says, without the place, which stands before it already.
fn message(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let end = text
        .find(" at line ")
        .or_else(|| text.find(" (line "))
        .unwrap_or(text.len());
    let text = text[..end].trim_end();
    let first = text.lines().next().unwrap_or("");
    match first.strip_prefix("budget breached: ") {
        Some(breach) if breach.starts_with("Documents") => {
            "expected one document, found more".to_owned()
        }
        Some(_) => "too large, too deep or with too many aliases".to_owned(),
        None => format!("not YAML: {first}"),
    }
}

fn span_of(location: Location, text: &str) -> Span {
    let span = location.span();
    let offset = |bytes: Option<u64>| bytes.and_then(|n| usize::try_from(n).ok());
    if let (Some(start), Some(length)) = (offset(span.byte_offset()), offset(span.byte_len())) {
        return Span {
            start,
            end: start + length,
        };
    }
    let start = offset_of(text, location.line(), location.column());
    Span { start, end: start }
}

/// The byte at a line and column that count characters from 1.
fn offset_of(text: &str, line: u64, column: u64) -> usize {
    let skip = |n: u64| usize::try_from(n.saturating_sub(1)).unwrap_or(usize::MAX);
    let mut start = 0;
    for part in text.split_inclusive('\n').take(skip(line)) {
        start += part.len();
    }
    let rest = text[start..].lines().next().unwrap_or("");
    let within = rest.char_indices().nth(skip(column));
    start + within.map_or(rest.len(), |(offset, _)| offset)
}

/// What the parser hands over, still in its words.
enum Raw<'de> {
    Text(Cow<'de, str>),
    Plain(ScalarKind, String),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<Key>, Spanned<Self>)>),
}

/// A key, whatever the parser takes it for: `8080:` is one.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for Raw<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar, a list or a map")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Raw::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Raw::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Self::Value, E> {
        Ok(Raw::Text(Cow::Owned(text)))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Raw::Plain(ScalarKind::Bool, value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Raw::Plain(ScalarKind::Integer, value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Raw::Plain(ScalarKind::Integer, value.to_string()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Self::Value, E> {
        Ok(Raw::Plain(ScalarKind::Integer, value.to_string()))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Self::Value, E> {
        Ok(Raw::Plain(ScalarKind::Integer, value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Raw::Plain(ScalarKind::Float, value.to_string()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Raw::Plain(ScalarKind::Null, String::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

/// Into a node of ours; nothing if more text comes out than may.
fn node(raw: Spanned<Raw<'_>>, text: &str, left: &mut usize) -> Option<Node> {
    // Where the value is written, not where an alias uses it: what is wrong is wrong there.
    let span = span_of(raw.defined, text);
    let content = match raw.value {
        Raw::Text(value) => Content::Scalar(Scalar {
            text: charged(value.into_owned(), left)?,
            kind: ScalarKind::Text,
        }),
        Raw::Plain(kind, parsed) => {
            // The parser has normalised it (1.10 became 1.1): what counts is what was written.
            let written = text
                .get(span.start..span.end)
                .map(str::trim)
                .filter(|written| !written.is_empty() && !written.starts_with(['!', '&', '*']));
            Content::Scalar(Scalar {
                text: charged(written.map_or(parsed, str::to_owned), left)?,
                kind,
            })
        }
        Raw::List(items) => Content::List(
            items
                .into_iter()
                .map(|item| node(item, text, left))
                .collect::<Option<_>>()?,
        ),
        Raw::Map(entries) => Content::Map(
            entries
                .into_iter()
                .map(|(key, value)| {
                    Some(Entry {
                        key_span: span_of(key.defined, text),
                        key: charged(key.value.0, left)?,
                        value: node(value, text, left)?,
                    })
                })
                .collect::<Option<_>>()?,
        ),
    };
    Some(Node { span, content })
}

fn charged(text: String, left: &mut usize) -> Option<String> {
    *left = left.checked_sub(text.len())?;
    Some(text)
}
