//! The program as it is typed.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

pub mod support;

use std::fs;
use std::io::Read;
use std::process::Stdio;

use support::{Answer, answer, kimi_shell, outside, skip};

const GOOD: &str = "version: 1\nservices: { a: { command: [sleep, 1] } }\n";

#[test]
fn the_version_is_printed_as_flag_and_as_verb() {
    let here = tempfile::tempdir().unwrap();
    let expected = format!("kimi-shell {}\n", env!("CARGO_PKG_VERSION"));
    for words in [["--version"], ["version"]] {
        let answer = answer(here.path(), &words);
        assert_eq!(
            (answer.code, answer.stdout.as_str()),
            (Some(0), expected.as_str())
        );
    }
    let json = answer(here.path(), &["version", "-o", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json["schema_version"], 1);
}

#[test]
fn help_knows_the_program_its_verbs_and_the_exit_codes() {
    let here = tempfile::tempdir().unwrap();
    for (words, phrase) in [
        (&["help"][..], "Usage: kimi-shell"),
        (&["--help"], "help exit-codes"),
        (&["help", "start"], "Usage: kimi-shell start"),
        (&["help", "up"], "Usage: kimi-shell start"),
        (&["start", "--help"], "--abort-on-failure"),
        (&["help", "exit-codes"], "130"),
    ] {
        let answer = answer(here.path(), words);
        assert_eq!(answer.code, Some(0), "{words:?}");
        assert!(
            answer.stdout.contains(phrase),
            "{words:?}: {}",
            answer.stdout
        );
    }
}

#[test]
fn what_is_not_understood_is_a_usage_error() {
    let here = tempfile::tempdir().unwrap();
    for words in [
        &[][..],
        &["strat"],
        &["start", "--bogus"],
        &["start", "a/b"],
        &["start", "--all", "a"],
        &["config", "-o", "xml"],
        &["help", "nothing"],
        &["--color", "blue", "config"],
    ] {
        let answer = answer(here.path(), words);
        assert_eq!(answer.code, Some(2), "{words:?}");
        assert_eq!(answer.stdout, "", "{words:?}");
        assert_ne!(answer.stderr, "", "{words:?}");
    }
}

#[test]
fn config_prints_settings_that_can_be_read_again() {
    let here = tempfile::tempdir().unwrap();
    let printed = answer(here.path(), &["config", "--settings"]);
    assert_eq!(printed.code, Some(0));
    let settings: kimi_shell::settings::Settings = toml::from_str(&printed.stdout).unwrap();
    assert_eq!(settings, kimi_shell::settings::Settings::default());
    let json = answer(here.path(), &["config", "-o", "json", "--origins"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["settings"]["dashboard"]["port"], 18790);
    assert_eq!(json["origins"]["dashboard.port"]["layer"], "default");
}

#[test]
fn config_tells_which_layer_set_what() {
    let here = tempfile::tempdir().unwrap();
    let user = here.path().join(".config/kimi-shell");
    fs::create_dir_all(&user).unwrap();
    fs::write(user.join("process-management.toml"), "maxConcurrent = 7\n").unwrap();
    let text = format!(
        "{GOOD}settings: {{ stop: {{ timeout: 7s }}, signals: {{ actions: {{ SIGRTMIN+3: ignore }} }} }}\n"
    );
    fs::write(here.path().join("kimi-shell.yaml"), text).unwrap();
    let below = here.path().join("below");
    fs::create_dir(&below).unwrap();
    let output = kimi_shell(&below)
        .env("HOME", here.path())
        .env("KIMI_SHELL__START_TIMEOUT", "7s")
        .args(["--set", "children.queue=7", "config", "--origins"])
        .output()
        .unwrap();
    let printed = Answer::of(&output);
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    assert!(toml::from_str::<toml::Table>(&printed.stdout).is_ok());
    for (key, origin) in [
        ("children.max_concurrent = 7 ", "# user file: /"),
        ("stop.timeout = \"7s\" ", "kimi-shell.yaml:3:21"),
        (
            "start_timeout = \"7s\" ",
            "# environment: KIMI_SHELL__START_TIMEOUT",
        ),
        ("children.queue = 7 ", "# flag: --set"),
        ("children.grace = \"500ms\" ", "# default"),
    ] {
        assert!(
            printed
                .stdout
                .lines()
                .any(|line| line.starts_with(key) && line.contains(origin)),
            "{key} {origin}\n{}",
            printed.stdout
        );
    }
}

#[test]
fn a_wrong_manifest_is_78_and_told_once() {
    let here = tempfile::tempdir().unwrap();
    fs::write(
        here.path().join("kimi-shell.yaml"),
        "version: 1\nservices: { a: { comand: [x] } }\n",
    )
    .unwrap();
    for words in [
        &["start"][..],
        &["up"],
        &["config"],
        &["-f", "kimi-shell.yaml", "start"],
        &["start", "-f", "./kimi-shell.yaml"],
    ] {
        let answer = answer(here.path(), words);
        assert_eq!(answer.code, Some(78), "{words:?}");
        assert_eq!(
            answer.stderr.matches("unknown key `comand`").count(),
            1,
            "{}",
            answer.stderr
        );
        assert!(
            answer.stderr.contains("kimi-shell.yaml:2:18: "),
            "{}",
            answer.stderr
        );
    }
}

#[test]
fn wrong_settings_two_manifests_and_a_missing_one_are_78() {
    let here = tempfile::tempdir().unwrap();
    let wrong = answer(here.path(), &["--set", "stop.timeout=5", "config"]);
    assert_eq!(wrong.code, Some(78), "{wrong:?}");
    let missing = answer(here.path(), &["-f", "none.yaml", "config"]);
    assert_eq!(missing.code, Some(78), "{missing:?}");
    assert!(
        missing.stderr.contains("caused by: cannot read none.yaml"),
        "{}",
        missing.stderr
    );
    for name in ["kimi-shell.yaml", "kimi-shell.toml"] {
        fs::write(here.path().join(name), "").unwrap();
    }
    let two = answer(here.path(), &["config"]);
    assert_eq!(two.code, Some(78), "{two:?}");
    assert!(
        two.stderr.contains("cannot choose between"),
        "{}",
        two.stderr
    );
}

#[test]
fn a_manifest_can_come_on_standard_input() {
    let here = tempfile::tempdir().unwrap();
    let text = format!("{GOOD}settings: {{ dashboard: {{ port: 7 }} }}\n");
    let file = here.path().join("text");
    fs::write(&file, text).unwrap();
    let output = kimi_shell(here.path())
        .args(["-f", "-", "config"])
        .stdin(fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    assert!(Answer::of(&output).stdout.contains("port: 7"));
}

#[test]
fn colours_go_by_flag_then_no_color_then_force() {
    let here = tempfile::tempdir().unwrap();
    let coloured = |variables: &[(&str, &str)], words: &[&str]| {
        let mut command = kimi_shell(here.path());
        command
            .envs(variables.iter().copied())
            .args(words)
            .args(["-f", "none", "config"]);
        Answer::of(&command.output().unwrap())
            .stderr
            .contains('\x1b')
    };
    assert!(!coloured(&[], &[]));
    assert!(coloured(&[], &["--color", "always"]));
    assert!(coloured(&[("CLICOLOR_FORCE", "1")], &[]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "0")], &[]));
    assert!(!coloured(
        &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")],
        &[]
    ));
    assert!(coloured(&[("NO_COLOR", "1")], &["--color", "always"]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "1")], &["--color", "never"]));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let here = tempfile::tempdir().unwrap();
    for words in [
        &["config", "--origins"][..],
        &["help"],
        &["--help"],
        &["help", "exit-codes"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = kimi_shell(here.path())
            .args(words)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        assert_eq!(
            (child.wait().unwrap().code(), stderr.as_str()),
            (Some(0), ""),
            "{words:?}"
        );
    }
}

