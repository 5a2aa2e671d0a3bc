//! The settings of process management, in layers.
//!
//! Compiled defaults < the user's file < the manifest's `settings:` < the environment (`KIMI_SHELL__SECTION__KEY`) < flags
//! (`--set section.key=value`). Each layer is checked by itself, with places; the `config` crate then puts one over the
//! other and keeps which of them set each key.

pub mod keys;
mod layer;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use self::layer::{Layer, Origin, Setting};
pub use self::values::{
    Action, BackoffSettings, Children, Dashboard, DependsOn, Endpoint, OnRuntimeDeath, Probe,
    RestartSettings, Scope, Settings, Signals, Stop, Telemetry, Thresholds,
};
use kimi_actors::policy::setup::Means;

use crate::document::decode::Report;
use crate::document::problem::{Problem, Problems};
use crate::document::shape::{IfAbsent, Kind, Shape};
use crate::document::{self, Format, Node, Source, read};

/// The default of a setting such as `stop.timeout`, as JSON.
pub fn default_of(path: &str) -> Option<&'static str> {
    let mut shape: &Shape = &keys::SETTINGS;
    let (sections, name) = path.rsplit_once('.').unwrap_or(("", path));
    for section in sections.split('.').filter(|section| !section.is_empty()) {
        let Kind::Record(inner) = shape.key(section)?.kind else {
            return None;
        };
        shape = inner;
    }
    match shape.key(name)?.if_absent {
        IfAbsent::Value(value) => Some(value),
        IfAbsent::Nothing | IfAbsent::Setting(_) => None,
    }
}

/// The file of defaults that people copy: every key with its default and one line about it.
pub const COMMENTED_DEFAULTS: &str = include_str!("../../config/process-management.toml");

/// What is asked for besides the manifest: layers of settings, and which of its services count.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The user's file, which need not exist.
    pub user_file: Option<PathBuf>,
    /// The environment: `KIMI_SHELL__…` are settings, and services may inherit of the rest.
    pub environment: Vec<(OsString, OsString)>,
    /// `key=value` for each `--set`.
    pub flags: Vec<String>,
    /// The active profiles; `*` stands for all.
    pub profiles: Vec<String>,
    /// The services that are asked for by name, which count whatever their profiles are.
    pub names: Vec<String>,
    /// What can be done for processes; none: what can be done here.
    pub means: Option<Means>,
}

/// Names the active profiles, separated by commas, where no flag does.
const PROFILES_VARIABLE: &str = "KIMI_SHELL_PROFILES";

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
            profiles: profiles(&environment),
            names: Vec::new(),
            means: None,
            environment,
            flags,
        }
    }
}

fn profiles(environment: &[(OsString, OsString)]) -> Vec<String> {
    let variable = environment
        .iter()
        .find(|(name, _)| name == PROFILES_VARIABLE)
        .and_then(|(_, value)| value.to_str());
    let names = variable.unwrap_or("").split(',').map(str::trim);
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
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
