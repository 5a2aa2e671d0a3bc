//! What stands in a manifest, still without meaning: [`keys`](crate::manifest::keys) says what may, this says what does.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use kimi_actors::policy::restart::{Restart, Strategy};
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{Condition, Kind, OnLimit, OnLost, OnRestart};

use crate::document::decode::Report;
pub(super) use crate::document::record::At;
use crate::document::record::{Record, Value};
use crate::document::{Node, Span};
use crate::manifest::LogRules;
use crate::manifest::environment::Inherit;
use crate::manifest::keys::MANIFEST;
use crate::manifest::probe::Probe;
use crate::manifest::setup::SetupRule;
use crate::words::Words;

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
    pub(super) port: Option<At<u16>>,
    pub(super) replicas: Option<At<u16>>,
    pub(super) profiles: Vec<&'a str>,
    pub(super) starts_with_all: bool,
    pub(super) depends_on: Vec<Dependency<'a>>,
    pub(super) readiness: Option<Probe<'a>>,
    pub(super) liveness: Option<Probe<'a>>,
    /// With the defaults below it.
    pub(super) shared: Shared<'a>,
    /// Where its own start timeout stands, if it does not come from the defaults.
    pub(super) own_start_timeout: Option<Span>,
}

/// The keys that services can share. What can be long is shared too, and not copied for each service: a file that many
/// services inherit from would become many files.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared<'a> {
    pub(super) cwd: Option<&'a str>,
    pub(super) env: Rc<Vec<(At<&'a str>, &'a str)>>,
    /// The variables of the defaults, not merged here: that would make many out of few.
    pub(super) env_below: Rc<Vec<(At<&'a str>, &'a str)>>,
    pub(super) env_files: Option<Rc<[EnvFile<'a>]>>,
    pub(super) inherit: Option<Inherit<'a>>,
    pub(super) start_timeout: Option<At<Duration>>,
    pub(super) max_runtime: Option<At<Duration>>,
    pub(super) idle_timeout: Option<At<Duration>>,
    pub(super) restart: RestartRule,
    pub(super) success: Option<Success>,
    pub(super) stop: StopRule<'a>,
    pub(super) logs: Option<At<LogRules>>,
    pub(super) setup: SetupRule<'a>,
}

/// A file of variables.
#[derive(Clone, Debug)]
pub(super) struct EnvFile<'a> {
    pub(super) path: At<&'a str>,
    pub(super) must_exist: bool,
}

/// What is executed.
#[derive(Clone, Debug)]
pub(super) enum Command<'a> {
    Argv(&'a str, Vec<&'a str>),
    Shell(&'a str),
}

/// What is waited for.
#[derive(Clone, Debug)]
pub(super) struct Dependency<'a> {
    pub(super) on: At<&'a str>,
    pub(super) condition: Condition,
    pub(super) on_restart: Option<At<OnRestart>>,
    pub(super) on_lost: Option<At<OnLost>>,
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

/// What counts as success.
#[derive(Clone, Debug, Default)]
pub(super) struct Success {
    pub(super) codes: Vec<i32>,
    pub(super) signals: Vec<Signal>,
}

/// How something is stopped.
#[derive(Clone, Debug, Default)]
pub(super) struct StopRule<'a> {
    pub(super) signal: Option<Signal>,
    pub(super) timeout: Option<At<Duration>>,
    pub(super) command: Option<Rc<Command<'a>>>,
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

/// The value of a word that the table has checked.
fn word<T: Words>(record: &Record<'_>, key: &str) -> Option<T> {
    T::parse(record.text(key)?).ok()
}

fn word_at<T: Words>(record: &Record<'_>, key: &str) -> Option<At<T>> {
    let value = word(record, key)?;
    let span = record.key_span(key)?;
    Some(At { value, span })
}

fn whole_at<T: TryFrom<i64>>(record: &Record<'_>, key: &str) -> Option<At<T>> {
    let at = record.get(key)?;
    Some(At {
        value: at.value.whole()?,
        span: at.span,
    })
}

fn duration_at(record: &Record<'_>, key: &str) -> Option<At<Duration>> {
    let span = record.get(key)?.span;
    let value = record.duration(key)?;
    Some(At { value, span })
}

fn texts<'a>(items: &[At<Value<'a>>]) -> Vec<At<&'a str>> {
    items
        .iter()
        .filter_map(|item| {
            Some(At {
                value: item.value.text()?,
                span: item.span,
            })
        })
        .collect()
}

