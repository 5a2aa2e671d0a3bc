//! What the end of a run leads to.

use std::time::Duration;

use crate::policy::event::{EndedBy, Fact, FailedBecause, SupervisorEnd};
use crate::policy::exit::{Exit, StartFailure};
use crate::policy::intensity::Verdict;
use crate::policy::restart::{AutoShutdown, Ended as Class, Strategy};
use crate::policy::spec::{Dialect, NodeId, OnLimit, Readiness, RunId};
use crate::policy::time::Moment;
use crate::policy::tree::node::{Body, Life, Origin, Phase, Wait, Wanted, Why};
use crate::policy::tree::plan::Ended;
use crate::policy::tree::{Effect, Phase as TreePhase, Tree};

/// What the governor says of one more restart.
enum Governed {
    After(Duration),
    Limit(OnLimit),
}

/// Since when a run that has ended was good: ready, or running if nothing reports its readiness. One that was ready and no
/// longer is, or that was stopped as one that failed, was not.
fn good_since(life: Life, body: &Body) -> Option<Moment> {
    let Life::Live { phase, since, .. } = life else {
        return None;
    };
    let is_good = match body {
        // It was stopping its members when it ended.
        Body::Supervisor(_) => true,
        Body::Child(child) => match phase {
            Phase::Ready => true,
            Phase::Running => child.readiness == Readiness::Running,
            Phase::Starting | Phase::Unready | Phase::Stopping => false,
        },
    };
    is_good.then_some(since)
}

impl Tree {
    pub(super) fn out_of_memory(&mut self, id: NodeId, run: RunId) {
        if self.is_live(id, run) {
            let child = self.node(id).name.clone();
            self.announce(Fact::OutOfMemory { child, run });
        }
    }

    pub(super) fn exited(&mut self, id: NodeId, run: RunId, exit: Exit) {
        if !self.is_live(id, run) {
            return;
        }
        let node = self.node_mut(id);
        let life = node.life;
        let by = node.ended_by();
        let plan = node.plan.take();
        node.last_exit = Some((exit, by));
        node.pid = None;
        if let Some(body) = node.child_mut() {
            body.deadline = None;
            body.condemned = None;
        }
        let child = node.name.clone();
        let was_asked = node.is_stopping();
        self.effects.push(Effect::Release { child: id, run });
        self.announce(Fact::Exited {
            child,
            run,
            exit,
            by,
        });
        if self.node(id).request().is_some() {
            self.one_shot_ended(id, plan.filter(|_| was_asked));
            return;
        }
        match plan {
            // It was being stopped, or was going to be: its own restart is no longer the question.
            Some(plan) => self.leave_plan(id, plan, was_asked),
            None => self.ended_alone(id, exit, by, life),
        }
    }

    /// It ended by itself, or was stopped as one that failed: whatever it answered to that, it failed.
    fn ended_alone(&mut self, id: NodeId, exit: Exit, by: EndedBy, life: Life) {
        if let Exit::NotStarted(failure) = exit
            && self.start_failed(id, failure, life)
        {
            return;
        }
        let class = match &self.node(id).body {
            Body::Child(body) if by == EndedBy::Itself && body.success.contains(exit) => {
                Class::Succeeded
            }
            Body::Child(_) | Body::Supervisor(_) => Class::Failed,
        };
        self.decide(id, class, life);
    }

    /// Whether a failed start was answered in a way of its own; otherwise it is an exit like any other.
    fn start_failed(&mut self, id: NodeId, failure: StartFailure, life: Life) -> bool {
        match self.dialect {
            Dialect::Otp => {
                let Life::Live { origin, .. } = life else {
                    return false;
                };
                self.otp_start_failed(id, origin);
                true
            }
            Dialect::Own if failure.is_permanent() => {
                self.fail(id, FailedBecause::CannotStart);
                true
            }
            Dialect::Own if failure == StartFailure::Exhausted => {
                // The machine's shortage is not the child's fault: no budget is spent.
                let random = self.random;
                let node = self.node_mut(id);
                node.history.exhausted = node.history.exhausted.saturating_add(1);
                let delay = node.governor.backoff.delay(node.history.exhausted, random);
                self.schedule(id, delay);
                true
            }
            Dialect::Own => false,
        }
    }

