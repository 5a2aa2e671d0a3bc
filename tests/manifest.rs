//! Manifests: what they mean, and what is said about those that mean nothing.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

pub mod support;

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kimi_actors::policy::exit::Exit;
use kimi_actors::policy::intensity::Intensity;
use kimi_actors::policy::probe::{Check, ProbeRules, Probes};
use kimi_actors::policy::restart::{Restart, Strategy};
use kimi_actors::policy::setup::{Controllers, Identity, Means, Processors, ResourceLimits, Setup};
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{
    BaseEnv, ChildName, ChildRules, Condition, Governor, Kind, NodeRules, OnLimit, OnLost,
    OnRestart, Order, Readiness, SupervisorRules,
};
use kimi_shell::document::problem::Problems;
use kimi_shell::document::{self, Format, Source};
use kimi_shell::manifest::{Location, LogRules, Manifest, ManifestError, schema};
use kimi_shell::settings::{Inputs, Layer};
use support::schema::{as_json, objections};

/// What is good for the program is good for an editor.
fn load_as(name: &str, text: &str) -> Result<Manifest, ManifestError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    let format = Format::of(&path);
    let manifest = Manifest::load(Location::File(path), &Inputs::default())?;
    let source = Arc::new(Source {
        name: name.to_owned(),
        text: text.to_owned(),
    });
    let node = document::parse(&source, format).unwrap();
    let objections = objections(&schema::schema(), &as_json(&node));
    assert!(objections.is_empty(), "{objections:#?}\n{text}");
    Ok(manifest)
}

fn load(text: &str) -> Manifest {
    load_as("kimi-shell.yaml", text).unwrap_or_else(|error| panic!("{error}"))
}

fn problems_as(name: &str, text: &str) -> Problems {
    match load_as(name, text) {
        Err(ManifestError::Invalid(problems)) => problems,
        other => panic!("expected mistakes in:\n{text}\nfound {other:?}"),
    }
}

/// `line:column message` of each mistake.
fn mistakes(name: &str, text: &str) -> Vec<String> {
    problems_as(name, text)
        .0
        .iter()
        .map(|problem| match problem.place.line_and_column() {
            Some((line, column)) => format!("{line}:{column} {}", problem.message),
            None => format!("{} {}", problem.place, problem.message),
        })
        .collect()
}

fn child<'a>(manifest: &'a Manifest, name: &str) -> &'a ChildRules {
    fn find<'a>(supervisor: &'a SupervisorRules, name: &str) -> Option<&'a ChildRules> {
        supervisor.members.iter().find_map(|member| match member {
            NodeRules::Child(child) => (child.name.as_str() == name).then_some(child),
            NodeRules::Supervisor(supervisor) => find(supervisor, name),
        })
    }
    find(&manifest.rules.root, name).unwrap_or_else(|| panic!("no child {name}"))
}

fn names(supervisor: &SupervisorRules) -> Vec<&str> {
    supervisor
        .members
        .iter()
        .map(|member| match member {
            NodeRules::Child(child) => child.name.as_str(),
            NodeRules::Supervisor(supervisor) => supervisor.name.as_str(),
        })
        .collect()
}

fn name(text: &str) -> ChildName {
    ChildName::new(text).unwrap()
}

const WHOLE: &str = r#"
version: 1
x-note: { anything: [goes] }
services:
  db:
    command: [redis-server, --port, 7001]
  api:
    command: [./bin/api, --port, "8080"]
    cwd: ./api
    env: { LOG: info, PORT: 8080, RATIO: 1.10, MODE: 0755, DEBUG: true, ANSWER: no, EMPTY: "" }
    depends_on: { db: { condition: started }, migrate: { condition: succeeded } }
    restart: { policy: transient, max_restarts: 3, window: 30s, on_limit: escalate, backoff: { initial: 1s, factor: 3, jitter: 0 } }
    success_exit_codes: [0, 143, SIGINT]
    stop: { signal: int, timeout: 3s }
    x-owner: someone
  migrate:
    type: task
    shell: echo "$HOME" && ./migrate
    depends_on: [db]
  queue: { command: [sleep, 1] }
  worker: { command: [sleep, 1], restart: never }
supervisors:
  ingest:
    strategy: rest_for_one
    max_restarts: 2
    window: 10s
    on_limit: escalate
    children: [queue, worker, inner]
  inner:
    children: [api]
settings:
  restart: { max_restarts: 7, on_limit: slow_retry }
  children: { max_concurrent: 9 }
"#;

const WHOLE_TOML: &str = r#"
version = 1

[services.db]
command = ["redis-server", "--port", 7001]

[services.api]
command = ["./bin/api", "--port", "8080"]
cwd = "./api"
depends_on = { db = { condition = "started" }, migrate = { condition = "succeeded" } }
success_exit_codes = [0, 143, "SIGINT"]
stop = { signal = "int", timeout = "3s" }

[services.api.env]
LOG = "info"
PORT = 8080
RATIO = 1.10
MODE = "0755"
DEBUG = true
ANSWER = "no"
EMPTY = ""

[services.api.restart]
policy = "transient"
max_restarts = 3
window = "30s"
on_limit = "escalate"
backoff = { initial = "1s", factor = 3, jitter = 0 }

[services.migrate]
type = "task"
shell = 'echo "$HOME" && ./migrate'
depends_on = ["db"]

[services.queue]
command = ["sleep", 1]

[services.worker]
command = ["sleep", 1]
restart = "never"

[supervisors.ingest]
strategy = "rest_for_one"
max_restarts = 2
window = "10s"
on_limit = "escalate"
children = ["queue", "worker", "inner"]

[supervisors.inner]
children = ["api"]

[settings]
restart = { max_restarts = 7, on_limit = "slow_retry" }
children.max_concurrent = 9
"#;

#[test]
fn children_stand_where_their_supervisors_put_them_and_the_rest_below_the_root() {
    let manifest = load(WHOLE);
    let root = &manifest.rules.root;
    assert_eq!(names(root), ["db", "migrate", "ingest"]);
    let Some(NodeRules::Supervisor(ingest)) = root.members.last() else {
        panic!("no supervisor");
    };
    assert_eq!(names(ingest), ["queue", "worker", "inner"]);
    assert_eq!(ingest.strategy, Strategy::RestForOne);
    assert_eq!(
        ingest.intensity,
        Some(Intensity {
            max_restarts: 2,
            window: Duration::from_secs(10)
        })
    );
    assert_eq!(ingest.on_limit, OnLimit::Escalate);
    assert_eq!(ingest.order, Order::Listed);
    let Some(NodeRules::Supervisor(inner)) = ingest.members.last() else {
        panic!("no supervisor");
    };
    assert_eq!(names(inner), ["api"]);
    assert_eq!(inner.on_limit, OnLimit::GiveUp);
    assert_eq!(inner.intensity.unwrap().max_restarts, 7);
}

#[test]
fn a_service_means_what_it_says() {
    let manifest = load(WHOLE);
    let api = child(&manifest, "api");
    assert_eq!(api.kind, Kind::Service);
    assert_eq!(api.restart, Restart::OnFailure);
    assert_eq!(
        api.governor.limit,
        Some(Intensity {
            max_restarts: 3,
            window: Duration::from_secs(30)
        })
    );
    assert_eq!(api.governor.on_limit, OnLimit::Escalate);
    assert_eq!(api.governor.backoff.initial, Duration::from_secs(1));
    assert_eq!(api.governor.backoff.max, Duration::from_secs(30));
    assert_eq!(api.stop.signal, Signal::INT);
    assert_eq!(api.stop.grace, Some(Duration::from_secs(3)));
    for signal in [Signal::TERM, Signal::INT] {
        let core = false;
        assert!(api.success.contains(Exit::Signal { signal, core }));
    }
    let conditions: Vec<(&str, Condition)> = api
        .depends_on
        .iter()
        .map(|dependency| (dependency.on.as_str(), dependency.condition))
        .collect();
    assert_eq!(
        conditions,
        [
            ("db", Condition::Started),
            ("migrate", Condition::Succeeded)
        ]
    );
}

#[test]
fn what_is_absent_comes_from_the_settings() {
    let manifest = load(WHOLE);
    let db = child(&manifest, "db");
    assert_eq!(db.restart, Restart::Always);
    assert_eq!(db.governor.limit.unwrap().max_restarts, 7);
    assert_eq!(db.governor.on_limit, OnLimit::SlowRetry);
    assert_eq!(db.stop.grace, None);
    let migrate = child(&manifest, "migrate");
    assert_eq!(
        (migrate.kind, migrate.restart),
        (Kind::Task, Restart::Never)
    );
    assert_eq!(migrate.depends_on[0].condition, Condition::Ready);
    assert_eq!(manifest.rules.limits.max_concurrent, 9);
    let origin = manifest.origins.get("restart.max_restarts").unwrap();
    assert_eq!(origin.layer, Layer::Manifest);
    assert!(origin.place.ends_with("kimi-shell.yaml:32:14"), "{origin}");
}

