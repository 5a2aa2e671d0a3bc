//! A storm of one-shot commands delays no restart: the restart overtakes whatever waits.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of many kinds of events a question is about one"
)]
#![cfg(target_os = "linux")]

use std::sync::{Arc, Mutex};

use kimi_actors::policy::admission::Limits;
use kimi_actors::policy::event::Fact;
use kimi_actors::policy::spec::{CommandSpec, Governor};
use kimi_actors::{Child, Exec, ExecTicket, Runtime};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;

/// So many have a place, and so many more wait for one.
const PLACES: u32 = 100;
const WAITING: u32 = 200;
const RESTARTS: usize = 11;

/// What the root has told, counted where it is told.
#[derive(Default)]
struct Tally {
    /// Commands whose processes have begun.
    commands: usize,
    /// How many had when the service ended; none while it runs.
    at_the_end: Option<usize>,
}

/// A restart: the new process, and how many commands began between the end of the last one and its beginning.
struct Restarted {
    pid: u32,
    overtaken_by: usize,
}

fn tally(fact: &Fact, state: &mut Tally) -> Option<Restarted> {
    let is_service = |child: &kimi_actors::policy::spec::ChildName| child.as_str() == "service";
    match fact {
        Fact::Running { child, pid, .. } if is_service(child) => Some(Restarted {
            pid: (*pid)?,
            overtaken_by: state
                .at_the_end
                .take()
                .map_or(0, |then| state.commands - then),
        }),
        Fact::Exited { child, .. } if is_service(child) => {
            state.at_the_end = Some(state.commands);
            None
        }
        Fact::Running { .. } => {
            state.commands += 1;
            None
        }
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_overtakes_the_commands_that_wait() {
    let limits = Limits {
        max_concurrent: PLACES,
        queue: 2 * WAITING,
        ..Limits::default()
    };
    let service = Child::command("service", CommandSpec::new("sleep", ["1000"])).unwrap();
    let (told, mut restarts) = mpsc::unbounded_channel();
    let state = Arc::new(Mutex::new(Tally::default()));
    let handle = Runtime::builder()
        .child(service.governor(Governor::NONE))
        .limits(limits)
        .watch(move |event| {
            if let Some(restarted) = tally(&event.fact, &mut state.lock().unwrap()) {
                told.send(restarted).unwrap();
            }
        })
        .start()
        .await
        .unwrap();
    let mut pid = restarts.recv().await.unwrap().pid;
    let command = || Exec::new(CommandSpec::new("true", [""; 0]));
    let mut overtaken_by = Vec::new();
    for _ in 0..RESTARTS {
        // All of them were asked for before the service is killed.
        let commands = 0..PLACES + WAITING;
        let commands: Vec<ExecTicket> = commands.map(|_| handle.begin_exec(command())).collect();
        kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
        let restarted = restarts.recv().await.unwrap();
        pid = restarted.pid;
        overtaken_by.push(restarted.overtaken_by);
        for mut command in commands {
            command.ended().await.unwrap();
        }
    }
    overtaken_by.sort_unstable();
    // Those that were just being started when it ended; all that wait would be 300, all that have a place 100.
    let median = overtaken_by[RESTARTS / 2];
    assert!(median <= 30, "{overtaken_by:?}");
    assert!(handle.shutdown().await.survivors.is_empty());
}