#[test]
fn a_full_disk_is_a_failure() {
    let here = tempfile::tempdir().unwrap();
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = kimi_shell(here.path())
        .arg("config")
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .unwrap();
    let answer = Answer::of(&output);
    assert_eq!(answer.code, Some(1));
    assert!(
        answer.stderr.contains("cannot write to standard output"),
        "{}",
        answer.stderr
    );
}

/// Everything that can hold a secret, and what must be seen all the same.
const SECRETIVE: &str = r#"
version: 1
x-note: { token: hunter2 }
services:
  db:
    command: [psql, --password=hunter2, --token, hunter2, "postgres://me:hunter2@db/x", --port, "5432"]
    env: { LOG: hunter2, PORT: 7 }
  api:
    shell: "TOKEN=hunter2 curl -H 'Authorization: Bearer hunter2' http://x/?api_key=hunter2&y=2 # hello"
    depends_on: [db]
    restart: { policy: on_failure, backoff: { max: 9s } }
supervisors:
  pair: { children: [db, api] }
"#;

#[test]
fn config_prints_the_whole_manifest_without_its_secrets() {
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("kimi-shell.yaml"), SECRETIVE).unwrap();
    for format in ["yaml", "toml", "json"] {
        let printed = answer(here.path(), &["config", "-o", format]);
        assert_eq!(printed.code, Some(0), "{}", printed.stderr);
        assert!(!printed.stdout.contains("hunter2"), "{}", printed.stdout);
        for seen in [
            "5432",
            "hello",
            "LOG",
            "one_for_one",
            "graceful_shutdown_timeout",
            "500ms",
            "9s",
        ] {
            assert!(printed.stdout.contains(seen), "{seen}\n{}", printed.stdout);
        }
    }
    let printed = answer(here.path(), &["config", "-o", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let api = &json["manifest"]["services"]["api"];
    assert_eq!(api["depends_on"]["db"]["condition"], "ready");
    assert_eq!(api["type"], "service");
    let restart = &api["restart"];
    assert_eq!(
        (&restart["policy"], &restart["max_restarts"]),
        (&"on_failure".into(), &5.into())
    );
    assert_eq!(
        (&restart["backoff"]["max"], &restart["backoff"]["initial"]),
        (&"9s".into(), &"500ms".into())
    );
    assert_eq!(json["manifest"]["services"]["db"]["env"]["PORT"], "***");
    assert_eq!(json["manifest"]["settings"], json["settings"]);
    assert_eq!(json["manifest"]["x-note"], serde_json::Value::Null);
}

#[test]
fn what_config_prints_is_a_manifest_again() {
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("kimi-shell.yaml"), SECRETIVE).unwrap();
    let whole = |file: &str| -> serde_json::Value {
        let printed = answer(here.path(), &["config", "-f", file, "-o", "json"]);
        assert_eq!(printed.code, Some(0), "{}", printed.stderr);
        serde_json::from_str(&printed.stdout).unwrap()
    };
    let first = whole("kimi-shell.yaml");
    for format in ["yaml", "toml"] {
        let file = format!("again.{format}");
        let printed = answer(
            here.path(),
            &["config", "-f", "kimi-shell.yaml", "-o", format],
        );
        fs::write(here.path().join(&file), printed.stdout).unwrap();
        assert_eq!(whole(&file), first, "{format}");
    }
}