    fn otp_start_failed(&mut self, id: NodeId, origin: Origin) {
        match origin {
            Origin::First => {
                let parent = self.node(id).parent;
                self.set_life(id, Life::Down(Why::Grouped));
                self.end_supervisor(parent, SupervisorEnd::StartFailed, Ended::NotStarted);
            }
            Origin::Group | Origin::Restart | Origin::Return(_) => {
                let key = self.wake_after(id, Duration::ZERO);
                self.set_life(
                    id,
                    Life::Backoff {
                        key,
                        until: self.now,
                        what: Wait::Retry,
                    },
                );
            }
            Origin::Operator => self.set_life(id, Life::Down(Why::Stopped)),
        }
    }

    /// A child or supervisor ended by itself: restart it, or not.
    fn decide(&mut self, id: NodeId, class: Class, life: Life) {
        let node = self.node(id);
        if node.wanted == Wanted::Down || !self.may_start() {
            self.set_life(id, Life::Down(Why::Stopped));
            return;
        }
        if !node.restart.wants(class) {
            match class {
                Class::Succeeded => self.complete(id),
                Class::Failed => self.fail(id, FailedBecause::NotRestarted),
            }
            return;
        }
        let parent = node.parent;
        match self.govern(id, life) {
            Governed::After(delay) => self.strike(parent, id, delay),
            Governed::Limit(OnLimit::SlowRetry) => {
                let delay = self.node(id).governor.backoff.max;
                self.strike(parent, id, delay);
            }
            Governed::Limit(OnLimit::GiveUp) => self.fail(id, FailedBecause::Limit),
            Governed::Limit(OnLimit::Escalate) => {
                self.announce_failed(id, FailedBecause::Limit);
                self.set_life(id, Life::Down(Why::Failed(FailedBecause::Limit)));
                self.end_supervisor(parent, SupervisorEnd::MemberEscalated, Ended::Shutdown);
            }
            Governed::Limit(OnLimit::Shutdown) => {
                self.announce_failed(id, FailedBecause::Limit);
                self.set_life(id, Life::Down(Why::Failed(FailedBecause::Limit)));
                self.end_supervisor(
                    NodeId::ROOT,
                    SupervisorEnd::MemberEscalated,
                    Ended::Shutdown,
                );
            }
        }
    }

    /// Counts the restart when the run ends, and says when it may be.
    fn govern(&mut self, id: NodeId, life: Life) -> Governed {
        let (now, random) = (self.now, self.random);
        let node = self.node_mut(id);
        let governor = node.governor;
        let was_good = good_since(life, &node.body).map(|since| now.since(since));
        let is_stable = was_good.is_some_and(|span| span >= governor.backoff.reset_after);
        node.history.unstable = if is_stable {
            0
        } else {
            node.history.unstable.saturating_add(1)
        };
        if let Some(limit) = governor.limit {
            let verdict = node.history.stamps.record(now, limit);
            if verdict == Verdict::Exceeded || node.history.unstable > limit.max_restarts {
                return Governed::Limit(governor.on_limit);
            }
        }
        Governed::After(governor.backoff.delay(node.history.unstable, random))
    }

    /// One strategy action of a supervisor: one unit of its intensity, then who restarts.
    fn strike(&mut self, supervisor: NodeId, culprit: NodeId, delay: Duration) {
        let now = self.now;
        let Some(body) = self.node_mut(supervisor).supervisor_mut() else {
            return;
        };
        let strategy = body.strategy;
        let on_limit = body.on_limit;
        let verdict = body.intensity.map_or(Verdict::Within, |intensity| {
            body.stamps.record(now, intensity)
        });
        let slow = self.node(supervisor).governor.backoff.max;
        let delay = match (verdict, on_limit) {
            (Verdict::Within, _) => delay,
            (Verdict::Exceeded, OnLimit::SlowRetry) => delay.max(slow),
            (Verdict::Exceeded, OnLimit::GiveUp | OnLimit::Escalate | OnLimit::Shutdown) => {
                self.set_life(culprit, Life::Down(Why::Grouped));
                self.intensity_exceeded(supervisor, on_limit);
                return;
            }
        };
        self.node_mut(culprit).history.restarts += 1;
        match strategy {
            Strategy::OneForOne => self.schedule(culprit, delay),
            Strategy::OneForAll => self.regroup(supervisor, 0, culprit, delay),
            Strategy::RestForOne => {
                self.regroup(supervisor, self.node(culprit).position, culprit, delay);
            }
        }
    }

