//! Finds and kills what nobody owns any more: processes that a runtime has left, known by signs that no stranger bears.
//!
//! A process is pinned by a pidfd, looked at again, and only then touched, so one that got the id of another is safe. What is
//! found is stopped first, so that it makes no more of its kind while the rest is looked for; then all are killed.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::os::clock::Clock;
use crate::os::contain;
use crate::os::kin::{self, Kin};

/// How often everything is looked through; each round but the last two has found somebody.
const ROUNDS: usize = 64;

/// Whom to look for. Who descends from them, or is in a session that they lead, is meant as well.
#[derive(Debug, Default)]
pub(super) struct Quarry {
    /// All that bear the mark of this runtime.
    pub(super) runtime: Option<RuntimeId>,
    /// All children of this process.
    pub(super) parent: Option<i32>,
    /// These.
    pub(super) runs: Vec<Recorded>,
}

/// Names one runtime of this machine, as long as that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RuntimeId {
    pub(super) pid: i32,
    /// When it began, in ticks.
    pub(super) start: u64,
}

impl RuntimeId {
    /// Of this process.
    pub(super) fn own() -> Option<Self> {
        Self::of(rustix::process::getpid().as_raw_pid())
    }

    pub(super) fn of(pid: i32) -> Option<Self> {
        let start = Kin::of(pid)?.start;
        Some(Self { pid, start })
    }

    pub(super) fn is_alive(self) -> bool {
        Kin::of(self.pid).is_some_and(|kin| kin.start == self.start && !kin.is_dead())
    }
}

/// A process that began within these ticks, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) pid: i32,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// One that was found and killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Its process id.
    pub pid: u32,
    /// The name of its program.
    pub command: String,
    /// Whether it was gone when the patience was over.
    pub is_gone: bool,
}

/// Kills them all, and waits until they are gone, so long at most.
pub(super) fn hunt(quarry: &Quarry, patience: Duration) -> Vec<Stray> {
    if !kin::is_ours() {
        return Vec::new();
    }
    let clock = Clock::start();
    let deadline = clock.now() + patience;
    let mut hunt = Hunt {
        spared: kin::ancestry(),
        quarry,
        caught: BTreeMap::new(),
    };
    let mut quiet = 0;
    for _ in 0..ROUNDS {
        quiet = if hunt.round() { 0 } else { quiet + 1 };
        // In one round alone, one may have forked behind the look and ended before it.
        if quiet == 2 || clock.now() >= deadline {
            break;
        }
    }
    hunt.signal(Signal::KILL);
    let gone_by = |pidfd: &OwnedFd| is_dead(pidfd, deadline.since(clock.now()));
    let stray = |(pid, (pidfd, command)): (i32, (OwnedFd, String))| Stray {
        pid: pid.cast_unsigned(),
        command,
        is_gone: gone_by(&pidfd),
    };
    hunt.caught.into_iter().map(stray).collect()
}

struct Hunt<'a> {
    quarry: &'a Quarry,
    /// Ourselves, and those above us: one of them may have been started by what we look for.
    spared: Vec<i32>,
    caught: BTreeMap<i32, (OwnedFd, String)>,
}

impl Hunt<'_> {
    /// Whether somebody new was found.
    fn round(&mut self) -> bool {
        let before = self.caught.len();
        for pid in kin::everyone() {
            if !self.caught.contains_key(&pid) && !self.spared.contains(&pid) {
                self.look_at(pid);
            }
        }
        self.caught.len() > before
    }

    fn look_at(&mut self, pid: i32) {
        if !self.is_meant(pid) {
            return;
        }
        let Some(Ok(pidfd)) = Pid::from_raw(pid).map(|id| pidfd_open(id, PidfdFlags::empty()))
        else {
            return;
        };
        let command = Kin::of(pid).map_or_else(String::new, |kin| kin.command);
        // Pinned now. Alive after it was looked at again, it is what was looked at.
        if self.is_meant(pid) && !is_dead(&pidfd, Duration::ZERO) {
            pidfd_send_signal(&pidfd, Signal::STOP).ok();
            self.caught.insert(pid, (pidfd, command));
        }
    }

    fn is_meant(&self, pid: i32) -> bool {
        let Some(kin) = Kin::of(pid).filter(|kin| !kin.is_dead()) else {
            return false;
        };
        let is_recorded = |run: &Recorded| run.pid == pid && run.holds(kin.start);
        self.quarry.runs.iter().any(is_recorded)
            || self.quarry.parent == Some(kin.parent)
            || self.is_caught(kin.parent)
            || self.is_caught(kin.session)
            || (self.quarry.runtime).is_some_and(|id| contain::is_of(pid, (id.pid, id.start)))
    }

    /// Whether this id is that of one that was caught, and still is: it lives, and so the id is its own.
    fn is_caught(&self, pid: i32) -> bool {
        let caught = self.caught.get(&pid);
        caught.is_some_and(|(pidfd, _)| !is_dead(pidfd, Duration::ZERO))
    }

    fn signal(&self, signal: Signal) {
        for (pidfd, _) in self.caught.values() {
            pidfd_send_signal(pidfd, signal).ok();
        }
    }
}

impl Recorded {
    fn holds(&self, start: u64) -> bool {
        (self.from..=self.to).contains(&start)
    }
}

fn is_dead(pidfd: &OwnedFd, within: Duration) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: i64::try_from(within.as_secs()).unwrap_or(0),
        tv_nsec: within.subsec_nanos().into(),
    };
    rustix::event::poll(&mut polled, Some(&timeout)).is_ok_and(|ready| ready > 0)
}