impl<'a> Manifest<'a> {
    /// What stands in a manifest; all that is wrong with its shape is reported.
    pub(super) fn read(report: &Report, node: &'a Node) -> Self {
        let record = Record::read(report, node, &MANIFEST, "the manifest");
        let defaults = record
            .record("defaults")
            .map_or_else(Shared::default, Shared::of);
        let each = |key| {
            let entries = record.map(key).iter();
            entries.filter_map(|(name, at)| Some((*name, at.value.record()?)))
        };
        let settings = record.get("settings").and_then(|at| at.value.node());
        Self {
            services: each("services")
                .map(|(name, record)| Service::of(name, record, &defaults))
                .collect(),
            supervisors: each("supervisors")
                .map(|(name, record)| Supervisor::of(name, record))
                .collect(),
            settings,
        }
    }

    /// The names of all services, tasks and supervisors.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        let services = self.services.iter().map(|service| service.name.value);
        let supervisors = self.supervisors.iter().map(|it| it.name.value);
        services.chain(supervisors)
    }
}

impl<'a> Service<'a> {
    fn of(name: At<&'a str>, record: &Record<'a>, defaults: &Shared<'a>) -> Self {
        let shell = || record.text("shell").map(Command::Shell);
        let own = Shared::of(record);
        Self {
            name,
            own_start_timeout: own.start_timeout.map(|timeout| timeout.span),
            kind: word(record, "type").unwrap_or_default(),
            command: record
                .get("command")
                .and_then(|at| Command::argv(&at.value))
                .or_else(shell),
            port: whole_at(record, "port"),
            replicas: whole_at(record, "replicas"),
            profiles: texts(record.list("profiles"))
                .iter()
                .map(|profile| profile.value)
                .collect(),
            starts_with_all: record.truth("autostart").unwrap_or(true),
            depends_on: dependencies(record),
            readiness: record.record("readiness").and_then(Probe::of),
            liveness: record.record("liveness").and_then(Probe::of),
            shared: own.over(defaults),
        }
    }
}

fn dependencies<'a>(record: &Record<'a>) -> Vec<Dependency<'a>> {
    let listed = texts(record.list("depends_on"))
        .into_iter()
        .map(|on| Dependency {
            on,
            condition: Condition::default(),
            on_restart: None,
            on_lost: None,
        });
    let mapped = record.map("depends_on").iter().filter_map(|(on, at)| {
        let record = at.value.record()?;
        Some(Dependency {
            on: *on,
            condition: word(record, "condition").unwrap_or_default(),
            on_restart: word_at(record, "on_restart"),
            on_lost: word_at(record, "on_lost"),
        })
    });
    listed.chain(mapped).collect()
}

impl<'a> Shared<'a> {
    fn of(record: &Record<'a>) -> Self {
        let logs = record.get("logs").and_then(|at| {
            let value = LogRules::of(at.value.record()?);
            let span = record.key_span("logs")?;
            Some(At { value, span })
        });
        Self {
            cwd: record.text("cwd"),
            env: Rc::new(
                record
                    .map("env")
                    .iter()
                    .filter_map(|(name, at)| Some((*name, at.value.text()?)))
                    .collect(),
            ),
            env_below: Rc::default(),
            env_files: record.get("env_file").map(env_files),
            inherit: record.get("env_inherit").map(|at| inherit(&at.value)),
            start_timeout: duration_at(record, "start_timeout"),
            max_runtime: duration_at(record, "max_runtime"),
            idle_timeout: duration_at(record, "idle_timeout"),
            restart: RestartRule::of(record),
            success: record
                .get("success_exit_codes")
                .map(|at| Success::of(at.value.list())),
            stop: record
                .record("stop")
                .map_or_else(StopRule::default, StopRule::of),
            logs,
            setup: SetupRule::of(record),
        }
    }

    /// What it says, and where it says nothing what the defaults say; maps are merged key by key.
    fn over(self, defaults: &Self) -> Self {
        Self {
            cwd: self.cwd.or(defaults.cwd),
            env: self.env,
            env_below: Rc::clone(&defaults.env),
            env_files: self.env_files.or_else(|| defaults.env_files.clone()),
            inherit: self.inherit.or_else(|| defaults.inherit.clone()),
            start_timeout: self.start_timeout.or(defaults.start_timeout),
            max_runtime: self.max_runtime.or(defaults.max_runtime),
            idle_timeout: self.idle_timeout.or(defaults.idle_timeout),
            restart: self.restart.over(defaults.restart),
            success: self.success.or_else(|| defaults.success.clone()),
            stop: StopRule {
                signal: self.stop.signal.or(defaults.stop.signal),
                timeout: self.stop.timeout.or(defaults.stop.timeout),
                command: self.stop.command.or_else(|| defaults.stop.command.clone()),
            },
            logs: match (self.logs, defaults.logs) {
                (Some(own), Some(defaults)) => Some(At {
                    value: own.value.over(defaults.value),
                    span: own.span,
                }),
                (own, defaults) => own.or(defaults),
            },
            setup: self.setup.over(defaults.setup),
        }
    }
}

