//! What people and tests are shown of the tree.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::event::{EndedBy, FailedBecause};
use crate::policy::exit::Exit;
use crate::policy::order::Need;
use crate::policy::restart::Restart;
use crate::policy::spec::{ChildName, Condition, NodeId, RunId};
use crate::policy::telemetry::Operation;
use crate::policy::time::Moment;
use crate::policy::tree::node::{Body, Life, Origin, Phase, Wait, Wanted, Why};
use crate::policy::tree::{Phase as TreePhase, Tree};

/// The state of a child as people are shown it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Wanted, and waiting for others or its group.
    Pending,
    /// Its run is being started.
    Starting,
    /// Its run runs and is not ready.
    Running,
    /// Its run is ready.
    Ready,
    /// Its run was asked to stop.
    Stopping,
    /// Down on purpose.
    Stopped,
    /// It starts again after a delay.
    Backoff,
    /// It ended well.
    Completed,
    /// It is given up.
    Failed,
    /// Nothing is known of it.
    Lost,
}

impl State {
    /// Its name, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Backoff => "backoff",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }
}

/// What is to be said of one child or supervisor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChildStatus {
    /// Its name.
    pub name: ChildName,
    /// The supervisor that it belongs to; none for the root.
    pub supervisor: Option<ChildName>,
    /// Whether it is itself a supervisor.
    pub is_supervisor: bool,
    /// Its state.
    pub state: State,
    /// Its run, if there is one.
    pub run: Option<RunId>,
    /// The process of that run; none for a task of the program itself.
    pub pid: Option<u32>,
    /// How many runs it has had.
    pub runs: u64,
    /// How many of them were restarts of its own: neither with its group, nor after what it depends on, nor by an operator.
    pub restarts: u64,
    /// How many unstable runs in a row it had.
    pub unstable: u32,
    /// Since when its run, or it as a supervisor, is ready.
    #[serde(default)]
    pub ready_since: Option<Moment>,
    /// How its last run ended.
    pub last_exit: Option<Exit>,
    /// Who wanted that.
    #[serde(default)]
    pub ended_by: Option<EndedBy>,
    /// When it starts again, from now; in backoff.
    pub starts_in: Option<Duration>,
    /// Why it is failed.
    pub failed: Option<FailedBecause>,
    /// Whom it waits for; pending.
    pub blocked_by: Vec<ChildName>,
}

/// How a node is listed by its own supervisor (OTP: `which_children`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// That supervisor does not run.
    NoSupervisor,
    /// Not at all: deleted, or temporary and ended.
    NotFound,
    /// As one that is down.
    Down,
    /// As one that is going to be started again.
    Restarting,
    /// As one that runs.
    Running,
}

