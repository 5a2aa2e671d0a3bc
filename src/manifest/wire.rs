//! The shape of a manifest: which keys there are and what stands in them, still without meaning.

use std::collections::HashSet;
use std::time::Duration;

use kimi_actors::policy::restart::{Restart, Strategy};
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{Condition, Kind, OnLimit};

use crate::document::decode::{Fields, Report};
use crate::document::{Content, Entry, Node, ScalarKind, Span};
use crate::words::Words;

/// A value and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// A whole manifest.
#[derive(Debug, Default)]
pub(super) struct Manifest<'a> {
    pub(super) services: Vec<Service<'a>>,
    pub(super) supervisors: Vec<Supervisor<'a>>,
    pub(super) settings: Option<&'a Node>,
}

/// A service or task.
#[derive(Debug)]
pub(super) struct Service<'a> {
    pub(super) name: At<&'a str>,
    pub(super) kind: Kind,
    pub(super) command: Option<Command<'a>>,
    pub(super) cwd: Option<&'a str>,
    pub(super) env: Vec<(&'a str, &'a str)>,
    pub(super) depends_on: Vec<(At<&'a str>, Condition)>,
    pub(super) restart: RestartRule,
    pub(super) success_codes: Vec<i32>,
    pub(super) success_signals: Vec<Signal>,
    pub(super) stop_signal: Option<Signal>,
    pub(super) stop_timeout: Option<Duration>,
}

/// What is executed.
#[derive(Debug)]
pub(super) enum Command<'a> {
    Argv(&'a str, Vec<&'a str>),
    Shell(&'a str),
}

/// When something restarts; what is absent comes from the settings.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RestartRule {
    pub(super) policy: Option<Restart>,
    pub(super) max_restarts: Option<u32>,
    pub(super) window: Option<Duration>,
    pub(super) on_limit: Option<OnLimit>,
    pub(super) initial: Option<Duration>,
    pub(super) factor: Option<f64>,
    pub(super) max: Option<Duration>,
    pub(super) jitter: Option<f64>,
    pub(super) reset_after: Option<Duration>,
}

/// A supervisor.
#[derive(Debug)]
pub(super) struct Supervisor<'a> {
    pub(super) name: At<&'a str>,
    pub(super) strategy: Strategy,
    pub(super) max_restarts: Option<u32>,
    pub(super) window: Option<Duration>,
    pub(super) on_limit: Option<OnLimit>,
    pub(super) restart: RestartRule,
    pub(super) children: Vec<At<&'a str>>,
}

const KEYS: [&str; 4] = ["version", "services", "supervisors", "settings"];
const KEYS_LATER: [&str; 1] = ["defaults"];
const SERVICE: [&str; 10] = [
    "type",
    "command",
    "shell",
    "cwd",
    "env",
    "depends_on",
    "restart",
    "success_exit_codes",
    "stop",
    "description",
];
const SERVICE_LATER: [&str; 18] = [
    "readiness",
    "liveness",
    "env_file",
    "env_inherit",
    "limits",
    "logs",
    "profiles",
    "replicas",
    "start_timeout",
    "notify_fd",
    "sd_notify",
    "user",
    "group",
    "umask",
    "nice",
    "oom_score_adj",
    "no_new_privs",
    "tty",
];
const SUPERVISOR: [&str; 6] = [
    "strategy",
    "max_restarts",
    "window",
    "on_limit",
    "restart",
    "children",
];
const RESTART: [&str; 5] = ["policy", "max_restarts", "window", "on_limit", "backoff"];
const BACKOFF: [&str; 5] = ["initial", "factor", "max", "jitter", "reset_after"];
const STOP: [&str; 2] = ["signal", "timeout"];
const STOP_LATER: [&str; 2] = ["command", "scope"];
const DEPENDENCY: [&str; 1] = ["condition"];
const DEPENDENCY_LATER: [&str; 2] = ["on_restart", "on_lost"];

impl<'a> Manifest<'a> {
    /// What stands in a manifest; all that is wrong with its shape is reported.
    pub(super) fn read(report: &Report, node: &'a Node) -> Self {
        let Some(fields) = Fields::read(report, node, "the manifest", &KEYS, &KEYS_LATER) else {
            return Self::default();
        };
        check_version(report, node, fields);
        let mut manifest = Self {
            settings: fields.get("settings"),
            ..Self::default()
        };
        match fields.get("services") {
            Some(services) => {
                for entry in entries(report, services, "`services`") {
                    manifest.services.push(Service::read(report, entry));
                }
            }
            None => report.wrong(
                start_of(node),
                "`services` is missing; expected a map of names to services",
            ),
        }
        if let Some(supervisors) = fields.get("supervisors") {
            for entry in entries(report, supervisors, "`supervisors`") {
                manifest.supervisors.push(Supervisor::read(report, entry));
            }
        }
        manifest
    }
}

