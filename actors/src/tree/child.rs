//! The actor of one run. It lives as long as the run does, and its supervisor releases it.
//!
//! It never stops itself: a termination overtakes messages, so a report made right before would be read too late. It never
//! waits either: what takes time comes back as a message.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, DerivedActorRef, SupervisionEvent};
use tracing::{debug, warn};

use crate::exec::Stopped;
use crate::os::check::{CheckFailure, CheckOrder, Errand, Question};
use crate::os::stdin::Stdin;
use crate::os::{End, Job, News, Observer, Os, Output, Process, SpawnError};
use crate::policy::run::{self, Run, RunRules, StopCause};
use crate::policy::spec::{ChildName, CommandSpec, NodeId, RunId};
use crate::tree::log::Chain;
use crate::tree::probe::ProbeReport;
use crate::tree::probes::{Finding, ProbePlan, Probes, Rung};
use crate::tree::task::{self, TaskContext};
use crate::work::{Work, introduced, within};

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
    /// By one of its probes.
    Probed(ProbeReport),
    /// The run has said something of itself.
    Rung,
    /// The command that asks it to stop is over.
    StopCommandOver(Result<(), CheckFailure>),
    /// Nothing is left of a command that belonged to the run.
    CommandGone,
    #[cfg(feature = "testing")]
    Panic,
    #[cfg(feature = "testing")]
    PanicProbes,
}

impl From<ProbeReport> for ChildMsg {
    fn from(report: ProbeReport) -> Self {
        Self::Probed(report)
    }
}

impl From<Rung> for ChildMsg {
    fn from(Rung: Rung) -> Self {
        Self::Rung
    }
}

/// What is sent through a narrower reference is never turned back.
impl TryFrom<ChildMsg> for ProbeReport {
    type Error = ();

    fn try_from(_: ChildMsg) -> Result<Self, ()> {
        Err(())
    }
}

impl TryFrom<ChildMsg> for Rung {
    type Error = ();

    fn try_from(_: ChildMsg) -> Result<Self, ()> {
        Err(())
    }
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
    Found(Finding),
}

/// All that a run needs.
pub(crate) struct RunOrder {
    pub(crate) child: NodeId,
    pub(crate) run: RunId,
    pub(crate) name: ChildName,
    pub(crate) work: Work,
    pub(crate) stdin: Stdin,
    pub(crate) output: Output,
    pub(crate) probes: Option<Arc<ProbePlan>>,
    /// What asks it to stop instead of the signal.
    pub(crate) stop_command: Option<Arc<CommandSpec>>,
    pub(crate) rules: RunRules,
    pub(crate) os: Arc<dyn Os>,
    pub(crate) report_to: DerivedActorRef<ChildReport>,
}

pub(crate) struct Child;

/// A run that has ended, of whose probes something may be left.
struct Ending {
    end: Box<End>,
    /// How many commands are awaited; none while there are actors that may begin one.
    commands: Option<usize>,
}

