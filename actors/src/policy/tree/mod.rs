//! The machine of the whole tree: what happened goes in, what must be done comes out.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Pending: wanted up
//!     Pending --> Live: every gate met
//!     Live --> Live: started, ready, no longer ready
//!     Live --> Stopping: a plan asks it to, or a probe or its start timeout condemns it
//!     Stopping --> Down: exited
//!     Stopping --> Held: exited, its group restarts
//!     Stopping --> Pending: exited, what it follows restarts or is lost
//!     Stopping --> Backoff: exited, was condemned
//!     Live --> Backoff: exited, restart later
//!     Live --> Held: exited, its group restarts
//!     Live --> Down: exited for good
//!     Backoff --> Live: due
//!     Held --> Pending: the group is down and due
//!     Down --> Pending: operator, group, supervisor
//! ```
//!
//! One file a concern: `node` is the state, `gate` who may start, `start`; `plan` stops a set in reverse and goes on, for
//! `group` restarts, the `operator`, the end of a `supervisor` and the `shutdown`; `end` is what an exit leads to, `health` what
//! probes and the start timeout say of a run, `edge` what the restart or loss of a dependency means to who follows it, `request`
//! one-shot commands, `status` what people are shown.
//!
//! A decision looks only at the nodes that it concerns: the node itself, its gates, its edges, its group.
//!
//! The facts tell where the time of a start goes: a child is ordered to start ([`Fact::Starting`]) in the very step in which
//! the last of its gates is met, so the time between two facts of a chain is always some child's own.

mod edge;
mod end;
mod gate;
mod group;
mod health;
mod node;
mod operator;
mod plan;
mod request;
mod shutdown;
mod start;
mod status;
mod supervisor;
#[cfg(test)]
mod trial;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::admission::{Admission, ClientId, Rejection, RequestId};
use crate::policy::event::{Bound, Fact, ShutdownReason, TreeEvent};
use crate::policy::exit::Exit;
use crate::policy::order::{self, RuleError};
use crate::policy::spec::{ChildName, Dialect, Lifetime, NodeId, RunId, StopSpec, TreeRules};
use crate::policy::time::Moment;

use node::{Body, Life, Node, Why};
use plan::{Plan, PlanId};
pub use status::{ChildStatus, Listing, State};

/// What happened, when, and the random number to decide with: one line of a recorded life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// What happened.
    pub event: Event,
    /// When.
    pub now: Moment,
    /// Decides the jitter.
    pub random: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The whole tree is to start.
    StartAll,
    /// These are to start.
    Start {
        /// Children or supervisors.
        nodes: Vec<NodeId>,
        /// With what they depend on, in order; or alone and at once (OTP: `restart_child`).
        reach: Reach,
    },
    /// These are to stop.
    Stop {
        /// Children or supervisors.
        nodes: Vec<NodeId>,
        /// With what depends on them, that first; or alone (OTP: `terminate_child`).
        reach: Reach,
    },
    /// These are to stop, if they run, and to start again; their counters are cleared.
    Restart {
        /// Children or supervisors.
        nodes: Vec<NodeId>,
    },
    /// This one, which is down, is to be left out of its group from now on (OTP: `delete_child`).
    Delete {
        /// A child or supervisor.
        node: NodeId,
    },
    /// A one-shot command is asked for.
    Request {
        /// Names it.
        request: RequestId,
        /// How it is stopped.
        stop: StopSpec,
        /// On whose behalf.
        #[serde(default)]
        client: ClientId,
    },
    /// A one-shot command is no longer wanted.
    Cancel {
        /// Which.
        request: RequestId,
    },
    /// A run's process exists.
    Started {
        /// The child.
        child: NodeId,
        /// The run.
        run: RunId,
        /// The process; none for a task of the program itself.
        pid: Option<u32>,
    },
    /// A run whose readiness is reported is ready.
    Ready {
        /// The child.
        child: NodeId,
        /// The run.
        run: RunId,
    },
    /// A run whose readiness is reported is no longer ready.
    Unready {
        /// The child.
        child: NodeId,
        /// The run.
        run: RunId,
    },
    /// A run does not live any more, says its liveness probe: it is to be ended, which counts as its own failure.
    Unhealthy {
        /// The child.
        child: NodeId,
        /// The run.
        run: RunId,
    },
    /// A run exceeded a bound on its time, and stops for that already: it counts as its own failure.
    Overran {
        /// The child.
        child: NodeId,
        /// The run.
        run: RunId,
        /// Which bound.
        bound: Bound,
        /// How long that is.
        limit: Duration,
        /// Whether it waited for something to come on its stdin.
        waits_for_input: bool,
    },
    /// A run that is not ready yet is to have this long from now at least, whatever its start timeout says
    /// (`EXTEND_TIMEOUT_USEC` of `sd_notify(3)`).
    StartExtended {
        /// The child.
        child: NodeId,
        /// The run.
        run: RunId,
        /// How long.
        by: Duration,
    },
    /// The kernel killed a process of a run for lack of memory; told right before the end of the run.
    OutOfMemory {
        /// The child.
        child: NodeId,
        /// The run.
        run: RunId,
    },
    /// A run ended, or never began ([`Exit::NotStarted`]).
    Exited {
        /// The child.
        child: NodeId,
        /// The run.
        run: RunId,
        /// How.
        exit: Exit,
    },
    /// The actor of a nested supervisor is gone, and what it held dies with it (OTP: the supervisor was killed).
    SupervisorLost {
        /// The supervisor.
        supervisor: NodeId,
        /// Which of its lives.
        run: RunId,
    },
    /// A timer that [`Effect::WakeAfter`] set went off.
    Due {
        /// Which.
        timer: Timer,
    },
    /// The whole tree is to end.
    ShutdownRequested {
        /// In order, or at once.
        mode: ShutdownMode,
        /// Why.
        reason: ShutdownReason,
        /// How long it may take in all; none: as long as it takes.
        budget: Option<Duration>,
    },
}

