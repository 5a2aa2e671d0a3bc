//! Sweeps on a scripted operating system and a paused clock: a life is lived once, to count, and then once for each thing
//! that can go wrong in it: each call of the operating system, and each message of each actor.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::print_stderr,
    reason = "a test fails by panicking, says where it is, and looks only at what it is about"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use kimi_actors::os::Os;
use kimi_actors::os::check::Errand;
use kimi_actors::policy::admission::Limits;
use kimi_actors::policy::event::{Fact, ShutdownReason, TreeEvent};
use kimi_actors::policy::exit::Exit;
use kimi_actors::policy::probe::{Check, Probe, ProbeRules};
use kimi_actors::policy::restart::Strategy;
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{CommandSpec, Condition, RunId};
use kimi_actors::policy::tree::{ShutdownMode, State};
use kimi_actors::testing::{ActorKind, Asked, Call, FakeOs, Mishap, Reply, Script, Tripwire};
use kimi_actors::{
    Child, Exec, ExecError, ExecOutcome, Runtime, RuntimeBuilder, RuntimeHandle, ShutdownReport,
    Supervisor,
};

/// Longer than any delay, timeout and grace of these lives together.
const LONG: Duration = Duration::from_secs(300);
/// How late a mishap is: beyond the grace of a child, within the time of a shutdown.
const LATE: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_secs(1);
const COMMANDS: u32 = 5;

/// What a tree goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Three start one after another.
    Chain,
    /// The second of a group of three ends.
    Group(Strategy),
    /// The middle of a chain is deaf, and all are stopped.
    Waves,
    /// An operator stops one, restarts another and starts the first again.
    Operator,
    /// More commands than places.
    Queue,
    /// One becomes ready late, is found ill and comes back; its dependent waits for it.
    Probes,
    /// One that is stopped by a command.
    StopCommand,
}

const LIVES: [Life; 9] = [
    Life::Chain,
    Life::Group(Strategy::OneForOne),
    Life::Group(Strategy::OneForAll),
    Life::Group(Strategy::RestForOne),
    Life::Waves,
    Life::Operator,
    Life::Queue,
    Life::Probes,
    Life::StopCommand,
];

fn command() -> CommandSpec {
    CommandSpec::new("/bin/true", [""; 0])
}

fn child(name: &str) -> Child {
    Child::command(name, command())
        .unwrap()
        .stop(Signal::TERM, GRACE)
        .start_timeout(Duration::from_secs(5))
}

fn after(name: &str, on: &str) -> Child {
    child(name).depends_on(on, Condition::Ready).unwrap()
}

fn probe(interval: Duration) -> Probe {
    // The fake answers as it is told to, whatever is asked.
    Probe {
        check: Check::Tcp {
            host: "localhost".to_owned(),
            port: 1,
        },
        rules: ProbeRules {
            interval,
            ..ProbeRules::default()
        },
    }
}

impl Life {
    fn tree(self, os: &FakeOs) -> RuntimeBuilder {
        let tree = Runtime::builder().os(Arc::new(os.clone()));
        match self {
            Self::Chain | Self::Waves | Self::Operator => tree
                .child(child("db"))
                .child(after("api", "db"))
                .child(after("web", "api")),
            Self::Group(strategy) => {
                let group = Supervisor::new("group", strategy).unwrap();
                let group = ["a", "b", "c"]
                    .into_iter()
                    .fold(group, |group, name| group.child(child(name)));
                tree.child(child("top")).supervisor(group)
            }
            Self::Queue => tree.limits(Limits {
                max_concurrent: 2,
                queue: COMMANDS,
                queue_timeout: LONG,
            }),
            Self::Probes => {
                let db = child("db")
                    .readiness(probe(Duration::from_secs(1)))
                    .liveness(probe(Duration::from_secs(10)));
                let nested = Supervisor::new("nested", Strategy::OneForOne).unwrap();
                tree.supervisor(nested.child(db)).child(after("web", "db"))
            }
            Self::StopCommand => tree.child(child("db").stop_command(command())),
        }
    }

