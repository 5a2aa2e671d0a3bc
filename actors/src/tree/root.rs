//! The root supervisor's actor: owns the machine of the tree, feeds it what happens and carries out what it decides.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ractor::{
    Actor, ActorId, ActorProcessingErr, ActorRef, DerivedActorRef, RpcReplyPort, SupervisionEvent,
};
use tokio::sync::{broadcast, oneshot};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::exec::{PendingExec, Stopped};
use crate::exit;
use crate::os::clock::Clock;
use crate::os::force_exit::ForceExit;
use crate::os::stdin::Stdin;
use crate::os::{End, Os, Output, Rank, SpawnError, Survivor};
use crate::policy::admission::RequestId;
use crate::policy::event::{Fact, ShutdownReason, TreeEvent};
use crate::policy::exit::Exit;
use crate::policy::probe::ProbeStatus;
use crate::policy::run::RunRules;
use crate::policy::signal::Signal;
use crate::policy::spec::{ChildName, CommandSpec, NodeId, RunId};
use crate::policy::telemetry::{Entry, Operation, Outcome, Span, Subject, Telemetry};
use crate::policy::time::Moment;
use crate::policy::tree::{ChildStatus, Effect, Event, Finish, Input, ShutdownMode, Timer, Tree};
use crate::tree::child::{Activity, ChildMsg, ChildReport, Reported, RunOrder};
use crate::tree::children::Children;
use crate::tree::log::{self, Chain};
use crate::tree::oneshot::{ExecReply, OneShots, Over};
use crate::tree::probes::{Diagnoses, ProbePlan};
use crate::tree::signals::SignalOrder;
use crate::tree::supervisor::{RunLost, Supervisor, SupervisorMsg};
use crate::tree::timer::TimerMsg;
use crate::work::Work;

/// The log target of status snapshots, which SIGUSR1 asks for.
pub const STATUS_TARGET: &str = "kimi_actors::status";

/// Is shown every input of the machine.
pub(crate) type Recorder = Box<dyn FnMut(&Input) + Send>;
/// Is told every event.
pub(crate) type Watcher = Box<dyn FnMut(&TreeEvent) + Send>;

/// What the root is told.
pub(crate) enum RootMsg {
    /// An operator's wish.
    Feed(Event),
    /// The same; answered when the runs that these nodes have now are over.
    FeedUntilDown {
        event: Event,
        nodes: Vec<NodeId>,
        reply: RpcReplyPort<()>,
    },
    Due(Timer),
    Report(ChildReport),
    /// The actor of a run is gone, but its processes may not be yet.
    RunLost(RunLost),
    /// Now they are.
    RunGone {
        child: NodeId,
        run: RunId,
    },
    Exec {
        request: RequestId,
        exec: Box<PendingExec>,
        reply: ExecReply,
    },
    /// Nobody waits for this one-shot command any more.
    CancelExec(RequestId),
    /// This one-shot command is to be sent that.
    SignalExec(RequestId, Signal),
    ShutDown {
        mode: ShutdownMode,
        reason: ShutdownReason,
    },
    LogStatus,
    Forward(Signal),
    SignalCame(Signal, Outcome),
    /// The signal actor, whose loss ends the tree.
    SignalsAre(ActorId),
    Status(RpcReplyPort<Vec<ChildStatus>>),
    ProbeStatus(NodeId, RpcReplyPort<ProbeStatus>),
    Activity(NodeId, RpcReplyPort<Activity>),
    ExecActivity(RequestId, RpcReplyPort<Activity>),
    Telemetry(RpcReplyPort<Vec<Entry>>),
    #[cfg(feature = "testing")]
    Inject(crate::testing::Fault),
}

impl From<ChildReport> for RootMsg {
    fn from(report: ChildReport) -> Self {
        Self::Report(report)
    }
}

impl From<RunLost> for RootMsg {
    fn from(lost: RunLost) -> Self {
        Self::RunLost(lost)
    }
}