/// How far an operator's wish reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reach {
    /// Along the dependencies.
    Connected,
    /// No further.
    Alone,
}

/// How a tree is shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShutdownMode {
    /// Wave by wave, each asked and given its grace.
    Graceful,
    /// Everything is killed now.
    Forced,
}

/// Names a timer; one that nobody waits for any more changes nothing when it goes off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Timer {
    /// Whose.
    pub node: NodeId,
    /// Never repeats.
    pub key: u64,
}

/// What must be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    /// Begin this run.
    Start {
        /// The child.
        child: NodeId,
        /// The run.
        run: RunId,
    },
    /// Ask this run to stop, and kill it after the grace.
    Stop {
        /// The child.
        child: NodeId,
        /// The run.
        run: RunId,
        /// How long it may take.
        grace: Duration,
    },
    /// Kill this run.
    Kill {
        /// The child.
        child: NodeId,
        /// The run.
        run: RunId,
    },
    /// The end of this run was taken note of: its actor may end.
    Release {
        /// The child.
        child: NodeId,
        /// The run.
        run: RunId,
    },
    /// Begin the actor of a nested supervisor.
    Open {
        /// The supervisor.
        supervisor: NodeId,
        /// Which of its lives.
        run: RunId,
    },
    /// End the actor of a nested supervisor; no child of it is left.
    Close {
        /// The supervisor.
        supervisor: NodeId,
        /// Which of its lives.
        run: RunId,
    },
    /// Feed [`Event::Due`] after this delay.
    WakeAfter {
        /// The timer.
        timer: Timer,
        /// From now.
        delay: Duration,
    },
    /// A one-shot command has a place; its start follows.
    Admitted {
        /// The request.
        request: RequestId,
        /// Its place.
        child: NodeId,
        /// Its run.
        run: RunId,
    },
    /// A one-shot command waits for a place.
    Queued {
        /// The request.
        request: RequestId,
    },
    /// A one-shot command will not run.
    Rejected {
        /// The request.
        request: RequestId,
        /// Why.
        why: Rejection,
    },
    /// Tell observers.
    Announce(TreeEvent),
    /// Everything is down. The last effect of a tree.
    Finished(Finish),
}

/// How a tree ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// Why.
    pub reason: ShutdownReason,
    /// Whether force was asked for.
    pub forced: bool,
    /// The children that had failed, or that could not start because of one that had, when the end began.
    pub failed: Vec<ChildName>,
}

