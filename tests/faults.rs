//! What must hold although a part of the supervisor itself has failed, or the kernel holds a start for ever.
//!
//! The faults are injected into a supervisor in a process of its own: this program, started again in a role. A role tells
//! its events as the command line does, and at its end the code that the command line would end with.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of many kinds of events a question is about one"
)]
#![cfg(target_os = "linux")]

pub mod support;

use std::fs;
use std::io::Write;
use std::sync::mpsc::channel;
use std::time::Duration;

use kimi_actors::os::signals;
use kimi_actors::policy::event::{Fact, ShutdownReason, TreeEvent};
use kimi_actors::policy::exit::Exit;
use kimi_actors::policy::restart::Strategy;
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{ChildName, CommandSpec, Governor};
use kimi_actors::testing::Fault;
use kimi_actors::{
    Child, ForceExitPolicy, Runtime, RuntimeHandle, ShutdownTimeout, SignalOptions,
    Supervisor as Group,
};
use kimi_shell::exit_code;
use support::fact::{eventually, passes};
use support::hanging::Hanging;
use support::process;
use support::supervisor::{Ended, Place, ROLE, Supervisor, exited, running, stopping};

/// How long the shutdown of a role may take, in its environment.
const TIMEOUT: &str = "KIMI_TEST_TIMEOUT_MS";
/// A child that ends only when it is killed, with a grandchild in a group of its own that is no better. For bash: others
/// make no groups without a terminal.
const DEAF: &str = "trap '' TERM; set -m; (while :; do sleep 1000; done) & echo deaf; while :; do sleep 1000; done";

fn name(text: &str) -> ChildName {
    ChildName::new(text).unwrap()
}

fn say(value: &serde_json::Value) {
    let mut stdout = std::io::stdout().lock();
    // On a line of its own, whatever the harness has begun to say.
    writeln!(stdout, "\n{value}").unwrap();
    stdout.flush().unwrap();
}

fn tell(event: &TreeEvent) {
    let at_ms = u64::try_from(event.at.since_begin().as_millis()).unwrap();
    say(&serde_json::json!({ "type": "event", "at_ms": at_ms, "fact": event.fact }));
}

/// What the program does when it is started in a role; nothing in an ordinary run of the tests.
#[test]
fn in_a_role() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    signals::normalise();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let code = runtime.block_on(play(&role));
    say(&serde_json::json!({ "type": "code", "code": code }));
}

/// Supervises `top` and, in the group `inner`, `left` and `right`; all that `right` hears is the kill.
async fn play(role: &str) -> u8 {
    let child = |name: &str, line: &str| {
        let child = Child::command(name, CommandSpec::new("bash", ["-c", line])).unwrap();
        child
            .governor(Governor::NONE)
            .stop(Signal::TERM, Duration::from_millis(100))
    };
    let inner = Group::new("inner", Strategy::OneForAll)
        .unwrap()
        .child(child("left", "exec sleep 1000"))
        .child(child("right", DEAF));
    let timeout = std::env::var(TIMEOUT).unwrap().parse().unwrap();
    let handle = Runtime::builder()
        .child(child("top", "exec sleep 1000"))
        .supervisor(inner)
        .signals(SignalOptions::default())
        .shutdown_timeout(ShutdownTimeout::Set(Duration::from_millis(timeout)))
        .force_exit(ForceExitPolicy::ExitProcess)
        .watch(tell)
        .start()
        .await
        .unwrap();
    for child in ["top", "left", "right"] {
        handle.ready(child).await.unwrap();
    }
    // Its sender lives as long as this process.
    let (_gate, blocked) = channel();
    match role {
        "lost child" => handle.inject(Fault::PanicChild(name("top"))),
        "lost grandchild" => handle.inject(Fault::PanicChild(name("right"))),
        "lost supervisor" => handle.inject(Fault::PanicSupervisor(name("inner"))),
        "lost root" => handle.inject(Fault::PanicRoot),
        "lost timer" => handle.inject(Fault::PanicTimer),
        "lost signals" => handle.inject(Fault::PanicSignals),
        "blocked" => handle.inject(Fault::BlockRoot(blocked)),
        "blocked without a timer" => {
            handle.inject(Fault::PanicTimer);
            handle.inject(Fault::BlockRoot(blocked));
        }
        "sound" => {}
        _ => panic!("no role {role}"),
    }
    say(&serde_json::json!({ "type": "injected" }));
    end(&handle).await
}

async fn end(handle: &RuntimeHandle) -> u8 {
    exit_code::of_report(&handle.wait().await)
}

