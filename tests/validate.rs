//! `validate`: what is said of manifests, and with which exit code.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

pub mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::golden::assert_golden;
use support::{Answer, answer, kimi_shell};

const GOOD: &str = r"
version: 1
services:
  db: { command: [/bin/sh, -c, exec sleep 1000] }
  api: { shell: exec sleep 1000, depends_on: [db] }
  migrate: { type: task, shell: 'true' }
supervisors:
  pair: { children: [db, api] }
";

/// Two errors, and something that is hardly meant.
const BAD: &str = r"
version: 1
services:
  db: { comand: [sleep, '1000'] }
  api: { shell: exec sleep 1000, stop: { timeout: 5 } }
  late: { shell: exec sleep 1000, depends_on: { api: { condition: completed } } }
";

const WARNED: &str = r"
version: 1
services:
  api: { shell: exec sleep 1000 }
  late: { shell: exec sleep 1000, depends_on: { api: { condition: completed } } }
";

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let here = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(here.path().join(name), text).unwrap();
    }
    here
}

fn validate(here: &Path, words: &[&str]) -> Answer {
    answer(here, &[&["validate"], words].concat())
}

fn json(here: &Path, words: &[&str]) -> (Option<i32>, Value) {
    let answer = validate(here, &[&["-o", "json"], words].concat());
    (answer.code, serde_json::from_str(&answer.stdout).unwrap())
}

fn problems(file: &Value) -> Vec<(&str, u64, &str)> {
    file["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| {
            (
                problem["severity"].as_str().unwrap(),
                problem["line"].as_u64().unwrap_or(0),
                problem["message"].as_str().unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_good_manifest_is_counted_and_the_next_step_is_told() {
    let here = directory(&[("kimi-shell.yaml", GOOD)]);
    let answer = validate(here.path(), &[]);
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""));
    assert_golden("validate/good.txt", &answer.stdout);
    let (code, json) = json(here.path(), &[]);
    assert_eq!(code, Some(0));
    assert_eq!(json["schema_version"], 1);
    assert_eq!(
        json["files"],
        serde_json::json!([{ "file": "kimi-shell.yaml", "valid": true, "problems": [] }])
    );
}

#[test]
fn all_errors_and_warnings_are_told_at_once_with_their_lines() {
    let here = directory(&[("kimi-shell.yaml", BAD)]);
    let answer = validate(here.path(), &[]);
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(78), ""));
    assert_golden("validate/bad.txt", &answer.stdout);
    let (code, json) = json(here.path(), &[]);
    assert_eq!(code, Some(78), "the format does not change the code");
    let file = &json["files"][0];
    assert_eq!(file["valid"], false);
    let severities: Vec<(&str, u64)> = problems(file).iter().map(|it| (it.0, it.1)).collect();
    assert_eq!(severities, [("error", 4), ("error", 5), ("warning", 6)]);
    let unknown = &file["problems"][0];
    assert_eq!(unknown["file"], "kimi-shell.yaml");
    assert_eq!(
        (unknown["column"].as_u64(), unknown["end_line"].as_u64()),
        (Some(9), Some(4))
    );
    assert!(
        unknown["snippet"].as_str().unwrap().contains("^^^^^^"),
        "{unknown}"
    );
}

#[test]
fn a_warning_is_an_error_only_where_that_is_wanted() {
    let here = directory(&[("kimi-shell.yaml", WARNED)]);
    let answer = validate(here.path(), &[]);
    assert_eq!(answer.code, Some(0));
    assert!(
        answer.stdout.contains("kimi-shell.yaml:5:"),
        "{}",
        answer.stdout
    );
    assert!(
        answer.stdout.contains("ok: 2 services, with 1 warning"),
        "{}",
        answer.stdout
    );
    let strict = validate(here.path(), &["--strict"]);
    assert_eq!(strict.code, Some(78));
    assert!(!strict.stdout.contains("ok:"), "{}", strict.stdout);
    assert_eq!(
        json(here.path(), &["--strict"]).1["files"][0]["valid"],
        false
    );
}

