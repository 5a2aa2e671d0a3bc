//! The actors on a paused clock and a scripted operating system: what is asked of it, and what observers are told.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and looks only at what it is about"
)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kimi_actors::os::check::Errand;
use kimi_actors::os::sign::Notice;
use kimi_actors::policy::admission::{Limits, Rejection};
use kimi_actors::policy::event::{Fact, FailedBecause, ShutdownReason};
use kimi_actors::policy::exit::Exit;
use kimi_actors::policy::probe::{Check, Probe, ProbeRules, Probes};
use kimi_actors::policy::restart::{Restart, Strategy};
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{
    ChildRules, CommandSpec, Condition, Dependency, Lifetime, NodeRules, OnLost, Readiness,
    TreeRules,
};
use kimi_actors::policy::tree::{Event as TreeInput, ShutdownMode, State};
use kimi_actors::testing::{Asked, Checked, FakeOs, Fault, Reply, Script};
use kimi_actors::{
    Child, Exec, ExecError, Runtime, RuntimeBuilder, RuntimeHandle, ShutdownTimeout, Supervisor,
};
use tokio::time::Instant;

fn child(name: &str) -> Child {
    Child::command(name, CommandSpec::new("/bin/true", [""; 0])).unwrap()
}

fn after(name: &str, on: &str) -> Child {
    child(name).depends_on(on, Condition::Ready).unwrap()
}

fn tree(os: &FakeOs) -> RuntimeBuilder {
    Runtime::builder().os(Arc::new(os.clone()))
}

fn name(text: &str) -> kimi_actors::policy::spec::ChildName {
    kimi_actors::policy::spec::ChildName::new(text).unwrap()
}

/// Waits until a fact that `is_it` accepts has been told.
async fn told(
    events: &mut tokio::sync::broadcast::Receiver<kimi_actors::policy::event::TreeEvent>,
    is_it: impl Fn(&Fact) -> bool,
) {
    loop {
        let event = events
            .recv()
            .await
            .expect("the tree tells of it before it ends");
        if is_it(&event.fact) {
            return;
        }
    }
}

async fn state(handle: &RuntimeHandle, child: &str) -> State {
    let all = handle.status().await.unwrap();
    all.into_iter()
        .find(|status| status.name.as_str() == child)
        .unwrap()
        .state
}

fn begun(os: &FakeOs) -> Vec<String> {
    let begun = |asked: Asked| match asked {
        Asked::Begin(child) => Some(child.to_string()),
        Asked::Signal(..) | Asked::Kill(_) | Asked::Abandon(_) => None,
    };
    os.asked().into_iter().filter_map(begun).collect()
}

fn stopped(os: &FakeOs) -> Vec<String> {
    let stopped = |asked: Asked| match asked {
        Asked::Signal(child, Signal::TERM) => Some(child.to_string()),
        Asked::Begin(_) | Asked::Signal(..) | Asked::Kill(_) | Asked::Abandon(_) => None,
    };
    os.asked().into_iter().filter_map(stopped).collect()
}

#[tokio::test(start_paused = true)]
async fn starts_follow_dependencies_and_stops_reverse_them() {
    let os = FakeOs::default();
    let handle = tree(&os)
        .child(after("web", "api"))
        .child(after("api", "db"))
        .child(child("db"))
        .start()
        .await
        .unwrap();
    handle.ready("web").await.unwrap();
    assert_eq!(begun(&os), ["db", "api", "web"]);
    let report = handle.shutdown().await;
    assert_eq!(stopped(&os), ["web", "api", "db"]);
    assert_eq!(report.reason, ShutdownReason::Asked);
    assert!(report.survivors.is_empty() && !report.forced);
}