fn start_of(node: &Node) -> Span {
    Span {
        start: node.span.start,
        end: node.span.start,
    }
}

fn check_version(report: &Report, node: &Node, fields: Fields<'_>) {
    let Some(version) = fields.get("version") else {
        report.wrong(
            start_of(node),
            "`version` is missing; expected `version: 1` (in TOML `version = 1`)",
        );
        return;
    };
    let known = version
        .scalar()
        .is_some_and(|scalar| scalar.kind == ScalarKind::Integer && scalar.text == "1");
    if !known {
        report.wrong(
            version.span,
            format!("expected the version 1, found {}", version.describe()),
        );
    }
}

/// The entries of a map of names; `x-…` keys are free, and a name that stands twice counts once.
fn entries<'a>(report: &Report, node: &'a Node, what: &str) -> Vec<&'a Entry> {
    let entries = report.map(node, what).unwrap_or_default();
    let mut seen = HashSet::new();
    entries
        .iter()
        .filter(|entry| !entry.key.starts_with("x-"))
        .filter(|entry| {
            let new = seen.insert(entry.key.as_str());
            if !new {
                let message = format!("`{}` stands twice in {what}", entry.key);
                report.wrong(entry.key_span, message);
            }
            new
        })
        .collect()
}

fn word<T: Words>(report: &Report, node: &Node, what: &str) -> Option<T> {
    let text = report.text(node, what)?;
    T::parse(text)
        .map_err(|error| report.wrong(node.span, format!("{what}: {error}")))
        .ok()
}

fn signal(report: &Report, node: &Node, what: &str) -> Option<Signal> {
    report
        .verbatim(node, what)?
        .parse()
        .map_err(|error| report.wrong(node.span, format!("{what}: {error}")))
        .ok()
}

impl<'a> Service<'a> {
    fn read(report: &Report, entry: &'a Entry) -> Self {
        let name = At {
            value: entry.key.as_str(),
            span: entry.key_span,
        };
        let mut service = Self {
            name,
            kind: Kind::Service,
            command: None,
            cwd: None,
            env: Vec::new(),
            depends_on: Vec::new(),
            restart: RestartRule::default(),
            success_codes: Vec::new(),
            success_signals: Vec::new(),
            stop_signal: None,
            stop_timeout: None,
        };
        let what = format!("the service `{}`", entry.key);
        let Some(fields) = Fields::read(report, &entry.value, &what, &SERVICE, &SERVICE_LATER)
        else {
            return service;
        };
        let of = |key: &str| format!("`{key}` of {what}");
        if let Some(node) = fields.get("description") {
            report.text(node, &of("description"));
        }
        if let Some(node) = fields.get("type") {
            service.kind = word(report, node, &of("type")).unwrap_or_default();
        }
        service.command = Command::read(report, fields, name, &what);
        service.cwd = fields
            .get("cwd")
            .and_then(|node| path(report, node, &of("cwd")));
        if let Some(node) = fields.get("env") {
            service.env = environment(report, node, &of("env"));
        }
        if let Some(node) = fields.get("depends_on") {
            service.depends_on = dependencies(report, node, &of("depends_on"));
        }
        if let Some(node) = fields.get("restart") {
            service.restart = RestartRule::read(report, node, &of("restart"));
        }
        if let Some(node) = fields.get("success_exit_codes") {
            service.read_success(report, node, &of("success_exit_codes"));
        }
        if let Some(node) = fields.get("stop") {
            service.read_stop(report, node, &of("stop"));
        }
        service
    }

    fn read_success(&mut self, report: &Report, node: &Node, what: &str) {
        for item in report.list(node, what).unwrap_or_default() {
            let text = |kind| {
                let scalar = item.scalar().filter(|scalar| scalar.kind == kind)?;
                Some(scalar.text.as_str())
            };
            let code = text(ScalarKind::Integer)
                .and_then(|text| text.parse().ok())
                .filter(|code| (0..=255).contains(code));
            let signal = text(ScalarKind::Text).and_then(|text| text.parse().ok());
            match (code, signal) {
                (Some(code), _) => self.success_codes.push(code),
                (None, Some(signal)) => self.success_signals.push(signal),
                (None, None) => report.expected(
                    item,
                    &format!(
                        "an item of {what} to be a code from 0 to 255 or a signal such as SIGTERM"
                    ),
                ),
            }
        }
    }

