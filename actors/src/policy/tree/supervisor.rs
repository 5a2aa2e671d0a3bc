//! The end of a supervisor: its members stop in reverse, or die with its actor.

use std::time::Duration;

use crate::policy::event::Fact;
use crate::policy::event::{ShutdownReason, SupervisorEnd};
use crate::policy::spec::{NodeId, RunId};
use crate::policy::tree::node::{Body, Life, Phase};
use crate::policy::tree::plan::{Ended, Then};
use crate::policy::tree::{Effect, Tree};

impl Tree {
    /// A supervisor stops all its members in reverse and ends.
    pub(super) fn end_supervisor(&mut self, supervisor: NodeId, why: SupervisorEnd, what: Ended) {
        if supervisor == NodeId::ROOT {
            let reason = match why {
                SupervisorEnd::AutoShutdown => ShutdownReason::AllEnded,
                SupervisorEnd::Asked => ShutdownReason::Asked,
                SupervisorEnd::Lost => ShutdownReason::Internal,
                SupervisorEnd::Intensity
                | SupervisorEnd::MemberEscalated
                | SupervisorEnd::StartFailed => ShutdownReason::Limit,
            };
            self.shut_down(reason, self.shutdown_budget);
            return;
        }
        let name = self.node(supervisor).name.clone();
        self.announce(Fact::SupervisorEnding {
            supervisor: name,
            why,
        });
        let plan = self.fresh_plan();
        let live = self.fold(supervisor, plan);
        self.carry_out(
            plan,
            live,
            Then::End {
                supervisor,
                why,
                what,
            },
        );
    }

    /// The actor of a nested supervisor is gone: what runs below it is killed.
    pub(super) fn supervisor_lost(&mut self, supervisor: NodeId, run: RunId) {
        if !self.is_live(supervisor, run) {
            return;
        }
        let name = self.node(supervisor).name.clone();
        self.announce(Fact::SupervisorEnding {
            supervisor: name,
            why: SupervisorEnd::Lost,
        });
        let plan = self.fresh_plan();
        // Of a supervisor that was being stopped the plan stays: what kills its children only hastens it.
        let is_stopping = self.node(supervisor).is_stopping();
        let live = if is_stopping {
            self.live_below(supervisor)
        } else {
            self.fold(supervisor, plan)
        };
        for child in &live {
            self.kill(*child);
        }
        if !is_stopping {
            let then = Then::End {
                supervisor,
                why: SupervisorEnd::Lost,
                what: Ended::Killed,
            };
            self.carry_out(plan, live, then);
        }
    }

    pub(super) fn live_below(&self, supervisor: NodeId) -> Vec<NodeId> {
        let mut live = Vec::new();
        let mut stack = vec![supervisor];
        while let Some(id) = stack.pop() {
            let node = self.node(id);
            match &node.body {
                Body::Supervisor(body) => stack.extend(body.members.iter().copied()),
                Body::Child(_) if node.live_run().is_some() => live.push(id),
                Body::Child(_) => {}
            }
        }
        live
    }

    pub(super) fn kill(&mut self, child: NodeId) {
        let Life::Live {
            run, origin, phase, ..
        } = self.node(child).life
        else {
            return;
        };
        self.effects.push(Effect::Kill { child, run });
        if phase != Phase::Stopping {
            self.set_life(
                child,
                Life::Live {
                    run,
                    phase: Phase::Stopping,
                    since: self.now,
                    origin,
                },
            );
            // A plan that was going to ask it counts it as asked.
            if let Some(plan) = self
                .node(child)
                .plan
                .and_then(|plan| self.plans.get_mut(&plan))
            {
                plan.asked += 1;
            }
            self.announce_stopping(child, Duration::ZERO);
        }
    }
}