    fn script(self, os: &FakeOs) {
        match self {
            Self::Waves => os.script("api", Script::IgnoresSignals),
            Self::Queue => {
                let ends = Script::EndsAfter(Duration::from_millis(10), Exit::Code(3));
                // As many names as places.
                for place in 0..=COMMANDS {
                    os.script(&format!("exec-{place}"), ends);
                }
            }
            Self::Probes => {
                let late = Reply::PassesFrom(Duration::from_secs(2));
                os.answer("db", Errand::Readiness, [late]);
                let ill = [Reply::Passes, Reply::Fails, Reply::Fails, Reply::Fails];
                let sound = std::iter::once(Reply::Passes);
                os.answer("db", Errand::Liveness, ill.into_iter().chain(sound));
            }
            Self::Chain | Self::Group(_) | Self::Operator | Self::StopCommand => {}
        }
    }

    async fn act(self, os: &FakeOs, handle: &RuntimeHandle) -> Vec<Answer> {
        match self {
            Self::Group(_) => {
                tokio::time::sleep(LONG).await;
                os.end("b", Exit::Code(1));
            }
            Self::Operator => {
                tokio::time::sleep(LONG).await;
                if handle.stop(&["api"]).await.is_ok() {
                    assert_nothing_runs(os, &["api", "web"]).await;
                    drop(handle.restart(&["db"]));
                    tokio::time::sleep(LONG).await;
                    drop(handle.start(&["web"]));
                }
            }
            Self::Queue => {
                let tickets: Vec<_> = (0..COMMANDS)
                    .map(|_| handle.begin_exec(Exec::new(command())))
                    .collect();
                let mut answers = Vec::new();
                for mut ticket in tickets {
                    answers.push(ticket.ended().await);
                }
                return answers;
            }
            Self::Chain | Self::Waves | Self::Probes | Self::StopCommand => {}
        }
        Vec::new()
    }
}

type Answer = Result<ExecOutcome, ExecError>;

/// Neither now nor later.
async fn assert_nothing_runs(os: &FakeOs, children: &[&str]) {
    let begun = |os: &FakeOs| {
        let is_begun = |asked: &Asked| matches!(asked, Asked::Begin(child) if children.contains(&child.as_str()));
        os.asked().iter().filter(|asked| is_begun(asked)).count()
    };
    let before = begun(os);
    assert!(os.live() <= 1, "only `db` is wanted: {:?}", os.asked());
    tokio::time::sleep(LONG).await;
    assert_eq!(begun(os), before, "{:?}", os.asked());
}

/// How a life went.
struct Lived {
    os: FakeOs,
    /// None: the root was gone.
    states: Option<BTreeMap<String, State>>,
    answers: Vec<Answer>,
    report: ShutdownReport,
    story: Vec<TreeEvent>,
}

/// Lives it through to its end, which must come.
fn live(life: Life, mishap: Option<(usize, Mishap)>) -> Lived {
    live_until(life, mishap, None)
}

