//! Settings: their layers, their older names, and who set them.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use kimi_actors::policy::restart::Restart;
use kimi_actors::policy::signal::Signal;
use kimi_shell::settings::{
    Action, COMMENTED_DEFAULTS, Effective, Endpoint, Inputs, Layer, Settings, SettingsError,
};
use tempfile::TempDir;

struct Case {
    directory: TempDir,
    inputs: Inputs,
}

impl Case {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            inputs: Inputs::default(),
        }
    }

    fn file(mut self, text: &str) -> Self {
        let path: PathBuf = self.directory.path().join("process-management.toml");
        fs::write(&path, text).unwrap();
        self.inputs.user_file = Some(path);
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        let pair = (OsString::from(name), OsString::from(value));
        self.inputs.environment.push(pair);
        self
    }

    fn flag(mut self, flag: &str) -> Self {
        self.inputs.flags.push(flag.to_owned());
        self
    }

    fn load(&self) -> Effective {
        Effective::load(&self.inputs).unwrap_or_else(|error| panic!("{error}"))
    }

    fn mistakes(&self) -> Vec<String> {
        match Effective::load(&self.inputs) {
            Err(SettingsError::Invalid(problems)) => problems
                .0
                .iter()
                .map(|problem| match problem.place.line_and_column() {
                    Some((line, column)) => format!("{line}:{column} {}", problem.message),
                    None => format!("{} {}", problem.place, problem.message),
                })
                .collect(),
            other => panic!("expected mistakes, found {other:?}"),
        }
    }
}

fn leaves(value: &toml::Value, path: &str, into: &mut BTreeMap<String, toml::Value>) {
    if let toml::Value::Table(table) = value {
        for (key, value) in table {
            leaves(value, &format!("{path}{key}."), into);
        }
    } else {
        into.insert(path.trim_end_matches('.').to_owned(), value.clone());
    }
}

#[test]
fn the_commented_file_is_the_defaults_key_by_key() {
    let file: toml::Value = toml::from_str(COMMENTED_DEFAULTS).unwrap();
    let code = toml::Value::try_from(Settings::default()).unwrap();
    let (mut in_file, mut in_code) = (BTreeMap::new(), BTreeMap::new());
    leaves(&file, "", &mut in_file);
    leaves(&code, "", &mut in_code);
    let keys = |map: &BTreeMap<String, toml::Value>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&in_file), keys(&in_code));
    assert_eq!(file.try_into::<Settings>().unwrap(), Settings::default());
}

#[test]
fn every_key_of_the_commented_file_has_a_comment() {
    for line in COMMENTED_DEFAULTS.lines() {
        assert!(!line.contains(" = ") || line.contains('#'), "{line}");
    }
}

#[test]
fn the_commented_file_can_be_used_as_it_is() {
    let effective = Case::new().file(COMMENTED_DEFAULTS).load();
    assert_eq!(effective.settings, Settings::default());
    assert!(
        effective
            .origins
            .iter()
            .all(|(_, origin)| origin.layer == Layer::UserFile)
    );
}

#[test]
fn without_layers_the_defaults_hold() {
    let effective = Case::new().load();
    assert_eq!(effective, Effective::defaults());
    assert_eq!(effective.settings, Settings::default());
    assert!(!effective.origins.is_explicit("stop.timeout"));
    assert!(effective.origins.get("stop.timeout").is_some());
    let mut keys = BTreeMap::new();
    leaves(
        &toml::Value::try_from(Settings::default()).unwrap(),
        "",
        &mut keys,
    );
    assert_eq!(effective.origins.iter().count(), keys.len());
}

#[test]
fn later_layers_win_and_are_named() {
    let case = Case::new()
        .file("start_timeout = \"1s\"\n[stop]\ntimeout = \"1s\"\n[children]\nqueue = 1\nmax_concurrent = 1\n")
        .variable("KIMI_SHELL__CHILDREN__QUEUE", "2")
        .variable("KIMI_SHELL__CHILDREN__MAX_CONCURRENT", "2")
        .variable("KIMI_SHELL_FILE", "not ours")
        .flag("children.max_concurrent=3");
    let Effective { settings, origins } = case.load();
    assert_eq!(settings.stop.timeout, Duration::from_secs(1));
    assert_eq!(settings.children.queue, 2);
    assert_eq!(settings.children.max_concurrent, 3);
    let told = |key: &str| origins.get(key).unwrap().to_string();
    assert!(told("stop.timeout").starts_with("user file: /"));
    assert!(told("stop.timeout").ends_with("process-management.toml:3:1"));
    assert_eq!(
        told("children.queue"),
        "environment: KIMI_SHELL__CHILDREN__QUEUE"
    );
    assert_eq!(told("children.max_concurrent"), "flag: --set");
    assert_eq!(told("children.grace"), "default");
}

