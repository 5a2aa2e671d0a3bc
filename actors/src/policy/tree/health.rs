//! What is said of a run while it lives: that it is ready, is no longer, does not live any more, takes too long to start, or
//! runs or is silent for longer than it may.
//!
//! A run that is condemned, by its liveness probe, its start timeout or another bound on its time, is stopped like any other, but by no plan: its end
//! is decided as that of one that failed by itself, whatever it answers to the stop signal, and it is never stable. A plan that
//! takes it before it is gone (an operator's stop or restart, its group, the shutdown) makes the verdict void, and one that had
//! taken it before leaves no place for one.

use std::time::Duration;

use crate::policy::event::{Bound, EndedBy, Fact};
use crate::policy::spec::{NodeId, Readiness, RunId};
use crate::policy::tree::Tree;
use crate::policy::tree::node::{Body, Deadline, Life, Phase};

impl Tree {
    pub(super) fn ready(&mut self, id: NodeId, run: RunId) {
        if !self.is_live(id, run) {
            return;
        }
        // A report that comes while it is being stopped, or twice, changes nothing.
        if let Life::Live {
            phase: Phase::Starting | Phase::Running | Phase::Unready,
            origin,
            ..
        } = self.node(id).life
        {
            self.set_life(
                id,
                Life::Live {
                    run,
                    phase: Phase::Ready,
                    since: self.now,
                    origin,
                },
            );
            let node = self.node_mut(id);
            if let Some(body) = node.child_mut() {
                body.deadline = None;
            }
            let child = node.name.clone();
            self.announce(Fact::Ready { child, run });
        }
    }

    /// A run is no longer ready: it is good for nobody who waits, and not stable until it has been ready for long enough again.
    ///
    /// Who has started already is touched only over an edge that says so.
    pub(super) fn unready(&mut self, id: NodeId, run: RunId) {
        if !self.is_live(id, run) {
            return;
        }
        let node = self.node(id);
        if let (
            Life::Live {
                phase: Phase::Ready,
                origin,
                ..
            },
            Body::Child(body),
        ) = (node.life, &node.body)
            && body.readiness == Readiness::Reported
        {
            let child = node.name.clone();
            self.set_life(
                id,
                Life::Live {
                    run,
                    phase: Phase::Unready,
                    since: self.now,
                    origin,
                },
            );
            self.announce(Fact::Unready { child, run });
        }
    }

    pub(super) fn unhealthy(&mut self, id: NodeId, run: RunId) {
        if self.is_live(id, run) && self.may_be_condemned(id) {
            let child = self.node(id).name.clone();
            self.announce(Fact::Unhealthy { child, run });
            self.condemn(id, EndedBy::Liveness);
        }
    }

    /// A run stops because it exceeded a bound on its time. That it is told to stop once more changes nothing for it.
    pub(super) fn overran(
        &mut self,
        id: NodeId,
        run: RunId,
        bound: Bound,
        (limit, waits_for_input): (Duration, bool),
    ) {
        if self.is_live(id, run) && self.may_be_condemned(id) {
            self.announce(Fact::Overran {
                child: self.node(id).name.clone(),
                run,
                bound,
                limit,
                waits_for_input,
            });
            self.condemn(id, EndedBy::Bound(bound));
        }
    }

    /// Sets the start timeout of a run that begins.
    pub(super) fn limit_start(&mut self, id: NodeId, start_timeout: Duration) {
        let key = self.wake_after(id, start_timeout);
        let began = self.now;
        if let Some(body) = self.node_mut(id).child_mut() {
            body.deadline = Some(Deadline {
                key,
                began,
                due: began + start_timeout,
            });
        }
    }

    /// Moves the start timeout of a run to this long from now, unless it lies beyond that already.
    pub(super) fn extend_start(&mut self, id: NodeId, run: RunId, by: Duration) {
        if !self.is_live(id, run) {
            return;
        }
        let at_least = self.now + by;
        if let Some(body) = self.node_mut(id).child_mut()
            && let Some(deadline) = &mut body.deadline
        {
            deadline.due = deadline.due.max(at_least);
        }
    }

    /// The timer of a start timeout went off, which may have been extended in the meantime.
    pub(super) fn start_is_due(&mut self, id: NodeId) {
        let now = self.now;
        let Some(deadline) = self
            .node_mut(id)
            .child_mut()
            .and_then(|body| body.deadline.take())
        else {
            return;
        };
        if deadline.due > now {
            let key = self.wake_after(id, deadline.due.since(now));
            if let Some(body) = self.node_mut(id).child_mut() {
                body.deadline = Some(Deadline { key, ..deadline });
            }
            return;
        }
        if let (true, Some(run)) = (self.may_be_condemned(id), self.node(id).live_run()) {
            self.announce(Fact::StartTimedOut {
                child: self.node(id).name.clone(),
                run,
                after: now.since(deadline.began),
            });
            self.condemn(id, EndedBy::StartTimeout);
        }
    }