#[test]
fn a_manifest_of_two_lines_gets_the_standard_rules() {
    let manifest = load("version: 1\nservices: { a: { command: [sleep, 1] } }\n");
    assert_eq!(*child(&manifest, "a"), ChildRules::service(name("a")));
    assert_eq!(child(&manifest, "a").governor, Governor::standard());
    assert!(manifest.warnings.is_empty());
}

#[test]
fn a_stop_timeout_that_somebody_set_is_explicit() {
    let manifest = load(
        "version: 1\nsettings: { stop: { timeout: 5s } }\nservices: { a: { command: [sleep, 1] } }\n",
    );
    assert_eq!(
        child(&manifest, "a").stop.grace,
        Some(Duration::from_secs(5))
    );
    assert!(manifest.origins.is_explicit("stop.timeout"));
    assert!(
        !manifest
            .origins
            .is_explicit("signals.graceful_shutdown_timeout")
    );
}

#[test]
fn commands_keep_the_text_as_written_and_start_from_the_manifests_directory() {
    let manifest = load(WHOLE);
    let directory = &manifest.project_dir;
    assert!(directory.is_absolute());
    let api = manifest.command(&name("api")).unwrap();
    assert_eq!(api.program, directory.join("bin/api"));
    assert_eq!(api.args, ["--port", "8080"]);
    assert_eq!(api.cwd, Some(directory.join("api")));
    let env: Vec<(&OsStr, &OsStr)> = api
        .env
        .iter()
        .map(|(k, v)| (k.as_os_str(), v.as_os_str()))
        .collect();
    let expected = [
        ("LOG", "info"),
        ("PORT", "8080"),
        ("RATIO", "1.10"),
        ("MODE", "0755"),
        ("DEBUG", "true"),
        ("ANSWER", "no"),
        ("EMPTY", ""),
    ];
    assert_eq!(env, expected.map(|(k, v)| (OsStr::new(k), OsStr::new(v))));
    let db = manifest.command(&name("db")).unwrap();
    assert_eq!(db.program, "redis-server");
    assert_eq!(db.args, ["--port", "7001"]);
    assert_eq!(db.cwd.as_ref(), Some(directory));
    let migrate = manifest.command(&name("migrate")).unwrap();
    assert_eq!(migrate.program, "/bin/sh");
    assert_eq!(migrate.args, ["-c", "echo \"$HOME\" && ./migrate"]);
    let order: Vec<&str> = manifest
        .commands
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(order, ["db", "api", "migrate", "queue", "worker"]);
}

#[test]
fn yaml_and_toml_of_one_model_are_equal() {
    let directory = tempfile::tempdir().unwrap();
    let load = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        Manifest::load(Location::File(path), &Inputs::default()).unwrap()
    };
    let (yaml, toml) = (load("a.yaml", WHOLE), load("a.toml", WHOLE_TOML));
    assert_eq!(yaml.rules, toml.rules);
    assert_eq!(yaml.commands, toml.commands);
    assert_eq!(yaml.settings, toml.settings);
}

#[test]
fn anchors_and_merges_are_understood() {
    let manifest = load(
        "version: 1
x-base: &base
  restart: never
  env: { A: 1.50 }
services:
  a: { <<: *base, command: [sleep, 1] }
  b: { <<: *base, command: [sleep, 1], restart: always }
",
    );
    assert_eq!(child(&manifest, "a").restart, Restart::Never);
    assert_eq!(child(&manifest, "b").restart, Restart::Always);
    let env = &manifest.command(&name("b")).unwrap().env;
    assert_eq!(env[0].1, "1.50");
}

#[test]
fn the_embedded_manifest_is_valid() {
    let manifest = Manifest::load(Location::Embedded, &Inputs::default())
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(manifest.commands.len() >= 3);
    assert!(manifest.warnings.is_empty(), "{:?}", manifest.warnings);
    assert_eq!(child(&manifest, "prepare").kind, Kind::Task);
}

#[test]
fn to_wait_for_the_end_of_what_always_restarts_is_warned_about() {
    let manifest = load(
        "version: 1
services:
  a: { command: [sleep, 1] }
  b: { command: [sleep, 1], depends_on: { a: { condition: completed } } }
",
    );
    let warning = &manifest.warnings[0];
    assert_eq!(warning.place.line_and_column(), Some((4, 43)));
    assert!(warning.message.contains("always restarted"));
}

