//! `exec` as it is typed: codes, streams, signals, and nothing left behind.
//!
//! What people complain of in tools that run one command for them, and the test that holds us to something better. Those that
//! are not in this file are in `actors/tests`, in `exec.rs` unless it is said otherwise.
//!
//! | complaint | test |
//! |---|---|
//! | what it started is left behind | every one here, by `assert_nothing_left`; `the_object_has_everything` names it |
//! | a stop ends the shell and not what runs in it | `a_signal_ends_the_command_and_all_that_it_started` |
//! | so does a timeout | `each_end_has_its_code` |
//! | a detached child holds the pipe, and no result comes | `who_holds_the_pipe_delays_nothing_and_does_not_survive` |
//! | to avoid that, the tail is lost | `the_tail_comes_however_late_within_the_drain_it_is_written` |
//! | it hangs on a full pipe | `both_streams_pass_through_as_they_are` |
//! | its time is not over when it is over | `who_reads_nothing_does_not_hold_up_the_end` |
//! | it waits for a stdin that nobody writes to | `stdin_is_passed_on_only_if_that_is_asked_for` |
//! | its output fills the disk, or the memory | `whoever_writes_for_all_of_its_time_costs_the_bound_and_no_more` |
//! | it kills its parent, and lives on | `one_that_kills_its_parent_ends_with_it` |
//! | nothing bounds one that runs on and on, or says nothing | `each_end_has_its_code` |
//! | a wrapper ends, and its child is not seen | `one_that_left_its_session_delays_nothing` |
//! | blocked cannot be told from slow | `one_that_runs_out_of_time_in_a_read_of_its_stdin_has_waited_for_input`; `bounds.rs` |

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]
#![cfg(target_os = "linux")]

pub mod support;

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::Answer;
use support::fact::{eventually, passes};
use support::process::{self, is_alive};
use support::supervisor::Place;

/// What the program answers to `exec` and these words, and that nothing is left.
fn exec(words: &[&str]) -> Answer {
    exec_at(&Place::empty(), words)
}

fn exec_at(place: &Place, words: &[&str]) -> Answer {
    let words = [&["exec"], words].concat();
    let answer = Answer::of(&place.command(&words).output().unwrap());
    assert_nothing_left(place);
    answer
}

fn assert_nothing_left(place: &Place) {
    let left = process::with_environment(&place.mark());
    assert_eq!(left, [0; 0], "nothing outlives it");
    place.assert_tidy();
}

fn object(words: &[&str]) -> (Option<i32>, Value) {
    let answer = exec(&[&["--json"], words].concat());
    assert_eq!(answer.stderr, "");
    assert_eq!(answer.stdout.lines().count(), 1);
    (answer.code, serde_json::from_str(&answer.stdout).unwrap())
}

/// `exec` at work; killed with all that it started if it is dropped.
struct Running {
    child: Child,
    place: Place,
}

impl Running {
    fn start(words: &[&str]) -> Self {
        let place = Place::empty();
        let command = place.command(&[&["exec"], words].concat());
        Self::spawn(place, command)
    }

    fn spawn(place: Place, mut command: Command) -> Self {
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, place }
    }

    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What a file of the command's says, once it is there.
    fn note(&self, name: &str) -> String {
        let path = self.place.out(name);
        eventually("the note is written", || {
            fs::read_to_string(&path)
                .ok()
                .filter(|note| note.ends_with('\n'))
        })
    }

    fn code(mut self) -> Option<i32> {
        let code = eventually("it ends", || self.child.try_wait().unwrap()).code();
        assert_nothing_left(&self.place);
        code
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It is not reaped, or has ended, and then this does nothing.
        drop(self.child.kill());
        drop(self.child.wait());
        let mark = self.place.mark();
        for pid in process::with_environment(&mark) {
            process::kill(pid, &mark);
        }
    }
}

