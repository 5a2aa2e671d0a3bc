//! The table of the settings: every key, what stands there, and its default.

use kimi_actors::policy::restart::Restart;
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{OnLimit, OnLost, OnRestart};

use crate::document::shape::{Grammar, Key, Kind, Shape, Takes};
use crate::grammar::SIGNAL_TEXT;
use crate::settings::values::{self, Action, OnRuntimeDeath, Scope};
use crate::words;

/// A signal that a program can handle.
static CATCHABLE: Grammar = Grammar {
    expected: "a signal that can be handled, such as SIGTERM",
    pattern: SIGNAL_TEXT.pattern,
    takes: Takes::Text,
    check: |text| match text.parse::<Signal>() {
        Ok(signal) => values::uncatchable(signal).map_or(Ok(()), Err),
        Err(error) => Err(error.to_string()),
    },
};

/// Where telemetry is sent.
static ENDPOINT: Grammar = Grammar {
    expected: "`off` or an address such as `http://127.0.0.1:4318`",
    pattern: Some("^(off|https?://.*)$"),
    takes: Takes::Text,
    check: |text| values::Endpoint::try_from(text.to_owned()).map(drop),
};

const MILLISECONDS: Kind = Kind::Whole {
    least: 0,
    most: 3_162_240_000_000,
};
const FACTOR: Kind = Kind::Number {
    least: 1.0,
    most: 1000.0,
};
const SHARE: Kind = Kind::Number {
    least: 0.0,
    most: 1.0,
};
const NOT_NEGATIVE: Kind = Kind::Number {
    least: 0.0,
    most: f64::MAX,
};
const HANDLED: Kind = Kind::List {
    of: &EACH_HANDLED,
    least: 0,
};
static EACH_HANDLED: Kind = Kind::Text(&CATCHABLE);
static EACH_ACTION: Kind = Kind::Word(words::list::<Action>());

// The names under which settings were known before.
const OLD_TIMEOUT: Key = Key::new(
    "gracefulShutdownTimeoutMs",
    MILLISECONDS,
    "The older name of `signals.graceful_shutdown_timeout`, in milliseconds.",
);
const OLD_FORCE: Key = Key::new(
    "forceExitAfterTimeout",
    Kind::Truth,
    "The older name of `signals.force_exit_after_timeout`.",
);
const OLD_ENABLED: Key = Key::new(
    "enabled",
    Kind::Truth,
    "The older name of `signals.enabled`.",
);
const OLD_HANDLED: Key = Key::new(
    "handledSignals",
    HANDLED,
    "The older name of `signals.handled`.",
);
const OLD_HISTORY: Key = Key::new(
    "maxHistory",
    Kind::COUNT,
    "The older name of `signals.history`.",
);
const OLD_DEFAULT_TIMEOUT: Key = Key::new(
    "defaultTimeoutMs",
    MILLISECONDS,
    "The older name of `children.default_timeout`, in milliseconds.",
);
const OLD_BUFFER: Key = Key::new(
    "maxBufferSize",
    Kind::Size,
    "The older name of `children.max_buffer_size`.",
);
const OLD_VALIDATE: Key = Key::new(
    "validateBinary",
    Kind::Truth,
    "The older name of `children.validate_binary`.",
);
const OLD_CONCURRENT: Key = Key::new(
    "maxConcurrent",
    Kind::SOME,
    "The older name of `children.max_concurrent`.",
);

