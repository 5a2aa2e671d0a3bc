//! Looking at processes, and at what this one holds.

use std::collections::BTreeSet;
use std::fs;

use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

/// The environment variable by which a test knows all that it started, whatever became of it.
pub const MARK: &str = "KIMI_TEST_MARK";

/// The state letter of a process, as `/proc` knows it; `None`: it does not exist.
pub fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Whether it runs, or could.
pub fn is_alive(pid: u32) -> bool {
    !matches!(state_of(pid), None | Some('Z' | 'X'))
}

/// Every process that was started with this in its environment and still runs.
pub fn with_environment(entry: &str) -> Vec<u32> {
    all().filter(|pid| has_environment(*pid, entry)).collect()
}

/// Whether a process was started with this in its environment.
pub fn has_environment(pid: u32, entry: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|bytes| {
        bytes
            .split(|byte| *byte == 0)
            .any(|one| one == entry.as_bytes())
    })
}

fn all() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Kills one process that the test has started, known by its environment; whether it was there.
pub fn kill(pid: u32, entry: &str) -> bool {
    let pidfd = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    // Asked after the id was pinned.
    match pidfd.filter(|_| has_environment(pid, entry)) {
        Some(pidfd) => pidfd_send_signal(pidfd, rustix::process::Signal::KILL).is_ok(),
        None => false,
    }
}

/// The children of a process, dead or alive.
pub fn children_of(pid: u32) -> BTreeSet<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let mut children = BTreeSet::new();
    for task in tasks.into_iter().flatten().flatten() {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.extend(
            text.split_ascii_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
    }
    children
}

/// The runtime below a guardian.
pub fn runtime_of(guardian: u32) -> Option<u32> {
    let is_runtime = |pid: &u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.trim_end() == "kimi-shell")
    };
    children_of(guardian).into_iter().find(is_runtime)
}

/// How many descriptors, threads and children a process has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads of the supervisor; the test harness has others, which come and go.
    pub threads: usize,
    /// Children, zombies among them.
    pub children: usize,
}

impl Footprint {
    /// Of a process.
    pub fn of(pid: u32) -> Self {
        let entries = |what: &str| {
            let entries = fs::read_dir(format!("/proc/{pid}/{what}"));
            entries.into_iter().flatten().flatten()
        };
        let names = entries("task").map(|task| fs::read_to_string(task.path().join("comm")));
        let is_ours = |name: &String| name.starts_with("kimi-");
        Self {
            descriptors: entries("fd").count(),
            threads: names.flatten().filter(is_ours).count(),
            children: children_of(pid).len(),
        }
    }

    /// Whether it holds no more than before, but for a few threads that start when many processes do at once, and what each
    /// of them keeps open.
    pub fn is_within(&self, before: &Self) -> bool {
        const LATER_THREADS: usize = 5;
        const OPEN_BY_EACH: usize = 4;
        let later = self.threads.saturating_sub(before.threads);
        self.children == before.children
            && later <= LATER_THREADS
            && self.descriptors <= before.descriptors + later * OPEN_BY_EACH
    }

    /// Of this process.
    pub fn here() -> Self {
        Self::of(std::process::id())
    }
}