fn env_files<'a>(at: &At<Value<'a>>) -> Rc<[EnvFile<'a>]> {
    let file = |at: &At<Value<'a>>| {
        let (path, must_exist) = match at.value.record() {
            Some(record) => (
                record.text("path")?,
                record.truth("required").unwrap_or(true),
            ),
            None => (at.value.text()?, true),
        };
        let path = At {
            value: path,
            span: at.span,
        };
        Some(EnvFile { path, must_exist })
    };
    if let Value::List(items) = &at.value {
        items.iter().filter_map(file).collect()
    } else {
        file(at).into_iter().collect()
    }
}

fn inherit<'a>(value: &Value<'a>) -> Inherit<'a> {
    if let Value::Truth(all) = value {
        return if *all {
            Inherit::All
        } else {
            Inherit::Only(Rc::default())
        };
    }
    if let Value::List(names) = value {
        return Inherit::Only(names.iter().filter_map(|name| name.value.text()).collect());
    }
    Inherit::minimal()
}

impl<'a> Command<'a> {
    /// The program and its arguments that a list is.
    pub(super) fn argv(value: &Value<'a>) -> Option<Self> {
        let words = value.list().iter().map(|item| item.value.text());
        let words: Vec<&str> = words.collect::<Option<_>>()?;
        let (program, arguments) = words.split_first()?;
        Some(Self::Argv(program, arguments.to_vec()))
    }
}

impl Success {
    fn of(items: &[At<Value<'_>>]) -> Self {
        let values = || items.iter().map(|item| &item.value);
        let codes: BTreeSet<i32> = values().filter_map(Value::whole).collect();
        let signals: BTreeSet<Signal> = values()
            .filter_map(|value| value.text()?.parse().ok())
            .collect();
        Self {
            codes: codes.into_iter().collect(),
            signals: signals.into_iter().collect(),
        }
    }
}

impl<'a> StopRule<'a> {
    fn of(record: &Record<'a>) -> Self {
        let command = record.get("command").and_then(|at| {
            let shell = |record: &Record<'a>| record.text("shell").map(Command::Shell);
            let command = Command::argv(&at.value);
            let command = command.or_else(|| at.value.record().and_then(shell))?;
            Some(Rc::new(command))
        });
        Self {
            signal: record.text("signal").and_then(|text| text.parse().ok()),
            timeout: duration_at(record, "timeout"),
            command,
        }
    }
}

impl RestartRule {
    /// What `restart` in a map says: a word, or a map.
    fn of(record: &Record<'_>) -> Self {
        let Some(rule) = record.record("restart") else {
            return Self {
                policy: word(record, "restart"),
                ..Self::default()
            };
        };
        let none = Record::default();
        let backoff = rule.record("backoff").unwrap_or(&none);
        Self {
            policy: word(rule, "policy"),
            max_restarts: rule.whole("max_restarts"),
            window: rule.duration("window"),
            on_limit: word(rule, "on_limit"),
            initial: backoff.duration("initial"),
            factor: backoff.number("factor"),
            max: backoff.duration("max"),
            jitter: backoff.number("jitter"),
            reset_after: backoff.duration("reset_after"),
        }
    }

    fn over(self, defaults: Self) -> Self {
        Self {
            policy: self.policy.or(defaults.policy),
            max_restarts: self.max_restarts.or(defaults.max_restarts),
            window: self.window.or(defaults.window),
            on_limit: self.on_limit.or(defaults.on_limit),
            initial: self.initial.or(defaults.initial),
            factor: self.factor.or(defaults.factor),
            max: self.max.or(defaults.max),
            jitter: self.jitter.or(defaults.jitter),
            reset_after: self.reset_after.or(defaults.reset_after),
        }
    }
}

impl LogRules {
    fn of(record: &Record<'_>) -> Self {
        Self {
            max_size: record.size("max_size"),
            max_files: record.whole("max_files"),
            max_age: record.duration("max_age"),
            timestamps: record.truth("timestamps"),
        }
    }

    fn over(self, defaults: Self) -> Self {
        Self {
            max_size: self.max_size.or(defaults.max_size),
            max_files: self.max_files.or(defaults.max_files),
            max_age: self.max_age.or(defaults.max_age),
            timestamps: self.timestamps.or(defaults.timestamps),
        }
    }
}

impl<'a> Supervisor<'a> {
    fn of(name: At<&'a str>, record: &Record<'a>) -> Self {
        Self {
            name,
            strategy: word(record, "strategy").unwrap_or_default(),
            max_restarts: record.whole("max_restarts"),
            window: record.duration("window"),
            on_limit: word(record, "on_limit"),
            restart: RestartRule::of(record),
            children: texts(record.list("children")),
        }
    }
}
