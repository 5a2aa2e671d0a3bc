//! Each kind of actor panics at each of its messages while real processes live, restart, are probed and end: nothing is left
//! of them, and the tree recovers or ends with a report.
//!
//! An ordinary run tries some of the messages, `KIMI_SEED` says which; `KIMI_FULL=1` tries all.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says where it is"
)]
#![cfg(target_os = "linux")]

#[expect(
    unreachable_pub,
    dead_code,
    reason = "each test file uses its part of it"
)]
mod support;

use std::time::Duration;

use kimi_actors::os::clock;
use kimi_actors::policy::event::ShutdownReason;
use kimi_actors::policy::probe::{Check, Probe, ProbeRules};
use kimi_actors::policy::restart::Strategy;
use kimi_actors::policy::spec::{CommandSpec, Governor};
use kimi_actors::policy::tree::{ChildStatus, State};
use kimi_actors::testing::{ActorKind, Tripwire};
use kimi_actors::{
    Child, Exec, Runtime, RuntimeBuilder, RuntimeHandle, ShutdownReport, SignalOptions, Supervisor,
};
use rustix::process::{Pid, Signal, getpid, kill_process};
use support::{Footprint, PATIENCE, eventually};

const KINDS: [ActorKind; 6] = [
    ActorKind::Root,
    ActorKind::Supervisor,
    ActorKind::Child,
    ActorKind::Probe,
    ActorKind::Signals,
    ActorKind::Timer,
];
/// How many messages of each kind an ordinary run tries.
const SOME: u64 = 5;

fn sleeping(name: &str) -> Child {
    let command = CommandSpec::new("sleep", ["1000"]);
    Child::command(name, command)
        .unwrap()
        .governor(Governor::NONE)
}

fn probe(interval: Duration) -> Probe {
    Probe {
        check: Check::Exec(CommandSpec::new("true", [""; 0])),
        rules: ProbeRules {
            interval,
            ..ProbeRules::default()
        },
    }
}

fn tree() -> RuntimeBuilder {
    let probed = sleeping("right")
        .readiness(probe(Duration::from_millis(10)))
        .liveness(probe(Duration::from_millis(20)));
    let inner = Supervisor::new("inner", Strategy::OneForAll).unwrap();
    Runtime::builder()
        .child(sleeping("top"))
        .supervisor(inner.child(sleeping("left")).child(probed))
        .signals(SignalOptions::default())
}

/// What all are once they are ready; none: the runtime has ended.
async fn all_ready(handle: &RuntimeHandle) -> Option<Vec<ChildStatus>> {
    loop {
        let all = handle.status().await.ok()?;
        if all.iter().skip(1).all(|one| one.state == State::Ready) {
            return Some(all);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Lives until its end; what cannot be done any more, because the runtime ends, is left.
async fn live(handle: &RuntimeHandle) -> ShutdownReport {
    if let Some(all) = all_ready(handle).await {
        let right = all.iter().find(|one| one.name.as_str() == "right");
        let pid = right.and_then(|one| one.pid);
        if let Some(pid) = pid.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            // Its actor may have been lost a moment ago, and it with that.
            kill_process(pid, Signal::KILL).ok();
        }
        // An answer of one kind or the other.
        drop(handle.exec(Exec::new(CommandSpec::shell("echo hi"))).await);
        kill_process(getpid(), Signal::USR1).unwrap();
        while handle.receipts().await.is_empty() && handle.status().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        all_ready(handle).await;
    }
    handle.ask_shutdown(kimi_actors::policy::tree::ShutdownMode::Graceful);
    handle.wait().await
}

/// Lives once, with or without a panic, and holds no more than before at its end.
fn live_once(wire: &Tripwire, kind: ActorKind, message: Option<u64>, before: &Footprint) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let report = runtime.block_on(async {
        let handle = tree().start().await.unwrap();
        let lived = tokio::time::timeout(PATIENCE, live(&handle)).await;
        lived.unwrap_or_else(|_| panic!("it hangs with {kind:?} at {message:?}"))
    });
    drop(runtime);
    assert!(report.survivors.is_empty() && !report.forced, "{report:?}");
    let has_tripped = message.is_some_and(|message| wire.steps(kind) > message);
    let may_end_it = has_tripped && matches!(kind, ActorKind::Root | ActorKind::Signals);
    assert!(
        report.reason == ShutdownReason::Asked || may_end_it,
        "{report:?}"
    );
    eventually(&format!("only {before:?} is left"), || {
        let now = Footprint::now();
        let is_left = now.descriptors > before.descriptors || now.threads > before.threads;
        (!is_left && now.children.is_empty()).then_some(())
    });
}

#[test]
#[expect(unsafe_code, reason = "dispositions are reached through libc only")]
fn whichever_message_an_actor_panics_at_no_process_is_left() {
    // What a runtime that has ended gives back must not end the test.
    // SAFETY: ignoring a signal runs no code.
    unsafe { libc::signal(libc::SIGUSR1, libc::SIG_IGN) };
    let is_full = std::env::var("KIMI_FULL").is_ok_and(|value| value == "1");
    let seed = std::env::var("KIMI_SEED").map_or_else(|_| clock::seed(), |it| it.parse().unwrap());
    eprintln!("KIMI_SEED={seed}");
    // What the handlers of signals need stays once it was made, and so does `/dev/null`.
    let unlimited = Footprint {
        descriptors: usize::MAX,
        threads: Footprint::now().threads,
        children: Vec::new(),
    };
    live_once(&Tripwire::loose(), ActorKind::Root, None, &unlimited);
    let before = Footprint::now();
    for kind in KINDS {
        let wire = Tripwire::loose();
        live_once(&wire, kind, None, &before);
        let messages = wire.steps(kind);
        drop(wire);
        assert!(messages > 0, "{kind:?} has something to do");
        let step = if is_full { 1 } else { messages.div_ceil(SOME) };
        let mut tripped = 0;
        let mut message = seed % step;
        while message < messages {
            eprintln!("{kind:?} at {message} of {messages}");
            let wire = Tripwire::at(kind, message);
            live_once(&wire, kind, Some(message), &before);
            tripped += u32::from(wire.steps(kind) > message);
            message += step;
        }
        assert!(tripped > 0, "{kind:?} has panicked");
    }
}
