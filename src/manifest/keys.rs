//! The table of a manifest: every key, what stands there, and what it is for.
//!
//! It is one flat table, long as it is, so that each key is found at once and stands beside its neighbours.

use kimi_actors::policy::restart::{Restart, Strategy};
use kimi_actors::policy::spec::{Condition, Kind as ChildKind, OnLimit, OnLost, OnRestart};

use crate::document::shape::{Foreign, Grammar, Key, Kind, Shape, Takes};
use crate::grammar::{LINE, NAME, PATH, PROSE, REFERENCE, SIGNAL, SIGNAL_TEXT};
use crate::manifest::environment::Minimal;
use crate::manifest::{identity, probe, profile};
use crate::settings::Scope;
use crate::settings::keys::SETTINGS;
use crate::words;

// What stands in lists and below names.
static EACH_SERVICE: Kind = Kind::Record(&SERVICE);
static EACH_SUPERVISOR: Kind = Kind::Record(&SUPERVISOR);
static EACH_DEPENDENCY: Kind = Kind::Record(&DEPENDENCY);
static EACH_NAME: Kind = Kind::Text(&REFERENCE);
static EACH_VARIABLE: Kind = Kind::Text(&VARIABLE);
static EACH_PROFILE: Kind = Kind::Text(&profile::PROFILE);
static EACH_ENV_FILE: Kind = Kind::OneOf(&ENV_FILE_FORMS);
static EACH_SUCCESS: Kind = Kind::OneOf(&SUCCESS_FORMS);

// What may be written in more than one way.
static ENV_FILE_FORMS: [Kind; 2] = [Kind::Text(&PATH), Kind::Record(&ENV_FILE_ENTRY)];
static ENV_FILES_FORMS: [Kind; 2] = [
    Kind::Text(&PATH),
    Kind::List {
        of: &EACH_ENV_FILE,
        least: 0,
    },
];
static INHERIT_FORMS: [Kind; 3] = [
    Kind::Truth,
    Kind::Word(words::list::<Minimal>()),
    Kind::List {
        of: &EACH_VARIABLE,
        least: 0,
    },
];
static DEPENDS_ON_FORMS: [Kind; 2] = [
    Kind::List {
        of: &EACH_NAME,
        least: 0,
    },
    Kind::Map {
        names: &REFERENCE,
        of: &EACH_DEPENDENCY,
        each: "",
    },
];
static TCP_FORMS: [Kind; 2] = [Kind::PORT, Kind::Text(&probe::ADDRESS)];
static RESTART_FORMS: [Kind; 2] = [Kind::Word(words::list::<Restart>()), Kind::Record(&RESTART)];
static SUCCESS_FORMS: [Kind; 2] = [
    Kind::Whole {
        least: 0,
        most: 255,
    },
    Kind::Text(&SIGNAL_TEXT),
];
static STOP_COMMAND_FORMS: [Kind; 2] = [Kind::Command, Kind::Record(&STOP_COMMAND)];

