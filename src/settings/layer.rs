//! One layer of settings: what was set, where, and whether it makes sense.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use config::{Map, Value as Merged, ValueKind};
use kimi_actors::policy::signal::Signal;
use toml::Value as Toml;

use crate::document::decode::Report;
use crate::document::nearest::did_you_mean;
use crate::document::problem::{Place, Problem};
use crate::document::record::Value;
use crate::document::shape::{Grammar, Kind, Shape};
use crate::document::{Content, Entry, Node, Scalar, ScalarKind, Source, Span};
use crate::quantity;
use crate::settings::keys::SETTINGS;
use crate::settings::values::Settings;

/// The layers, each stronger than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Compiled in.
    Default,
    /// The user's file.
    UserFile,
    /// `settings:` of a manifest.
    Manifest,
    /// `KIMI_SHELL__…`.
    Environment,
    /// `--set`.
    Flag,
}

const LAYERS: [(Layer, &str); 5] = [
    (Layer::Default, "default"),
    (Layer::UserFile, "user file"),
    (Layer::Manifest, "manifest"),
    (Layer::Environment, "environment"),
    (Layer::Flag, "flag"),
];

/// Who set a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The layer.
    pub layer: Layer,
    /// Where in it; empty for the defaults.
    pub place: String,
}

/// One key that a layer sets.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The names on the way to it, by their present spelling.
    path: Vec<String>,
    value: Toml,
    origin: Origin,
}

impl Setting {
    /// The layer that it stands in.
    pub(super) fn layer(&self) -> Layer {
        self.origin.layer
    }
}

/// The sign before the names of the environment, and between them.
const ENVIRONMENT_PREFIX: &str = "KIMI_SHELL__";

/// The names under which settings are known from before, each with its present place and how its value is written. Where
/// they may stand is in the table.
const ALIASES: [(&str, [&str; 2], Unit); 9] = [
    (
        "gracefulShutdownTimeoutMs",
        ["signals", "graceful_shutdown_timeout"],
        Unit::Milliseconds,
    ),
    (
        "forceExitAfterTimeout",
        ["signals", "force_exit_after_timeout"],
        Unit::AsIs,
    ),
    ("enabled", ["signals", "enabled"], Unit::AsIs),
    ("handledSignals", ["signals", "handled"], Unit::AsIs),
    ("maxHistory", ["signals", "history"], Unit::AsIs),
    (
        "defaultTimeoutMs",
        ["children", "default_timeout"],
        Unit::Milliseconds,
    ),
    ("maxBufferSize", ["children", "max_buffer_size"], Unit::AsIs),
    (
        "validateBinary",
        ["children", "validate_binary"],
        Unit::AsIs,
    ),
    ("maxConcurrent", ["children", "max_concurrent"], Unit::AsIs),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    AsIs,
    Milliseconds,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = LAYERS.iter().find(|(layer, _)| layer == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.layer)?;
        if !self.place.is_empty() {
            write!(f, ": {}", self.place)?;
        }
        Ok(())
    }
}

impl Origin {
    /// Back from what the `config` crate has carried along.
    fn from_text(text: &str) -> Option<Self> {
        let (name, place) = text.split_once(": ").unwrap_or((text, ""));
        let (layer, _) = LAYERS.iter().find(|(_, known)| *known == name)?;
        Some(Self {
            layer: *layer,
            place: place.to_owned(),
        })
    }
}

/// The compiled defaults as a layer.
pub(super) fn defaults() -> Vec<Setting> {
    let tree = Toml::try_from(Settings::default())
        .unwrap_or_else(|error| unreachable!("the defaults can be written down: {error}"));
    let mut settings = Vec::new();
    collect_leaves(&mut Vec::new(), &tree, &mut settings);
    settings
}

fn collect_leaves(path: &mut Vec<String>, value: &Toml, settings: &mut Vec<Setting>) {
    if let Toml::Table(table) = value {
        for (key, value) in table {
            path.push(key.clone());
            collect_leaves(path, value, settings);
            path.pop();
        }
    } else {
        settings.push(Setting {
            path: path.clone(),
            value: value.clone(),
            origin: Origin {
                layer: Layer::Default,
                place: String::new(),
            },
        });
    }
}

