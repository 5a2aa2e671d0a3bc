//! What the whole tests share: waiting for facts, and watching real runs.

use std::fmt::Debug;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use kimi_actors::os::clock::Clock;
use kimi_actors::os::stdin::Stdin;
use kimi_actors::os::{
    ContainmentRules, End, Job, Line, LineSink, News, Observer, Os, Output, Process, Rank, RealOs,
    RealOsOptions, SpawnError,
};
use kimi_actors::policy::spec::{ChildName, CommandSpec, Containment, RunId};

/// Long enough for any machine; a test that passes never waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(2);

/// Asks until the answer is there.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let clock = Clock::start();
    let parked = Mutex::new(());
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            clock.now().since_begin() < PATIENCE,
            "waited in vain until {what}"
        );
        let guard = parked.lock().unwrap();
        drop(Condvar::new().wait_timeout(guard, PAUSE).unwrap());
    }
}

/// An operating system with room for this many runs.
pub fn real_os(slots: usize) -> Arc<RealOs> {
    contained_os(slots, ContainmentRules::default())
}

/// The same, with this containment.
pub fn contained_os(slots: usize, containment: ContainmentRules) -> Arc<RealOs> {
    Arc::new(
        RealOs::new(&RealOsOptions {
            slots,
            containment,
            ..RealOsOptions::default()
        })
        .unwrap(),
    )
}

/// One that keeps no descriptor for a run that may come.
pub fn spare_os(slots: usize) -> Arc<RealOs> {
    contained_os(
        slots,
        ContainmentRules {
            require: Some(Containment::Group),
            adopter: None,
            ..ContainmentRules::default()
        },
    )
}

/// Remembers what it was told of one run.
#[derive(Default)]
pub struct Told {
    state: Mutex<ToldState>,
    wake: Condvar,
}

#[derive(Default)]
struct ToldState {
    pid: Option<u32>,
    not_started: Option<SpawnError>,
    end: Option<Box<End>>,
    news: usize,
}

impl Observer for Told {
    fn tell(&self, news: News) {
        let mut state = self.state.lock().unwrap();
        // This one may come at any time.
        state.news += usize::from(!matches!(news, News::OutputLimit));
        match news {
            News::OutputLimit => {}
            News::Started { pid, .. } => {
                assert_eq!(state.news, 1, "started comes first");
                state.pid = Some(pid);
            }
            News::NotStarted(error) => {
                assert_eq!(state.news, 1, "nothing comes before not started");
                state.not_started = Some(error);
            }
            News::Over { pid, end } => {
                assert_eq!(state.news, 1, "over comes alone");
                // Counts as both that it stands for.
                state.news += 1;
                state.pid = Some(pid);
                state.end = Some(end);
            }
            News::Ended(end) => {
                assert_eq!(state.news, 2, "ended comes once, after started");
                state.end = Some(end);
            }
        }
        self.wake.notify_all();
    }
}

impl Told {
    fn wait<T>(&self, what: &str, mut take: impl FnMut(&mut ToldState) -> Option<T>) -> T {
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some(found) = take(&mut state) {
                return found;
            }
            let (guard, timeout) = self.wake.wait_timeout(state, PATIENCE).unwrap();
            state = guard;
            assert!(
                !timeout.timed_out(),
                "waited in vain for {what}; not started: {:?}, end: {:?}",
                state.not_started,
                state.end
            );
        }
    }

    pub fn pid(&self) -> u32 {
        self.wait("the start", |state| state.pid)
    }

    pub fn end(&self) -> Box<End> {
        self.wait("the end", |state| state.end.take())
    }

    pub fn not_started(&self) -> SpawnError {
        self.wait("the failure", |state| state.not_started.take())
    }

    /// Whether nothing more is to come.
    pub fn is_over(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.end.is_some() || state.not_started.is_some()
    }

    pub fn has_ended(&self) -> bool {
        self.state.lock().unwrap().end.is_some()
    }
}

/// Keeps every line.
#[derive(Default)]
pub struct Lines {
    lines: Mutex<Vec<String>>,
}

impl LineSink for Lines {
    fn line(&self, line: Line<'_>) {
        let text = String::from_utf8_lossy(line.bytes).into_owned();
        self.lines.lock().unwrap().push(text);
    }
}

impl Lines {
    pub fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The first line that begins like this, without its beginning.
    pub fn after(&self, prefix: &str) -> String {
        eventually(&format!("a line that begins with {prefix}"), || {
            self.all()
                .iter()
                .find_map(|line| line.strip_prefix(prefix).map(str::to_owned))
        })
    }
}

/// A run that was begun.
pub struct Begun {
    pub run: RunId,
    pub process: Box<dyn Process>,
    pub told: Arc<Told>,
}

pub fn begin(os: &dyn Os, command: CommandSpec, output: Output) -> Begun {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let run = RunId(NEXT.fetch_add(1, Ordering::Relaxed));
    let told = Arc::new(Told::default());
    let process = os.begin(Job {
        run,
        child: ChildName::new("child").unwrap(),
        command: Arc::new(command),
        stdin: Stdin::default(),
        output,
        observer: Arc::clone(&told) as Arc<dyn Observer>,
        listen: None,
        rank: Rank::default(),
    });
    Begun { run, process, told }
}

pub fn shell(os: &dyn Os, line: &str, output: Output) -> Begun {
    begin(os, CommandSpec::shell(line), output)
}

/// Runs a line in a shell that keeps its word about `set -m` without a terminal, as dash does not.
pub fn bash(os: &dyn Os, line: &str, output: Output) -> Begun {
    begin(os, CommandSpec::new("/bin/bash", ["-c", line]), output)
}

/// Waits until no process of the run is left.
pub fn wait_until_gone(os: &dyn Os, run: RunId) {
    let gone = Arc::new(Mutex::new(false));
    let theirs = Arc::clone(&gone);
    os.when_gone(run, Box::new(move || *theirs.lock().unwrap() = true));
    eventually("the run is gone", || gone.lock().unwrap().then_some(()));
}

/// The state letter of a process, as `/proc` knows it; `None`: it does not exist.
pub fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Waits until a process does nothing any more. Its own parent may be slow to reap it.
pub fn wait_until_dead(pid: u32) {
    eventually("the process is dead", || {
        matches!(state_of(pid), None | Some('Z' | 'X')).then_some(())
    });
}

pub fn assert_alive(pid: u32) {
    let state = state_of(pid);
    assert!(
        state.is_some_and(|state| state != 'Z'),
        "{pid} should live, its state is {state:?}"
    );
}

/// How many descriptors and threads this process has, and which children.
#[derive(Debug, PartialEq, Eq)]
pub struct Footprint {
    pub descriptors: usize,
    pub threads: usize,
    pub children: Vec<u32>,
}

impl Footprint {
    pub fn now() -> Self {
        Self::of(std::process::id())
    }

    /// Of another process.
    pub fn of(pid: u32) -> Self {
        let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
        let mut children = Vec::new();
        for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let path = task.unwrap().path().join("children");
            let text = fs::read_to_string(path).unwrap_or_default();
            children.extend(
                text.split_ascii_whitespace()
                    .map(|pid| pid.parse::<u32>().unwrap()),
            );
        }
        Self {
            descriptors: count("fd"),
            threads: count("task"),
            children,
        }
    }
}

/// Shows what is not what was wanted.
pub fn assert_same<T: PartialEq + Debug>(got: &T, wanted: &T, which: &str) {
    assert_eq!(got, wanted, "{which}");
}
