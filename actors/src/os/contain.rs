//! What a run leaves behind: the processes of its session, in whatever group they are.
//!
//! As long as the leader is not reaped, its id names its session and no other. So everything here happens before that.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal as Number};

use crate::os::clock::Clock;
use crate::os::kernel::{self, session};
use crate::policy::signal::Signal;
use crate::policy::time::Moment;

/// How long the killed may take to be gone before they are named as survivors.
const DYING: Duration = Duration::from_millis(200);
/// How often a session is looked through again because something new was found in it.
const ROUNDS: usize = 16;
/// How many ids are tried one by one before reading all of `/proc` is cheaper.
const NEAR: i32 = 64;

/// What was found of a session whose leader is dead.
#[derive(Debug, Default)]
pub(super) struct Swept {
    pub(super) killed: Vec<u32>,
    pub(super) survivors: Vec<u32>,
}

/// Kills what is left of the sessions of these dead leaders, in one pass for all; as many answers as leaders.
pub(super) fn sweep(leaders: &[i32], clock: &Clock) -> Vec<Swept> {
    let mut swept: Vec<Swept> = leaders.iter().map(|_| Swept::default()).collect();
    let by_leader: BTreeMap<i32, usize> = leaders
        .iter()
        .enumerate()
        .map(|(which, leader)| (*leader, which))
        .collect();
    let mut found: BTreeMap<i32, (usize, OwnedFd)> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let before = found.len();
        for pid in processes() {
            find_member(pid, &by_leader, &mut found);
        }
        for leader in leaders {
            // The group in one go, so that one that forks meanwhile does not escape.
            drop(kernel::signal_group(*leader, Signal::KILL.number()));
        }
        for (_, pidfd) in found.values() {
            rustix::process::pidfd_send_signal(pidfd, Number::KILL).ok();
        }
        if found.len() == before {
            break;
        }
    }
    let deadline = clock.now() + DYING;
    for (pid, (which, pidfd)) in found {
        let list = if is_dead_by(&pidfd, deadline, clock) {
            &mut swept[which].killed
        } else {
            &mut swept[which].survivors
        };
        list.push(pid.cast_unsigned());
    }
    swept
}

fn find_member(
    pid: i32,
    by_leader: &BTreeMap<i32, usize>,
    found: &mut BTreeMap<i32, (usize, OwnedFd)>,
) {
    if by_leader.contains_key(&pid) || found.contains_key(&pid) {
        return;
    }
    let Some(which) = session(pid).and_then(|session| by_leader.get(&session)) else {
        return;
    };
    let Some(pidfd) = Pid::from_raw(pid)
        .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok())
    else {
        return;
    };
    // Asked again, since the id may have been used anew before it was pinned; and a zombie has outlived nothing.
    let same = session(pid).and_then(|session| by_leader.get(&session)) == Some(which);
    if same && !is_dead(&pidfd, Duration::ZERO) {
        found.insert(pid, (*which, pidfd));
    }
}

/// Every process that can be seen; none without `/proc`.
fn processes() -> impl Iterator<Item = i32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn is_dead_by(pidfd: &OwnedFd, deadline: Moment, clock: &Clock) -> bool {
    is_dead(pidfd, deadline.since(clock.now()))
}

fn is_dead(pidfd: &OwnedFd, within: Duration) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: i64::try_from(within.as_secs()).unwrap_or(0),
        tv_nsec: within.subsec_nanos().into(),
    };
    rustix::event::poll(&mut polled, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

/// Knows which process id the kernel gave out last.
///
/// Ids are given out in rising order. So a dead leader whose id, and a few after it, are the latest, can have left only
/// those few; a look at them is much cheaper than one at every process of the machine.
#[derive(Debug)]
pub(super) struct LastPid {
    loadavg: Option<File>,
    /// How long it takes at the very least until the ids begin anew.
    lap: Duration,
}

impl LastPid {
    pub(super) fn new() -> Self {
        // Some containers put a simulated file there, which lags behind.
        let loadavg = File::open("/proc/loadavg").ok().filter(|file| {
            rustix::fs::fstatfs(file)
                .is_ok_and(|system| system.f_type == rustix::fs::PROC_SUPER_MAGIC)
        });
        // No machine makes a million processes a second.
        let lap = std::fs::read_to_string("/proc/sys/kernel/pid_max")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .map_or(Duration::ZERO, Duration::from_micros);
        Self { loadavg, lap }
    }

    /// Whether it is certain and cheap to tell that a dead leader of this age has left nobody in its session.
    pub(super) fn nobody_left(&self, leader: i32, age: Duration) -> bool {
        if age >= self.lap {
            return false;
        }
        let Some(last) = self.read() else {
            return false;
        };
        let later = last.wrapping_sub(leader);
        let nobody = (0..=NEAR).contains(&later)
            && (leader + 1..=last).all(|pid| session(pid) != Some(leader));
        // One that was looked at too late may have forked before it ended.
        nobody && self.read() == Some(last)
    }

    fn read(&self) -> Option<i32> {
        let mut buffer = [0; 128];
        let length = self.loadavg.as_ref()?.read_at(&mut buffer, 0).ok()?;
        let text = std::str::from_utf8(&buffer[..length]).ok()?;
        text.split_ascii_whitespace().last()?.parse().ok()
    }
}