    fn read_stop(&mut self, report: &Report, node: &Node, what: &str) {
        let Some(fields) = Fields::read(report, node, what, &STOP, &STOP_LATER) else {
            return;
        };
        self.stop_signal = fields
            .get("signal")
            .and_then(|node| signal(report, node, &format!("`signal` in {what}")));
        self.stop_timeout = fields
            .get("timeout")
            .and_then(|node| report.duration(node, &format!("`timeout` in {what}")));
    }
}

impl<'a> Command<'a> {
    fn read(report: &Report, fields: Fields<'a>, name: At<&str>, what: &str) -> Option<Self> {
        match (fields.get("command"), fields.entry("shell")) {
            (Some(_), Some(shell)) => {
                report.wrong(
                    shell.key_span,
                    format!("{what} has both `command` and `shell`; expected one of them"),
                );
                None
            }
            (None, None) => {
                report.wrong(
                    name.span,
                    format!("{what} has neither `command` nor `shell`; expected one of them"),
                );
                None
            }
            (Some(command), None) => Self::argv(report, command, what),
            (None, Some(shell)) => {
                let line = report.text(&shell.value, &format!("`shell` of {what}"))?;
                if line.trim().is_empty() || line.contains('\0') {
                    report.wrong(shell.value.span, format!("`shell` of {what} is no line"));
                    return None;
                }
                Some(Self::Shell(line))
            }
        }
    }

    fn argv(report: &Report, node: &'a Node, what: &str) -> Option<Self> {
        let Content::List(items) = &node.content else {
            report.wrong(
                node.span,
                format!(
                    "expected `command` of {what} to be a list of the program and its arguments, found {}; \
                     for a line of shell use `shell`",
                    node.describe()
                ),
            );
            return None;
        };
        let words: Vec<&str> = items
            .iter()
            .filter_map(|item| {
                let word = report.verbatim(item, &format!("each item of `command` of {what}"))?;
                if word.contains('\0') {
                    report.wrong(item.span, "an argument cannot contain a NUL character");
                }
                Some(word)
            })
            .collect();
        match words.split_first() {
            Some((program, arguments)) if !program.is_empty() => {
                Some(Self::Argv(program, arguments.to_vec()))
            }
            _ => {
                report.wrong(node.span, format!("`command` of {what} names no program"));
                None
            }
        }
    }
}

fn path<'a>(report: &Report, node: &'a Node, what: &str) -> Option<&'a str> {
    let text = report.text(node, what)?;
    if text.is_empty() || text.contains('\0') {
        report.wrong(node.span, format!("{what} is no path"));
        return None;
    }
    Some(text)
}

/// The values are secrets for all we know: no mistake shows them.
fn environment<'a>(report: &Report, node: &'a Node, what: &str) -> Vec<(&'a str, &'a str)> {
    report.keep_secret(node);
    let Content::Map(entries) = &node.content else {
        let found = match &node.content {
            Content::List(_) => "a list",
            Content::Scalar(_) | Content::Map(_) => "something else",
        };
        report.wrong(
            node.span,
            format!("expected {what} to be a map such as `NAME: value`, found {found}"),
        );
        return Vec::new();
    };
    let mut env = Vec::new();
    let mut seen = HashSet::new();
    for entry in entries {
        let key = entry.key.as_str();
        let scalar = entry
            .value
            .scalar()
            .filter(|scalar| scalar.kind != ScalarKind::Null);
        let wrong = if key.is_empty() || key.contains(['=', '\0']) {
            format!("`{key}` in {what} is no name of a variable")
        } else if !seen.insert(key) {
            format!("the key `{key}` stands twice in {what}")
        } else {
            match scalar {
                None => format!(
                    "expected `{key}` in {what} to be text; for an empty value write `\"\"`"
                ),
                Some(scalar) if scalar.text.contains('\0') => {
                    format!("`{key}` in {what} contains a NUL character")
                }
                Some(scalar) => {
                    env.push((key, scalar.text.as_str()));
                    continue;
                }
            }
        };
        report.wrong(entry.key_span, wrong);
    }
    env
}

fn dependencies<'a>(report: &Report, node: &'a Node, what: &str) -> Vec<(At<&'a str>, Condition)> {
    let mut found: Vec<(At<&str>, Condition)> = Vec::new();
    let mut seen = HashSet::new();
    let mut add = |name: &'a str, span: Span, condition: Condition| {
        if seen.insert(name) {
            found.push((At { value: name, span }, condition));
        } else {
            report.wrong(span, format!("`{name}` stands twice in {what}"));
        }
    };
    match &node.content {
        Content::List(items) => {
            for item in items {
                if let Some(name) = report.verbatim(item, &format!("each item of {what}")) {
                    add(name, item.span, Condition::Ready);
                }
            }
        }
        Content::Map(entries) => {
            for entry in entries {
                let what = format!("`{}` in {what}", entry.key);
                let condition =
                    Fields::read(report, &entry.value, &what, &DEPENDENCY, &DEPENDENCY_LATER)
                        .and_then(|fields| fields.get("condition"))
                        .and_then(|node| word(report, node, &format!("`condition` of {what}")));
                add(&entry.key, entry.key_span, condition.unwrap_or_default());
            }
        }
        Content::Scalar(_) => {
            report.expected(
                node,
                &format!("{what} to be a list of names, or a map of names to conditions"),
            );
        }
    }
    found
}