/// What a way of names leads to.
enum Target {
    /// A key.
    Key {
        /// By its present names.
        path: Vec<String>,
        kind: &'static Kind,
        unit: Unit,
    },
    /// A section.
    Section(Vec<String>),
    /// Nothing; what may stand there instead.
    Unknown(Vec<&'static str>),
    /// A signal that cannot have an action.
    NoSignal(String),
}

/// How names of a layer compare with ours.
#[derive(Clone, Copy)]
enum Spelling {
    Exact,
    /// Variables are often written in capitals.
    AnyCase,
}

impl Spelling {
    fn same(self, given: &str, known: &str) -> bool {
        match self {
            Self::Exact => given == known,
            Self::AnyCase => given.eq_ignore_ascii_case(known),
        }
    }
}

fn resolve(names: &[&str], spelling: Spelling) -> Target {
    let mut shape: &'static Shape = &SETTINGS;
    let mut path: Vec<String> = Vec::new();
    let mut names = names.iter();
    while let Some(name) = names.next() {
        let Some(key) = shape.keys.iter().find(|key| spelling.same(name, key.name)) else {
            return Target::Unknown(shape.keys.iter().map(|key| key.name).collect());
        };
        path.push(key.name.to_owned());
        match (&key.kind, names.as_slice()) {
            (Kind::Record(section), _) => shape = section,
            (
                Kind::Map {
                    names: like, of, ..
                },
                [name],
            ) => return of_map(path, name, like, of),
            (Kind::Map { .. }, []) => return Target::Section(path),
            (kind, []) => {
                let alias = ALIASES.iter().find(|(alias, ..)| *alias == key.name);
                let (path, unit) = alias.map_or((path, Unit::AsIs), |(_, path, unit)| {
                    (path.map(str::to_owned).to_vec(), *unit)
                });
                return Target::Key { path, kind, unit };
            }
            (_, [..]) => return Target::Unknown(Vec::new()),
        }
    }
    Target::Section(path)
}

/// A key below a section whose keys are not fixed: one for each signal, by its present name.
fn of_map(mut path: Vec<String>, name: &str, like: &Grammar, kind: &'static Kind) -> Target {
    match ((like.check)(name), name.parse::<Signal>()) {
        (Ok(()), Ok(signal)) => {
            path.push(signal.to_string());
            let unit = Unit::AsIs;
            Target::Key { path, kind, unit }
        }
        (Err(why), _) => Target::NoSignal(why),
        (Ok(()), Err(error)) => Target::NoSignal(error.to_string()),
    }
}

/// The settings that stand in a map.
pub(super) fn of_node(report: &Report, node: &Node, layer: Layer) -> Vec<Setting> {
    let mut walk = Walk {
        report,
        layer,
        settings: Vec::new(),
    };
    if let Some(entries) = report.map(node, "the settings") {
        walk.entries(entries, &[]);
    }
    walk.settings
}

struct Walk<'a> {
    report: &'a Report,
    layer: Layer,
    settings: Vec<Setting>,
}

impl<'a> Walk<'a> {
    fn entries(&mut self, entries: &'a [Entry], section: &[&'a str]) {
        for entry in entries.iter().filter(|entry| !entry.key.starts_with("x-")) {
            let mut names = section.to_vec();
            names.push(&entry.key);
            let dotted = names.join(".");
            match resolve(&names, Spelling::Exact) {
                Target::Section(_) => {
                    let what = format!("`{dotted}`");
                    if let Some(entries) = self.report.map(&entry.value, &what) {
                        self.entries(entries, &names);
                    }
                }
                Target::Key { path, kind, unit } => {
                    self.key(entry, &dotted, path, kind, unit);
                }
                Target::NoSignal(why) => self.report.wrong(entry.key_span, why),
                Target::Unknown(known) => {
                    let hint = self.report.did_you_mean(&entry.key, known);
                    self.report
                        .wrong(entry.key_span, format!("unknown setting `{dotted}`{hint}"));
                }
            }
        }
    }

    fn key(
        &mut self,
        entry: &Entry,
        dotted: &str,
        path: Vec<String>,
        kind: &'static Kind,
        unit: Unit,
    ) {
        if self.settings.iter().any(|setting| setting.path == path) {
            let name = path.join(".");
            let message = if name == dotted {
                format!("`{name}` is set twice")
            } else {
                format!("`{dotted}` is an older name of `{name}`, which is set here too")
            };
            self.report.wrong(entry.key_span, message);
            return;
        }
        let what = format!("`{dotted}`");
        if let Some(value) = Value::read(self.report, &entry.value, kind, &what) {
            let place = self.report.place(entry.key_span).to_string();
            self.settings.push(Setting {
                path,
                value: toml_of(&value, unit),
                origin: Origin {
                    layer: self.layer,
                    place,
                },
            });
        }
    }
}

