//! Programs of every bad habit, as commands and as services: a result always comes, and nothing is left.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]
#![cfg(target_os = "linux")]

pub mod support;

use std::fmt::Write as _;

use kimi_actors::policy::signal::Signal;
use serde_json::{Value, json};
use support::fact::eventually;
use support::process;
use support::supervisor::{Place, running};

/// What `exec` tells of a command of this program, and what of it is left.
struct Told {
    code: Option<i32>,
    result: Value,
    left: Vec<u32>,
}

fn exec(options: &[&str], mode: &[&str]) -> Told {
    let program = support::misbehave();
    let words = [
        &["exec", "--json"],
        options,
        &["--"],
        &[program.to_str().unwrap()],
        mode,
    ]
    .concat();
    let place = Place::empty();
    let output = place.command(&words).output().unwrap();
    let mark = place.mark();
    let left = process::with_environment(&mark);
    for pid in &left {
        process::kill(*pid, &mark);
    }
    eventually("what the test kills is gone", || {
        process::with_environment(&mark).is_empty().then_some(())
    });
    place.assert_tidy();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let result = serde_json::from_slice(&output.stdout);
    Told {
        code: output.status.code(),
        result: result.unwrap_or_else(|error| panic!("{mode:?}: {error}: {stderr}")),
        left,
    }
}

/// Each habit, with the code and the outcome that it comes to.
const HABITS: [(&[&str], i32, &str); 17] = [
    (&["ignore-term"], 124, "timed_out"),
    (&["stop-self"], 124, "timed_out"),
    (&["double-fork"], 0, "exited"),
    (&["hold-pipe", "silent"], 3, "exited"),
    (&["hold-pipe", "chatty"], 3, "exited"),
    (&["flood"], 124, "timed_out"),
    (&["longline", "50000000"], 0, "exited"),
    (&["junk"], 0, "exited"),
    (&["exit", "255"], 255, "exited"),
    (&["signal", "6"], 134, "signaled"),
    (&["alloc", "50000000"], 124, "timed_out"),
    (&["fds"], 124, "timed_out"),
    (&["fork-bomb", "500"], 124, "timed_out"),
    (&["slow-exit", "10"], 124, "timed_out"),
    (&["close-stdio"], 124, "timed_out"),
    (&["read-stdin"], 0, "exited"),
    (&["exit-while-writing"], 9, "exited"),
];

#[test]
fn whatever_a_command_does_its_result_comes_and_nothing_is_left() {
    let one = |(habit, code, outcome): (&[&str], i32, &str)| {
        let told = exec(&["--timeout", "1s", "--max-output", "1MiB"], habit);
        assert_eq!(told.code, Some(code), "{habit:?}: {}", told.result);
        assert_eq!(told.result["outcome"], outcome, "{habit:?}");
        assert_eq!(told.left, [0; 0], "{habit:?} leaves nothing");
        let kept = told.result["stdout"]["bytes_kept"].as_u64().unwrap();
        assert!(kept <= 1 << 20, "{habit:?} costs no more than the bound");
    };
    // Most of them are waited for.
    std::thread::scope(|scope| {
        for habit in HABITS {
            scope.spawn(move || one(habit));
        }
    });
}

#[test]
fn one_that_leaves_its_session_delays_no_result() {
    let told = exec(&["--timeout", "300ms"], &["setsid"]);
    assert_eq!(told.code, Some(124), "{}", told.result);
    // Whether it can be found depends on the containment; that is tried where containment is.
    assert!(told.left.len() <= 1, "{:?}", told.left);
}

#[test]
fn what_is_written_is_counted_to_the_byte() {
    let bound = ["--max-output", "10kB"];
    let told = exec(&bound, &["longline", "30000001"]);
    assert_eq!(told.result["stdout"]["bytes_total"], 30_000_001);
    assert_eq!(told.result["stdout"]["bytes_kept"], 10_000);
    let told = exec(&["--max-output", "1MiB"], &["junk"]);
    let junk = 2 * 256 * 256 + 16;
    assert_eq!(told.result["stdout"]["bytes_total"], junk);
    assert!(told.result["stdout"]["base64"].is_string(), "it is no text");
    let told = exec(&[], &["exec-self", "20"]);
    let pid = told.result["pid"].as_u64().unwrap();
    assert_eq!(
        told.result["stdout"]["text"],
        json!(format!("pid {pid}\n").repeat(21))
    );
    assert_eq!(told.code, Some(8));
}

/// Services that go on until they are stopped.
const SERVICES: [&[&str]; 10] = [
    &["ignore-term"],
    &["stop-self"],
    &["flood"],
    &["alloc", "20000000"],
    &["fds"],
    &["fork-bomb", "50"],
    &["slow-exit", "10"],
    &["close-stdio"],
    &["longline", "20000000"],
    &["double-fork"],
];

#[test]
fn whatever_services_do_all_is_stopped_in_time() {
    let program = support::misbehave();
    let mut manifest = "version: 1\nservices:\n".to_owned();
    for habit in SERVICES {
        let words = habit.join(", ");
        writeln!(
            manifest,
            "  {}:\n    command: [{}, {words}]\n    stop: {{ timeout: 300ms }}\n    restart: never",
            habit[0],
            program.display(),
        )
        .unwrap();
    }
    let supervisor = Place::new(&manifest).start(&[]);
    for habit in SERVICES {
        supervisor.pid_of(habit[0], 1);
    }
    supervisor.send(Signal::TERM);
    let ended = supervisor.end_at_once();
    assert_eq!(ended.code, 143, "{:#?}", ended.stderr);
    assert_eq!(ended.order(running).len(), SERVICES.len());
}