#[test]
fn each_mistake_is_reported_where_it_was_made() {
    const SLEEP: &str = "command: [sleep, 1]";
    let service = |rest: &str| format!("version: 1\nservices:\n  a: {{ {SLEEP}, {rest} }}\n");
    let cases: Vec<(String, &str, &str)> = vec![
        (
            "services: { a: { command: [x] } }\n".into(),
            "1:1",
            "`version` is missing",
        ),
        (
            "version: 2\nservices: { a: { command: [x] } }\n".into(),
            "1:10",
            "expected `version` to be `1`, found the number 2",
        ),
        (
            "version: \"1\"\nservices: { a: { command: [x] } }\n".into(),
            "1:10",
            "found the text `1`",
        ),
        ("version: 1\n".into(), "1:1", "`services` is missing"),
        (
            "version: 1\nservices: [a]\n".into(),
            "2:11",
            "expected `services` to be a map, found a list",
        ),
        (
            "version: 1\nservcies: {}\nservices: { a: { command: [x] } }\n".into(),
            "2:1",
            "did you mean `services`?",
        ),
        (
            "version: 1\nservices:\n  a:\n    comand: [x]\n    shell: x\n".into(),
            "4:5",
            "unknown key `comand` in the service `a`; did you mean `command`?",
        ),
        (
            "version: 1\nservices:\n  a: { qqq: x, shell: x }\n".into(),
            "3:8",
            "expected one of type, command",
        ),
        (
            "version: 1\nservices:\n  a: { shell: x }\n  a: { shell: y }\n".into(),
            "4:3",
            "`a` stands twice",
        ),
        (
            "version: 1\nservices:\n  a: { shell: x, shell: y }\n".into(),
            "3:18",
            "the key `shell` stands twice",
        ),
        (
            "version: 1\nservices:\n  a: { cwd: . }\n".into(),
            "3:3",
            "neither `command` nor `shell`",
        ),
        (service("shell: x"), "3:29", "both `command` and `shell`"),
        (
            "version: 1\nservices:\n  a: { command: sleep 1 }\n".into(),
            "3:17",
            "for a line of shell use `shell`",
        ),
        (
            "version: 1\nservices:\n  a: { command: [] }\n".into(),
            "3:17",
            "names no program",
        ),
        (
            "version: 1\nservices:\n  a: { command: [x, [y]] }\n".into(),
            "3:21",
            "to be text, found a list",
        ),
        (
            "version: 1\nservices:\n  ../a: { shell: x }\n".into(),
            "3:3",
            "is not a name",
        ),
        (
            "version: 1\nservices:\n  a.1: { shell: x }\n".into(),
            "3:3",
            "kept for replicas",
        ),
        (
            "version: 1\nservices:\n  root: { shell: x }\n".into(),
            "3:3",
            "above all others",
        ),
        (
            service("depends_on: [b]"),
            "3:42",
            "names `b`, which does not exist",
        ),
        (
            service("depends_on: { a: { condition: redy } }"),
            "3:59",
            "did you mean `ready`?",
        ),
        (
            service("depends_on: [a]"),
            "3:42",
            "wait for each other: a → a",
        ),
        (
            service("restart: on-failure"),
            "3:38",
            "did you mean `on_failure`?",
        ),
        (
            service("restart: { window: 30 }"),
            "3:48",
            "`30` has no unit; expected a duration such as `30s`",
        ),
        (
            service("restart: { backoff: { initial: 5 s } }"),
            "3:60",
            "`5 s` is not a duration",
        ),
        (
            service("restart: { max_restarts: -1 }"),
            "3:54",
            "whole number",
        ),
        (
            service("restart: { backoff: { jitter: 2 } }"),
            "3:59",
            "a number from 0 to 1, found the number 2",
        ),
        (
            service("success_exit_codes: [0, 256]"),
            "3:53",
            "from 0 to 255",
        ),
        (
            service("stop: { signal: SIGFOO }"),
            "3:45",
            "is not a signal",
        ),
        (
            service("type: deamon"),
            "3:35",
            "expected `service`, `task`",
        ),
        (service("tty: true"), "3:29", "gives no terminal"),
        (service("env: { A: null }"), "3:36", "for an empty value"),
        (service("env: { A=B: 1 }"), "3:36", "no name of a variable"),
        (
            format!(
                "{}supervisors:\n  s: {{ children: [a, b] }}\n",
                service("cwd: .")
            ),
            "5:22",
            "names `b`, which does not exist",
        ),
        (
            format!(
                "{}supervisors:\n  s: {{ children: [a] }}\n  t: {{ children: [a] }}\n",
                service("cwd: .")
            ),
            "6:19",
            "`a` is a child of `s` already",
        ),
        (
            format!(
                "{}supervisors:\n  a: {{ children: [a] }}\n",
                service("cwd: .")
            ),
            "5:3",
            "name of a service and of a supervisor",
        ),
        (
            format!(
                "{}supervisors:\n  s: {{ children: [] }}\n",
                service("cwd: .")
            ),
            "5:18",
            "is empty",
        ),
        (
            format!(
                "{}supervisors:\n  s: {{ strategy: one_for_all }}\n",
                service("cwd: .")
            ),
            "5:3",
            "`children` is missing in the supervisor `s`",
        ),
        (
            format!(
                "{}supervisors:\n  s: {{ children: [t] }}\n  t: {{ children: [s] }}\n",
                service("cwd: .")
            ),
            "6:19",
            "wait for each other: s → t → s",
        ),
        (
            format!(
                "{}settings: {{ children: {{ max_concurent: 5 }} }}\n",
                service("cwd: .")
            ),
            "4:25",
            "did you mean `max_concurrent`?",
        ),
        (
            format!(
                "{}settings: {{ stop: {{ timeout: 5 }} }}\n",
                service("cwd: .")
            ),
            "4:30",
            "`5` has no unit",
        ),
        (
            "version: 1\nservices: { a: { shell: x }\n".into(),
            "2:11",
            "not YAML: unclosed bracket",
        ),
        (
            "version: 1\n\tservices: x\n".into(),
            "2:1",
            "a tab cannot indent",
        ),
        (String::new(), "1:1", "expected the manifest to be a map"),
    ];
    let missed: Vec<String> = cases
        .into_iter()
        .filter_map(|(text, place, phrase)| {
            let found = mistakes("kimi-shell.yaml", &text);
            let here = format!("{place} ");
            let hit = |mistake: &String| mistake.starts_with(&here) && mistake.contains(phrase);
            (!found.iter().any(hit))
                .then(|| format!("expected {place} {phrase:?} for\n{text}found {found:#?}"))
        })
        .collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn toml_has_places_too() {
    for (text, place, phrase) in [
        (
            "version = 1\n[services.a]\ncomand = [\"x\"]\nshell = \"x\"\n",
            "3:1",
            "did you mean `command`?",
        ),
        (
            "version = 1\n[services.a]\nshell = \"x\"\nstop = { timeout = 5 }\n",
            "4:20",
            "`5` has no unit",
        ),
        (
            "version = 1\n[services.a]\nshell = \"x\"\n[services.a]\nshell = \"y\"\n",
            "4:1",
            "not TOML",
        ),
        (
            "version = 1\n[services.a]\nshell = \"x\"\ndepends_on = [\"b\"]\n",
            "4:15",
            "does not exist",
        ),
        ("version = \n", "1:", "not TOML"),
    ] {
        let found = mistakes("kimi-shell.toml", text);
        assert!(
            found
                .iter()
                .any(|mistake| mistake.starts_with(place) && mistake.contains(phrase)),
            "expected {place} {phrase:?} for\n{text}found {found:#?}"
        );
    }
}

#[test]
fn all_mistakes_are_reported_together_in_the_order_of_the_file() {
    let found = mistakes(
        "kimi-shell.yaml",
        "version: 1
services:
  a: { command: [x], depends_on: [b] }
  b: { command: [x], depends_on: [c] }
  c: { command: [x], depends_on: [a, d], stop: { timeout: 5 } }
settings: { dashboard: { prt: 1 } }
",
    );
    let places: Vec<&str> = found
        .iter()
        .map(|it| it.split(' ').next().unwrap())
        .collect();
    assert_eq!(places, ["5:35", "5:38", "5:59", "6:26"], "{found:#?}");
    assert!(found[0].contains("a → b → c → a"), "{found:#?}");
}

#[test]
fn dependencies_and_the_order_of_a_supervisor_can_contradict_each_other() {
    let found = mistakes(
        "kimi-shell.yaml",
        "version: 1
services:
  a: { command: [x], depends_on: [b] }
  b: { command: [x] }
supervisors:
  s: { children: [a, b] }
",
    );
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("wait for each other"), "{found:#?}");
}

#[test]
fn a_mistake_shows_its_line_and_its_mark() {
    let text = problems_as(
        "kimi-shell.yaml",
        "version: 1\nservices:\n  api:\n    comand: [./api]\n    shell: x\n",
    )
    .to_string();
    let (_, rest) = text.split_once("kimi-shell.yaml").unwrap();
    assert_eq!(
        rest,
        ":4:5: unknown key `comand` in the service `api`; did you mean `command`?
    4 |     comand: [./api]
      |     ^^^^^^"
    );
}