#[test]
fn several_files_are_each_looked_at_by_themselves() {
    let here = directory(&[("good.yaml", GOOD), ("bad.yaml", BAD)]);
    let (code, json) = json(here.path(), &["good.yaml", "bad.yaml", "none.yaml"]);
    assert_eq!(code, Some(78));
    let files: Vec<(&str, bool)> = json["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| {
            (
                file["file"].as_str().unwrap(),
                file["valid"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        files,
        [
            ("good.yaml", true),
            ("bad.yaml", false),
            ("none.yaml", false)
        ]
    );
    let missing = problems(&json["files"][2]);
    assert!(
        missing[0].2.contains("cannot read none.yaml"),
        "{missing:?}"
    );
    let both = validate(here.path(), &["good.yaml", "good.yaml"]);
    assert_eq!(both.code, Some(0));
    let next = "`kimi-shell start --all -f good.yaml`";
    assert_eq!(both.stdout.matches(next).count(), 2, "{}", both.stdout);
    assert_eq!(validate(here.path(), &["-f", "good.yaml"]).code, Some(0));
    assert_eq!(
        validate(here.path(), &["-f", "good.yaml", "bad.yaml"]).code,
        Some(2)
    );
}

#[test]
fn standard_input_is_a_file_too() {
    let here = directory(&[("text", BAD)]);
    let output = kimi_shell(here.path())
        .args(["validate", "-"])
        .stdin(fs::File::open(here.path().join("text")).unwrap())
        .output()
        .unwrap();
    let answer = Answer::of(&output);
    assert_eq!(answer.code, Some(78));
    assert!(
        answer.stdout.contains("standard input:4:9: error: "),
        "{}",
        answer.stdout
    );
}

#[test]
fn programs_and_directories_that_are_not_there_are_found() {
    let here = directory(&[(
        "kimi-shell.yaml",
        r"
version: 1
services:
  build: { type: task, shell: 'true' }
  gone: { command: [no-such-program-anywhere] }
  built: { command: [./not/built/yet], cwd: ./not/built, depends_on: [build] }
  lost: { shell: 'true', cwd: ./nowhere }
",
    )]);
    let (code, json) = json(here.path(), &[]);
    assert_eq!(code, Some(78));
    let file = &json["files"][0];
    let found: Vec<(&str, u64)> = problems(file).iter().map(|it| (it.0, it.1)).collect();
    assert_eq!(
        found,
        [("error", 5), ("warning", 6), ("error", 7)],
        "{file:#}"
    );
    for (_, _, message) in problems(file) {
        let says_what_to_do = message.contains("install it") || message.contains("may make it");
        assert!(says_what_to_do, "{message}");
    }
    // Where programs are not looked for before a start, that they are missing is no error.
    let loose = validate(here.path(), &["--set", "children.validate_binary=false"]);
    assert_eq!(loose.code, Some(0), "{}", loose.stdout);
}

#[test]
fn without_a_manifest_or_with_two_it_says_what_to_do() {
    let here = directory(&[]);
    let none = validate(here.path(), &[]);
    assert_eq!(none.code, Some(78));
    assert!(
        none.stdout.contains("`kimi-shell init` writes one"),
        "{}",
        none.stdout
    );
    assert_eq!(json(here.path(), &[]).1["files"][0]["valid"], false);
    let two = directory(&[("kimi-shell.yaml", GOOD), ("kimi-shell.toml", "")]);
    let two = validate(two.path(), &[]);
    assert_eq!(two.code, Some(78));
    assert!(two.stdout.contains("`--file`"), "{}", two.stdout);
}

#[test]
fn no_environment_value_is_shown() {
    let here = directory(&[(
        "kimi-shell.yaml",
        "version: 1\nservices: { a: { shell: x, env: { PASSWORD: [hunter2] }, bogus: 1 } }\n",
    )]);
    for words in [&[][..], &["-o", "json"]] {
        let answer = validate(here.path(), words);
        assert_eq!(answer.code, Some(78));
        assert!(!answer.stdout.contains("hunter2"), "{}", answer.stdout);
    }
}

#[test]
fn many_mistakes_are_counted_and_not_all_shown_to_people() {
    let services: Vec<String> = (0..200)
        .map(|n| format!("  s{n}: {{ shell: x, bogus: 1 }}\n"))
        .collect();
    let services = services.concat();
    let here = directory(&[(
        "kimi-shell.yaml",
        &format!("version: 1\nservices:\n{services}"),
    )]);
    let answer = validate(here.path(), &[]);
    assert_eq!(answer.code, Some(78));
    assert_eq!(answer.stdout.matches(": error: ").count(), 50);
    assert!(answer.stdout.contains("and 150 more"), "{}", answer.stdout);
}
