//! The state of one node.

use std::time::Duration;

use crate::policy::admission::RequestId;
use crate::policy::event::{EndedBy, FailedBecause};
use crate::policy::exit::{Exit, SuccessCodes};
use crate::policy::intensity::{Intensity, Stamps};
use crate::policy::order::{Edge, Need, Place, Rules};
use crate::policy::restart::{AutoShutdown, Restart, Strategy};
use crate::policy::spec::{
    ChildName, Condition, Governor, Kind, NodeId, OnLimit, Readiness, RunId, StopSpec,
};
use crate::policy::time::Moment;
use crate::policy::tree::plan::PlanId;

/// A child or supervisor, its rules and where it stands.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that are true or not, each by itself"
)]
pub(super) struct Node {
    pub(super) name: ChildName,
    pub(super) parent: NodeId,
    /// Among the members of its supervisor.
    pub(super) position: u32,
    pub(super) wave: u32,
    pub(super) restart: Restart,
    pub(super) governor: Governor,
    pub(super) significant: bool,
    /// Those to its members left out.
    pub(super) outgoing: Vec<Gate>,
    pub(super) incoming: Vec<(NodeId, Need)>,
    /// How many gates into it are not met; a plan that stops it for what it depends on is one until it is over.
    pub(super) unmet: u32,
    /// Whether the member listed before it holds it up.
    pub(super) held_up: bool,
    pub(super) wanted: Wanted,
    pub(super) life: Life,
    /// The plan that stops it, or is going to.
    pub(super) plan: Option<PlanId>,
    /// Why that plan stops it, if it is for what it depends on.
    pub(super) yields: Option<Cause>,
    /// None for most: a dependency that matters only at the start is no more than a gate.
    pub(super) edges: Option<Box<Edges>>,
    pub(super) history: History,
    /// Whether it holds nobody up who is listed after it, at the last look.
    pub(super) passes: bool,
    /// Whether it was ready at some time since its supervisor began.
    pub(super) has_passed: bool,
    /// How many runs it has had.
    pub(super) runs: u64,
    pub(super) last_exit: Option<(Exit, EndedBy)>,
    pub(super) pid: Option<u32>,
    pub(super) body: Body,
}

/// A gate out of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate {
    pub(super) to: NodeId,
    pub(super) need: Need,
    pub(super) met: bool,
}

/// The edges at a node, and what those that follow it were last told.
#[derive(Debug, Default)]
pub(super) struct Edges {
    /// Those to what it depends on.
    pub(super) follows: Vec<Edge>,
    /// Those to what depends on it.
    pub(super) followers: Vec<Edge>,
    pub(super) look: Look,
}

/// A dependency as it was at the last look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    pub(super) standing: Standing,
    pub(super) run: Option<RunId>,
    /// Whether it ever ran.
    pub(super) has_run: bool,
}

/// How a dependency stands to those that follow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// It runs, or is going to by itself.
    Up,
    /// It runs, and is no longer ready.
    Unready,
    /// It is down, and nothing of ours is going to start it unasked.
    #[default]
    Down,
}

/// What became of a dependency; what weighs more is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// Another run of it follows the one that ended.
    Restart,
    /// It is down for good, or is no longer ready.
    Loss,
}

/// What an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Up,
    Down,
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Not running, and nothing of ours will start it unasked.
    Down(Why),
    /// Starts when its gates are met.
    Pending(Origin),
    /// Starts again when its group does.
    Held,
    /// Starts again when its timer goes off.
    Backoff { key: u64, until: Moment, what: Wait },
    /// Running. Of a child: from the order to start until its exit is known.
    Live {
        run: RunId,
        phase: Phase,
        since: Moment,
        origin: Origin,
    },
}

/// What a timer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The delay before a restart that is already counted.
    Restart,
    /// The delay before the restart of its whole group; its supervisor holds the timer.
    Group,
    /// OTP's retry of a failed start, which is counted when it is due.
    Retry,
}

/// Why a node is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Nobody has asked for it.
    NotAsked,
    /// An operator wants it down, or the tree ends.
    Stopped,
    /// It ended well and is not restarted.
    Completed,
    /// It is given up.
    Failed(FailedBecause),
    /// It was stopped together with its group or its supervisor.
    Grouped,
    /// It is left out.
    Deleted,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Starting,
    Running,
    Ready,
    /// It was ready, and is no longer.
    Unready,
    Stopping,
}

/// What a start is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The start of its supervisor.
    First,
    /// The restart of its group.
    Group,
    /// Its own restart.
    Restart,
    /// An operator's wish.
    Operator,
    /// The return of what it depends on.
    Return(Cause),
}