#[test]
fn no_mistake_in_an_environment_shows_a_value() {
    for env in [
        "{ A: null, B: hunter2 }",
        "[A=hunter2]",
        "{ A: [hunter2] }",
        "{ A: hunter2, A: hunter2 }",
        "{ A: hunter2 }, bogus: 1",
        "{ A: |\n  text\n  hunter2\n  }, bogus: 1",
    ] {
        let text = problems_as(
            "kimi-shell.yaml",
            &format!("version: 1\nservices:\n  a: {{ shell: x, env: {env} }}\n"),
        )
        .to_string();
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn bombs_are_refused() {
    let mut laughs = String::from("version: 1\nx-0: &x0 [a, a, a, a, a, a, a, a, a, a]\n");
    for n in 1..9 {
        let before = format!("*x{}", n - 1);
        let ten = [before.as_str(); 10].join(", ");
        laughs = format!("{laughs}x-{n}: &x{n} [{ten}]\n");
    }
    let long = format!(
        "version: 1\nx-a: &a {}\nx-b: [{}]\n",
        "z".repeat(100_000),
        ["*a"; 90].join(", ")
    );
    let deep = format!(
        "version: 1\nx-a: {}{}\n",
        "[".repeat(5000),
        "]".repeat(5000)
    );
    let many = format!("version: 1\nx-a: [{}]\n", "1,".repeat(200_000));
    for bomb in [laughs, long, deep, many] {
        let found = mistakes("kimi-shell.yaml", &bomb);
        assert_eq!(found.len(), 1, "{found:#?}");
    }
    let deep = format!(
        "version = 1\nx-a = {}{}\n",
        "[".repeat(5000),
        "]".repeat(5000)
    );
    assert!(!mistakes("kimi-shell.toml", &deep).is_empty());
}

#[test]
fn a_long_chain_of_dependencies_is_no_bomb() {
    let mut lines = vec!["version: 1\nservices:\n  s0: { shell: x }".to_owned()];
    lines.extend((1..4000).map(|n| format!("  s{n}: {{ shell: x, depends_on: [s{}] }}", n - 1)));
    let text = lines.join("\n");
    assert_eq!(load(&text).commands.len(), 4000);
}

#[test]
fn only_regular_files_of_a_sane_size_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo.yaml");
    let c_path = CString::new(fifo.as_os_str().as_bytes()).unwrap();
    #[expect(unsafe_code, reason = "std makes no FIFOs")]
    // SAFETY: the path is a string that ends in NUL.
    let made = unsafe { libc::mkfifo(c_path.as_ptr(), 0o600) };
    assert_eq!(made, 0);
    let large = directory.path().join("large.yaml");
    fs::write(&large, "#".repeat(1024 * 1024 + 1)).unwrap();
    let latin = directory.path().join("latin.yaml");
    fs::write(&latin, b"version: 1\n# \xe4\n").unwrap();
    for (path, phrase) in [
        (fifo.as_path(), "not a regular file"),
        (Path::new("/dev/zero"), "not a regular file"),
        (directory.path(), "not a regular file"),
        (&large, "larger than 1024 KiB"),
        (&latin, "line 2 is not UTF-8"),
        (&directory.path().join("none.yaml"), "cannot read"),
    ] {
        let Err(ManifestError::Unreadable(error)) =
            Manifest::load(Location::File(path.to_owned()), &Inputs::default())
        else {
            panic!("{} was read", path.display());
        };
        assert!(error.to_string().contains(phrase), "{error}");
    }
}

#[test]
fn a_damaged_manifest_is_refused_or_understood_and_never_a_crash() {
    const PIECES: [&str; 16] = [
        "\n", " ", "\t", ":", "-", "[", "]", "{", "}", "&a ", "*a", "\"", "!!str ", "|\n", "ä",
        "- a\n",
    ];
    let mut state: u64 = 1;
    let mut random = |below: usize| {
        // Knuth's MMIX generator: the same manifests at every run.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let directory = tempfile::tempdir().unwrap();
    for (name, whole) in [("a.yaml", WHOLE), ("a.toml", WHOLE_TOML)] {
        let path = directory.path().join(name);
        for _ in 0..300 {
            let mut text: Vec<char> = whole.chars().collect();
            for _ in 0..=random(3) {
                let at = random(text.len());
                match random(3) {
                    0 => drop(text.drain(at..(at + 1 + random(9)).min(text.len()))),
                    1 => text.swap(at, (at + 1).min(whole.chars().count() / 2)),
                    _ => drop(text.splice(at..at, PIECES[random(PIECES.len())].chars())),
                }
            }
            fs::write(&path, text.into_iter().collect::<String>()).unwrap();
            match Manifest::load(Location::File(path.clone()), &Inputs::default()) {
                Ok(manifest) => assert!(!manifest.commands.is_empty()),
                Err(error) => assert!(error.to_string().contains(name)),
            }
        }
    }
}

/// A manifest of one service `a` with these keys.
fn one(keys: &str) -> String {
    format!("version: 1\nservices:\n  a: {{ command: [sleep, 1], {keys} }}\n")
}

fn probes(manifest: &Manifest, name: &str) -> Probes {
    let probes = manifest.probes.iter();
    let mut of = probes.filter(|(known, _)| known.as_str() == name);
    of.next().map_or_else(Probes::default, |(_, it)| it.clone())
}

fn readiness(keys: &str) -> Check {
    let manifest = load(&one(&format!("readiness: {{ {keys} }}")));
    assert_eq!(child(&manifest, "a").readiness, Readiness::Reported);
    probes(&manifest, "a").readiness.unwrap().check
}

fn variables<'a>(manifest: &'a Manifest, child: &str) -> Vec<(&'a str, &'a str)> {
    let command = manifest.command(&name(child)).unwrap();
    let texts = command.env.iter();
    texts
        .map(|(key, value)| (key.to_str().unwrap(), value.to_str().unwrap()))
        .collect()
}

fn warnings(text: &str) -> Vec<String> {
    load(text)
        .warnings
        .iter()
        .map(|problem| {
            let (line, column) = problem.place.line_and_column().unwrap();
            format!("{line}:{column} {}", problem.message)
        })
        .collect()
}

#[test]
fn every_kind_of_readiness_is_understood() {
    let tcp = |host: &str, port| Check::Tcp {
        host: host.to_owned(),
        port,
    };
    assert_eq!(readiness("tcp: 7001"), tcp("localhost", 7001));
    assert_eq!(readiness("tcp: \"7001\""), tcp("localhost", 7001));
    assert_eq!(readiness("tcp: \"127.0.0.1:7001\""), tcp("127.0.0.1", 7001));
    assert_eq!(readiness("tcp: \"[::1]:7001\""), tcp("::1", 7001));
    assert_eq!(
        readiness("http: \"http://localhost:8080/healthz?full=1\""),
        Check::Http {
            host: "localhost".to_owned(),
            port: 8080,
            path: "/healthz?full=1".to_owned()
        }
    );
    assert_eq!(
        readiness("log: \"listening on .*:80$$\""),
        Check::Log {
            pattern: "listening on .*:80$".to_owned()
        }
    );
    assert_eq!(readiness("notify_fd: 3"), Check::NotifyFd { fd: 3 });
    assert_eq!(readiness("sd_notify: true"), Check::SdNotify);
    assert!(matches!(readiness("exec: [x, 1]"), Check::Exec(_)));
    assert!(matches!(readiness("shell: test -e x"), Check::Exec(_)));
}

#[test]
fn a_probe_of_a_command_runs_where_its_service_runs() {
    let manifest = load(&one(
        "cwd: sub, env: { A: 1 }, env_inherit: false, readiness: { exec: [./ask, 1] }, \
         liveness: { shell: ask it }, stop: { command: { shell: end it } }",
    ));
    let service = manifest.command(&name("a")).unwrap();
    let Probes {
        readiness: Some(ready),
        liveness: Some(live),
    } = probes(&manifest, "a")
    else {
        panic!("no probes");
    };
    let (Check::Exec(ready), Check::Exec(live)) = (ready.check, live.check) else {
        panic!("no commands");
    };
    assert_eq!(ready.program, manifest.project_dir.join("ask"));
    assert_eq!(ready.args, ["1"]);
    assert_eq!(live.args, ["-c", "ask it"]);
    let (stopped, stop) = &manifest.stop_commands[0];
    assert_eq!(stopped.as_str(), "a");
    assert_eq!(stop.args, ["-c", "end it"]);
    for command in [&ready, &live, stop] {
        assert_eq!(command.cwd, Some(manifest.project_dir.join("sub")));
        assert_eq!(command.env, service.env);
        assert_eq!(command.base_env, BaseEnv::Empty);
    }
}

#[test]
fn the_rhythm_of_a_probe_comes_from_it_and_from_the_settings() {
    let text = "version: 1
services:
  a:
    command: [sleep, 1]
    readiness: { tcp: 1, interval: 200ms, success_threshold: 2 }
    liveness: { tcp: 1, timeout: 3s, initial_delay: 1m, failure_threshold: 9 }
    start_timeout: 90s
  b: { command: [sleep, 1], readiness: { log: x } }
  c: { command: [sleep, 1], liveness: { tcp: 1 } }
settings:
  start_timeout: 7s
  readiness: { interval: 5s, timeout: 2s }
  liveness: { failure_threshold: 4 }
";
    let manifest = load(text);
    let a = probes(&manifest, "a");
    assert_eq!(
        a.readiness.unwrap().rules,
        ProbeRules {
            interval: Duration::from_millis(200),
            timeout: Duration::from_secs(2),
            success_threshold: 2,
            ..ProbeRules::default()
        }
    );
    assert_eq!(
        a.liveness.unwrap().rules,
        ProbeRules {
            timeout: Duration::from_secs(3),
            initial_delay: Duration::from_secs(60),
            failure_threshold: 9,
            ..ProbeRules::default()
        }
    );
    let c = probes(&manifest, "c");
    assert_eq!(c.liveness.unwrap().rules.failure_threshold, 4);
    assert_eq!(c.readiness, None);
    let timeout = |child_name| child(&manifest, child_name).start_timeout;
    assert_eq!(timeout("a"), Some(Duration::from_secs(90)));
    assert_eq!(timeout("b"), Some(Duration::from_secs(7)));
    assert_eq!(timeout("c"), None);
    assert_eq!(child(&manifest, "c").readiness, Readiness::Running);
}

#[test]
fn bounds_on_time_come_from_the_service_and_from_the_defaults() {
    let text = "version: 1
defaults: { max_runtime: 1h }
services:
  a: { command: [sleep, 1], idle_timeout: 10m }
  b: { type: task, command: [sleep, 1], max_runtime: 5s }
";
    let manifest = load(text);
    let bounds = |name| {
        let child = child(&manifest, name);
        (child.max_runtime, child.idle_timeout)
    };
    let minutes = |minutes: u64| Some(Duration::from_secs(60 * minutes));
    assert_eq!(bounds("a"), (minutes(60), minutes(10)));
    assert_eq!(bounds("b"), (Some(Duration::from_secs(5)), None));
}

#[test]
fn probes_that_cannot_be_are_refused() {
    for (keys, place, phrase) in [
        ("readiness: {}", "3:29", "has none of `tcp`, `http`"),
        ("readiness: { interval: 1s }", "3:29", "none of `tcp`"),
        (
            "readiness: { tcp: 1, log: x }",
            "3:50",
            "both `tcp` and `log`",
        ),
        ("liveness: { log: x }", "3:41", "has to be asked"),
        ("readiness: { tcp: 70000 }", "3:47", "from 1 to 65535"),
        ("readiness: { tcp: localhost }", "3:47", "no address"),
        ("readiness: { tcp: \"::1:80\" }", "3:47", "in brackets"),
        ("readiness: { http: \"https://h/\" }", "3:48", "curl"),
        (
            "readiness: { http: \"http://a:b@h/\" }",
            "3:48",
            "passwords",
        ),
        ("readiness: { http: localhost }", "3:48", "`http://`"),
        ("readiness: { exec: ask }", "3:48", "use `shell`"),
        ("readiness: { exec: [] }", "3:48", "names no program"),
        ("readiness: { exec: [\"\"] }", "3:48", "names no program"),
        ("readiness: { log: \"(\" }", "3:47", "no regular expression"),
        ("readiness: { notify_fd: 2 }", "3:53", "from 3 to 255"),
        ("readiness: { sd_notify: false }", "3:53", "to be `true`"),
        (
            "readiness: { tcp: 1, interval: 0s }",
            "3:60",
            "longer than none",
        ),
        (
            "readiness: { tcp: 1, failure_threshold: 0 }",
            "3:69",
            "1 or more",
        ),
        (
            "readiness: { tcp: 1, retries: 3 }",
            "3:50",
            "did you mean `failure_threshold`?",
        ),
        ("readiness: { http_get: x }", "3:42", "did you mean `http: "),
        (
            "type: task, readiness: { tcp: 1 }",
            "3:54",
            "ready when it has succeeded",
        ),
        ("start_timeout: 0s", "3:44", "longer than none"),
        ("max_runtime: 0s", "3:42", "longer than none"),
        ("idle_timeout: soon", "3:43", "duration"),
    ] {
        let found = mistakes("kimi-shell.yaml", &one(keys));
        assert_eq!(found.len(), 1, "{keys}: {found:#?}");
        assert!(
            found[0].starts_with(&format!("{place} ")) && found[0].contains(phrase),
            "{keys}: {found:#?}"
        );
    }
}

#[test]
fn dependencies_say_what_an_end_means_and_take_the_words_of_others() {
    let manifest = load(
        "version: 1
services:
  db: { command: [sleep, 1] }
  make: { type: task, command: [sleep, 1] }
  a:
    command: [sleep, 1]
    depends_on:
      db: { condition: service_healthy, on_restart: restart, on_lost: stop }
      make: { condition: process_completed_successfully }
  b: { command: [sleep, 1], depends_on: { db: { condition: process_started }, make: {} } }
  c: { command: [sleep, 1], depends_on: [db] }
settings: { depends_on: { on_lost: stop } }
",
    );
    let edges = |child_name: &str| -> Vec<_> {
        child(&manifest, child_name)
            .depends_on
            .iter()
            .map(|it| (it.on.to_string(), it.condition, it.on_restart, it.on_lost))
            .collect()
    };
    let (db, make) = (|| "db".to_owned(), || "make".to_owned());
    assert_eq!(
        edges("a"),
        [
            (db(), Condition::Ready, OnRestart::Restart, OnLost::Stop),
            (
                make(),
                Condition::Succeeded,
                OnRestart::Ignore,
                OnLost::Stop
            )
        ]
    );
    assert_eq!(
        edges("b"),
        [
            (db(), Condition::Started, OnRestart::Ignore, OnLost::Stop),
            (make(), Condition::Ready, OnRestart::Ignore, OnLost::Stop)
        ]
    );
    assert_eq!(edges("c")[0].3, OnLost::Stop);
}

#[test]
fn files_of_variables_are_read_in_order_and_the_manifest_wins() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    write(".env.a", "A=file\nB=file # why\nexport C='two\nlines'\n");
    write(".env.b", "B=later\n");
    let path = write(
        "kimi-shell.yaml",
        "version: 1
services:
  a:
    command: [sleep, 1]
    env_file: [.env.a, { path: .env.b }, { path: none, required: false }]
    env: { A: manifest, D: 1.10 }
  b: { command: [sleep, 1], env_file: ./.env.a }
",
    );
    let manifest = Manifest::load(Location::File(path), &Inputs::default()).unwrap();
    assert_eq!(
        variables(&manifest, "a"),
        [
            ("A", "manifest"),
            ("B", "later"),
            ("C", "two\nlines"),
            ("D", "1.10")
        ]
    );
    assert_eq!(variables(&manifest, "b")[1], ("B", "file"));
}

