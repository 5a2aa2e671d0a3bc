//! Manifests: what they mean, and what is said about those that mean nothing.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use kimi_actors::policy::exit::Exit;
use kimi_actors::policy::intensity::Intensity;
use kimi_actors::policy::restart::{Restart, Strategy};
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{
    ChildName, ChildRules, Condition, Governor, Kind, NodeRules, OnLimit, Order, SupervisorRules,
};
use kimi_shell::document::problem::Problems;
use kimi_shell::manifest::{Location, Manifest, ManifestError};
use kimi_shell::settings::{Inputs, Layer};

fn load_as(name: &str, text: &str) -> Result<Manifest, ManifestError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    Manifest::load(Location::File(path), &Inputs::default())
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
            "expected the version 1",
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
            "version: 1\nservices:\n  a: { image: x, shell: x }\n".into(),
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
            "to be 0 to 1, found 2",
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
        (
            service("readiness: { tcp: 1 }"),
            "3:29",
            "not supported by this version",
        ),
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
            "has no `children`",
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
    fs::write(&large, "#".repeat(512 * 1024 + 1)).unwrap();
    let latin = directory.path().join("latin.yaml");
    fs::write(&latin, b"version: 1\n# \xe4\n").unwrap();
    for (path, phrase) in [
        (fifo.as_path(), "not a regular file"),
        (Path::new("/dev/zero"), "not a regular file"),
        (directory.path(), "not a regular file"),
        (&large, "larger than 512 KiB"),
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