#[test]
fn each_end_has_its_code() {
    for (words, code) in [
        (&["true"][..], 0),
        (&["--", "sh", "-c", "exit 3"], 3),
        (&["--shell", "exit 255"], 255),
        (&["--shell", "kill -9 $$"], 137),
        (&["--shell", "kill -TERM $$"], 143),
        (&["--timeout", "50ms", "sleep", "1000"], 124),
        (
            &[
                "--timeout",
                "50ms",
                "--shell",
                "trap '' TERM; sleep 1000; sleep 1000",
            ],
            124,
        ),
        (&["--timeout", "50ms", "--shell", "kill -STOP $$"], 124),
        (&["--idle-timeout", "50ms", "sleep", "1000"], 124),
        (&["--max-output", "1kB", "--on-limit", "kill", "yes"], 137),
        (&["--cwd", "/no/such/directory", "true"], 125),
        (&["/etc"], 126),
        (&["/etc/passwd"], 126),
        (&["no-such-program"], 127),
        (&["/no/such/program"], 127),
        (&[""], 127),
        (&["--timeout", "0", "--shell", "exit 7"], 7),
    ] {
        let answer = exec(words);
        assert_eq!(answer.code, Some(code), "{words:?}: {}", answer.stderr);
        let (json, _) = object(words);
        assert_eq!(json, Some(code), "as an object: {words:?}");
    }
}

#[test]
fn what_is_not_understood_is_a_usage_error_and_runs_nothing() {
    let place = Place::empty();
    let bad = place.out("bad.env");
    fs::write(&bad, "SECRET\n").unwrap();
    let touched = place.out("touched");
    let touch = ["touch", touched.to_str().unwrap()];
    for words in [
        &[][..],
        &["--timeout=-1s"],
        &["--timeout", "5"],
        &["--timeout", "10000000d"],
        &["--timeout", "-0.5s"],
        &["--timeout", "1e999s"],
        &["--timeout", "18446744073709551616s"],
        &["--idle-timeout=-1s"],
        &["--timeout", "soon"],
        &["--idle-timeout", ""],
        &["--max-output", "-1"],
        &["--max-output", "many"],
        &["--on-limit", "panic"],
        &["-e", "SECRET"],
        &["-e", "=SECRET"],
        &["--env-file", bad.to_str().unwrap()],
        &["--shell", "true"],
        &["--bogus"],
    ] {
        let words: Vec<&str> = match words {
            [] => vec!["exec"],
            words => [&["exec"], words, &touch].concat(),
        };
        let answer = Answer::of(&place.command(&words).output().unwrap());
        assert_eq!(answer.code, Some(2), "{words:?}: {}", answer.stderr);
        assert_eq!(answer.stdout, "");
        assert!(!answer.stderr.contains("SECRET"), "{}", answer.stderr);
    }
    assert!(!touched.exists());
    let missing = exec(&["--env-file", "/no/such/file", "true"]);
    assert_eq!(missing.code, Some(125));
}

#[test]
fn what_goes_wrong_is_said_on_stderr() {
    for (words, phrase) in [
        (
            &["no-such-program"][..],
            "cannot find `no-such-program` in the PATH",
        ),
        (&["/etc"], "it is a directory"),
        (
            &["--cwd", "/no/such", "true"],
            "cannot enter the working directory `/no/such`",
        ),
        (&["--timeout", "50ms", "sleep", "1000"], "its time was over"),
        (
            &["--idle-timeout", "50ms", "sleep", "1000"],
            "it wrote nothing",
        ),
        (
            &["--max-output", "1kB", "--on-limit", "kill", "yes"],
            "it wrote too much",
        ),
    ] {
        let answer = exec(words);
        assert!(
            answer.stderr.contains(phrase),
            "{words:?}: {}",
            answer.stderr
        );
    }
    assert_eq!(exec(&["true"]).stderr, "");
}

#[test]
fn both_streams_pass_through_as_they_are() {
    for bound in [
        &[][..],
        &["--idle-timeout", "1h"],
        &["--max-output", "1MiB"],
    ] {
        let line = ["--shell", "printf 'a\\000\\377b'; printf error >&2; exit 5"];
        let place = Place::empty();
        let output = place
            .command(&[&["exec"], bound, &line[..]].concat())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(5), "{bound:?}");
        assert_eq!(output.stdout, b"a\0\xffb", "{bound:?}");
        assert_eq!(output.stderr, b"error", "{bound:?}");
    }
    let megabytes = exec(&["--idle-timeout", "1h", "--shell", "yes | head -c 5000000"]);
    assert_eq!(megabytes.stdout.len(), 5_000_000);
}

