//! One layer of settings: what was set, where, and whether it makes sense.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::sync::LazyLock;

use config::{Map, Value, ValueKind};
use toml::Value as Toml;

use crate::document::decode::Report;
use crate::document::nearest::did_you_mean;
use crate::document::problem::{Place, Problem};
use crate::document::{Content, Entry, Node, Scalar, ScalarKind};
use crate::quantity;
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

/// A name under which a setting is known from before.
struct Alias {
    name: &'static str,
    /// Where it may stand besides the top level.
    sections: &'static [&'static str],
    path: [&'static str; 2],
    unit: Unit,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    AsIs,
    Milliseconds,
}

const ALIASES: [Alias; 9] = [
    alias(
        "gracefulShutdownTimeoutMs",
        &["signals"],
        ["signals", "graceful_shutdown_timeout"],
        Unit::Milliseconds,
    ),
    alias(
        "forceExitAfterTimeout",
        &["signals"],
        ["signals", "force_exit_after_timeout"],
        Unit::AsIs,
    ),
    alias("enabled", &[], ["signals", "enabled"], Unit::AsIs),
    alias(
        "handledSignals",
        &["signals"],
        ["signals", "handled"],
        Unit::AsIs,
    ),
    alias(
        "maxHistory",
        &["signals", "telemetry"],
        ["signals", "history"],
        Unit::AsIs,
    ),
    alias(
        "defaultTimeoutMs",
        &["children"],
        ["children", "default_timeout"],
        Unit::Milliseconds,
    ),
    alias(
        "maxBufferSize",
        &["children"],
        ["children", "max_buffer_size"],
        Unit::AsIs,
    ),
    alias(
        "validateBinary",
        &["children"],
        ["children", "validate_binary"],
        Unit::AsIs,
    ),
    alias(
        "maxConcurrent",
        &["children"],
        ["children", "max_concurrent"],
        Unit::AsIs,
    ),
];

const fn alias(
    name: &'static str,
    sections: &'static [&'static str],
    path: [&'static str; 2],
    unit: Unit,
) -> Alias {
    Alias {
        name,
        sections,
        path,
        unit,
    }
}

/// The table whose keys are not fixed: one for each signal.
const ACTIONS: [&str; 2] = ["signals", "actions"];

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

/// The compiled defaults as a tree.
fn default_tree() -> &'static Toml {
    static TREE: LazyLock<Toml> = LazyLock::new(|| {
        Toml::try_from(Settings::default())
            .unwrap_or_else(|error| unreachable!("the defaults can be written down: {error}"))
    });
    &TREE
}

/// The compiled defaults as a layer.
pub(super) fn defaults() -> Vec<Setting> {
    let mut settings = Vec::new();
    collect_leaves(&mut Vec::new(), default_tree(), &mut settings);
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
    /// A key with its default; `None` for an action of a signal that has none.
    Key(Vec<String>, Option<Toml>, Unit),
    /// A section.
    Section(Vec<String>),
    /// Nothing; what may stand there instead.
    Unknown(Vec<String>),
    /// A signal that does not exist.
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
    if let [section @ .., name] = names
        && let Some(alias) = ALIASES.iter().find(|alias| {
            spelling.same(name, alias.name)
                && match section {
                    [] => true,
                    [section] => alias
                        .sections
                        .iter()
                        .any(|known| spelling.same(section, known)),
                    _ => false,
                }
        })
    {
        let path = alias.path.map(str::to_owned).to_vec();
        let default = value_at(default_tree(), &path).cloned();
        return Target::Key(path, default, alias.unit);
    }
    if let [section @ .., signal] = names
        && section.len() == ACTIONS.len()
        && section
            .iter()
            .zip(ACTIONS)
            .all(|(given, known)| spelling.same(given, known))
    {
        return match signal.parse::<kimi_actors::policy::signal::Signal>() {
            Ok(signal) => {
                let mut path = ACTIONS.map(str::to_owned).to_vec();
                path.push(signal.to_string());
                Target::Key(path, Some(Toml::String(String::new())), Unit::AsIs)
            }
            Err(error) => Target::NoSignal(error.to_string()),
        };
    }
    let mut here = default_tree();
    let mut path: Vec<String> = Vec::new();
    for name in names {
        let Toml::Table(table) = here else {
            return Target::Unknown(Vec::new());
        };
        let Some((known, value)) = table.iter().find(|(known, _)| spelling.same(name, known))
        else {
            let mut known: Vec<String> = table.iter().map(|(key, _)| key.clone()).collect();
            known.extend(
                ALIASES
                    .iter()
                    .filter(|alias| {
                        path.is_empty() || alias.sections.contains(&path.join(".").as_str())
                    })
                    .map(|alias| alias.name.to_owned()),
            );
            return Target::Unknown(known);
        };
        path.push(known.clone());
        here = value;
    }
    if here.is_table() {
        Target::Section(path)
    } else {
        Target::Key(path, Some(here.clone()), Unit::AsIs)
    }
}

