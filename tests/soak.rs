//! Fifty services of bad habits, rounds of random starts, stops, restarts and kills, in the library and as the program; the
//! program itself is killed too, where it has who cleans up after it. After each round nothing is left, and no restart was lost
//! or doubled.
//!
//! `KIMI_SOAK_SECONDS` says how long, `KIMI_SEED` replays the order of things.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of many kinds of events a question is about one"
)]
#![cfg(target_os = "linux")]

pub mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kimi_actors::os::clock::{self, Clock};
use kimi_actors::policy::backoff::Backoff;
use kimi_actors::policy::event::{Fact, TreeEvent};
use kimi_actors::policy::exit::Exit;
use kimi_actors::policy::intensity::Intensity;
use kimi_actors::policy::restart::Strategy;
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{CommandSpec, Governor, OnLimit};
use kimi_actors::{Child, Runtime, RuntimeBuilder, Supervisor as Group};
use support::fact::eventually;
use support::library::{Library, alone, assert_nothing_left};
use support::process::{self, Footprint, MARK};
use support::supervisor::Place;

/// What the services do; the rest of the fifty are sound.
const HABITS: [&str; 16] = [
    "ignore-term",
    "stop-self",
    "double-fork",
    "hold-pipe silent",
    "hold-pipe chatty",
    "flood",
    "longline 200000",
    "junk",
    "exit 1",
    "signal 6",
    "alloc 2000000",
    "fork-bomb 5",
    "slow-exit 30",
    "close-stdio",
    "read-stdin",
    "exit-while-writing",
];
const SERVICES: usize = 50;
const GROUP: usize = 5;
/// Short, since who is stopped here often ignores it.
const GRACE: Duration = Duration::from_millis(100);
/// How many things happen in a round.
const ACTIONS: usize = 40;

/// `SplitMix64` (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    #[expect(clippy::print_stderr, reason = "shown when the test fails")]
    fn new() -> Self {
        let given = std::env::var("KIMI_SEED").ok();
        let seed = given.map_or_else(clock::seed, |seed| seed.parse().unwrap());
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

    fn one_of<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        (!all.is_empty()).then(|| all[self.below(all.len())])
    }

    /// So that things happen at all stages of others.
    fn pause(&mut self) {
        support::fact::passes(Duration::from_millis(self.below(60) as u64));
    }
}

/// Half of the time for each of the two tests.
fn duration() -> Duration {
    let is_full = std::env::var("KIMI_FULL").is_ok_and(|value| value == "1");
    let given = std::env::var("KIMI_SOAK_SECONDS").ok();
    let seconds = given.map(|seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(if is_full { 120 } else { 20 })) / 2
}

fn name(nth: usize) -> String {
    format!("service-{nth}")
}

/// The mode of a service of the program that misbehaves; none: it is sound.
fn habit(nth: usize) -> Option<Vec<&'static str>> {
    HABITS.get(nth).map(|habit| habit.split(' ').collect())
}

/// The control groups that the runtimes in these processes have made.
fn control_groups(of: &[u32]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name().into_string().unwrap_or_default();
            let mut numbers = name.split(|c: char| !c.is_ascii_digit());
            let is_theirs = numbers.any(|number| {
                of.iter()
                    .any(|pid| number.parse().is_ok_and(|number: u32| number == *pid))
            });
            if name.contains("kimi") && is_theirs {
                found.push(entry.path());
            }
            directories.push(entry.path());
        }
    }
    found
}

