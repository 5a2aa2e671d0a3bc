//! `start` in the foreground, tried as somebody would who uses it: real processes, the real clock.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of many kinds of events a question is about one"
)]
#![cfg(target_os = "linux")]

pub mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use kimi_actors::policy::event::{
    Bound, EndedBy, Fact, FailedBecause, ShutdownReason, SupervisorEnd,
};
use kimi_actors::policy::exit::Exit;
use kimi_actors::policy::restart::Strategy;
use kimi_actors::policy::signal::Signal;
use support::fact::{eventually, settles};
use support::process::Footprint;
use support::supervisor::{Ended, Place, Supervisor, exited, failed, order, running, stopping};
use support::{outside, skip};

/// Three services, each of which depends on the one before it, and which end when they are asked to.
const CHAIN: &str = r"
version: 1
services:
  first: { command: [sleep, 1000] }
  second: { command: [sleep, 1000], depends_on: [first] }
  third: { command: [sleep, 1000], depends_on: [second] }
";

/// A service that ignores being asked to stop, for a minute.
const STUBBORN: &str = r"
version: 1
services:
  stubborn:
    shell: trap '' TERM; echo deaf; while :; do sleep 1000; done
    stop: { timeout: 1m }
";

/// Services that write all the time, and how far they are.
const BEATING: &str = r#"
version: 1
services:
  beating:
    shell: |
      echo "$$" > out/pid
      beat=0
      while :; do
        beat=$((beat + 1))
        echo "beat $beat"
        echo "$beat" > out/new && mv out/new out/beat
        sleep 0.01
      done
    restart: { backoff: { reset_after: 1ms } }
"#;

fn is_killed(exit: Exit) -> bool {
    matches!(
        exit,
        Exit::Signal {
            signal: Signal::KILL,
            ..
        }
    )
}