    fn intensity_exceeded(&mut self, supervisor: NodeId, on_limit: OnLimit) {
        match on_limit {
            OnLimit::GiveUp => {
                self.end_supervisor(supervisor, SupervisorEnd::Intensity, Ended::Failed);
            }
            OnLimit::Escalate | OnLimit::SlowRetry => {
                self.end_supervisor(supervisor, SupervisorEnd::Intensity, Ended::Shutdown);
            }
            OnLimit::Shutdown => {
                self.end_supervisor(NodeId::ROOT, SupervisorEnd::Intensity, Ended::Shutdown);
            }
        }
    }

    /// Starts one node again: now, or after the delay.
    fn schedule(&mut self, id: NodeId, delay: Duration) {
        let node = self.node(id);
        let (child, unstable) = (node.name.clone(), node.history.unstable);
        self.announce(Fact::RestartScheduled {
            child,
            delay,
            unstable,
        });
        if delay.is_zero() {
            self.begin_again(id, Origin::Restart);
        } else {
            let key = self.wake_after(id, delay);
            self.set_life(
                id,
                Life::Backoff {
                    key,
                    until: self.now + delay,
                    what: Wait::Restart,
                },
            );
        }
    }

    pub(super) fn backoff_over(&mut self, id: NodeId, what: Wait) {
        match what {
            Wait::Restart => self.begin_again(id, Origin::Restart),
            Wait::Retry => {
                let parent = self.node(id).parent;
                self.strike(parent, id, Duration::ZERO);
            }
            // The supervisor's timer decides.
            Wait::Group => {}
        }
    }

    /// It ended well and stays down.
    fn complete(&mut self, id: NodeId) {
        self.set_life(id, Life::Down(Why::Completed));
        let child = self.node(id).name.clone();
        self.announce(Fact::Completed { child });
        self.significant_ended(id);
    }

    /// It is given up.
    fn fail(&mut self, id: NodeId, why: FailedBecause) {
        self.set_life(id, Life::Down(Why::Failed(why)));
        self.announce_failed(id, why);
        self.significant_ended(id);
    }

    fn announce_failed(&mut self, id: NodeId, why: FailedBecause) {
        let child = self.node(id).name.clone();
        self.announce(Fact::Failed { child, why });
    }

    /// OTP's `auto_shutdown`: looked at only when a significant member ended by itself and is not restarted.
    fn significant_ended(&mut self, id: NodeId) {
        let (is_significant, parent) = (self.node(id).significant, self.node(id).parent);
        let Some(body) = self.node(parent).supervisor() else {
            return;
        };
        let is_last = || {
            body.members.iter().all(|member| {
                let member = self.node(*member);
                !member.significant || matches!(member.life, Life::Down(_))
            })
        };
        let ends = match body.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => is_significant,
            AutoShutdown::AllSignificant => is_significant && is_last(),
        };
        if ends {
            self.end_supervisor(parent, SupervisorEnd::AutoShutdown, Ended::Shutdown);
        }
    }

    /// A nested supervisor is down with all below it: what its own supervisor makes of that. `life` is what it had before.
    pub(super) fn supervisor_ended(
        &mut self,
        id: NodeId,
        why: SupervisorEnd,
        what: Ended,
        life: Life,
    ) {
        if self.phase != TreePhase::Running {
            return;
        }
        let restarts = self.node(id).restart.wants(Class::Succeeded);
        match (what, life) {
            (Ended::Shutdown, _) if restarts => self.decide(id, Class::Succeeded, life),
            (Ended::Shutdown, _) if why == SupervisorEnd::AutoShutdown => self.complete(id),
            (Ended::Shutdown | Ended::Failed, _) => self.fail(id, FailedBecause::SupervisorGaveUp),
            (Ended::Killed, _) => self.decide(id, Class::Failed, life),
            (Ended::NotStarted, Life::Live { origin, .. }) => self.otp_start_failed(id, origin),
            (Ended::NotStarted, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::event::Fact;
    use crate::policy::spec::RunId;
    use crate::policy::tree::Event;
    use crate::policy::tree::trial::{Trial, name, service};

    #[test]
    fn that_memory_was_short_is_told_of_the_live_run_alone() {
        let mut trial = Trial::of(vec![service("api")]).all_ready();
        let (child, run) = (trial.id("api"), trial.run("api"));
        trial.feed(Event::OutOfMemory { child, run });
        let told = Fact::OutOfMemory {
            child: name("api"),
            run,
        };
        assert_eq!(trial.facts(), [told]);
        let stale = RunId(run.0 + 1);
        trial.feed(Event::OutOfMemory { child, run: stale });
        assert_eq!(trial.facts(), []);
    }
}