#[test]
fn without_a_manifest_config_prints_the_demonstration_and_says_so() {
    let here = tempfile::tempdir().unwrap();
    let printed = answer(here.path(), &["config"]);
    assert_eq!(printed.code, Some(0));
    assert!(printed.stdout.contains("heartbeat:"), "{}", printed.stdout);
    assert!(
        printed.stderr.contains("kimi-shell init"),
        "{}",
        printed.stderr
    );
}

#[test]
fn origins_can_be_read_as_yaml_too() {
    let here = tempfile::tempdir().unwrap();
    let words = [
        "config",
        "--origins",
        "-o",
        "yaml",
        "--set",
        "stop.timeout=7s",
    ];
    let printed = answer(here.path(), &words);
    assert_eq!(printed.code, Some(0));
    let line = printed
        .stdout
        .lines()
        .find(|line| line.starts_with("stop.timeout: \"7s\""));
    assert!(
        line.unwrap().ends_with("# flag: --set"),
        "{}",
        printed.stdout
    );
}

#[test]
fn every_verb_stands_in_one_group_of_the_help() {
    let here = tempfile::tempdir().unwrap();
    let help = answer(here.path(), &["help"]).stdout;
    for verb in [
        "init",
        "validate",
        "graph",
        "config",
        "schema",
        "start",
        "completion",
        "help",
        "version",
    ] {
        let lines = help
            .lines()
            .filter(|line| line.starts_with(&format!("  {verb} ")));
        assert_eq!(lines.count(), 1, "{verb}\n{help}");
    }
    assert!(!help.contains("__complete"), "{help}");
    for heading in ["Write and check:", "Run:", "Help:"] {
        assert!(help.contains(heading), "{help}");
    }
    assert_eq!(answer(here.path(), &["--help"]).stdout, help);
}

