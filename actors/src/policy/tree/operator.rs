//! What an operator wants stopped, restarted or left out.

use std::collections::HashSet;

use crate::policy::event::Fact;
use crate::policy::order::Need;
use crate::policy::restart::Restart;
use crate::policy::spec::{Dialect, NodeId};
use crate::policy::tree::node::{Body, Life, Origin, Wait, Wanted, Why};
use crate::policy::tree::plan::{PlanId, Then};
use crate::policy::tree::{Phase as TreePhase, Reach, Tree};

impl Tree {
    pub(super) fn stop(&mut self, nodes: &[NodeId], reach: Reach) {
        if !self.may_start() || nodes.contains(&NodeId::ROOT) && self.phase == TreePhase::Idle {
            return;
        }
        let set = self.stop_set(nodes, reach);
        let plan = self.fresh_plan();
        let (mut live, mut supervisors) = (Vec::new(), Vec::new());
        for id in set {
            if id == NodeId::ROOT {
                continue; // Stopping all keeps the tree.
            }
            self.node_mut(id).wanted = Wanted::Down;
            match (self.node(id).life, &self.node(id).body) {
                (Life::Live { .. }, Body::Child(_)) if self.node(id).plan.is_none() => {
                    live.push(id);
                }
                (Life::Live { .. }, Body::Supervisor(_)) if self.may_take(id) => {
                    supervisors.push(id);
                    live.extend(self.fold(id, plan));
                }
                (
                    Life::Backoff {
                        what: Wait::Retry, ..
                    },
                    _,
                ) => {
                    self.set_life(id, Life::Down(Why::Stopped));
                    self.abandon_group(id);
                }
                (Life::Pending(_) | Life::Held | Life::Backoff { .. }, _) => {
                    self.set_life(id, Life::Down(Why::Stopped));
                    let child = self.node(id).name.clone();
                    self.announce(Fact::Stopped { child });
                }
                (Life::Down(why), _) if why != Why::Deleted => {
                    self.set_life(id, Life::Down(self.rest_of(id, why)));
                }
                // Already being stopped: it stays down then, since it is wanted down.
                (Life::Live { .. } | Life::Down(_), _) => {}
            }
        }
        live.sort_unstable();
        live.dedup();
        self.carry_out(plan, live, Then::Rest { supervisors });
    }

    /// Stopping what has ended for good leaves its outcome to be seen.
    pub(super) fn rest_of(&self, id: NodeId, why: Why) -> Why {
        match why {
            Why::NotAsked | Why::Stopped | Why::Grouped if self.dialect == Dialect::Own => {
                Why::Stopped
            }
            Why::NotAsked | Why::Stopped | Why::Grouped
                if self.node(id).restart != Restart::Never =>
            {
                Why::Stopped
            }
            Why::NotAsked
            | Why::Stopped
            | Why::Grouped
            | Why::Completed
            | Why::Failed(_)
            | Why::Deleted => why,
        }
    }

    /// OTP: whoever cancels the retry of a failed start also leaves down those whose start it held up.
    pub(super) fn abandon_group(&mut self, id: NodeId) {
        let parent = self.node(id).parent;
        let members = self
            .node(parent)
            .supervisor()
            .map(|body| body.members.clone())
            .unwrap_or_default();
        for member in members {
            if matches!(self.node(member).life, Life::Pending(_)) {
                self.set_life(member, Life::Down(Why::Grouped));
            }
        }
    }

    /// What is named, and what depends on it.
    pub(super) fn stop_set(&self, nodes: &[NodeId], reach: Reach) -> Vec<NodeId> {
        let mut set = Vec::new();
        let mut seen = HashSet::new();
        let mut stack: Vec<NodeId> = nodes.iter().rev().copied().collect();
        while let Some(id) = stack.pop() {
            if !seen.insert(id) {
                continue;
            }
            set.push(id);
            let node = self.node(id);
            stack.extend(
                node.supervisor()
                    .into_iter()
                    .flat_map(|body| body.members.iter().copied()),
            );
            if reach == Reach::Connected {
                let dependents = node
                    .outgoing
                    .iter()
                    .filter(|gate| matches!(gate.need, Need::Condition(_)));
                stack.extend(
                    dependents
                        .map(|gate| gate.to)
                        .filter(|to| self.node(*to).live_run().is_some()),
                );
            }
        }
        // Supervisors before their members.
        set.sort_unstable();
        set
    }

    pub(super) fn restart(&mut self, nodes: &[NodeId]) {
        if !self.may_start() || self.phase == TreePhase::Idle {
            return;
        }
        let nodes: Vec<NodeId> = nodes
            .iter()
            .copied()
            .filter(|id| *id != NodeId::ROOT && self.node(*id).life != Life::Down(Why::Deleted))
            .collect();
        let plan = self.fresh_plan();
        let mut live = Vec::new();
        for id in &nodes {
            self.want_up(*id);
            match (self.node(*id).life, &self.node(*id).body) {
                (Life::Live { .. }, Body::Child(_)) if self.node(*id).plan.is_none() => {
                    live.push(*id);
                }
                (Life::Live { .. }, Body::Supervisor(_)) if self.may_take(*id) => {
                    live.extend(self.fold(*id, plan));
                }
                (
                    Life::Live { .. }
                    | Life::Down(_)
                    | Life::Pending(_)
                    | Life::Held
                    | Life::Backoff { .. },
                    _,
                ) => {}
            }
        }
        live.sort_unstable();
        live.dedup();
        self.add_followers(&nodes, &mut live);
        self.carry_out(plan, live, Then::Restart { nodes });
    }

    pub(super) fn restart_now(&mut self, plan: PlanId, id: NodeId) {
        if self.owns(plan, id) {
            self.close(id, Why::Grouped);
        }
        if self.node(id).wanted == Wanted::Down || !self.may_start() {
            return;
        }
        let parent = self.node(id).parent;
        let can_begin = match self.node(id).life {
            Life::Live { .. } | Life::Down(Why::Deleted) => false,
            Life::Down(_) | Life::Pending(_) | Life::Held | Life::Backoff { .. } => true,
        };
        if can_begin && self.node(parent).is_up() {
            self.begin_again(id, Origin::Operator);
        }
    }

    pub(super) fn delete(&mut self, id: NodeId) {
        let is_idle = matches!(self.node(id).life, Life::Down(_) | Life::Pending(_));
        if is_idle && id != NodeId::ROOT {
            self.set_life(id, Life::Down(Why::Deleted));
        }
    }
}