fn number_in(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn has_forced(ended: &Ended) -> bool {
    ended
        .story
        .iter()
        .any(|told| told.fact == Fact::ShutdownForced)
}

fn shutdowns(ended: &Ended) -> Vec<ShutdownReason> {
    let reason = |fact: &Fact| match fact {
        Fact::ShutdownStarted { reason, .. } => Some(*reason),
        _ => None,
    };
    ended
        .story
        .iter()
        .filter_map(|told| reason(&told.fact))
        .collect()
}

/// The interpreter itself: what is found under its name may be a script that starts it.
fn python() -> Option<String> {
    let asked = outside("python3")
        .args(["-c", "import http.server, sys; print(sys.executable)"])
        .output();
    let found = asked.ok().filter(|output| output.status.success());
    if found.is_none() {
        skip("there is no python3 to serve");
    }
    Some(String::from_utf8(found?.stdout).unwrap().trim().to_owned())
}

fn get(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_real_server_its_visitor_and_a_task_start_in_order_and_come_back() {
    let Some(python) = python() else { return };
    let supervisor = Place::new(&format!(
        r#"
version: 1
services:
  web:
    command: ["{python}", -u, -m, http.server, "0", --bind, 127.0.0.1]
    restart: {{ backoff: {{ reset_after: 1ms }} }}
  visitor: {{ shell: "echo waiting; exec sleep 1000", depends_on: [web] }}
  seed: {{ type: task, shell: echo seeded, depends_on: {{ visitor: {{ condition: started }} }} }}
"#
    ))
    .start(&["--all"]);
    let port = |of: &str| of.split(' ').next().unwrap().parse::<u16>().unwrap();
    let begins = "Serving HTTP on 127.0.0.1 port ";
    let served = port(&supervisor.line("web", begins));
    assert!(get(served).starts_with("HTTP/1.0 200"));
    supervisor.line("visitor", "waiting");
    supervisor.fact("the task is completed", |fact| {
        matches!(fact, Fact::Completed { child } if child.as_str() == "seed").then_some(())
    });
    // Killed after a run that was stable, it is back at once and serves again.
    supervisor.kill(supervisor.pid_of("web", 1));
    supervisor.pid_of("web", 2);
    let delay = supervisor.fact("a restart", |fact| match fact {
        Fact::RestartScheduled { child, delay, .. } if child.as_str() == "web" => Some(*delay),
        _ => None,
    });
    assert_eq!(delay, Duration::ZERO);
    supervisor.send(Signal::INT);
    let ended = supervisor.end();
    assert_eq!(ended.code, 130);
    assert_eq!(ended.order(running), ["web", "visitor", "seed", "web"]);
    assert!(is_killed(ended.exit_of("web", 1)));
    assert_eq!(ended.lines_of("seed"), ["seeded"]);
    let stops = ended.order(stopping);
    assert_eq!(stops, ["visitor", "web"]);
}

#[test]
fn a_crash_loop_is_delayed_longer_and_longer_and_then_given_up() {
    let supervisor = Place::new(
        r"
version: 1
services:
  crashing:
    shell: exit 3
    restart: { max_restarts: 3, backoff: { initial: 20ms, factor: 2, jitter: 0 } }
",
    )
    .start(&[]);
    let ended = supervisor.end();
    assert_eq!(ended.code, 1, "it ended by itself, with a failure");
    let delay = |fact: &Fact| match fact {
        Fact::RestartScheduled {
            delay, unstable, ..
        } => Some((delay.as_millis(), *unstable)),
        _ => None,
    };
    let delays: Vec<_> = ended
        .story
        .iter()
        .filter_map(|told| delay(&told.fact))
        .collect();
    assert_eq!(delays, [(20, 1), (40, 2), (80, 3)]);
    assert_eq!(ended.order(running).len(), 4);
    assert_eq!(ended.exit_of("crashing", 4), Exit::Code(3));
    let limit = |told: &support::supervisor::Told| {
        matches!(
            told.fact,
            Fact::Failed {
                why: FailedBecause::Limit,
                ..
            }
        )
    };
    assert!(ended.story.iter().any(limit));
    assert_eq!(shutdowns(&ended), [ShutdownReason::AllEnded]);
}

#[test]
fn who_is_given_up_is_named_with_a_sentence() {
    let place = Place::new(
        "version: 1\nservices: { crashing: { shell: exit 3, restart: { max_restarts: 0 } } }\n",
    );
    let command = place.command(&["start"]);
    let ended = Supervisor::run(place, command).end();
    assert_eq!(ended.code, 1);
    let sentence = ended
        .stderr
        .iter()
        .find(|line| line.starts_with("crashing: failed: "));
    assert!(
        sentence.is_some_and(|line| line.contains("exit 3")),
        "{:?}",
        ended.stderr
    );
}

/// A supervisor with three members; the test kills the second.
fn group(strategy: &str) -> Supervisor {
    let supervisor = Place::new(&format!(
        r"
version: 1
services:
  first: {{ command: [sleep, 1000] }}
  second: {{ command: [sleep, 1000], restart: {{ backoff: {{ initial: 1ms }} }} }}
  third: {{ command: [sleep, 1000] }}
supervisors:
  group: {{ strategy: {strategy}, children: [first, second, third] }}
"
    ))
    .start(&[]);
    supervisor.pid_of("third", 1);
    supervisor.kill(supervisor.pid_of("second", 1));
    supervisor
}

fn group_restart(fact: &Fact) -> Option<(String, Strategy, String)> {
    match fact {
        Fact::GroupRestart {
            supervisor,
            strategy,
            because_of,
            ..
        } => {
            let names = (
                supervisor.as_str().to_owned(),
                because_of.as_str().to_owned(),
            );
            Some((names.0, *strategy, names.1))
        }
        _ => None,
    }
}

#[test]
fn one_for_all_stops_all_in_reverse_and_starts_them_in_order() {
    let supervisor = group("one_for_all");
    supervisor.pid_of("third", 2);
    let told = supervisor.fact("the group restarts", group_restart);
    assert_eq!(
        told,
        ("group".to_owned(), Strategy::OneForAll, "second".to_owned())
    );
    let story = supervisor.story();
    assert_eq!(order(&story, exited), ["second", "third", "first"]);
    assert_eq!(
        order(&story, running),
        ["first", "second", "third", "first", "second", "third"]
    );
    supervisor.send(Signal::TERM);
    assert_eq!(supervisor.end().code, 143);
}

#[test]
fn rest_for_one_restarts_those_after_it() {
    let supervisor = group("rest_for_one");
    supervisor.pid_of("third", 2);
    let told = supervisor.fact("the group restarts", group_restart);
    assert_eq!(
        told,
        (
            "group".to_owned(),
            Strategy::RestForOne,
            "second".to_owned()
        )
    );
    let story = supervisor.story();
    assert_eq!(order(&story, exited), ["second", "third"]);
    assert_eq!(
        order(&story, running),
        ["first", "second", "third", "second", "third"]
    );
    supervisor.send(Signal::TERM);
    assert_eq!(supervisor.end().code, 143);
}

#[test]
fn one_for_one_restarts_it_alone() {
    let supervisor = group("one_for_one");
    supervisor.pid_of("second", 2);
    supervisor.send(Signal::TERM);
    let ended = supervisor.end();
    assert_eq!(ended.code, 143);
    assert_eq!(ended.order(running), ["first", "second", "third", "second"]);
}

#[test]
fn a_supervisor_that_escalates_ends_and_is_started_again_by_the_one_above() {
    let supervisor = Place::new(
        r"
version: 1
services:
  first: { command: [sleep, 1000] }
  second: { command: [sleep, 1000] }
supervisors:
  inner: { strategy: one_for_one, max_restarts: 0, on_limit: escalate, restart: { backoff: { initial: 1ms } }, children: [first, second] }
  outer: { strategy: one_for_one, children: [inner] }
",
    )
    .start(&[]);
    supervisor.pid_of("second", 1);
    supervisor.kill(supervisor.pid_of("first", 1));
    let ending = supervisor.fact("a supervisor ends", |fact| match fact {
        Fact::SupervisorEnding { supervisor, why } => Some((supervisor.as_str().to_owned(), *why)),
        _ => None,
    });
    assert_eq!(ending, ("inner".to_owned(), SupervisorEnd::Intensity));
    supervisor.pid_of("first", 2);
    supervisor.pid_of("second", 2);
    supervisor.send(Signal::TERM);
    let ended = supervisor.end();
    assert_eq!(ended.code, 143);
    let started = ended.order(|fact| match fact {
        Fact::SupervisorStarted { supervisor } => Some(supervisor.as_str()),
        _ => None,
    });
    assert_eq!(
        started.iter().filter(|name| **name == "inner").count(),
        2,
        "{started:?}"
    );
    assert_eq!(
        started.iter().filter(|name| **name == "outer").count(),
        1,
        "{started:?}"
    );
}

#[test]
fn escalation_beyond_the_root_ends_everything_with_1() {
    let ended = Place::new(
        r"
version: 1
services:
  steady: { command: [sleep, 1000] }
  crashing:
    shell: exit 1
    depends_on: [steady]
    restart: { max_restarts: 0, on_limit: escalate }
",
    )
    .start(&[])
    .end();
    assert_eq!(ended.code, 1);
    assert_eq!(shutdowns(&ended), [ShutdownReason::Limit]);
    assert_eq!(ended.order(stopping), ["steady"]);
}

#[test]
fn tasks_that_run_or_are_silent_for_too_long_fail_and_what_waits_for_them_does_not_start() {
    let manifest = "
version: 1
services:
  endless: { type: task, shell: 'trap : TERM; while :; do echo on; sleep 0.01; done', max_runtime: 300ms, stop: { timeout: 100ms } }
  silent: { type: task, command: [sleep, 1000], idle_timeout: 300ms }
  after: { command: [sleep, 1000], depends_on: [endless] }
";
    let ended = Place::new(manifest).start(&["--all"]).end();
    assert_eq!(ended.code, 1);
    assert!(is_killed(ended.exit_of("endless", 1)));
    let by = |fact: &Fact| match fact {
        Fact::Exited { child, by, .. } => Some((child.to_string(), *by)),
        _ => None,
    };
    let mut by: Vec<_> = ended.story.iter().filter_map(|it| by(&it.fact)).collect();
    by.sort_unstable_by_key(|(child, _)| child.clone());
    let bound = |child: &str, bound| (child.to_owned(), EndedBy::Bound(bound));
    let expected = [
        bound("endless", Bound::MaxRuntime),
        bound("silent", Bound::IdleTimeout),
    ];
    assert_eq!(by, expected);
}

#[test]
fn a_signal_stops_all_in_reverse_order_with_its_own_code() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let supervisor = Place::new(CHAIN).start(&["--all"]);
        supervisor.pid_of("third", 1);
        supervisor.send(signal);
        let ended = supervisor.end();
        assert_eq!(ended.code, code, "{signal}");
        assert_eq!(shutdowns(&ended), [ShutdownReason::Signal(signal)]);
        let steps = |fact: &Fact| match fact {
            Fact::Stopping { child, .. } => Some(format!("stop {child}")),
            Fact::Exited {
                child,
                by: EndedBy::Supervisor,
                ..
            } => Some(format!("end {child}")),
            _ => None,
        };
        let steps: Vec<_> = ended
            .story
            .iter()
            .filter_map(|told| steps(&told.fact))
            .collect();
        let wanted = [
            "stop third",
            "end third",
            "stop second",
            "end second",
            "stop first",
            "end first",
        ];
        assert_eq!(steps, wanted, "each wave is empty before the next is asked");
        assert!(!has_forced(&ended));
    }
}