/// A role that has got as far as its fault, and may end within so long.
fn started(role: &str, timeout: Duration) -> Supervisor {
    let place = Place::empty();
    let mut command = place.role(role);
    command.env(TIMEOUT, timeout.as_millis().to_string());
    let supervisor = Supervisor::run(place, command);
    supervisor.object("injected");
    supervisor
}

/// The code that a role told, which has ended well itself.
fn told_code(ended: &Ended) -> i64 {
    assert_eq!(ended.code, 0, "{ended:#?}");
    let codes = ended.objects().filter(|object| object["type"] == "code");
    codes.last().unwrap()["code"].as_i64().unwrap()
}

const MINUTE: Duration = Duration::from_secs(60);

fn lost(ended: &Ended) -> Vec<&str> {
    ended.order(|fact| match fact {
        Fact::Exited {
            child,
            exit: Exit::Lost,
            ..
        } => Some(child.as_str()),
        _ => None,
    })
}

#[test]
fn a_tree_without_faults_ends_as_it_should() {
    let supervisor = started("sound", MINUTE);
    supervisor.send(Signal::TERM);
    let ended = supervisor.end();
    assert_eq!(told_code(&ended), 143);
    assert_eq!(lost(&ended), [""; 0]);
}

#[test]
fn the_loss_of_a_childs_actor_is_an_exit_like_any_other() {
    let supervisor = started("lost child", MINUTE);
    let first = supervisor.pid_of("top", 1);
    supervisor.pid_of("top", 2);
    assert_eq!(
        process::state_of(first),
        None,
        "it was gone before the next one came"
    );
    supervisor.send(Signal::TERM);
    let ended = supervisor.end();
    assert_eq!(told_code(&ended), 143);
    assert_eq!(lost(&ended), ["top"]);
    assert_eq!(
        ended
            .order(running)
            .iter()
            .filter(|child| **child != "top")
            .count(),
        2
    );
}

#[test]
fn the_loss_of_a_nested_childs_actor_restarts_its_group() {
    let supervisor = started("lost grandchild", MINUTE);
    supervisor.pid_of("right", 2);
    supervisor.pid_of("left", 2);
    supervisor.send(Signal::TERM);
    let ended = supervisor.end();
    assert_eq!(told_code(&ended), 143);
    assert_eq!(lost(&ended), ["right"]);
    assert_eq!(
        ended
            .order(running)
            .iter()
            .filter(|child| **child == "top")
            .count(),
        1
    );
}

#[test]
fn the_loss_of_a_supervisors_actor_ends_its_children_and_starts_it_again() {
    let supervisor = started("lost supervisor", MINUTE);
    let before = ["left", "right"].map(|child| supervisor.pid_of(child, 1));
    supervisor.pid_of("left", 2);
    supervisor.pid_of("right", 2);
    for pid in before {
        assert_eq!(process::state_of(pid), None);
    }
    supervisor.send(Signal::TERM);
    let ended = supervisor.end();
    assert_eq!(told_code(&ended), 143);
    assert_eq!(
        ended
            .order(running)
            .iter()
            .filter(|child| **child == "top")
            .count(),
        1
    );
}

#[test]
fn the_loss_of_the_root_ends_everything() {
    let ended = started("lost root", MINUTE).end();
    assert_eq!(told_code(&ended), 1);
}

#[test]
fn the_loss_of_the_timer_changes_no_shutdown() {
    let supervisor = started("lost timer", MINUTE);
    supervisor.send(Signal::INT);
    let ended = supervisor.end();
    assert_eq!(told_code(&ended), 130);
}

#[test]
fn the_loss_of_the_signal_actor_is_an_ordered_shutdown() {
    let ended = started("lost signals", MINUTE).end();
    assert_eq!(told_code(&ended), 1);
    assert_eq!(ended.order(stopping).len(), 3);
    let is_internal = |fact: &Fact| {
        matches!(
            fact,
            Fact::ShutdownStarted {
                reason: ShutdownReason::Internal,
                ..
            }
        )
    };
    assert!(ended.story.iter().any(|told| is_internal(&told.fact)));
}

#[test]
fn a_blocked_runtime_is_ended_at_the_deadline() {
    for role in ["blocked", "blocked without a timer"] {
        let supervisor = started(role, Duration::from_millis(500));
        supervisor.send(Signal::TERM);
        let ended = supervisor.end();
        assert_eq!(ended.code, 137, "{role}");
        assert_eq!(
            ended.order(stopping),
            [""; 0],
            "nobody was there to stop anything"
        );
    }
}

