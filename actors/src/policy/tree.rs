//! The machine of the whole tree. (skeleton of the interface)
use crate::policy::admission::{Rejection, RequestId};
use crate::policy::event::{ShutdownReason, TreeEvent};
use crate::policy::exit::Exit;
use crate::policy::spec::{NodeId, RunId, StopSpec};
use crate::policy::time::Moment;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What happened, when, and the random number to decide with: one line of a recorded life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    pub event: Event,
    pub now: Moment,
    pub random: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The whole tree is to start.
    StartAll,
    /// These are to start, with what they depend on (`Reach::Connected`) or alone and ungated (`Reach::Alone`; OTP restart_child).
    Start {
        nodes: Vec<NodeId>,
        reach: Reach,
    },
    /// These are to stop, with what depends on them, or alone (OTP terminate_child).
    Stop {
        nodes: Vec<NodeId>,
        reach: Reach,
    },
    /// These are to stop and start again; their counters are cleared.
    Restart {
        nodes: Vec<NodeId>,
    },
    /// This one is to be forgotten (OTP delete_child). Only if it is down.
    Delete {
        node: NodeId,
    },
    /// A one-shot command is asked for.
    Request {
        request: RequestId,
        stop: StopSpec,
    },
    /// A one-shot command is no longer wanted.
    Cancel {
        request: RequestId,
    },
    Started {
        child: NodeId,
        run: RunId,
        pid: Option<u32>,
    },
    Ready {
        child: NodeId,
        run: RunId,
    },
    /// The run ended, or never began (`Exit::NotStarted`).
    Exited {
        child: NodeId,
        run: RunId,
        exit: Exit,
    },
    /// A nested supervisor's actor is gone (OTP: the supervisor was killed).
    SupervisorLost {
        supervisor: NodeId,
        run: RunId,
    },
    /// A timer that `Effect::WakeAfter` set went off.
    Due {
        timer: Timer,
    },
    ShutdownRequested {
        mode: ShutdownMode,
        reason: ShutdownReason,
        budget: Option<Duration>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reach {
    Connected,
    Alone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShutdownMode {
    Graceful,
    Forced,
}

/// Names a timer; one that is no longer awaited changes nothing when it goes off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Timer {
    pub node: NodeId,
    pub key: u64,
}

/// What must be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Begin this run; `supervisor` is the nested supervisor (or root) under which its actor lives.
    Start {
        child: NodeId,
        run: RunId,
    },
    /// Ask it to stop; kill it after the grace.
    Stop {
        child: NodeId,
        run: RunId,
        grace: Duration,
    },
    Kill {
        child: NodeId,
        run: RunId,
    },
    /// Its end was taken note of: its actor may end.
    Release {
        child: NodeId,
        run: RunId,
    },
    /// Begin / end the actor of a nested supervisor.
    Open {
        supervisor: NodeId,
        run: RunId,
    },
    Close {
        supervisor: NodeId,
        run: RunId,
    },
    WakeAfter {
        timer: Timer,
        delay: Duration,
    },
    /// The request has this place and run now; a Start for it follows.
    Admitted {
        request: RequestId,
        child: NodeId,
        run: RunId,
    },
    Queued {
        request: RequestId,
    },
    Rejected {
        request: RequestId,
        why: Rejection,
    },
    Announce(TreeEvent),
    /// All is down; the last effect ever.
    Finished(Finish),
}

/// How the tree ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finish {
    pub reason: ShutdownReason,
    pub forced: bool,
    pub failed: Vec<crate::policy::spec::ChildName>,
}

/// How a node is listed by its own supervisor (OTP: which_children).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    NoSupervisor,
    NotFound,
    Down,
    Restarting,
    Running,
}

/// The state of a child as people are shown it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    Pending,
    Starting,
    Running,
    Ready,
    Stopping,
    Stopped,
    Backoff,
    Completed,
    Failed,
    Lost,
}

// impl Tree {
//   pub fn new(rules: TreeRules, first_run: RunId) -> Result<Tree, Vec<RuleError>>;
//   #[must_use] pub fn next(&mut self, input: &Input) -> Vec<Effect>;
//   pub fn find(&self, name: &str) -> Option<NodeId>;
//   pub fn name(&self, node: NodeId) -> &ChildName;
//   pub fn nodes(&self) -> impl Iterator<Item = NodeId>   // all fixed nodes in tree order (pre-order), root first
//   pub fn is_supervisor(&self, node) -> bool; parent(node) -> NodeId; wave(node) -> u32
//   pub fn listing(&self, node: NodeId) -> Listing;
//   pub fn live_run(&self, node: NodeId) -> Option<RunId>;   // child with a process, or supervisor that runs
//   pub fn state(&self, node: NodeId) -> State;
//   pub fn dependencies(&self, node) -> Vec<(NodeId, Condition)>
//   pub fn is_finished(&self) -> bool; is_shutting_down
//   #[doc(hidden)] pub fn visited(&self) -> u64  // slots looked at by the last next()
// }
