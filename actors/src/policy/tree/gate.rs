//! Who may start: gates, looked at when the node they lead out of has changed.

use crate::policy::order::Need;
use crate::policy::spec::NodeId;
use crate::policy::tree::Tree;
use crate::policy::tree::node::{Life, Phase};

impl Tree {
    /// Looks at the gates out of a node whose life changed, and at its supervisor's readiness.
    pub(super) fn refresh(&mut self, id: NodeId) {
        if self.node(id).request().is_some() {
            return;
        }
        self.become_ready_if_settled(id);
        self.let_members_begin(id);
        for index in 0..self.node(id).outgoing.len() {
            let gate = self.node(id).outgoing[index];
            let met = self.node(id).meets(gate.need);
            if met != gate.met {
                self.node_mut(id).outgoing[index].met = met;
                self.turn_gate(gate.to, gate.need, met);
            }
        }
        self.tell_supervisor(id);
        self.tell_followers(id);
        if self.is_free(id) {
            self.candidates.push_back(id);
        }
    }

    /// The members of a supervisor are looked at only when it begins or no longer runs, not whenever one of them changes it.
    fn let_members_begin(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        let is_up = node.is_up();
        let Some(supervisor) = node.supervisor_mut() else {
            return;
        };
        if std::mem::replace(&mut supervisor.has_begun, is_up) == is_up {
            return;
        }
        for position in 0..supervisor.members.len() {
            let member = self
                .node(id)
                .supervisor()
                .map(|supervisor| supervisor.members[position]);
            if let Some(member) = member {
                self.turn_gate(member, Need::Begun, is_up);
            }
        }
    }

    fn turn_gate(&mut self, to: NodeId, need: Need, met: bool) {
        let node = self.node_mut(to);
        if need == Need::Passed {
            node.held_up = !met;
            if matches!(node.life, Life::Down(_)) {
                self.dirty.push_back(to);
            }
        }
        let node = self.node_mut(to);
        if met {
            node.unmet -= 1;
        } else {
            node.unmet += 1;
        }
        if self.is_free(to) {
            self.candidates.push_back(to);
        }
    }

    pub(super) fn is_free(&self, id: NodeId) -> bool {
        let node = self.node(id);
        node.unmet == 0 && matches!(node.life, Life::Pending(_))
    }

    /// A supervisor is ready when it has begun and none of its members holds anybody up.
    fn become_ready_if_settled(&mut self, id: NodeId) {
        let now = self.now;
        let node = self.node_mut(id);
        let is_settled = node
            .supervisor()
            .is_some_and(|supervisor| supervisor.unsettled == 0);
        if let (
            true,
            Life::Live {
                phase: phase @ Phase::Starting,
                since,
                ..
            },
        ) = (is_settled, &mut node.life)
        {
            *phase = Phase::Ready;
            *since = now;
        }
    }

    fn tell_supervisor(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        let passes = node.passes_now();
        let before = std::mem::replace(&mut node.passes, passes);
        node.has_passed |= passes && matches!(node.life, Life::Live { .. });
        let parent = node.parent;
        if passes == before || id == NodeId::ROOT {
            return;
        }
        let Some(supervisor) = self.node_mut(parent).supervisor_mut() else {
            return;
        };
        if passes {
            supervisor.unsettled -= 1;
        } else {
            supervisor.unsettled += 1;
        }
        // Only the step to or from zero can change what others see.
        if supervisor.unsettled <= 1 {
            self.dirty.push_back(parent);
        }
    }
}
