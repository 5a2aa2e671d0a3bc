//! Plans: stop a set of children in reverse order, and then go on.
//!
//! A plan takes its children wave by wave, the highest wave first, and asks a wave only when everything that it asked
//! before is gone. A child belongs to the plan that took it last: a shutdown takes over what a group restart had begun to
//! stop, and what the older plan wanted afterwards is void.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::policy::event::{Fact, SupervisorEnd};
use crate::policy::restart::Restart;
use crate::policy::spec::NodeId;
use crate::policy::tree::node::{Body, Life, Origin, Phase, Wanted, Why};
use crate::policy::tree::{Effect, Ending, Phase as TreePhase, Tree};

/// Names a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PlanId(u64);

/// Children to stop, and what follows.
#[derive(Debug)]
pub(super) struct Plan {
    /// Still to be asked, by wave.
    pub(super) waves: BTreeMap<u32, Wave>,
    /// The longest graces of those waves, added up.
    graces: Duration,
    /// Asked and not yet gone.
    pub(super) asked: usize,
    /// Those that it stops for what they depend on; none of them starts before it is over, since what they depend on may
    /// be of those that it has not come to.
    yielding: Vec<NodeId>,
    pub(super) then: Then,
}

/// Children that are asked together.
#[derive(Debug, Default)]
pub(super) struct Wave {
    children: Vec<NodeId>,
    /// The longest grace among them.
    grace: Duration,
}

/// What follows when all of a plan is down.
#[derive(Clone, Debug)]
pub(super) enum Then {
    /// The group restart of this supervisor may start its group.
    Regroup { supervisor: NodeId },
    /// This supervisor has ended.
    End {
        supervisor: NodeId,
        why: SupervisorEnd,
        what: Ended,
    },
    /// These start again at once.
    Restart { nodes: Vec<NodeId> },
    /// Nothing: those that it stopped wait for what they depend on.
    Await,
    /// These supervisors are down because an operator wants it.
    Rest { supervisors: Vec<NodeId> },
    /// The tree has ended.
    Finish,
}

/// What a supervisor's end means to the supervisor above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// An exit with reason shutdown (OTP).
    Shutdown,
    /// A kill (OTP).
    Killed,
    /// It could not start (OTP).
    NotStarted,
    /// Nothing: it has failed for good.
    Failed,
}

impl Tree {
    pub(super) fn fresh_plan(&mut self) -> PlanId {
        PlanId(self.fresh_key())
    }

    /// Stops these children and then goes on.
    pub(super) fn stop_these(&mut self, children: Vec<NodeId>, then: Then) {
        let plan = self.fresh_plan();
        self.carry_out(plan, children, then);
    }

    /// One that a plan had asked is gone.
    pub(super) fn one_less(&mut self, plan: PlanId) {
        if let Some(plan) = self.plans.get_mut(&plan) {
            plan.asked -= 1;
        }
        self.advance(plan);
    }

    /// Takes these children from whatever plan they belong to and begins to stop them.
    pub(super) fn carry_out(&mut self, id: PlanId, children: Vec<NodeId>, then: Then) {
        let mut plan = Plan {
            waves: BTreeMap::new(),
            graces: Duration::ZERO,
            asked: 0,
            yielding: Vec::new(),
            then,
        };
        let mut robbed = Vec::new();
        for child in children {
            let node = self.node_mut(child);
            let is_stopping = node.is_stopping();
            let former = node.plan.replace(id);
            if former.is_some() {
                // What the former plan stopped it for is void.
                node.yields = None;
            } else if node.yields.is_some() {
                node.unmet += 1;
                plan.yielding.push(child);
            }
            if let Some(former) = former
                && is_stopping
                && let Some(former_plan) = self.plans.get_mut(&former)
            {
                former_plan.asked -= 1;
                robbed.push(former);
            }
            if is_stopping {
                plan.asked += 1;
            } else {
                let grace = self.node(child).grace();
                let wave = plan.waves.entry(self.node(child).wave).or_default();
                wave.children.push(child);
                plan.graces += grace.saturating_sub(wave.grace);
                wave.grace = wave.grace.max(grace);
            }
        }
        self.plans.insert(id, plan);
        robbed.dedup();
        for former in robbed {
            self.advance(former);
        }
        self.advance(id);
    }