#[test]
fn a_quit_kills_all_at_once() {
    let supervisor = Place::new(STUBBORN).start(&[]);
    supervisor.line("stubborn", "deaf");
    supervisor.send(Signal::QUIT);
    let ended = supervisor.end();
    assert_eq!(ended.code, 131);
}

#[test]
fn who_ignores_the_stop_signal_is_killed_after_its_grace() {
    let supervisor = Place::new(
        r"
version: 1
services:
  deaf:
    shell: trap '' TERM; echo deaf; while :; do sleep 1000; done
    stop: { timeout: 200ms }
",
    )
    .start(&[]);
    supervisor.line("deaf", "deaf");
    supervisor.send(Signal::TERM);
    let ended = supervisor.end();
    assert_eq!(ended.code, 143);
    assert!(is_killed(ended.exit_of("deaf", 1)));
    let at = |pick: fn(&Fact) -> Option<&str>| {
        ended
            .story
            .iter()
            .find(|told| pick(&told.fact).is_some())
            .unwrap()
            .at_ms
    };
    assert!(at(exited) - at(stopping) >= 199, "not before its grace");
}

#[test]
fn the_deadline_of_the_shutdown_cuts_a_grace_short() {
    let supervisor = Place::new(&format!(
        "{STUBBORN}settings: {{ signals: {{ graceful_shutdown_timeout: 2s }} }}\n"
    ))
    .start(&[]);
    supervisor.line("stubborn", "deaf");
    supervisor.send(Signal::TERM);
    let ended = supervisor.end();
    assert_eq!(
        ended.code, 143,
        "it was killed in time, and nothing had to be forced"
    );
    let grace = ended.story.iter().find_map(|told| match told.fact {
        Fact::Stopping { grace, .. } => Some(grace),
        _ => None,
    });
    assert!(grace.unwrap() <= Duration::from_millis(1750), "{grace:?}");
    assert!(is_killed(ended.exit_of("stubborn", 1)));
}

