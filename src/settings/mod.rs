//! The settings of process management, in layers.
//!
//! Compiled defaults < the user's file < the manifest's `settings:` < the environment (`KIMI_SHELL__SECTION__KEY`) < flags
//! (`--set section.key=value`). Each layer is checked by itself, with places; the `config` crate then puts one over the
//! other and keeps which of them set each key.

mod layer;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use self::layer::{Layer, Origin, Setting};
pub use self::values::{
    Action, BackoffSettings, Children, Dashboard, DependsOn, Endpoint, OnDependencyLost,
    OnDependencyRestart, OnRuntimeDeath, Probe, RestartSettings, Scope, Settings, Signals, Stop,
    Telemetry, Thresholds,
};
use crate::document::decode::Report;
use crate::document::problem::{Problem, Problems};
use crate::document::{self, Format, Node, Source, read};

/// The file of defaults that people copy: every key with its default and one line about it.
pub const COMMENTED_DEFAULTS: &str = include_str!("../../config/process-management.toml");

/// Where the settings come from, besides the compiled defaults and the manifest.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The user's file, which need not exist.
    pub user_file: Option<PathBuf>,
    /// The environment; only `KIMI_SHELL__…` is looked at.
    pub environment: Vec<(OsString, OsString)>,
    /// `key=value` for each `--set`.
    pub flags: Vec<String>,
}

/// The effective settings, and which layer set each.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// The values.
    pub settings: Settings,
    /// Who set them.
    pub origins: Origins,
}

/// Which layer set each key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<String, Origin>);

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The user's file cannot be read.
    #[error("cannot use the settings of the user")]
    UserFile(#[from] read::ReadError),
    /// A layer has mistakes.
    #[error(transparent)]
    Invalid(#[from] Problems),
    /// The layers do not merge.
    #[error("cannot merge the settings")]
    Merge(#[from] config::ConfigError),
}

impl Inputs {
    /// What this process was given: its environment, and the file of its user.
    pub fn of_process(flags: Vec<String>) -> Self {
        let environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        Self {
            user_file: user_file(&environment),
            environment,
            flags,
        }
    }
}

/// `$XDG_CONFIG_HOME/kimi-shell/process-management.toml`, or below `~/.config`.
fn user_file(environment: &[(OsString, OsString)]) -> Option<PathBuf> {
    let directory = |name: &str| {
        environment
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| PathBuf::from(value))
            // The specification of XDG wants relative paths ignored.
            .filter(|path| path.is_absolute())
    };
    directory("XDG_CONFIG_HOME")
        .or_else(|| directory("HOME").map(|home| home.join(".config")))
        .map(|config| config.join("kimi-shell").join("process-management.toml"))
}

impl Origins {
    /// Whether a layer above the defaults set this key, such as `stop.timeout`.
    pub fn is_explicit(&self, key: &str) -> bool {
        self.get(key)
            .is_some_and(|origin| origin.layer != Layer::Default)
    }

    /// Who set a key.
    pub fn get(&self, key: &str) -> Option<&Origin> {
        self.0.get(key)
    }

    /// All keys with who set them, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Origin)> {
        self.0.iter().map(|(key, origin)| (key.as_str(), origin))
    }
}

impl Effective {
    /// The compiled defaults alone.
    pub fn defaults() -> Self {
        merge(&[]).unwrap_or_else(|error| unreachable!("the defaults are valid: {error}"))
    }

    /// The settings without a manifest.
    pub fn load(inputs: &Inputs) -> Result<Self, SettingsError> {
        let mut problems = Vec::new();
        let effective = Self::load_with(inputs, Vec::new(), &mut problems)?;
        if problems.is_empty() {
            Ok(effective)
        } else {
            Err(Problems(problems).into())
        }
    }

    /// The settings with the ones of a manifest; mistakes are added to `problems`, and what is mistaken is left out.
    pub fn load_with(
        inputs: &Inputs,
        manifest: Vec<Setting>,
        problems: &mut Vec<Problem>,
    ) -> Result<Self, SettingsError> {
        let mut settings = match &inputs.user_file {
            Some(path) if exists(path) => user_layer(path, problems)?,
            _ => Vec::new(),
        };
        settings.extend(manifest);
        settings.extend(layer::of_environment(&inputs.environment, problems));
        settings.extend(layer::of_flags(&inputs.flags, problems));
        merge(&settings)
    }
}

/// Whether something is there; what cannot be looked at is, so that reading it says why not.
fn exists(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

fn user_layer(path: &Path, problems: &mut Vec<Problem>) -> Result<Vec<Setting>, SettingsError> {
    let source = std::sync::Arc::new(Source {
        name: path.display().to_string(),
        text: read::file(path)?,
    });
    match document::parse(&source, Format::of(path)) {
        Ok(node) => {
            let report = Report::new(source);
            let settings = of_node(&report, &node, Layer::UserFile);
            problems.extend(report.into_problems());
            Ok(settings)
        }
        Err(found) => {
            problems.extend(found);
            Ok(Vec::new())
        }
    }
}

/// The settings that stand in a map.
pub fn of_node(report: &Report, node: &Node, layer: Layer) -> Vec<Setting> {
    layer::of_node(report, node, layer)
}

fn merge(settings: &[Setting]) -> Result<Effective, SettingsError> {
    let defaults = layer::defaults();
    let mut builder = config::Config::builder().add_source(layer::Overlay::new(&defaults));
    for layer in settings.chunk_by(|a, b| a.layer() == b.layer()) {
        builder = builder.add_source(layer::Overlay::new(layer));
    }
    let merged = builder.build()?;
    let origins = layer::origins(&merged.cache);
    Ok(Effective {
        settings: merged.try_deserialize()?,
        origins: Origins(origins),
    })
}
