//! The actor of one run. It lives as long as the run does, and its supervisor releases it. One that carried a one-shot
//! command may rest then, and carry the next.
//!
//! It never stops itself: a termination overtakes messages, so a report made right before would be read too late. It never
//! waits either: what takes time comes back as a message.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ractor::concurrency::JoinHandle;
use ractor::{
    Actor, ActorProcessingErr, ActorRef, DerivedActorRef, MessagingErr, RpcReplyPort,
    SupervisionEvent,
};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::exec::Stopped;
use crate::os::check::{CheckFailure, CheckOrder, Errand, Question};
use crate::os::clock;
use crate::os::stdin::Stdin;
use crate::os::{End, Job, News, Observer, Os, Output, Process, Rank, SpawnError};
use crate::policy::event::Bound;
use crate::policy::run::{self, Run, RunRules, StopCause};
use crate::policy::signal::Signal;
use crate::policy::spec::{ChildName, CommandSpec, NodeId, RunId};
use crate::tree::log::Chain;
use crate::tree::probe::ProbeReport;
use crate::tree::probes::{Finding, ProbePlan, Probes, Rung};
use crate::tree::task::{self, TaskContext};
use crate::work::{Work, introduced, within};

/// What a child actor is told.
pub(crate) enum ChildMsg {
    /// By the operating system, or by the task that it runs.
    News(RunId, News),
    /// Ask the run to stop within this grace.
    Stop {
        grace: Duration,
    },
    Kill,
    /// Send this, and leave it to the run what it makes of that.
    Signal(Signal),
    GraceElapsed(RunId),
    /// An alarm has rung; perhaps of a run that is over.
    Alarm,
    IdleDue(RunId),
    /// Carry this run; whatever was carried before is over.
    Begin(Box<RunOrder>),
    /// The run was taken note of: let go of it, and wait for another.
    Rest,
    /// By one of its probes.
    Probed(ProbeReport),
    /// The run has said something of itself.
    Rung,
    /// The command that asks it to stop is over.
    StopCommandOver(Result<(), CheckFailure>),
    /// What does it do?
    Activity(RpcReplyPort<Activity>),
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
        /// Its process, if its start was not reported.
        started: Option<u32>,
        end: Box<End>,
        stopped: Option<Stopped>,
    },
    Found(Finding),
    /// It exceeded a bound on its time, and stops.
    Overran {
        bound: Bound,
        limit: Duration,
        waits_for_input: bool,
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
    pub(crate) probes: Option<Arc<ProbePlan>>,
    /// What asks it to stop instead of the signal.
    pub(crate) stop_command: Option<Arc<CommandSpec>>,
    pub(crate) rules: RunRules,
    pub(crate) rank: Rank,
    pub(crate) os: Arc<dyn Os>,
    pub(crate) report_to: DerivedActorRef<ChildReport>,
}

/// What a run does at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Activity {
    /// The run; none: it does not run.
    pub run: Option<RunId>,
    /// When it wrote last, by the wall clock, if what it writes is read; none: nothing yet.
    pub last_output_at: Option<SystemTime>,
    /// Whether one of its processes waits for something to come on its stdin, as far as can be told.
    pub waits_for_input: bool,
}

pub(crate) struct Child;

/// A run that has ended, of whose probes something may be left.
struct Ending {
    end: Box<End>,
    /// How many commands are awaited; none while there are actors that may begin one.
    commands: Option<usize>,
}

/// What an actor carries.
pub(crate) enum Carried {
    Run(Box<ChildState>),
    /// Nothing: it rests.
    Nothing(Alarm),
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
    /// Its start is to be reported with its end.
    is_start_untold: bool,
    /// The end that is to be reported.
    ending: Option<Ending>,
    stop_command: Option<Box<CommandSpec>>,
    /// The command that asks it to stop; dropped, it is killed.
    stopping: Option<Box<dyn Send>>,
    os: Arc<dyn Os>,
    timers: Timers,
    /// For the time of the run as a whole.
    alarm: Alarm,
    /// Dropped with this state, however the actor ends: what is left of the run is killed then.
    process: Box<dyn Process>,
}

/// The other timers of a run, which end with it.
#[derive(Default)]
struct Timers(Vec<Timer>);

impl Timers {
    fn hold(&mut self, timer: Timer) {
        self.0.retain(|timer| !timer.is_finished());
        self.0.push(timer);
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        for timer in &self.0 {
            timer.abort();
        }
    }
}

/// Rings at a time; made so that the runs of one actor share a timer. Few commands take as long as they may, so that a timer
/// of its own for each would almost always be made for nothing.
#[derive(Default)]
pub(crate) struct Alarm {
    due: Option<Instant>,
    timer: Option<(Instant, Timer)>,
}

