//! From files to one document: read, parsed, variables put in, and laid over each other.

use std::path::Path;
use std::sync::Arc;

use crate::document::budget::{Cost, Meter};
use crate::document::problem::Problem;
use crate::document::{
    self, Content, Document, Filled, Node, ScalarKind, Source, Sources, Span, problem_at,
};
use crate::manifest::interpolate::{Interpolated, interpolate};
use crate::manifest::merge::lay_over;
use crate::manifest::variables::Variables;
use crate::manifest::{Location, Locations, ManifestError};
use crate::settings::Inputs;

/// The file of variables beside a manifest.
const VARIABLES: &str = ".env";

/// All files as one tree, and what is wrong with them so far.
pub(super) struct Assembled {
    /// Nothing if it is not worth a look: what a broken file would have said, nobody knows.
    pub(super) document: Option<Document>,
    /// The scalars whose variables could not be put in.
    pub(super) unknown: Vec<Span>,
    pub(super) problems: Vec<Problem>,
    pub(super) cost: Cost,
}

/// One file, read.
struct Read {
    source: Arc<Source>,
    root: Node,
    filled: Vec<Filled>,
    unknown: Vec<Span>,
}

pub(super) fn assemble(
    locations: &Locations,
    directory: &Path,
    inputs: &Inputs,
) -> Result<Assembled, ManifestError> {
    let beside = locations
        .iter()
        .any(|location| *location != Location::Embedded)
        .then(|| directory.join(VARIABLES));
    let mut variables = Variables::new(&inputs.environment, beside);
    let mut meter = Meter::default();
    let mut problems = Vec::new();
    let mut files = Vec::new();
    let mut is_whole = true;
    for location in locations.iter() {
        let source = Arc::new(location.text()?);
        match read(&source, location, &mut variables, &mut meter) {
            Ok((file, found)) => {
                files.push(file);
                problems.extend(found);
            }
            Err(found) => {
                is_whole = false;
                problems.extend(found);
            }
        }
    }
    let of_variables = variables.into_problems()?;
    is_whole &= of_variables.is_empty();
    problems.extend(of_variables);
    let mut unknown = Vec::new();
    let document = join(files, &mut unknown, &mut problems).filter(|_| is_whole);
    Ok(Assembled {
        document,
        unknown,
        problems,
        cost: meter.cost(),
    })
}

fn read(
    source: &Arc<Source>,
    location: &Location,
    variables: &mut Variables<'_>,
    meter: &mut Meter,
) -> Result<(Read, Vec<Problem>), Vec<Problem>> {
    let mut root = document::parse_within(source, location.format(), meter)?;
    let Interpolated {
        filled,
        unknown,
        problems,
    } = interpolate(&mut root, source, variables, meter);
    let read = Read {
        source: Arc::clone(source),
        root,
        filled,
        unknown,
    };
    Ok((read, problems))
}

/// Lays each file over those before it.
fn join(
    files: Vec<Read>,
    unknown: &mut Vec<Span>,
    problems: &mut Vec<Problem>,
) -> Option<Document> {
    let mut files = files.into_iter();
    let first = files.next()?;
    unknown.extend(first.unknown);
    let mut document = Document {
        sources: Sources::from(first.source),
        root: first.root,
        filled: first.filled,
    };
    for mut file in files {
        problems.extend(not_a_map(&file.source, &file.root));
        let by = document.sources.add(file.source);
        file.root.move_by(by);
        let moved = |filled: Filled| Filled {
            span: filled.span.moved(by),
            ..filled
        };
        document.filled.extend(file.filled.into_iter().map(moved));
        unknown.extend(file.unknown.into_iter().map(|span| span.moved(by)));
        if let Content::Map(_) = file.root.content {
            lay_over(&mut document.root, file.root);
        }
    }
    Some(document)
}

/// Only a map can be laid over a manifest. An empty file says nothing, and is none the worse for it.
fn not_a_map(source: &Arc<Source>, root: &Node) -> Option<Problem> {
    match &root.content {
        Content::Map(_) => None,
        Content::Scalar(scalar) if scalar.kind == ScalarKind::Null => None,
        Content::Scalar(_) | Content::List(_) => {
            let found = root.describe();
            let message = format!("expected the manifest to be a map, found {found}");
            Some(problem_at(source, root.span, message))
        }
    }
}
