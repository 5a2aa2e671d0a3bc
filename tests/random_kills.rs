//! Children are killed at random, under each strategy. No restart is lost or doubled, and nothing is left.
//!
//! A run appends its id to a file as its first act: what the events announce must be what the file says. The children are
//! asked to stop by a signal that they ignore until they have done so, so that a sibling's end does not come before it.
//!
//! `KIMI_SEED` replays a life, as far as a real machine lets itself be replayed; `KIMI_FULL=1` makes each ten times longer.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of many kinds of events a question is about one"
)]
#![cfg(target_os = "linux")]

pub mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use kimi_actors::os::clock::{self, Clock};
use kimi_actors::policy::event::{Fact, TreeEvent};
use kimi_actors::policy::intensity::Intensity;
use kimi_actors::policy::restart::Strategy;
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{ChildName, CommandSpec, Governor, OnLimit, RunId};
use kimi_actors::testing::Fault;
use kimi_actors::{Child, Runtime, RuntimeBuilder, Supervisor};
use support::fact::eventually;
use support::library::{Library, alone, assert_nothing_left};
use support::process::{self, Footprint};
use support::supervisor::running;

const LINE: &str = "echo $KIMI_RUN_ID >> runs; trap 'exit 0' URG; sleep 1000 & wait";
/// Longer than any machine takes to get to the trap above.
const GRACE: Duration = Duration::from_secs(2);
/// Fewer kills try nothing.
const LEAST: usize = 10;

/// `SplitMix64` (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    /// A new one, or the one that is to be replayed.
    #[expect(clippy::print_stderr, reason = "shown when the test fails")]
    fn new() -> Self {
        let seed = std::env::var("KIMI_SEED")
            .ok()
            .map(|seed| seed.parse().unwrap());
        let seed = seed.unwrap_or_else(clock::seed);
        eprintln!("KIMI_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(bound).unwrap()).unwrap()
    }
}

fn duration() -> Duration {
    let is_full = std::env::var("KIMI_FULL").is_ok_and(|value| value == "1");
    Duration::from_secs(if is_full { 20 } else { 2 })
}

fn child(name: &str, here: &Path) -> Child {
    let mut command = CommandSpec::shell(LINE);
    command.cwd = Some(here.to_owned());
    let child = Child::command(name, command).unwrap();
    child
        .governor(Governor::NONE)
        .stop(Signal::from_number(libc::SIGURG).unwrap(), GRACE)
}

fn supervisor(name: &str, strategy: Strategy) -> Supervisor {
    let never = Intensity {
        max_restarts: u32::MAX,
        window: Duration::from_secs(1),
    };
    Supervisor::new(name, strategy)
        .unwrap()
        .intensity(never, OnLimit::Escalate)
}

/// Which children must be started again if one ends, in order, it among them.
type Affected = fn(&str) -> &'static [&'static str];

/// What the events say.
#[derive(Default)]
struct Announced {
    seen: usize,
    /// Every run that came to exist.
    ran: BTreeSet<RunId>,
    ended: BTreeSet<RunId>,
    /// The run that each child has, with its process.
    live: BTreeMap<String, (RunId, u32)>,
    /// By the test.
    killed: BTreeSet<RunId>,
}

impl Announced {
    fn take(&mut self, library: &Library) {
        for event in library.story_from(self.seen) {
            self.seen += 1;
            self.note(&event);
        }
    }

    fn note(&mut self, event: &TreeEvent) {
        match &event.fact {
            Fact::Running { child, run, pid } => {
                assert!(self.ran.insert(*run), "{run} runs twice");
                let before = self
                    .live
                    .insert(child.as_str().to_owned(), (*run, pid.unwrap()));
                assert_eq!(before, None, "two runs of {child} are live");
            }
            Fact::Exited { child, run, .. } => {
                assert!(self.ended.insert(*run), "{run} ends twice");
                let live = self.live.remove(child.as_str());
                assert_eq!(
                    live.map(|(run, _)| run),
                    Some(*run),
                    "{child} ends a run that it has not"
                );
            }
            Fact::Failed { child, why } => panic!("{child} failed: {why:?}"),
            _ => {}
        }
    }

    fn runs(&self) -> BTreeMap<String, RunId> {
        self.live
            .iter()
            .map(|(child, (run, _))| (child.clone(), *run))
            .collect()
    }
}

/// What the runs themselves have said.
fn said(here: &Path) -> Vec<RunId> {
    let text = fs::read_to_string(here.join("runs")).unwrap_or_default();
    // The last line may be under way.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| RunId(line.parse().unwrap()))
        .collect()
}

/// Lets a tree of these children live, and kills.
fn live(names: &[&str], affected: Affected, build: impl FnOnce(&Path) -> RuntimeBuilder) {
    let _alone = alone();
    let before = Footprint::here();
    let mut random = Random::new();
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let library = Library::start(build(here));
    let mut announced = Announced::default();
    let clock = Clock::start();
    let mut kills = 0;
    while clock.now().since_begin() < duration() || kills < LEAST {
        settle(&library, &mut announced, names, here);
        let victim = names[random.below(names.len())];
        let runs = announced.runs();
        assert!(kill(&mut announced, victim, here), "{victim} is there");
        kills += 1;
        // Often the next one comes while the group of the first is on its way, and then who else is affected is open.
        if random.below(3) == 0 {
            let second = names[random.below(names.len())];
            announced.take(&library);
            kills += usize::from(kill(&mut announced, second, here));
        } else {
            await_exactly(&library, &mut announced, &runs, affected(victim));
        }
    }
    settle(&library, &mut announced, names, here);
    let (report, story) = library.shut_down();
    assert_eq!(report.survivors, []);
    assert_eq!(report.failed, []);
    story[announced.seen..]
        .iter()
        .for_each(|event| announced.note(event));
    assert_eq!(announced.live, BTreeMap::new());
    let said = said(here);
    let once: BTreeSet<RunId> = said.iter().copied().collect();
    assert_eq!(said.len(), once.len(), "no run is doubled");
    assert_eq!(once, announced.ran, "no run is lost");
    assert_eq!(announced.ended, announced.ran, "every run has ended");
    let files: Vec<_> = fs::read_dir(here)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(files, ["runs"]);
    assert_nothing_left(&before);
}

