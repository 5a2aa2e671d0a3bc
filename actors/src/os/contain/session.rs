//! The session of a run: its processes, in whatever group they are, and what can be told of them from `/proc` alone.
//!
//! As long as the leader is not reaped, its id names its session and no other. So everything here happens before that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal as Number};

use crate::os::clock::Clock;
use crate::os::contain::identity::Mark;
use crate::os::contain::{DYING, Escape, LOOK_PAUSE, QUIET_ROUNDS, Survivor, Swept};
use crate::os::kernel::{self, session};
use crate::os::kin::Kin;
use crate::os::table::lock;
use crate::policy::signal::Signal;
use crate::policy::time::Moment;

/// How often a session is looked through again because something new was found in it.
const ROUNDS: usize = 16;
/// How many ids are tried one by one before reading all of `/proc` is cheaper.
const NEAR: i32 = 64;

/// How much of `/proc` is read at once.
const DIRECTORY_BYTES: usize = 32 * 1024;

/// Kills what is left of the sessions of these dead leaders, in one pass for all; as many answers as leaders.
///
/// Also when no descriptor can be had any more.
pub(super) fn sweep(leaders: &[i32], everyone: &Everyone, clock: Clock) -> Vec<Swept> {
    let mut swept: Vec<Swept> = leaders.iter().map(|_| Swept::default()).collect();
    let by_leader: BTreeMap<i32, usize> = leaders
        .iter()
        .enumerate()
        .map(|(which, leader)| (*leader, which))
        .collect();
    let mut found: Found = BTreeMap::new();
    let mut quiet = 0;
    for _ in 0..ROUNDS {
        let before = found.len();
        everyone.each(|pid| find_member(pid, &by_leader, &mut found));
        for leader in leaders {
            // The group in one go, so that one that forks meanwhile does not escape.
            drop(kernel::signal_group(*leader, Signal::KILL.number()));
        }
        for (_, pidfd) in found.values() {
            if let Some(pidfd) = pidfd {
                rustix::process::pidfd_send_signal(pidfd, Number::KILL).ok();
            }
        }
        quiet = if found.len() == before { quiet + 1 } else { 0 };
        if quiet == QUIET_ROUNDS {
            break;
        }
    }
    let deadline = clock.now() + DYING;
    for (pid, (which, pidfd)) in found {
        let is_dead = match pidfd {
            Some(pidfd) => is_dead(pidfd.as_fd(), deadline.since(clock.now())),
            // Without anything that pins it, a zombie cannot be told from one that lives.
            None => is_gone_by(deadline, clock, || session(pid) != Some(leaders[which])),
        };
        if is_dead {
            swept[which].killed.push(pid.cast_unsigned());
        } else {
            let escaped = Escape::of(pid, leaders[which]);
            swept[which].survivors.push(Survivor::new(pid, escaped));
        }
    }
    swept
}

/// Members by id: whose, and what pins the id.
type Found = BTreeMap<i32, (usize, Option<OwnedFd>)>;

fn find_member(pid: i32, by_leader: &BTreeMap<i32, usize>, found: &mut Found) {
    if by_leader.contains_key(&pid) || found.contains_key(&pid) {
        return;
    }
    let Some(which) = session(pid).and_then(|session| by_leader.get(&session)) else {
        return;
    };
    let Some(id) = Pid::from_raw(pid) else {
        return;
    };
    let pidfd = match rustix::process::pidfd_open(id, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return,
        Err(_) => {
            // Not pinned, so at once: in the moment since it was found the ids cannot have gone round.
            rustix::process::kill_process(id, Number::KILL).ok();
            found.insert(pid, (*which, None));
            return;
        }
    };
    // Asked again, since the id may have been used anew before it was pinned; and a zombie has outlived nothing.
    let same = session(pid).and_then(|session| by_leader.get(&session)) == Some(which);
    if same && !is_dead(pidfd.as_fd(), Duration::ZERO) {
        found.insert(pid, (*which, Some(pidfd)));
    }
}

/// Every process that can be seen; none without `/proc`, which is kept open for when no descriptor is left.
#[derive(Debug)]
pub(in crate::os) struct Everyone {
    proc: Mutex<Option<OwnedFd>>,
}

impl Everyone {
    pub(super) fn new() -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open("/proc", flags, Mode::empty()).ok();
        Self {
            proc: Mutex::new(proc),
        }
    }

    pub(super) fn each(&self, mut see: impl FnMut(i32)) {
        // Held throughout, since all who read share one position; it is one thread at a time but for want of threads.
        let proc = lock(&self.proc);
        let Some(proc) = proc.as_ref() else {
            return;
        };
        if rustix::fs::seek(proc, SeekFrom::Start(0)).is_err() {
            return;
        }
        let mut buffer = Vec::with_capacity(DIRECTORY_BYTES);
        let mut entries = RawDir::new(proc, buffer.spare_capacity_mut());
        while let Some(Ok(entry)) = entries.next() {
            let pid = entry.file_name().to_str().ok().map(str::parse);
            if let Some(Ok(pid)) = pid {
                see(pid);
            }
        }
    }
}