    /// Asks the next wave of a plan when the one before it is gone; ends the plan after the last.
    pub(super) fn advance(&mut self, id: PlanId) {
        loop {
            let Some(plan) = self.plans.get_mut(&id) else {
                return;
            };
            if plan.asked > 0 {
                return;
            }
            let graces = plan.graces;
            let Some((_, wave)) = plan.waves.pop_last() else {
                break;
            };
            plan.graces -= wave.grace;
            let share = self.share(id, wave.grace, graces);
            for child in wave.children.into_iter().rev() {
                if self.node(child).plan == Some(id) && self.node(child).is_up() {
                    let grace = self.node(child).grace().min(share);
                    self.ask(id, child, grace);
                }
            }
        }
        if let Some(plan) = self.plans.remove(&id) {
            self.go_on(id, plan.then);
            for child in plan.yielding {
                self.let_return(child);
            }
        }
    }

    /// What a wave may take. In a shutdown that is its share of what is left of the budget, which is split over the waves
    /// still to stop in proportion to the longest grace in each, so that a chain of graces that fits is kept whole.
    fn share(&self, plan: PlanId, of_wave: Duration, of_all: Duration) -> Duration {
        match &self.phase {
            TreePhase::ShuttingDown(Ending {
                plan: shutdown,
                kill_by: Some(kill_by),
                ..
            }) if *shutdown == plan => {
                let left = kill_by.since(self.now);
                // No grace at all in what is left: the share decides nothing.
                let share = of_wave.as_secs_f64() / of_all.as_secs_f64();
                if share.is_finite() {
                    left.mul_f64(share.min(1.0))
                } else {
                    left
                }
            }
            TreePhase::ShuttingDown(_)
            | TreePhase::Idle
            | TreePhase::Running
            | TreePhase::Finished => of_wave,
        }
    }

    pub(super) fn ask(&mut self, plan: PlanId, child: NodeId, grace: Duration) {
        if let Some(plan) = self.plans.get_mut(&plan) {
            plan.asked += 1;
        }
        self.tell_to_stop(child, grace);
    }

    /// Asks a run to stop.
    pub(super) fn tell_to_stop(&mut self, child: NodeId, grace: Duration) {
        let Life::Live { run, origin, .. } = self.node(child).life else {
            return;
        };
        self.set_life(
            child,
            Life::Live {
                run,
                phase: Phase::Stopping,
                since: self.now,
                origin,
            },
        );
        self.effects.push(Effect::Stop { child, run, grace });
        self.announce_stopping(child, grace);
    }

    pub(super) fn announce_stopping(&mut self, child: NodeId, grace: Duration) {
        let node = self.node(child);
        if let (Some(run), name) = (node.live_run(), node.name.clone()) {
            self.announce(Fact::Stopping {
                child: name,
                run,
                grace,
            });
        }
    }

    /// A run that belonged to a plan is gone: where its child stands, and whether the plan goes on.
    pub(super) fn leave_plan(&mut self, child: NodeId, plan: PlanId, was_asked: bool) {
        let why = match self.plans.get(&plan).map(|plan| &plan.then) {
            Some(Then::Regroup { .. } | Then::Restart { .. }) => None,
            Some(Then::End { .. } | Then::Rest { .. } | Then::Await) => Some(Why::Grouped),
            Some(Then::Finish) | None => Some(Why::Stopped),
        };
        let yields = self.node_mut(child).yields.take();
        let node = self.node(child);
        let life = match (yields, why, node.restart) {
            _ if node.wanted == Wanted::Down => Life::Down(Why::Stopped),
            (Some(cause), _, _) => Life::Pending(Origin::Return(cause)),
            (None, None, Restart::Never) if !self.is_restarted_by(plan, child) => {
                Life::Down(Why::Grouped)
            }
            (None, None, Restart::Always | Restart::OnFailure | Restart::Never) => Life::Held,
            (None, Some(why), _) => Life::Down(why),
        };
        self.set_life(child, life);
        if matches!(life, Life::Down(_)) {
            let name = self.node(child).name.clone();
            self.announce(Fact::Stopped { child: name });
        }
        if self.is_at_rest_by(plan) {
            self.start_if_wanted(child);
        }
        if was_asked {
            self.one_less(plan);
        }
    }

    pub(super) fn is_at_rest_by(&self, plan: PlanId) -> bool {
        let then = self.plans.get(&plan).map(|plan| &plan.then);
        matches!(then, Some(Then::Rest { .. }))
    }

    /// The operator's last word counts: what was asked for again while it was being stopped starts when it is down.
    pub(super) fn start_if_wanted(&mut self, id: NodeId) {
        if self.node(id).wanted == Wanted::Up && self.may_start() {
            self.start_if_down(id);
        }
    }

    pub(super) fn is_restarted_by(&self, plan: PlanId, child: NodeId) -> bool {
        let then = self.plans.get(&plan).map(|plan| &plan.then);
        matches!(then, Some(Then::Restart { nodes }) if nodes.contains(&child))
    }