/// What the governor remembers.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) stamps: Stamps,
    /// Unstable runs in a row.
    pub(super) unstable: u32,
    /// Starts in a row that failed for want of resources.
    pub(super) exhausted: u32,
    pub(super) restarts: u64,
}

#[derive(Debug)]
pub(super) enum Body {
    Child(ChildBody),
    Supervisor(Box<SupervisorBody>),
}

#[derive(Debug)]
pub(super) struct ChildBody {
    pub(super) kind: Kind,
    pub(super) success: SuccessCodes,
    pub(super) stop: StopSpec,
    pub(super) readiness: Readiness,
    /// Of one whose readiness is reported.
    pub(super) start_timeout: Option<Duration>,
    /// When its run must be ready.
    pub(super) deadline: Option<Deadline>,
    /// Who has its run stopped as one that failed.
    pub(super) condemned: Option<EndedBy>,
    /// Of a one-shot command.
    pub(super) request: Option<RequestId>,
}

/// The start timeout of a run. Its timer is set anew when it goes off early, so that to extend it costs nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    pub(super) key: u64,
    pub(super) began: Moment,
    pub(super) due: Moment,
}

#[derive(Debug)]
pub(super) struct SupervisorBody {
    pub(super) strategy: Strategy,
    pub(super) intensity: Option<Intensity>,
    pub(super) on_limit: OnLimit,
    pub(super) auto_shutdown: AutoShutdown,
    pub(super) members: Vec<NodeId>,
    /// Those below it that others follow: what becomes of it decides whether they come back.
    pub(super) followed: Vec<NodeId>,
    /// Whether its members may begin, as they were last told.
    pub(super) has_begun: bool,
    pub(super) stamps: Stamps,
    /// How many members hold up who comes after this supervisor.
    pub(super) unsettled: usize,
    pub(super) regroup: Option<Regroup>,
    /// The plan that decides what becomes of this supervisor.
    pub(super) owner: Option<PlanId>,
}

/// A group restart under way: the group starts when all of it is down and the delay is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Regroup {
    /// The first member that takes part.
    pub(super) from: u32,
    /// The plan that stops the group.
    pub(super) plan: PlanId,
    pub(super) key: u64,
    pub(super) ready_at: Moment,
    pub(super) is_down: bool,
    pub(super) is_due: bool,
}

impl Node {
    pub(super) fn new(place: &Place<'_>, wave: u32) -> Self {
        let (restart, governor, significant, body) = match place.rules {
            Rules::Child(rules) => {
                let child = ChildBody {
                    kind: rules.kind,
                    success: rules.success.clone(),
                    stop: rules.stop,
                    readiness: rules.readiness,
                    start_timeout: rules
                        .start_timeout
                        .filter(|_| rules.readiness == Readiness::Reported),
                    deadline: None,
                    condemned: None,
                    request: None,
                };
                (
                    rules.restart,
                    rules.governor,
                    rules.significant,
                    Body::Child(child),
                )
            }
            Rules::Supervisor(rules) => {
                let supervisor = SupervisorBody {
                    strategy: rules.strategy,
                    intensity: rules.intensity,
                    on_limit: rules.on_limit,
                    auto_shutdown: rules.auto_shutdown,
                    members: place.members.clone(),
                    followed: Vec::new(),
                    has_begun: false,
                    stamps: Stamps::default(),
                    unsettled: place.members.len(),
                    regroup: None,
                    owner: None,
                };
                (
                    rules.restart,
                    rules.governor,
                    rules.significant,
                    Body::Supervisor(Box::new(supervisor)),
                )
            }
        };
        Self {
            name: place.rules.name().clone(),
            parent: place.parent,
            position: place.position,
            wave,
            restart,
            governor,
            significant,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            unmet: 0,
            held_up: false,
            wanted: Wanted::Down,
            life: Life::Down(Why::NotAsked),
            plan: None,
            yields: None,
            edges: None,
            history: History::default(),
            passes: false,
            has_passed: false,
            runs: 0,
            last_exit: None,
            pid: None,
            body,
        }
    }

    /// A place for a one-shot command below the root. It stops before everything else.
    pub(super) fn one_shot(name: ChildName, request: RequestId, stop: StopSpec) -> Self {
        Self {
            name,
            parent: NodeId::ROOT,
            position: u32::MAX,
            wave: u32::MAX,
            restart: Restart::Never,
            governor: Governor::NONE,
            significant: false,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            unmet: 0,
            held_up: false,
            wanted: Wanted::Up,
            life: Life::Down(Why::NotAsked),
            plan: None,
            yields: None,
            edges: None,
            history: History::default(),
            passes: true,
            has_passed: true,
            runs: 0,
            last_exit: None,
            pid: None,
            body: Body::Child(ChildBody {
                kind: Kind::Task,
                success: SuccessCodes::default(),
                stop,
                readiness: Readiness::Running,
                start_timeout: None,
                deadline: None,
                condemned: None,
                request: Some(request),
            }),
        }
    }