impl From<SignalOrder> for RootMsg {
    fn from(order: SignalOrder) -> Self {
        match order {
            SignalOrder::ShutDown { mode, reason } => Self::ShutDown { mode, reason },
            SignalOrder::LogStatus => Self::LogStatus,
            SignalOrder::Forward(signal) => Self::Forward(signal),
            SignalOrder::Came(signal, outcome) => Self::SignalCame(signal, outcome),
        }
    }
}

/// A message type of the root that another actor sends through a narrower reference is never turned back.
macro_rules! one_way {
    ($($narrow:ty),*) => {$(
        impl TryFrom<RootMsg> for $narrow {
            type Error = ();

            fn try_from(_: RootMsg) -> Result<Self, ()> {
                Err(())
            }
        }
    )*};
}
one_way!(ChildReport, RunLost, SignalOrder);

/// What a child executes and where its output goes, by node.
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) output: Output,
    pub(crate) rules: RunRules,
    pub(crate) probes: Option<Arc<ProbePlan>>,
    pub(crate) stop_command: Option<Arc<CommandSpec>>,
}

pub(crate) struct RootArguments {
    pub(crate) tree: Tree,
    pub(crate) jobs: HashMap<NodeId, Job>,
    pub(crate) os: Arc<dyn Os>,
    pub(crate) events: broadcast::Sender<TreeEvent>,
    pub(crate) timer: ActorRef<TimerMsg>,
    /// What the timer actor directs, should it be gone.
    pub(crate) deadline: (Clock, ForceExit),
    /// Taken at the end.
    pub(crate) finished: Option<oneshot::Sender<Finished>>,
    /// The signal actor, if there is one.
    pub(crate) signals: Option<ActorId>,
    pub(crate) begin: Instant,
    pub(crate) budget: Option<Duration>,
    pub(crate) seed: u64,
    /// What every input was, for replaying; off unless asked for.
    pub(crate) recorder: Option<Recorder>,
    pub(crate) watcher: Option<Watcher>,
}

/// How the tree ended, and what could not be ended with it.
pub(crate) struct Finished {
    pub(crate) finish: Finish,
    pub(crate) survivors: Vec<(ChildName, Survivor)>,
}

pub(crate) struct Root;

pub(crate) struct RootState {
    arguments: RootArguments,
    children: Children,
    supervisors: HashMap<NodeId, (RunId, ActorRef<SupervisorMsg>)>,
    supervisor_nodes: HashMap<ActorId, NodeId>,
    closing: HashSet<ActorId>,
    child_reports: DerivedActorRef<ChildReport>,
    lost_reports: DerivedActorRef<RunLost>,
    one_shots: OneShots,
    until_down: Vec<UntilDown>,
    diagnoses: Diagnoses,
    telemetry: Telemetry,
    survivors: Vec<(ChildName, Survivor)>,
    finish: Option<Finish>,
}

/// Who waits for the end of which runs.
struct UntilDown {
    runs: Vec<(NodeId, RunId)>,
    reply: RpcReplyPort<()>,
}

