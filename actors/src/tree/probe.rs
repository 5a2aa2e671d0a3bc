//! The actor of one probe of one run: the policy says when to ask, the operating system asks.
//!
//! It is linked below the actor of its run, which releases it. Dropped in whatever way, it gives up the check that is under
//! way, and the process of that is killed.

use std::sync::Arc;
use std::time::Duration;

use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorProcessingErr, ActorRef, DerivedActorRef, MessagingErr};
use tracing::debug;

use crate::os::Os;
use crate::os::check::{CheckFailure, CheckOrder, Errand};
use crate::policy::probe::{Answer, Effect, Event, Probing, Verdict};
use crate::tree::log::Chain;

/// What a probe actor is told. Each names the check that it is about; a stale one changes nothing.
pub(crate) enum ProbeMsg {
    Due {
        check: u64,
    },
    Answered {
        check: u64,
        result: Result<(), CheckFailure>,
    },
    TimedOut {
        check: u64,
        after: Duration,
    },
    Cleared {
        check: u64,
    },
    #[cfg(feature = "testing")]
    Panic,
}

/// What a probe actor reports.
pub(crate) struct ProbeReport {
    pub(crate) errand: Errand,
    /// Which of the actors that this probe has had.
    pub(crate) life: u64,
    pub(crate) news: ProbeNews,
}

pub(crate) enum ProbeNews {
    /// Answers differ from those before, or are the first.
    Checked {
        failure: Option<String>,
    },
    Judged(Verdict),
    /// It is not needed any more.
    Finished,
}

/// All that a probe needs.
pub(crate) struct ProbeOrder {
    pub(crate) life: u64,
    pub(crate) machine: Probing,
    /// [`Event::Begun`] or [`Event::Resumed`].
    pub(crate) beginning: Event,
    pub(crate) check: CheckOrder,
    pub(crate) os: Arc<dyn Os>,
    pub(crate) report_to: DerivedActorRef<ProbeReport>,
}

pub(crate) struct Probe;

pub(crate) struct ProbeState {
    order: ProbeOrder,
    /// The check under way; dropped, it is given up.
    asked: Option<Box<dyn Send>>,
    alarm: Option<Alarm>,
    /// Why the last check failed, if it did.
    failure: Option<String>,
    is_told: bool,
}

/// A timer that ends with whoever set it.
struct Alarm(JoinHandle<Result<(), MessagingErr<ProbeMsg>>>);

impl Drop for Alarm {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Actor for Probe {
    type Msg = ProbeMsg;
    type State = ProbeState;
    type Arguments = ProbeOrder;

    async fn pre_start(
        &self,
        myself: ActorRef<ProbeMsg>,
        order: ProbeOrder,
    ) -> Result<ProbeState, ActorProcessingErr> {
        let beginning = order.beginning;
        let mut state = ProbeState {
            order,
            asked: None,
            alarm: None,
            failure: None,
            is_told: false,
        };
        state.feed(&myself, beginning);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<ProbeMsg>,
        message: ProbeMsg,
        state: &mut ProbeState,
    ) -> Result<(), ActorProcessingErr> {
        #[cfg(feature = "testing")]
        crate::testing::step(crate::testing::ActorKind::Probe);
        match message {
            ProbeMsg::Due { check } => state.feed(&myself, Event::Due { check }),
            ProbeMsg::Answered { check, result } => {
                let (answer, failure) = match result {
                    Ok(()) => (Answer::Passed, None),
                    Err(failure) => (Answer::Failed, Some(Chain(&failure).to_string())),
                };
                state.take_note(&myself, Event::Answered { check, answer }, failure);
            }
            ProbeMsg::TimedOut { check, after } => {
                let failure = format!("timed out after {after:?}");
                state.take_note(&myself, Event::TimedOut { check }, Some(failure));
            }
            ProbeMsg::Cleared { check } => state.feed(&myself, Event::Cleared { check }),
            #[cfg(feature = "testing")]
            ProbeMsg::Panic => panic!("a fault was injected into the actor of a probe"),
        }
        Ok(())
    }
}

impl ProbeState {
    /// Feeds what a check came to, and tells why it failed before what that means.
    fn take_note(&mut self, myself: &ActorRef<ProbeMsg>, event: Event, failure: Option<String>) {
        let effects = self.order.machine.next(event);
        if effects.is_empty() {
            return; // Its time was over, or it had been answered.
        }
        let CheckOrder {
            child, run, errand, ..
        } = &self.order.check;
        if let Some(reason) = &failure {
            debug!(%child, run = run.0, ?errand, reason, "check failed");
        }
        if !self.is_told || self.failure != failure {
            self.is_told = true;
            self.failure.clone_from(&failure);
            self.report(ProbeNews::Checked { failure });
        }
        self.perform(myself, effects);
    }

    fn feed(&mut self, myself: &ActorRef<ProbeMsg>, event: Event) {
        let effects = self.order.machine.next(event);
        self.perform(myself, effects);
    }

    fn perform(&mut self, myself: &ActorRef<ProbeMsg>, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::WakeAfter { check, delay } => {
                    let due = myself.send_after(delay, move || ProbeMsg::Due { check });
                    self.alarm = Some(Alarm(due));
                }
                Effect::Check { check, timeout } => self.ask(myself, check, timeout),
                Effect::Clear { check } => self.clear(myself, check),
                Effect::Tell(verdict) => self.report(ProbeNews::Judged(verdict)),
                Effect::Finish => self.report(ProbeNews::Finished),
            }
        }
    }

    fn ask(&mut self, myself: &ActorRef<ProbeMsg>, check: u64, after: Duration) {
        let late = myself.send_after(after, move || ProbeMsg::TimedOut { check, after });
        self.alarm = Some(Alarm(late));
        let myself = myself.clone();
        let tell = Box::new(move |result| {
            // Nobody waits for the answer of a probe that is gone.
            drop(myself.cast(ProbeMsg::Answered { check, result }));
        });
        self.asked = Some(self.order.os.check(self.order.check.clone(), tell));
    }

    fn clear(&mut self, myself: &ActorRef<ProbeMsg>, check: u64) {
        drop(self.asked.take());
        let CheckOrder { run, errand, .. } = self.order.check;
        let myself = myself.clone();
        let then = Box::new(move || drop(myself.cast(ProbeMsg::Cleared { check })));
        self.order.os.when_gone(errand.run(run), then);
    }

    fn report(&self, news: ProbeNews) {
        let report = ProbeReport {
            errand: self.order.check.errand,
            life: self.order.life,
            news,
        };
        if let Err(error) = self.order.report_to.cast(report) {
            debug!(%error, "the actor of a run was gone before a report of its probe");
        }
    }
}
