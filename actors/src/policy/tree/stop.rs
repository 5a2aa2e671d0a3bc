//! Stopping: plans that stop a set of children in reverse order and then go on.
//!
//! A plan takes its children wave by wave, the highest wave first, and asks a wave only when everything that it asked
//! before is gone. A child belongs to the plan that took it last: a shutdown takes over what a group restart had begun to
//! stop, and what the older plan wanted afterwards is void.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::policy::admission::Rejection;
use crate::policy::event::{Fact, ShutdownReason, SupervisorEnd};
use crate::policy::order::Need;
use crate::policy::restart::Restart;
use crate::policy::spec::{Dialect, Lifetime, NodeId};
use crate::policy::tree::node::{Body, Life, Origin, Phase, Wait, Wanted, Why};
use crate::policy::tree::{Effect, Ending, Finish, Phase as TreePhase, Reach, ShutdownMode, Tree};

/// Names a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PlanId(u64);

/// Children to stop, and what follows.
#[derive(Debug)]
pub(super) struct Plan {
    /// Still to be asked, by wave.
    waves: BTreeMap<u32, Vec<NodeId>>,
    /// Asked and not yet gone.
    asked: usize,
    then: Then,
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

/// At the latest this share of a shutdown's budget before its end everything is killed…
const KILL_SHARE: u32 = 10;
/// … and at the latest this long before.
const KILL_MARGIN: Duration = Duration::from_millis(250);

impl Tree {
    fn fresh_plan(&mut self) -> PlanId {
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
    fn carry_out(&mut self, id: PlanId, children: Vec<NodeId>, then: Then) {
        let mut plan = Plan {
            waves: BTreeMap::new(),
            asked: 0,
            then,
        };
        let mut robbed = Vec::new();
        for child in children {
            let is_stopping = self.node(child).is_stopping();
            if let Some(former) = self.node_mut(child).plan.replace(id)
                && is_stopping
                && let Some(former_plan) = self.plans.get_mut(&former)
            {
                former_plan.asked -= 1;
                robbed.push(former);
            }
            if is_stopping {
                plan.asked += 1;
            } else {
                plan.waves
                    .entry(self.node(child).wave)
                    .or_default()
                    .push(child);
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
            let waves_left = u32::try_from(plan.waves.len()).unwrap_or(u32::MAX);
            let Some((_, wave)) = plan.waves.pop_last() else {
                break;
            };
            for child in wave.into_iter().rev() {
                if self.node(child).plan == Some(id) && self.node(child).is_up() {
                    let grace = self.effective_grace(id, child, waves_left);
                    self.ask(id, child, grace);
                }
            }
        }
        if let Some(plan) = self.plans.remove(&id) {
            self.go_on(id, plan.then);
        }
    }

    /// In a shutdown a child's grace is at most its share of what is left of the budget, split over the waves still to stop.
    fn effective_grace(&self, plan: PlanId, child: NodeId, waves_left: u32) -> Duration {
        let own = self.node(child).grace();
        match &self.phase {
            TreePhase::ShuttingDown(Ending {
                plan: shutdown,
                kill_by: Some(kill_by),
                ..
            }) if *shutdown == plan => own.min(kill_by.since(self.now) / waves_left.max(1)),
            TreePhase::ShuttingDown(_)
            | TreePhase::Idle
            | TreePhase::Running
            | TreePhase::Finished => own,
        }
    }

    fn ask(&mut self, plan: PlanId, child: NodeId, grace: Duration) {
        let Life::Live {
            run, since, origin, ..
        } = self.node(child).life
        else {
            return;
        };
        self.set_life(
            child,
            Life::Live {
                run,
                phase: Phase::Stopping,
                since,
                origin,
            },
        );
        if let Some(plan) = self.plans.get_mut(&plan) {
            plan.asked += 1;
        }
        self.effects.push(Effect::Stop { child, run, grace });
        self.announce_stopping(child, grace);
    }

    fn announce_stopping(&mut self, child: NodeId, grace: Duration) {
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
            Some(Then::End { .. } | Then::Rest { .. }) => Some(Why::Grouped),
            Some(Then::Finish) | None => Some(Why::Stopped),
        };
        let node = self.node(child);
        let life = match (why, node.wanted, node.restart) {
            (_, Wanted::Down, _) => Life::Down(Why::Stopped),
            (None, Wanted::Up, Restart::Never) if !self.is_restarted_by(plan, child) => {
                Life::Down(Why::Grouped)
            }
            (None, Wanted::Up, Restart::Always | Restart::OnFailure | Restart::Never) => Life::Held,
            (Some(why), Wanted::Up, _) => Life::Down(why),
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

    fn is_at_rest_by(&self, plan: PlanId) -> bool {
        let then = self.plans.get(&plan).map(|plan| &plan.then);
        matches!(then, Some(Then::Rest { .. }))
    }

    /// The operator's last word counts: what was asked for again while it was being stopped starts when it is down.
    fn start_if_wanted(&mut self, id: NodeId) {
        if self.node(id).wanted == Wanted::Up && self.may_start() {
            self.start_if_down(id);
        }
    }

    fn is_restarted_by(&self, plan: PlanId, child: NodeId) -> bool {
        let then = self.plans.get(&plan).map(|plan| &plan.then);
        matches!(then, Some(Then::Restart { nodes }) if nodes.contains(&child))
    }

    fn go_on(&mut self, id: PlanId, then: Then) {
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
            Then::Finish => self.finish(),
        }
    }

    fn owns(&self, plan: PlanId, supervisor: NodeId) -> bool {
        self.node(supervisor)
            .supervisor()
            .is_some_and(|body| body.owner == Some(plan))
    }

    fn restart_now(&mut self, plan: PlanId, id: NodeId) {
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
            self.begin(id, Origin::Operator);
        }
    }

    /// Whether an operator's wish may take a supervisor and all below it into a plan of its own. Not from a plan that stops
    /// more than that: it waits for all of it, and heeds what is wanted when it is down.
    fn may_take(&self, id: NodeId) -> bool {
        let owner = self.node(id).supervisor().and_then(|body| body.owner);
        let then = owner
            .and_then(|plan| self.plans.get(&plan))
            .map(|plan| &plan.then);
        match then {
            Some(Then::End { supervisor, .. }) => *supervisor == id,
            Some(
                Then::Regroup { .. } | Then::Restart { .. } | Then::Rest { .. } | Then::Finish,
            ) => false,
            None => true,
        }
    }

    /// Everything below a supervisor comes under a plan: what lives is returned, what waits is down, and no plan or group
    /// restart in there goes on.
    fn fold(&mut self, supervisor: NodeId, plan: PlanId) -> Vec<NodeId> {
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
    fn lay_down(&mut self, id: NodeId, why: Why) {
        let why = if self.node(id).wanted == Wanted::Down {
            Why::Stopped
        } else {
            why
        };
        self.set_life(id, Life::Down(why));
    }

    /// The supervisors below this one, and it, are down.
    fn close(&mut self, supervisor: NodeId, why: Why) {
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
    pub(super) fn supervisor_lost(&mut self, supervisor: NodeId, run: crate::policy::spec::RunId) {
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

    fn live_below(&self, supervisor: NodeId) -> Vec<NodeId> {
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

    fn kill(&mut self, child: NodeId) {
        let Life::Live {
            run,
            since,
            origin,
            phase,
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
                    since,
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
            Some(former) => super::node::Regroup {
                from,
                plan,
                is_down: false,
                ..former
            },
            None => super::node::Regroup {
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
        let mut live = Vec::new();
        for member in group.into_iter().filter(|member| *member != culprit) {
            match (self.node(member).life, &self.node(member).body) {
                (Life::Live { .. }, Body::Child(_)) => live.push(member),
                (Life::Live { .. }, Body::Supervisor(_)) => live.extend(self.fold(member, plan)),
                (Life::Pending(_) | Life::Backoff { .. }, _) => self.set_life(member, Life::Held),
                (Life::Held | Life::Down(_), _) => {}
            }
        }
        self.carry_out(plan, live, Then::Regroup { supervisor });
    }

    /// The group restart that this plan prepares; none if a later plan has taken it over.
    fn regroup_by(
        &mut self,
        supervisor: NodeId,
        plan: PlanId,
    ) -> Option<&mut super::node::Regroup> {
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

    fn regroup_if_possible(&mut self, supervisor: NodeId) {
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
    fn close_folded(&mut self, member: NodeId, plan: PlanId) {
        if self.owns(plan, member) && self.node(member).is_stopping() {
            let rejoins = self.node(member).restart != Restart::Never;
            self.close(member, Why::Grouped);
            if rejoins && self.node(member).wanted == Wanted::Up {
                self.set_life(member, Life::Held);
            }
        }
    }

    /// Whether a group restart starts a member again.
    fn rejoins(&mut self, member: NodeId) -> bool {
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
    fn rest_of(&self, id: NodeId, why: Why) -> Why {
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
    fn abandon_group(&mut self, id: NodeId) {
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
    fn stop_set(&self, nodes: &[NodeId], reach: Reach) -> Vec<NodeId> {
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
        self.carry_out(plan, live, Then::Restart { nodes });
    }

    pub(super) fn delete(&mut self, id: NodeId) {
        let is_idle = matches!(self.node(id).life, Life::Down(_) | Life::Pending(_));
        if is_idle && id != NodeId::ROOT {
            self.set_life(id, Life::Down(Why::Deleted));
        }
    }

    pub(super) fn request_shutdown(
        &mut self,
        mode: ShutdownMode,
        reason: ShutdownReason,
        budget: Option<Duration>,
    ) {
        match self.phase {
            TreePhase::Finished => return,
            TreePhase::ShuttingDown(_) => {}
            TreePhase::Idle | TreePhase::Running => self.shut_down(reason, budget),
        }
        if mode == ShutdownMode::Forced {
            self.force();
        }
    }

    /// Begins the end of the tree: nothing starts any more, and everything stops wave by wave.
    pub(super) fn shut_down(&mut self, reason: ShutdownReason, budget: Option<Duration>) {
        if !self.may_start() {
            return;
        }
        let plan = self.fresh_plan();
        let failed = self.failed_names();
        let (kill_by, kill_key) = match budget {
            Some(budget) => {
                let delay = budget.saturating_sub((budget / KILL_SHARE).max(KILL_MARGIN));
                (Some(self.now + delay), self.wake_after(NodeId::ROOT, delay))
            }
            None => (None, self.fresh_key()),
        };
        self.phase = TreePhase::ShuttingDown(Ending {
            plan,
            reason,
            forced: false,
            killed: false,
            failed,
            kill_by,
            kill_key,
        });
        self.announce(Fact::ShutdownStarted { reason, budget });
        for request in self.withdraw_requests() {
            self.effects.push(Effect::Rejected {
                request,
                why: Rejection::ShuttingDown,
            });
        }
        let mut live = self.fold(NodeId::ROOT, plan);
        live.extend(self.live_one_shots());
        self.carry_out(plan, live, Then::Finish);
    }

    fn force(&mut self) {
        let TreePhase::ShuttingDown(ending) = &mut self.phase else {
            return;
        };
        ending.forced = true;
        self.kill_everything();
    }

    /// Kills everything that still runs, once.
    pub(super) fn kill_everything(&mut self) {
        let TreePhase::ShuttingDown(ending) = &mut self.phase else {
            return;
        };
        let plan = ending.plan;
        if std::mem::replace(&mut ending.killed, true) {
            return;
        }
        self.announce(Fact::ShutdownForced);
        for index in 0..self.nodes.len() {
            let id = NodeId(u32::try_from(index).expect("a tree has fewer than 2^32 nodes"));
            if matches!(self.nodes[index].body, Body::Child(_)) {
                self.kill(id);
            }
        }
        if let Some(plan) = self.plans.get_mut(&plan) {
            plan.waves.clear();
        }
    }

    fn finish(&mut self) {
        self.close(NodeId::ROOT, Why::Stopped);
        let phase = std::mem::replace(&mut self.phase, TreePhase::Finished);
        if let TreePhase::ShuttingDown(Ending {
            reason,
            forced,
            failed,
            ..
        }) = phase
        {
            self.announce(Fact::ShutdownFinished);
            self.effects.push(Effect::Finished(Finish {
                reason,
                forced,
                failed,
            }));
        }
    }

    /// A tree that is to end with its children does so when nothing runs, waits for a timer or can start.
    pub(super) fn end_if_at_rest(&mut self) {
        let is_at_rest =
            self.phase == TreePhase::Running && self.busy == 0 && self.plans.is_empty();
        if self.lifetime == Lifetime::UntilAllEnded && is_at_rest && self.parked == 0 {
            self.shut_down(ShutdownReason::AllEnded, self.shutdown_budget);
            self.settle();
        }
    }
}
