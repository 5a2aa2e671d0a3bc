//! The settings themselves: every key, its type and its default. What values may stand there is in [`keys`](super::keys).

use std::collections::BTreeMap;
use std::time::Duration;

use kimi_actors::policy::admission::Limits;
use kimi_actors::policy::backoff::Backoff;
use kimi_actors::policy::intensity::Intensity;
use kimi_actors::policy::probe::ProbeRules;
use kimi_actors::policy::restart::Restart;
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{Governor, OnLimit, OnLost, OnRestart, StopSpec};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::quantity;
use crate::words::{SignalName, Words, word};

/// All settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How long a start may take until it is ready.
    #[serde(with = "duration")]
    pub start_timeout: Duration,
    /// What becomes of the children when the runtime dies.
    #[serde(with = "word")]
    pub on_runtime_death: OnRuntimeDeath,
    /// What signals do.
    pub signals: Signals,
    /// One-shot commands.
    pub children: Children,
    /// Restarts.
    pub restart: RestartSettings,
    /// The default probe for readiness.
    pub readiness: Probe,
    /// The default probe for liveness.
    pub liveness: Probe,
    /// What a dependency's end means for those who depend on it.
    pub depends_on: DependsOn,
    /// How children are stopped.
    pub stop: Stop,
    /// Traces and metrics.
    pub telemetry: Telemetry,
    /// The web page.
    pub dashboard: Dashboard,
    /// Figures below which performance counts as poor.
    pub thresholds: Thresholds,
}

/// What signals do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signals {
    /// Whether there are handlers at all.
    pub enabled: bool,
    /// The force-exit deadline of the whole shutdown.
    #[serde(with = "duration")]
    pub graceful_shutdown_timeout: Duration,
    /// Whether that deadline holds; otherwise a shutdown takes as long as it takes.
    pub force_exit_after_timeout: bool,
    /// The signals that are acted upon, besides SIGQUIT and those that an action was added for.
    pub handled: Vec<SignalName>,
    /// What each does.
    pub actions: BTreeMap<SignalName, Action>,
    /// How many receipts are kept.
    pub history: u32,
}

/// What a signal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// An ordered shutdown.
    Shutdown,
    /// Everything is killed at once.
    ForcedShutdown,
    /// Log files are opened anew, and a status snapshot is logged.
    ReopenLogs,
    /// The manifest is read again.
    Reload,
    /// All services get it.
    Forward,
    /// Nothing.
    Ignore,
}

impl Words for Action {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("shutdown", Self::Shutdown),
        ("forced_shutdown", Self::ForcedShutdown),
        ("reopen_logs", Self::ReopenLogs),
        ("reload", Self::Reload),
        ("forward", Self::Forward),
        ("ignore", Self::Ignore),
    ];
    const TOLD: usize = 6;
}

/// One-shot commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Children {
    /// How long one may take.
    #[serde(with = "duration")]
    pub default_timeout: Duration,
    /// How long it has between the stop signal and the kill.
    #[serde(with = "duration")]
    pub grace: Duration,
    /// How many bytes of its output are kept, the first half and the last half.
    #[serde(with = "size")]
    pub max_buffer_size: u64,
    /// Whether the program is looked for before anything starts.
    pub validate_binary: bool,
    /// How many run at once.
    pub max_concurrent: u32,
    /// How many may wait for a place.
    pub queue: u32,
    /// How long one may wait.
    #[serde(with = "duration")]
    pub queue_timeout: Duration,
}

/// Restarts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartSettings {
    /// When services restart.
    #[serde(with = "word")]
    pub services: Restart,
    /// When tasks restart.
    #[serde(with = "word")]
    pub tasks: Restart,
    /// How many restarts in the window are allowed.
    pub max_restarts: u32,
    /// How far back restarts count.
    #[serde(with = "duration")]
    pub window: Duration,
    /// What happens at the restart after the last allowed one.
    #[serde(with = "word")]
    pub on_limit: OnLimit,
    /// The delays.
    pub backoff: BackoffSettings,
}

/// The delays before restarts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackoffSettings {
    /// After the first unstable run.
    #[serde(with = "duration")]
    pub initial: Duration,
    /// Each further one is this many times longer.
    pub factor: f64,
    /// None is longer.
    #[serde(with = "duration")]
    pub max: Duration,
    /// The share by which each is moved at random.
    pub jitter: f64,
    /// A run that was good for this long restarts at once.
    #[serde(with = "duration")]
    pub reset_after: Duration,
}

/// A probe's rhythm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// From one try to the next.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// How long one may take.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// So many failures in a row count.
    pub failure_threshold: u32,
    /// So many successes in a row count.
    pub success_threshold: u32,
    /// From the start to the first try.
    #[serde(with = "duration")]
    pub initial_delay: Duration,
}