#[test]
fn who_is_waited_for_is_named_and_a_second_signal_forces() {
    let place = Place::new(STUBBORN);
    let command = place.command(&["start"]);
    let supervisor = Supervisor::run(place, command);
    let pid: u32 = supervisor.talk("it is ready", |line| {
        let pid = line
            .strip_prefix("stubborn: ready (pid ")?
            .strip_suffix(')')?;
        Some(pid.parse().unwrap())
    });
    eventually("it is deaf", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.contains("SigIgn:\t0000000000004000").then_some(())
    });
    supervisor.send(Signal::INT);
    // A second after the first, so the next one is none of the same burst.
    let waiting = format!("still waiting for stubborn (pid {pid}, ");
    supervisor.talk("it is waited for", |line| {
        line.starts_with(&waiting).then_some(())
    });
    supervisor.send(Signal::INT);
    assert_eq!(supervisor.end().code, 137);
}

#[test]
fn a_storm_of_signals_is_one_shutdown() {
    let supervisor = Place::new(
        r"
version: 1
services:
  slow:
    shell: |
      trap 'while ! [ -e out/enough ]; do sleep 0.01; done; exit 0' TERM
      echo ready
      while :; do sleep 0.01; done
    stop: { timeout: 1m }
",
    )
    .start(&[]);
    supervisor.line("slow", "ready");
    for _ in 0..200 {
        supervisor.send(Signal::TERM);
        support::fact::pause();
    }
    fs::write(supervisor.place().out("enough"), "").unwrap();
    let ended = supervisor.end();
    assert_eq!(ended.code, 143);
    assert_eq!(shutdowns(&ended), [ShutdownReason::Signal(Signal::TERM)]);
    assert!(!has_forced(&ended));
    assert_eq!(ended.exit_of("slow", 1), Exit::Code(0));
    assert_eq!(ended.order(stopping), ["slow"]);
}