#[test]
fn beyond_the_bound_the_head_and_the_tail_are_printed() {
    let answer = exec(&["--max-output", "20B", "seq", "100"]);
    assert_eq!(answer.code, Some(0));
    assert_eq!(
        answer.stdout,
        "1\n2\n3\n4\n5\n\n[... 272 bytes dropped ...]\n98\n99\n100\n"
    );
    assert_eq!(
        exec(&["--max-output", "292B", "seq", "100"]).stdout.len(),
        292
    );
}

#[test]
fn the_environment_is_the_callers_with_what_is_given() {
    let place = Place::empty();
    let file = place.out("some.env");
    fs::write(&file, "ONE=file\nTWO=file\n# no\n").unwrap();
    let words = [
        "exec",
        "-e",
        "TWO=flag",
        "--env-file",
        file.to_str().unwrap(),
        "-e",
        "HOME=x=y",
        "--cwd",
        "/",
        "--shell",
        "echo $ONE $TWO $HOME $OURS $PWD",
    ];
    let output = place.command(&words).env("OURS", "ours").output().unwrap();
    assert_eq!(output.stdout, b"file flag x=y ours /\n");
}

#[test]
fn stdin_is_passed_on_only_if_that_is_asked_for() {
    let run = |words: &[&str], input: &[u8]| {
        let place = Place::empty();
        let mut child = place
            .command(&[&["exec"], words].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It may end without reading.
        drop(child.stdin.take().unwrap().write_all(input));
        let output = child.wait_with_output().unwrap();
        assert_nothing_left(&place);
        (output.status.code(), output.stdout)
    };
    assert_eq!(run(&["cat"], b"typed"), (Some(0), Vec::new()));
    assert_eq!(
        run(&["--stdin", "cat"], b"typed"),
        (Some(0), b"typed".to_vec())
    );
    let (code, out) = run(&["--stdin", "--json", "cat"], b"typed");
    let out: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((code, &out["stdout"]["text"]), (Some(0), &json!("typed")));
    assert_eq!(
        run(&["--stdin", "true"], &vec![0; 1_000_000]),
        (Some(0), Vec::new())
    );
}

#[test]
fn the_object_has_everything() {
    let (code, result) = object(&["--shell", "echo out; echo err >&2; sleep 1000 & exit 3"]);
    assert_eq!(code, Some(3));
    assert_eq!(result["schema_version"], 1);
    assert_eq!(
        result["argv"],
        json!([
            "/bin/sh",
            "-c",
            "echo out; echo err >&2; sleep 1000 & exit 3"
        ])
    );
    assert!(PathBuf::from(result["cwd"].as_str().unwrap()).is_absolute());
    assert!(result["pid"].as_u64().unwrap() > 1);
    for time in ["started_at", "last_output_at"] {
        let text = result[time].as_str().unwrap();
        assert!(text.starts_with("20") && text.ends_with('Z'), "{text}");
    }
    for number in ["duration_ms", "queue_ms", "cpu_ms"] {
        assert!(result[number].is_u64(), "{number}");
    }
    assert_eq!(result["outcome"], "exited");
    assert_eq!(
        (&result["exit_code"], &result["signal"]),
        (&json!(3), &Value::Null)
    );
    let stream =
        |text: &str| json!({ "text": text, "bytes_total": 4, "bytes_kept": 4, "truncated": false });
    assert_eq!(result["stdout"], stream("out\n"));
    assert_eq!(result["stderr"], stream("err\n"));
    assert_eq!(result["drained"], "idle");
    assert_eq!(result["killed"].as_array().unwrap().len(), 1);
    assert_eq!(result["escaped"], json!([]));
    assert_eq!(result.get("trace_id"), None);
}

#[test]
fn each_outcome_has_its_word() {
    for (words, outcome, signal) in [
        (&["true"][..], "exited", Value::Null),
        (&["--shell", "kill -9 $$"], "signaled", json!("SIGKILL")),
        (
            &["--timeout", "50ms", "sleep", "1000"],
            "timed_out",
            json!("SIGTERM"),
        ),
        (
            &["--max-output", "1kB", "--on-limit", "kill", "yes"],
            "output_limit",
            json!("SIGKILL"),
        ),
        (&["no-such-program"], "spawn_failed", Value::Null),
    ] {
        let (_, result) = object(words);
        assert_eq!(result["outcome"], outcome, "{words:?}");
        assert_eq!(result["signal"], signal, "{words:?}");
    }
    let (_, silent) = object(&["--idle-timeout", "50ms", "sleep", "1000"]);
    assert_eq!(
        (&silent["outcome"], &silent["timeout"]),
        (&json!("timed_out"), &json!("idle"))
    );
    let (_, failed) = object(&["no-such-program"]);
    assert_eq!(
        failed["error"],
        "cannot start the command: cannot find `no-such-program` in the PATH"
    );
    assert_eq!(failed["pid"], Value::Null);
    let (_, junk) = object(&["--shell", "printf '\\377\\000'"]);
    assert_eq!(junk["stdout"]["base64"], "/wA=");
    assert_eq!(junk["stdout"].get("text"), None);
    let (_, long) = object(&["--max-output", "20B", "seq", "100"]);
    assert_eq!(
        long["stdout"],
        json!({
            "text": "1\n2\n3\n4\n5\n\n[... 272 bytes dropped ...]\n98\n99\n100\n",
            "bytes_total": 292, "bytes_kept": 20, "truncated": true,
        })
    );
}

#[test]
fn a_signal_ends_the_command_and_all_that_it_started() {
    let tree = "sleep 1000 & (sleep 1000; true) & echo $! >out/child; wait; sleep 1000";
    for way in [&[][..], &["--json"], &["--max-output", "1MiB"]] {
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
            let words = [way, &["--timeout", "0", "--shell", tree]].concat();
            let running = Running::start(&words);
            running.note("child");
            running.send(signal);
            assert_eq!(running.code(), Some(code), "{way:?}");
        }
    }
}