/// What a dependency's end means for those who depend on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DependsOn {
    /// When it is restarted.
    #[serde(with = "word")]
    pub on_restart: OnRestart,
    /// When it is down for good.
    #[serde(with = "word")]
    pub on_lost: OnLost,
}

/// How children are stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// What they are asked with.
    pub signal: SignalName,
    /// How long they may take before the kill.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Who is asked.
    #[serde(with = "word")]
    pub scope: Scope,
}

/// Who gets the signal that stops a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The child and all that it started.
    Tree,
}

impl Words for Scope {
    const WORDS: &'static [(&'static str, Self)] = &[("tree", Self::Tree)];
    const TOLD: usize = 1;
}

/// Traces and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// Where they are sent.
    pub otlp: Endpoint,
}

/// Where telemetry is sent: `off`, or an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Endpoint {
    /// Nowhere, unless the standard variables of OpenTelemetry say where.
    Off,
    /// There.
    Address(String),
}

impl TryFrom<String> for Endpoint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "off" {
            Ok(Self::Off)
        } else if text.starts_with("http://") || text.starts_with("https://") {
            Ok(Self::Address(text))
        } else {
            Err(format!(
                "`{text}` is no endpoint; expected `off` or an address such as `http://127.0.0.1:4318`"
            ))
        }
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Off => "off".to_owned(),
            Endpoint::Address(address) => address,
        }
    }
}

/// The web page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dashboard {
    /// The first port that is tried.
    pub port: u16,
}

/// What becomes of the children when the runtime dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRuntimeDeath {
    /// They are killed.
    Kill,
    /// They are left alone.
    Leave,
}

impl Words for OnRuntimeDeath {
    const WORDS: &'static [(&'static str, Self)] = &[("kill", Self::Kill), ("leave", Self::Leave)];
    const TOLD: usize = 2;
}

/// Figures below which performance counts as poor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Operations a second, at least.
    pub ops_per_sec: f64,
    /// Milliseconds each, at most.
    pub latency_ms: f64,
    /// Memory, at most.
    #[serde(with = "size")]
    pub memory: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let probe = Probe::from(ProbeRules::default());
        Self {
            start_timeout: Duration::from_secs(60),
            on_runtime_death: OnRuntimeDeath::Kill,
            signals: Signals::default(),
            children: Children::default(),
            restart: RestartSettings::default(),
            readiness: probe.clone(),
            liveness: probe,
            depends_on: DependsOn {
                on_restart: OnRestart::Ignore,
                on_lost: OnLost::Ignore,
            },
            stop: Stop {
                signal: SignalName(Signal::TERM),
                timeout: StopSpec::DEFAULT_GRACE,
                scope: Scope::Tree,
            },
            telemetry: Telemetry {
                otlp: Endpoint::Off,
            },
            dashboard: Dashboard { port: 18_790 },
            thresholds: Thresholds {
                ops_per_sec: 20_000.0,
                latency_ms: 0.05,
                memory: 512 << 20,
            },
        }
    }
}

impl Default for Signals {
    fn default() -> Self {
        Self {
            enabled: true,
            graceful_shutdown_timeout: Duration::from_secs(5),
            force_exit_after_timeout: true,
            handled: [
                Signal::INT,
                Signal::TERM,
                Signal::HUP,
                Signal::USR1,
                Signal::USR2,
            ]
            .map(SignalName)
            .into(),
            actions: default_actions(),
            history: 1000,
        }
    }
}

fn default_actions() -> BTreeMap<SignalName, Action> {
    [
        (Signal::HUP, Action::Shutdown),
        (Signal::INT, Action::Shutdown),
        (Signal::QUIT, Action::ForcedShutdown),
        (Signal::USR1, Action::ReopenLogs),
        (Signal::USR2, Action::Reload),
        (Signal::TERM, Action::Shutdown),
    ]
    .map(|(signal, action)| (SignalName(signal), action))
    .into()
}

impl Signals {
    /// The signals that are acted upon, each with what it does; none when signals are not enabled.
    pub fn effective(&self) -> BTreeMap<Signal, Action> {
        if !self.enabled {
            return BTreeMap::new();
        }
        let defaults = default_actions();
        let added = self
            .actions
            .iter()
            .filter(|(signal, _)| signal.0 == Signal::QUIT || !defaults.contains_key(signal));
        self.handled
            .iter()
            .map(|signal| {
                let action = self.actions.get(signal).copied();
                (signal.0, action.unwrap_or(Action::Forward))
            })
            .chain(added.map(|(signal, action)| (signal.0, *action)))
            .collect()
    }
}