#[test]
fn the_schema_is_json_that_knows_what_it_describes() {
    let here = tempfile::tempdir().unwrap();
    let printed = answer(here.path(), &["schema"]);
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    let schema: serde_json::Value = serde_json::from_str(&printed.stdout).unwrap();
    for key in ["version", "services", "supervisors", "settings"] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
}

#[test]
fn every_shell_gets_its_completions_and_says_where_to_put_them() {
    let here = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let printed = answer(here.path(), &["completion", shell]);
        assert_eq!(
            (printed.code, printed.stderr.as_str()),
            (Some(0), ""),
            "{shell}"
        );
        assert!(printed.stdout.contains("validate"), "{shell}");
        let asks = printed.stdout.contains("kimi-shell __complete-names");
        assert_eq!(asks, ["bash", "zsh", "fish"].contains(&shell), "{shell}");
        let help = answer(here.path(), &["completion", "--help"]).stdout;
        assert!(
            help.contains(&format!("kimi-shell completion {shell} >")),
            "{help}"
        );
    }
    assert_eq!(answer(here.path(), &["completion", "tcsh"]).code, Some(2));
}

#[test]
fn bash_completes_verbs_and_the_names_of_the_manifest() {
    let has_bash = outside("bash").args(["-c", "true"]).output().is_ok();
    if !has_bash {
        return skip("there is no bash to complete");
    }
    let here = tempfile::tempdir().unwrap();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_kimi-shell"));
    let completed = |words: &str, count: usize| -> Vec<String> {
        // What bash does when somebody presses Tab.
        let script = format!(
            "source <(kimi-shell completion bash); COMP_WORDS=({words}); COMP_CWORD={count}; \
             spec=$(complete -p kimi-shell); ask=${{spec#*-F }}; ask=${{ask%% *}}; \
             \"$ask\" kimi-shell \"${{COMP_WORDS[{count}]}}\" \"${{COMP_WORDS[{count}-1]}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let path = std::env::join_paths([
            program.parent().unwrap(),
            "/usr/bin".as_ref(),
            "/bin".as_ref(),
        ]);
        let output = outside("bash")
            .args(["-c", &script])
            .current_dir(here.path())
            .env_clear()
            .env("PATH", path.unwrap())
            .env("HOME", here.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let answer = Answer::of(&output);
        assert_eq!(answer.code, Some(0), "{}", answer.stderr);
        answer.stdout.lines().map(str::to_owned).collect()
    };
    assert_eq!(completed("kimi-shell val", 1), ["validate"]);
    fs::write(here.path().join("kimi-shell.yaml"), SECRETIVE).unwrap();
    for words in ["kimi-shell start p", "kimi-shell graph p"] {
        assert_eq!(completed(words, 2), ["pair"], "{words}");
    }
    assert_eq!(completed("kimi-shell start db a", 3), ["api"]);
    fs::write(here.path().join("kimi-shell.yaml"), "wrong").unwrap();
    assert_eq!(completed("kimi-shell start p", 2), [""]);
}

#[test]
fn the_names_of_a_manifest_are_told_to_completions() {
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("kimi-shell.yaml"), SECRETIVE).unwrap();
    let names = answer(here.path(), &["__complete-names"]);
    assert_eq!(
        (names.code, names.stdout.as_str()),
        (Some(0), "api\ndb\npair\n")
    );
}
