//! Manifests: what people write into what the runtime is asked for.
//!
//! `discover` finds the files; `assemble` makes one document of them, with `interpolate` for variables and `merge` for one
//! over the other; `keys` says what may stand there and `wire` what does, `convert` gives it meaning. All mistakes of all
//! files are reported together, each with its place.

mod assemble;
mod budget;
mod check;
mod conceal;
mod convert;
mod cycle;
pub mod discover;
mod environment;
mod identity;
mod interpolate;
pub mod keys;
mod merge;
mod probe;
mod profile;
pub mod reach;
pub mod schema;
mod setup;
mod variables;
mod wire;

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kimi_actors::policy::probe::Probes;
use kimi_actors::policy::spec::{ChildName, CommandSpec, TreeRules};

use self::assemble::{Assembled, assemble};
pub use self::discover::{DiscoverError, Discovered};
pub use self::interpolate::escape_dollars;
use crate::document::budget::Cost;
use crate::document::decode::Report;
use crate::document::problem::{Place, Problem, Problems};
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
    /// How it is known that they are ready, and that they still live.
    pub probes: Vec<(ChildName, Probes)>,
    /// What is executed to stop them, where that is not a signal.
    pub stop_commands: Vec<(ChildName, CommandSpec)>,
    /// How their output is to be kept; this version keeps none.
    pub logs: Vec<(ChildName, LogRules)>,
    /// The services and tasks that start only by their names, or when something that starts depends on them.
    pub on_request: Vec<ChildName>,
    /// What must not start, since what is asked for it cannot be done here.
    pub refusals: Vec<Refusal>,
    /// What is not kept quite as it was asked for, each with whom it is about.
    pub notes: Vec<(ChildName, String)>,
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
    /// Whether root could.
    pub is_for_root: bool,
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
    pub(crate) fn directory(&self) -> io::Result<PathBuf> {
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
    converted: convert::Converted,
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
        let examined = Self::examine(locations, inputs)?;
        examined
            .manifest
            .ok_or(ManifestError::Invalid(Problems(examined.errors)))
    }

    /// The same, with all that is to be said about it; an error is what keeps it from being read at all.
    pub fn examine(
        locations: impl Into<Locations>,
        inputs: &Inputs,
    ) -> Result<Examined, ManifestError> {
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
            problems: mut errors,
            cost,
        } = assemble(&locations, &project_dir, inputs)?;
        let Some(document) = document else {
            return Ok(Examined {
                manifest: None,
                errors,
                warnings: Vec::new(),
            });
        };
        let Meaning {
            converted,
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
        errors.extend(wrong);
        document.sort(&mut errors);
        let manifest = errors.is_empty().then(|| Self {
            rules: converted.rules,
            commands: converted.commands,
            probes: converted.probes,
            stop_commands: converted.stop_commands,
            logs: converted.logs,
            on_request: converted.on_request,
            refusals: converted.refusals,
            notes: converted.notes,
            settings,
            origins,
            locations,
            project_dir,
            document,
            cost,
            warnings: warnings.clone(),
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
            .try_fold(&self.document.root, |node, key| node.get(key))?;
        Some(self.document.place(node.span))
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
        let mut converted = convert::Conversion {
            report: &report,
            warned: &warned,
            settings: &settings,
            origins: &origins,
            inputs,
            directory: project_dir,
            env_files: RefCell::default(),
            machine: RefCell::default(),
            budget: budget::Budget::default(),
        }
        .convert(&wire);
        let mut problems = report.into_problems();
        problems.extend(elsewhere);
        problems.append(&mut converted.elsewhere);
        let mut warnings = warned.into_problems();
        // What the defaults say is said once, not for each service.
        warnings.dedup();
        warnings.append(&mut converted.warnings);
        Ok(Self {
            converted,
            settings,
            origins,
            problems,
            warnings,
        })
    }
}
