//! `kimi-shell session`: real shells, driven as a user would.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{Answer, kimi_shell};

#[expect(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its part of it"
)]
mod support;

fn begin(directory: &Path, words: &[&str]) -> Child {
    kimi_shell(directory)
        .env("PATH", std::env::var_os("PATH").unwrap())
        .arg("session")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What it answers to these words and this input.
fn answer(words: &[&str], input: &str) -> Answer {
    let directory = tempfile::tempdir().unwrap();
    let mut session = begin(directory.path(), words);
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    Answer::of(&session.wait_with_output().unwrap())
}

fn results(words: &[&str], input: &str) -> Vec<Value> {
    let words: Vec<&str> = ["--json"].iter().chain(words).copied().collect();
    let answer = answer(&words, input);
    let parse = |line| serde_json::from_str(line).unwrap();
    answer.stdout.lines().map(parse).collect()
}

#[test]
fn commands_share_a_shell_and_the_last_gives_the_code() {
    let input = "cd /\nx=5\npwd; echo $x; echo err >&2\n(exit 3)\n";
    let answer = answer(&[], input);
    assert_eq!(answer.stdout, "/\n5\n");
    assert_eq!(answer.stderr, "err\n");
    assert_eq!(answer.code, Some(3));
}

#[test]
fn each_result_is_an_object_of_its_own() {
    let results = results(
        &["--bash"],
        "echo a; echo b >&2\nexit 7\necho c\nprintf '\\377'\n",
    );
    let of = |n: usize, pointer: &str| results[n].pointer(pointer).unwrap().clone();
    assert_eq!(results.len(), 4);
    assert_eq!(of(0, "/outcome"), "exited");
    assert_eq!(of(0, "/exit_code"), 0);
    assert_eq!(of(0, "/stdout/text"), "a\n");
    assert_eq!(of(0, "/stderr/text"), "b\n");
    assert_eq!(of(0, "/state"), "kept");
    assert_eq!(of(1, "/outcome"), "shell_ended");
    assert_eq!(of(1, "/exit_code"), 7);
    assert_eq!(of(1, "/state"), "lost");
    assert_eq!(of(2, "/stdout/text"), "c\n");
    assert_eq!(of(3, "/stdout/base64"), "/w==");
}

#[test]
fn a_command_that_overruns_says_that_state_is_lost() {
    let answer = answer(&["--timeout", "100ms"], "x=5\nsleep 1000\n");
    assert_eq!(answer.code, Some(124));
    assert!(
        answer.stderr.contains("timed out after 100ms"),
        "{answer:?}"
    );
    assert!(answer.stderr.contains("lost"), "{answer:?}");
}

#[test]
fn a_shell_that_catches_the_interrupt_of_its_command_keeps_its_state() {
    let words = ["--timeout", "1s"];
    let results = results(&words, "trap : INT; x=5\nsleep 1000\necho $x\n");
    let of = |at: usize, path| results[at].pointer(path).unwrap().clone();
    assert_eq!(of(1, "/outcome"), "timed_out");
    assert_eq!(of(1, "/exit_code"), 130);
    assert_eq!(of(1, "/state"), "kept");
    assert_eq!(of(2, "/stdout/text"), "5\n");
}

#[test]
fn commands_of_several_lines_end_with_a_nul() {
    let answer = answer(&["-0"], "cat <<END\n1\nEND\0echo 2\n\0");
    assert_eq!((answer.stdout.as_str(), answer.code), ("1\n2\n", Some(0)));
}

#[test]
fn environment_directory_and_cap_are_kept_to() {
    let words = ["--cwd", "/", "-e", "A=b c", "--max-output", "4B"];
    let results = results(&words, "pwd; echo \"$A\"\n");
    let stdout = &results[0]["stdout"];
    assert_eq!(stdout["bytes_total"], 6);
    assert_eq!(stdout["bytes_kept"], 4);
    assert_eq!(stdout["truncated"], true);
    assert!(
        stdout["text"].as_str().unwrap().starts_with("/\n"),
        "{stdout}"
    );
}

#[test]
fn nothing_to_do_is_done() {
    let answer = answer(&[], "");
    assert_eq!((answer.stdout.as_str(), answer.code), ("", Some(0)));
}

#[test]
fn a_signal_ends_the_session_with_all_that_runs_in_it() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let directory = tempfile::tempdir().unwrap();
        let pid_file = directory.path().join("pid");
        let mut session = begin(directory.path(), &[]);
        let mut stdin = session.stdin.take().unwrap();
        stdin
            .write_all(b"sleep 1000 & echo $! >pid; sleep 1000\n")
            .unwrap();
        while !std::fs::read_to_string(&pid_file).is_ok_and(|text| text.ends_with('\n')) {
            std::thread::yield_now();
        }
        let pid = std::fs::read_to_string(&pid_file).unwrap();
        kill_process(Pid::from_child(&session), signal).unwrap();
        let answer = Answer::of(&session.wait_with_output().unwrap());
        assert_eq!(answer.code, Some(code), "{answer:?}");
        let state = support::process::state_of(pid.trim().parse().unwrap());
        assert!(matches!(state, None | Some('Z' | 'X')), "{state:?}");
        drop(stdin);
    }
}

#[test]
fn wrong_words_are_usage_errors() {
    for words in [
        ["--timeout", "5"],
        ["--timeout", "-1s"],
        ["--max-output", "much"],
        ["-e", "secret"],
    ] {
        let answer = answer(&words, "");
        assert_eq!(answer.code, Some(2), "{words:?}: {answer:?}");
    }
}