#[test]
fn a_hangup_that_was_ignored_from_the_start_stays_ignored() {
    let place = Place::new(CHAIN);
    let command = place.command_after("trap '' HUP", &["start", "-o", "ndjson"]);
    let supervisor = Supervisor::run(place, command);
    let child = supervisor.pid_of("third", 1);
    let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap();
    supervisor.send(Signal::HUP);
    // What comes after it is heard; it itself was not.
    supervisor.send(Signal::TERM);
    let ended = supervisor.end();
    assert_eq!(ended.code, 143);
    assert_eq!(shutdowns(&ended), [ShutdownReason::Signal(Signal::TERM)]);
    assert!(status.contains("SigBlk:\t0000000000000000"), "{status}");
}

#[test]
fn a_closed_output_does_not_stop_the_tree() {
    let place = Place::new(BEATING);
    let command = place.command(&["start"]);
    let (supervisor, stdout) = Supervisor::run_unread(place, command);
    let beat = supervisor.place().out("beat");
    let pid = supervisor.place().out("pid");
    let before = eventually("it beats", || number_in(&beat));
    drop(stdout);
    eventually("it goes on", || {
        (number_in(&beat)? > before + 20).then_some(())
    });
    let first = number_in(&pid).unwrap();
    supervisor.kill(u32::try_from(first).unwrap());
    eventually("it is back", || (number_in(&pid)? != first).then_some(()));
    supervisor.send(Signal::TERM);
    assert_eq!(supervisor.end().code, 143);
}

#[test]
fn an_output_that_nobody_reads_stops_neither_the_tree_nor_its_shutdown() {
    let place = Place::new(&format!("{BEATING}  flooding: {{ command: [\"yes\"] }}\n"));
    let command = place.command(&["start"]);
    let (supervisor, stdout) = Supervisor::run_unread(place, command);
    let beat = supervisor.place().out("beat");
    eventually("the pipe fills", || {
        let waiting = rustix::io::ioctl_fionread(&stdout).unwrap();
        (waiting > 32 * 1024).then_some(())
    });
    let before = eventually("it beats", || number_in(&beat));
    eventually("it goes on", || {
        (number_in(&beat)? > before + 20).then_some(())
    });
    supervisor.send(Signal::TERM);
    assert_eq!(supervisor.end().code, 143);
}