pub(crate) struct ChildState {
    child: NodeId,
    name: ChildName,
    run: RunId,
    pid: u32,
    rules: RunRules,
    machine: Run,
    stopped: Option<Stopped>,
    report_to: DerivedActorRef<ChildReport>,
    probes: Option<Box<Probes>>,
    /// The end that is to be reported.
    ending: Option<Ending>,
    stop_command: Option<Box<CommandSpec>>,
    /// The command that asks it to stop; dropped, it is killed.
    stopping: Option<Box<dyn Send>>,
    os: Arc<dyn Os>,
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
        let probes = order.probes.clone().map(|plan| {
            let host = match &order.work {
                Work::Command(command) => Some(Arc::clone(command)),
                Work::Task(_) => None,
            };
            let whose = (order.name.clone(), order.run);
            let reports = (myself.get_derived(), myself.get_derived());
            Box::new(Probes::new(
                plan,
                whose,
                host,
                Arc::clone(&order.os),
                reports,
            ))
        });
        let observer = Arc::new(Messenger(myself.clone()));
        let name = order.name.clone();
        let stop_command = order
            .stop_command
            .map(|command| Box::new(belonging_to(&order.work, &command, &name, order.run)));
        let process = match order.work {
            Work::Command(command) => order.os.begin(Job {
                command: Arc::new(introduced(&command, &order.name, order.run)),
                run: order.run,
                child: order.name,
                stdin: order.stdin,
                output: order.output,
                observer,
                listen: probes.as_ref().and_then(|probes| probes.listen()),
            }),
            Work::Task(body) => {
                task::begin(&body, TaskContext::new(order.name, order.run), observer)
            }
        };
        let (machine, effects) = Run::begin(&order.rules);
        let mut state = ChildState {
            child: order.child,
            name,
            run: order.run,
            pid: 0,
            rules: order.rules,
            machine,
            stopped: None,
            report_to: order.report_to,
            probes,
            ending: None,
            stop_command,
            stopping: None,
            os: order.os,
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
        #[cfg(feature = "testing")]
        crate::testing::step(crate::testing::ActorKind::Child);
        match message {
            ChildMsg::News(News::Started { pid }) => {
                state.pid = pid;
                state.report(Reported::Started {
                    pid: (pid != 0).then_some(pid),
                });
                state.feed(&myself, run::Event::Started);
                state.begin_probes(&myself).await;
            }
            ChildMsg::News(News::NotStarted(error)) => {
                state.feed(&myself, run::Event::Ended);
                let stopped = state.stopped;
                state.report(Reported::NotStarted { error, stopped });
            }
            ChildMsg::News(News::OutputLimit) => state.feed(&myself, run::Event::OutputLimit),
            ChildMsg::News(News::Ended(end)) => state.ended(&myself, end),
            ChildMsg::Stop { grace } => state.feed(&myself, run::Event::StopRequested { grace }),
            ChildMsg::Kill => state.feed(&myself, run::Event::KillRequested),
            ChildMsg::GraceElapsed => state.feed(&myself, run::Event::GraceElapsed),
            ChildMsg::TimedOut => state.feed(&myself, run::Event::TimedOut),
            ChildMsg::IdleDue => {
                let quiet = state.process.quiet();
                state.feed(&myself, run::Event::IdleDue { quiet });
            }
            ChildMsg::Probed(report) => state.probed(&myself, report).await,
            ChildMsg::Rung => state.heard(&myself).await,
            ChildMsg::StopCommandOver(result) => {
                if let Err(failure) = result {
                    let (child, run) = (&state.name, state.run.0);
                    warn!(%child, run, error = %Chain(&failure), "the command that stops a child failed");
                }
                state.feed(&myself, run::Event::CommandOver);
            }
            ChildMsg::CommandGone => state.command_gone(&myself),
            #[cfg(feature = "testing")]
            ChildMsg::Panic => panic!("a fault was injected into the actor of run {}", state.run),
            #[cfg(feature = "testing")]
            ChildMsg::PanicProbes => {
                if let Some(probes) = &state.probes {
                    probes.panic();
                }
            }
        }
        Ok(())
    }

    /// Of what is linked here, only probes.
    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<ChildMsg>,
        event: SupervisionEvent,
        state: &mut ChildState,
    ) -> Result<(), ActorProcessingErr> {
        #[cfg(feature = "testing")]
        crate::testing::step(crate::testing::ActorKind::Child);
        let ended = if let SupervisionEvent::ActorTerminated(cell, left, _) = event {
            // With it goes the check that it held.
            drop(left);
            cell.get_id()
        } else if let SupervisionEvent::ActorFailed(cell, _) = event {
            cell.get_id()
        } else {
            return Ok(());
        };
        if let Some(probes) = &mut state.probes {
            probes.ended(ended, myself.get_cell()).await;
            state.go_on_ending(&myself);
        }
        Ok(())
    }
}