fn value_at<'a>(tree: &'a Toml, path: &[String]) -> Option<&'a Toml> {
    path.iter().try_fold(tree, |value, key| value.get(key))
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
                Target::Key(path, default, unit) => {
                    self.key(entry, &dotted, path, default.as_ref(), unit);
                }
                Target::NoSignal(why) => self.report.wrong(entry.key_span, why),
                Target::Unknown(known) => {
                    let names = known.iter().map(String::as_str);
                    let hint = self.report.did_you_mean(&entry.key, names);
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
        default: Option<&Toml>,
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
        let place = self.report.place(entry.key_span).to_string();
        let checked = value_of(&entry.value)
            .and_then(|value| in_our_unit(value, unit))
            .and_then(|value| checked(&path, value, default));
        match checked {
            Ok(value) => self.settings.push(Setting {
                path,
                value,
                origin: Origin {
                    layer: self.layer,
                    place,
                },
            }),
            Err(why) => self
                .report
                .wrong(entry.value.span, format!("`{dotted}`: {why}")),
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
        Target::Key(path, default, unit) => {
            if others.iter().any(|other| other.path == path) {
                return Err(format!(
                    "`{}` is set by another variable too",
                    path.join(".")
                ));
            }
            let like = if unit == Unit::Milliseconds {
                Some(Toml::Integer(0))
            } else {
                default.clone()
            };
            let value = in_our_unit(typed(text, like.as_ref()), unit)?;
            let value = checked(&path, value, default.as_ref())?;
            Ok(Setting {
                path,
                value,
                origin,
            })
        }
        Target::Section(path) => Err(format!("`{}` is a section, not a key", path.join("."))),
        Target::NoSignal(why) => Err(why),
        Target::Unknown(known) => {
            let last = names.last().copied().unwrap_or("");
            let hint = did_you_mean(last, known.iter().map(String::as_str));
            Err(format!("unknown setting `{dotted}`{hint}"))
        }
    }
}

/// A text as what its key takes; what does not fit stays text and is refused by the check.
fn typed(text: &str, like: Option<&Toml>) -> Toml {
    let as_text = || Toml::String(text.to_owned());
    match like {
        Some(Toml::Boolean(_)) => text.parse().map_or_else(|_| as_text(), Toml::Boolean),
        Some(Toml::Integer(_)) => text.parse().map_or_else(|_| as_text(), Toml::Integer),
        Some(Toml::Float(_)) => text.parse().map_or_else(|_| as_text(), Toml::Float),
        Some(Toml::Array(_)) => Toml::Array(
            text.split(',')
                .map(|item| Toml::String(item.trim().to_owned()))
                .filter(|item| item.as_str() != Some(""))
                .collect(),
        ),
        _ => as_text(),
    }
}

fn value_of(node: &Node) -> Result<Toml, String> {
    let wrong = || format!("this cannot be {}", node.describe());
    match &node.content {
        Content::Scalar(scalar) => scalar_value(scalar).ok_or_else(wrong),
        Content::List(items) => items
            .iter()
            .map(value_of)
            .collect::<Result<_, _>>()
            .map(Toml::Array),
        Content::Map(_) => Err(wrong()),
    }
}

