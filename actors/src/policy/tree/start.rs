//! Starting.

use std::collections::HashSet;

use crate::policy::event::Fact;
use crate::policy::order::Need;
use crate::policy::spec::{Dialect, Kind, NodeId, Readiness, RunId};
use crate::policy::tree::node::{Body, Life, Origin, Phase, Wait, Wanted, Why};
use crate::policy::tree::{Effect, Phase as TreePhase, Reach, Tree};

impl Tree {
    pub(super) fn start_all(&mut self) {
        if !self.may_start() {
            return;
        }
        for index in 0..self.nodes.len() {
            self.nodes[index].wanted = Wanted::Up;
        }
        match self.phase {
            TreePhase::Idle => self.begin_root(),
            TreePhase::Running => self.start(&[NodeId::ROOT], Reach::Connected),
            TreePhase::ShuttingDown(_) | TreePhase::Finished => {}
        }
    }

    fn begin_root(&mut self) {
        self.phase = TreePhase::Running;
        self.begin(NodeId::ROOT, Origin::First);
    }

    pub(super) fn start(&mut self, nodes: &[NodeId], reach: Reach) {
        if !self.may_start() {
            return;
        }
        match reach {
            Reach::Alone => nodes.iter().for_each(|node| self.start_alone(*node)),
            Reach::Connected => self.start_connected(nodes),
        }
    }

    /// OTP's `restart_child`: at once, whatever it depends on. Nothing happens unless it is down below a running supervisor.
    fn start_alone(&mut self, id: NodeId) {
        let parent = self.node(id).parent;
        let is_down = matches!(self.node(id).life, Life::Down(why) if why != Why::Deleted)
            || matches!(self.node(id).life, Life::Pending(_));
        if id != NodeId::ROOT && is_down && self.node(parent).is_up() {
            self.want_up(id);
            self.begin(id, Origin::Operator);
        }
    }

    fn start_connected(&mut self, nodes: &[NodeId]) {
        let mut wanted = Vec::new();
        let mut seen = HashSet::new();
        let mut stack: Vec<NodeId> = nodes.iter().rev().copied().collect();
        while let Some(id) = stack.pop() {
            if !seen.insert(id) {
                continue;
            }
            wanted.push(id);
            let node = self.node(id);
            stack.extend(
                node.supervisor()
                    .into_iter()
                    .flat_map(|supervisor| supervisor.members.iter().rev().copied()),
            );
            let depends_on = node
                .incoming
                .iter()
                .filter(|(_, need)| matches!(need, Need::Condition(_)));
            stack.extend(depends_on.map(|(from, _)| *from));
        }
        for id in &wanted {
            self.want_up(*id);
            self.want_ancestors_up(*id);
        }
        if self.phase == TreePhase::Idle {
            self.begin_root();
            return;
        }
        for id in wanted {
            self.start_if_down(id);
        }
    }

    /// What an operator starts has its counters cleared.
    pub(super) fn want_up(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        node.wanted = Wanted::Up;
        node.history.stamps.clear();
        node.history.unstable = 0;
        node.history.exhausted = 0;
    }

    fn want_ancestors_up(&mut self, id: NodeId) {
        let mut id = id;
        while id != NodeId::ROOT {
            id = self.node(id).parent;
            self.node_mut(id).wanted = Wanted::Up;
            self.start_if_down(id);
        }
    }

    pub(super) fn start_if_down(&mut self, id: NodeId) {
        let parent = self.node(id).parent;
        if id == NodeId::ROOT || !self.node(parent).is_up() {
            return; // Its supervisor starts it when it begins itself.
        }
        match self.node(id).life {
            // What waits for its group starts with it.
            Life::Down(Why::Deleted)
            | Life::Pending(_)
            | Life::Held
            | Life::Live { .. }
            | Life::Backoff {
                what: Wait::Group, ..
            } => {}
            Life::Down(_) => self.set_life(id, Life::Pending(Origin::Operator)),
            // A single restart is not gated again.
            Life::Backoff {
                what: Wait::Restart | Wait::Retry,
                ..
            } => self.begin_again(id, Origin::Operator),
        }
    }

    pub(super) fn try_start(&mut self, id: NodeId) {
        if let (true, Life::Pending(origin)) =
            (self.is_free(id) && self.may_start(), self.node(id).life)
        {
            self.begin(id, origin);
        }
    }