#[test]
fn mistakes_in_files_of_variables_have_places_there_and_show_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    write("bad.env", b"A=1\nB hunter2\nC='hunter2\n");
    write("latin.env", b"A=\xe4\n");
    write("large.env", &vec![b'#'; 1024 * 1024 + 1]);
    let c_path = directory.path().join("fifo.env");
    let c_path = CString::new(c_path.as_os_str().as_bytes()).unwrap();
    #[expect(unsafe_code, reason = "std makes no FIFOs")]
    // SAFETY: the path is a string that ends in NUL.
    let made = unsafe { libc::mkfifo(c_path.as_ptr(), 0o600) };
    assert_eq!(made, 0);
    let path = write(
        "kimi-shell.yaml",
        b"version: 1
services:
  a: { shell: x, env_file: bad.env }
  b: { shell: x, env_file: [bad.env, none.env] }
  c: { shell: x, env_file: latin.env }
  d: { shell: x, env_file: { path: x } }
  e: { shell: x, env_file: large.env }
  f: { shell: x, env_file: fifo.env }
  g: { shell: x, env_file: . }
",
    );
    let Err(ManifestError::Invalid(problems)) =
        Manifest::load(Location::File(path), &Inputs::default())
    else {
        panic!("no mistakes");
    };
    let told = problems.to_string();
    for phrase in [
        "bad.env:2:1: expected `NAME=value`",
        "bad.env:3:3: this quote is never closed",
        "kimi-shell.yaml:4:38: there is no file",
        "kimi-shell.yaml:5:28: cannot read",
        "line 1 is not UTF-8",
        "kimi-shell.yaml:6:28: expected `env_file` of the service `d` to be a path, or a list",
        "large.env: it is larger than 1024 KiB",
        "fifo.env: it is not a regular file",
        "kimi-shell.yaml:9:28: cannot read",
    ] {
        assert!(told.contains(phrase), "{phrase}\n{told}");
    }
    // A file that two services share is read once.
    assert_eq!(problems.0.len(), 8, "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn an_environment_is_inherited_as_far_as_it_is_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kimi-shell.yaml");
    let text = "version: 1
services:
  all: { command: [sleep, 1], env_inherit: true }
  none: { command: [sleep, 1], env_inherit: false, env: { A: 1 } }
  few: { command: [sleep, 1], env_inherit: minimal }
  named: { command: [sleep, 1], env_inherit: [TOKEN, ABSENT], env: { B: 2 } }
";
    fs::write(&path, text).unwrap();
    let environment = [("PATH", "/bin"), ("HOME", "/h"), ("TOKEN", "t")];
    let inputs = Inputs {
        environment: environment
            .map(|(k, v)| (OsString::from(k), OsString::from(v)))
            .into(),
        ..Inputs::default()
    };
    let manifest = Manifest::load(Location::File(path), &inputs).unwrap();
    let base = |child: &str| manifest.command(&name(child)).unwrap().base_env;
    assert_eq!(base("all"), BaseEnv::Inherited);
    assert_eq!(variables(&manifest, "all"), []);
    for child in ["none", "few", "named"] {
        assert_eq!(base(child), BaseEnv::Empty);
    }
    assert_eq!(variables(&manifest, "none"), [("A", "1")]);
    assert_eq!(
        variables(&manifest, "few"),
        [("PATH", "/bin"), ("HOME", "/h")]
    );
    assert_eq!(variables(&manifest, "named"), [("TOKEN", "t"), ("B", "2")]);
}

const PROFILES: &str = "version: 1
services:
  web: { command: [sleep, 1] }
  shell: { command: [sleep, 1], profiles: [debug], depends_on: [tracer] }
  tracer: { command: [sleep, 1], profiles: [debug, trace] }
  load: { command: [sleep, 1], profiles: [bench], depends_on: [web] }
supervisors:
  tools: { children: [shell, load] }
  only: { children: [tracer] }
";

fn with_profiles(text: &str, profiles: &[&str], names: &[&str]) -> Result<Manifest, ManifestError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kimi-shell.yaml");
    fs::write(&path, text).unwrap();
    let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    let inputs = Inputs {
        profiles: owned(profiles),
        names: owned(names),
        ..Inputs::default()
    };
    Manifest::load(Location::File(path), &inputs)
}