/// The settings that stand in the environment.
pub(super) fn of_environment(
    environment: &[(OsString, OsString)],
    problems: &mut Vec<Problem>,
) -> Vec<Setting> {
    let mut variables: Vec<_> = environment
        .iter()
        .filter_map(|(name, value)| {
            let name = name.to_str()?;
            Some((name, name.strip_prefix(ENVIRONMENT_PREFIX)?, value))
        })
        .collect();
    // The order of an environment means nothing; that of our messages should not change.
    variables.sort_unstable();
    let mut settings = Vec::new();
    for (name, rest, value) in variables {
        let names: Vec<&str> = rest.split("__").collect();
        let given = value.to_str().ok_or("expected UTF-8 text".to_owned());
        let origin = Origin {
            layer: Layer::Environment,
            place: name.to_owned(),
        };
        match given.and_then(|text| of_text(&names, text, origin, Spelling::AnyCase, &settings)) {
            Ok(setting) => settings.push(setting),
            Err(why) => {
                problems.push(Problem::new(Place::Environment(name.to_owned()), why));
            }
        }
    }
    settings
}

/// The settings that stand in flags; of a key that is set twice, the last counts.
pub(super) fn of_flags(flags: &[String], problems: &mut Vec<Problem>) -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    for flag in flags {
        let shown = format!("--set {flag}");
        let setting = flag
            .split_once('=')
            .ok_or("expected `key=value`".to_owned())
            .and_then(|(key, text)| {
                let names: Vec<&str> = key.split('.').collect();
                let origin = Origin {
                    layer: Layer::Flag,
                    place: "--set".to_owned(),
                };
                of_text(&names, text, origin, Spelling::Exact, &[])
            });
        match setting {
            Ok(setting) => settings.push(setting),
            Err(why) => problems.push(Problem::new(Place::Flag(shown), why)),
        }
    }
    settings
}

/// A setting whose value is plain text, as in variables and flags.
fn of_text(
    names: &[&str],
    text: &str,
    origin: Origin,
    spelling: Spelling,
    others: &[Setting],
) -> Result<Setting, String> {
    let dotted = names.join(".");
    match resolve(names, spelling) {
        Target::Key { path, kind, unit } => {
            if others.iter().any(|other| other.path == path) {
                return Err(format!(
                    "`{}` is set by another variable too",
                    path.join(".")
                ));
            }
            Ok(Setting {
                path,
                value: toml_of_text(text, kind, unit)?,
                origin,
            })
        }
        Target::Section(path) => Err(format!("`{}` is a section, not a key", path.join("."))),
        Target::NoSignal(why) => Err(why),
        Target::Unknown(known) => {
            let last = names.last().copied().unwrap_or("");
            let hint = did_you_mean(last, known);
            Err(format!("unknown setting `{dotted}`{hint}"))
        }
    }
}

/// A text of a variable or flag as what its key takes; otherwise what is wrong with it.
fn toml_of_text(text: &str, kind: &'static Kind, unit: Unit) -> Result<Toml, String> {
    let report = Report::new(Arc::new(Source {
        name: String::new(),
        text: String::new(),
    }));
    let node = node_of_text(text, kind);
    match Value::read(&report, &node, kind, "the value") {
        Some(value) if report.is_clean() => Ok(toml_of(&value, unit)),
        Some(_) | None => {
            let first = report.into_problems().into_iter().next();
            Err(first.map_or_else(|| "it is not understood".to_owned(), |it| it.message))
        }
    }
}