    pub(super) fn supervisor(&self) -> Option<&SupervisorBody> {
        match &self.body {
            Body::Supervisor(supervisor) => Some(supervisor),
            Body::Child(_) => None,
        }
    }

    pub(super) fn supervisor_mut(&mut self) -> Option<&mut SupervisorBody> {
        match &mut self.body {
            Body::Supervisor(supervisor) => Some(supervisor),
            Body::Child(_) => None,
        }
    }

    pub(super) fn child_mut(&mut self) -> Option<&mut ChildBody> {
        match &mut self.body {
            Body::Child(child) => Some(child),
            Body::Supervisor(_) => None,
        }
    }

    pub(super) fn request(&self) -> Option<RequestId> {
        match &self.body {
            Body::Child(child) => child.request,
            Body::Supervisor(_) => None,
        }
    }

    pub(super) fn grace(&self) -> Duration {
        match &self.body {
            Body::Child(child) => child.stop.grace(),
            Body::Supervisor(_) => Duration::ZERO,
        }
    }

    pub(super) fn live_run(&self) -> Option<RunId> {
        match self.life {
            Life::Live { run, .. } => Some(run),
            Life::Down(_) | Life::Pending(_) | Life::Held | Life::Backoff { .. } => None,
        }
    }

    /// Who wanted the end of its run, which has just come.
    pub(super) fn ended_by(&self) -> EndedBy {
        let condemned = match &self.body {
            Body::Child(child) => child.condemned,
            Body::Supervisor(_) => None,
        };
        match (self.plan, condemned) {
            _ if !self.is_stopping() => EndedBy::Itself,
            (None, Some(by)) => by,
            // A plan that took it over makes the verdict void.
            (Some(_), _) if self.yields.is_some() => EndedBy::Dependency,
            (Some(_) | None, _) => EndedBy::Supervisor,
        }
    }

    /// Live, and nothing has asked it to stop.
    pub(super) fn is_up(&self) -> bool {
        matches!(
            self.life,
            Life::Live {
                phase: Phase::Starting | Phase::Running | Phase::Ready | Phase::Unready,
                ..
            }
        )
    }

    pub(super) fn is_stopping(&self) -> bool {
        matches!(
            self.life,
            Life::Live {
                phase: Phase::Stopping,
                ..
            }
        )
    }

    /// Whether a gate with this need is open.
    pub(super) fn meets(&self, need: Need) -> bool {
        match need {
            Need::Begun => self.is_up(),
            // What does not run holds nobody up by itself, and lets through only what may pass the one before it.
            Need::Passed => self.passes_now() && (self.is_up() || !self.held_up),
            Need::Condition(condition) => self.satisfies(condition),
        }
    }

    fn satisfies(&self, condition: Condition) -> bool {
        match (condition, &self.body) {
            (Condition::Started, Body::Child(_)) => matches!(
                self.life,
                Life::Live {
                    phase: Phase::Running | Phase::Ready | Phase::Unready,
                    ..
                } | Life::Down(Why::Completed)
            ),
            (Condition::Started | Condition::Ready, _) => self.is_ready(),
            (Condition::Completed, _) => {
                matches!(self.life, Life::Down(Why::Completed | Why::Failed(_)))
            }
            (Condition::Succeeded, _) => self.life == Life::Down(Why::Completed),
        }
    }

    fn is_ready(&self) -> bool {
        match &self.body {
            Body::Child(child) => {
                let is_done = child.kind == Kind::Task && self.life == Life::Down(Why::Completed);
                is_done
                    || matches!(
                        self.life,
                        Life::Live {
                            phase: Phase::Ready,
                            ..
                        }
                    )
            }
            Body::Supervisor(supervisor) => {
                supervisor.unsettled == 0
                    && matches!(
                        self.life,
                        Life::Live {
                            phase: Phase::Ready,
                            ..
                        }
                    )
            }
        }
    }

    /// Whether who is listed after it may start.
    ///
    /// What is down on purpose holds nobody up. What failed does, unless it had been ready before: then those after it
    /// have started already, and a restart of their group must not leave them down.
    pub(super) fn passes_now(&self) -> bool {
        match self.life {
            Life::Down(Why::NotAsked | Why::Stopped | Why::Completed | Why::Deleted) => true,
            Life::Down(Why::Grouped) => self.restart == Restart::Never,
            Life::Down(Why::Failed(_)) => self.has_passed,
            Life::Live { .. } => self.is_ready(),
            Life::Pending(_) | Life::Held | Life::Backoff { .. } => false,
        }
    }
}
