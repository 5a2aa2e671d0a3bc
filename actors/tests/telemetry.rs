//! What is noted of each operation, on a paused clock and a scripted operating system.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking where it went wrong"
)]

use std::sync::Arc;
use std::time::Duration;

use kimi_actors::policy::admission::Limits;
use kimi_actors::policy::exit::{Exit, StartFailure};
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::CommandSpec;
use kimi_actors::policy::telemetry::{Entry, Operation, Outcome, Subject, Telemetry};
use kimi_actors::testing::{FakeOs, Script};
use kimi_actors::{Child, Exec, Runtime, RuntimeHandle};

const SECOND: Duration = Duration::from_secs(1);

fn command() -> CommandSpec {
    CommandSpec::new("/bin/true", [""; 0])
}

async fn runtime(os: &FakeOs, limits: Limits) -> RuntimeHandle {
    let child = Child::command("a", command()).unwrap();
    let builder = Runtime::builder().os(Arc::new(os.clone())).child(child);
    let handle = builder.limits(limits).start().await.unwrap();
    handle.ready("a").await.unwrap();
    handle
}

/// The child, what was done to it and what came of it; nothing else was done.
async fn of_child(handle: &RuntimeHandle) -> Vec<(String, Operation, Outcome, Duration)> {
    let entries = handle.telemetry().await.unwrap();
    let shown = entries.into_iter().map(|entry| {
        let Subject::Child { child, .. } = entry.subject else {
            panic!("{entry:?} is about no child");
        };
        let name = handle.name_of(child).unwrap().to_string();
        (name, entry.operation, entry.outcome, entry.took.into())
    });
    shown.collect()
}

async fn last(handle: &RuntimeHandle) -> Entry {
    *handle.telemetry().await.unwrap().last().unwrap()
}

#[tokio::test(start_paused = true)]
async fn starts_restarts_and_stops_of_a_child_are_noted_in_order() {
    let os = FakeOs::default();
    os.script("a", Script::EndsAfter(11 * SECOND, Exit::Code(1)));
    let handle = runtime(&os, Limits::default()).await;
    os.script("a", Script::Obeys);
    tokio::time::sleep(12 * SECOND).await;
    handle.stop(&["a"]).await.unwrap();
    os.script("a", Script::CannotStart);
    handle.start(&["a"]).unwrap();
    let term = Exit::Signal {
        signal: Signal::TERM,
        core: false,
    };
    let noted = |operation, outcome| ("a".to_owned(), operation, outcome, Duration::ZERO);
    let expected = [
        noted(Operation::Start, Outcome::Done),
        noted(Operation::Restart, Outcome::Done),
        noted(Operation::Stop, Outcome::Ended(term)),
        noted(Operation::Start, Outcome::NotStarted(StartFailure::Other)),
    ];
    while of_child(&handle).await.len() < expected.len() {
        tokio::task::yield_now().await;
    }
    assert_eq!(of_child(&handle).await[..expected.len()], expected);
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_took_from_its_order_until_nothing_was_left() {
    let os = FakeOs::default();
    os.script("a", Script::IgnoresSignals);
    let handle = runtime(&os, Limits::default()).await;
    handle.stop(&["a"]).await.unwrap();
    let (_, operation, _, took) = of_child(&handle).await.pop().unwrap();
    assert_eq!((operation, took), (Operation::Stop, 5 * SECOND));
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_command_is_noted_once_with_how_long_it_waited_and_ran() {
    let os = FakeOs::default();
    let limits = Limits {
        max_concurrent: 1,
        queue: 1,
        ..Limits::default()
    };
    let handle = runtime(&os, limits).await;
    os.script("exec-0", Script::EndsAfter(3 * SECOND, Exit::Code(7)));
    os.script("exec-1", Script::Obeys);
    let exec = || Exec {
        timeout: Some(2 * SECOND),
        ..Exec::new(command())
    };
    let mut first = handle.begin_exec(Exec {
        timeout: None,
        ..exec()
    });
    let mut second = handle.begin_exec(exec());
    handle.exec(exec()).await.unwrap_err();
    assert_eq!(last(&handle).await.outcome, Outcome::Rejected);
    first.ended().await.unwrap();
    second.ended().await.unwrap();
    let entries = handle.telemetry().await.unwrap();
    let [.., first, second] = &entries[..] else {
        panic!("{entries:?}");
    };
    for (entry, outcome, waited, took) in [
        (
            first,
            Outcome::Ended(Exit::Code(7)),
            Duration::ZERO,
            3 * SECOND,
        ),
        (second, Outcome::TimedOut, 3 * SECOND, 2 * SECOND),
    ] {
        assert_eq!(entry.operation, Operation::Exec);
        assert_eq!(entry.outcome, outcome);
        assert_eq!(Duration::from(entry.waited), waited);
        assert_eq!(Duration::from(entry.took), took);
    }
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn no_more_is_kept_than_is_said() {
    let os = FakeOs::default();
    let handle = runtime(&os, Limits::default()).await;
    for number in 0..1100 {
        os.script(&format!("exec-{number}"), Script::Ends(Exit::Code(0)));
        handle.exec(Exec::new(command())).await.unwrap();
    }
    let entries = handle.telemetry().await.unwrap();
    assert_eq!(entries.len(), Telemetry::KEPT);
    assert!(entries.is_sorted_by_key(|entry| entry.at));
    handle.shutdown().await;
}
