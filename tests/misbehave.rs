//! Programs of every bad habit, as commands and as services: a result always comes, and nothing is left.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of many kinds of events a question is about one"
)]
#![cfg(target_os = "linux")]

pub mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use kimi_actors::policy::event::Fact;
use kimi_actors::policy::exit::Exit;
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::CommandSpec;
use kimi_actors::{Child, Runtime};
use serde_json::{Value, json};
use support::fact::eventually;
use support::library::{Library, alone};
use support::process;
use support::supervisor::{Place, Supervisor, running};

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

#[test]
fn five_hundred_that_die_at_once_are_all_reaped() {
    const MANY: usize = 500;
    let _alone = alone();
    let place = Place::empty();
    let tree = (0..MANY).fold(Runtime::builder(), |tree, nth| {
        let mut command = CommandSpec::new("sleep", ["1000"]);
        command
            .env
            .push((process::MARK.into(), place.mark_value().into()));
        tree.child(
            Child::command(&format!("child-{nth}"), command)
                .unwrap()
                .once(),
        )
    });
    let library = Library::start(tree);
    let pids = || -> BTreeSet<u32> {
        let story = library.story_from(0);
        let pids = story.iter().filter_map(|event| match event.fact {
            Fact::Running { pid, .. } => pid,
            _ => None,
        });
        pids.collect()
    };
    eventually("all run", || (pids().len() == MANY).then_some(()));
    let all = pids();
    for pid in &all {
        // The kernel shows the environment a moment after the program has begun.
        eventually("it is killed", || {
            process::kill(*pid, &place.mark()).then_some(())
        });
    }
    let killed = || {
        let story = library.story_from(0);
        let is_killed = |fact: &Fact| {
            matches!(
                fact,
                Fact::Exited {
                    exit: Exit::Signal {
                        signal: Signal::KILL,
                        ..
                    },
                    ..
                }
            )
        };
        story.iter().filter(|event| is_killed(&event.fact)).count()
    };
    eventually("each end is told", || (killed() == MANY).then_some(()));
    for pid in all {
        eventually("none is a zombie", || {
            process::state_of(pid).is_none().then_some(())
        });
    }
    library.shut_down();
}

#[test]
fn a_supervisor_whose_program_and_directories_are_deleted_goes_on() {
    let place = Place::new("version: 1\nservices: { one: { command: [sleep, \"1000\"], cwd: / } }");
    let copy = place.out("copy");
    fs::copy(env!("CARGO_BIN_EXE_kimi-shell"), &copy).unwrap();
    let line = format!("exec '{}' \"$@\"", copy.display());
    let command = place.command_after(&line, &["start", "-o", "ndjson"]);
    let supervisor = Supervisor::run(place, command);
    supervisor.pid_of("one", 1);
    fs::remove_file(copy).unwrap();
    let emptied = supervisor.place().out("../tmp");
    fs::remove_dir_all(&emptied).unwrap();
    supervisor.kill(supervisor.pid_of("one", 1));
    supervisor.pid_of("one", 2);
    fs::create_dir(emptied).unwrap();
    supervisor.send(Signal::TERM);
    assert_eq!(supervisor.end().code, 143);
}