/// Where a tree stands as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Running,
    ShuttingDown(Ending),
    Finished,
}

/// A shutdown under way.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ending {
    plan: PlanId,
    reason: ShutdownReason,
    forced: bool,
    /// Whether everything was killed already, by force or when the time was up.
    killed: bool,
    failed: Vec<ChildName>,
    /// When whatever still runs is killed.
    kill_by: Option<Moment>,
    kill_key: u64,
}

/// The machine. Equal inputs give equal effects.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    names: HashMap<ChildName, NodeId>,
    phase: Phase,
    dialect: Dialect,
    lifetime: Lifetime,
    shutdown_budget: Option<Duration>,
    plans: BTreeMap<PlanId, Plan>,
    admission: Admission,
    requests: request::Requests,
    /// Nodes whose life changed since their gates were looked at.
    dirty: VecDeque<NodeId>,
    /// Nodes that may have become free to start.
    candidates: VecDeque<NodeId>,
    /// Nodes without which the tree is at rest: children that live, and whatever waits for a timer or its group.
    busy: usize,
    /// Children that are down because an operator wants it.
    parked: usize,
    next_run: u64,
    next_key: u64,
    next_seq: u64,
    now: Moment,
    random: u64,
    effects: Vec<Effect>,
    visited: Cell<u64>,
}

impl Tree {
    /// The machine for these rules; everything is down. Run ids count up from `first_run`.
    pub fn new(rules: &TreeRules, first_run: RunId) -> Result<Self, Vec<RuleError>> {
        let arrangement = order::arrange(rules)?;
        let mut nodes: Vec<Node> = arrangement
            .places
            .iter()
            .zip(&arrangement.waves)
            .map(|(place, wave)| Node::new(place, *wave))
            .collect();
        for gate in &arrangement.gates {
            if gate.need != order::Need::Begun {
                nodes[gate.from.index()].outgoing.push(node::Gate {
                    to: gate.to,
                    need: gate.need,
                    met: false,
                });
            }
            nodes[gate.to.index()].incoming.push((gate.from, gate.need));
            nodes[gate.to.index()].unmet += 1;
            nodes[gate.to.index()].held_up |= gate.need == order::Need::Passed;
        }
        edge::lay_edges(&mut nodes, &arrangement.edges);
        let names = (0..)
            .map(NodeId)
            .zip(&nodes)
            .map(|(id, node)| (node.name.clone(), id))
            .collect();
        let dirty = (0..).map(NodeId).take(nodes.len()).collect();
        let mut tree = Self {
            nodes,
            names,
            phase: Phase::Idle,
            dialect: rules.dialect,
            lifetime: rules.lifetime,
            shutdown_budget: rules.shutdown_budget,
            plans: BTreeMap::new(),
            admission: Admission::new(rules.limits),
            requests: request::Requests::default(),
            dirty,
            candidates: VecDeque::new(),
            busy: 0,
            parked: 0,
            next_run: first_run.0,
            next_key: 0,
            next_seq: 1,
            now: Moment::ZERO,
            random: 0,
            effects: Vec::new(),
            visited: Cell::new(0),
        };
        tree.settle();
        Ok(tree)
    }

    /// Moves the tree on by one event. Pure: equal inputs from the beginning give equal effects.
    #[must_use]
    pub fn next(&mut self, input: &Input) -> Vec<Effect> {
        self.visited.set(0);
        self.now = self.now.max(input.now);
        self.random = input.random;
        match &input.event {
            Event::ShutdownRequested {
                mode,
                reason,
                budget,
            } => self.request_shutdown(*mode, *reason, *budget),
            Event::Started { child, run, pid } => self.started(*child, *run, *pid),
            Event::Ready { child, run } => self.ready(*child, *run),
            Event::Unready { child, run } => self.unready(*child, *run),
            Event::Unhealthy { child, run } => self.unhealthy(*child, *run),
            Event::Overran {
                child,
                run,
                bound,
                limit,
                waits_for_input,
            } => self.overran(*child, *run, *bound, (*limit, *waits_for_input)),
            Event::StartExtended { child, run, by } => self.extend_start(*child, *run, *by),
            Event::OutOfMemory { child, run } => self.out_of_memory(*child, *run),
            Event::Exited { child, run, exit } => self.exited(*child, *run, *exit),
            Event::SupervisorLost { supervisor, run } => self.supervisor_lost(*supervisor, *run),
            Event::Due { timer } => self.due(*timer),
            Event::Request {
                request,
                stop,
                client,
            } => self.request(*request, *stop, *client),
            Event::Cancel { request } => self.cancel(*request),
            Event::StartAll => self.start_all(),
            Event::Start { nodes, reach } => self.start(nodes, *reach),
            Event::Stop { nodes, reach } => self.stop(nodes, *reach),
            Event::Restart { nodes } => self.restart(nodes),
            Event::Delete { node } => self.delete(*node),
        }
        self.settle();
        self.end_if_at_rest();
        std::mem::take(&mut self.effects)
    }