/// Waits until every child has a run, and every run has said so.
fn settle(library: &Library, announced: &mut Announced, names: &[&str], here: &Path) {
    eventually("every child is back", || {
        announced.take(library);
        let said: BTreeSet<RunId> = said(here).into_iter().collect();
        let is_settled = announced.live.len() == names.len()
            && announced
                .live
                .values()
                .all(|(run, _)| said.contains(run) && !announced.killed.contains(run));
        is_settled.then_some(())
    });
}

/// Waits until these have a new run, and sees that nobody else has.
fn await_exactly(
    library: &Library,
    announced: &mut Announced,
    before: &BTreeMap<String, RunId>,
    affected: &[&str],
) {
    let is_new = |announced: &Announced, child: &str| {
        let run = announced.live.get(child).map(|(run, _)| *run);
        run.is_some() && run != before.get(child).copied()
    };
    eventually("those who are affected are back", || {
        announced.take(library);
        affected
            .iter()
            .all(|child| is_new(announced, child))
            .then_some(())
    });
    for child in before
        .keys()
        .filter(|child| !affected.contains(&child.as_str()))
    {
        assert!(!is_new(announced, child), "{child} was not to be restarted");
    }
}

/// Kills the run of a child if it has one that has said so, and was not killed already.
fn kill(announced: &mut Announced, child: &str, here: &Path) -> bool {
    let Some((run, pid)) = announced.live.get(child).copied() else {
        return false;
    };
    said(here).contains(&run)
        && announced.killed.insert(run)
        && process::kill(pid, &format!("KIMI_RUN_ID={run}"))
}

const FOUR: [&str; 4] = ["a", "b", "c", "d"];

fn four(strategy: Strategy, here: &Path) -> RuntimeBuilder {
    let group = FOUR
        .iter()
        .fold(supervisor("group", strategy), |group, name| {
            group.child(child(name, here))
        });
    Runtime::builder().supervisor(group)
}

#[test]
fn one_for_one() {
    let affected: Affected = |child| match child {
        "a" => &["a"],
        "b" => &["b"],
        "c" => &["c"],
        _ => &["d"],
    };
    live(&FOUR, affected, |here| four(Strategy::OneForOne, here));
}

#[test]
fn one_for_all() {
    live(&FOUR, |_| &FOUR, |here| four(Strategy::OneForAll, here));
}

#[test]
fn rest_for_one() {
    let affected: Affected = |child| match child {
        "a" => &FOUR,
        "b" => &["b", "c", "d"],
        "c" => &["c", "d"],
        _ => &["d"],
    };
    live(&FOUR, affected, |here| four(Strategy::RestForOne, here));
}

#[test]
fn nested() {
    let names = [
        "top", "all-1", "all-2", "rest-1", "one-1", "one-2", "rest-2",
    ];
    let affected: Affected = |child| match child {
        "top" => &["top"],
        "all-1" | "all-2" => &["all-1", "all-2"],
        "rest-1" => &["rest-1", "one-1", "one-2", "rest-2"],
        "one-1" => &["one-1"],
        "one-2" => &["one-2"],
        _ => &["rest-2"],
    };
    live(&names, affected, |here| {
        let one = supervisor("one", Strategy::OneForOne)
            .child(child("one-1", here))
            .child(child("one-2", here));
        let rest = supervisor("rest", Strategy::RestForOne)
            .child(child("rest-1", here))
            .supervisor(one)
            .child(child("rest-2", here));
        let all = supervisor("all", Strategy::OneForAll)
            .child(child("all-1", here))
            .child(child("all-2", here));
        Runtime::builder()
            .child(child("top", here))
            .supervisor(all)
            .supervisor(rest)
    });
}

#[test]
fn crashes_of_actors_lose_and_leave_nothing_either() {
    const CRASHES: usize = 50;
    let _alone = alone();
    let before = Footprint::here();
    let sleeping = |name: &str| {
        let command = CommandSpec::new("sleep", ["1000"]);
        Child::command(name, command)
            .unwrap()
            .governor(Governor::NONE)
    };
    let inner = supervisor("inner", Strategy::OneForOne).child(sleeping("nested"));
    let builder = Runtime::builder().child(sleeping("top")).supervisor(inner);
    let library = Library::start(builder);
    let runs_of = |child: &str| {
        let is_run = |event: &TreeEvent| running(&event.fact) == Some(child);
        let story = library.story_from(0);
        story.iter().filter(|event| is_run(event)).count()
    };
    for nth in 1..=CRASHES {
        for child in ["top", "nested"] {
            eventually("it runs", || (runs_of(child) == nth).then_some(()));
            let fault = Fault::PanicChild(ChildName::new(child).unwrap());
            library.handle().inject(fault);
        }
    }
    for child in ["top", "nested"] {
        eventually("it is back", || {
            (runs_of(child) == CRASHES + 1).then_some(())
        });
    }
    let (report, _) = library.shut_down();
    assert_eq!(report.survivors, []);
    assert_nothing_left(&before);
}
