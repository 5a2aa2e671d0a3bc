//! Manifests: what people write into what the runtime is asked for.
//!
//! `discover` finds the files; `assemble` makes one document of them, with `interpolate` for variables and `merge` for one
//! over the other; `wire` knows its shape, `convert` gives it meaning. All mistakes of all files are reported together, each
//! with its place.

mod assemble;
mod conceal;
mod convert;
pub mod discover;
mod dotenv;
mod interpolate;
mod merge;
pub mod reach;
mod variables;
mod wire;

use std::io;
use std::path::{Path, PathBuf};

use kimi_actors::policy::spec::{ChildName, CommandSpec, TreeRules};

use self::assemble::{Assembled, assemble};
pub use self::discover::{DiscoverError, Discovered};
use crate::document::budget::Cost;
use crate::document::decode::Report;
use crate::document::problem::{Problem, Problems};
use crate::document::read::{self, ReadError};
use crate::document::{Document, Format, Source};
use crate::settings::{Effective, Inputs, Layer, Origins, Settings, SettingsError};

/// The manifest that is used where there is none.
pub const EMBEDDED: &str = include_str!("../../config/default.yaml");

/// A manifest, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// What decisions need.
    pub rules: TreeRules,
    /// What each service and task executes, in the order of the file.
    pub commands: Vec<(ChildName, CommandSpec)>,
    /// The effective settings, those of the manifest included.
    pub settings: Settings,
    /// Which layer set each setting.
    pub origins: Origins,
    /// Where it was read.
    pub locations: Locations,
    /// The directory that relative paths start from: that of the first file.
    pub project_dir: PathBuf,
    /// All files as one tree, with variables put in.
    pub document: Document,
    /// What reading them has cost.
    pub cost: Cost,
    /// What is allowed, but hardly meant.
    pub warnings: Vec<Problem>,
}

/// Where a manifest and what is laid over it are; one there is always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locations {
    /// The manifest itself.
    pub first: Location,
    /// Each is laid over those before it.
    pub over: Vec<Location>,
}