    /// Looks at gates and starts what is free, until nothing moves.
    ///
    /// All gates are looked at before anything is started: a member of a group must not start because its predecessor's
    /// fall has not been taken note of.
    fn settle(&mut self) {
        loop {
            while let Some(node) = self.dirty.pop_front() {
                self.refresh(node);
            }
            let Some(node) = self.candidates.pop_front() else {
                return;
            };
            self.try_start(node);
        }
    }

    fn due(&mut self, timer: Timer) {
        if timer.node == NodeId::ROOT && self.root_timer_is_due(timer.key) {
            return;
        }
        if self.nodes.get(timer.node.index()).is_none() {
            return;
        }
        match (self.node(timer.node).life, &self.node(timer.node).body) {
            (Life::Backoff { key, what, .. }, _) if key == timer.key => {
                self.backoff_over(timer.node, what);
            }
            (_, Body::Supervisor(supervisor))
                if supervisor
                    .regroup
                    .is_some_and(|regroup| regroup.key == timer.key) =>
            {
                self.regroup_due(timer.node);
            }
            (_, Body::Child(child))
                if child
                    .deadline
                    .is_some_and(|deadline| deadline.key == timer.key) =>
            {
                self.start_is_due(timer.node);
            }
            // A timer of a wait that was cut short by a stop, a start or a shutdown.
            (_, Body::Supervisor(_) | Body::Child(_)) => {}
        }
    }

    fn root_timer_is_due(&mut self, key: u64) -> bool {
        if self.queue_timer_is_due(key) {
            return true;
        }
        let is_kill = matches!(&self.phase, Phase::ShuttingDown(ending) if ending.kill_key == key);
        if is_kill {
            self.kill_everything();
        }
        is_kill
    }

    fn node(&self, id: NodeId) -> &Node {
        self.visited.set(self.visited.get() + 1);
        &self.nodes[id.index()]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.visited.set(self.visited.get() + 1);
        &mut self.nodes[id.index()]
    }

    /// The one place where a node's life changes.
    fn set_life(&mut self, id: NodeId, life: Life) {
        let before = std::mem::replace(&mut self.node_mut(id).life, life);
        let is_child = matches!(self.node(id).body, Body::Child(_));
        let is_busy = |life: Life| match life {
            Life::Live { .. } => is_child,
            Life::Backoff { .. } | Life::Held => true,
            Life::Pending(_) | Life::Down(_) => false,
        };
        self.busy = self.busy + usize::from(is_busy(life)) - usize::from(is_busy(before));
        let is_parked = |life: Life| is_child && life == Life::Down(Why::Stopped);
        self.parked = self.parked + usize::from(is_parked(life)) - usize::from(is_parked(before));
        self.dirty.push_back(id);
        if let Body::Supervisor(supervisor) = &self.nodes[id.index()].body {
            self.dirty.extend(&supervisor.followed);
        }
    }

    fn fresh_run(&mut self) -> RunId {
        let run = RunId(self.next_run);
        self.next_run += 1;
        run
    }

    fn fresh_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    fn wake_after(&mut self, node: NodeId, delay: Duration) -> u64 {
        let key = self.fresh_key();
        self.effects.push(Effect::WakeAfter {
            timer: Timer { node, key },
            delay,
        });
        key
    }

    fn announce(&mut self, fact: Fact) {
        let event = TreeEvent {
            seq: self.next_seq,
            at: self.now,
            fact,
        };
        self.next_seq += 1;
        self.effects.push(Effect::Announce(event));
    }
}
