//! The actor of one run. It lives as long as the run does, and its supervisor releases it.
//!
//! It never stops itself: a termination overtakes messages, so a report made right before would be read too late. It never
//! waits either: what takes time comes back as a message.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, DerivedActorRef};
use tracing::{debug, warn};

use crate::exec::Stopped;
use crate::os::stdin::Stdin;
use crate::os::{End, Job, News, Observer, Os, Output, Process, SpawnError};
use crate::policy::run::{self, Run, RunRules, StopCause};
use crate::policy::spec::{ChildName, CommandSpec, NodeId, RunId};
use crate::tree::task::{self, TaskContext};
use crate::work::Work;

/// What a child actor is told.
pub(crate) enum ChildMsg {
    /// By the operating system, or by the task that it runs.
    News(News),
    /// Ask the run to stop within this grace.
    Stop {
        grace: std::time::Duration,
    },
    Kill,
    GraceElapsed,
    TimedOut,
    IdleDue,
    #[cfg(feature = "testing")]
    Panic,
}

/// What a child actor reports of its run.
pub(crate) struct ChildReport {
    pub(crate) child: NodeId,
    pub(crate) run: RunId,
    pub(crate) news: Reported,
}

pub(crate) enum Reported {
    Started {
        pid: Option<u32>,
    },
    NotStarted {
        error: SpawnError,
        stopped: Option<Stopped>,
    },
    Ended {
        end: Box<End>,
        stopped: Option<Stopped>,
    },
}

/// All that a run needs.
pub(crate) struct RunOrder {
    pub(crate) child: NodeId,
    pub(crate) run: RunId,
    pub(crate) name: ChildName,
    pub(crate) work: Work,
    pub(crate) stdin: Stdin,
    pub(crate) output: Output,
    pub(crate) rules: RunRules,
    pub(crate) os: Arc<dyn Os>,
    pub(crate) report_to: DerivedActorRef<ChildReport>,
}

pub(crate) struct Child;

pub(crate) struct ChildState {
    child: NodeId,
    run: RunId,
    rules: RunRules,
    machine: Run,
    stopped: Option<Stopped>,
    report_to: DerivedActorRef<ChildReport>,
    /// Dropped with this state, however the actor ends: what is left of the run is killed then.
    process: Box<dyn Process>,
}

/// Carries the news of a run to its actor.
struct Messenger(ActorRef<ChildMsg>);

impl Observer for Messenger {
    fn tell(&self, news: News) {
        if let Err(error) = self.0.cast(ChildMsg::News(news)) {
            debug!(%error, "the actor of a run was gone before its news");
        }
    }
}

impl Actor for Child {
    type Msg = ChildMsg;
    type State = ChildState;
    type Arguments = RunOrder;

    /// Hands the run over and returns: this runs in the supervisor's own task.
    async fn pre_start(
        &self,
        myself: ActorRef<ChildMsg>,
        order: RunOrder,
    ) -> Result<ChildState, ActorProcessingErr> {
        let observer = Arc::new(Messenger(myself.clone()));
        let process = match order.work {
            Work::Command(command) => order.os.begin(Job {
                command: Arc::new(introduced(&command, &order.name, order.run)),
                run: order.run,
                child: order.name,
                stdin: order.stdin,
                output: order.output,
                observer,
            }),
            Work::Task(body) => {
                task::begin(&body, TaskContext::new(order.name, order.run), observer)
            }
        };
        let (machine, effects) = Run::begin(&order.rules);
        let state = ChildState {
            child: order.child,
            run: order.run,
            rules: order.rules,
            machine,
            stopped: None,
            report_to: order.report_to,
            process,
        };
        for effect in effects {
            state.perform(&myself, effect);
        }
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<ChildMsg>,
        message: ChildMsg,
        state: &mut ChildState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ChildMsg::News(News::Started { pid }) => {
                state.report(Reported::Started {
                    pid: (pid != 0).then_some(pid),
                });
                state.feed(&myself, run::Event::Started);
            }
            ChildMsg::News(News::NotStarted(error)) => {
                state.feed(&myself, run::Event::Ended);
                let stopped = state.stopped;
                state.report(Reported::NotStarted { error, stopped });
            }
            ChildMsg::News(News::OutputLimit) => state.feed(&myself, run::Event::OutputLimit),
            ChildMsg::News(News::Ended(end)) => {
                state.feed(&myself, run::Event::Ended);
                let stopped = state.stopped;
                state.report(Reported::Ended { end, stopped });
            }
            ChildMsg::Stop { grace } => state.feed(&myself, run::Event::StopRequested { grace }),
            ChildMsg::Kill => state.feed(&myself, run::Event::KillRequested),
            ChildMsg::GraceElapsed => state.feed(&myself, run::Event::GraceElapsed),
            ChildMsg::TimedOut => state.feed(&myself, run::Event::TimedOut),
            ChildMsg::IdleDue => {
                let quiet = state.process.quiet();
                state.feed(&myself, run::Event::IdleDue { quiet });
            }
            #[cfg(feature = "testing")]
            ChildMsg::Panic => panic!("a fault was injected into the actor of run {}", state.run),
        }
        Ok(())
    }
}

/// Tells the program whose run it is, and which.
fn introduced(command: &CommandSpec, child: &ChildName, run: RunId) -> CommandSpec {
    let mut command = command.clone();
    let told = [
        ("KIMI_CHILD", child.as_str().to_owned()),
        ("KIMI_RUN_ID", run.to_string()),
    ];
    let told = told.map(|(name, value)| (name.into(), value.into()));
    // Last, so that it holds whatever else the environment says.
    command.env.extend(told);
    command
}

impl ChildState {
    fn feed(&mut self, myself: &ActorRef<ChildMsg>, event: run::Event) {
        let (machine, effects) = self.machine.next(event, &self.rules);
        if let Some(cause) = StopCause::of_move(self.machine, machine, event) {
            // Asked now, before it is signalled and waits for nothing any more.
            let waited_for_input = matches!(cause, StopCause::Timeout | StopCause::Idle)
                && self.process.waits_for_input();
            self.stopped = Some(Stopped {
                cause,
                waited_for_input,
            });
        }
        self.machine = machine;
        for effect in effects {
            self.perform(myself, effect);
        }
    }

    fn perform(&self, myself: &ActorRef<ChildMsg>, effect: run::Effect) {
        match effect {
            run::Effect::Signal(signal) => {
                if let Err(error) = self.process.signal(signal) {
                    warn!(run = self.run.0, %error, "a signal could not be sent");
                }
            }
            run::Effect::Kill => self.process.kill(),
            // Timers of an actor that is gone fall on no ears; those of a state that has passed are answered with nothing.
            run::Effect::WakeAfterGrace(delay) => {
                drop(myself.send_after(delay, || ChildMsg::GraceElapsed));
            }
            run::Effect::WakeAfterTimeout(delay) => {
                drop(myself.send_after(delay, || ChildMsg::TimedOut));
            }
            run::Effect::WakeAfterIdle(delay) => {
                drop(myself.send_after(delay, || ChildMsg::IdleDue));
            }
        }
    }

    fn report(&self, news: Reported) {
        let report = ChildReport {
            child: self.child,
            run: self.run,
            news,
        };
        if let Err(error) = self.report_to.cast(report) {
            debug!(%error, "the supervisor of a run was gone before its report");
        }
    }
}