#[tokio::test(start_paused = true)]
async fn a_stable_child_comes_back_at_once_and_a_crashing_one_after_longer_and_longer_delays() {
    let os = FakeOs::default();
    os.script(
        "stable",
        Script::EndsAfter(Duration::from_secs(11), Exit::Code(1)),
    );
    os.script("crashing", Script::Ends(Exit::Code(1)));
    let begin = Instant::now();
    let handle = tree(&os)
        .child(child("stable"))
        .child(child("crashing"))
        .start_idle()
        .await
        .unwrap();
    let mut events = handle.events();
    handle.start_all().unwrap();
    let mut delays = Vec::new();
    loop {
        match events.recv().await.unwrap().fact {
            Fact::RestartScheduled { child, delay, .. } if child.as_str() == "crashing" => {
                delays.push(delay.as_secs_f64());
            }
            Fact::RestartScheduled { delay, .. } => assert_eq!(delay, Duration::ZERO),
            Fact::Failed { child, why } => {
                assert_eq!((child.as_str(), why), ("crashing", FailedBecause::Limit));
                break;
            }
            _ => {}
        }
    }
    assert_eq!(delays.len(), 5, "{delays:?}");
    for (delay, nominal) in delays.iter().zip([0.5, 1.0, 2.0, 4.0, 8.0]) {
        assert!(
            (nominal * 0.9..=nominal * 1.1).contains(delay),
            "{delays:?}"
        );
    }
    assert!(begin.elapsed() < Duration::from_secs(60));
    assert_eq!(state(&handle, "crashing").await, State::Failed);
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_group_stops_in_reverse_and_starts_in_order() {
    let os = FakeOs::default();
    let group = |strategy| {
        let group = Supervisor::new("group", strategy).unwrap();
        ["a", "b", "c", "d"]
            .into_iter()
            .fold(group, |group, name| group.child(child(name)))
    };
    for (strategy, stops, starts) in [
        (Strategy::OneForOne, vec![], vec!["b"]),
        (
            Strategy::OneForAll,
            vec!["d", "c", "a"],
            vec!["a", "b", "c", "d"],
        ),
        (Strategy::RestForOne, vec!["d", "c"], vec!["b", "c", "d"]),
    ] {
        let os = {
            let _ = &os;
            FakeOs::default()
        };
        let handle = tree(&os).supervisor(group(strategy)).start().await.unwrap();
        handle.ready("d").await.unwrap();
        let mut events = handle.events();
        os.end("b", Exit::Code(1));
        let last = *starts.last().unwrap();
        told(
            &mut events,
            |fact| matches!(fact, Fact::Ready { child, .. } if child.as_str() == last),
        )
        .await;
        assert_eq!(stopped(&os), stops, "{strategy:?}");
        assert_eq!(begun(&os)[4..], starts, "{strategy:?}");
        handle.shutdown().await;
        assert_eq!(kimi_actors::os::Os::live(&os), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_ignores_its_signal_is_killed_after_its_grace() {
    let os = FakeOs::default();
    os.script("deaf", Script::IgnoresSignals);
    let handle = tree(&os)
        .child(child("deaf").stop(Signal::INT, Duration::from_secs(3)))
        .start()
        .await
        .unwrap();
    handle.ready("deaf").await.unwrap();
    let begin = Instant::now();
    handle.stop(&["deaf"]).await.unwrap();
    assert_eq!(begin.elapsed().as_secs(), 3);
    let asked = os.asked();
    let expected = [
        Asked::Signal(name("deaf"), Signal::INT),
        Asked::Signal(name("deaf"), Signal::CONT),
        Asked::Kill(name("deaf")),
    ];
    assert_eq!(asked[1..], expected);
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_shares_its_budget_among_the_waves_and_kills_before_its_end() {
    let os = FakeOs::default();
    for deaf in ["a", "b", "c"] {
        os.script(deaf, Script::IgnoresSignals);
    }
    let handle = tree(&os)
        .child(child("a"))
        .child(after("b", "a"))
        .child(after("c", "b"))
        .shutdown_timeout(ShutdownTimeout::Set(Duration::from_secs(10)))
        .start()
        .await
        .unwrap();
    handle.ready("c").await.unwrap();
    let begin = Instant::now();
    let report = handle.shutdown().await;
    // 10 s less 10 %, in three shares.
    assert_eq!(begin.elapsed().as_secs(), 9);
    assert!(!report.forced);
    assert_eq!(
        os.asked()
            .iter()
            .filter(|asked| matches!(asked, Asked::Kill(_)))
            .count(),
        3
    );
}

#[tokio::test(start_paused = true)]
async fn force_kills_everything_at_once() {
    let os = FakeOs::default();
    os.script("deaf", Script::IgnoresSignals);
    let handle = tree(&os)
        .child(child("deaf"))
        .child(after("web", "deaf"))
        .start()
        .await
        .unwrap();
    handle.ready("web").await.unwrap();
    let begin = Instant::now();
    handle.ask_shutdown(ShutdownMode::Graceful);
    handle.ask_shutdown(ShutdownMode::Forced);
    let report = handle.wait().await;
    assert!(report.forced);
    assert_eq!(begin.elapsed().as_secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_hangs_in_its_start_holds_up_nobody_but_those_who_wait_for_it() {
    let os = FakeOs::default();
    os.script("stuck", Script::HangsInStart);
    let handle = tree(&os)
        .child(child("stuck"))
        .child(child("free"))
        .child(after("waits", "stuck"))
        .start()
        .await
        .unwrap();
    handle.ready("free").await.unwrap();
    assert_eq!(state(&handle, "stuck").await, State::Starting);
    assert_eq!(state(&handle, "waits").await, State::Pending);
    let report = handle.shutdown().await;
    assert!(report.survivors.is_empty());
    assert_eq!(kimi_actors::os::Os::live(&os), 0);
}

#[tokio::test(start_paused = true)]
async fn what_an_actor_held_is_ended_and_begun_again_when_the_actor_is_lost() {
    let os = FakeOs::default();
    let group = Supervisor::new("group", Strategy::OneForAll)
        .unwrap()
        .child(child("a"))
        .child(child("b"));
    let handle = tree(&os)
        .supervisor(group)
        .child(child("alone"))
        .start()
        .await
        .unwrap();
    handle.ready("b").await.unwrap();
    handle.ready("alone").await.unwrap();
    for (fault, lost, back) in [
        (Fault::PanicChild(name("alone")), vec!["alone"], "alone"),
        (Fault::PanicChild(name("a")), vec!["a"], "b"),
        (Fault::PanicSupervisor(name("group")), vec!["a", "b"], "b"),
    ] {
        let before = os.asked().len();
        let mut events = handle.events();
        handle.inject(fault);
        told(
            &mut events,
            |fact| matches!(fact, Fact::Ready { child, .. } if child.as_str() == back),
        )
        .await;
        let abandoned: Vec<Asked> = lost.iter().map(|lost| Asked::Abandon(name(lost))).collect();
        let asked = os.asked()[before..].to_vec();
        assert!(
            abandoned.iter().all(|abandon| asked.contains(abandon)),
            "{asked:?}"
        );
    }
    assert_eq!(kimi_actors::os::Os::live(&os), 3);
    handle.shutdown().await;
    assert_eq!(kimi_actors::os::Os::live(&os), 0);
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_the_root_ends_everything() {
    let os = FakeOs::default();
    os.script("deaf", Script::IgnoresSignals);
    let group = Supervisor::new("group", Strategy::OneForAll)
        .unwrap()
        .child(child("a"));
    let handle = tree(&os)
        .supervisor(group)
        .child(child("deaf"))
        .start()
        .await
        .unwrap();
    handle.ready("a").await.unwrap();
    handle.inject(Fault::PanicRoot);
    let report = handle.wait().await;
    assert_eq!(report.reason, ShutdownReason::Internal);
    assert_eq!(kimi_actors::os::Os::live(&os), 0);
}

#[tokio::test(start_paused = true)]
async fn a_tree_without_its_timer_still_shuts_down() {
    let os = FakeOs::default();
    let handle = tree(&os).child(child("a")).start().await.unwrap();
    handle.inject(Fault::PanicTimer);
    handle.ready("a").await.unwrap();
    assert_eq!(handle.shutdown().await.reason, ShutdownReason::Asked);
}

#[tokio::test(start_paused = true)]
async fn without_its_timer_too_a_cleanup_handler_cannot_hold_up_the_end() {
    let os = FakeOs::default();
    let handle = tree(&os)
        .child(child("a"))
        .shutdown_timeout(ShutdownTimeout::Set(Duration::from_secs(600)))
        .start()
        .await
        .unwrap();
    handle.inject(Fault::PanicTimer);
    handle.ready("a").await.unwrap();
    handle.on_shutdown("hangs", std::future::pending);
    handle.on_shutdown("never comes to it", || async {});
    assert_eq!(handle.shutdown().await.cleanups_left, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_answered_when_what_ran_is_over_although_it_is_started_again() {
    let os = FakeOs::default();
    os.script("a", Script::IgnoresSignals);
    let handle = tree(&os).child(child("a")).start().await.unwrap();
    handle.ready("a").await.unwrap();
    let stop = {
        let handle = handle.clone();
        tokio::spawn(async move { handle.stop(&["a"]).await })
    };
    while state(&handle, "a").await != State::Stopping {
        tokio::task::yield_now().await;
    }
    handle.start(&["a"]).unwrap();
    assert_eq!(state(&handle, "a").await, State::Stopping);
    os.end("a", Exit::Code(0));
    stop.await.unwrap().unwrap();
    handle.ready("a").await.unwrap();
    assert_eq!(begun(&os), ["a", "a"]);
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_tree_ends_with_its_children_and_names_those_that_failed() {
    let os = FakeOs::default();
    os.script(
        "job",
        Script::EndsAfter(Duration::from_secs(1), Exit::Code(0)),
    );
    os.script("broken", Script::Ends(Exit::Code(3)));
    let handle = tree(&os)
        .child(child("job").once())
        .child(child("broken").once())
        .child(
            child("blocked")
                .depends_on("broken", Condition::Succeeded)
                .unwrap(),
        )
        .lifetime(Lifetime::UntilAllEnded)
        .start()
        .await
        .unwrap();
    let report = handle.wait().await;
    assert_eq!(report.reason, ShutdownReason::AllEnded);
    assert_eq!(report.failed, [name("broken"), name("blocked")]);
}

#[tokio::test(start_paused = true)]
async fn async_tasks_are_children_like_any_other() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let flaky = Child::task("flaky", move |context| {
        let run = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            match run {
                0 => Err("the first run fails".into()),
                1 => panic!("the second run panics"),
                _ => {
                    context.stopped().await;
                    Ok(())
                }
            }
        }
    });
    let stubborn = Child::task("stubborn", |_| std::future::pending());
    let handle = Runtime::builder()
        .os(Arc::new(FakeOs::default()))
        .child(flaky.unwrap().restart(Restart::OnFailure))
        .child(stubborn.unwrap().stop(Signal::TERM, Duration::from_secs(1)))
        .start_idle()
        .await
        .unwrap();
    let mut events = handle.events();
    handle.start_all().unwrap();
    let mut exits = Vec::new();
    while exits.len() < 2 {
        if let Fact::Exited { exit, .. } = events.recv().await.unwrap().fact {
            exits.push(exit);
        }
    }
    assert_eq!(exits, [Exit::Code(1), Exit::Code(101)]);
    told(
        &mut events,
        |fact| matches!(fact, Fact::Ready { child, .. } if child.as_str() == "flaky"),
    )
    .await;
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    handle.shutdown().await;
    let mut last = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let Fact::Exited { child, exit, .. } = event.fact {
            last.push((child.to_string(), exit));
        }
    }
    last.sort_by(|a, b| a.0.cmp(&b.0));
    let killed = Exit::Signal {
        signal: Signal::KILL,
        core: false,
    };
    assert_eq!(
        last,
        [
            ("flaky".to_owned(), Exit::Code(0)),
            ("stubborn".to_owned(), killed)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn cleanup_handlers_run_in_order_after_everything_is_down_and_within_the_deadline() {
    let os = FakeOs::default();
    let handle = tree(&os)
        .child(child("a"))
        .shutdown_timeout(ShutdownTimeout::Set(Duration::from_secs(600)))
        .start()
        .await
        .unwrap();
    handle.ready("a").await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    for label in ["first", "second", "third"] {
        let (order, os) = (Arc::clone(&order), os.clone());
        handle.on_shutdown(label, move || async move {
            assert_eq!(kimi_actors::os::Os::live(&os), 0);
            order.lock().unwrap().push(label);
            assert_ne!(
                label, "second",
                "a panic in one handler keeps no other from running"
            );
        });
    }
    assert_eq!(handle.cleanup_count(), 3);
    let report = handle.shutdown().await;
    assert_eq!(*order.lock().unwrap(), ["first", "second", "third"]);
    assert_eq!(report.cleanups_left, 0);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_hour_brings_no_event() {
    let os = FakeOs::default();
    let handle = tree(&os)
        .child(child("a"))
        .child(child("b"))
        .start()
        .await
        .unwrap();
    handle.ready("a").await.unwrap();
    handle.ready("b").await.unwrap();
    let mut events = handle.events();
    let asked = os.asked().len();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(events.try_recv().is_err());
    assert_eq!(os.asked().len(), asked);
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_starts_stops_and_restarts_along_the_dependencies() {
    let os = FakeOs::default();
    let handle = tree(&os)
        .child(child("db"))
        .child(after("api", "db"))
        .child(child("other"))
        .start_idle()
        .await
        .unwrap();
    handle.start(&["api"]).unwrap();
    handle.ready("api").await.unwrap();
    assert_eq!(begun(&os), ["db", "api"]);
    handle.stop(&["db"]).await.unwrap();
    assert_eq!(stopped(&os), ["api", "db"]);
    assert_eq!(state(&handle, "api").await, State::Stopped);
    handle.start(&["db"]).unwrap();
    handle.ready("db").await.unwrap();
    assert_eq!(begun(&os), ["db", "api", "db"]);
    let mut events = handle.events();
    handle.restart(&["db"]).unwrap();
    told(
        &mut events,
        |fact| matches!(fact, Fact::Ready { child, .. } if child.as_str() == "db"),
    )
    .await;
    assert_eq!(begun(&os).len(), 4);
    assert!(handle.start(&["nobody"]).is_err());
    handle.shutdown().await;
    assert!(handle.start(&["db"]).is_err());
}

#[tokio::test(start_paused = true)]
async fn one_shot_commands_keep_to_their_number_and_are_stopped_when_nobody_waits_for_them() {
    let os = FakeOs::default();
    let limits = Limits {
        max_concurrent: 1,
        queue: 1,
        queue_timeout: Duration::from_secs(30),
    };
    let handle = tree(&os).limits(limits).start().await.unwrap();
    let run = || {
        let handle = handle.clone();
        async move {
            let command = CommandSpec::new("/bin/true", [""; 0]);
            handle.exec(Exec::new(command)).await
        }
    };
    let first = tokio::spawn(run());
    let mut events = handle.events();
    told(&mut events, |fact| {
        matches!(fact, Fact::Ready { .. } | Fact::Running { .. })
    })
    .await;
    let second = tokio::spawn(run());
    tokio::task::yield_now().await;
    assert!(matches!(
        run().await,
        Err(ExecError::Rejected(Rejection::QueueFull))
    ));
    first.abort();
    told(&mut events, |fact| matches!(fact, Fact::Exited { .. })).await;
    told(&mut events, |fact| matches!(fact, Fact::Running { .. })).await;
    assert_eq!(stopped(&os), ["exec-0"]);
    second.abort();
    told(&mut events, |fact| matches!(fact, Fact::Exited { .. })).await;
    assert_eq!(kimi_actors::os::Os::live(&os), 0);
    handle.shutdown().await;
    assert!(matches!(run().await, Err(ExecError::Ended)));
}

fn probe(rules: ProbeRules) -> Probe {
    // The fake answers as it is told to, whatever is asked.
    let check = Check::Tcp {
        host: "localhost".to_owned(),
        port: 1,
    };
    Probe { check, rules }
}

fn probed(name: &str, rules: ProbeRules) -> Child {
    child(name).readiness(probe(rules))
}

const SECOND: Duration = Duration::from_secs(1);
const READINESS: Errand = Errand::Readiness;
const LIVENESS: Errand = Errand::Liveness;

/// When the checks began, in milliseconds from `begin`, and how long they took.
fn times(os: &FakeOs, child: &str, errand: Errand, begin: Instant) -> Vec<(u128, u128)> {
    let ms = |from: Instant, to: Instant| (to - from).as_millis();
    let time = |check: Checked| (ms(begin, check.begun), ms(check.begun, check.over.unwrap()));
    os.checks(child, errand).into_iter().map(time).collect()
}

#[tokio::test(start_paused = true)]
async fn checks_follow_one_another_by_the_interval_and_none_overlaps_the_next() {
    let os = FakeOs::default();
    os.answer(
        "db",
        READINESS,
        [
            Reply::Fails,
            Reply::Hangs,
            Reply::PassesAfter(SECOND / 4),
            Reply::Passes,
        ],
    );
    let begin = Instant::now();
    let handle = tree(&os)
        .child(probed(
            "db",
            ProbeRules {
                initial_delay: 3 * SECOND,
                interval: SECOND / 2,
                timeout: SECOND,
                success_threshold: 2,
                ..ProbeRules::default()
            },
        ))
        .start()
        .await
        .unwrap();
    handle.ready("db").await.unwrap();
    let expected = [(3000, 0), (3500, 1000), (5000, 250), (5750, 0)];
    assert_eq!(times(&os, "db", READINESS, begin), expected);
    assert_eq!(begin.elapsed().as_millis(), 5750);
    // Nobody would act on the loss of its readiness, so it is not probed on.
    tokio::time::sleep(3600 * SECOND).await;
    assert_eq!(os.checks("db", READINESS).len(), expected.len());
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_dependents_loses_no_time_between_one_and_the_next() {
    let os = FakeOs::default();
    let names: Vec<String> = (0..10).map(|number| format!("link{number}")).collect();
    let mut builder = tree(&os);
    for (at, name) in names.iter().enumerate() {
        os.answer(name, READINESS, [Reply::PassesAfter(SECOND / 10)]);
        let link = probed(name, ProbeRules::default());
        builder = builder.child(match at.checked_sub(1) {
            Some(before) => link.depends_on(&names[before], Condition::Ready).unwrap(),
            None => link,
        });
    }
    let begin = Instant::now();
    let handle = builder.start().await.unwrap();
    handle.ready("link9").await.unwrap();
    assert_eq!(begin.elapsed(), SECOND);
    assert_eq!(begun(&os), names);
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_readiness_that_somebody_acts_on_is_probed_on_and_its_last_failure_is_known() {
    let os = FakeOs::default();
    let rules = TreeRules::new(vec![
        NodeRules::Child(ChildRules {
            readiness: Readiness::Reported,
            ..ChildRules::service(name("db"))
        }),
        NodeRules::Child(ChildRules {
            depends_on: vec![Dependency {
                on_lost: OnLost::Stop,
                ..Dependency::on(name("db"))
            }],
            ..ChildRules::service(name("web"))
        }),
    ]);
    let command = || CommandSpec::new("/bin/true", [""; 0]);
    let inputs: Arc<Mutex<Vec<TreeInput>>> = Arc::default();
    let recorded = Arc::clone(&inputs);
    os.answer("db", READINESS, [Reply::Passes, Reply::Fails]);
    let handle =
        RuntimeBuilder::from_rules(rules, [(name("db"), command()), (name("web"), command())])
            .os(Arc::new(os.clone()))
            .probes([(
                name("db"),
                Probes {
                    readiness: Some(probe(ProbeRules::default())),
                    liveness: None,
                },
            )])
            .record(move |input| recorded.lock().unwrap().push(input.event.clone()))
            .start()
            .await
            .unwrap();
    handle.ready("web").await.unwrap();
    tokio::time::sleep(10 * SECOND).await;
    let unready = |input: &TreeInput| matches!(input, TreeInput::Unready { .. });
    assert_eq!(
        inputs
            .lock()
            .unwrap()
            .iter()
            .filter(|input| unready(input))
            .count(),
        1
    );
    let status = handle.probe_status("db").await.unwrap();
    assert_eq!(status.readiness_failure.as_deref(), Some("status 503"));
    assert_eq!(status.liveness_failure, None);
    os.answer("db", READINESS, [Reply::Passes]);
    tokio::time::sleep(2 * SECOND).await;
    let status = handle.probe_status("db").await.unwrap();
    assert_eq!(status.readiness_failure, None);
    let ready = |input: &TreeInput| matches!(input, TreeInput::Ready { .. });
    assert_eq!(
        inputs
            .lock()
            .unwrap()
            .iter()
            .filter(|input| ready(input))
            .count(),
        2
    );
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn liveness_is_asked_once_the_run_is_ready_and_says_once_that_it_is_lost() {
    let os = FakeOs::default();
    os.answer("db", READINESS, [Reply::PassesFrom(5 * SECOND)]);
    let flaps = [
        Reply::Passes,
        Reply::Fails,
        Reply::Fails,
        Reply::Passes,
        Reply::Hangs,
    ];
    os.answer("db", LIVENESS, flaps);
    let verdicts: Arc<Mutex<Vec<TreeInput>>> = Arc::default();
    let recorded = Arc::clone(&verdicts);
    let begin = Instant::now();
    let handle = tree(&os)
        .child(probed("db", ProbeRules::default()).liveness(probe(ProbeRules::default())))
        .record(move |input| {
            if matches!(input.event, TreeInput::Unhealthy { .. }) {
                recorded.lock().unwrap().push(input.event.clone());
            }
        })
        .start()
        .await
        .unwrap();
    handle.ready("db").await.unwrap();
    assert_eq!(begin.elapsed(), 5 * SECOND);
    // Four answers a second apart, then three that take a second and have another between them.
    let last = begin + Duration::from_secs(5 + 4 + 5);
    tokio::time::sleep_until(last - SECOND / 10).await;
    assert_eq!(verdicts.lock().unwrap().len(), 0);
    tokio::time::sleep_until(last + SECOND / 10).await;
    assert_eq!(verdicts.lock().unwrap().len(), 1);
    let status = handle.probe_status("db").await.unwrap();
    assert_eq!(
        status.liveness_failure.as_deref(),
        Some("timed out after 1s")
    );
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn with_its_run_a_probe_ends_and_the_next_run_has_its_own() {
    let os = FakeOs::default();
    os.answer("db", READINESS, [Reply::Hangs]);
    let rules = ProbeRules {
        timeout: 600 * SECOND,
        ..ProbeRules::default()
    };
    let handle = tree(&os).child(probed("db", rules)).start().await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(os.checks("db", READINESS)[0].over, None);
    handle.stop(&["db"]).await.unwrap();
    let over = os.checks("db", READINESS)[0].over;
    assert_eq!(over, Some(Instant::now()));
    handle.start(&["db"]).unwrap();
    tokio::time::sleep(SECOND).await;
    os.end("db", Exit::Code(1));
    tokio::time::sleep(20 * SECOND).await;
    let checks = os.checks("db", READINESS);
    assert_eq!(checks.len(), 3);
    assert!(checks[1].over.is_some() && checks[2].over.is_none());
    assert!(handle.shutdown().await.survivors.is_empty());
    assert!(os.checks("db", READINESS)[2].over.is_some());
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_a_probe_is_made_good_wherever_its_child_stands() {
    let os = FakeOs::default();
    let nested = Supervisor::new("group", Strategy::OneForOne).unwrap();
    os.answer("inner", READINESS, [Reply::Hangs, Reply::Passes]);
    os.answer("outer", LIVENESS, [Reply::Hangs, Reply::Passes]);
    let patient = ProbeRules {
        timeout: 600 * SECOND,
        ..ProbeRules::default()
    };
    let handle = tree(&os)
        .supervisor(nested.child(probed("inner", patient)))
        .child(child("outer").liveness(probe(patient)))
        .start()
        .await
        .unwrap();
    handle.ready("outer").await.unwrap();
    for (child, errand) in [("inner", READINESS), ("outer", LIVENESS)] {
        handle.inject(Fault::PanicProbe(name(child)));
        tokio::time::sleep(SECOND * 3 / 2).await;
        let checks = os.checks(child, errand);
        assert!(checks.len() >= 2 && checks[0].over.is_some(), "{checks:?}");
    }
    handle.ready("inner").await.unwrap();
    assert_eq!(begun(&os).len(), 2, "no child was restarted");
    assert!(!handle.shutdown().await.forced);
}

#[tokio::test(start_paused = true)]
async fn what_a_run_says_of_itself_is_heard_without_any_check() {
    let os = FakeOs::default();
    let told = |check| Probe::new(check);
    let handle = tree(&os)
        .child(child("db").readiness(told(Check::SdNotify)))
        .child(after("web", "db"))
        .start()
        .await
        .unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(begun(&os), ["db"]);
    os.notify("db", Notice::Status("loading".to_owned()));
    for number in 0..1000 {
        os.notify("db", Notice::Status(format!("loaded {number}")));
    }
    tokio::time::sleep(SECOND).await;
    let status = handle.probe_status("db").await.unwrap();
    assert_eq!(status.text.as_deref(), Some("loaded 999"));
    assert_eq!(begun(&os), ["db"]);
    os.notify("db", Notice::Ready);
    os.notify("db", Notice::Ready);
    os.notify("db", Notice::Stopping);
    handle.ready("web").await.unwrap();
    assert!(handle.probe_status("db").await.unwrap().is_stopping);
    assert_eq!(os.checks("db", READINESS), []);
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_cannot_be_made_keeps_the_tree_from_starting() {
    let log = |pattern: &str| {
        Probe::new(Check::Log {
            pattern: pattern.to_owned(),
        })
    };
    let os = FakeOs::default();
    let task = || Child::task("it", |_| async { Ok(()) }).unwrap();
    let stranger = [(name("stranger"), Probes::default())];
    for (builder, expected) in [
        (
            tree(&os).child(child("it").readiness(log("("))),
            "cannot probe `it`",
        ),
        (
            tree(&os).child(child("it").liveness(log("up"))),
            "cannot probe `it`",
        ),
        (
            tree(&os).child(task().readiness(log("up"))),
            "cannot listen to `it`: it is a task without a process",
        ),
        (
            tree(&os).probes(stranger),
            "cannot find `stranger` in the tree",
        ),
    ] {
        let error = builder.start().await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    assert_eq!(os.asked(), []);
}

#[tokio::test(start_paused = true)]
async fn commands_that_one_actor_carries_each_have_their_own_time() {
    let os = FakeOs::default();
    let handle = tree(&os).start().await.unwrap();
    let run = async |script, timeout: u64| {
        for place in 0..16 {
            os.script(&format!("exec-{place}"), script);
        }
        let mut exec = Exec::new(CommandSpec::new("/bin/true", [""; 0]));
        exec.timeout = Some(Duration::from_secs(timeout));
        let began = Instant::now();
        let outcome = handle.exec(exec).await.unwrap();
        (outcome.timed_out(), began.elapsed())
    };
    let ends = Script::Ends(Exit::Code(0));
    let (hangs, now) = (Script::Obeys, Duration::ZERO);
    assert_eq!(run(ends, 30).await, (false, now));
    // Shorter than what was set for the one before, then longer, so that the timer of that one rings in between.
    assert_eq!(run(hangs, 1).await, (true, Duration::from_secs(1)));
    assert_eq!(run(ends, 20).await, (false, now));
    assert_eq!(run(hangs, 60).await, (true, Duration::from_secs(60)));
    let late = Script::EndsAfter(Duration::from_secs(25), Exit::Code(0));
    assert_eq!(run(ends, 20).await, (false, now));
    let took = Duration::from_secs(25);
    assert_eq!(run(late, 30).await, (false, took));
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_panics_with_one_command_carries_no_other() {
    let os = FakeOs::default();
    let handle = tree(&os).start().await.unwrap();
    let exec = || handle.exec(Exec::new(CommandSpec::new("/bin/true", [""; 0])));
    os.script("exec-0", Script::Ends(Exit::Code(0)));
    exec().await.unwrap();
    os.script("exec-1", Script::IgnoresSignals);
    let lost = tokio::spawn({
        let handle = handle.clone();
        async move {
            let command = CommandSpec::new("/bin/true", [""; 0]);
            handle.exec(Exec::new(command)).await
        }
    });
    while begun(&os).len() < 2 {
        tokio::task::yield_now().await;
    }
    handle.inject(Fault::PanicChild(name("exec-1")));
    let lost = lost.await.unwrap();
    assert!(matches!(lost, Err(ExecError::Lost)), "{lost:?}");
    os.script("exec-2", Script::Ends(Exit::Code(3)));
    assert_eq!(exec().await.unwrap().exit, Exit::Code(3));
    handle.shutdown().await;
}