#[test]
fn every_line_of_ndjson_is_an_object_and_the_events_are_without_a_gap() {
    let supervisor = Place::new(
        r#"
version: 1
services:
  talking: { shell: "echo out; echo err >&2; exec sleep 1000" }
"#,
    )
    .start(&[]);
    supervisor.line("talking", "out");
    supervisor.line("talking", "err");
    supervisor.send(Signal::TERM);
    let ended = supervisor.end();
    assert_eq!(ended.stderr, [""; 0], "all is on standard output");
    let objects: Vec<serde_json::Value> = ended
        .stdout
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(objects.iter().all(|object| object["schema_version"] == 1));
    let events = objects.iter().filter(|object| object["type"] == "event");
    let numbers: Vec<u64> = events.map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let kinds: Vec<&str> = objects
        .iter()
        .filter(|object| object["type"] == "event")
        .map(|event| match &event["fact"] {
            serde_json::Value::String(kind) => kind.as_str(),
            fact => fact.as_object().unwrap().keys().next().unwrap().as_str(),
        })
        .collect();
    let wanted = [
        "Starting",
        "Running",
        "Ready",
        "ShutdownStarted",
        "Stopping",
        "Exited",
        "Stopped",
        "ShutdownFinished",
    ];
    let told: Vec<&str> = kinds
        .into_iter()
        .filter(|kind| wanted.contains(kind))
        .collect();
    assert_eq!(told, wanted);
    let stream = |text: &str| {
        let line = objects
            .iter()
            .find(|object| object["text"] == text)
            .unwrap();
        line["stream"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        (stream("out").as_str(), stream("err").as_str()),
        ("stdout", "stderr")
    );
}

#[test]
fn a_name_brings_what_it_depends_on_and_nothing_else() {
    let supervisor =
        Place::new(&format!("{CHAIN}  other: {{ command: [sleep, 1000] }}\n")).start(&["second"]);
    supervisor.pid_of("second", 1);
    supervisor.send(Signal::TERM);
    let ended = supervisor.end();
    assert_eq!(ended.code, 143);
    let starting = ended.order(|fact| match fact {
        Fact::Starting { child, .. } => Some(child.as_str()),
        _ => None,
    });
    assert_eq!(starting, ["first", "second"]);
}

#[test]
fn a_missing_program_is_found_before_anything_starts() {
    let place = Place::new(
        r"
version: 1
services:
  good: { shell: echo > out/started }
  bad: { command: [no-such-program-anywhere] }
",
    );
    let command = place.command(&["start", "--all"]);
    let started = place.out("started");
    let supervisor = Supervisor::run(place, command);
    let named = supervisor.talk("it is named", |line| {
        line.contains("no-such-program-anywhere")
            .then(|| line.to_owned())
    });
    assert!(named.contains("bad"), "{named}");
    assert!(!started.exists());
    let ended = supervisor.end();
    assert_eq!(ended.code, 78);
    assert_eq!(ended.stdout, [""; 0]);
}

#[test]
fn an_unknown_name_is_a_usage_error() {
    let place = Place::new(CHAIN);
    let command = place.command(&["start", "frist"]);
    let ended = Supervisor::run(place, command).end();
    assert_eq!(ended.code, 2);
    assert!(
        ended.stderr.iter().any(|line| line.contains("first")),
        "{:?}",
        ended.stderr
    );
}

#[test]
fn a_failure_can_abort_everything() {
    let manifest = r"
version: 1
services:
  steady: { command: [sleep, 1000] }
  broken: { type: task, shell: exit 5, depends_on: [steady] }
";
    let ended = Place::new(manifest).start(&["--abort-on-failure"]).end();
    assert_eq!(ended.code, 1);
    assert_eq!(ended.order(failed), ["broken"]);
    assert_eq!(ended.order(stopping), ["steady"]);
    // Without it the rest goes on.
    let supervisor = Place::new(manifest).start(&[]);
    supervisor.fact("it failed", |fact| failed(fact).map(|_| ()));
    supervisor.send(Signal::TERM);
    assert_eq!(supervisor.end().code, 143);
}

#[test]
fn a_tree_that_ends_well_ends_with_0() {
    let ended = Place::new("version: 1\nservices: { once: { type: task, shell: echo done } }\n")
        .start(&[])
        .end();
    assert_eq!(ended.code, 0);
    assert_eq!(ended.lines_of("once"), ["done"]);
}

#[test]
fn the_built_in_demonstration_starts_and_stops() {
    let supervisor = Place::empty().start(&["--all"]);
    for child in ["prepare", "heartbeat", "worker", "patience"] {
        supervisor.pid_of(child, 1);
    }
    supervisor.line("heartbeat", "beat 1");
    supervisor.send(Signal::INT);
    let ended = supervisor.end();
    assert_eq!(ended.code, 130);
    assert_eq!(ended.order(exited)[0], "prepare");
}

#[test]
fn each_run_is_told_who_it_is() {
    let ended = Place::new(
        r#"
version: 1
services:
  once: { type: task, shell: echo "$KIMI_CHILD $KIMI_RUN_ID" }
"#,
    )
    .start(&[])
    .end();
    let run = ended.story.iter().find_map(|told| match told.fact {
        Fact::Running { run, .. } => Some(run),
        _ => None,
    });
    assert_eq!(ended.lines_of("once"), [format!("once {}", run.unwrap())]);
}

#[test]
fn two_hundred_restarts_leave_nothing_in_the_supervisor() {
    const WARM: usize = 20;
    let supervisor = Place::new(
        r"
version: 1
services:
  steady: { command: [sleep, 1000] }
  killed: { command: [sleep, 1000], restart: { max_restarts: 1000000, backoff: { initial: 1ms, max: 1ms } } }
",
    )
    .start(&[]);
    supervisor.pid_of("steady", 1);
    for nth in 1..=WARM {
        supervisor.kill(supervisor.pid_of("killed", nth));
    }
    supervisor.pid_of("killed", WARM + 1);
    let before = eventually("the last one is reaped", || {
        let now = Footprint::of(supervisor.runtime());
        (now.children == 2).then_some(now)
    });
    for nth in WARM + 1..=WARM + 200 {
        supervisor.kill(supervisor.pid_of("killed", nth));
    }
    supervisor.pid_of("killed", WARM + 201);
    let pid = supervisor.runtime();
    settles(
        &format!("it holds no more than {before:?}"),
        || Footprint::of(pid),
        |now| now.is_within(&before) && now.children == 2,
    );
    supervisor.send(Signal::TERM);
    assert_eq!(supervisor.end().code, 143);
}