/// All settings.
pub static SETTINGS: Shape = Shape {
    name: "settings",
    about: "The settings of kimi-shell itself, and what holds for services that say nothing else.",
    keys: &[
        Key::new(
            "start_timeout",
            Kind::SOME_TIME,
            "How long a start may take until it is ready.",
        )
        .default("60s"),
        Key::new(
            "on_runtime_death",
            Kind::Word(words::list::<OnRuntimeDeath>()),
            "What becomes of the children when the runtime itself dies.",
        )
        .default("kill"),
        Key::new("signals", Kind::Record(&SIGNALS), SIGNALS.about),
        Key::new("children", Kind::Record(&CHILDREN), CHILDREN.about),
        Key::new("restart", Kind::Record(&RESTART), RESTART.about),
        Key::new(
            "readiness",
            Kind::Record(&RHYTHM),
            "The rhythm of readiness probes.",
        ),
        Key::new(
            "liveness",
            Kind::Record(&RHYTHM),
            "The rhythm of liveness probes.",
        ),
        Key::new("depends_on", Kind::Record(&DEPENDS_ON), DEPENDS_ON.about),
        Key::new("stop", Kind::Record(&STOP), STOP.about),
        Key::new("telemetry", Kind::Record(&TELEMETRY), TELEMETRY.about),
        Key::new("dashboard", Kind::Record(&DASHBOARD), DASHBOARD.about),
        Key::new("thresholds", Kind::Record(&THRESHOLDS), THRESHOLDS.about),
        OLD_TIMEOUT,
        OLD_FORCE,
        OLD_ENABLED,
        OLD_HANDLED,
        OLD_HISTORY,
        OLD_DEFAULT_TIMEOUT,
        OLD_BUFFER,
        OLD_VALIDATE,
        OLD_CONCURRENT,
    ],
    choice: &[],
    foreign: &[],
};

