//! Files that people write, as one tree of located nodes, whatever their format.
//!
//! YAML and TOML become the same [`Node`]s, each with its place in the text, so that one decoder serves both and every
//! mistake is reported where it was made. Scalars keep the text as written: `1.10` stays `1.10`.

pub mod decode;
pub mod nearest;
pub mod problem;
pub mod read;
mod reader;
pub mod record;
pub mod shape;
mod toml;
mod yaml;

use std::path::Path;
use std::sync::Arc;

use self::problem::{Place, Problem};

/// The text of a file and the name under which people know it.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// A path, or what stands for one.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// A part of a source, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// One past the last.
    pub end: usize,
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub content: Content,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A single value.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file.
    Map(Vec<Entry>),
}

/// A single value, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar {
    /// The text between the quotes, or the characters as they stand.
    pub text: String,
    /// What its format takes it for.
    pub kind: ScalarKind,
}

/// What a format takes a scalar for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarKind {
    /// Text.
    Text,
    /// A whole number.
    Integer,
    /// A number with a fraction or an exponent.
    Float,
    /// `true` or `false`.
    Bool,
    /// A date or a time.
    Datetime,
    /// Nothing.
    Null,
}

/// One key of a map with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// YAML 1.2.
    Yaml,
    /// TOML 1.1.
    Toml,
}

impl Format {
    /// TOML if the name ends in `.toml`, otherwise YAML.
    pub fn of(path: &Path) -> Self {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("toml") => Self::Toml,
            _ => Self::Yaml,
        }
    }
}

/// Reads a text into a tree.
pub fn parse(source: &Arc<Source>, format: Format) -> Result<Node, Vec<Problem>> {
    match format {
        Format::Yaml => yaml::parse(source),
        Format::Toml => toml::parse(source),
    }
}

impl Node {
    /// The single value that it is, if it is one.
    pub fn scalar(&self) -> Option<&Scalar> {
        match &self.content {
            Content::Scalar(scalar) => Some(scalar),
            Content::List(_) | Content::Map(_) => None,
        }
    }

    /// The value of a key, if it is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.content {
            Content::Map(entries) => entries
                .iter()
                .find(|entry| entry.key == key)
                .map(|entry| &entry.value),
            Content::Scalar(_) | Content::List(_) => None,
        }
    }

    /// What it is, in words.
    pub fn describe(&self) -> String {
        match &self.content {
            Content::Scalar(scalar) => match scalar.kind {
                ScalarKind::Text => format!("the text `{}`", shortened(&scalar.text)),
                ScalarKind::Integer | ScalarKind::Float => {
                    format!("the number {}", shortened(&scalar.text))
                }
                ScalarKind::Bool => format!("`{}`", scalar.text),
                ScalarKind::Datetime => format!("the date {}", scalar.text),
                ScalarKind::Null => "nothing".to_owned(),
            },
            Content::List(_) => "a list".to_owned(),
            Content::Map(_) => "a map".to_owned(),
        }
    }
}

fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A problem at a part of a source.
fn problem_at(source: &Arc<Source>, span: Span, message: impl Into<String>) -> Problem {
    Problem::new(
        Place::File {
            source: Arc::clone(source),
            span,
        },
        message,
    )
}