#[test]
fn services_with_profiles_count_when_one_is_active_or_they_are_named() {
    for (profiles, asked, expected) in [
        (&[][..], &[][..], &["web"][..]),
        (&["debug"], &[], &["web", "shell", "tracer"]),
        (&["trace"], &[], &["web", "tracer"]),
        (&["*"], &[], &["web", "shell", "tracer", "load"]),
        (&[], &["load"], &["web", "load"]),
        (&[], &["shell"], &["web", "shell", "tracer"]),
    ] {
        let manifest = with_profiles(PROFILES, profiles, asked).unwrap();
        let found: Vec<&str> = manifest
            .commands
            .iter()
            .map(|(it, _)| it.as_str())
            .collect();
        assert_eq!(found, expected, "{profiles:?} {asked:?}");
        assert!(manifest.warnings.is_empty(), "{:?}", manifest.warnings);
    }
    let manifest = with_profiles(PROFILES, &["bench"], &[]).unwrap();
    // A supervisor without children that count does not count either.
    assert_eq!(names(&manifest.rules.root), ["web", "tools"]);
}

#[test]
fn a_dependency_in_an_inactive_profile_is_a_mistake_that_names_it() {
    let text = "version: 1
services:
  web: { command: [sleep, 1], depends_on: [db] }
  db: { command: [sleep, 1], profiles: [data, all] }
";
    let Err(error) = with_profiles(text, &[], &[]) else {
        panic!("no mistake");
    };
    let told = error.to_string();
    assert!(told.contains(":3:44: `web` depends on `db`"), "{told}");
    assert!(told.contains("add `--profile data`"), "{told}");
    assert!(with_profiles(text, &["all"], &[]).is_ok());
}

#[test]
fn a_profile_that_no_service_has_is_warned_about() {
    let manifest = with_profiles(PROFILES, &["debgu"], &[]).unwrap();
    let told = manifest.warnings[0].to_string();
    assert_eq!(
        told,
        "--profile debgu: no service has the profile `debgu`; did you mean `debug`?"
    );
}