    pub(super) fn may_start(&self) -> bool {
        matches!(self.phase, TreePhase::Idle | TreePhase::Running)
    }

    /// Starts a node now.
    pub(super) fn begin(&mut self, id: NodeId, origin: Origin) {
        let run = self.fresh_run();
        self.set_life(
            id,
            Life::Live {
                run,
                phase: Phase::Starting,
                since: self.now,
                origin,
            },
        );
        let node = self.node_mut(id);
        node.runs += 1;
        let (name, ordinal) = (node.name.clone(), node.runs);
        match &node.body {
            Body::Child(child) => {
                let start_timeout = child.start_timeout;
                self.effects.push(Effect::Start { child: id, run });
                self.announce(Fact::Starting {
                    child: name,
                    run,
                    ordinal,
                });
                if let Some(start_timeout) = start_timeout {
                    self.limit_start(id, start_timeout);
                }
            }
            Body::Supervisor(_) => {
                if id != NodeId::ROOT {
                    self.effects.push(Effect::Open {
                        supervisor: id,
                        run,
                    });
                }
                self.announce(Fact::SupervisorStarted { supervisor: name });
                self.begin_members(id);
            }
        }
    }

    /// A supervisor begins with a clean count and with all its members, also those that had ended for good.
    fn begin_members(&mut self, id: NodeId) {
        let Some(supervisor) = self.node_mut(id).supervisor_mut() else {
            return;
        };
        supervisor.stamps.clear();
        supervisor.regroup = None;
        supervisor.owner = None;
        for index in 0..supervisor.members.len() {
            let Some(member) = self
                .node(id)
                .supervisor()
                .map(|supervisor| supervisor.members[index])
            else {
                return;
            };
            if self.dialect == Dialect::Otp {
                self.node_mut(member).wanted = Wanted::Up;
            }
            let node = self.node_mut(member);
            node.has_passed = false;
            let is_deleted = node.life == Life::Down(Why::Deleted) && self.dialect == Dialect::Own;
            let node = self.node_mut(member);
            if node.wanted == Wanted::Up && !is_deleted {
                node.history = super::node::History {
                    restarts: node.history.restarts,
                    ..Default::default()
                };
                self.set_life(member, Life::Pending(Origin::First));
                self.announce_if_blocked(member);
            } else {
                // Its gates may have been looked at while its supervisor was down.
                self.dirty.push_back(member);
            }
        }
    }

    pub(super) fn announce_if_blocked(&mut self, id: NodeId) {
        let blocker = self.node(id).incoming.iter().find(|(from, need)| {
            matches!(need, Need::Condition(_)) && !self.nodes[from.index()].meets(*need)
        });
        if let Some((from, _)) = blocker {
            let (child, blocked_by) = (self.node(id).name.clone(), self.node(*from).name.clone());
            self.announce(Fact::Pending { child, blocked_by });
        }
    }

    pub(super) fn started(&mut self, id: NodeId, run: RunId, pid: Option<u32>) {
        let now = self.now;
        if !self.is_live(id, run) {
            return;
        }
        let node = self.node_mut(id);
        node.pid = pid;
        node.history.exhausted = 0;
        let child = node.name.clone();
        let becomes = match &node.body {
            Body::Child(body)
                if body.kind == Kind::Service && body.readiness == Readiness::Running =>
            {
                Phase::Ready
            }
            Body::Child(_) => Phase::Running,
            Body::Supervisor(_) => return,
        };
        let Life::Live { origin, phase, .. } = node.life else {
            return;
        };
        self.announce(Fact::Running {
            child: child.clone(),
            run,
            pid,
        });
        if phase != Phase::Starting {
            return; // It was asked to stop before it had started; that holds.
        }
        self.set_life(
            id,
            Life::Live {
                run,
                phase: becomes,
                since: now,
                origin,
            },
        );
        if becomes == Phase::Ready {
            self.announce(Fact::Ready { child, run });
        }
    }

    /// Whether this is the run of now; what is told of any other is stale.
    pub(super) fn is_live(&self, id: NodeId, run: RunId) -> bool {
        self.nodes.get(id.index()).is_some() && self.node(id).live_run() == Some(run)
    }
}
