//! Bounds on the time of services and tasks: on a paused clock and a scripted operating system, and with real processes.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and looks only at what it is about"
)]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kimi_actors::os::Output;
use kimi_actors::os::clock::wall_time;
use kimi_actors::os::stdin::Stdin;
use kimi_actors::policy::event::{Bound, EndedBy, Fact, FailedBecause};
use kimi_actors::policy::restart::{Restart, Strategy};
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{CommandSpec, Governor};
use kimi_actors::policy::tree::{ChildStatus, State};
use kimi_actors::testing::{Asked, FakeOs, Script};
use kimi_actors::{Activity, Child, Exec, Runtime, RuntimeBuilder, RuntimeHandle, Supervisor};
use tokio::sync::broadcast::Receiver;
use tokio::time::Instant;

use support::Lines;

#[expect(
    unreachable_pub,
    dead_code,
    reason = "each test file uses its part of it"
)]
mod support;

const SECOND: Duration = Duration::from_secs(1);

fn child(name: &str) -> Child {
    Child::command(name, CommandSpec::new("/bin/true", [""; 0])).unwrap()
}

fn sh(name: &str, line: &str) -> Child {
    Child::command(name, CommandSpec::shell(line)).unwrap()
}

fn tree(os: &FakeOs) -> RuntimeBuilder {
    let lines = Output::Lines(Arc::new(Lines::default()));
    Runtime::builder().os(Arc::new(os.clone())).output(lines)
}

async fn status(handle: &RuntimeHandle, child: &str) -> ChildStatus {
    let all = handle.status().await.unwrap();
    let mut all = all.into_iter();
    all.find(|status| status.name.as_str() == child).unwrap()
}

/// Waits for a fact that is looked for.
async fn told<T>(
    events: &mut Receiver<kimi_actors::policy::event::TreeEvent>,
    look: impl Fn(&Fact) -> Option<T>,
) -> T {
    loop {
        if let Some(found) = look(&events.recv().await.unwrap().fact) {
            return found;
        }
    }
}

fn overran(fact: &Fact) -> Option<(Bound, Duration, bool)> {
    match fact {
        Fact::Overran {
            bound,
            limit,
            waits_for_input,
            ..
        } => Some((*bound, *limit, *waits_for_input)),
        _ => None,
    }
}