#[test]
fn one_that_kills_its_parent_ends_with_it() {
    for (line, code) in [
        ("kill $PPID; sleep 1000", 143),
        ("trap '' TERM; kill $PPID; while :; do sleep 0.1; done", 143),
    ] {
        let running = Running::start(&["--timeout", "0", "--shell", line]);
        assert_eq!(running.code(), Some(code), "{line}");
    }
}

#[test]
fn bytes_that_are_no_text_are_passed_in_and_out() {
    let place = Place::empty();
    let junk = OsStr::from_bytes(b"A=\xff\x80 \xc3(");
    let line = "printf %s \"$A\"; printf %s \"$1\" >&2";
    let mut command = place.command(&["exec", "-e"]);
    command.arg(junk).args(["sh", "-c", line, "sh"]).arg(junk);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, b"\xff\x80 \xc3(");
    assert_eq!(output.stderr, junk.as_bytes());
    assert_nothing_left(&place);
}

#[test]
fn more_than_the_kernel_takes_is_refused() {
    let place = Place::empty();
    let file = place.out("large.env");
    fs::write(&file, format!("LARGE={}\n", "x".repeat(200_000))).unwrap();
    let answer = exec_at(&place, &["--env-file", file.to_str().unwrap(), "true"]);
    assert_eq!(answer.code, Some(126), "{}", answer.stderr);
    assert!(
        answer.stderr.contains("the longest of 200007"),
        "{}",
        answer.stderr
    );
}

#[test]
fn a_second_signal_forces() {
    let deaf = "trap 'echo >out/asked' TERM; echo $$ >out/pid; while :; do sleep 1; done";
    let running = Running::start(&[
        "--set",
        "children.grace=1h",
        "--timeout",
        "0",
        "--shell",
        deaf,
    ]);
    let pid: u32 = running.note("pid").trim().parse().unwrap();
    running.send(Signal::TERM);
    running.note("asked");
    // One that comes sooner is taken for the same.
    passes(Duration::from_millis(400));
    running.send(Signal::TERM);
    assert_eq!(running.code(), Some(137));
    assert!(!is_alive(pid));
}