impl Default for Children {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            default_timeout: Duration::from_secs(30),
            grace: Duration::from_millis(500),
            max_buffer_size: 10 << 20,
            validate_binary: true,
            max_concurrent: limits.max_concurrent,
            queue: limits.queue,
            queue_timeout: limits.queue_timeout,
        }
    }
}

impl Children {
    /// The bounds of one-shot commands.
    pub fn limits(&self) -> Limits {
        Limits {
            max_concurrent: self.max_concurrent,
            queue: self.queue,
            queue_timeout: self.queue_timeout,
        }
    }
}

impl Default for RestartSettings {
    fn default() -> Self {
        let intensity = Intensity::default();
        let backoff = Backoff::default();
        Self {
            services: Restart::Always,
            tasks: Restart::Never,
            max_restarts: intensity.max_restarts,
            window: intensity.window,
            on_limit: OnLimit::GiveUp,
            backoff: BackoffSettings {
                initial: backoff.initial,
                factor: backoff.factor,
                max: backoff.max,
                jitter: backoff.jitter,
                reset_after: backoff.reset_after,
            },
        }
    }
}

impl From<ProbeRules> for Probe {
    fn from(rules: ProbeRules) -> Self {
        Self {
            interval: rules.interval,
            timeout: rules.timeout,
            failure_threshold: rules.failure_threshold,
            success_threshold: rules.success_threshold,
            initial_delay: rules.initial_delay,
        }
    }
}

impl Probe {
    /// The rules of a probe that names none of its own.
    pub fn rules(&self) -> ProbeRules {
        ProbeRules {
            interval: self.interval,
            timeout: self.timeout,
            initial_delay: self.initial_delay,
            failure_threshold: self.failure_threshold,
            success_threshold: self.success_threshold,
        }
    }
}

impl RestartSettings {
    /// The governor of what names none of its own.
    pub fn governor(&self) -> Governor {
        Governor {
            limit: Some(self.intensity()),
            backoff: Backoff {
                initial: self.backoff.initial,
                factor: self.backoff.factor,
                max: self.backoff.max,
                jitter: self.backoff.jitter,
                reset_after: self.backoff.reset_after,
            },
            on_limit: self.on_limit,
        }
    }

    /// The limit alone.
    pub fn intensity(&self) -> Intensity {
        Intensity {
            max_restarts: self.max_restarts,
            window: self.window,
        }
    }
}

/// Durations as text.
mod duration {
    use super::{Deserialize, Deserializer, Duration, Serializer, de, quantity};

    pub(super) fn serialize<S: Serializer>(
        value: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&quantity::duration_text(*value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        quantity::duration(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// Sizes as text, or as a number of bytes.
mod size {
    use super::{Deserializer, Serializer, de, quantity};

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "the signature is given by serde"
    )]
    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&quantity::size_text(*value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        struct SizeVisitor;

        impl de::Visitor<'_> for SizeVisitor {
            type Value = u64;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a size such as `10MiB`, or a number of bytes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
                quantity::size(text).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<u64, E> {
                u64::try_from(bytes).map_err(|_| E::custom("a size is not negative"))
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<u64, E> {
                Ok(bytes)
            }
        }

        deserializer.deserialize_any(SizeVisitor)
    }
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        word::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word::deserialize(deserializer)
    }
}

/// SIGKILL and SIGSTOP cannot be caught, SIGCHLD is the runtime's own, and the rest mean that the program is broken.
pub(super) fn uncatchable(signal: Signal) -> Option<String> {
    const BROKEN: [i32; 6] = [4, 5, 7, 8, 11, 31];
    let own = [Signal::KILL, Signal::STOP, Signal::CHLD].contains(&signal);
    (own || BROKEN.contains(&signal.number())).then(|| format!("{signal} cannot be handled"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_governor_is_the_standard_one_of_the_policy() {
        assert_eq!(RestartSettings::default().governor(), Governor::standard());
        assert_eq!(Children::default().limits(), Limits::default());
    }

    #[test]
    fn signals_act_by_their_actions_and_quit_always_does() {
        let signals = Signals {
            handled: vec![SignalName(Signal::TERM), SignalName(Signal::TSTP)],
            actions: {
                let mut actions = default_actions();
                actions.insert(SignalName(Signal::CONT), Action::Ignore);
                actions
            },
            ..Signals::default()
        };
        assert_eq!(
            signals.effective().into_iter().collect::<Vec<_>>(),
            [
                (Signal::QUIT, Action::ForcedShutdown),
                (Signal::TERM, Action::Shutdown),
                (Signal::CONT, Action::Ignore),
                (Signal::TSTP, Action::Forward),
            ]
        );
        let disabled = Signals {
            enabled: false,
            ..Signals::default()
        };
        assert!(disabled.effective().is_empty());
    }
}
