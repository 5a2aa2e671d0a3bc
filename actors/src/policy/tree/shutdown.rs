//! The end of the tree: nothing starts any more, everything stops wave by wave, and at last what still runs is killed.

use std::time::Duration;

use crate::policy::admission::Rejection;
use crate::policy::event::{Fact, ShutdownReason};
use crate::policy::spec::{Lifetime, NodeId};
use crate::policy::tree::node::{Body, Why};
use crate::policy::tree::plan::Then;
use crate::policy::tree::{Effect, Ending, Finish, Phase as TreePhase, ShutdownMode, Tree};

/// At the latest this share of a shutdown's budget before its end everything is killed…
const KILL_SHARE: u32 = 10;
/// … and at the latest this long before.
const KILL_MARGIN: Duration = Duration::from_millis(250);

impl Tree {
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

    pub(super) fn force(&mut self) {
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

    pub(super) fn finish(&mut self) {
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
