//! Manifests: what people write into what the runtime is asked for.
//!
//! `discover` finds the file, `wire` knows its shape, `convert` gives it meaning. All mistakes of a file are reported
//! together, each with its place.

mod convert;
pub mod discover;
pub mod reach;
pub mod schema;
mod wire;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kimi_actors::policy::spec::{ChildName, CommandSpec, TreeRules};

pub use self::discover::DiscoverError;
use crate::document::decode::Report;
use crate::document::problem::{Place, Problem, Problems};
use crate::document::read::{self, ReadError};
use crate::document::{self, Format, Node, Source};
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
    pub location: Location,
    /// The directory that relative paths start from.
    pub project_dir: PathBuf,
    /// What is allowed, but hardly meant.
    pub warnings: Vec<Problem>,
    /// What was written, with its places.
    pub document: Node,
    /// Where that stands.
    pub source: Arc<Source>,
}

/// What is to be said about a manifest.
#[derive(Debug)]
pub struct Examined {
    /// What it means, if nothing is wrong.
    pub manifest: Option<Manifest>,
    /// What is wrong.
    pub errors: Vec<Problem>,
    /// What is allowed, but hardly meant.
    pub warnings: Vec<Problem>,
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
        if path.as_os_str() == "-" {
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

impl Manifest {
    /// Reads and checks a manifest together with the other layers of settings.
    pub fn load(location: Location, inputs: &Inputs) -> Result<Self, ManifestError> {
        let examined = Self::examine(location, inputs)?;
        examined
            .manifest
            .ok_or(ManifestError::Invalid(Problems(examined.errors)))
    }

    /// The same, with all that is to be said about it; an error is what keeps it from being read at all.
    pub fn examine(location: Location, inputs: &Inputs) -> Result<Examined, ManifestError> {
        let source = Arc::new(location.text()?);
        let directory = location.directory().map_err(ManifestError::NoDirectory)?;
        Self::from_source(source, location, directory, inputs)
    }

    fn from_source(
        source: Arc<Source>,
        location: Location,
        project_dir: PathBuf,
        inputs: &Inputs,
    ) -> Result<Examined, ManifestError> {
        let document = document::parse(&source, location.format()).map_err(Problems)?;
        let report = Report::new(Arc::clone(&source));
        let wire = wire::Manifest::read(&report, &document);
        let of_manifest = wire.settings.map_or_else(Vec::new, |node| {
            crate::settings::of_node(&report, node, Layer::Manifest)
        });
        let mut elsewhere = Vec::new();
        let Effective { settings, origins } =
            Effective::load_with(inputs, of_manifest, &mut elsewhere)?;
        let warned = Report::new(Arc::clone(&source));
        let (mut rules, commands) = convert::Conversion {
            report: &report,
            warned: &warned,
            settings: &settings,
            origins: &origins,
            directory: &project_dir,
        }
        .convert(&wire);
        rules.limits = settings.children.limits();
        let mut errors = report.into_problems();
        errors.extend(elsewhere);
        let warnings = warned.into_problems();
        let manifest = errors.is_empty().then(|| Self {
            rules,
            commands,
            settings,
            origins,
            location,
            project_dir,
            warnings: warnings.clone(),
            document,
            source,
        });
        Ok(Examined {
            manifest,
            errors,
            warnings,
        })
    }

    /// Where a value was written, such as `["services", "api", "cwd"]`, if it was.
    pub fn place(&self, path: &[&str]) -> Option<Place> {
        let node = path
            .iter()
            .try_fold(&self.document, |node, key| node.get(key))?;
        Some(Place::File {
            source: Arc::clone(&self.source),
            span: node.span,
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