/// A command in the directory and environment of the run that it is about.
fn belonging_to(work: &Work, command: &CommandSpec, child: &ChildName, run: RunId) -> CommandSpec {
    match work {
        Work::Command(host) => introduced(&within(command, host), child, run),
        Work::Task(_) => introduced(command, child, run),
    }
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
        if let Some(probes) = &mut self.probes
            && !matches!(machine, Run::Starting | Run::Running)
        {
            probes.end();
        }
        for effect in effects {
            self.perform(myself, effect);
        }
    }

    fn perform(&mut self, myself: &ActorRef<ChildMsg>, effect: run::Effect) {
        match effect {
            run::Effect::Signal(signal) => {
                if let Err(error) = self.process.signal(signal) {
                    warn!(run = self.run.0, %error, "a signal could not be sent");
                }
            }
            run::Effect::RunCommand => self.run_stop_command(myself),
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

    fn run_stop_command(&mut self, myself: &ActorRef<ChildMsg>) {
        let Some(mut command) = self.stop_command.take() else {
            return;
        };
        let pid = self.pid.to_string();
        command.env.push(("KIMI_PID".into(), pid.into()));
        let order = CheckOrder {
            run: self.run,
            child: self.name.clone(),
            errand: Errand::Stop,
            question: Question::Exec(Arc::new(*command)),
        };
        let myself = myself.clone();
        let tell = Box::new(move |result| drop(myself.cast(ChildMsg::StopCommandOver(result))));
        self.stopping = Some(self.os.check(order, tell));
    }

    async fn begin_probes(&mut self, myself: &ActorRef<ChildMsg>) {
        if let Some(probes) = &mut self.probes {
            probes.begin(myself.get_cell()).await;
            // What it said may have been faster than the news of its start.
            self.heard(myself).await;
        }
    }

    async fn heard(&mut self, myself: &ActorRef<ChildMsg>) {
        if let Some(probes) = &mut self.probes {
            for finding in probes.heard(myself.get_cell()).await {
                self.report(Reported::Found(finding));
            }
        }
    }

    async fn probed(&mut self, myself: &ActorRef<ChildMsg>, report: ProbeReport) {
        if let Some(probes) = &mut self.probes
            && let Some(finding) = probes.reported(report, myself.get_cell()).await
        {
            self.report(Reported::Found(finding));
        }
    }

    /// Who asked for the end may rely on it that nothing is left. One that nobody asked for is told at once, so that the
    /// restart can begin.
    fn ended(&mut self, myself: &ActorRef<ChildMsg>, end: Box<End>) {
        let was_asked = self.machine != Run::Running;
        self.feed(myself, run::Event::Ended);
        let commands = if was_asked { None } else { Some(0) };
        self.ending = Some(Ending { end, commands });
        self.go_on_ending(myself);
    }

    fn go_on_ending(&mut self, myself: &ActorRef<ChildMsg>) {
        if let Some(ending) = &mut self.ending
            && ending.commands.is_none()
            && self.probes.as_ref().is_none_or(|probes| probes.is_gone())
        {
            let commands = self.probes.as_ref().map(|probes| probes.commands());
            let mut commands = commands.unwrap_or_default();
            commands.extend(self.stopping.take().map(|stopping| {
                drop(stopping);
                Errand::Stop
            }));
            ending.commands = Some(commands.len());
            for errand in commands {
                let myself = myself.clone();
                let then = Box::new(move || drop(myself.cast(ChildMsg::CommandGone)));
                self.os.when_gone(errand.run(self.run), then);
            }
        }
        if let Some(Ending { end, .. }) = self.ending.take_if(|it| it.commands == Some(0)) {
            let stopped = self.stopped;
            self.report(Reported::Ended { end, stopped });
        }
    }

    fn command_gone(&mut self, myself: &ActorRef<ChildMsg>) {
        if let Some(Ending {
            commands: Some(left),
            ..
        }) = &mut self.ending
        {
            *left -= 1;
        }
        self.go_on_ending(myself);
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
