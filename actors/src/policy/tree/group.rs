//! Group restarts: the members stop in reverse, wait for the delay, and start again in order.

use std::time::Duration;

use crate::policy::event::Fact;
use crate::policy::restart::Restart;
use crate::policy::spec::{Dialect, NodeId};
use crate::policy::tree::Tree;
use crate::policy::tree::node::{Body, Life, Origin, Regroup, Wait, Wanted, Why};
use crate::policy::tree::plan::{PlanId, Then};

impl Tree {
    /// Stops a group in reverse and starts it again, after the delay.
    pub(super) fn regroup(
        &mut self,
        supervisor: NodeId,
        from: u32,
        culprit: NodeId,
        delay: Duration,
    ) {
        let key = if delay.is_zero() {
            self.fresh_key()
        } else {
            self.wake_after(supervisor, delay)
        };
        let plan = self.fresh_plan();
        let now = self.now;
        let Some(body) = self.node_mut(supervisor).supervisor_mut() else {
            return;
        };
        let strategy = body.strategy;
        // A member that fails while its group waits to restart joins that restart.
        let former = body.regroup;
        let from = former.map_or(from, |former| former.from.min(from));
        let due_before = former.filter(|former| former.ready_at > now + delay && !former.is_due);
        let regroup = match due_before {
            Some(former) => Regroup {
                from,
                plan,
                is_down: false,
                ..former
            },
            None => Regroup {
                from,
                plan,
                key,
                ready_at: now + delay,
                is_down: false,
                is_due: delay.is_zero(),
            },
        };
        body.regroup = Some(regroup);
        let group: Vec<NodeId> = body.members[from as usize..].to_vec();
        let names = (
            self.node(supervisor).name.clone(),
            self.node(culprit).name.clone(),
        );
        self.announce(Fact::GroupRestart {
            supervisor: names.0,
            strategy,
            because_of: names.1,
            delay,
        });
        self.set_life(
            culprit,
            Life::Backoff {
                key: regroup.key,
                until: regroup.ready_at,
                what: Wait::Group,
            },
        );
        let (mut live, mut supervisors) = (Vec::new(), Vec::new());
        for member in group.into_iter().filter(|member| *member != culprit) {
            match (self.node(member).life, &self.node(member).body) {
                (Life::Live { .. }, Body::Child(_)) => live.push(member),
                (Life::Live { .. }, Body::Supervisor(_)) => {
                    live.extend(self.fold(member, plan));
                    supervisors.push(member);
                }
                (Life::Pending(_) | Life::Backoff { .. }, _) => self.set_life(member, Life::Held),
                (Life::Held | Life::Down(_), _) => {}
            }
        }
        supervisors.retain(|member| self.node(*member).restart != Restart::Never);
        self.add_followers(&supervisors, &mut live);
        self.carry_out(plan, live, Then::Regroup { supervisor });
    }

    /// The group restart that this plan prepares; none if a later plan has taken it over.
    pub(super) fn regroup_by(&mut self, supervisor: NodeId, plan: PlanId) -> Option<&mut Regroup> {
        let body = self.node_mut(supervisor).supervisor_mut()?;
        body.regroup.as_mut().filter(|regroup| regroup.plan == plan)
    }

    pub(super) fn regroup_due(&mut self, supervisor: NodeId) {
        if let Some(regroup) = self
            .node_mut(supervisor)
            .supervisor_mut()
            .and_then(|body| body.regroup.as_mut())
        {
            regroup.is_due = true;
        }
        self.regroup_if_possible(supervisor);
    }

    pub(super) fn regroup_if_possible(&mut self, supervisor: NodeId) {
        let Some(body) = self.node_mut(supervisor).supervisor_mut() else {
            return;
        };
        let Some(regroup) = body
            .regroup
            .filter(|regroup| regroup.is_down && regroup.is_due)
        else {
            return;
        };
        body.regroup = None;
        let group = body.members[regroup.from as usize..].to_vec();
        for member in group {
            self.close_folded(member, regroup.plan);
            if self.rejoins(member) {
                self.set_life(member, Life::Pending(Origin::Group));
            } else if matches!(self.node(member).life, Life::Held | Life::Backoff { .. }) {
                self.lay_down(member, Why::Grouped);
            }
        }
    }

    /// A nested supervisor whose children the group's plan has stopped is down with them.
    pub(super) fn close_folded(&mut self, member: NodeId, plan: PlanId) {
        if self.owns(plan, member) && self.node(member).is_stopping() {
            let rejoins = self.node(member).restart != Restart::Never;
            self.close(member, Why::Grouped);
            if rejoins && self.node(member).wanted == Wanted::Up {
                self.set_life(member, Life::Held);
            }
        }
    }

    /// Whether a group restart starts a member again.
    pub(super) fn rejoins(&mut self, member: NodeId) -> bool {
        let node = self.node(member);
        let is_candidate = match node.life {
            Life::Held | Life::Backoff { .. } => true,
            Life::Down(Why::Deleted) | Life::Live { .. } | Life::Pending(_) => false,
            Life::Down(_) => node.restart != Restart::Never,
        };
        if is_candidate && self.dialect == Dialect::Otp {
            self.node_mut(member).wanted = Wanted::Up;
        }
        is_candidate && self.node(member).wanted == Wanted::Up
    }
}
