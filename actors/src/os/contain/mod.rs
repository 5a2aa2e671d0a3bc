//! What holds the processes of a run together, so that none of them outlives it.
//!
//! The best that the machine has is chosen once: a control group for each run; else the parent of this process, if it adopts
//! what the runs leave behind; else the session of each run. `spawn.rs` asks for a place for a child, `watch.rs` whether
//! anybody is left when its leader is dead, `reap.rs` has the rest killed.

mod adopted;
mod cgroup;
mod identity;
mod session;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags};
use tracing::warn;

use crate::os::clock::Clock;
use crate::os::guardian::OnDeath;
use crate::os::is_exhaustion;
use crate::os::kernel::{self, session as session_of};
use crate::policy::setup::Controllers;
use crate::policy::signal::Signal;
use crate::policy::spec::{Containment, RunId};

use adopted::Adopter;
use cgroup::{Cgroups, Left};
use identity::Mark;
use session::{Everyone, LastPid};

pub(super) use adopted::Living;
pub use adopted::NoAdopter;
pub(super) use cgroup::{Leaf, Place, kill_groups_of, remove_groups_of};
pub use cgroup::{NoCgroup, controllers};
pub(super) use identity::is_of;

/// How long the killed may take to be gone before they are named as survivors.
const DYING: Duration = Duration::from_secs(1);
/// How often to look whether one is gone who cannot be waited for.
const LOOK_PAUSE: Duration = Duration::from_millis(2);
/// So many rounds in a row must find nothing new. In one alone a member may have forked after the directory was read, and
/// ended before it was looked at.
const QUIET_ROUNDS: usize = 2;
/// How often the members of a group that cannot be killed at once are killed one by one, because others may have come.
const ROUNDS: usize = 16;

/// Which containment is wanted, and what it may rely on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainmentRules {
    /// Exactly this one, or nothing starts; the best that the machine has if absent.
    pub require: Option<Containment>,
    /// The parent of this process, if it is a child subreaper (`PR_SET_CHILD_SUBREAPER`) that reaps whatever it adopts and has
    /// been there for nothing but this process.
    pub adopter: Option<u32>,
    /// What is to become of the runs should this process die without ending them.
    pub on_death: OnDeath,
}

/// Why processes cannot be contained as they are to be.
#[derive(Debug, thiserror::Error)]
#[error("cannot contain processes by {wanted}")]
pub struct ContainmentError {
    /// What was insisted on.
    pub wanted: Containment,
    /// What is missing for it.
    #[source]
    pub lacking: Lacking,
}

/// What the machine lacks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Lacking {
    /// Control groups.
    #[error(transparent)]
    Cgroup(#[from] NoCgroup),
    /// Somebody who adopts.
    #[error(transparent)]
    Adopter(#[from] NoAdopter),
}

/// A process that could not be ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// The process.
    pub pid: u32,
    /// What it executes, as the kernel calls it; never an argument, which may be a secret.
    pub command: String,
    /// How it got away.
    pub escaped: Escape,
}

/// How a process got away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Escape {
    /// It was killed, and the kernel has not ended it: something in there does not let go of it.
    Unkillable,
    /// The same, of one that had made a session of its own.
    OwnSession,
    /// Nobody knows whose it is.
    Unattributed,
}

impl Escape {
    /// Of one that was killed.
    fn of(pid: i32, leader: i32) -> Self {
        if session_of(pid) == Some(leader) {
            Self::Unkillable
        } else {
            Self::OwnSession
        }
    }

    /// The word for it in data.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unkillable => "unkillable",
            Self::OwnSession => "own_session",
            Self::Unattributed => "unattributed",
        }
    }
}

impl Survivor {
    fn new(pid: i32, escaped: Escape) -> Self {
        Self {
            pid: pid.cast_unsigned(),
            command: identity::command(pid),
            escaped,
        }
    }
}

impl fmt::Display for Survivor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.escaped {
            Escape::Unkillable => "it could not be killed",
            Escape::OwnSession => "it is in a session of its own and could not be killed",
            Escape::Unattributed => "it may be somebody else's and was left alone",
        };
        write!(f, "process {} ({}): {how}", self.pid, self.command)
    }
}