/// Whether it is gone by then. It is asked again and again.
pub(super) fn is_gone_by(deadline: Moment, clock: Clock, is_gone: impl Fn() -> bool) -> bool {
    loop {
        if is_gone() {
            return true;
        }
        if clock.now() >= deadline {
            return false;
        }
        std::thread::park_timeout(LOOK_PAUSE);
    }
}

pub(super) fn is_dead(pidfd: BorrowedFd<'_>, within: Duration) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: i64::try_from(within.as_secs()).unwrap_or(0),
        tv_nsec: within.subsec_nanos().into(),
    };
    rustix::event::poll(&mut polled, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

/// Who is in this leader's session; takes no descriptor.
pub(super) fn members(leader: i32, everyone: &Everyone) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    everyone.each(|pid| {
        if session(pid) == Some(leader) {
            found.insert(pid);
        }
    });
    found
}

/// Those of these sessions that are not in their leader's group, in one pass for all: each with the leader that it belongs to.
pub(super) fn outside_the_group(leaders: &[i32], everyone: &Everyone) -> Vec<(i32, OwnedFd)> {
    let mut found = Vec::new();
    everyone.each(|pid| {
        let Some(leader) = session(pid).filter(|session| leaders.contains(session)) else {
            return;
        };
        let is_outside = || {
            let id = Pid::from_raw(pid)?;
            let group = rustix::process::getpgid(Some(id)).ok()?;
            (session(pid) == Some(leader) && group.as_raw_nonzero().get() != leader).then_some(id)
        };
        // Asked again once the id is pinned. Without a descriptor for that it is better not signalled at all.
        if let Some(pidfd) =
            is_outside().and_then(|id| rustix::process::pidfd_open(id, PidfdFlags::empty()).ok())
            && is_outside().is_some()
        {
            found.push((leader, pidfd));
        }
    });
    found
}

/// Kills everybody who has a mark of ours in the environment, whatever session it is in. No run is left. Returns who could not
/// be killed.
pub(super) fn sweep_marked(mark: &Mark, everyone: &Everyone, clock: Clock) -> Vec<Survivor> {
    let mut found: BTreeMap<i32, Option<OwnedFd>> = BTreeMap::new();
    let mut quiet = 0;
    for _ in 0..ROUNDS {
        let before = found.len();
        everyone.each(|pid| {
            if !found.contains_key(&pid) && mark.of(pid).is_some() {
                kill_marked(pid, mark, &mut found);
            }
        });
        quiet = if found.len() == before { quiet + 1 } else { 0 };
        // Mostly there is nobody at all; who forks meanwhile is there itself.
        if quiet == QUIET_ROUNDS || found.is_empty() {
            break;
        }
    }
    let deadline = clock.now() + DYING;
    let survives = |(pid, pidfd): &(i32, Option<OwnedFd>)| !match pidfd {
        Some(pidfd) => is_dead(pidfd.as_fd(), deadline.since(clock.now())),
        None => is_gone_by(deadline, clock, || {
            Kin::of(*pid).is_none_or(|kin| kin.is_dead())
        }),
    };
    found
        .into_iter()
        .filter(survives)
        .map(|(pid, _)| Survivor::new(pid, Escape::OwnSession))
        .collect()
}

fn kill_marked(pid: i32, mark: &Mark, found: &mut BTreeMap<i32, Option<OwnedFd>>) {
    let Some(id) = Pid::from_raw(pid) else {
        return;
    };
    let pidfd = match rustix::process::pidfd_open(id, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return,
        Err(_) => {
            // Not pinned, so at once.
            rustix::process::kill_process(id, Number::KILL).ok();
            found.insert(pid, None);
            return;
        }
    };
    // Asked again, since the id may have been used anew before it was pinned.
    if mark.of(pid).is_some() {
        rustix::process::pidfd_send_signal(&pidfd, Number::KILL).ok();
        found.insert(pid, Some(pidfd));
    }
}

/// Knows which process id the kernel gave out last.
///
/// Ids are given out in rising order. So a dead leader whose id, and a few after it, are the latest, can have left only
/// those few; a look at them, from the oldest on, is much cheaper than one at every process of the machine. One that forks
/// meanwhile is either found itself, since it is older than its child, or has moved the latest id on.
#[derive(Debug)]
pub(in crate::os) struct LastPid {
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
        (0..=NEAR).contains(&later)
            && (leader + 1..=last).all(|pid| session(pid) != Some(leader))
            // One of those may have forked and ended before it was looked at: then there is an id that was not.
            && self.read() == Some(last)
    }

    fn read(&self) -> Option<i32> {
        let mut buffer = [0; 128];
        let length = self.loadavg.as_ref()?.read_at(&mut buffer, 0).ok()?;
        let text = std::str::from_utf8(&buffer[..length]).ok()?;
        text.split_ascii_whitespace().last()?.parse().ok()
    }
}