/// The same, but at this event of it, from 0, somebody asks for the end.
fn live_until(life: Life, mishap: Option<(usize, Mishap)>, end_at: Option<u64>) -> Lived {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let os = FakeOs::default();
    life.script(&os);
    if let Some((number, mishap)) = mishap {
        os.spoil(number, mishap);
    }
    let story: Arc<Mutex<Vec<TreeEvent>>> = Arc::default();
    let told = Arc::clone(&story);
    let (states, answers, report) = runtime.block_on(async {
        let tree = life.tree(&os);
        let steered: Arc<OnceLock<RuntimeHandle>> = Arc::default();
        let theirs = Arc::clone(&steered);
        let tree = tree.watch(move |event| {
            told.lock().unwrap().push(event.clone());
            if end_at == Some(event.seq) {
                let handle = theirs.get().unwrap();
                handle.ask_shutdown(ShutdownMode::Graceful);
            }
        });
        let handle = tree.start_idle().await.unwrap();
        steered.set(handle.clone()).unwrap();
        handle.start_all().unwrap();
        let all = async {
            let answers = life.act(&os, &handle).await;
            tokio::time::sleep(LONG).await;
            let states = handle.status().await.ok().map(|all| {
                let state = |status: kimi_actors::policy::tree::ChildStatus| {
                    (status.name.to_string(), status.state)
                };
                all.into_iter().skip(1).map(state).collect()
            });
            (states, answers, handle.shutdown().await)
        };
        let lived = tokio::time::timeout(20 * LONG, all).await;
        lived.unwrap_or_else(|_| panic!("{life:?} with {mishap:?} hangs: {:?}", os.asked()))
    });
    drop(runtime);
    let story = story.lock().unwrap().clone();
    Lived {
        os,
        states,
        answers,
        report,
        story,
    }
}

impl Lived {
    fn lost(&self) -> usize {
        let is_lost = |event: &&TreeEvent| {
            matches!(
                event.fact,
                Fact::Exited {
                    exit: Exit::Lost,
                    ..
                }
            )
        };
        self.story.iter().filter(is_lost).count()
    }

    /// What holds of every life, whatever befell it.
    fn assert_sound(&self) {
        assert_eq!(self.os.live(), 0, "{:?}", self.os.asked());
        let (mut running, mut ended) = (BTreeSet::<RunId>::new(), BTreeSet::<RunId>::new());
        let mut is_ending = false;
        for event in &self.story {
            match &event.fact {
                Fact::ShutdownStarted { .. } => is_ending = true,
                Fact::Starting { .. } => {
                    assert!(!is_ending, "nothing starts any more: {:?}", self.story);
                }
                Fact::Running { run, .. } => {
                    assert!(!ended.contains(run), "{run} runs after its end");
                    assert!(running.insert(*run), "{run} runs twice");
                }
                Fact::Exited { run, .. } => assert!(ended.insert(*run), "{run} ends twice"),
                _ => {}
            }
        }
        assert!(self.report.survivors.is_empty() && !self.report.forced);
        if !self.is_root_lost() {
            assert_eq!(self.report.reason, ShutdownReason::Asked);
            let open: Vec<_> = running.difference(&ended).collect();
            assert!(open.is_empty(), "{open:?} have not ended: {:?}", self.story);
        }
    }

    fn is_root_lost(&self) -> bool {
        self.report.reason == ShutdownReason::Internal
    }

    /// Each child is where it is wanted: up, but for one that may be in this state, and those that wait for it.
    fn assert_settled(&self, but_for: Option<State>) {
        let states = self.states.as_ref().unwrap();
        let of = |wanted: State| states.values().filter(|state| **state == wanted).count();
        let up = of(State::Ready) + of(State::Completed);
        let told = || format!("{states:?} {:?}", self.story);
        if up < states.len() {
            let odd = but_for.unwrap_or_else(|| panic!("all are up: {}", told()));
            assert_eq!(of(odd), 1, "{}", told());
            assert_eq!(up + of(State::Pending) + 1, states.len(), "{}", told());
        }
        let failed: BTreeSet<String> = self.report.failed.iter().map(ToString::to_string).collect();
        let down = states
            .iter()
            .filter(|(_, state)| matches!(state, State::Failed | State::Pending));
        let down = down.map(|(name, _)| name.clone()).collect();
        assert_eq!(failed, down, "the report names who failed: {}", told());
    }
}