impl Tree {
    /// The node with this name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        let name = ChildName::new(name).ok()?;
        self.names.get(&name).copied()
    }

    /// A node's name.
    pub fn name(&self, id: NodeId) -> &ChildName {
        &self.node(id).name
    }

    /// All children and supervisors in the order of the tree, the root first; no one-shot commands.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..u32::try_from(self.names.len()).unwrap_or(u32::MAX)).map(NodeId)
    }

    /// Whether a node is a supervisor.
    pub fn is_supervisor(&self, id: NodeId) -> bool {
        self.node(id).supervisor().is_some()
    }

    /// The supervisor of a node; the root's is itself.
    pub fn parent(&self, id: NodeId) -> NodeId {
        self.node(id).parent
    }

    /// A node's wave: the length of the longest chain of children that are ready before it.
    pub fn wave(&self, id: NodeId) -> u32 {
        self.node(id).wave
    }

    /// The run of a child that has one, or the life of a supervisor that runs.
    pub fn live_run(&self, id: NodeId) -> Option<RunId> {
        self.node(id).live_run()
    }

    /// What is being done to this run of a child, and since when; nothing to one that runs.
    pub fn under_way(&self, id: NodeId, run: RunId) -> Option<(Operation, Moment)> {
        let node = self.nodes.get(id.index())?;
        match node.life {
            Life::Live {
                run: live,
                phase,
                since,
                origin,
            } if live == run => {
                let operation = match (phase, origin) {
                    (Phase::Starting, Origin::First | Origin::Operator) => Operation::Start,
                    (Phase::Starting, Origin::Group | Origin::Restart | Origin::Return(_)) => {
                        Operation::Restart
                    }
                    (Phase::Stopping, _) => Operation::Stop,
                    (Phase::Running | Phase::Ready | Phase::Unready, _) => return None,
                };
                Some((operation, since))
            }
            Life::Live { .. }
            | Life::Down(_)
            | Life::Pending(_)
            | Life::Held
            | Life::Backoff { .. } => None,
        }
    }

    /// What a child depends on.
    pub fn dependencies(&self, id: NodeId) -> Vec<(NodeId, Condition)> {
        let of_need = |(from, need): &(NodeId, Need)| match need {
            Need::Condition(condition) => Some((*from, *condition)),
            Need::Begun | Need::Passed => None,
        };
        self.node(id).incoming.iter().filter_map(of_need).collect()
    }

    /// Whether a condition holds of a node now.
    pub fn holds(&self, id: NodeId, condition: Condition) -> bool {
        self.node(id).meets(Need::Condition(condition))
    }

    /// Whether the end has begun.
    pub fn is_shutting_down(&self) -> bool {
        matches!(self.phase, TreePhase::ShuttingDown(_) | TreePhase::Finished)
    }

    /// Whether the end has come.
    pub fn is_finished(&self) -> bool {
        self.phase == TreePhase::Finished
    }

    /// How many nodes the last decision looked at; one looked at twice counts twice.
    #[doc(hidden)]
    pub fn visited(&self) -> u64 {
        self.visited.get()
    }

    /// How a node is listed by its own supervisor.
    pub fn listing(&self, id: NodeId) -> Listing {
        let node = self.node(id);
        if !self.node(node.parent).is_up() {
            return Listing::NoSupervisor;
        }
        match node.life {
            Life::Down(Why::Deleted) => Listing::NotFound,
            Life::Down(_) if node.restart == Restart::Never => Listing::NotFound,
            Life::Down(_) | Life::Pending(_) | Life::Held => Listing::Down,
            Life::Backoff { .. } => Listing::Restarting,
            Life::Live { .. } => Listing::Running,
        }
    }

    /// The state of a node as people are shown it.
    pub fn state(&self, id: NodeId) -> State {
        let node = self.node(id);
        match node.life {
            // It starts together with its supervisor, if that does.
            Life::Down(Why::NotAsked | Why::Grouped)
                if node.wanted == Wanted::Up
                    && self.may_start()
                    && self.is_awaited(node.parent) =>
            {
                State::Pending
            }
            Life::Down(Why::NotAsked | Why::Stopped | Why::Grouped | Why::Deleted) => {
                State::Stopped
            }
            Life::Down(Why::Completed) => State::Completed,
            Life::Down(Why::Failed(_)) => State::Failed,
            Life::Pending(_) | Life::Held => State::Pending,
            Life::Backoff { .. } => State::Backoff,
            Life::Live {
                phase: Phase::Starting,
                ..
            } => State::Starting,
            Life::Live {
                phase: Phase::Running | Phase::Unready,
                ..
            } => State::Running,
            Life::Live {
                phase: Phase::Ready,
                ..
            } => State::Ready,
            Life::Live {
                phase: Phase::Stopping,
                ..
            } => State::Stopping,
        }
    }

    /// Whether a supervisor does not run and is going to, as far as is known.
    fn is_awaited(&self, supervisor: NodeId) -> bool {
        supervisor != NodeId::ROOT
            && match self.state(supervisor) {
                State::Pending | State::Backoff | State::Stopping => true,
                State::Starting
                | State::Running
                | State::Ready
                | State::Stopped
                | State::Completed
                | State::Failed
                | State::Lost => false,
            }
    }

    /// What is to be said of a node.
    pub fn status(&self, id: NodeId) -> ChildStatus {
        let node = self.node(id);
        let is_supervisor = matches!(node.body, Body::Supervisor(_));
        let unmet = node
            .incoming
            .iter()
            .filter(|(from, need)| !self.node(*from).meets(*need));
        let is_pending = matches!(node.life, Life::Pending(_));
        ChildStatus {
            name: node.name.clone(),
            supervisor: (id != NodeId::ROOT).then(|| self.node(node.parent).name.clone()),
            is_supervisor,
            state: self.state(id),
            run: node.live_run(),
            pid: node.pid,
            runs: node.runs,
            restarts: node.history.restarts,
            unstable: node.history.unstable,
            ready_since: match node.life {
                Life::Live {
                    phase: Phase::Ready,
                    since,
                    ..
                } => Some(since),
                Life::Live { .. }
                | Life::Down(_)
                | Life::Pending(_)
                | Life::Held
                | Life::Backoff { .. } => None,
            },
            last_exit: node.last_exit.map(|(exit, _)| exit),
            ended_by: node.last_exit.map(|(_, by)| by),
            starts_in: match node.life {
                Life::Backoff {
                    until,
                    what: Wait::Restart | Wait::Group | Wait::Retry,
                    ..
                } => Some(until.since(self.now)),
                Life::Down(_) | Life::Pending(_) | Life::Held | Life::Live { .. } => None,
            },
            failed: match node.life {
                Life::Down(Why::Failed(why)) => Some(why),
                Life::Down(_)
                | Life::Pending(_)
                | Life::Held
                | Life::Backoff { .. }
                | Life::Live { .. } => None,
            },
            blocked_by: if is_pending {
                unmet
                    .map(|(from, _)| self.node(*from).name.clone())
                    .collect()
            } else {
                Vec::new()
            },
        }
    }

    /// The children that have failed, and those that could not start because of one that has.
    pub(super) fn failed_names(&self) -> Vec<ChildName> {
        let has_failed = |id: &NodeId| {
            matches!(
                self.node(*id).life,
                Life::Down(Why::Failed(_)) | Life::Pending(_)
            )
        };
        self.nodes()
            .filter(|id| *id != NodeId::ROOT)
            .filter(has_failed)
            .map(|id| self.name(id).clone())
            .collect()
    }
}