/// A whole manifest.
pub static MANIFEST: Shape = Shape {
    name: "manifest",
    about: "What kimi-shell starts, watches and stops.",
    keys: &[
        Key::new(
            "version",
            Kind::Only("1"),
            "The version of this format, so that a newer one is recognised.",
        )
        .required()
        .example("1"),
        Key::new(
            "services",
            Kind::Map {
                names: &NAME,
                of: &EACH_SERVICE,
                each: "service",
            },
            "The services and tasks by their names: a letter or digit, then letters, digits, `_` or `-`.",
        )
        .required()
        .example(r#"{"web": {"command": ["python3", "-m", "http.server", "8080"]}}"#),
        Key::new(
            "supervisors",
            Kind::Map {
                names: &NAME,
                of: &EACH_SUPERVISOR,
                each: "supervisor",
            },
            "Groups of services, each with a strategy for restarts. What no supervisor lists stands below the root.",
        )
        .example(r#"{"group": {"strategy": "one_for_all", "children": ["web"]}}"#),
        Key::new(
            "defaults",
            Kind::Record(&DEFAULTS),
            "Keys that all services and tasks share. What a service says itself wins; maps are merged key by key.",
        )
        .example(r#"{"env": {"LOG": "info"}, "stop": {"timeout": "3s"}}"#),
        Key::new("settings", Kind::Deferred(&SETTINGS), SETTINGS.about)
            .example(r#"{"signals": {"graceful_shutdown_timeout": "10s"}}"#),
    ],
    choice: &[],
    foreign: &[
        Foreign::named("processes", "services"),
        Foreign::named("programs", "services"),
        Foreign::named("daemons", "services"),
        Foreign::named("apps", "services"),
        Foreign::named("tasks", "services: { NAME: { type: task } }"),
        Foreign::named("groups", "supervisors"),
        Foreign::named("env", "defaults: { env: … }"),
        Foreign::named("environment", "defaults: { env: … }"),
        Foreign::named("env_file", "defaults: { env_file: … }"),
        Foreign::named("restart", "settings: { restart: … }"),
        Foreign::absent(
            "include",
            "files are merged by giving `-f` more than once",
        ),
        Foreign::absent("networks", "processes share the network of the machine"),
        Foreign::absent("volumes", "processes share the files of the machine"),
    ],
};

const TYPE: Key = Key::new(
    "type",
    Kind::Word(words::list::<ChildKind>()),
    "A service is meant to run on; a task runs once and is then `completed` or `failed`.",
)
.default("service")
.example("\"task\"");

const DESCRIPTION: Key = Key::new(
    "description",
    Kind::Text(&PROSE),
    "What it is, for those who read the file.",
)
.example("\"the public page\"");

const COMMAND: Key = Key::new(
    "command",
    Kind::Command,
    "The program and its arguments, as they are; no shell looks at them.",
)
.example(r#"["python3", "-m", "http.server", "8080"]"#)
.hint("for a line of shell use `shell`");

const SHELL: Key = Key::new(
    "shell",
    Kind::Text(&LINE),
    "A line that is given to `/bin/sh -c`, with the variables of the service; nothing is put into it before.",
)
.example("\"exec ./server --port \\\"$PORT\\\"\"")
.hint("for a program and its arguments use `command`");

const CWD: Key = Key::new(
    "cwd",
    Kind::Text(&PATH),
    "The working directory, relative to the project's.",
)
.default(".")
.example("\"./api\"");

const ENV: Key = Key::new(
    "env",
    Kind::Variables,
    "Variables of its environment. Numbers and truth values are taken as they are written.",
)
.example(r#"{"LOG": "info", "WORKERS": 4}"#);

static ENV_FILE_ENTRY: Shape = Shape {
    name: "env_file",
    about: "A file of variables.",
    keys: &[
        Key::new("path", Kind::Text(&PATH), "The file.")
            .required()
            .example("\".env.local\""),
        Key::new(
            "required",
            Kind::Truth,
            "Whether it is a mistake if the file does not exist.",
        )
        .default("true")
        .example("false"),
    ],
    choice: &[],
    foreign: &[Foreign::absent(
        "format",
        "there is one format, that of `.env` files",
    )],
};

const ENV_FILE: Key = Key::new(
    "env_file",
    Kind::OneOf(&ENV_FILES_FORMS),
    "Files of variables, `NAME=value` a line, relative to the project's directory. Later ones win, and `env` wins over all.",
)
.example(r#"[".env.api", {"path": ".env.local", "required": false}]"#);

/// The name of a variable.
static VARIABLE: Grammar = Grammar {
    expected: "the name of a variable",
    pattern: Some("^[^=]+$"),
    takes: Takes::Text,
    check: |name| {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(format!("`{name}` is no name of a variable"));
        }
        Ok(())
    },
};

const ENV_INHERIT: Key = Key::new(
    "env_inherit",
    Kind::OneOf(&INHERIT_FORMS),
    "What it inherits of the environment of kimi-shell: all, nothing, the few variables that every program expects, or those that are named.",
)
.default("true")
.example(r#"["PATH", "HOME", "AWS_PROFILE"]"#);

const PORT: Key = Key::new(
    "port",
    Kind::PORT,
    "Its port, which it finds in `PORT`; each further replica gets the next one.",
)
.example("8080");

const REPLICAS: Key = Key::new(
    "replicas",
    Kind::Whole {
        least: 1,
        most: 1000,
    },
    "So many of it run, as `NAME.1`, `NAME.2` … below a supervisor `NAME`. Each finds its index, from 0, in `KIMI_REPLICA_INDEX` and their number in `KIMI_REPLICAS`.",
)
.example("3");

const PROFILES: Key = Key::new(
    "profiles",
    Kind::List {
        of: &EACH_PROFILE,
        least: 0,
    },
    "It counts only if one of these profiles is active (`--profile NAME`, `KIMI_SHELL_PROFILES`; `*` is all), or if it is started by its name.",
)
.example(r#"["debug"]"#);

const AUTOSTART: Key = Key::new(
    "autostart",
    Kind::Truth,
    "`false`: it starts only by its name, or when something that starts depends on it.",
)
.default("true")
.example("false");

static DEPENDENCY: Shape = Shape {
    name: "dependency",
    about: "What is waited for in another service, task or supervisor, and what its end means.",
    keys: &[
        Key::new(
            "condition",
            Kind::Word(words::list::<Condition>()),
            "What must be true of it before the first start: it runs, it is ready (a task: has succeeded), it has ended, it has succeeded.",
        )
        .default("ready")
        .example("\"started\""),
        Key::new(
            "on_restart",
            Kind::Word(words::list::<OnRestart>()),
            "What happens when it is restarted.",
        )
        .setting("depends_on.on_restart")
        .example("\"restart\""),
        Key::new(
            "on_lost",
            Kind::Word(words::list::<OnLost>()),
            "What happens when it is down for good, or no longer ready.",
        )
        .setting("depends_on.on_lost")
        .example("\"stop\""),
    ],
    choice: &[],
    foreign: &[
        Foreign::named("restart", "on_restart: restart"),
        Foreign::absent(
            "required",
            "what is waited for must exist; leave the dependency out instead",
        ),
    ],
};

const DEPENDS_ON: Key = Key::new(
    "depends_on",
    Kind::OneOf(&DEPENDS_ON_FORMS),
    "What it waits for before its first start. A list waits for each to be ready.",
)
.example(r#"{"db": {"condition": "ready", "on_lost": "stop"}}"#)
.hint("such as `[db]` or `{ db: { condition: started } }`");

// What a probe may ask. Readiness can also be told by the service itself.
const TCP: Key = Key::new(
    "tcp",
    Kind::OneOf(&TCP_FORMS),
    "It accepts a connection at this address, or at this port of this machine.",
)
.example("\"127.0.0.1:7001\"");
const HTTP: Key = Key::new(
    "http",
    Kind::Text(&probe::URL),
    "It answers a GET with a status from 200 to 299; redirects are not followed.",
)
.example("\"http://127.0.0.1:8080/healthz\"");
const EXEC: Key = Key::new(
    "exec",
    Kind::Command,
    "A program that ends with 0, in the directory and environment of the service.",
)
.example(r#"["redis-cli", "-p", "7001", "ping"]"#)
.hint("for a line of shell use `shell`");
const PROBE_SHELL: Key = Key::new(
    "shell",
    Kind::Text(&LINE),
    "A line for `/bin/sh -c` that ends with 0.",
)
.example("\"test -e /tmp/up\"");
const LOG: Key = Key::new(
    "log",
    Kind::Text(&probe::PATTERN),
    "It has written a line that matches this regular expression.",
)
.example("\"listening on .*:8080\"");
const NOTIFY_FD: Key = Key::new(
    "notify_fd",
    Kind::Whole {
        least: 3,
        most: 255,
    },
    "It writes a newline to this descriptor, which it inherits.",
)
.example("3");
const SD_NOTIFY: Key = Key::new(
    "sd_notify",
    Kind::Only("true"),
    "It sends `READY=1` to the socket that `NOTIFY_SOCKET` names, as `sd_notify(3)` does.",
)
.example("true");

/// The keys of a probe's rhythm, with the settings that hold where they are absent.
macro_rules! rhythm {
    ($settings:literal) => {
        [
            Key::new(
                "interval",
                Kind::SOME_TIME,
                "From the end of one try to the next.",
            )
            .setting(concat!($settings, ".interval"))
            .example("\"5s\""),
            Key::new("timeout", Kind::SOME_TIME, "How long one try may take.")
                .setting(concat!($settings, ".timeout"))
                .example("\"500ms\""),
            Key::new(
                "initial_delay",
                Kind::DURATION,
                "From the start to the first try.",
            )
            .setting(concat!($settings, ".initial_delay"))
            .example("\"2s\""),
            Key::new(
                "failure_threshold",
                Kind::SOME,
                "So many failures in a row count.",
            )
            .setting(concat!($settings, ".failure_threshold"))
            .example("5"),
            Key::new(
                "success_threshold",
                Kind::SOME,
                "So many successes in a row count.",
            )
            .setting(concat!($settings, ".success_threshold"))
            .example("2"),
        ]
    };
}
const READY: [Key; 5] = rhythm!("readiness");
const LIVE: [Key; 5] = rhythm!("liveness");

/// What other programs call the keys of a probe. What only one kind of probe knows is a stranger to the other.
const FOREIGN_PROBE: &[Foreign] = &[
    Foreign::named("test", "exec"),
    Foreign::named("command", "exec"),
    Foreign::named("cmd", "exec"),
    Foreign::named("http_get", "http: \"http://HOST:PORT/PATH\""),
    Foreign::named("url", "http"),
    Foreign::named("port", "tcp"),
    Foreign::named("tcp_socket", "tcp"),
    Foreign::named("period", "interval"),
    Foreign::named("period_seconds", "interval"),
    Foreign::named("timeout_seconds", "timeout"),
    Foreign::named("initial_delay_seconds", "initial_delay"),
    Foreign::named("start_period", "initial_delay"),
    Foreign::named("retries", "failure_threshold"),
    Foreign::named("threshold", "failure_threshold"),
    Foreign::absent(
        "start_interval",
        "the rhythm before and after it is ready is the same",
    ),
    Foreign::absent("log", TOLD),
    Foreign::absent("notify_fd", TOLD),
    Foreign::absent("sd_notify", TOLD),
];
const TOLD: &str = "only `readiness` can be told; liveness has to be asked";

static READINESS: Shape = Shape {
    name: "readiness",
    about: "How it is known that a service is ready, which those wait for who depend on it. Without it, a service is ready when it runs.",
    keys: &[
        TCP,
        HTTP,
        EXEC,
        PROBE_SHELL,
        LOG,
        NOTIFY_FD,
        SD_NOTIFY,
        READY[0],
        READY[1],
        READY[2],
        READY[3],
        READY[4],
    ],
    choice: &[
        "tcp",
        "http",
        "exec",
        "shell",
        "log",
        "notify_fd",
        "sd_notify",
    ],
    foreign: FOREIGN_PROBE,
};

static LIVENESS: Shape = Shape {
    name: "liveness",
    about: "How it is known that a service still lives. It is asked once it is ready; if it fails, the service is ended and restarts by its policy.",
    keys: &[
        TCP,
        HTTP,
        EXEC,
        PROBE_SHELL,
        LIVE[0],
        LIVE[1],
        LIVE[2],
        LIVE[3],
        LIVE[4],
    ],
    choice: &["tcp", "http", "exec", "shell"],
    foreign: FOREIGN_PROBE,
};

const START_TIMEOUT: Key = Key::new(
    "start_timeout",
    Kind::SOME_TIME,
    "What is not ready by then has failed to start.",
)
.setting("start_timeout")
.example("\"2m\"");

const MAX_RUNTIME: Key = Key::new(
    "max_runtime",
    Kind::SOME_TIME,
    "A run that takes longer is stopped: a task has failed then, a service has had an unstable run and restarts as it would after any.",
)
.example("\"1h\"");

const IDLE_TIMEOUT: Key = Key::new(
    "idle_timeout",
    Kind::SOME_TIME,
    "The same for a run that writes nothing, neither to stdout nor to stderr, for so long.",
)
.example("\"10m\"");

static BACKOFF: Shape = Shape {
    name: "backoff",
    about: "The delays before restarts.",
    keys: &[
        Key::new("initial", Kind::DURATION, "After the first unstable run.")
            .setting("restart.backoff.initial")
            .example("\"1s\""),
        Key::new(
            "factor",
            Kind::Number {
                least: 1.0,
                most: 1000.0,
            },
            "Each further delay is this many times longer.",
        )
        .setting("restart.backoff.factor")
        .example("1.5"),
        Key::new("max", Kind::DURATION, "No delay is longer.")
            .setting("restart.backoff.max")
            .example("\"1m\""),
        Key::new(
            "jitter",
            Kind::Number {
                least: 0.0,
                most: 1.0,
            },
            "Each delay is moved at random by up to this share of it.",
        )
        .setting("restart.backoff.jitter")
        .example("0.2"),
        Key::new(
            "reset_after",
            Kind::DURATION,
            "A run that was good for so long is stable, and restarts at once.",
        )
        .setting("restart.backoff.reset_after")
        .example("\"30s\""),
    ],
    choice: &[],
    foreign: &[
        Foreign::named("delay", "initial"),
        Foreign::named("limit", "max"),
        Foreign::named("multiplier", "factor"),
    ],
};

const MAX_RESTARTS: Key = Key::new(
    "max_restarts",
    Kind::COUNT,
    "So many restarts within the window are allowed; one more trips the limit.",
)
.setting("restart.max_restarts")
.example("3");
const WINDOW: Key = Key::new("window", Kind::DURATION, "How far back restarts count.")
    .setting("restart.window")
    .example("\"30s\"");
const ON_LIMIT: Key = Key::new(
    "on_limit",
    Kind::Word(words::list::<OnLimit>()),
    "At the limit: stay down, be tried on and on at the longest delay, leave it to the supervisor above, end everything.",
)
.setting("restart.on_limit")
.example("\"escalate\"");
const POLICY: Key = Key::new(
    "policy",
    Kind::Word(words::list::<Restart>()),
    "When it restarts. Without it, services always do, and tasks never.",
)
.example("\"on_failure\"");

static RESTART: Shape = Shape {
    name: "restart",
    about: "When something restarts, how often, and what happens then.",
    keys: &[
        POLICY,
        MAX_RESTARTS,
        WINDOW,
        ON_LIMIT,
        Key::new("backoff", Kind::Record(&BACKOFF), BACKOFF.about)
            .example(r#"{"initial": "1s", "max": "1m"}"#),
    ],
    choice: &[],
    foreign: &[
        Foreign::named("max", "max_restarts"),
        Foreign::named("max_attempts", "max_restarts"),
        Foreign::named("attempts", "max_restarts"),
        Foreign::named("interval", "window"),
        Foreign::named("condition", "policy"),
        Foreign::named("delay", "backoff: { initial: … }"),
        Foreign::named("backoff_seconds", "backoff: { initial: … }"),
    ],
};

const RESTART_KEY: Key = Key::new(
    "restart",
    Kind::OneOf(&RESTART_FORMS),
    "When it restarts; a word alone is the policy. Without it, services always do, and tasks never.",
)
.example(r#"{"policy": "on_failure", "max_restarts": 3, "window": "30s"}"#);

const SUCCESS_EXIT_CODES: Key = Key::new(
    "success_exit_codes",
    Kind::List {
        of: &EACH_SUCCESS,
        least: 0,
    },
    "The exit codes, and signals to die of, that count as success; 143 is also death by SIGTERM.",
)
.default("[0]")
.example(r#"[0, 143, "SIGINT"]"#);

static STOP_COMMAND: Shape = Shape {
    name: "stop_command",
    about: "A line of shell.",
    keys: &[Key::new(
        "shell",
        Kind::Text(&LINE),
        "A line that is given to `/bin/sh -c`.",
    )
    .required()
    .example("\"redis-cli -p 7001 shutdown\"")],
    choice: &[],
    foreign: &[],
};

static STOP: Shape = Shape {
    name: "stop",
    about: "How it is stopped: the signal or the command, then after the timeout the kill of all that it started.",
    keys: &[
        Key::new("signal", Kind::Text(&SIGNAL), "What it is asked with.")
            .setting("stop.signal")
            .example("\"SIGINT\""),
        Key::new(
            "timeout",
            Kind::DURATION,
            "How long it may take; then it is killed.",
        )
        .setting("stop.timeout")
        .example("\"3s\""),
        Key::new(
            "command",
            Kind::OneOf(&STOP_COMMAND_FORMS),
            "What is run instead of the signal, in its directory and environment. If it fails, the signal is sent.",
        )
        .example(r#"["redis-cli", "-p", "7001", "shutdown"]"#)
        .hint("for a line of shell write `{ shell: … }`"),
        Key::new(
            "scope",
            Kind::Word(words::list::<Scope>()),
            "Who is asked: it and all that it started.",
        )
        .setting("stop.scope")
        .example("\"tree\""),
    ],
    choice: &[],
    foreign: &[
        Foreign::named("grace", "timeout"),
        Foreign::named("grace_period", "timeout"),
        Foreign::named("timeout_seconds", "timeout"),
        Foreign::named("shell", "command: { shell: … }"),
    ],
};

static LIMITS: Shape = Shape {
    name: "limits",
    about: "What it may use at most. What cannot be enforced refuses the start of the service, unless `best_effort` is true.",
    keys: &[
        Key::new(
            "nofile",
            Kind::Whole {
                least: 1,
                most: 1 << 30,
            },
            "Open descriptors.",
        )
        .example("4096"),
        Key::new("core", Kind::Size, "The size of a core dump; 0 for none.").example("0"),
        Key::new(
            "memory",
            Kind::Size,
            "Memory of all its processes; without a control group, the addresses of each of them (`RLIMIT_AS`), which \
             `start` says then.",
        ).example("\"512MiB\""),
        Key::new(
            "cpu",
            Kind::Number {
                least: 0.01,
                most: 4096.0,
            },
            "Processors, as a number: 0.5 is half of one. Only a control group can keep it.",
        )
        .example("1.5"),
        Key::new(
            "pids",
            Kind::Whole {
                least: 1,
                most: 4_194_304,
            },
            "Processes and threads; without a control group, those of its user together (`RLIMIT_NPROC`), which binds \
             everybody but root.",
        )
        .example("200"),
        Key::new(
            "best_effort",
            Kind::Truth,
            "Whether it starts although one of its limits, `nice` or `oom_score_adj` cannot be enforced here.",
        )
        .default("false")
        .example("true"),
    ],
    choice: &[],
    foreign: &[
        Foreign::named("cpus", "cpu"),
        Foreign::named("mem", "memory"),
        Foreign::named("tasks", "pids"),
        Foreign::named("files", "nofile"),
    ],
};

static LOGS: Shape = Shape {
    name: "logs",
    about: "The files that its output is kept in.",
    keys: &[
        Key::new("max_size", Kind::Size, "A file of this size is rotated.").example("\"10MiB\""),
        Key::new(
            "max_files",
            Kind::Whole {
                least: 1,
                most: 1000,
            },
            "So many files are kept.",
        )
        .example("5"),
        Key::new("max_age", Kind::SOME_TIME, "Older files are removed.").example("\"7d\""),
        Key::new(
            "timestamps",
            Kind::Truth,
            "Whether each line begins with its time.",
        )
        .example("true"),
    ],
    choice: &[],
    foreign: &[
        Foreign::named("max_file", "max_files"),
        Foreign::named("max_size_mb", "max_size"),
        Foreign::named("max_backups", "max_files"),
        Foreign::named("max_age_days", "max_age"),
    ],
};

const STOP_KEY: Key = Key::new("stop", Kind::Record(&STOP), STOP.about)
    .example(r#"{"signal": "SIGINT", "timeout": "3s"}"#);
const LIMITS_KEY: Key = Key::new("limits", Kind::Record(&LIMITS), LIMITS.about)
    .example(r#"{"nofile": 4096, "memory": "512MiB", "best_effort": true}"#);
const LOGS_KEY: Key =
    Key::new("logs", Kind::Record(&LOGS), LOGS.about).example(r#"{"max_size": "10MiB"}"#);
const USER: Key = Key::new(
    "user",
    Kind::Text(&identity::ACCOUNT),
    "The user that it runs as, by name or number, with the groups of that user, and `HOME`, `USER`, `LOGNAME` and \
     `SHELL` in its environment. Only root may become somebody else.",
)
.example("\"www-data\"");
const GROUP: Key = Key::new(
    "group",
    Kind::Text(&identity::ACCOUNT),
    "The group that it runs as, by name or number; that of `user` if absent.",
)
.example("\"www-data\"");
const UMASK: Key = Key::new(
    "umask",
    Kind::Text(&identity::UMASK),
    "The permissions that its files do not get, in octal.",
)
.example("\"027\"");
const NICE: Key = Key::new(
    "nice",
    Kind::Whole {
        least: -20,
        most: 19,
    },
    "How much it gives way to others. Only root may go below its own.",
)
.example("10");
const OOM_SCORE_ADJ: Key = Key::new(
    "oom_score_adj",
    Kind::Whole {
        least: -1000,
        most: 1000,
    },
    "How soon it is killed when memory is short. Only root may go below its own, and protection that kimi-shell has is \
     not inherited.",
)
.example("500");
const NO_NEW_PRIVS: Key = Key::new(
    "no_new_privs",
    Kind::Truth,
    "Whether it and what it starts can never gain privileges.",
)
.default("false")
.example("true");

/// What other programs call the keys of a service.
const FOREIGN_SERVICE: &[Foreign] = &[
    Foreign::named("environment", "env"),
    Foreign::named("env_vars", "env"),
    Foreign::named("working_dir", "cwd"),
    Foreign::named("workdir", "cwd"),
    Foreign::named("working_directory", "cwd"),
    Foreign::named("directory", "cwd"),
    Foreign::named("dir", "cwd"),
    Foreign::named("entrypoint", "command"),
    Foreign::named("args", "command"),
    Foreign::named("exec", "command"),
    Foreign::named("cmd", "shell"),
    Foreign::named("run", "shell"),
    Foreign::named("script", "shell"),
    Foreign::named("stop_signal", "stop: { signal: … }"),
    Foreign::named("stopsignal", "stop: { signal: … }"),
    Foreign::named("kill_signal", "stop: { signal: … }"),
    Foreign::named("stop_grace_period", "stop: { timeout: … }"),
    Foreign::named("stop_timeout", "stop: { timeout: … }"),
    Foreign::named("kill_timeout", "stop: { timeout: … }"),
    Foreign::named("stop_command", "stop: { command: … }"),
    Foreign::named("shutdown", "stop"),
    Foreign::named("healthcheck", "readiness: { exec: … }"),
    Foreign::named("readiness_probe", "readiness"),
    Foreign::named("liveness_probe", "liveness"),
    Foreign::named("ready_log_line", "readiness: { log: … }"),
    Foreign::named("log", "readiness: { log: … }"),
    Foreign::named("notify_fd", "readiness: { notify_fd: … }"),
    Foreign::named("sd_notify", "readiness: { sd_notify: true }"),
    Foreign::named("launch_timeout_seconds", "start_timeout"),
    Foreign::named("timeout", "max_runtime"),
    Foreign::named("runtime_max_sec", "max_runtime"),
    Foreign::named("availability", "restart"),
    Foreign::named("restart_policy", "restart"),
    Foreign::named("max_restarts", "restart: { max_restarts: … }"),
    Foreign::named("backoff", "restart: { backoff: … }"),
    Foreign::named("on_limit", "restart: { on_limit: … }"),
    Foreign::named("requires", "depends_on"),
    Foreign::named("after", "depends_on"),
    Foreign::named("instances", "replicas"),
    Foreign::named("scale", "replicas"),
    Foreign::named("numprocs", "replicas"),
    Foreign::named("ports", "port"),
    Foreign::named("disabled", "autostart: false"),
    Foreign::named("ulimits", "limits"),
    Foreign::named("mem_limit", "limits: { memory: … }"),
    Foreign::named("logging", "logs"),
    Foreign::named("log_location", "logs"),
    Foreign::absent("tty", "this version gives no terminal to a service"),
    Foreign::absent(
        "image",
        "containers are not run here; write the program as `command`",
    ),
    Foreign::absent(
        "build",
        "nothing is built here but by a task that others wait for",
    ),
];

/// A service or task.
pub static SERVICE: Shape = Shape {
    name: "service",
    about: "A service or task.",
    keys: &[
        TYPE,
        COMMAND,
        SHELL,
        DESCRIPTION,
        CWD,
        ENV,
        ENV_FILE,
        ENV_INHERIT,
        PORT,
        REPLICAS,
        PROFILES,
        AUTOSTART,
        DEPENDS_ON,
        Key::new("readiness", Kind::Record(&READINESS), READINESS.about)
            .example(r#"{"tcp": "127.0.0.1:7001", "interval": "200ms"}"#),
        Key::new("liveness", Kind::Record(&LIVENESS), LIVENESS.about)
            .example(r#"{"exec": ["redis-cli", "ping"], "interval": "5s"}"#),
        START_TIMEOUT,
        MAX_RUNTIME,
        IDLE_TIMEOUT,
        RESTART_KEY,
        SUCCESS_EXIT_CODES,
        STOP_KEY,
        LIMITS_KEY,
        LOGS_KEY,
        USER,
        GROUP,
        UMASK,
        NICE,
        OOM_SCORE_ADJ,
        NO_NEW_PRIVS,
    ],
    choice: &["command", "shell"],
    foreign: FOREIGN_SERVICE,
};

/// What all services share.
pub static DEFAULTS: Shape = Shape {
    name: "defaults",
    about: "Keys that all services and tasks share.",
    keys: &[
        CWD,
        ENV,
        ENV_FILE,
        ENV_INHERIT,
        START_TIMEOUT,
        MAX_RUNTIME,
        IDLE_TIMEOUT,
        RESTART_KEY,
        SUCCESS_EXIT_CODES,
        STOP_KEY,
        LIMITS_KEY,
        LOGS_KEY,
        USER,
        GROUP,
        UMASK,
        NICE,
        OOM_SCORE_ADJ,
        NO_NEW_PRIVS,
    ],
    choice: &[],
    foreign: &[
        Foreign::named("environment", "env"),
        Foreign::named("working_dir", "cwd"),
        Foreign::named("stop_signal", "stop: { signal: … }"),
        Foreign::named("stop_grace_period", "stop: { timeout: … }"),
        Foreign::absent(
            "readiness",
            "the rhythm of all readiness probes is set by `settings: { readiness: … }`",
        ),
        Foreign::absent(
            "liveness",
            "the rhythm of all liveness probes is set by `settings: { liveness: … }`",
        ),
        Foreign::absent("command", "each service has its own"),
        Foreign::absent("shell", "each service has its own"),
        Foreign::absent("type", "each service has its own"),
        Foreign::absent("depends_on", "each service has its own"),
        Foreign::absent("port", "each service has its own"),
        Foreign::absent("replicas", "each service has its own"),
        Foreign::absent("profiles", "each service has its own"),
    ],
};

/// A supervisor.
pub static SUPERVISOR: Shape = Shape {
    name: "supervisor",
    about: "A group of services and other supervisors that restart by a strategy.",
    keys: &[
        Key::new(
            "strategy",
            Kind::Word(words::list::<Strategy>()),
            "Who restarts when one of its children does: that one, all, or that one and those listed after it.",
        )
        .default("one_for_one")
        .example("\"rest_for_one\""),
        MAX_RESTARTS,
        WINDOW,
        Key::new(
            "on_limit",
            ON_LIMIT.kind,
            "When its children restart too often: stop them and stay down, go on at the longest delay, leave it to the supervisor above, end everything.",
        )
        .default("give_up")
        .example("\"escalate\""),
        Key::new(
            "restart",
            RESTART_KEY.kind,
            "When it is itself restarted by the supervisor above; a word alone is the policy.",
        )
        .default("always")
        .example("\"on_failure\""),
        Key::new(
            "children",
            Kind::List {
                of: &EACH_NAME,
                least: 1,
            },
            "Services, tasks and other supervisors, in the order of their start: each waits for the one before.",
        )
        .required()
        .example(r#"["queue", "worker"]"#),
    ],
    choice: &[],
    foreign: &[
        Foreign::named("services", "children"),
        Foreign::named("members", "children"),
        Foreign::named("processes", "children"),
        Foreign::named("intensity", "max_restarts"),
        Foreign::named("period", "window"),
    ],
};