/// What can befall a call.
fn mishaps(call: Call) -> &'static [Mishap] {
    match call {
        Call::Begin => {
            const {
                &[
                    Mishap::Refused(libc::EAGAIN),
                    Mishap::Refused(libc::ENOMEM),
                    Mishap::Refused(libc::EMFILE),
                    Mishap::Refused(libc::ENOSPC),
                    Mishap::Refused(libc::EPERM),
                    Mishap::Refused(libc::ENOENT),
                    Mishap::Lost,
                    Mishap::Late(LATE),
                ]
            }
        }
        Call::Signal => {
            const {
                &[
                    Mishap::Refused(libc::EPERM),
                    Mishap::Refused(libc::ESRCH),
                    Mishap::Lost,
                    Mishap::Late(LATE),
                ]
            }
        }
        Call::Check => {
            const {
                &[
                    Mishap::Refused(libc::ECONNREFUSED),
                    Mishap::Lost,
                    Mishap::Late(LATE),
                ]
            }
        }
        Call::Kill | Call::WhenGone => const { &[Mishap::Late(LATE)] },
    }
}

#[test]
fn whichever_call_comes_to_grief_the_tree_goes_on() {
    let mut tried = 0;
    let mut seen = BTreeSet::new();
    for life in LIVES {
        let good = live(life, None);
        good.assert_sound();
        good.assert_settled(None);
        for (number, call) in good.os.calls().into_iter().enumerate() {
            seen.insert(call);
            for mishap in mishaps(call) {
                // The last of these is the one that a failure is about.
                eprintln!("{life:?}: {call:?} {number}: {mishap:?}");
                let lived = live(life, Some((number, *mishap)));
                lived.assert_sound();
                assert_eq!(lived.lost(), 0, "no actor has panicked");
                // A start that hangs is waited for: how long one without a probe may take, nobody has said.
                lived.assert_settled(match (call, mishap) {
                    (Call::Begin, Mishap::Refused(libc::ENOENT)) => Some(State::Failed),
                    (Call::Begin, Mishap::Lost) => Some(State::Starting),
                    _ => None,
                });
                let spoiled = lived.answers.iter().filter(
                    |answer| !matches!(answer, Ok(outcome) if outcome.exit == Exit::Code(3)),
                );
                assert!(spoiled.count() <= 1, "{:?}", lived.answers);
                tried += 1;
            }
        }
    }
    assert_eq!(seen.len(), 5, "each kind of call was tried: {seen:?}");
    assert!(tried > 300, "{tried}");
}

#[test]
fn whenever_the_end_is_asked_for_nothing_starts_any_more_and_all_goes_down() {
    let mut tried = 0;
    for life in LIVES {
        let last = live(life, None).story.last().unwrap().seq;
        for event in 1..last {
            eprintln!("{life:?}: at event {event}");
            let lived = live_until(life, None, Some(event));
            lived.assert_sound();
            assert_eq!(lived.lost(), 0, "no actor has panicked");
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried}");
}

#[test]
fn whichever_message_an_actor_panics_at_the_tree_recovers_or_ends_with_a_report() {
    let mut tried = BTreeMap::new();
    for life in LIVES {
        for kind in [
            ActorKind::Root,
            ActorKind::Supervisor,
            ActorKind::Child,
            ActorKind::Probe,
            ActorKind::Timer,
        ] {
            let wire = Tripwire::loose();
            live(life, None).assert_sound();
            let messages = wire.steps(kind);
            drop(wire);
            for message in 0..messages {
                eprintln!("{life:?}: {kind:?} at {message}");
                let wire = Tripwire::at(kind, message);
                let lived = live(life, None);
                assert!(
                    wire.steps(kind) > message,
                    "{life:?} is lived alike each time"
                );
                drop(wire);
                lived.assert_sound();
                if lived.is_root_lost() {
                    assert_eq!(kind, ActorKind::Root);
                } else {
                    lived.assert_settled(None);
                }
                *tried.entry(format!("{kind:?}")).or_insert(0) += 1;
            }
        }
    }
    assert_eq!(tried.len(), 5, "each kind of actor was tried: {tried:?}");
}