#[test]
fn the_environment_takes_every_kind_of_value() {
    let settings = Case::new()
        .variable("KIMI_SHELL__SIGNALS__GRACEFUL_SHUTDOWN_TIMEOUT", "10s")
        .variable("KIMI_SHELL__SIGNALS__ENABLED", "false")
        .variable("KIMI_SHELL__SIGNALS__HANDLED", "SIGTERM, INT")
        .variable("KIMI_SHELL__SIGNALS__ACTIONS__WINCH", "forward")
        .variable("KIMI_SHELL__CHILDREN__MAX_BUFFER_SIZE", "1048576")
        .variable("KIMI_SHELL__RESTART__BACKOFF__FACTOR", "3")
        .variable("KIMI_SHELL__RESTART__SERVICES", "transient")
        .variable("KIMI_SHELL__TELEMETRY__OTLP", "http://127.0.0.1:4318")
        .variable("KIMI_SHELL__maxHistory", "7")
        .load()
        .settings;
    assert_eq!(
        settings.signals.graceful_shutdown_timeout,
        Duration::from_secs(10)
    );
    assert!(!settings.signals.enabled);
    let handled: Vec<Signal> = settings.signals.handled.iter().map(|name| name.0).collect();
    assert_eq!(handled, [Signal::TERM, Signal::INT]);
    assert_eq!(settings.signals.actions.len(), 7);
    assert_eq!(settings.signals.history, 7);
    assert_eq!(settings.children.max_buffer_size, 1 << 20);
    assert!((settings.restart.backoff.factor - 3.0).abs() < f64::EPSILON);
    assert_eq!(settings.restart.services, Restart::OnFailure);
    let endpoint = Endpoint::Address("http://127.0.0.1:4318".to_owned());
    assert_eq!(settings.telemetry.otlp, endpoint);
}

#[test]
fn one_action_changes_and_the_others_stay() {
    let settings = Case::new()
        .file("[signals.actions]\nUSR1 = \"ignore\"\n")
        .load()
        .settings;
    let effective = settings.signals.effective();
    assert_eq!(effective[&Signal::USR1], Action::Ignore);
    assert_eq!(effective[&Signal::USR2], Action::Reload);
    assert_eq!(effective[&Signal::QUIT], Action::ForcedShutdown);
}