impl RestartRule {
    fn read(report: &Report, node: &Node, what: &str) -> Self {
        if let Content::Scalar(_) = &node.content {
            return Self {
                policy: word(report, node, what),
                ..Self::default()
            };
        }
        let Some(fields) = Fields::read(report, node, what, &RESTART, &[]) else {
            return Self::default();
        };
        let of = |key: &str| format!("`{key}` in {what}");
        let mut rule = Self {
            policy: fields
                .get("policy")
                .and_then(|node| word(report, node, &of("policy"))),
            max_restarts: fields
                .get("max_restarts")
                .and_then(|node| report.whole(node, &of("max_restarts"))),
            window: fields
                .get("window")
                .and_then(|node| report.duration(node, &of("window"))),
            on_limit: fields
                .get("on_limit")
                .and_then(|node| word(report, node, &of("on_limit"))),
            ..Self::default()
        };
        if let Some(node) = fields.get("backoff") {
            rule.read_backoff(report, node, &of("backoff"));
        }
        rule
    }

    fn read_backoff(&mut self, report: &Report, node: &Node, what: &str) {
        let Some(fields) = Fields::read(report, node, what, &BACKOFF, &[]) else {
            return;
        };
        let duration = |key: &str| {
            let node = fields.get(key)?;
            report.duration(node, &format!("`{key}` in {what}"))
        };
        let number = |key: &str, least: f64, most: f64| {
            let node = fields.get(key)?;
            let number = report.number(node, &format!("`{key}` in {what}"))?;
            if (least..=most).contains(&number) {
                return Some(number);
            }
            report.wrong(
                node.span,
                format!("expected `{key}` in {what} to be {least} to {most}, found {number}"),
            );
            None
        };
        self.initial = duration("initial");
        self.factor = number("factor", 1.0, 1000.0);
        self.max = duration("max");
        self.jitter = number("jitter", 0.0, 1.0);
        self.reset_after = duration("reset_after");
    }
}

impl<'a> Supervisor<'a> {
    fn read(report: &Report, entry: &'a Entry) -> Self {
        let mut supervisor = Self {
            name: At {
                value: entry.key.as_str(),
                span: entry.key_span,
            },
            strategy: Strategy::OneForOne,
            max_restarts: None,
            window: None,
            on_limit: None,
            restart: RestartRule::default(),
            children: Vec::new(),
        };
        let what = format!("the supervisor `{}`", entry.key);
        let Some(fields) = Fields::read(report, &entry.value, &what, &SUPERVISOR, &[]) else {
            return supervisor;
        };
        let of = |key: &str| format!("`{key}` of {what}");
        if let Some(node) = fields.get("strategy") {
            supervisor.strategy = word(report, node, &of("strategy")).unwrap_or_default();
        }
        supervisor.max_restarts = fields
            .get("max_restarts")
            .and_then(|node| report.whole(node, &of("max_restarts")));
        supervisor.window = fields
            .get("window")
            .and_then(|node| report.duration(node, &of("window")));
        supervisor.on_limit = fields
            .get("on_limit")
            .and_then(|node| word(report, node, &of("on_limit")));
        if let Some(node) = fields.get("restart") {
            supervisor.restart = RestartRule::read(report, node, &of("restart"));
        }
        match fields.get("children") {
            Some(node) => {
                let items = report.list(node, &of("children")).unwrap_or_default();
                if items.is_empty() && matches!(node.content, Content::List(_)) {
                    report.wrong(node.span, format!("{} is empty", of("children")));
                }
                for item in items {
                    if let Some(name) =
                        report.verbatim(item, &format!("each item of {}", of("children")))
                    {
                        supervisor.children.push(At {
                            value: name,
                            span: item.span,
                        });
                    }
                }
            }
            None => report.wrong(entry.key_span, format!("{what} has no `children`")),
        }
        supervisor
    }
}

/// That a name does not exist, with the nearest one that does.
pub(super) fn unknown_name<'a>(
    report: &Report,
    name: &str,
    what: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> String {
    format!(
        "{what} names `{name}`, which does not exist{}",
        report.did_you_mean(name, known)
    )
}