/// Where a manifest is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In a file.
    File(PathBuf),
    /// On standard input.
    Stdin,
    /// In the program itself.
    Embedded,
}

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It cannot be read.
    #[error("cannot read the manifest")]
    Unreadable(#[from] ReadError),
    /// It cannot be found.
    #[error(transparent)]
    Undiscovered(#[from] DiscoverError),
    /// Standard input was named more than once.
    #[error("standard input can be read only once")]
    ReadBefore,
    /// Its place cannot be made absolute.
    #[error("cannot find the directory of the manifest")]
    NoDirectory(#[source] io::Error),
    /// It, or a layer of settings, has mistakes.
    #[error(transparent)]
    Invalid(#[from] Problems),
    /// The settings cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

impl Location {
    /// What `-f` names: a file, or `-` for standard input.
    pub fn named(path: &Path) -> Self {
        // The device is standard input itself, and no regular file where that is a pipe.
        if path.as_os_str() == "-" || path == Path::new("/dev/stdin") {
            Self::Stdin
        } else {
            Self::File(path.to_owned())
        }
    }

    fn text(&self) -> Result<Source, ReadError> {
        let (name, text) = match self {
            Self::File(path) => (path.display().to_string(), read::file(path)?),
            Self::Stdin => ("standard input".to_owned(), read::stdin()?),
            Self::Embedded => ("the embedded manifest".to_owned(), EMBEDDED.to_owned()),
        };
        Ok(Source { name, text })
    }

    fn format(&self) -> Format {
        match self {
            Self::File(path) => Format::of(path),
            Self::Stdin | Self::Embedded => Format::Yaml,
        }
    }

    /// The directory that its relative paths start from.
    fn directory(&self) -> io::Result<PathBuf> {
        match self {
            Self::File(path) => {
                let path = std::path::absolute(path)?;
                Ok(path.parent().unwrap_or(&path).to_owned())
            }
            Self::Stdin | Self::Embedded => std::env::current_dir(),
        }
    }
}

impl From<Location> for Locations {
    fn from(first: Location) -> Self {
        let over = Vec::new();
        Self { first, over }
    }
}

impl From<Discovered> for Locations {
    fn from(found: Discovered) -> Self {
        Self {
            first: Location::File(found.manifest),
            over: found.over.into_iter().map(Location::File).collect(),
        }
    }
}

impl Locations {
    /// What several `-f` name; nothing if there are none.
    pub fn named(paths: &[PathBuf]) -> Option<Self> {
        let mut locations = paths.iter().map(|path| Location::named(path));
        Some(Self {
            first: locations.next()?,
            over: locations.collect(),
        })
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Location> {
        std::iter::once(&self.first).chain(&self.over)
    }
}

/// What a document means.
struct Meaning {
    rules: TreeRules,
    commands: Vec<(ChildName, CommandSpec)>,
    settings: Settings,
    origins: Origins,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Manifest {
    /// Reads and checks a manifest together with the other layers of settings.
    ///
    /// Variables come from the environment in `inputs`, and from the `.env` beside the first file.
    pub fn load(locations: impl Into<Locations>, inputs: &Inputs) -> Result<Self, ManifestError> {
        let locations = locations.into();
        let is_stdin = |location: &&Location| **location == Location::Stdin;
        if locations.iter().filter(is_stdin).count() > 1 {
            return Err(ManifestError::ReadBefore);
        }
        let project_dir = locations
            .first
            .directory()
            .map_err(ManifestError::NoDirectory)?;
        let Assembled {
            document,
            unknown,
            mut problems,
            cost,
        } = assemble(&locations, &project_dir, inputs)?;
        let Some(document) = document else {
            return Err(Problems(problems).into());
        };
        let Meaning {
            rules,
            commands,
            settings,
            origins,
            problems: mut wrong,
            mut warnings,
        } = Meaning::of(&document, &project_dir, inputs)?;
        let is_talking = !wrong.is_empty() || !warnings.is_empty();
        if is_talking && !document.filled.is_empty() {
            let as_written = Meaning::of(&document.as_written(), &project_dir, inputs)?;
            wrong = conceal::conceal(&document, wrong, as_written.problems);
            warnings = conceal::conceal(&document, warnings, as_written.warnings);
        }
        // What a value means that has not got its variables, nobody can say.
        let is_unknown = |problem: &Problem| {
            let span = document.locate(&problem.place);
            span.is_some_and(|span| unknown.binary_search(&span).is_ok())
        };
        wrong.retain(|problem| !is_unknown(problem));
        problems.extend(wrong);
        if !problems.is_empty() {
            document.sort(&mut problems);
            return Err(Problems(problems).into());
        }
        Ok(Self {
            rules,
            commands,
            settings,
            origins,
            locations,
            project_dir,
            document,
            cost,
            warnings,
        })
    }

    /// What a service or task executes.
    pub fn command(&self, name: &ChildName) -> Option<&CommandSpec> {
        self.commands
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, command)| command)
    }
}

impl Meaning {
    /// Reads a document; where there are problems, the rest is not to be used.
    fn of(document: &Document, project_dir: &Path, inputs: &Inputs) -> Result<Self, SettingsError> {
        let report = Report::about(document);
        let wire = wire::Manifest::read(&report, &document.root);
        let of_manifest = wire.settings.map_or_else(Vec::new, |node| {
            crate::settings::of_node(&report, node, Layer::Manifest)
        });
        let mut elsewhere = Vec::new();
        let Effective { settings, origins } =
            Effective::load_with(inputs, of_manifest, &mut elsewhere)?;
        let warned = Report::about(document);
        let (mut rules, commands) = convert::Conversion {
            report: &report,
            warned: &warned,
            settings: &settings,
            origins: &origins,
            directory: project_dir,
        }
        .convert(&wire);
        rules.limits = settings.children.limits();
        let mut problems = report.into_problems();
        problems.extend(elsewhere);
        Ok(Self {
            rules,
            commands,
            settings,
            origins,
            problems,
            warnings: warned.into_problems(),
        })
    }
}