impl Actor for Root {
    type Msg = RootMsg;
    type State = RootState;
    type Arguments = RootArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<RootMsg>,
        arguments: RootArguments,
    ) -> Result<RootState, ActorProcessingErr> {
        Ok(RootState {
            arguments,
            children: Children::default(),
            supervisors: HashMap::new(),
            supervisor_nodes: HashMap::new(),
            closing: HashSet::new(),
            child_reports: myself.get_derived(),
            lost_reports: myself.get_derived(),
            one_shots: OneShots::default(),
            until_down: Vec::new(),
            diagnoses: Diagnoses::default(),
            telemetry: Telemetry::default(),
            survivors: Vec::new(),
            finish: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<RootMsg>,
        message: RootMsg,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        #[cfg(feature = "testing")]
        crate::testing::step(crate::testing::ActorKind::Root);
        match message {
            RootMsg::Feed(event) => state.feed(&myself, event).await,
            RootMsg::FeedUntilDown {
                event,
                nodes,
                reply,
            } => {
                state.feed(&myself, event).await;
                let tree = &state.arguments.tree;
                let runs = nodes
                    .into_iter()
                    .filter_map(|node| Some((node, tree.live_run(node)?)))
                    .collect();
                state.until_down.push(UntilDown { runs, reply });
            }
            RootMsg::Due(timer) => state.feed(&myself, Event::Due { timer }).await,
            RootMsg::Report(report) => state.reported(&myself, report).await,
            RootMsg::RunLost(RunLost { child, run }) => state.await_gone(&myself, child, run),
            RootMsg::RunGone { child, run } => {
                let over = state.one_shots.lost(child, run);
                state.note_exec(over);
                state.note_child(child, run, Outcome::Lost);
                state
                    .feed(
                        &myself,
                        Event::Exited {
                            child,
                            run,
                            exit: Exit::Lost,
                        },
                    )
                    .await;
            }
            RootMsg::Exec {
                request,
                exec,
                reply,
            } => {
                let client = exec.client;
                let stop = state.one_shots.ask(request, exec, reply);
                let event = Event::Request {
                    request,
                    stop,
                    client,
                };
                state.feed(&myself, event).await;
            }
            RootMsg::CancelExec(request) => {
                let over = state.one_shots.cancel(request);
                state.note_exec(over);
                state.feed(&myself, Event::Cancel { request }).await;
            }
            RootMsg::SignalExec(request, signal) => state.signal_exec(request, signal),
            RootMsg::ShutDown { mode, reason } => {
                let budget = state.arguments.budget;
                state
                    .feed(
                        &myself,
                        Event::ShutdownRequested {
                            mode,
                            reason,
                            budget,
                        },
                    )
                    .await;
            }
            RootMsg::LogStatus => state.log_status(),
            RootMsg::SignalsAre(actor) => state.arguments.signals = Some(actor),
            RootMsg::Forward(signal) => {
                warn!(%signal, "not forwarded: no child asks for forwarded signals");
            }
            RootMsg::Status(reply) => {
                // Who asked may be gone.
                drop(reply.send(state.status()));
            }
            RootMsg::ProbeStatus(child, reply) => {
                drop(reply.send(state.diagnoses.of(child)));
            }
            RootMsg::SignalCame(signal, outcome) => {
                let begun = state.now();
                state.note(Operation::Signal(signal), Subject::Tree, outcome, begun);
            }
            RootMsg::Activity(child, reply) => {
                let run = state.arguments.tree.live_run(child);
                state.ask_activity(run.map(|run| (child, run)), reply);
            }
            RootMsg::ExecActivity(request, reply) => {
                state.ask_activity(state.one_shots.run_of(request), reply);
            }
            RootMsg::Telemetry(reply) => {
                drop(reply.send(state.telemetry.entries()));
            }
            #[cfg(feature = "testing")]
            RootMsg::Inject(fault) => state.inject(fault),
        }
        state.answer_those_down();
        state.end_if_done(&myself);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<RootMsg>,
        event: SupervisionEvent,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        #[cfg(feature = "testing")]
        crate::testing::step(crate::testing::ActorKind::Root);
        if let SupervisionEvent::ActorTerminated(cell, ..)
        | SupervisionEvent::ActorFailed(cell, _) = event
        {
            state.actor_ended(&myself, cell.get_id()).await;
        }
        state.answer_those_down();
        state.end_if_done(&myself);
        Ok(())
    }
}

impl RootState {
    async fn feed(&mut self, myself: &ActorRef<RootMsg>, event: Event) {
        let now = self.now();
        let input = Input {
            event,
            now,
            random: self.random(),
        };
        debug!(event = ?input.event, "event");
        if let Some(record) = &mut self.arguments.recorder {
            record(&input);
        }
        for effect in self.arguments.tree.next(&input) {
            self.perform(myself, effect).await;
        }
    }

    fn now(&self) -> Moment {
        Moment::after_begin(self.arguments.begin.elapsed())
    }

    fn note(&mut self, operation: Operation, subject: Subject, outcome: Outcome, begun: Moment) {
        let at = self.now();
        self.telemetry.note(Entry {
            at,
            operation,
            subject,
            outcome,
            waited: Span::default(),
            took: at.since(begun).into(),
        });
    }

    fn signal_exec(&mut self, request: RequestId, signal: Signal) {
        if let Some((child, run)) = self.one_shots.run_of(request) {
            self.children.tell(child, run, ChildMsg::Signal(signal));
            let (operation, subject) = (Operation::Signal(signal), Subject::Command(request));
            self.note(operation, subject, Outcome::Done, self.now());
        }
    }

    /// Takes note of what was being done to a child, if that is over with this.
    fn note_child(&mut self, child: NodeId, run: RunId, outcome: Outcome) {
        // One-shot commands have no job; that one has started does not end its stop.
        if self.arguments.jobs.contains_key(&child)
            && let Some((operation, begun)) = self.arguments.tree.under_way(child, run)
            && (operation, outcome) != (Operation::Stop, Outcome::Done)
        {
            self.note(operation, Subject::Child { child, run }, outcome, begun);
        }
    }

    /// Takes note of a command that is over.
    fn note_exec(&mut self, over: Option<Over>) {
        if let Some(over) = over {
            self.telemetry.note(Entry {
                at: self.now(),
                operation: Operation::Exec,
                subject: Subject::Command(over.request),
                outcome: over.outcome,
                waited: over.timing.queued.into(),
                took: over.timing.ran.into(),
            });
        }
    }

    /// `SplitMix64` (Steele, Lea, Flood 2014): enough for jitter.
    fn random(&mut self) -> u64 {
        self.arguments.seed = self.arguments.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.arguments.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    async fn perform(&mut self, myself: &ActorRef<RootMsg>, effect: Effect) {
        match effect {
            Effect::Start { child, run } => self.start(myself, child, run).await,
            Effect::Stop { child, run, grace } => self.order_stop(child, run, grace),
            Effect::Kill { child, run } => self.order_kill(child, run),
            Effect::Release { child, run } => self.release(child, run),
            Effect::Open { supervisor, run } => self.open(myself, supervisor, run).await,
            Effect::Close { supervisor, run } => self.close(supervisor, run),
            Effect::WakeAfter { timer, delay } => {
                // Stale timers fall through in the machine, so nobody needs the handle.
                drop(myself.send_after(delay, move || RootMsg::Due(timer)));
            }
            Effect::Admitted {
                request,
                child,
                run,
            } => self.one_shots.admit(request, child, run),
            Effect::Queued { request } => {
                debug!(request = request.0, "a one-shot command waits for a place");
            }
            Effect::Rejected { request, why } => {
                let over = self.one_shots.reject(request, why);
                self.note_exec(over);
            }
            Effect::Announce(event) => self.announce(event),
            Effect::Finished(finish) => self.finish = Some(finish),
        }
    }

    fn announce(&mut self, event: TreeEvent) {
        log::log(&event);
        if let Some(watch) = &mut self.arguments.watcher {
            watch(&event);
        }
        if let Fact::ShutdownStarted { budget, .. } = event.fact
            && let Err(error) = self
                .arguments
                .timer
                .cast(TimerMsg::ShutdownStarted { budget })
        {
            error!(%error, "the timer actor is gone");
            if let Some(budget) = budget {
                let (clock, force_exit) = &self.arguments.deadline;
                force_exit.arm(clock.now() + budget, exit::FORCED);
            }
        }
        // Nobody may be listening.
        drop(self.arguments.events.send(event));
    }

    async fn start(&mut self, myself: &ActorRef<RootMsg>, child: NodeId, run: RunId) {
        let Some(order) = self.run_order(child, run) else {
            error!(run = run.0, "a run was ordered of which nothing is known");
            self.await_gone(myself, child, run);
            return;
        };
        let parent = self.arguments.tree.parent(child);
        if parent != NodeId::ROOT && !self.supervisors.contains_key(&parent) {
            error!(
                run = run.0,
                "a run was ordered of a supervisor without an actor"
            );
            self.await_gone(myself, child, run);
        } else if parent != NodeId::ROOT {
            self.order_supervisor(parent, SupervisorMsg::Start(Box::new(order)));
        } else if let Err(error) = self.children.start(myself.get_cell(), order).await {
            error!(%error, run = run.0, "the actor of a run could not start");
            self.await_gone(myself, child, run);
        }
    }

    fn run_order(&mut self, child: NodeId, run: RunId) -> Option<RunOrder> {
        let name = self.arguments.tree.name(child).clone();
        let (work, stdin, output, rules) = if let Some(exec) = self.one_shots.at(child) {
            (exec.work(), exec.stdin(), exec.output(), exec.rules())
        } else {
            let job = self.arguments.jobs.get(&child)?;
            (
                job.work.clone(),
                Stdin::default(),
                job.output.clone(),
                job.rules,
            )
        };
        // One-shot commands have none.
        let job = self.arguments.jobs.get(&child);
        let rank = job.map_or(Rank::OneShot, |_| Rank::Supervised);
        Some(RunOrder {
            child,
            run,
            name,
            work,
            stdin,
            output,
            rules,
            rank,
            probes: job.and_then(|job| job.probes.clone()),
            stop_command: job.and_then(|job| job.stop_command.clone()),
            os: Arc::clone(&self.arguments.os),
            report_to: self.child_reports.clone(),
        })
    }

    fn order_stop(&self, child: NodeId, run: RunId, grace: Duration) {
        match self.arguments.tree.parent(child) {
            NodeId::ROOT => self.children.stop(child, run, grace),
            parent => self.order_supervisor(parent, SupervisorMsg::Stop { child, run, grace }),
        }
    }

    fn order_kill(&self, child: NodeId, run: RunId) {
        match self.arguments.tree.parent(child) {
            NodeId::ROOT => self.children.kill(child, run),
            parent => self.order_supervisor(parent, SupervisorMsg::Kill { child, run }),
        }
    }

    fn release(&mut self, child: NodeId, run: RunId) {
        match self.arguments.tree.parent(child) {
            NodeId::ROOT => self.children.release(child, run),
            parent => self.order_supervisor(parent, SupervisorMsg::Release { child, run }),
        }
    }

    fn tell(&self, child: NodeId, run: RunId, message: ChildMsg) {
        match self.arguments.tree.parent(child) {
            NodeId::ROOT => self.children.tell(child, run, message),
            parent => {
                let message = Box::new(message);
                let order = SupervisorMsg::Tell {
                    child,
                    run,
                    message,
                };
                self.order_supervisor(parent, order);
            }
        }
    }

    /// What does not run does nothing.
    fn ask_activity(&self, of: Option<(NodeId, RunId)>, reply: RpcReplyPort<Activity>) {
        match of {
            Some((child, run)) => self.tell(child, run, ChildMsg::Activity(reply)),
            // Who asked may be gone.
            None => drop(reply.send(Activity::default())),
        }
    }

    fn order_supervisor(&self, supervisor: NodeId, order: SupervisorMsg) {
        if let Some(Err(error)) = self
            .supervisors
            .get(&supervisor)
            .map(|(_, actor)| actor.cast(order))
        {
            // Its termination is on its way, and with it the loss of all that it held.
            debug!(%error, "a supervisor's actor was gone before an order");
        }
    }

    async fn open(&mut self, myself: &ActorRef<RootMsg>, supervisor: NodeId, run: RunId) {
        // All are linked to the root, however deep they stand: it hears of every loss itself, and what stood below a lost
        // one is stopped by decision, not by link.
        match Actor::spawn_linked(
            None,
            Supervisor,
            self.lost_reports.clone(),
            myself.get_cell(),
        )
        .await
        {
            Ok((actor, _)) => {
                self.supervisor_nodes.insert(actor.get_id(), supervisor);
                self.supervisors.insert(supervisor, (run, actor));
            }
            Err(error) => {
                error!(%error, run = run.0, "the actor of a supervisor could not start");
            }
        }
    }

    fn close(&mut self, supervisor: NodeId, run: RunId) {
        if self
            .supervisors
            .get(&supervisor)
            .is_some_and(|(live, _)| *live == run)
            && let Some((_, actor)) = self.supervisors.remove(&supervisor)
        {
            self.supervisor_nodes.remove(&actor.get_id());
            if actor.cast(SupervisorMsg::Close).is_ok() {
                self.closing.insert(actor.get_id());
            }
        }
    }

    async fn actor_ended(&mut self, myself: &ActorRef<RootMsg>, actor: ActorId) {
        if let Some((child, run)) = self.children.ended(actor) {
            self.await_gone(myself, child, run);
        } else if let Some(supervisor) = self.supervisor_nodes.remove(&actor) {
            self.supervisor_lost(myself, supervisor).await;
        } else if !self.closing.remove(&actor)
            && self.arguments.signals == Some(actor)
            && self.finish.is_none()
        {
            error!("the signal actor is gone: shutting down");
            let budget = self.arguments.budget;
            let (mode, reason) = (ShutdownMode::Graceful, ShutdownReason::Internal);
            self.feed(
                myself,
                Event::ShutdownRequested {
                    mode,
                    reason,
                    budget,
                },
            )
            .await;
        }
    }

    /// The actor of a nested supervisor is gone, and with it those of its children, whose processes die by their tokens.
    async fn supervisor_lost(&mut self, myself: &ActorRef<RootMsg>, supervisor: NodeId) {
        let Some((run, _)) = self.supervisors.remove(&supervisor) else {
            return;
        };
        let tree = &self.arguments.tree;
        let is_member = |id: &NodeId| tree.parent(*id) == supervisor && !tree.is_supervisor(*id);
        let members: Vec<(NodeId, RunId)> = tree
            .nodes()
            .filter(is_member)
            .filter_map(|id| Some((id, tree.live_run(id)?)))
            .collect();
        self.feed(myself, Event::SupervisorLost { supervisor, run })
            .await;
        for (child, run) in members {
            self.await_gone(myself, child, run);
        }
    }

    /// The actor of a run is gone: its end is known when its processes are.
    fn await_gone(&self, myself: &ActorRef<RootMsg>, child: NodeId, run: RunId) {
        let myself = myself.clone();
        let then = move || {
            // The root being gone, nobody is left to tell.
            drop(myself.cast(RootMsg::RunGone { child, run }));
        };
        self.arguments.os.when_gone(run, Box::new(then));
    }

    async fn reported(&mut self, myself: &ActorRef<RootMsg>, report: ChildReport) {
        let ChildReport { child, run, news } = report;
        let event = match news {
            Reported::Started { pid } => self.started(child, run, pid),
            Reported::NotStarted { error, stopped } => {
                let failure = error.kind();
                self.not_started(child, run, error, stopped);
                Event::Exited {
                    child,
                    run,
                    exit: Exit::NotStarted(failure),
                }
            }
            Reported::Ended {
                started,
                end,
                stopped,
            } => {
                if started.is_some() {
                    let event = self.started(child, run, started);
                    self.feed(myself, event).await;
                }
                let exit = end.exit;
                if end.oom {
                    self.feed(myself, Event::OutOfMemory { child, run }).await;
                }
                self.ended(child, run, *end, stopped);
                Event::Exited { child, run, exit }
            }
            // Of a one-shot command its result tells.
            Reported::Overran { .. } if !self.arguments.jobs.contains_key(&child) => return,
            Reported::Overran {
                bound,
                limit,
                waits_for_input,
            } => Event::Overran {
                child,
                run,
                bound,
                limit,
                waits_for_input,
            },
            Reported::Found(finding) => match self.diagnoses.note(child, run, finding) {
                Some(event) => event,
                None => return,
            },
        };
        self.feed(myself, event).await;
    }

    fn started(&mut self, child: NodeId, run: RunId, pid: Option<u32>) -> Event {
        self.one_shots.started(child, run, pid);
        self.note_child(child, run, Outcome::Done);
        Event::Started { child, run, pid }
    }

    fn not_started(
        &mut self,
        child: NodeId,
        run: RunId,
        error: SpawnError,
        stopped: Option<Stopped>,
    ) {
        let name = self.arguments.tree.name(child);
        warn!(child = %name, error = %Chain(&error), "child could not start");
        let failure = error.kind();
        let over = self.one_shots.not_started(child, run, error, stopped);
        self.note_exec(over);
        self.note_child(child, run, Outcome::NotStarted(failure));
    }

    fn ended(&mut self, child: NodeId, run: RunId, end: End, stopped: Option<Stopped>) {
        let name = self.arguments.tree.name(child).clone();
        if !end.survivors.is_empty() {
            error!(child = %name, processes = ?end.survivors, "processes survived the kill");
            let named = end.survivors.iter().cloned();
            self.survivors
                .extend(named.map(|survivor| (name.clone(), survivor)));
        }
        let exit = end.exit;
        let over = self.one_shots.ended(child, run, end, stopped);
        self.note_exec(over);
        self.note_child(child, run, Outcome::Ended(exit));
    }

    fn status(&self) -> Vec<ChildStatus> {
        let tree = &self.arguments.tree;
        tree.nodes().map(|node| tree.status(node)).collect()
    }

    fn log_status(&self) {
        let containment = self.arguments.os.containment().as_str();
        info!(target: STATUS_TARGET, containment, "what holds runs together");
        for status in self.status().into_iter().skip(1) {
            let state = status.state.as_str();
            let pid = status.pid;
            info!(target: STATUS_TARGET, child = %status.name, state, pid, restarts = status.restarts, "status");
        }
    }

    fn answer_those_down(&mut self) {
        let tree = &self.arguments.tree;
        let is_live = |(node, run): &(NodeId, RunId)| tree.live_run(*node) == Some(*run);
        let down = self
            .until_down
            .extract_if(.., |waiter| !waiter.runs.iter().any(is_live));
        for UntilDown { reply, .. } in down {
            // Who asked may be gone.
            drop(reply.send(()));
        }
    }

    /// Stopping is the last act, after every actor below is gone: what is still linked would be killed by it.
    fn end_if_done(&mut self, myself: &ActorRef<RootMsg>) {
        if self.finish.is_some() {
            self.children.dismiss();
        }
        if self.closing.is_empty()
            && self.children.is_empty()
            && let Some(finish) = self.finish.take()
        {
            let finished = Finished {
                finish,
                survivors: std::mem::take(&mut self.survivors),
            };
            if let Some(sender) = self.arguments.finished.take() {
                // Nobody waits for a runtime whose handles are all gone.
                drop(sender.send(finished));
            }
            myself.stop(None);
        }
    }

    #[cfg(feature = "testing")]
    fn inject(&self, fault: crate::testing::Fault) {
        use crate::testing::Fault;
        match fault {
            Fault::PanicRoot => panic!("a fault was injected into the root"),
            // It is no business of the root's; the handle sends it there.
            Fault::PanicSignals => {}
            Fault::PanicTimer => drop(self.arguments.timer.cast(TimerMsg::Panic)),
            Fault::BlockRoot(gate) => drop(gate.recv()),
            Fault::PanicSupervisor(name) => {
                let node = self.arguments.tree.find(name.as_str());
                if let Some(node) = node {
                    self.order_supervisor(node, SupervisorMsg::Panic);
                }
            }
            Fault::PanicChild(name) => self.inject_into_run(&name, ChildMsg::Panic),
            Fault::PanicProbe(name) => self.inject_into_run(&name, ChildMsg::PanicProbes),
        }
    }

    #[cfg(feature = "testing")]
    fn inject_into_run(&self, child: &ChildName, fault: ChildMsg) {
        let tree = &self.arguments.tree;
        let mut commands = self.one_shots.places();
        let found = tree.find(child.as_str());
        let Some(child) = found.or_else(|| commands.find(|node| tree.name(*node) == child)) else {
            return;
        };
        if let Some(run) = tree.live_run(child) {
            self.tell(child, run, fault);
        }
    }
}
