//! What hangs below the process that adopts: the parent of this one, and the subreaper of all that comes from it.
//!
//! When a process ends, the kernel gives its children to the nearest subreaper above it before anybody can see the end
//! (`exit_notify`). So of a run whose leader is dead every process that lives is a child of the adopter, or below one.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use rustix::process::{Pid, PidfdFlags, Signal as Number};
use tracing::warn;

use crate::os::clock::Clock;
use crate::os::contain::identity::{self, Mark};
use crate::os::contain::session::{Everyone, is_dead, is_gone_by};
use crate::os::contain::{DYING, Dying, Escape, QUIET_ROUNDS, Survivor, Swept};
use crate::os::kernel::{self, session};
use crate::os::kin::Kin;
use crate::os::table::lock;
use crate::policy::signal::Signal;
use crate::policy::spec::RunId;

/// One more round finds the children of those whom the former has killed; that deep no tree is, and no fork bomb lives so long.
const ROUNDS: usize = 1000;
/// How much of the list of children is read at once.
const LIST_BYTES: usize = 4096;

/// Why there is nobody who adopts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAdopter {
    /// Only a stand-alone program can have one.
    #[error("nobody is there to adopt what the runs leave behind")]
    None,
    /// Then it cannot be its subreaper either.
    #[error("process {0} is not our parent, so it does not adopt what the runs leave behind")]
    NotOurParent(u32),
}

/// The parent of this process, which adopts what the runs leave behind, and reaps it.
#[derive(Debug)]
pub(super) struct Adopter {
    pid: i32,
    /// Its children; none where the kernel was made without such a list.
    list: Option<File>,
    /// Its children from before our time, with when they began: not ours.
    strangers: Vec<(i32, u64)>,
    /// Those of whom was said already that nobody knows whose they are.
    named: Mutex<Vec<i32>>,
}

/// What is to be asked of the runs that are not dead.
pub(in crate::os) trait Living {
    /// Whether this run is not over.
    fn lives(&self, run: RunId) -> bool;
    /// Whether there are others than so many that are about to be over.
    fn are_more_than(&self, dying: usize) -> bool;
}

/// Whose an orphan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Dying(usize),
    /// Of a run that is over.
    Over,
    Living,
    Unknown,
}

impl Adopter {
    pub(super) fn new(pid: Option<u32>, everyone: &Everyone) -> Result<Self, NoAdopter> {
        let pid = pid.ok_or(NoAdopter::None)?;
        if std::os::unix::process::parent_id() != pid {
            return Err(NoAdopter::NotOurParent(pid));
        }
        let mut adopter = Self {
            pid: pid.cast_signed(),
            list: File::open(format!("/proc/{pid}/task/{pid}/children")).ok(),
            strangers: Vec::new(),
            named: Mutex::default(),
        };
        adopter.strangers = adopter
            .orphans(everyone)
            .into_iter()
            .filter_map(|pid| Some((pid, identity::began(Some(pid))?)))
            .collect();
        Ok(adopter)
    }

    /// Whether it certainly has no child but this process. Costs one system call.
    pub(super) fn has_no_other(&self) -> bool {
        let mut text = [0; 32];
        let length = self
            .list
            .as_ref()
            .and_then(|list| list.read_at(&mut text, 0).ok());
        // One that is reaped while the list is read may hide the next; but then it stands there itself.
        length.is_some_and(|length| {
            let text = std::str::from_utf8(&text[..length]).unwrap_or_default();
            let mut pids = text.split_ascii_whitespace();
            pids.next().and_then(|pid| pid.parse().ok()) == Some(std::process::id())
                && pids.next().is_none()
        })
    }

