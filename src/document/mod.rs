//! Files that people write, as one tree of located nodes, whatever their format.
//!
//! YAML and TOML become the same [`Node`]s, each with its place in the text, so that one decoder serves both and every
//! mistake is reported where it was made. Scalars keep the text as written: `1.10` stays `1.10`.

pub mod budget;
pub mod decode;
pub mod nearest;
pub mod problem;
pub mod read;
mod scalar;
mod source;
mod toml;
pub mod write;
mod yaml;

use std::path::Path;
use std::sync::Arc;

use self::budget::{Exceeded, Meter, Resource};
use self::problem::{Place, Problem};
pub use self::scalar::{Scalar, ScalarKind};
pub use self::source::{Source, Sources, Span};

/// A tree and the sources that its places lie in.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The whole tree.
    pub root: Node,
    /// What it was read from.
    pub sources: Sources,
    /// The scalars that hold values of variables, in the order of their places.
    pub filled: Vec<Filled>,
}

/// A scalar into which values of variables were put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Where it stands.
    pub span: Span,
    /// What was written there, such as `${PORT}`.
    pub written: String,
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub content: Content,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A single value.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file.
    Map(Vec<Entry>),
}

/// One key of a map with its value.
#[derive(Clone, Debug, PartialEq)]
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
    parse_within(source, format, &mut Meter::default())
}

/// Reads a text into a tree, as far as a budget goes.
pub fn parse_within(
    source: &Arc<Source>,
    format: Format,
    meter: &mut Meter,
) -> Result<Node, Vec<Problem>> {
    let refuse = |wrong: Wrong| vec![problem_at(source, wrong.span, wrong.message)];
    meter
        .spend(Resource::Bytes, source.text.len())
        .map_err(|exceeded| refuse(Wrong::beyond(Span::default(), exceeded)))?;
    if let Some(start) = source.text.find('\0') {
        let end = start + 1;
        let message = "a NUL character cannot stand in a file of text";
        return Err(refuse(Wrong::new(Span { start, end }, message)));
    }
    match format {
        Format::Yaml => yaml::parse(&source.text, meter).map_err(refuse),
        Format::Toml => toml::parse(source, meter),
    }
}

/// What ends the reading of a text.
struct Wrong {
    span: Span,
    message: String,
}

impl Wrong {
    fn new(span: Span, message: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
        }
    }

    fn beyond(span: Span, exceeded: Exceeded) -> Self {
        Self::new(span, exceeded.to_string())
    }
}

impl Document {
    /// A tree that was read from one source.
    pub fn of(source: Arc<Source>, root: Node) -> Self {
        Self {
            root,
            sources: source.into(),
            filled: Vec::new(),
        }
    }

    /// The place of a part.
    pub fn place(&self, span: Span) -> Place {
        let (source, span) = self.sources.find(span);
        Place::File {
            source: Arc::clone(source),
            span,
        }
    }

    /// The part of the document that a place is, if it is one.
    pub fn locate(&self, place: &Place) -> Option<Span> {
        match place {
            Place::File { source, span } => self.sources.locate(source, *span),
            Place::Environment(_) | Place::Flag(_) => None,
        }
    }

    /// Puts mistakes in the order of its files, and those of other places behind them.
    pub fn sort(&self, problems: &mut [Problem]) {
        problems.sort_by_key(|problem| {
            let span = self.locate(&problem.place);
            span.map_or(usize::MAX, |span| span.start)
        });
    }

    /// What was written at this part, if it came through a variable.
    pub fn written_at(&self, span: Span) -> Option<&str> {
        written_at(&self.filled, span)
    }

    /// What was written where this stands, if it came through a variable.
    pub fn through_variable(&self, node: &Node) -> Option<&str> {
        self.written_at(node.span)
    }

    /// The same as it was before variables were put in.
    #[must_use]
    pub fn as_written(&self) -> Self {
        let mut document = self.clone();
        document.root.restore(&self.filled);
        document
    }
}

fn written_at(filled: &[Filled], span: Span) -> Option<&str> {
    let at = filled.binary_search_by_key(&span, |filled| filled.span);
    at.ok().map(|at| filled[at].written.as_str())
}

impl Node {
    /// A single value.
    pub fn of_scalar(text: impl Into<String>, kind: ScalarKind, span: Span) -> Self {
        let text = text.into();
        Self {
            span,
            content: Content::Scalar(Scalar { text, kind }),
        }
    }

    /// Moves its places, and those of all in it, behind so many bytes of other sources.
    pub fn move_by(&mut self, by: usize) {
        self.span = self.span.moved(by);
        match &mut self.content {
            Content::Scalar(_) => {}
            Content::List(items) => items.iter_mut().for_each(|item| item.move_by(by)),
            Content::Map(entries) => {
                for entry in entries {
                    entry.key_span = entry.key_span.moved(by);
                    entry.value.move_by(by);
                }
            }
        }
    }

    fn restore(&mut self, filled: &[Filled]) {
        match &mut self.content {
            Content::Scalar(scalar) => {
                if let Some(written) = written_at(filled, self.span) {
                    written.clone_into(&mut scalar.text);
                    scalar.kind = ScalarKind::Text;
                }
            }
            Content::List(items) => items.iter_mut().for_each(|item| item.restore(filled)),
            Content::Map(entries) => {
                for entry in entries {
                    entry.value.restore(filled);
                }
            }
        }
    }

    /// The single value that it is, if it is one.
    pub fn scalar(&self) -> Option<&Scalar> {
        match &self.content {
            Content::Scalar(scalar) => Some(scalar),
            Content::List(_) | Content::Map(_) => None,
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
pub(crate) fn problem_at(source: &Arc<Source>, span: Span, message: impl Into<String>) -> Problem {
    Problem::new(
        Place::File {
            source: Arc::clone(source),
            span,
        },
        message,
    )
}