/// A run whose leader is dead.
pub(super) struct Dying<'a> {
    pub(super) leader: i32,
    pub(super) run: RunId,
    pub(super) leaf: Option<&'a Leaf>,
    /// Somebody else has reaped the leader: its id names nothing any more.
    pub(super) is_lost: bool,
}

/// What was found of such a run.
#[derive(Debug, Default)]
pub(super) struct Swept {
    pub(super) killed: Vec<u32>,
    pub(super) survivors: Vec<Survivor>,
}

/// The containment of a runtime.
pub(super) struct Container {
    clock: Clock,
    is_required: bool,
    cgroups: Option<Cgroups>,
    /// The kernel has refused a child in a fresh directory: from then on without.
    has_no_cgroup: AtomicBool,
    adopter: Option<Adopter>,
    everyone: Everyone,
    last_pid: LastPid,
    mark: Mark,
    notes: Vec<String>,
}

impl Container {
    /// Chooses, and removes what runtimes that are gone have left.
    pub(super) fn new(rules: &ContainmentRules, clock: Clock) -> Result<Self, ContainmentError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let everyone = Everyone::new();
        let refused = |wanted| move |lacking| ContainmentError { wanted, lacking };
        let adopter = Adopter::new(rules.adopter, &everyone);
        let (cgroups, adopter) = match rules.require {
            Some(wanted @ Containment::Cgroup) => {
                let cgroups =
                    Cgroups::new(count, rules.on_death, clock).and_then(|(cgroups, left)| {
                        cgroups.try_out()?;
                        Ok((cgroups, left))
                    });
                let cgroups = cgroups.map_err(Lacking::from).map_err(refused(wanted))?;
                (Some(cgroups), adopter.ok())
            }
            Some(wanted @ Containment::Subreaper) => {
                let adopter = adopter.map_err(Lacking::from).map_err(refused(wanted))?;
                (None, Some(adopter))
            }
            Some(Containment::Group) => (None, None),
            None => (
                Cgroups::new(count, rules.on_death, clock).ok(),
                adopter.ok(),
            ),
        };
        let (cgroups, left) = cgroups.unzip();
        let container = Self {
            clock,
            is_required: rules.require.is_some(),
            cgroups,
            has_no_cgroup: AtomicBool::new(false),
            adopter,
            everyone,
            last_pid: LastPid::new(),
            mark: Mark::new(count),
            notes: left.unwrap_or_default().iter().map(said_of).collect(),
        };
        Ok(container)
    }

    /// What holds a run that begins now.
    pub(super) fn mode(&self) -> Containment {
        if self.cgroups().is_some() {
            Containment::Cgroup
        } else if self.adopter.is_some() {
            Containment::Subreaper
        } else {
            Containment::Group
        }
    }

    /// What is to be said of the choice.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// None, as soon as they were given up.
    fn cgroups(&self) -> Option<&Cgroups> {
        let has_none = self.has_no_cgroup.load(Ordering::Relaxed);
        self.cgroups.as_ref().filter(|_| !has_none)
    }

    /// What a run's processes have in their environment.
    pub(super) fn marked(&self, run: RunId) -> (&'static str, String) {
        (identity::VARIABLE, self.mark.value(run))
    }

    /// Where a child is to be born, if in a directory of its own; with limits, in one whose files have these contents.
    pub(super) fn place(&self, limits: &[(&str, String)]) -> io::Result<Option<Place>> {
        if !limits.is_empty() {
            // Whoever is to be limited is not started without.
            let cgroups = self.cgroups().ok_or(io::ErrorKind::Unsupported)?;
            return cgroups.make_limited(limits).map(Some);
        }
        match self.cgroups().map(Cgroups::take).transpose() {
            Err(error) if !is_exhaustion(&error) => self.give_up(error),
            place => place,
        }
    }

    /// Another place, since a child could not be made in this one. If that was a fresh one, there is none from now on.
    pub(super) fn another(&self, refused: Place, error: io::Error) -> io::Result<Option<Place>> {
        if refused.is_limited() {
            self.give_back(refused.into_leaf());
            return Err(error);
        }
        let is_fresh = refused.is_fresh();
        let leaf = refused.into_leaf();
        leaf.use_up();
        self.give_back(leaf);
        match self.cgroups() {
            // Somebody else may have killed the child of a fresh one before it began.
            Some(cgroups) if !is_fresh || cgroups.try_out().is_ok() => cgroups.make().map(Some),
            _ => self.give_up(error),
        }
    }

    /// From now on without control groups, unless they were insisted on.
    fn give_up(&self, error: io::Error) -> io::Result<Option<Place>> {
        if self.is_required {
            return Err(error);
        }
        if !self.has_no_cgroup.swap(true, Ordering::Relaxed) {
            let containment = self.mode().as_str();
            warn!(%error, containment, "no process can be made in a control group here");
        }
        Ok(None)
    }

    /// The controllers that a directory of a run can have.
    pub(super) fn controllers(&self) -> Controllers {
        self.cgroups()
            .map_or_else(Controllers::default, |_| controllers())
    }

    /// Takes a directory back in which nobody is any more.
    pub(super) fn give_back(&self, leaf: Leaf) {
        if let Some(cgroups) = &self.cgroups {
            cgroups.give_back(leaf);
        }
    }

    /// Whether it is certain, and cheap to tell, that a dead leader of this age has left nobody.
    pub(super) fn nobody_left(&self, dying: &Dying<'_>, age: Duration) -> bool {
        match (dying.leaf, &self.adopter) {
            (Some(leaf), _) => leaf.is_empty(),
            (None, _) if dying.is_lost => true,
            (None, Some(adopter)) => adopter.has_no_other(),
            (None, None) => self.last_pid.nobody_left(dying.leader, age),
        }
    }

    /// Kills what is left of these; as many answers.
    pub(super) fn sweep(&self, dying: &[Dying<'_>], living: &dyn Living) -> Vec<Swept> {
        let mut swept: Vec<Swept> = dying.iter().map(|_| Swept::default()).collect();
        let (inside, outside): (Vec<usize>, Vec<usize>) =
            (0..dying.len()).partition(|which| dying[*which].leaf.is_some());
        for (which, found) in inside.iter().zip(self.sweep_leaves(dying, &inside)) {
            swept[*which] = found;
        }
        let in_sessions: Vec<&Dying<'_>> = outside.iter().map(|which| &dying[*which]).collect();
        let found = match &self.adopter {
            _ if in_sessions.is_empty() => Vec::new(),
            Some(adopter) => {
                adopter.sweep(&in_sessions, living, &self.mark, &self.everyone, self.clock)
            }
            None => {
                let leaders: Vec<i32> = in_sessions.iter().map(|one| one.leader).collect();
                session::sweep(&leaders, &self.everyone, self.clock)
            }
        };
        for (which, found) in outside.iter().zip(found) {
            swept[*which] = found;
        }
        swept
    }

    fn sweep_leaves(&self, dying: &[Dying<'_>], inside: &[usize]) -> Vec<Swept> {
        let Some(cgroups) = &self.cgroups else {
            return Vec::new();
        };
        let leaves: Vec<(&Dying<'_>, &Leaf)> = inside
            .iter()
            .filter_map(|which| Some((&dying[*which], dying[*which].leaf?)))
            .collect();
        let found: Vec<BTreeSet<i32>> = leaves
            .iter()
            .map(|(one, leaf)| {
                // Without a descriptor to read the list with: those who can be told without.
                let in_session = || session::members(one.leader, &self.everyone);
                let mut members = cgroups.members(leaf).unwrap_or_else(|_| in_session());
                members.remove(&one.leader);
                if leaf.kill().is_err() {
                    self.kill_one_by_one(leaf);
                }
                if !one.is_lost {
                    // One that could write there may have moved itself elsewhere.
                    drop(kernel::signal_group(one.leader, Signal::KILL.number()));
                }
                members
            })
            .collect();
        let to_empty: Vec<&Leaf> = leaves.iter().map(|(_, leaf)| *leaf).collect();
        let left = cgroups.wait_until_empty(&to_empty, self.clock);
        let survivor = |leader| move |pid: &i32| Survivor::new(*pid, Escape::of(*pid, leader));
        leaves
            .iter()
            .zip(found.iter().zip(&left))
            .map(|((one, _), (found, left))| Swept {
                killed: found
                    .difference(left)
                    .map(|pid| pid.cast_unsigned())
                    .collect(),
                survivors: left.iter().map(survivor(one.leader)).collect(),
            })
            .collect()
    }

    /// Kills those in a run's directory without its help, as long as there are any.
    fn kill_one_by_one(&self, leaf: &Leaf) {
        for _ in 0..ROUNDS {
            if leaf.is_empty() {
                break;
            }
            self.send_to(leaf, Signal::KILL, |_| true);
        }
    }

    /// Sends a signal to those in a run's directory whom a signal to the leader's group does not reach.
    pub(super) fn signal_others(&self, leaf: &Leaf, leader: i32, signal: Signal) {
        self.send_to(leaf, signal, |pid| is_outside_group(pid, leader));
    }

    fn send_to(&self, leaf: &Leaf, signal: Signal, is_meant: impl Fn(i32) -> bool) {
        let Some(cgroups) = &self.cgroups else {
            return;
        };
        let members = || cgroups.members(leaf).unwrap_or_default();
        let mut meant = members();
        meant.retain(|pid| is_meant(*pid));
        if meant.is_empty() {
            return;
        }
        let pinned: Vec<(i32, OwnedFd)> = meant.into_iter().filter_map(pinned).collect();
        // Asked again, since an id may have been used anew before it was pinned. Who is there now is one of them in any case.
        let members = members();
        for (_, pidfd) in pinned.iter().filter(|(pid, _)| members.contains(pid)) {
            send(pidfd, signal);
        }
    }

    /// The members of these leaders' sessions whom a signal to the leader's group does not reach, each with its leader.
    pub(super) fn others(&self, leaders: &[i32]) -> Vec<(i32, OwnedFd)> {
        session::outside_the_group(leaders, &self.everyone)
    }

    /// Kills everybody, without waiting.
    pub(super) fn kill_all(&self) {
        if let Some(cgroups) = &self.cgroups {
            cgroups.kill_all();
        }
        if let Some(adopter) = &self.adopter {
            adopter.kill_all(&self.mark, &self.everyone);
        }
    }

    /// Kills what got away from its run and removes what was made for the runs; none is left. Should there be one later, all
    /// is made anew. Returns who could not be killed.
    pub(super) fn finish(&self) -> Vec<Survivor> {
        let in_groups = self
            .cgroups
            .iter()
            .flat_map(|cgroups| cgroups.finish(self.clock));
        let mut left: Vec<Survivor> = in_groups
            .map(|pid| Survivor::new(pid, Escape::Unkillable))
            .collect();
        left.extend(match &self.adopter {
            Some(adopter) => adopter.finish(&self.mark, &self.everyone, self.clock),
            None if self.cgroups().is_some() => Vec::new(),
            None => session::sweep_marked(&self.mark, &self.everyone, self.clock),
        });
        left
    }

    /// Removes what was made for the runs, without waiting for anybody.
    pub(super) fn remove(&self) {
        if let Some(cgroups) = &self.cgroups {
            cgroups.remove();
        }
    }
}

/// Kills and removes what runtimes that are gone have left in control groups below our own. Each runtime does so when it begins;
/// this is for who outlives one. Returns what is to be said of it.
pub fn clean_up_after_the_dead() -> Vec<String> {
    let left = cgroup::clean_below_ours(Clock::start());
    left.iter().map(said_of).collect()
}

fn said_of(left: &Left) -> String {
    let count = |pids: &[i32]| match pids.len() {
        1 => "1 process".to_owned(),
        many => format!("{many} processes"),
    };
    let (owner, killed) = (left.owner, count(&left.killed));
    let survivors = match left.survivors.len() {
        0 => String::new(),
        _ => format!("; {} could not be", count(&left.survivors)),
    };
    format!(
        "an earlier runtime, process {owner}, is gone: killed {killed} that it had left{survivors}"
    )
}

fn is_outside_group(pid: i32, leader: i32) -> bool {
    let group = Pid::from_raw(pid).and_then(|id| rustix::process::getpgid(Some(id)).ok());
    group.is_some_and(|group| group.as_raw_nonzero().get() != leader)
}

fn pinned(pid: i32) -> Option<(i32, OwnedFd)> {
    let id = Pid::from_raw(pid)?;
    let pidfd = rustix::process::pidfd_open(id, PidfdFlags::empty()).ok()?;
    Some((pid, pidfd))
}

/// One that is gone already needs none.
pub(super) fn send(pidfd: &OwnedFd, signal: Signal) {
    use std::os::fd::AsRawFd;
    drop(kernel::signal_process(pidfd.as_raw_fd(), signal.number()));
}