    /// Its children, but for this process and the strangers; zombies, which it is about to reap, may be among them.
    fn orphans(&self, everyone: &Everyone) -> Vec<i32> {
        let ourselves = std::process::id().cast_signed();
        let mut pids = Vec::new();
        match &self.list {
            Some(list) => {
                let mut text = Vec::new();
                let mut buffer = [0; LIST_BYTES];
                while let Ok(length @ 1..) = list.read_at(&mut buffer, text.len() as u64) {
                    text.extend_from_slice(&buffer[..length]);
                }
                let text = String::from_utf8_lossy(&text);
                pids.extend(text.split_ascii_whitespace().flat_map(str::parse::<i32>));
            }
            None => everyone.each(|pid| {
                if Kin::of(pid).is_some_and(|kin| kin.parent == self.pid) {
                    pids.push(pid);
                }
            }),
        }
        pids.retain(|pid| *pid != ourselves && !self.is_stranger(*pid));
        pids
    }

    fn is_stranger(&self, pid: i32) -> bool {
        let same = |(stranger, began): &(i32, u64)| {
            *stranger == pid && identity::began(Some(pid)) == Some(*began)
        };
        self.strangers.iter().any(same)
    }

    /// Kills what is left of the runs of these dead leaders, again and again, since the death of one hands over its children.
    pub(super) fn sweep(
        &self,
        dying: &[&Dying<'_>],
        living: &dyn Living,
        mark: &Mark,
        everyone: &Everyone,
        clock: Clock,
    ) -> Vec<Swept> {
        let mut found = Found::default();
        let mut deadline = clock.now() + DYING;
        let mut quiet = 0;
        for _ in 0..ROUNDS {
            for one in dying.iter().filter(|one| !one.is_lost) {
                // The group in one go, so that one that forks meanwhile does not escape.
                drop(kernel::signal_group(one.leader, Signal::KILL.number()));
            }
            let before = found.by_pid.len();
            for pid in self.orphans(everyone) {
                let whose = self.whose(pid, dying, living, mark);
                match whose {
                    Whose::Dying(_) | Whose::Over => self.kill(pid, whose, &mut found, || {
                        self.whose(pid, dying, living, mark) == whose
                    }),
                    Whose::Living => {}
                    Whose::Unknown => self.name(pid),
                }
            }
            quiet = if found.by_pid.len() == before {
                quiet + 1
            } else {
                deadline = clock.now() + DYING;
                0
            };
            let all_dead = found.are_dead(self.pid, deadline, clock);
            if quiet == QUIET_ROUNDS || !all_dead {
                break;
            }
        }
        found.into_swept(dying, self.pid, clock)
    }

    fn whose(&self, pid: i32, dying: &[&Dying<'_>], living: &dyn Living, mark: &Mark) -> Whose {
        let by_session = session(pid).and_then(|session| {
            dying
                .iter()
                .position(|one| !one.is_lost && one.leader == session)
        });
        if let Some(which) = by_session {
            return Whose::Dying(which);
        }
        if let Some(run) = mark.of(pid) {
            return match dying.iter().position(|one| one.run == run) {
                Some(which) => Whose::Dying(which),
                None if living.lives(run) => Whose::Living,
                None => Whose::Over,
            };
        }
        // With nobody else there it is theirs, whatever it has done to its environment; unless it may be a stranger's.
        if self.strangers.is_empty() && !living.are_more_than(dying.len()) {
            Whose::Over
        } else {
            Whose::Unknown
        }
    }

    fn kill(&self, pid: i32, whose: Whose, found: &mut Found, is_same: impl FnOnce() -> bool) {
        let Some(id) = Pid::from_raw(pid).filter(|_| !found.by_pid.contains_key(&pid)) else {
            return;
        };
        if Kin::of(pid).is_none_or(|kin| kin.is_dead()) {
            return;
        }
        let pidfd = rustix::process::pidfd_open(id, PidfdFlags::empty());
        // Asked again, since the id may have been used anew before it was pinned.
        let is_ours = Kin::of(pid).is_some_and(|kin| kin.parent == self.pid) && is_same();
        if !is_ours {
            return;
        }
        match &pidfd {
            Ok(pidfd) => rustix::process::pidfd_send_signal(pidfd, Number::KILL).ok(),
            // Without a descriptor it is not pinned, so at once.
            Err(_) => rustix::process::kill_process(id, Number::KILL).ok(),
        };
        found.by_pid.insert(pid, (whose, pidfd.ok()));
    }

    fn name(&self, pid: i32) {
        let mut named = lock(&self.named);
        if Kin::of(pid).is_some_and(|kin| !kin.is_dead()) && !named.contains(&pid) {
            named.push(pid);
            let command = identity::command(pid);
            warn!(
                pid,
                command, "a process was left behind by nobody knows which run; shutdown ends it"
            );
        }
    }

    /// Kills all orphans without waiting.
    pub(super) fn kill_all(&self, mark: &Mark, everyone: &Everyone) {
        let mut found = Found::default();
        for pid in self.orphans(everyone) {
            let is_ours = || self.strangers.is_empty() || mark.of(pid).is_some();
            if is_ours() {
                self.kill(pid, Whose::Over, &mut found, is_ours);
            }
        }
    }

    /// Kills every orphan. No run is left. Returns who could not be killed, and whose may be a stranger's.
    pub(super) fn finish(&self, mark: &Mark, everyone: &Everyone, clock: Clock) -> Vec<Survivor> {
        if self.has_no_other() {
            return Vec::new();
        }
        let swept = self.sweep(&[], &Nobody, mark, everyone, clock);
        debug_assert!(swept.is_empty(), "as many answers as leaders");
        let left = self.orphans(everyone).into_iter();
        left.filter(|pid| Kin::of(*pid).is_some_and(|kin| !kin.is_dead()))
            .map(|pid| {
                let is_known = self.strangers.is_empty() || mark.of(pid).is_some();
                let escaped = if is_known {
                    Escape::Unkillable
                } else {
                    Escape::Unattributed
                };
                Survivor::new(pid, escaped)
            })
            .collect()
    }
}

/// No run is left.
struct Nobody;

impl Living for Nobody {
    fn lives(&self, _: RunId) -> bool {
        false
    }

    fn are_more_than(&self, _: usize) -> bool {
        false
    }
}

/// Who was killed, whose, and what pins the id.
#[derive(Default)]
struct Found {
    by_pid: BTreeMap<i32, (Whose, Option<OwnedFd>)>,
}

impl Found {
    /// Waits until all are dead.
    fn are_dead(&self, adopter: i32, deadline: crate::policy::time::Moment, clock: Clock) -> bool {
        let is_dead_by = |(pid, (_, pidfd)): (&i32, &(Whose, Option<OwnedFd>))| match pidfd {
            Some(pidfd) => is_dead(pidfd.as_fd(), deadline.since(clock.now())),
            None => is_gone_by(deadline, clock, || {
                Kin::of(*pid).is_none_or(|kin| kin.parent != adopter || kin.is_dead())
            }),
        };
        self.by_pid.iter().all(is_dead_by)
    }

    fn into_swept(self, dying: &[&Dying<'_>], adopter: i32, clock: Clock) -> Vec<Swept> {
        let mut swept: Vec<Swept> = dying.iter().map(|_| Swept::default()).collect();
        for (pid, (whose, pidfd)) in self.by_pid {
            let which = match whose {
                Whose::Dying(which) => which,
                // Of one that was over before; only where there is one alone it is told of.
                Whose::Over if dying.len() == 1 => 0,
                Whose::Over | Whose::Living | Whose::Unknown => continue,
            };
            let mut one = Self::default();
            one.by_pid.insert(pid, (whose, pidfd));
            if one.are_dead(adopter, clock.now(), clock) {
                swept[which].killed.push(pid.cast_unsigned());
            } else {
                let escaped = Escape::of(pid, dying[which].leader);
                swept[which].survivors.push(Survivor::new(pid, escaped));
            }
        }
        swept
    }
}