fn ended_by(fact: &Fact) -> Option<EndedBy> {
    match fact {
        Fact::Exited { by, .. } => Some(*by),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_takes_too_long_is_asked_and_killed_after_its_grace() {
    let os = FakeOs::default();
    os.script("a", Script::IgnoresSignals);
    let bounded = child("a")
        .once()
        .max_runtime(60 * SECOND)
        .stop(Signal::INT, 3 * SECOND);
    let begun = Instant::now();
    let handle = tree(&os).child(bounded).start_idle().await.unwrap();
    let mut events = handle.events();
    handle.start_all().unwrap();
    let told_of = told(&mut events, overran).await;
    assert_eq!(told_of, (Bound::MaxRuntime, 60 * SECOND, false));
    assert_eq!(begun.elapsed(), 60 * SECOND);
    assert_eq!(status(&handle, "a").await.state, State::Stopping);
    let by = told(&mut events, ended_by).await;
    assert_eq!(by, EndedBy::Bound(Bound::MaxRuntime));
    assert_eq!(begun.elapsed(), 63 * SECOND);
    let status = status(&handle, "a").await;
    assert_eq!(status.failed, Some(FailedBecause::NotRestarted));
    let name = || kimi_actors::policy::spec::ChildName::new("a").unwrap();
    let asked: Vec<Asked> = os.asked();
    let of = |asked: &Asked| matches!(asked, Asked::Signal(_, Signal::INT) | Asked::Kill(_));
    let asked: Vec<&Asked> = asked.iter().filter(|asked| of(asked)).collect();
    // Asked once, although both the run and the tree want it to stop.
    assert_eq!(
        asked,
        [&Asked::Signal(name(), Signal::INT), &Asked::Kill(name())]
    );
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_takes_too_long_restarts_by_its_governor_also_below_a_supervisor() {
    let os = FakeOs::default();
    let bounded = child("a").max_runtime(3600 * SECOND);
    let group = Supervisor::new("group", Strategy::OneForOne).unwrap();
    let handle = tree(&os)
        .supervisor(group.child(bounded))
        .start_idle()
        .await
        .unwrap();
    let mut events = handle.events();
    handle.start_all().unwrap();
    for unstable in 1..=3 {
        let (bound, ..) = told(&mut events, overran).await;
        assert_eq!(bound, Bound::MaxRuntime);
        let scheduled = told(&mut events, |fact| match fact {
            Fact::RestartScheduled { unstable, .. } => Some(*unstable),
            _ => None,
        });
        assert_eq!(scheduled.await, unstable);
    }
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn silence_counts_from_what_was_written_last() {
    let os = FakeOs::default();
    let begun = Instant::now();
    let handle = tree(&os)
        .child(child("a").restart(Restart::Never).idle_timeout(30 * SECOND))
        .start()
        .await
        .unwrap();
    let mut events = handle.events();
    handle.ready("a").await.unwrap();
    assert_eq!(handle.activity("a").await.unwrap().last_output_at, None);
    for _ in 0..4 {
        tokio::time::sleep(20 * SECOND).await;
        os.write("a");
        assert!(handle.activity("a").await.unwrap().last_output_at.is_some());
    }
    let told_of = told(&mut events, overran).await;
    assert_eq!(told_of, (Bound::IdleTimeout, 30 * SECOND, false));
    assert_eq!(begun.elapsed(), 110 * SECOND);
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_being_stopped_anyway_is_stopped_and_not_failed() {
    let os = FakeOs::default();
    os.script("a", Script::IgnoresSignals);
    let bounded = child("a").max_runtime(10 * SECOND);
    let handle = tree(&os)
        .child(bounded.stop(Signal::TERM, 20 * SECOND))
        .start()
        .await
        .unwrap();
    handle.ready("a").await.unwrap();
    tokio::time::sleep(9 * SECOND).await;
    let mut events = handle.events();
    handle.stop(&["a"]).await.unwrap();
    let status = status(&handle, "a").await;
    assert_eq!(status.state, State::Stopped);
    assert_eq!(status.ended_by, Some(EndedBy::Supervisor));
    while let Ok(event) = events.try_recv() {
        assert_eq!(overran(&event.fact), None);
    }
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn of_what_is_not_read_silence_is_not_counted() {
    let os = FakeOs::default();
    let handle = tree(&os)
        .child(child("a").idle_timeout(SECOND).output(Output::Inherit))
        .start()
        .await
        .unwrap();
    tokio::time::sleep(3600 * SECOND).await;
    assert_eq!(status(&handle, "a").await.runs, 1);
    handle.shutdown().await;
}

/// With real processes and the real clock.
async fn real(
    bounded: Child,
) -> (
    RuntimeHandle,
    Receiver<kimi_actors::policy::event::TreeEvent>,
) {
    let lines = Output::Lines(Arc::new(Lines::default()));
    let builder = Runtime::builder().child(bounded.output(lines));
    let handle = builder.start_idle().await.unwrap();
    let events = handle.events();
    handle.start_all().unwrap();
    (handle, events)
}

async fn end(handle: RuntimeHandle) {
    assert!(handle.shutdown().await.survivors.is_empty());
}

#[tokio::test]
async fn a_task_that_sleeps_for_ever_fails_when_its_time_is_over() {
    let task = sh("a", "sleep 1000 & sleep 1000").once();
    let (handle, mut events) = real(task.max_runtime(Duration::from_millis(100))).await;
    let (bound, ..) = told(&mut events, overran).await;
    assert_eq!(bound, Bound::MaxRuntime);
    let why = told(&mut events, |fact| match fact {
        Fact::Failed { why, .. } => Some(*why),
        _ => None,
    });
    assert_eq!(why.await, FailedBecause::NotRestarted);
    end(handle).await;
}

#[tokio::test]
async fn a_service_that_falls_silent_is_restarted_and_one_that_talks_is_not() {
    let silent = sh("a", "echo one; exec sleep 1000").governor(Governor::NONE);
    let (handle, mut events) = real(silent.idle_timeout(Duration::from_millis(100))).await;
    for _ in 0..2 {
        let (bound, _, waits) = told(&mut events, overran).await;
        assert_eq!((bound, waits), (Bound::IdleTimeout, false));
    }
    end(handle).await;
    // Far apart from the bound, so that a slow machine is not taken for silence.
    let talks = sh(
        "a",
        "i=0; while [ $i -lt 20 ]; do i=$((i+1)); echo $i; sleep 0.05; done",
    );
    let (handle, mut events) = real(talks.once().idle_timeout(20 * SECOND)).await;
    assert_eq!(told(&mut events, ended_by).await, EndedBy::Itself);
    end(handle).await;
}

#[tokio::test]
async fn who_asks_is_told_when_a_run_wrote_last_and_whether_it_waits_for_input() {
    let before = wall_time();
    let (handle, _events) = real(sh("a", "echo one; exec sleep 1000")).await;
    let activity = wait_for(
        async || handle.activity("a").await.unwrap(),
        |it| it.last_output_at.is_some(),
    );
    let activity = activity.await;
    assert!(activity.last_output_at >= Some(before));
    assert!(activity.last_output_at <= Some(wall_time()));
    assert_eq!(activity.run, status(&handle, "a").await.run);
    assert!(!activity.waits_for_input);

    // One-shot commands too.
    let (theirs, mut stdin) = std::io::pipe().unwrap();
    let mut reads = Exec::new(CommandSpec::new("cat", [""; 0]));
    reads.stdin = Stdin::descriptor(theirs).unwrap();
    let mut ticket = handle.begin_exec(reads);
    let activity = wait_for(async || ticket.activity().await, |it| it.waits_for_input);
    assert_eq!(activity.await.last_output_at, None::<SystemTime>);
    std::io::Write::write_all(&mut stdin, b"x").unwrap();
    let activity = wait_for(
        async || ticket.activity().await,
        |it| it.last_output_at.is_some(),
    );
    assert!(activity.await.run.is_some());
    drop(stdin);
    ticket.ended().await.unwrap();
    assert_eq!(ticket.activity().await, Activity::default());

    handle.stop(&["a"]).await.unwrap();
    assert_eq!(handle.activity("a").await.unwrap(), Activity::default());
    end(handle).await;
}

/// Asks until the answer is what is waited for.
async fn wait_for(ask: impl AsyncFn() -> Activity, is_it: impl Fn(&Activity) -> bool) -> Activity {
    let asked = async {
        loop {
            let activity = ask().await;
            if is_it(&activity) {
                return activity;
            }
        }
    };
    let answer = tokio::time::timeout(support::PATIENCE, asked).await;
    answer.expect("what is waited for comes")
}