    /// Neither asked to stop already, nor going to be.
    fn may_be_condemned(&self, id: NodeId) -> bool {
        let node = self.node(id);
        node.is_up() && node.plan.is_none() && matches!(node.body, Body::Child(_))
    }

    /// Stops a run as one that failed.
    fn condemn(&mut self, id: NodeId, by: EndedBy) {
        let node = self.node_mut(id);
        let grace = node.grace();
        if let Some(body) = node.child_mut() {
            body.condemned = Some(by);
        }
        self.tell_to_stop(id, grace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::policy::event::FailedBecause;
    use crate::policy::restart::{Restart, Strategy};
    use crate::policy::spec::{ChildRules, Condition};
    use crate::policy::tree::trial::{
        Trial, follower, group, name, restarts, service, with_condition,
    };
    use crate::policy::tree::{Reach, State};

    const START_TIMEOUT: Duration = Duration::from_secs(60);
    const NOTHING: [&str; 0] = [];

    fn limited(name: &str) -> ChildRules {
        ChildRules {
            start_timeout: Some(START_TIMEOUT),
            ..service(name)
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Something that happens, and the orders that it leads to.
    type Happening = fn(&mut Trial) -> Vec<String>;

    /// The ways in which a run is condemned.
    fn verdicts() -> [(EndedBy, Happening); 4] {
        [
            (EndedBy::Bound(Bound::MaxRuntime), |trial| {
                trial.overruns("a", Bound::MaxRuntime)
            }),
            (EndedBy::Bound(Bound::IdleTimeout), |trial| {
                trial.overruns("a", Bound::IdleTimeout)
            }),
            (EndedBy::StartTimeout, |trial| trial.pass(START_TIMEOUT)),
            (EndedBy::Liveness, |trial| trial.unhealthy("a")),
        ]
    }

    #[test]
    fn a_run_that_is_not_ready_in_time_is_stopped_as_one_that_failed() {
        let mut trial = Trial::of(vec![limited("a")]);
        trial.started("a");
        let run = trial.run("a");
        assert_eq!(trial.pass(seconds(59)), NOTHING);
        assert_eq!(trial.pass(seconds(1)), ["stop a"]);
        assert!(trial.facts().contains(&Fact::StartTimedOut {
            child: name("a"),
            run,
            after: START_TIMEOUT,
        }));
        assert_eq!(trial.state("a"), State::Stopping);
        assert_eq!(trial.exits("a", 0), NOTHING);
        let status = trial.status("a");
        assert_eq!(status.state, State::Backoff);
        assert_eq!((status.restarts, status.unstable), (1, 1));
        assert_eq!(status.ended_by, Some(EndedBy::StartTimeout));
        assert_eq!(trial.pass(seconds(1)), ["start a"]);
        assert_eq!(trial.pass(START_TIMEOUT), ["stop a"]);
    }

    #[test]
    fn a_start_is_limited_also_while_there_is_no_process() {
        let mut trial = Trial::of(vec![limited("a")]);
        assert_eq!(trial.pass(START_TIMEOUT), ["stop a"]);
    }

    #[test]
    fn who_was_ready_in_time_is_never_timed_out() {
        let mut trial = Trial::of(vec![limited("a")]).all_ready();
        trial.unready("a");
        assert_eq!(trial.pass(START_TIMEOUT * 2), NOTHING);
        assert_eq!(trial.state("a"), State::Running);
    }

    #[test]
    fn only_a_reported_readiness_with_a_limit_has_a_timer() {
        let by_running = ChildRules {
            start_timeout: Some(START_TIMEOUT),
            ..ChildRules::service(name("b"))
        };
        let trial = Trial::of(vec![service("a"), by_running, limited("c")]);
        assert_eq!(trial.timers(), 1);
    }

    #[test]
    fn an_extension_only_ever_moves_the_limit_away() {
        // When it is extended, by how much, and when it is over.
        for (at, by, over) in [
            (10, 5, 60),
            (10, 50, 60),
            (10, 51, 61),
            (59, 60, 119),
            (0, 0, 60),
        ] {
            let mut trial = Trial::of(vec![limited("a")]);
            trial.started("a");
            trial.pass(seconds(at));
            assert_eq!(trial.extends("a", seconds(by)), NOTHING);
            assert_eq!(trial.pass(seconds(over - at - 1)), NOTHING, "{at} {by}");
            assert_eq!(trial.pass(seconds(1)), ["stop a"], "{at} {by}");
        }
    }

    #[test]
    fn a_start_may_be_extended_again_and_again_with_one_timer_at_a_time() {
        let mut trial = Trial::of(vec![limited("a")]);
        for _ in 0..100 {
            trial.extends("a", START_TIMEOUT);
            assert_eq!(trial.pass(seconds(30)), NOTHING);
            assert_eq!(trial.timers(), 1);
        }
        trial.started("a");
        trial.ready("a");
        assert_eq!(trial.pass(seconds(600)), NOTHING);
        assert_eq!(trial.timers(), 0);
    }

    #[test]
    fn a_condemned_run_failed_whatever_it_answers() {
        for (by, condemn) in verdicts() {
            for (restart, state) in [
                (Restart::Always, State::Backoff),
                (Restart::OnFailure, State::Backoff),
                (Restart::Never, State::Failed),
            ] {
                let mut trial = Trial::of(vec![restarts(limited("a"), restart)]);
                trial.started("a");
                assert_eq!(condemn(&mut trial), ["stop a"]);
                trial.exits("a", 0);
                assert_eq!(trial.state("a"), state, "{by:?} {restart:?}");
                assert_eq!(trial.status("a").ended_by, Some(by));
            }
        }
    }

    #[test]
    fn a_run_that_exceeds_a_bound_on_its_time_is_unstable_however_long_it_ran() {
        for bound in [Bound::MaxRuntime, Bound::IdleTimeout] {
            let mut trial = Trial::of(vec![service("a")]).all_ready();
            let run = trial.run("a");
            trial.pass(seconds(3600));
            assert_eq!(trial.overruns("a", bound), ["stop a"]);
            assert!(trial.facts().contains(&Fact::Overran {
                child: name("a"),
                run,
                bound,
                limit: seconds(10),
                waits_for_input: false,
            }));
            trial.exits("a", 0);
            let status = trial.status("a");
            assert_eq!((status.state, status.unstable), (State::Backoff, 1));
        }
    }

    #[test]
    fn a_task_that_exceeds_a_bound_on_its_time_has_failed() {
        let task = ChildRules::task(name("a"));
        let after = with_condition(follower("b", &["a"]), Condition::Succeeded);
        let mut trial = Trial::of(vec![task, after]);
        trial.started("a");
        trial.overruns("a", Bound::MaxRuntime);
        assert_eq!(trial.exits("a", 0), NOTHING);
        let status = trial.status("a");
        assert_eq!(status.failed, Some(FailedBecause::NotRestarted));
        assert_eq!(trial.state("b"), State::Pending);
    }

    #[test]
    fn an_unhealthy_run_is_never_stable_and_its_limit_holds() {
        let mut trial = Trial::of(vec![service("a")]).all_ready();
        for count in 1..=5 {
            trial.pass(seconds(3600));
            assert_eq!(trial.unhealthy("a"), ["stop a"]);
            trial.exits("a", 0);
            assert_eq!(trial.status("a").unstable, count);
            assert_eq!(trial.pass(seconds(60)), ["start a"]);
            trial.started("a");
            trial.ready("a");
        }
        trial.unhealthy("a");
        trial.exits("a", 0);
        assert_eq!(trial.status("a").failed, Some(FailedBecause::Limit));
    }

    #[test]
    fn a_verdict_is_given_once() {
        for (_, condemn) in verdicts() {
            let mut trial = Trial::of(vec![limited("a")]);
            trial.started("a");
            condemn(&mut trial);
            assert_eq!(trial.unhealthy("a"), NOTHING);
            assert_eq!(trial.pass(START_TIMEOUT), NOTHING);
            assert_eq!(trial.ready("a"), NOTHING);
            assert_eq!(trial.state("a"), State::Stopping);
        }
    }

    /// What else stops a run: how, and whether it starts again.
    type Stop = (&'static str, Happening, bool);

    fn stops() -> [Stop; 4] {
        [
            ("stop", |trial| trial.stop("a", Reach::Connected), false),
            ("restart", |trial| trial.restart("a"), true),
            ("group", |trial| trial.exits("b", 1), true),
            ("shutdown", Trial::shut_down, false),
        ]
    }

    fn pair() -> Trial {
        let sibling = ChildRules::service(name("b"));
        let members = vec![limited("a"), sibling];
        let mut trial = Trial::with(vec![group("g", Strategy::OneForAll, members)]);
        trial.started("a");
        trial.start("b", Reach::Alone);
        trial.started("b");
        trial
    }

    #[test]
    fn whoever_else_stops_a_condemned_run_decides_what_becomes_of_it() {
        for (_, condemn) in verdicts() {
            for (what, stop, comes_again) in stops() {
                let mut trial = pair();
                condemn(&mut trial);
                let orders = stop(&mut trial);
                assert!(!orders.contains(&"stop a".to_owned()), "{what}: {orders:?}");
                trial.exits("a", 0);
                let status = trial.status("a");
                assert_eq!(status.state != State::Stopped, comes_again, "{what}");
                assert_eq!(status.ended_by, Some(EndedBy::Supervisor), "{what}");
                assert_eq!((status.restarts, status.unstable), (0, 0), "{what}");
            }
        }
    }

    #[test]
    fn a_run_that_is_stopped_already_is_not_condemned() {
        for (_, condemn) in verdicts() {
            for (what, stop, comes_again) in stops() {
                let mut trial = pair();
                stop(&mut trial);
                let orders = condemn(&mut trial);
                assert!(!orders.contains(&"stop a".to_owned()), "{what}: {orders:?}");
                let is_verdict = |fact: &Fact| {
                    matches!(
                        fact,
                        Fact::Unhealthy { .. } | Fact::StartTimedOut { .. } | Fact::Overran { .. }
                    )
                };
                assert!(!trial.facts().iter().any(is_verdict), "{what}");
                // A shutdown stops the sibling before it.
                if trial.state("a") != State::Stopping {
                    trial.exits("b", 0);
                }
                trial.exits("a", 0);
                let status = trial.status("a");
                assert_eq!(status.state != State::Stopped, comes_again, "{what}");
                assert_eq!(status.ended_by, Some(EndedBy::Supervisor), "{what}");
            }
        }
    }

    #[test]
    fn a_run_that_lost_its_readiness_is_stable_only_after_it_was_ready_again_for_long_enough() {
        // Whether it is ready again, for how long, and whether that is stable.
        for (is_ready, span, is_stable) in
            [(false, 3600, false), (true, 9, false), (true, 10, true)]
        {
            let mut trial = Trial::of(vec![service("a")]).all_ready();
            trial.pass(seconds(3600));
            trial.unready("a");
            if is_ready {
                trial.ready("a");
            }
            trial.pass(seconds(span));
            trial.exits("a", 1);
            let unstable = trial.status("a").unstable;
            assert_eq!(unstable == 0, is_stable, "{is_ready} {span}");
        }
    }

    #[test]
    fn a_run_that_was_never_ready_is_not_stable() {
        let mut trial = Trial::of(vec![service("a")]);
        trial.started("a");
        trial.pass(seconds(3600));
        trial.exits("a", 1);
        assert_eq!(trial.status("a").unstable, 1);
    }

    #[test]
    fn readiness_is_shown_and_told_each_time_it_changes() {
        let mut trial = Trial::of(vec![service("a")]).all_ready();
        trial.pass(seconds(1));
        assert_eq!(
            trial.status("a").ready_since.unwrap().since_begin(),
            seconds(0)
        );
        trial.unready("a");
        assert!(matches!(trial.facts()[..], [Fact::Unready { .. }]));
        assert_eq!(trial.status("a").ready_since, None);
        assert_eq!(trial.state("a"), State::Running);
        trial.unready("a");
        assert_eq!(trial.facts(), []);
        trial.ready("a");
        assert!(matches!(trial.facts()[..], [Fact::Ready { .. }]));
        assert_eq!(trial.status("a").ready_since, Some(trial.now()));
    }

    #[test]
    fn who_runs_by_being_started_cannot_lose_its_readiness() {
        let plain = ChildRules::service(name("a"));
        let mut trial = Trial::of(vec![plain]);
        trial.started("a");
        trial.unready("a");
        assert_eq!(trial.state("a"), State::Ready);
    }

    #[test]
    fn a_member_that_loses_its_readiness_holds_up_who_has_not_started_and_touches_nobody_else() {
        let members = vec![service("a"), service("b"), service("c")];
        let mut trial = Trial::with(vec![group("g", Strategy::RestForOne, members)]);
        trial.started("a");
        trial.ready("a");
        trial.started("b");
        assert_eq!(trial.unready("a"), NOTHING);
        assert_eq!(trial.state("b"), State::Running);
        assert_eq!(trial.ready("b"), ["start c"]);
        // A restart of those after it waits for it.
        trial.exits("b", 1);
        trial.exits("c", 0);
        assert_eq!(trial.pass(seconds(1)), NOTHING);
        assert_eq!(trial.ready("a"), ["start b"]);
    }
}