#[test]
fn the_older_names_hold_at_the_top_and_in_their_sections() {
    let top = "gracefulShutdownTimeoutMs = 10000
forceExitAfterTimeout = false
enabled = false
handledSignals = [\"SIGINT\"]
maxHistory = 100
defaultTimeoutMs = 60000
maxBufferSize = 20971520
validateBinary = false
maxConcurrent = 50
";
    let sections = "[signals]
gracefulShutdownTimeoutMs = 10000
forceExitAfterTimeout = false
enabled = false
handledSignals = [\"SIGINT\"]
[telemetry]
maxHistory = 100
[children]
defaultTimeoutMs = 60000
maxBufferSize = 20971520
validateBinary = false
maxConcurrent = 50
";
    for text in [top, sections] {
        let Effective { settings, origins } = Case::new().file(text).load();
        assert_eq!(
            settings.signals.graceful_shutdown_timeout,
            Duration::from_secs(10)
        );
        assert!(!settings.signals.force_exit_after_timeout);
        assert!(!settings.signals.enabled);
        assert_eq!(settings.signals.handled.len(), 1);
        assert_eq!(settings.signals.history, 100);
        assert_eq!(settings.children.default_timeout, Duration::from_secs(60));
        assert_eq!(settings.children.max_buffer_size, 20 << 20);
        assert!(!settings.children.validate_binary);
        assert_eq!(settings.children.max_concurrent, 50);
        assert!(origins.is_explicit("signals.graceful_shutdown_timeout"));
    }
}

#[test]
fn mistakes_in_the_users_file_have_places() {
    for (text, place, phrase) in [
        (
            "[signls]\nenabled = true\n",
            "1:2",
            "unknown setting `signls`; did you mean `signals`?",
        ),
        (
            "[children]\nmax_concurent = 1\n",
            "2:1",
            "did you mean `max_concurrent`?",
        ),
        ("[stop]\ntimeout = 5\n", "2:11", "`5` has no unit"),
        ("[stop]\ntimeout = \"5\"\n", "2:11", "`5` has no unit"),
        (
            "[children]\nmax_concurrent = \"many\"\n",
            "2:18",
            "expected `children.max_concurrent` to be a whole number, 1 or more, found the text `many`",
        ),
        (
            "[children]\nmax_concurrent = 0\n",
            "2:18",
            "1 or more, found the number 0",
        ),
        (
            "[children]\nmax_concurrent = -1\n",
            "2:18",
            "found the number -1",
        ),
        (
            "[children]\nmax_buffer_size = \"10 apples\"\n",
            "2:19",
            "not a size",
        ),
        ("[children]\nmax_buffer_size = -5\n", "2:19", "not a size"),
        (
            "[signals]\nenabled = \"yes\"\n",
            "2:11",
            "to be `true` or `false`",
        ),
        (
            "[signals]\nhandled = [\"SIGFOO\"]\n",
            "2:12",
            "not a signal",
        ),
        (
            "[signals]\nhandled = [\"SIGKILL\"]\n",
            "2:12",
            "SIGKILL cannot be handled",
        ),
        ("[signals]\nhandled = \"SIGTERM\"\n", "2:11", "to be a list"),
        (
            "[signals.actions]\nSIGFOO = \"ignore\"\n",
            "2:1",
            "not a signal",
        ),
        (
            "[signals.actions]\nSIGTERM = \"shutdwn\"\n",
            "2:11",
            "did you mean `shutdown`?",
        ),
        (
            "[restart]\nservices = \"alway\"\n",
            "2:12",
            "did you mean `always`?",
        ),
        (
            "[restart.backoff]\njitter = 1.5\n",
            "2:10",
            "a number from 0 to 1, found the number 1.5",
        ),
        (
            "[dashboard]\nport = 70000\n",
            "2:8",
            "from 1 to 65535, found the number 70000",
        ),
        (
            "[telemetry]\notlp = \"localhost\"\n",
            "2:8",
            "expected `off` or an address",
        ),
        ("stop = \"SIGTERM\"\n", "1:8", "to be a map"),
        (
            "maxConcurrent = 1\n[children]\nmax_concurrent = 2\n",
            "3:1",
            "set twice",
        ),
        (
            "[children]\nmax_concurrent = 2\nmaxConcurrent = 1\n",
            "3:1",
            "an older name of `children.max_concurrent`",
        ),
        (
            "gracefulShutdownTimeoutMs = \"5s\"\n",
            "1:29",
            "a whole number from 0 to",
        ),
        (
            "gracefulShutdownTimeoutMs = 1.5\n",
            "1:29",
            "a whole number from 0 to",
        ),
        ("[stop\n", "1:6", "not TOML"),
    ] {
        let found = Case::new().file(text).mistakes();
        assert!(
            found.iter().any(
                |mistake| mistake.starts_with(&format!("{place} ")) && mistake.contains(phrase)
            ),
            "expected {place} {phrase:?} for\n{text}found {found:#?}"
        );
    }
}

#[test]
fn mistakes_in_variables_and_flags_name_them() {
    let found = Case::new()
        .variable("KIMI_SHELL__CHILDREN__QUEU", "1")
        .variable("KIMI_SHELL__CHILDREN__QUEUE", "few")
        .variable("KIMI_SHELL__STOP", "x")
        .variable("KIMI_SHELL__ENABLED", "true")
        .variable("KIMI_SHELL__SIGNALS__ENABLED", "true")
        .flag("stop.timeout=5")
        .flag("stop.timeout")
        .mistakes();
    for phrase in [
        "KIMI_SHELL__CHILDREN__QUEU unknown setting `CHILDREN.QUEU`; did you mean `queue`?",
        "KIMI_SHELL__CHILDREN__QUEUE expected the value to be a whole number, 0 or more, found the text `few`",
        "KIMI_SHELL__STOP `stop` is a section, not a key",
        "KIMI_SHELL__SIGNALS__ENABLED `signals.enabled` is set by another variable too",
        "--set stop.timeout=5 the value: `5` has no unit",
        "--set stop.timeout expected `key=value`",
    ] {
        assert!(
            found.iter().any(|mistake| mistake.contains(phrase)),
            "{phrase}\n{found:#?}"
        );
    }
    assert_eq!(found.len(), 6, "{found:#?}");
}

#[test]
fn a_users_file_that_does_not_exist_is_no_mistake_and_one_that_cannot_be_read_is() {
    let mut case = Case::new();
    case.inputs.user_file = Some(case.directory.path().join("none.toml"));
    assert_eq!(case.load().settings, Settings::default());
    case.inputs.user_file = Some(case.directory.path().to_owned());
    assert!(matches!(
        Effective::load(&case.inputs),
        Err(SettingsError::UserFile(_))
    ));
}