/// A text as if it stood in a file; lists have commas between their items.
fn node_of_text(text: &str, kind: &Kind) -> Node {
    let span = Span::default();
    let scalar = |text: &str, kind| Node {
        span,
        content: Content::Scalar(Scalar {
            text: text.to_owned(),
            kind,
        }),
    };
    if let Kind::List { of, .. } = kind {
        let items = text.split(',').map(str::trim);
        let items = items.filter(|item| !item.is_empty());
        return Node {
            span,
            content: Content::List(items.map(|item| node_of_text(item, of)).collect()),
        };
    }
    let plain = if matches!(kind, Kind::Truth) && text.parse::<bool>().is_ok() {
        Some(ScalarKind::Bool)
    } else if matches!(kind, Kind::Whole { .. }) && text.parse::<i64>().is_ok() {
        Some(ScalarKind::Integer)
    } else if matches!(kind, Kind::Number { .. }) && text.parse::<f64>().is_ok() {
        Some(ScalarKind::Float)
    } else {
        None
    };
    scalar(text, plain.unwrap_or(ScalarKind::Text))
}

fn toml_of(value: &Value<'_>, unit: Unit) -> Toml {
    match value {
        Value::Whole(number) if unit == Unit::Milliseconds => {
            let duration = Duration::from_millis(number.unsigned_abs());
            Toml::String(quantity::duration_text(duration))
        }
        Value::Whole(number) => Toml::Integer(*number),
        Value::Text(text) => Toml::String((*text).to_owned()),
        Value::Duration(duration) => Toml::String(quantity::duration_text(*duration)),
        Value::Size(bytes) => Toml::String(quantity::size_text(*bytes)),
        Value::Number(number) => Toml::Float(*number),
        Value::Truth(truth) => Toml::Boolean(*truth),
        Value::List(items) => Toml::Array(
            items
                .iter()
                .map(|item| toml_of(&item.value, Unit::AsIs))
                .collect(),
        ),
        // The table has none of these where a value is set.
        Value::Map(_) | Value::Record(_) | Value::Node(_) => Toml::Array(Vec::new()),
    }
}

/// A layer as the `config` crate takes it.
#[derive(Clone, Debug)]
pub(super) struct Overlay(Map<String, Merged>);

impl Overlay {
    pub(super) fn new(settings: &[Setting]) -> Self {
        let mut root = Map::new();
        for setting in settings {
            let origin = setting.origin.to_string();
            put(&mut root, &setting.path, leaf(&setting.value, &origin));
        }
        Self(root)
    }
}

fn put(table: &mut Map<String, Merged>, path: &[String], value: Merged) {
    match path {
        [] => {}
        [key] => {
            table.insert(key.clone(), value);
        }
        [key, rest @ ..] => {
            let section = table
                .entry(key.clone())
                .or_insert_with(|| Merged::from(Map::<String, Merged>::new()));
            if let ValueKind::Table(table) = &mut section.kind {
                put(table, rest, value);
            }
        }
    }
}

fn leaf(value: &Toml, origin: &str) -> Merged {
    let origin_text = origin.to_owned();
    let kind = match value {
        Toml::String(text) => ValueKind::String(text.clone()),
        Toml::Integer(number) => ValueKind::I64(*number),
        Toml::Float(number) => ValueKind::Float(*number),
        Toml::Boolean(value) => ValueKind::Boolean(*value),
        Toml::Array(items) => {
            ValueKind::Array(items.iter().map(|item| leaf(item, origin)).collect())
        }
        Toml::Datetime(_) | Toml::Table(_) => ValueKind::Nil,
    };
    Merged::new(Some(&origin_text), kind)
}

impl config::Source for Overlay {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Merged>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

/// Who set each key of merged layers.
pub(super) fn origins(merged: &Merged) -> BTreeMap<String, Origin> {
    let mut origins = BTreeMap::new();
    collect_origins(&mut Vec::new(), merged, &mut origins);
    origins
}

fn collect_origins<'a>(
    path: &mut Vec<&'a str>,
    value: &'a Merged,
    origins: &mut BTreeMap<String, Origin>,
) {
    if let ValueKind::Table(table) = &value.kind {
        for (key, value) in table {
            path.push(key);
            collect_origins(path, value, origins);
            path.pop();
        }
    } else if let Some(origin) = value.origin().and_then(Origin::from_text) {
        origins.insert(path.join("."), origin);
    }
}
