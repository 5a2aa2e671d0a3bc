//! Manifests: what people write into what the runtime is asked for.
//!
//! `discover` finds the file, `keys` says what may stand there and `wire` what does, `convert` gives it meaning. All mistakes
//! of a file are reported together, each with its place.

mod budget;
mod check;
mod convert;
mod cycle;
pub mod discover;
mod env_file;
mod environment;
mod identity;
pub mod keys;
mod probe;
mod profile;
pub mod reach;
pub mod schema;
mod wire;

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kimi_actors::policy::probe::Probes;
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
    /// How it is known that they are ready, and that they still live.
    pub probes: Vec<(ChildName, Probes)>,
    /// What is executed to stop them, where that is not a signal.
    pub stop_commands: Vec<(ChildName, CommandSpec)>,
    /// How their output is to be kept; this version keeps none.
    pub logs: Vec<(ChildName, LogRules)>,
    /// The services and tasks that start only by their names, or when something that starts depends on them.
    pub on_request: Vec<ChildName>,
    /// What must not start, since this version cannot do what is asked for it.
    pub refusals: Vec<Refusal>,
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

/// A service that must not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The service or task, or one of its replicas.
    pub child: ChildName,
    /// What cannot be done for it.
    pub problem: Problem,
}

/// How the output of a service is kept; what is absent is left to whoever keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogRules {
    /// A file of so many bytes is rotated.
    pub max_size: Option<u64>,
    /// So many files are kept.
    pub max_files: Option<u32>,
    /// Older files are removed.
    pub max_age: Option<Duration>,
    /// Whether each line begins with its time.
    pub timestamps: Option<bool>,
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
        let converted = convert::Conversion {
            report: &report,
            warned: &warned,
            settings: &settings,
            origins: &origins,
            inputs,
            directory: &project_dir,
            env_files: RefCell::default(),
            budget: budget::Budget::default(),
        }
        .convert(&wire);
        let mut errors = report.into_problems();
        errors.extend(elsewhere);
        errors.extend(converted.elsewhere);
        let mut warnings = warned.into_problems();
        // What the defaults say is said once, not for each service.
        warnings.dedup();
        warnings.extend(converted.warnings);
        let manifest = errors.is_empty().then(|| Self {
            rules: converted.rules,
            commands: converted.commands,
            probes: converted.probes,
            stop_commands: converted.stop_commands,
            logs: converted.logs,
            on_request: converted.on_request,
            refusals: converted.refusals,
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