/// Both tests count processes.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In the library: five groups of each strategy in turn, and the rest at the top.
fn tree(here: &Path) -> RuntimeBuilder {
    let program = support::misbehave();
    let governor = Governor {
        limit: None,
        backoff: Backoff {
            initial: Duration::from_millis(20),
            max: Duration::from_millis(200),
            ..Backoff::default()
        },
        on_limit: OnLimit::SlowRetry,
    };
    let child = |nth: usize| {
        let mut command = match habit(nth) {
            Some(words) => CommandSpec::new(&program, words),
            None => CommandSpec::new("sleep", ["1000"]),
        };
        command.cwd = Some(here.to_owned());
        command.env.push((MARK.into(), here.into()));
        let child = Child::command(&name(nth), command).unwrap();
        child.governor(governor).stop(Signal::TERM, GRACE)
    };
    let never = Intensity {
        max_restarts: u32::MAX,
        window: Duration::from_secs(1),
    };
    // Who misbehaves stands at the top, or a group would never be up.
    let first = SERVICES - 3 * GROUP;
    let mut tree = (0..first).fold(Runtime::builder(), |tree, nth| tree.child(child(nth)));
    for (which, strategy) in [
        Strategy::OneForOne,
        Strategy::OneForAll,
        Strategy::RestForOne,
    ]
    .into_iter()
    .enumerate()
    {
        let group = Group::new(&format!("group-{which}"), strategy).unwrap();
        let members = (0..GROUP).map(|member| first + which * GROUP + member);
        let group = members.fold(group, |group, nth| group.child(child(nth)));
        tree = tree.supervisor(group.intensity(never, OnLimit::Escalate));
    }
    tree
}

/// What the events say of the runs of each child.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    starting: u64,
    /// Because its run had ended unasked: alone, or with its group.
    restarts: u64,
}

fn counted(story: &[TreeEvent]) -> BTreeMap<String, Counted> {
    let mut counts: BTreeMap<String, Counted> = BTreeMap::new();
    let (mut running, mut over) = (BTreeSet::new(), BTreeSet::new());
    for event in story {
        match &event.fact {
            Fact::Starting { child, run, .. } => {
                assert!(running.insert(*run), "{run} begins twice");
                counts.entry(child.to_string()).or_default().starting += 1;
            }
            Fact::Exited {
                child, run, exit, ..
            } => {
                assert_ne!(*exit, Exit::Lost, "{run} of {child} is not lost");
                assert!(over.insert(*run), "{run} ends twice");
            }
            Fact::RestartScheduled { child, .. }
            | Fact::GroupRestart {
                because_of: child, ..
            } => {
                counts.entry(child.to_string()).or_default().restarts += 1;
            }
            Fact::Failed { child, why } => panic!("{child} failed: {why:?}"),
            _ => {}
        }
    }
    assert_eq!(running, over, "every run that began has ended");
    counts
}

/// One life of a runtime in this process.
fn round_in_the_library(random: &mut Random) {
    let before = Footprint::here();
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let mark = format!("{MARK}={}", here.display());
    let library = Library::start(tree(here));
    let handle = library.handle().clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for _ in 0..ACTIONS {
        random.pause();
        let nth = name(random.below(SERVICES));
        match random.below(6) {
            0 => runtime.block_on(handle.stop(&[&nth])).unwrap(),
            1 => handle.restart(&[&nth]).unwrap(),
            2 => handle.start_all().unwrap(),
            _ => {
                let all = process::with_environment(&mark);
                if let Some(pid) = random.one_of(&all) {
                    process::kill(pid, &mark);
                }
            }
        }
    }
    let names: Vec<String> = (0..SERVICES).map(name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    runtime.block_on(handle.stop(&names)).unwrap();
    // Who is asked to stop has nobody left when that is answered.
    assert_eq!(process::with_environment(&mark), [0; 0]);
    let status = runtime.block_on(handle.status()).unwrap();
    let (report, story) = library.shut_down();
    assert_eq!((report.survivors, report.failed), (Vec::new(), Vec::new()));
    let counts = counted(&story);
    for one in status.iter().filter(|one| !one.is_supervisor) {
        let count = &counts[one.name.as_str()];
        assert_eq!(one.runs, count.starting, "{}: {count:?}", one.name);
        assert_eq!(one.restarts, count.restarts, "{}: {count:?}", one.name);
    }
    assert_eq!(process::with_environment(&mark), [0; 0]);
    assert_eq!(fs::read_dir(here).unwrap().count(), 0, "no file is left");
    assert_eq!(control_groups(&[std::process::id()]), Vec::<PathBuf>::new());
    assert_nothing_left(&before);
}

#[test]
fn random_orders_and_kills_leave_nothing_and_lose_no_restart() {
    let _one = one_at_a_time();
    let _alone = alone();
    let mut random = Random::new();
    // What a program makes once and keeps is there before it is counted.
    drop(Library::start(Runtime::builder()).shut_down());
    let clock = Clock::start();
    loop {
        round_in_the_library(&mut random);
        if clock.now().since_begin() > duration() {
            return;
        }
    }
}

/// The same services, as the program is given them.
fn manifest() -> String {
    let program = support::misbehave();
    let mut text = "version: 1
defaults:
  stop: { timeout: 100ms }
  restart: { max_restarts: 1000000, on_limit: slow_retry, backoff: { initial: 20ms, max: 200ms } }
services:
"
    .to_owned();
    for nth in 0..SERVICES {
        // Whoever writes without end is written of without end, and that this test would have to read.
        let talks = |words: &Vec<&str>| words.contains(&"flood") || words.contains(&"chatty");
        let words = match habit(nth).filter(|words| !talks(words)) {
            Some(words) => format!("{}, {}", program.display(), words.join(", ")),
            None => "sleep, \"1000\"".to_owned(),
        };
        writeln!(text, "  {}: {{ command: [{words}] }}", name(nth)).unwrap();
    }
    text
}

/// The processes of a round that are the program itself.
fn of_the_program(mark: &str) -> Vec<u32> {
    let is_it = |pid: &u32| {
        let program = fs::read_link(format!("/proc/{pid}/exe"));
        program.is_ok_and(|program| program == Path::new(env!("CARGO_BIN_EXE_kimi-shell")))
    };
    let all = process::with_environment(mark);
    all.into_iter().filter(is_it).collect()
}

/// How a round of the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Asked,
    /// One of its own processes is killed.
    Killed,
}