type Timer = JoinHandle<Result<(), MessagingErr<ChildMsg>>>;

impl Alarm {
    fn set(&mut self, myself: &ActorRef<ChildMsg>, delay: Duration) {
        let now = Instant::now();
        // What is too far away to be told never comes.
        self.due = now.checked_add(delay);
        if let Some(due) = self.due {
            self.arm(myself, now, due);
        }
    }

    fn unset(&mut self) {
        self.due = None;
    }

    /// Its timer has run out. Whether it was time: that may be another run's by now, which has longer.
    fn rings(&mut self, myself: &ActorRef<ChildMsg>) -> bool {
        self.timer = None;
        let now = Instant::now();
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.due = None;
        } else if let Some(due) = self.due {
            self.arm(myself, now, due);
        }
        is_due
    }

    fn arm(&mut self, myself: &ActorRef<ChildMsg>, now: Instant, due: Instant) {
        if self.timer.as_ref().is_some_and(|(at, _)| *at <= due) {
            return;
        }
        self.abort();
        let timer = myself.send_after(due - now, || ChildMsg::Alarm);
        self.timer = Some((due, timer));
    }

    fn abort(&mut self) {
        if let Some((_, timer)) = self.timer.take() {
            timer.abort();
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Carries the news of a run to its actor.
struct Messenger {
    actor: ActorRef<ChildMsg>,
    run: RunId,
}

impl Observer for Messenger {
    fn tell(&self, news: News) {
        if let Err(error) = self.actor.cast(ChildMsg::News(self.run, news)) {
            debug!(%error, "the actor of a run was gone before its news");
        }
    }
}

impl Actor for Child {
    type Msg = ChildMsg;
    type State = Carried;
    type Arguments = RunOrder;

    /// Hands the run over and returns: this runs in the supervisor's own task.
    async fn pre_start(
        &self,
        myself: ActorRef<ChildMsg>,
        order: RunOrder,
    ) -> Result<Carried, ActorProcessingErr> {
        let state = ChildState::begin(&myself, order, Alarm::default());
        Ok(Carried::Run(Box::new(state)))
    }

    async fn handle(
        &self,
        myself: ActorRef<ChildMsg>,
        message: ChildMsg,
        carried: &mut Carried,
    ) -> Result<(), ActorProcessingErr> {
        #[cfg(feature = "testing")]
        crate::testing::step(crate::testing::ActorKind::Child);
        match (message, &mut *carried) {
            (ChildMsg::Begin(order), carried) => {
                let alarm = mem::take(carried.alarm());
                *carried = Carried::Run(Box::new(ChildState::begin(&myself, *order, alarm)));
            }
            (ChildMsg::Rest, carried) => {
                let mut alarm = mem::take(carried.alarm());
                alarm.unset();
                *carried = Carried::Nothing(alarm);
            }
            (ChildMsg::Alarm, Carried::Nothing(alarm)) => {
                alarm.rings(&myself);
            }
            (message, Carried::Run(state)) => state.handle(&myself, message).await,
            (message, Carried::Nothing(_)) => {
                drop(message);
                debug!("a message came for a run that was over");
            }
        }
        Ok(())
    }

    /// Of what is linked here, only probes.
    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<ChildMsg>,
        event: SupervisionEvent,
        carried: &mut Carried,
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
        if let Carried::Run(state) = carried
            && let Some(probes) = &mut state.probes
        {
            probes.ended(ended, myself.get_cell()).await;
            state.go_on_ending(&myself);
        }
        Ok(())
    }
}

impl Carried {
    fn alarm(&mut self) -> &mut Alarm {
        match self {
            Self::Run(state) => &mut state.alarm,
            Self::Nothing(alarm) => alarm,
        }
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
    fn begin(myself: &ActorRef<ChildMsg>, order: RunOrder, alarm: Alarm) -> Self {
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
        let observer = Arc::new(Messenger {
            actor: myself.clone(),
            run: order.run,
        });
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
                rank: order.rank,
            }),
            Work::Task(body) => {
                task::begin(&body, TaskContext::new(order.name, order.run), observer)
            }
        };
        let (machine, effects) = Run::begin(&order.rules);
        let mut state = Self {
            child: order.child,
            name,
            run: order.run,
            pid: 0,
            rules: order.rules,
            machine,
            stopped: None,
            report_to: order.report_to,
            probes,
            is_start_untold: false,
            ending: None,
            stop_command,
            stopping: None,
            os: order.os,
            timers: Timers::default(),
            alarm,
            process,
        };
        for effect in effects {
            state.perform(myself, effect);
        }
        state
    }

    async fn handle(&mut self, myself: &ActorRef<ChildMsg>, message: ChildMsg) {
        match message {
            // Of a run that was carried before.
            ChildMsg::News(run, _) if run != self.run => {}
            ChildMsg::News(_, News::Started { pid, path }) => {
                debug!(child = %self.name, run = self.run.0, pid, ?path, "a run has started");
                self.pid = pid;
                self.report(Reported::Started {
                    pid: (pid != 0).then_some(pid),
                });
                self.feed(myself, run::Event::Started);
                self.begin_probes(myself).await;
            }
            ChildMsg::News(_, News::NotStarted(error)) => {
                self.feed(myself, run::Event::Ended);
                let stopped = self.stopped;
                self.report(Reported::NotStarted { error, stopped });
            }
            ChildMsg::News(_, News::OutputLimit) => self.feed(myself, run::Event::OutputLimit),
            ChildMsg::News(_, News::Ended(end)) => self.ended(myself, end),
            ChildMsg::News(_, News::Over { pid, end }) => {
                debug!(child = %self.name, run = self.run.0, pid, "a run has started and ended");
                self.pid = pid;
                self.is_start_untold = true;
                self.feed(myself, run::Event::Started);
                self.ended(myself, end);
            }
            ChildMsg::Stop { grace } => self.feed(myself, run::Event::StopRequested { grace }),
            ChildMsg::Kill => self.feed(myself, run::Event::KillRequested),
            ChildMsg::Signal(signal) => self.signal(signal),
            ChildMsg::GraceElapsed(run) if run == self.run => {
                self.feed(myself, run::Event::GraceElapsed);
            }
            ChildMsg::Alarm => {
                if self.alarm.rings(myself) {
                    self.feed(myself, run::Event::TimedOut);
                }
            }
            ChildMsg::IdleDue(run) if run == self.run => {
                let quiet = self.process.quiet();
                self.feed(myself, run::Event::IdleDue { quiet });
            }
            // The timers of a run that was carried before, and what the caller has seen to.
            ChildMsg::GraceElapsed(_)
            | ChildMsg::IdleDue(_)
            | ChildMsg::Begin(_)
            | ChildMsg::Rest => {}
            ChildMsg::Probed(report) => self.probed(myself, report).await,
            ChildMsg::Rung => self.heard(myself).await,
            ChildMsg::StopCommandOver(result) => {
                if let Err(failure) = result {
                    let (child, run) = (&self.name, self.run.0);
                    warn!(%child, run, error = %Chain(&failure), "the command that stops a child failed");
                }
                self.feed(myself, run::Event::CommandOver);
            }
            ChildMsg::Activity(reply) => {
                // Who asked may be gone.
                drop(reply.send(self.activity()));
            }
            ChildMsg::CommandGone => self.command_gone(myself),
            #[cfg(feature = "testing")]
            ChildMsg::Panic => panic!("a fault was injected into the actor of run {}", self.run),
            #[cfg(feature = "testing")]
            ChildMsg::PanicProbes => {
                if let Some(probes) = &self.probes {
                    probes.panic();
                }
            }
        }
    }

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
            self.report_overrun(cause, waited_for_input);
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
        let run = self.run;
        match effect {
            run::Effect::Signal(signal) => self.signal(signal),
            run::Effect::RunCommand => self.run_stop_command(myself),
            run::Effect::Kill => self.process.kill(),
            // Those of a state that has passed are answered with nothing.
            run::Effect::WakeAfterGrace(delay) => {
                self.timers
                    .hold(myself.send_after(delay, move || ChildMsg::GraceElapsed(run)));
            }
            run::Effect::WakeAfterTimeout(delay) => self.alarm.set(myself, delay),
            run::Effect::WakeAfterIdle(delay) => {
                self.timers
                    .hold(myself.send_after(delay, move || ChildMsg::IdleDue(run)));
            }
        }
    }

    fn report_overrun(&self, cause: StopCause, waits_for_input: bool) {
        if let Some(bound) = cause.bound()
            && let Some(limit) = self.rules.limit(bound)
        {
            self.report(Reported::Overran {
                bound,
                limit,
                waits_for_input,
            });
        }
    }

    fn activity(&self) -> Activity {
        let ago = self.process.last_output();
        Activity {
            run: Some(self.run),
            last_output_at: ago.and_then(|ago| clock::wall_time().checked_sub(ago)),
            waits_for_input: self.process.waits_for_input(),
        }
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = self.process.signal(signal) {
            warn!(run = self.run.0, %error, "a signal could not be sent");
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
            let started = self.is_start_untold.then_some(self.pid);
            self.report(Reported::Ended {
                started,
                end,
                stopped,
            });
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