const REPLICAS: &str = "version: 1
services:
  worker:
    command: [./worker]
    replicas: 3
    port: 8080
    readiness: { http: \"http://localhost:8080/ready\" }
    liveness: { exec: [./ask] }
    restart: { on_limit: escalate }
    stop: { command: [./stop] }
    logs: { max_files: 2 }
  make: { type: task, command: [./make], replicas: 2 }
  web: { command: [./web], depends_on: [worker], port: 80 }
  after: { command: [./after], depends_on: { make: { condition: succeeded }, worker: { condition: started } } }
supervisors:
  all: { strategy: rest_for_one, children: [make, worker] }
";

#[test]
fn replicas_are_a_supervisor_of_numbered_children() {
    let manifest = load(REPLICAS);
    let Some(NodeRules::Supervisor(all)) = manifest
        .rules
        .root
        .members
        .iter()
        .find(|it| matches!(it, NodeRules::Supervisor(_)))
    else {
        panic!("no supervisor");
    };
    assert_eq!(names(all), ["make", "worker"]);
    let NodeRules::Supervisor(worker) = &all.members[1] else {
        panic!("no supervisor of replicas");
    };
    assert_eq!(names(worker), ["worker.1", "worker.2", "worker.3"]);
    assert_eq!(worker.strategy, Strategy::OneForOne);
    assert_eq!(worker.order, Order::AsReady);
    assert_eq!(worker.intensity, None);
    let second = child(&manifest, "worker.2");
    assert_eq!(second.governor.on_limit, OnLimit::Escalate);
    assert_eq!(second.readiness, Readiness::Reported);
    assert_eq!(
        variables(&manifest, "worker.3"),
        [
            ("PORT", "8082"),
            ("KIMI_REPLICA_INDEX", "2"),
            ("KIMI_REPLICAS", "3")
        ]
    );
    assert_eq!(variables(&manifest, "web"), [("PORT", "80")]);
    for list in [
        manifest
            .probes
            .iter()
            .map(|it| it.0.as_str())
            .collect::<Vec<_>>(),
        manifest
            .stop_commands
            .iter()
            .map(|it| it.0.as_str())
            .collect(),
        manifest.logs.iter().map(|it| it.0.as_str()).collect(),
    ] {
        assert_eq!(list, ["worker.1", "worker.2", "worker.3"]);
    }
}

#[test]
fn each_replica_is_asked_at_its_own_port_and_in_its_own_environment() {
    let manifest = load(REPLICAS);
    let third = probes(&manifest, "worker.3");
    let Some(Check::Http { port, .. }) = third.readiness.map(|it| it.check) else {
        panic!("no probe");
    };
    assert_eq!(port, 8082);
    let Some(Check::Exec(command)) = third.liveness.map(|it| it.check) else {
        panic!("no probe");
    };
    assert!(command.env.contains(&("PORT".into(), "8082".into())));
}

#[test]
fn dependents_wait_for_the_replicas_together_and_for_the_end_of_each() {
    let manifest = load(REPLICAS);
    let on = |dependent| -> Vec<String> {
        let depends_on = &child(&manifest, dependent).depends_on;
        depends_on.iter().map(|it| it.on.to_string()).collect()
    };
    assert_eq!(on("web"), ["worker"]);
    assert_eq!(on("after"), ["make.1", "make.2", "worker"]);
}

#[test]
fn defaults_are_merged_below_each_service_key_by_key() {
    let manifest = load(
        "version: 1
defaults:
  cwd: base
  env: { A: default, B: default }
  restart: { policy: on_failure, max_restarts: 9, backoff: { initial: 3s } }
  stop: { signal: SIGINT, timeout: 9s }
  success_exit_codes: [0, 3]
  env_inherit: false
  start_timeout: 9s
  logs: { max_size: 1MiB, max_files: 3 }
services:
  a: { command: [./x] }
  b:
    command: [./x]
    cwd: own
    env: { B: own, C: own }
    restart: { max_restarts: 1, backoff: { factor: 1 } }
    stop: { timeout: 1s }
    success_exit_codes: [4]
    env_inherit: true
    readiness: { log: x }
    logs: { max_files: 7 }
  t: { type: task, command: [./x], restart: never }
",
    );
    let (a, b) = (child(&manifest, "a"), child(&manifest, "b"));
    let command = |child: &str| manifest.command(&name(child)).unwrap();
    assert_eq!(a.restart, Restart::OnFailure);
    assert_eq!(a.governor.limit.unwrap().max_restarts, 9);
    assert_eq!(
        variables(&manifest, "a"),
        [("A", "default"), ("B", "default")]
    );
    assert_eq!(command("a").cwd, Some(manifest.project_dir.join("base")));
    assert_eq!(command("a").base_env, BaseEnv::Empty);
    assert_eq!(a.start_timeout, None);
    assert_eq!(b.restart, Restart::OnFailure);
    assert_eq!(b.governor.limit.unwrap().max_restarts, 1);
    assert_eq!(b.governor.backoff.initial, Duration::from_secs(3));
    assert!((b.governor.backoff.factor - 1.0).abs() < f64::EPSILON);
    assert_eq!(b.stop.signal, Signal::INT);
    assert_eq!(b.stop.grace, Some(Duration::from_secs(1)));
    assert_eq!(b.start_timeout, Some(Duration::from_secs(9)));
    assert!(a.success.contains(Exit::Code(3)) && !b.success.contains(Exit::Code(3)));
    assert_eq!(
        variables(&manifest, "b"),
        [("A", "default"), ("B", "own"), ("C", "own")]
    );
    assert_eq!(command("b").cwd, Some(manifest.project_dir.join("own")));
    assert_eq!(command("b").base_env, BaseEnv::Inherited);
    let of_b = manifest.logs.iter().find(|(it, _)| it.as_str() == "b");
    assert_eq!(
        of_b.unwrap().1,
        LogRules {
            max_size: Some(1 << 20),
            max_files: Some(7),
            ..LogRules::default()
        }
    );
    assert_eq!(child(&manifest, "t").restart, Restart::Never);
    // What stands in the defaults is warned about once.
    assert_eq!(manifest.warnings.len(), 2, "{:?}", manifest.warnings);
}

const BOUNDS: &str = "version: 1
defaults: { nice: -5 }
services:
  a: { command: [x], limits: { memory: 512MiB, cpu: 0.5, pids: 20, core: 0, nofile: 64 } }
  b: { command: [x], limits: { cpu: 1, best_effort: true }, user: root }
  c: { command: [x], user: 1000, group: 7, umask: 027, oom_score_adj: -5, no_new_privs: true }
  d: { command: [x], nice: 0, group: 1000, limits: { best_effort: true }, no_new_privs: false, replicas: 2 }
  e: { command: [x], user: 4000000001 }
";

fn with_means(text: &str, means: Means) -> Manifest {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kimi-shell.yaml");
    fs::write(&path, text).unwrap();
    let inputs = Inputs {
        means: Some(means),
        ..Inputs::default()
    };
    Manifest::load(Location::File(path), &inputs).unwrap()
}

#[test]
fn what_cannot_be_enforced_is_refused_service_by_service() {
    let anybody = Means {
        uid: Some(1000),
        gid: Some(1000),
        ..Means::default()
    };
    let manifest = with_means(BOUNDS, anybody);
    let told: Vec<String> = manifest
        .refusals
        .iter()
        // Whether that one would become somebody else depends on who runs this test.
        .filter(|refusal| !refusal.child.as_str().starts_with('d'))
        .map(|refusal| {
            let (line, column) = refusal.problem.place.line_and_column().unwrap();
            let message = &refusal.problem.message;
            let key = message.split('`').nth(1).unwrap_or(message);
            let who = if refusal.is_for_root {
                "root"
            } else {
                "nobody"
            };
            format!("{} {line}:{column} {key} {who}", refusal.child)
        })
        .collect();
    assert_eq!(
        told,
        [
            "a 2:13 nice root",
            "a 4:48 limits.cpu nobody",
            "b 5:61 user root",
            "c 2:13 nice root",
            "c 6:34 group root",
            "c 6:56 oom_score_adj root",
            "e 2:13 nice root",
            "e 8:22 nobody here has the number 4000000001, so that its group must be said as well; correct the \
             manifest, or make the account nobody",
        ]
    );
}

#[test]
fn what_is_asked_of_a_process_is_set_up_in_it() {
    let root = Means {
        uid: Some(0),
        gid: Some(0),
        becomes_anybody: true,
        raises_limits: true,
        least_nice: -20,
        controllers: Controllers {
            cpu: true,
            ..Controllers::default()
        },
        ..Means::default()
    };
    let manifest = with_means(BOUNDS, root);
    let setup = |name: &str| {
        let name = ChildName::new(name).unwrap();
        manifest.command(&name).unwrap().setup.clone()
    };
    let identity = |user: Option<&str>, group: &str, uid, gid| Identity {
        user: user.map(str::to_owned),
        group: Some(group.to_owned()),
        uid,
        gid,
        groups: vec![gid],
    };
    let of_a = *setup("a").unwrap();
    assert_eq!(
        of_a.limits,
        ResourceLimits {
            nofile: Some(64),
            core: Some(0),
            memory: Some(512 << 20),
            cpu: Some(Processors(500)),
            pids: Some(20),
        }
    );
    assert_eq!(of_a.nice, Some(-5));
    let of_c = *setup("c").unwrap();
    assert_eq!(
        of_c,
        Setup {
            umask: Some(0o27),
            nice: Some(-5),
            oom_score_adj: Some(-5),
            identity: of_c.identity.clone(),
            no_new_privs: true,
            ..Setup::default()
        }
    );
    let Identity { uid, gid, .. } = of_c.identity.unwrap();
    assert_eq!((uid, gid), (1000, 7));
    let replica = *setup("d.2").unwrap();
    let own = rustix::process::geteuid().as_raw();
    assert_eq!(replica.identity, Some(identity(None, "1000", own, 1000)));
    assert!(replica.best_effort && !replica.no_new_privs);
    let variables = variables(&manifest, "b");
    assert!(variables.contains(&("USER", "root")), "{variables:?}");
    let refused: Vec<&str> = manifest
        .refusals
        .iter()
        .map(|it| it.child.as_str())
        .collect();
    assert_eq!(refused, ["a", "e"]);
    let notes: Vec<&str> = manifest
        .notes
        .iter()
        .map(|(_, note)| note.as_str())
        .collect();
    assert_eq!(
        notes,
        ["a: `limits.memory` is kept by RLIMIT_AS, the addresses of each of its processes"]
    );
}

#[test]
fn a_user_has_the_group_that_is_its_own_whatever_the_defaults_say() {
    let text = "version: 1
defaults: { user: 1000, group: 1000, umask: 022 }
services:
  a: { command: [x], user: root }
  b: { command: [x], group: 7 }
  c: { command: [x], umask: 077 }
";
    let manifest = with_means(text, Means::default());
    let ids = |child: &str| {
        let setup = manifest.command(&name(child)).unwrap().setup.clone();
        let setup = setup.unwrap();
        let identity = setup.identity.unwrap();
        (identity.uid, identity.gid, setup.umask)
    };
    assert_eq!(ids("a"), (0, 0, Some(0o22)));
    assert_eq!(ids("b"), (1000, 7, Some(0o22)));
    assert_eq!(ids("c"), (1000, 1000, Some(0o77)));
}

#[test]
fn what_is_done_without_is_warned_about() {
    let text = "version: 1
services:
  a: { command: [x], nice: -1, limits: { cpu: 2, best_effort: true } }
  b: { command: [x] }
";
    let manifest = with_means(text, Means::default());
    assert!(manifest.refusals.is_empty(), "{:?}", manifest.refusals);
    let warned: Vec<&str> = manifest
        .warnings
        .iter()
        .map(|it| it.message.as_str())
        .collect();
    assert_eq!(
        warned,
        [
            "`nice` cannot be enforced here: only root may give less than 0; it is done without",
            "`limits.cpu` cannot be enforced here: no control group with the controller `cpu` can be had; it is done \
             without",
        ]
    );
    // Who asks for nothing gets nothing.
    let name = ChildName::new("b").unwrap();
    assert_eq!(manifest.command(&name).unwrap().setup, None);
}

#[test]
fn services_that_start_on_request_are_known() {
    let manifest = load(
        "version: 1\nservices:\n  a: { command: [x], autostart: false }\n  b: { command: [x], autostart: true }\n",
    );
    assert_eq!(manifest.on_request, [name("a")]);
}

#[test]
fn keys_of_other_programs_are_answered_with_ours() {
    for (keys, phrase) in [
        ("environment: { A: 1 }", "did you mean `env`?"),
        ("working_dir: .", "did you mean `cwd`?"),
        ("working-dir: .", "did you mean `cwd`?"),
        ("stop_signal: SIGINT", "did you mean `stop: { signal: … }`?"),
        (
            "stop_grace_period: 1s",
            "did you mean `stop: { timeout: … }`?",
        ),
        (
            "healthcheck: { test: x }",
            "did you mean `readiness: { exec: … }`?",
        ),
        ("readiness_probe: {}", "did you mean `readiness`?"),
        ("depends-on: [b]", "did you mean `depends_on`?"),
        ("dependsOn: [b]", "did you mean `depends_on`?"),
        (
            "success-exit-codes: [1]",
            "did you mean `success_exit_codes`?",
        ),
        ("image: nginx", "containers are not run here"),
        (
            "notify_fd: 3",
            "did you mean `readiness: { notify_fd: … }`?",
        ),
        ("restart: unless-stopped", "did you mean `always`?"),
        ("restart: \"no\"", "did you mean `never`?"),
        (
            "restart: { delay: 1s }",
            "did you mean `backoff: { initial: … }`?",
        ),
        ("stop: { grace: 1s }", "did you mean `timeout`?"),
        (
            "stop: { command: end it }",
            "for a line of shell write `{ shell: … }`",
        ),
        ("depends_on: b", "such as `[db]`"),
        ("env: [A=1]", "a map such as `NAME: value`, found a list"),
    ] {
        let found = mistakes("kimi-shell.yaml", &one(keys));
        assert_eq!(found.len(), 1, "{keys}: {found:#?}");
        assert!(found[0].contains(phrase), "{keys}: {found:#?}");
    }
    for (text, phrase) in [
        (
            "version: 1\nprocesses: {}\nservices: {}\n",
            "did you mean `services`?",
        ),
        (
            "version: 1\nservices: {}\ndefaults: { readiness: { tcp: 1 } }\n",
            "`settings: { readiness: … }`",
        ),
        (
            "version: 1\nservices: { a: { shell: x } }\nsupervisors: { s: { services: [a], children: [a] } }\n",
            "did you mean `children`?",
        ),
    ] {
        let found = mistakes("kimi-shell.yaml", text);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains(phrase), "{found:#?}");
    }
}