fn round_of_the_program(random: &mut Random, end: End) {
    let mut supervisor = Place::new(&manifest()).start(&[]);
    let mark = supervisor.place().mark();
    let last = name(SERVICES - 1);
    supervisor.pid_of(&last, 1);
    let own = of_the_program(&mark);
    for _ in 0..ACTIONS {
        random.pause();
        let all = process::with_environment(&mark);
        let children: Vec<u32> = all.into_iter().filter(|pid| !own.contains(pid)).collect();
        if let Some(pid) = random.one_of(&children) {
            process::kill(pid, &mark);
        }
        assert!(
            supervisor.is_running(),
            "whoever of its children is killed, it goes on"
        );
    }
    match end {
        End::Asked => {
            supervisor.send(Signal::TERM);
            let ended = supervisor.end_at_once();
            assert_eq!(ended.code, 143, "{:#?}", ended.stderr);
            assert!(ended.order(support::supervisor::failed).is_empty());
        }
        End::Killed => {
            process::kill(random.one_of(&own).unwrap(), &mark);
            eventually("nobody outlives the runtime", || {
                process::with_environment(&mark).is_empty().then_some(())
            });
            supervisor.place().assert_tidy();
        }
    }
    assert_eq!(control_groups(&own), Vec::<PathBuf>::new());
}

/// Whether somebody stays to clean up when the runtime is killed: another process of the program.
fn runtime_death_is_clean() -> bool {
    let mut supervisor =
        Place::new("version: 1\nservices: { one: { command: [sleep, \"1000\"] } }").start(&[]);
    supervisor.pid_of("one", 1);
    assert!(supervisor.is_running());
    let own = of_the_program(&supervisor.place().mark());
    supervisor.send(Signal::TERM);
    supervisor.end();
    own.len() > 1
}

#[test]
fn random_kills_in_the_tree_of_the_program_leave_nothing() {
    let _one = one_at_a_time();
    let mut random = Random::new();
    let is_clean = runtime_death_is_clean();
    if !is_clean {
        support::skip("the death of the runtime: nobody is there to clean up after it");
    }
    let clock = Clock::start();
    loop {
        round_of_the_program(&mut random, End::Asked);
        if is_clean {
            round_of_the_program(&mut random, End::Killed);
        }
        if clock.now().since_begin() > duration() {
            return;
        }
    }
}