static SIGNALS: Shape = Shape {
    name: "settings_signals",
    about: "What signals to kimi-shell do.",
    keys: &[
        Key::new(
            "enabled",
            Kind::Truth,
            "Whether there are signal handlers at all.",
        )
        .default("true"),
        Key::new(
            "graceful_shutdown_timeout",
            Kind::DURATION,
            "The whole shutdown ends by then; unset, it grows with the stop timeouts that are set.",
        )
        .default("5s"),
        Key::new(
            "force_exit_after_timeout",
            Kind::Truth,
            "Whether that deadline holds; otherwise a shutdown takes as long as it takes.",
        )
        .default("true"),
        Key::new(
            "handled",
            HANDLED,
            "The signals that are acted upon, besides SIGQUIT.",
        )
        .default(r#"["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"]"#),
        Key::new(
            "actions",
            Kind::Map {
                names: &CATCHABLE,
                of: &EACH_ACTION,
                each: "",
            },
            "What each signal does.",
        )
        .example(r#"{"SIGUSR1": "forward"}"#),
        Key::new(
            "history",
            Kind::COUNT,
            "So many receipts of signals are kept.",
        )
        .default("1000"),
        OLD_TIMEOUT,
        OLD_FORCE,
        OLD_HANDLED,
        OLD_HISTORY,
    ],
    choice: &[],
    foreign: &[],
};

static CHILDREN: Shape = Shape {
    name: "settings_children",
    about: "One-shot commands.",
    keys: &[
        Key::new(
            "default_timeout",
            Kind::DURATION,
            "How long a one-shot command may take.",
        )
        .default("30s"),
        Key::new("grace", Kind::DURATION, "From its stop signal to the kill.").default("500ms"),
        Key::new(
            "max_buffer_size",
            Kind::Size,
            "Of its output, the first half and the last half of this are kept.",
        )
        .default("10MiB"),
        Key::new(
            "validate_binary",
            Kind::Truth,
            "Whether programs are looked for before anything starts.",
        )
        .default("true"),
        Key::new("max_concurrent", Kind::SOME, "So many run at once.").default("100"),
        Key::new(
            "queue",
            Kind::COUNT,
            "So many may wait for a place; one more is rejected.",
        )
        .default("1000"),
        Key::new("queue_timeout", Kind::DURATION, "How long one may wait.").default("30s"),
        OLD_DEFAULT_TIMEOUT,
        OLD_BUFFER,
        OLD_VALIDATE,
        OLD_CONCURRENT,
    ],
    choice: &[],
    foreign: &[],
};

static RESTART: Shape = Shape {
    name: "settings_restart",
    about: "When and how often children restart that name no rules of their own.",
    keys: &[
        Key::new(
            "services",
            Kind::Word(words::list::<Restart>()),
            "When services restart.",
        )
        .default("always"),
        Key::new(
            "tasks",
            Kind::Word(words::list::<Restart>()),
            "When tasks restart.",
        )
        .default("never"),
        Key::new(
            "max_restarts",
            Kind::COUNT,
            "So many restarts within the window are allowed; one more trips the limit.",
        )
        .default("5"),
        Key::new("window", Kind::DURATION, "How far back restarts count.").default("60s"),
        Key::new(
            "on_limit",
            Kind::Word(words::list::<OnLimit>()),
            "What happens at the limit.",
        )
        .default("give_up"),
        Key::new("backoff", Kind::Record(&BACKOFF), BACKOFF.about),
    ],
    choice: &[],
    foreign: &[],
};

/// The delays before restarts, in the settings.
static BACKOFF: Shape = Shape {
    name: "settings_backoff",
    about: "The delays before restarts.",
    keys: &[
        Key::new("initial", Kind::DURATION, "After the first unstable run.").default("500ms"),
        Key::new(
            "factor",
            FACTOR,
            "Each further delay is this many times longer.",
        )
        .default("2.0"),
        Key::new("max", Kind::DURATION, "No delay is longer.").default("30s"),
        Key::new(
            "jitter",
            SHARE,
            "Each delay is moved at random by up to this share of it.",
        )
        .default("0.1"),
        Key::new(
            "reset_after",
            Kind::DURATION,
            "A run that was good for so long is stable, and restarts at once.",
        )
        .default("10s"),
    ],
    choice: &[],
    foreign: &[],
};

static RHYTHM: Shape = Shape {
    name: "settings_rhythm",
    about: "How often a probe asks, and how many answers in a row count.",
    keys: &[
        Key::new(
            "interval",
            Kind::SOME_TIME,
            "From the end of one try to the next.",
        )
        .default("1s"),
        Key::new("timeout", Kind::SOME_TIME, "How long one try may take.").default("1s"),
        Key::new(
            "failure_threshold",
            Kind::SOME,
            "So many failures in a row count.",
        )
        .default("3"),
        Key::new(
            "success_threshold",
            Kind::SOME,
            "So many successes in a row count.",
        )
        .default("1"),
        Key::new(
            "initial_delay",
            Kind::DURATION,
            "From the start to the first try.",
        )
        .default("0s"),
    ],
    choice: &[],
    foreign: &[],
};

static DEPENDS_ON: Shape = Shape {
    name: "settings_depends_on",
    about: "What the end of a dependency means for those who depend on it.",
    keys: &[
        Key::new(
            "on_restart",
            Kind::Word(words::list::<OnRestart>()),
            "When a dependency is restarted.",
        )
        .default("ignore"),
        Key::new(
            "on_lost",
            Kind::Word(words::list::<OnLost>()),
            "When a dependency is down for good, or no longer ready.",
        )
        .default("ignore"),
    ],
    choice: &[],
    foreign: &[],
};

static STOP: Shape = Shape {
    name: "settings_stop",
    about: "How children are stopped that name no way of their own.",
    keys: &[
        Key::new(
            "signal",
            Kind::Text(&SIGNAL_TEXT),
            "What a child is asked with.",
        )
        .default("SIGTERM"),
        Key::new(
            "timeout",
            Kind::DURATION,
            "How long it may take; then it is killed.",
        )
        .default("5s"),
        Key::new(
            "scope",
            Kind::Word(words::list::<Scope>()),
            "Who is asked: the child and all that it started.",
        )
        .default("tree"),
    ],
    choice: &[],
    foreign: &[],
};

static TELEMETRY: Shape = Shape {
    name: "settings_telemetry",
    about: "Traces and metrics.",
    keys: &[
        Key::new(
            "otlp",
            Kind::Text(&ENDPOINT),
            "Where they are sent; the standard `OTEL_…` variables hold too.",
        )
        .default("off"),
        OLD_HISTORY,
    ],
    choice: &[],
    foreign: &[],
};

static DASHBOARD: Shape = Shape {
    name: "settings_dashboard",
    about: "The web page.",
    keys: &[Key::new(
        "port",
        Kind::PORT,
        "The first port that is tried; if it is taken, the next free one of 20.",
    )
    .default("18790")],
    choice: &[],
    foreign: &[],
};

static THRESHOLDS: Shape = Shape {
    name: "settings_thresholds",
    about: "Figures below which performance counts as poor.",
    keys: &[
        Key::new(
            "ops_per_sec",
            NOT_NEGATIVE,
            "Operations a second, at least.",
        )
        .default("20000.0"),
        Key::new("latency_ms", NOT_NEGATIVE, "Milliseconds each, at most.").default("0.05"),
        Key::new("memory", Kind::Size, "Memory, at most.").default("512MiB"),
    ],
    choice: &[],
    foreign: &[],
};