    pub(super) fn go_on(&mut self, id: PlanId, then: Then) {
        match then {
            Then::Regroup { supervisor } => {
                if let Some(regroup) = self.regroup_by(supervisor, id) {
                    regroup.is_down = true;
                    self.regroup_if_possible(supervisor);
                }
            }
            Then::End {
                supervisor,
                why,
                what,
            } => {
                if self.owns(id, supervisor) {
                    let life = self.node(supervisor).life;
                    self.close(supervisor, Why::Grouped);
                    self.supervisor_ended(supervisor, why, what, life);
                }
            }
            Then::Restart { nodes } => {
                for node in nodes {
                    self.restart_now(id, node);
                }
            }
            Then::Rest { supervisors } => {
                for supervisor in supervisors {
                    if self.owns(id, supervisor) {
                        self.close(supervisor, Why::Grouped);
                        self.start_if_wanted(supervisor);
                    }
                }
            }
            Then::Await => {}
            Then::Finish => self.finish(),
        }
    }

    pub(super) fn owns(&self, plan: PlanId, supervisor: NodeId) -> bool {
        self.node(supervisor)
            .supervisor()
            .is_some_and(|body| body.owner == Some(plan))
    }

    /// Whether an operator's wish may take a supervisor and all below it into a plan of its own. Not from a plan that stops
    /// more than that: it waits for all of it, and heeds what is wanted when it is down.
    pub(super) fn may_take(&self, id: NodeId) -> bool {
        let owner = self.node(id).supervisor().and_then(|body| body.owner);
        let then = owner
            .and_then(|plan| self.plans.get(&plan))
            .map(|plan| &plan.then);
        match then {
            Some(Then::End { supervisor, .. }) => *supervisor == id,
            Some(
                Then::Regroup { .. }
                | Then::Restart { .. }
                | Then::Await
                | Then::Rest { .. }
                | Then::Finish,
            ) => false,
            None => true,
        }
    }

    /// Everything below a supervisor comes under a plan: what lives is returned, what waits is down, and no plan or group
    /// restart in there goes on.
    pub(super) fn fold(&mut self, supervisor: NodeId, plan: PlanId) -> Vec<NodeId> {
        let mut live = Vec::new();
        let mut stack = vec![supervisor];
        while let Some(id) = stack.pop() {
            match (self.node(id).life, &self.node(id).body) {
                (Life::Live { .. }, Body::Child(_)) => live.push(id),
                (
                    Life::Live {
                        run, since, origin, ..
                    },
                    Body::Supervisor(body),
                ) => {
                    stack.extend(body.members.iter().copied());
                    self.set_life(
                        id,
                        Life::Live {
                            run,
                            phase: Phase::Stopping,
                            since,
                            origin,
                        },
                    );
                    if let Some(body) = self.node_mut(id).supervisor_mut() {
                        body.regroup = None;
                        body.owner = Some(plan);
                    }
                }
                (Life::Pending(_) | Life::Held | Life::Backoff { .. }, _) => {
                    self.lay_down(id, Why::Grouped);
                }
                (Life::Down(_), _) => {}
            }
        }
        // In the order of the tree, so that equal waves stop in its reverse.
        live.sort_unstable();
        live
    }

    /// What only waited is down.
    pub(super) fn lay_down(&mut self, id: NodeId, why: Why) {
        let why = if self.node(id).wanted == Wanted::Down {
            Why::Stopped
        } else {
            why
        };
        self.set_life(id, Life::Down(why));
    }

    /// The supervisors below this one, and it, are down.
    pub(super) fn close(&mut self, supervisor: NodeId, why: Why) {
        let mut open = Vec::new();
        let mut stack = vec![supervisor];
        while let Some(id) = stack.pop() {
            let node = self.node(id);
            match (node.supervisor(), node.life) {
                (Some(body), Life::Live { run, .. }) => {
                    open.push((id, run));
                    stack.extend(body.members.iter().copied());
                }
                (_, Life::Held | Life::Pending(_) | Life::Backoff { .. }) => {
                    self.lay_down(id, Why::Grouped);
                }
                (_, Life::Live { .. } | Life::Down(_)) => {}
            }
        }
        for (id, run) in open.into_iter().rev() {
            self.lay_down(id, if id == supervisor { why } else { Why::Grouped });
            if id != NodeId::ROOT {
                self.effects.push(Effect::Close {
                    supervisor: id,
                    run,
                });
            }
            let name = self.node(id).name.clone();
            self.announce(Fact::SupervisorEnded { supervisor: name });
        }
    }
}