#[test]
fn force_works_although_the_runtime_is_blocked() {
    let mut supervisor = started("blocked", MINUTE);
    supervisor.send(Signal::TERM);
    // Less than 300 ms later it would be one of the same burst.
    passes(Duration::from_millis(400));
    assert!(supervisor.is_running());
    supervisor.send(Signal::TERM);
    assert_eq!(supervisor.end().code, 137);
}

#[test]
fn a_quit_works_although_the_runtime_is_blocked() {
    let supervisor = started("blocked", MINUTE);
    supervisor.send(Signal::QUIT);
    assert_eq!(supervisor.end().code, 131);
}

/// A tree of which one child cannot get beyond its start, and one can.
fn held_up(hanging: &Hanging, stuck: &str) -> Supervisor {
    let hanging = hanging.path().display();
    let stuck = stuck.replace("HANGING", &hanging.to_string());
    Place::new(&format!(
        r"
version: 1
settings:
  signals: {{ graceful_shutdown_timeout: 3s }}
  children: {{ validate_binary: false }}
services:
  {stuck}
  other:
    command: [sleep, 1000]
    restart: {{ max_restarts: 1000, backoff: {{ initial: 1ms, max: 1ms }} }}
"
    ))
    .start(&[])
}

fn others_are_served_and_all_ends(supervisor: Supervisor) {
    for nth in 1..=5 {
        supervisor.kill(supervisor.pid_of("other", nth));
    }
    supervisor.pid_of("other", 6);
    supervisor.send(Signal::TERM);
    let ended = supervisor.end();
    assert_eq!(ended.code, 143, "{ended:#?}");
    assert!(ended.order(running).iter().all(|child| *child == "other"));
}

#[test]
fn a_directory_that_hangs_holds_up_nobody_else() {
    let Some(hanging) = Hanging::new() else {
        return;
    };
    let stuck = r#"stuck: { command: [sleep, "1000"], cwd: HANGING/directory }"#;
    others_are_served_and_all_ends(held_up(&hanging, stuck));
}

#[test]
fn a_program_that_hangs_holds_up_nobody_else() {
    let Some(hanging) = Hanging::new() else {
        return;
    };
    let stuck = "stuck: { command: [HANGING/program] }";
    others_are_served_and_all_ends(held_up(&hanging, stuck));
}

#[test]
fn several_starts_that_hang_hold_up_nobody_else() {
    let Some(hanging) = Hanging::new() else {
        return;
    };
    let stuck: Vec<String> = (0..3)
        .map(|which| {
            format!(
                "in-{which}: {{ command: [sleep, \"1000\"], cwd: HANGING/directory }}
  of-{which}: {{ command: [HANGING/program] }}"
            )
        })
        .collect();
    others_are_served_and_all_ends(held_up(&hanging, &stuck.join("\n  ")));
}

/// The group and the session of a process.
fn group_and_session(pid: u32) -> Option<(u32, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(2);
    let group = fields.next()?.parse().ok()?;
    Some((group, fields.next()?.parse().ok()?))
}

#[test]
fn a_grandchild_in_another_group_goes_with_its_run() {
    let supervisor = Place::new(
        r#"
version: 1
services:
  parent:
    command:
      - bash
      - -c
      - |
        set -m
        (trap '' TERM; while :; do sleep 1000; done) &
        echo "$$!" > out/new && mv out/new "out/grandchild-$$KIMI_RUN_ID"
        wait
    restart: { backoff: { reset_after: 1ms } }
"#,
    )
    .start(&[]);
    let run = |nth: usize| {
        supervisor.pid_of("parent", nth);
        let story = supervisor.story();
        let runs = story.iter().filter_map(|told| match told.fact {
            Fact::Running { run, .. } => Some(run),
            _ => None,
        });
        runs.collect::<Vec<_>>()[nth - 1]
    };
    let grandchild = |nth: usize| -> u32 {
        let path = supervisor.place().out(&format!("grandchild-{}", run(nth)));
        eventually("it has a grandchild", || {
            fs::read_to_string(&path).ok()?.trim().parse().ok()
        })
    };
    let (first, parent) = (grandchild(1), supervisor.pid_of("parent", 1));
    assert_eq!(group_and_session(first), Some((first, parent)));
    // Its parent ends unasked, and so does it.
    supervisor.kill(parent);
    eventually("it is gone", || (!process::is_alive(first)).then_some(()));
    let second = grandchild(2);
    assert!(process::is_alive(second));
    // Its parent is stopped; before the supervisor ends it is gone.
    supervisor.send(Signal::TERM);
    let ended = supervisor.end_at_once();
    assert_eq!(ended.code, 143);
    assert!(!process::is_alive(second));
    assert_eq!(ended.order(exited), ["parent", "parent"]);
}