fn scalar_value(scalar: &Scalar) -> Option<Toml> {
    let digits = || scalar.text.replace('_', "");
    match scalar.kind {
        ScalarKind::Text => Some(Toml::String(scalar.text.clone())),
        ScalarKind::Integer => digits().parse().ok().map(Toml::Integer),
        ScalarKind::Float => digits().parse().ok().map(Toml::Float),
        ScalarKind::Bool => scalar
            .text
            .to_ascii_lowercase()
            .parse()
            .ok()
            .map(Toml::Boolean),
        ScalarKind::Datetime | ScalarKind::Null => None,
    }
}

fn in_our_unit(value: Toml, unit: Unit) -> Result<Toml, String> {
    match (unit, value) {
        (Unit::AsIs, value) => Ok(value),
        (Unit::Milliseconds, Toml::Integer(number)) => u64::try_from(number)
            .map(std::time::Duration::from_millis)
            .map(|duration| Toml::String(quantity::duration_text(duration)))
            .map_err(|_| format!("{number} is negative")),
        (Unit::Milliseconds, other) => Err(format!(
            "expected whole milliseconds, found {}",
            described(&other)
        )),
    }
}

/// Whether the defaults with this one value are still settings.
fn checked(path: &[String], value: Toml, default: Option<&Toml>) -> Result<Toml, String> {
    if let (Some(Toml::String(_)), Toml::Integer(number)) = (default, &value)
        && quantity::duration(default.and_then(Toml::as_str).unwrap_or("")).is_ok()
    {
        return Err(quantity::NotADuration::without_unit(&number.to_string()).to_string());
    }
    let mut tree = default_tree().clone();
    let mut here = &mut tree;
    for key in path {
        let Toml::Table(table) = here else {
            return Err("this is no key".to_owned());
        };
        here = table
            .entry(key.clone())
            .or_insert_with(|| Toml::String(String::new()));
    }
    *here = value.clone();
    match tree.try_into::<Settings>() {
        Ok(_) => Ok(value),
        Err(error) if error.message().starts_with("invalid") => Err(format!(
            "expected {}, found {}",
            default.map_or("something else", kind_of),
            described(&value)
        )),
        Err(error) => Err(error.message().lines().next().unwrap_or("wrong").to_owned()),
    }
}

fn kind_of(value: &Toml) -> &'static str {
    match value {
        Toml::Integer(_) => "a whole number",
        Toml::Float(_) => "a number",
        Toml::Boolean(_) => "`true` or `false`",
        Toml::Array(_) => "a list",
        Toml::String(_) | Toml::Datetime(_) | Toml::Table(_) => "text",
    }
}

fn described(value: &Toml) -> String {
    match value {
        Toml::String(text) => format!("the text `{text}`"),
        Toml::Integer(number) => number.to_string(),
        Toml::Float(number) => number.to_string(),
        Toml::Boolean(value) => format!("`{value}`"),
        Toml::Array(_) => "a list".to_owned(),
        Toml::Datetime(_) | Toml::Table(_) => "something else".to_owned(),
    }
}

/// A layer as the `config` crate takes it.
#[derive(Clone, Debug)]
pub(super) struct Overlay(Map<String, Value>);

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

fn put(table: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [key] => {
            table.insert(key.clone(), value);
        }
        [key, rest @ ..] => {
            let section = table
                .entry(key.clone())
                .or_insert_with(|| Value::from(Map::<String, Value>::new()));
            if let ValueKind::Table(table) = &mut section.kind {
                put(table, rest, value);
            }
        }
    }
}

fn leaf(value: &Toml, origin: &str) -> Value {
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
    Value::new(Some(&origin_text), kind)
}

impl config::Source for Overlay {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

/// Who set each key of merged layers.
pub(super) fn origins(merged: &Value) -> BTreeMap<String, Origin> {
    let mut origins = BTreeMap::new();
    collect_origins(&mut Vec::new(), merged, &mut origins);
    origins
}

fn collect_origins<'a>(
    path: &mut Vec<&'a str>,
    value: &'a Value,
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