#[test]
fn values_of_the_wrong_kind_are_refused_where_they_stand() {
    for (keys, place, phrase) in [
        ("replicas: 0", "3:39", "from 1 to 1000"),
        ("replicas: 1001", "3:39", "from 1 to 1000"),
        ("port: 0", "3:35", "from 1 to 65535"),
        ("port: 65535, replicas: 2", "3:35", "would go beyond 65535"),
        ("profiles: debug", "3:39", "to be a list"),
        ("profiles: [a b]", "3:40", "no profile"),
        ("autostart: \"yes\"", "3:40", "`true` or `false`"),
        ("env_inherit: maximal", "3:42", "expected `minimal`"),
        ("env_inherit: [A=B]", "3:43", "no name of a variable"),
        (
            "env_inherit: 1",
            "3:42",
            "`true` or `false`, or `minimal`, or a list",
        ),
        ("limits: { memory: lots }", "3:47", "not a size"),
        ("limits: { nofile: 0 }", "3:47", "from 1 to"),
        ("limits: { cpu: 0 }", "3:44", "from 0.01 to"),
        ("limits: { memroy: 1 }", "3:39", "did you mean `memory`?"),
        ("logs: { max_files: 0 }", "3:48", "from 1 to 1000"),
        ("logs: { max_age: 7 }", "3:46", "has no unit"),
        ("nice: 20", "3:35", "from -20 to 19"),
        ("oom_score_adj: -1001", "3:44", "from -1000 to 1000"),
        ("umask: \"0888\"", "3:36", "octal digits"),
        ("user: \"a b\"", "3:35", "no name and no number"),
        ("no_new_privs: 1", "3:43", "`true` or `false`"),
        ("stop: { scope: process }", "3:44", "expected `tree`"),
        ("stop: SIGINT", "3:35", "to be a map"),
        ("cwd: \"\"", "3:34", "no path"),
        (
            "depends_on: { a: { on_lost: restart } }",
            "3:57",
            "expected `ignore`, `stop`",
        ),
        ("shell: 1, x-y: 1", "3:36", "a line of shell"),
        ("description: 1", "3:42", "to be text"),
        ("env: { A: [hunter2] }", "3:36", "to be text"),
    ] {
        let found = mistakes("kimi-shell.yaml", &one(keys));
        let here = format!("{place} ");
        let hit = |it: &String| it.starts_with(&here) && it.contains(phrase);
        assert!(found.iter().any(hit), "{keys}: {found:#?}");
    }
}

#[test]
fn what_is_hardly_meant_is_warned_about() {
    let a = "  a: { command: [sleep, 1], replicas: 2, port: 80 }\n";
    for (services, place, phrase) in [
        (
            "  b: { command: [x], readiness: { log: x, interval: 1s } }\n",
            "4:43",
            "`interval` does nothing in the `readiness` of `b`: `log` waits to be told",
        ),
        (
            "  b: { command: [x], start_timeout: 1s }\n",
            "4:37",
            "`b` has no `readiness`",
        ),
        (
            "  b: { command: [x], max_runtime: 1m, idle_timeout: 60s }\n",
            "4:53",
            "`b` may not run for longer than 1m, so that `idle_timeout` does nothing",
        ),
        (
            "  b: { command: [x], start_timeout: 1s, readiness: { tcp: 1, timeout: 2s } }\n",
            "4:62",
            "one try may take 2s, but `b` must be ready after 1s",
        ),
        (
            "  b: { command: [x], restart: never, liveness: { tcp: 1 } }\n",
            "4:50",
            "a failure of its `liveness` ends it for good",
        ),
        (
            "  b: { command: [x], replicas: 2, readiness: { tcp: 1 } }\n",
            "4:48",
            "every replica of `b` asks the same address",
        ),
        (
            "  b: { command: [x], port: 81 }\n",
            "4:28",
            "`b` and `a` both have port 81",
        ),
        (
            "  b: { command: [x], port: 8, env: { PORT: 9 } }\n",
            "4:38",
            "this value does nothing",
        ),
        (
            "  t: { type: task, command: [x] }\n  b: { command: [x], depends_on: { t: { condition: succeeded, on_lost: stop } } }\n",
            "5:63",
            "`t` is meant to end, so that `on_lost` does nothing for `b`",
        ),
        (
            "  t: { type: task, command: [x] }\n  b: { command: [x], depends_on: { t: { on_restart: restart } } }\n",
            "5:41",
            "`t` never restarts by itself",
        ),
        (
            "  b: { command: [x], logs: { timestamps: true } }\n",
            "4:22",
            "writes no log files",
        ),
        (
            "  b: { command: [x], stop: { timeout: 7s }, depends_on: [a] }\nsettings: { signals: { graceful_shutdown_timeout: 5s } }\n",
            "4:39",
            "may take 7s, but a shutdown ends after 5s",
        ),
    ] {
        let found = warnings(&format!("version: 1\nservices:\n{a}{services}"));
        assert_eq!(found.len(), 1, "{services}{found:#?}");
        assert!(
            found[0].starts_with(&format!("{place} ")) && found[0].contains(phrase),
            "{services}{found:#?}"
        );
    }
}

#[test]
fn what_can_never_be_true_of_a_supervisor_is_not_waited_for() {
    let found = mistakes(
        "kimi-shell.yaml",
        "version: 1
services:
  a: { command: [x] }
  b: { command: [x], depends_on: { s: { condition: completed } } }
supervisors: { s: { children: [a] } }
",
    );
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("but a supervisor never is"), "{found:#?}");
}

#[test]
fn replicas_are_no_bomb() {
    let services: Vec<String> = (0..11)
        .map(|n| format!("  s{n}: {{ command: [x], replicas: 1000 }}\n"))
        .collect();
    let found = mistakes(
        "kimi-shell.yaml",
        &format!("version: 1\nservices:\n{}", services.concat()),
    );
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].starts_with("13:") && found[0].contains("at most 10000"),
        "{found:#?}"
    );
}

/// A text of many similar parts.
fn each(numbers: std::ops::Range<usize>, part: impl Fn(usize) -> String) -> String {
    numbers.map(part).collect::<Vec<_>>().concat()
}

#[test]
fn what_is_shared_is_no_bomb_either() {
    let services = |count: usize, keys: &str| -> String {
        each(0..count, |n| {
            format!("  s{n}: {{ command: [x], {keys} }}\n")
        })
    };
    let variables = each(0..10_000, |n| format!("N{n}: {n}, "));
    let by_defaults = format!(
        "version: 1\ndefaults: {{ env: {{ {variables} }} }}\nservices:\n{}",
        services(1500, "")
    );
    let by_replicas = format!(
        "version: 1\nservices:\n  a: {{ command: [x, {}], replicas: 1000 }}\n",
        "y".repeat(100_000)
    );
    let ends = "condition: succeeded";
    let on_all = each(0..9, |n| format!("s{n}: {{ {ends} }}, "));
    let by_dependencies = format!(
        "version: 1\nservices:\n{}  b: {{ command: [x], replicas: 1000, depends_on: {{ {on_all} }} }}\n",
        services(9, "type: task, replicas: 1000")
    );
    for bomb in [by_defaults, by_replicas, by_dependencies] {
        let found = mistakes("kimi-shell.yaml", &bomb);
        assert!(
            found.iter().any(|it| it.contains("more than 16MiB")),
            "{found:#?}"
        );
        assert!(found.len() <= 2, "{found:#?}");
    }
}

#[test]
fn supervisors_stand_in_each_other_as_deep_as_is_sensible() {
    let chain = |depth: usize| -> String {
        let nested = each(1..depth, |n| {
            format!("  s{}: {{ children: [s{n}] }}\n", n - 1)
        });
        format!(
            "version: 1\nservices: {{ a: {{ command: [x] }} }}\nsupervisors:\n{nested}  s{}: {{ children: [a] }}\n",
            depth - 1
        )
    };
    load(&chain(60));
    let found = mistakes("kimi-shell.yaml", &chain(3000));
    assert!(
        found.iter().any(|it| it.contains("64 supervisors deep")),
        "{found:#?}"
    );
}

#[test]
fn what_has_nothing_below_it_that_counts_cannot_be_waited_for() {
    let text = "version: 1
services:
  a: { command: [x], profiles: [p] }
  b: { command: [x], depends_on: [s] }
supervisors: { s: { children: [a] } }
";
    let Err(error) = with_profiles(text, &[], &[]) else {
        panic!("no mistake");
    };
    assert!(
        error.to_string().contains("4:35: `b` depends on `s`"),
        "{error}"
    );
    assert!(with_profiles(text, &["p"], &[]).is_ok());
}