#[test]
fn who_stops_reading_ends_the_command() {
    for way in [&[][..], &["--idle-timeout", "1h"], &["--max-output", "1kB"]] {
        let words = [way, &["--timeout", "0", "yes"]].concat();
        let mut running = Running::start(&words);
        let mut stdout = running.child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 2]).unwrap();
        drop(stdout);
        assert_eq!(running.code(), Some(141), "{way:?}");
    }
}

#[test]
fn who_reads_nothing_does_not_hold_up_the_end() {
    for way in [
        &[][..],
        &["--idle-timeout", "1h"],
        &["--max-output", "1MiB"],
        &["--json"],
    ] {
        let words = [way, &["--timeout", "300ms", "yes"]].concat();
        assert_eq!(Running::start(&words).code(), Some(124), "{way:?}");
    }
    // What has ended in time waits for its reader, but not against a signal.
    let line = "yes | head -c 1000000; echo >out/done";
    let running = Running::start(&["--json", "--shell", line]);
    running.note("done");
    running.send(Signal::TERM);
    assert_eq!(running.code(), Some(143));
}

#[test]
fn a_slow_reader_gets_everything() {
    for way in [
        &[][..],
        &["--idle-timeout", "1h"],
        &["--max-output", "10MiB"],
        &["--json"],
    ] {
        let words = [
            way,
            &[
                "--timeout",
                "0",
                "--shell",
                "yes | head -c 3000000; echo end >out/done",
            ],
        ]
        .concat();
        let mut running = Running::start(&words);
        let mut stdout = running.child.stdout.take().unwrap();
        let mut read = Vec::new();
        if way == ["--json"] {
            running.note("done");
        }
        stdout.read_to_end(&mut read).unwrap();
        if way == ["--json"] {
            let result: Value = serde_json::from_slice(&read).unwrap();
            read = result["stdout"]["text"].as_str().unwrap().into();
        }
        assert_eq!(read.len(), 3_000_000, "{way:?}");
        assert_eq!(running.code(), Some(0), "{way:?}");
    }
}

#[test]
fn a_closed_stdout_is_no_stdout() {
    let place = Place::empty();
    let words = ["exec", "--", "sh", "-c", "echo x; echo y >&2; exit 4"];
    let output = place.command_after("exec >&-", &words).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(output.stderr, b"y\n");
    assert_nothing_left(&place);
}

/// The most memory that a process ever had, in KiB, as long as it is there.
fn peak_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    peak.trim().trim_end_matches(" kB").trim().parse().ok()
}

#[test]
fn whoever_writes_for_all_of_its_time_costs_the_bound_and_no_more() {
    const CAP_KIB: u64 = 1024;
    let peak = |shell: &str| {
        let cap = format!("{CAP_KIB}KiB");
        let words = [
            "--json",
            "--max-output",
            &cap,
            "--timeout",
            "1s",
            "--shell",
            shell,
        ];
        let mut running = Running::start(&words);
        let mut stdout = running.child.stdout.take().unwrap();
        let pid = running.child.id();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).unwrap();
            serde_json::from_str::<Value>(&text).unwrap()
        });
        let mut peak = 0;
        eventually("it ends", || {
            peak = peak.max(peak_kib(pid).unwrap_or(0));
            reader.is_finished().then_some(())
        });
        let result = reader.join().unwrap();
        assert_eq!(running.code(), Some(124));
        (peak, result["stdout"]["bytes_total"].as_u64().unwrap())
    };
    let (quiet, _) = peak("sleep 1000");
    let (loud, written) = peak("yes");
    assert!(written > 20 * CAP_KIB * 1024, "{written}");
    // It is kept, joined, made text and made an object.
    assert!(loud < quiet + 8 * CAP_KIB, "{quiet} {loud}");
}

#[test]
fn a_runtime_is_not_needed_nor_a_manifest_nor_a_home() {
    let place = Place::empty();
    let manifest = place.out("kimi-shell.yaml");
    fs::write(&manifest, "not a manifest: [").unwrap();
    let output = place
        .command(&["exec", "--", "/bin/sh", "-c", "echo fine"])
        .current_dir(manifest.parent().unwrap())
        .env_remove("HOME")
        .env_remove("PATH")
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"fine\n");
    assert_eq!(output.status.code(), Some(0));
}
