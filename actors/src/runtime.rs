//! The public face: builds a tree, starts its actors, and hands out what it is steered by.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ractor::{Actor, ActorRef, SpawnErr};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::Instant;
use tracing::{error, warn};

use crate::child::{Child, Member, Supervisor};
use crate::exec::{Exec, ExecError, ExecOutcome, PendingExec};
use crate::exit;
use crate::os::clock::{self, Clock};
use crate::os::force_exit::{AtDeadline, ForceExit};
use crate::os::signals::{self, ListenError, Listening, Received};
use crate::os::{Os, Output, RealOs, RealOsError, RealOsOptions};
use crate::policy::admission::Limits;
use crate::policy::escalation::{Decision, Escalation, SignalRules};
use crate::policy::event::{ShutdownReason, TreeEvent};
use crate::policy::order::{self, RuleError};
use crate::policy::signal::Signal;
use crate::policy::spec::{
    ChildName, CommandSpec, Lifetime, NodeId, NodeRules, StopSpec, TreeRules,
};
use crate::policy::tree::{ChildStatus, Event, Input, Reach, ShutdownMode, State, Tree};
use crate::tree::root::{Finished, Job, Recorder, Root, RootArguments, RootMsg};
use crate::tree::signals::{Receipt, Signals, SignalsMsg};
use crate::tree::timer::Timer;
use crate::work::Work;

/// How many events a subscriber may fall behind before it is told that it missed some.
const EVENTS_KEPT: usize = 1024;
/// After force was asked for, the process ends at the latest after this long, whatever hangs.
const FORCED_MARGIN: Duration = Duration::from_millis(500);
/// How long the death of what a lost root had held is waited for.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// The supervision runtime; see [`Runtime::builder`].
#[derive(Debug)]
pub struct Runtime;

impl Runtime {
    /// Begins an empty tree.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }
}

/// What happens at the force-exit deadline of a shutdown, set with [`RuntimeBuilder::shutdown_timeout`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForceExitPolicy {
    /// Everything is killed; the process of the embedder lives on.
    #[default]
    KillOnly,
    /// Everything is killed and the process ends with [`exit::FORCED`], whatever hangs.
    ExitProcess,
}

/// Which signals the runtime takes over, and what they mean.
#[derive(Clone, Debug)]
pub struct SignalOptions {
    /// The meaning of each.
    pub rules: SignalRules,
    /// How many receipts are kept.
    pub history: usize,
}

impl Default for SignalOptions {
    fn default() -> Self {
        Self {
            rules: SignalRules::default(),
            history: 1000,
        }
    }
}

/// Puts a tree together.
#[must_use]
pub struct RuntimeBuilder {
    rules: TreeRules,
    jobs: Vec<(ChildName, Work, Option<Output>)>,
    output: Output,
    shutdown_timeout: ShutdownTimeout,
    force_exit: ForceExitPolicy,
    last_words: Option<Box<dyn FnOnce() + Send>>,
    signals: Option<SignalOptions>,
    os: Option<Arc<dyn Os>>,
    child_descriptors: Option<u64>,
    recorder: Option<Recorder>,
}

/// How long a shutdown may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownTimeout {
    /// 5 s, or the longest chain of stop timeouts that were set by hand plus 1 s, if that is longer.
    Grown,
    /// Exactly this.
    Set(Duration),
    /// As long as it takes.
    Unlimited,
}

impl ShutdownTimeout {
    /// What holds if nothing is set and no chain is longer.
    pub const DEFAULT: Duration = Duration::from_secs(5);
    /// What is added to the longest chain.
    const CHAIN_MARGIN: Duration = Duration::from_secs(1);

    fn resolve(self, chain: Option<Duration>) -> Option<Duration> {
        match self {
            Self::Grown => {
                let chain = chain.map_or(Duration::ZERO, |chain| chain + Self::CHAIN_MARGIN);
                Some(Self::DEFAULT.max(chain))
            }
            Self::Set(timeout) => Some(timeout),
            Self::Unlimited => None,
        }
    }
}

impl Default for RuntimeBuilder {
    fn default() -> Self {
        Self {
            rules: TreeRules::new(Vec::new()),
            jobs: Vec::new(),
            output: Output::Discard,
            shutdown_timeout: ShutdownTimeout::Grown,
            force_exit: ForceExitPolicy::KillOnly,
            last_words: None,
            signals: None,
            os: None,
            child_descriptors: None,
            recorder: None,
        }
    }
}

impl fmt::Debug for RuntimeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeBuilder")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

impl RuntimeBuilder {
    /// Takes the rules of a whole tree and the command of each of its children.
    pub fn from_rules(
        rules: TreeRules,
        commands: impl IntoIterator<Item = (ChildName, CommandSpec)>,
    ) -> Self {
        let work = |(name, command)| (name, Work::Command(Arc::new(command)), None);
        Self {
            rules,
            jobs: commands.into_iter().map(work).collect(),
            ..Self::default()
        }
    }

    /// Adds a child below the root.
    pub fn child(self, child: Child) -> Self {
        self.member(Member::Child(child))
    }

    /// Adds a nested supervisor below the root.
    pub fn supervisor(self, supervisor: Supervisor) -> Self {
        self.member(Member::Supervisor(supervisor))
    }

    fn member(mut self, member: Member) -> Self {
        let rules: NodeRules = member.split(&mut self.jobs);
        self.rules.root.members.push(rules);
        self
    }

    /// Bounds one-shot commands.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.rules.limits = limits;
        self
    }

    /// When the tree ends unasked.
    pub fn lifetime(mut self, lifetime: Lifetime) -> Self {
        self.rules.lifetime = lifetime;
        self
    }

    /// How long a shutdown may take.
    pub fn shutdown_timeout(mut self, timeout: ShutdownTimeout) -> Self {
        self.shutdown_timeout = timeout;
        self
    }

    /// What happens when it takes longer.
    pub fn force_exit(mut self, policy: ForceExitPolicy) -> Self {
        self.force_exit = policy;
        self
    }

    /// Called before a forced exit, on a thread of its own, with at most 250 ms.
    pub fn last_words(mut self, words: impl FnOnce() + Send + 'static) -> Self {
        self.last_words = Some(Box::new(words));
        self
    }

    /// Takes over signals; without this the runtime touches none.
    pub fn signals(mut self, options: SignalOptions) -> Self {
        self.signals = Some(options);
        self
    }

    /// Where the output of children goes that say nothing about it.
    pub fn output(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    /// What starts the processes; the kernel by default.
    pub fn os(mut self, os: Arc<dyn Os>) -> Self {
        self.os = Some(os);
        self
    }

    /// The soft limit on open descriptors that children get; the supervisor's own if absent. For a program that has raised
    /// its own with [`limits::raise_descriptors`](crate::os::limits::raise_descriptors).
    pub fn child_descriptors(mut self, limit: Option<u64>) -> Self {
        self.child_descriptors = limit;
        self
    }

    /// Is shown every input of the machine of the tree, in order: what is needed to replay its life.
    pub fn record(mut self, recorder: impl FnMut(&Input) + Send + 'static) -> Self {
        self.recorder = Some(Box::new(recorder));
        self
    }

    /// Starts the runtime and every child.
    pub async fn start(self) -> Result<RuntimeHandle, StartError> {
        let handle = self.start_idle().await?;
        handle.feed(Event::StartAll);
        Ok(handle)
    }

    /// Starts the runtime; children start when they are asked for.
    pub async fn start_idle(self) -> Result<RuntimeHandle, StartError> {
        let arrangement =
            order::arrange(&self.rules).map_err(|errors| StartError::Rules { errors })?;
        let chain = arrangement.explicit_stop_chain();
        let budget = self.shutdown_timeout.resolve(chain);
        let mut rules = self.rules;
        rules.shutdown_budget = budget;
        let tree =
            Tree::new(&rules, clock::first_run()).map_err(|errors| StartError::Rules { errors })?;
        let jobs = jobs_by_node(&tree, &rules, self.jobs, &self.output)?;
        let slots = 2 * tree.nodes().count() + 2 * rules.limits.max_concurrent as usize + 64;
        let os: Arc<dyn Os> = if let Some(os) = self.os {
            os
        } else {
            let options = RealOsOptions {
                slots,
                child_nofile: self.child_descriptors,
            };
            Arc::new(RealOs::new(&options).map_err(StartError::Os)?)
        };
        let clock = Clock::start();
        let begin = Instant::now();
        let at_deadline = match self.force_exit {
            ForceExitPolicy::KillOnly => AtDeadline::KillOnly,
            ForceExitPolicy::ExitProcess => AtDeadline::ExitProcess,
        };
        let force_exit =
            ForceExit::start(Arc::clone(&os), clock, at_deadline).map_err(StartError::Thread)?;
        if let Some(words) = self.last_words {
            force_exit.set_last_words(words);
        }
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        let (finished_sender, finished) = oneshot::channel();
        // Not linked below the root: it would die with what it guards.
        let (timer, _) = Actor::spawn(None, Timer, (clock, force_exit.clone())).await?;
        let names: HashMap<ChildName, NodeId> = tree
            .nodes()
            .map(|node| (tree.name(node).clone(), node))
            .collect();
        let arguments = RootArguments {
            tree,
            jobs,
            os: Arc::clone(&os),
            events: events.clone(),
            timer: timer.clone(),
            deadline: (clock, force_exit.clone()),
            finished: Some(finished_sender),
            signals: None,
            begin,
            budget,
            seed: clock::seed(),
            recorder: self.recorder,
        };
        let (root, _) = Actor::spawn(None, Root, arguments).await?;
        let (signals, listening) = match self.signals {
            Some(options) => {
                let guards = Guards {
                    os: Arc::clone(&os),
                    force_exit: force_exit.clone(),
                    clock,
                    budget,
                };
                match listen(options, &root, guards).await {
                    Ok((actor, listening)) => (Some(actor), Some(listening)),
                    Err(error) => {
                        // Nobody else would end them.
                        root.stop(None);
                        timer.stop(None);
                        return Err(error);
                    }
                }
            }
            None => (None, None),
        };
        let cleanups = Arc::new(Cleanups::default());
        let (report_sender, report) = watch::channel(None);
        let guardian = Guardian {
            os,
            force_exit,
            clock,
            timer,
            listening,
            cleanups: Arc::clone(&cleanups),
            budget,
            report: report_sender,
        };
        // Ends with the root.
        tokio::spawn(guardian.run(finished));
        Ok(RuntimeHandle(Arc::new(Inner {
            root,
            names,
            events,
            report,
            cleanups,
            signals,
            budget,
        })))
    }
}

fn jobs_by_node(
    tree: &Tree,
    rules: &TreeRules,
    jobs: Vec<(ChildName, Work, Option<Output>)>,
    output: &Output,
) -> Result<HashMap<NodeId, Job>, StartError> {
    let mut jobs: HashMap<ChildName, (Work, Option<Output>)> = jobs
        .into_iter()
        .map(|(name, work, output)| (name, (work, output)))
        .collect();
    let mut by_node = HashMap::with_capacity(jobs.len());
    let stops = stops_by_name(rules);
    for node in tree.nodes().filter(|node| !tree.is_supervisor(*node)) {
        let name = tree.name(node);
        let (work, own) = jobs.remove(name).ok_or_else(|| StartError::NoWork {
            child: name.clone(),
        })?;
        let stop = stops.get(name).copied().unwrap_or_default();
        by_node.insert(
            node,
            Job {
                work,
                output: own.unwrap_or_else(|| output.clone()),
                stop,
            },
        );
    }
    Ok(by_node)
}

fn stops_by_name(rules: &TreeRules) -> HashMap<&ChildName, StopSpec> {
    let mut stops = HashMap::new();
    let mut stack = vec![&rules.root];
    while let Some(supervisor) = stack.pop() {
        for member in &supervisor.members {
            match member {
                NodeRules::Child(child) => {
                    stops.insert(&child.name, child.stop);
                }
                NodeRules::Supervisor(nested) => stack.push(nested),
            }
        }
    }
    stops
}

/// What the signal thread reaches without any actor.
struct Guards {
    os: Arc<dyn Os>,
    force_exit: ForceExit,
    clock: Clock,
    budget: Option<Duration>,
}

impl Guards {
    /// The deadline is armed, and force applied, before any actor hears of the signal.
    fn apply(&self, received: &Received, decision: Decision) {
        match decision {
            Decision::Shutdown { .. } => {
                if let Some(budget) = self.budget {
                    self.force_exit.arm(received.at + budget, exit::FORCED);
                }
            }
            Decision::Force { signal } => {
                let code = if signal == Signal::QUIT {
                    exit::QUIT
                } else {
                    exit::FORCED
                };
                self.force_exit.arm(self.clock.now() + FORCED_MARGIN, code);
                self.os.kill_all();
            }
            Decision::ExitNow => self.force_exit.now(exit::FORCED),
            Decision::Status
            | Decision::Reload
            | Decision::Forward(_)
            | Decision::Refuse
            | Decision::Nothing(_) => {}
        }
    }
}

async fn listen(
    options: SignalOptions,
    root: &ActorRef<RootMsg>,
    guards: Guards,
) -> Result<(ActorRef<SignalsMsg>, Listening), StartError> {
    let arguments = (root.get_derived(), options.history);
    let (actor, _) = Actor::spawn_linked(None, Signals, arguments, root.get_cell()).await?;
    root.cast(RootMsg::SignalsAre(actor.get_id()))
        .map_err(|_| StartError::RootLost)?;
    // SIGTSTP is taken over to be refused: the children, in sessions of their own, would run on unwatched.
    let handled: Vec<Signal> = options.rules.handled().chain([Signal::TSTP]).collect();
    let mut escalation = Escalation::new(options.rules);
    let (clock, receiver) = (guards.clock, actor.clone());
    let tell = move |received: Received| {
        let decision = escalation.next(received.signal, received.at);
        guards.apply(&received, decision);
        if let Err(error) = receiver.cast(SignalsMsg::Decided(Receipt { received, decision })) {
            warn!(%error, "the signal actor was gone before a signal");
        }
    };
    let listening =
        signals::listen(&handled, clock, Box::new(tell)).map_err(StartError::Signals)?;
    Ok((actor, listening))
}

/// Waits for the end of the root, however it comes, and does what is to be done after it.
struct Guardian {
    os: Arc<dyn Os>,
    force_exit: ForceExit,
    clock: Clock,
    timer: ActorRef<crate::tree::timer::TimerMsg>,
    listening: Option<Listening>,
    cleanups: Arc<Cleanups>,
    budget: Option<Duration>,
    report: watch::Sender<Option<ShutdownReport>>,
}

impl Guardian {
    async fn run(mut self, finished: oneshot::Receiver<Finished>) {
        let mut report = match finished.await {
            Ok(Finished { finish, survivors }) => ShutdownReport {
                reason: finish.reason,
                forced: finish.forced,
                failed: finish.failed,
                survivors,
                cleanups_left: 0,
            },
            Err(_) => self.root_lost().await,
        };
        if !report.forced {
            self.clean_up().await;
        }
        report.cleanups_left = self.cleanups.count();
        // Whoever could arm the deadline ends before it is disarmed: armed after that, it would hit a runtime that is over.
        drop(self.listening.take());
        // An error means that it is gone already.
        self.timer.stop_and_wait(None, None).await.ok();
        self.force_exit.disarm();
        self.report.send_replace(Some(report));
    }

    /// The tokens of its children have gone with the root; what they held dies, and its death is waited for.
    async fn root_lost(&self) -> ShutdownReport {
        error!("the root is gone: everything is killed");
        self.arm();
        self.os.kill_all();
        let patience = Instant::now() + LAST_WAIT;
        while self.os.live() > 0 && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        ShutdownReport {
            reason: ShutdownReason::Internal,
            forced: false,
            failed: Vec::new(),
            survivors: Vec::new(),
            cleanups_left: 0,
        }
    }

    /// Sets the deadline, unless there is an earlier one.
    fn arm(&self) {
        if let Some(budget) = self.budget {
            self.force_exit.arm(self.clock.now() + budget, exit::FORCED);
        }
    }

    /// Runs the cleanup handlers in the order of their registration, as long as there is time.
    async fn clean_up(&self) {
        // The timer actor may not have come to it, or be gone.
        self.arm();
        let left = self
            .force_exit
            .armed()
            .map(|deadline| deadline.since(self.clock.now()));
        let all = async {
            while let Some((name, handler)) = self.cleanups.take_first() {
                // A panic in one must not keep the next from running.
                if tokio::spawn(handler()).await.is_err() {
                    error!(name, "a cleanup handler panicked");
                }
            }
        };
        match left {
            Some(left) => {
                if tokio::time::timeout(left, all).await.is_err() {
                    error!("the time for cleanup handlers is over");
                }
            }
            None => all.await,
        }
    }
}

type CleanupFuture = Pin<Box<dyn Future<Output = ()> + Send>>;
type Cleanup = Box<dyn FnOnce() -> CleanupFuture + Send>;

/// Handlers that run after everything is down.
#[derive(Default)]
struct Cleanups {
    handlers: Mutex<std::collections::VecDeque<(&'static str, Cleanup)>>,
    count: AtomicUsize,
}

impl Cleanups {
    fn add(&self, name: &'static str, handler: Cleanup) {
        self.handlers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back((name, handler));
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn take_first(&self) -> Option<(&'static str, Cleanup)> {
        let first = self
            .handlers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        if first.is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        first
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

/// How a runtime ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Why.
    pub reason: ShutdownReason,
    /// Whether force was asked for.
    pub forced: bool,
    /// Children that had failed, or could not start because of one that had, when the end began.
    pub failed: Vec<ChildName>,
    /// Processes that could not be killed.
    pub survivors: Vec<(ChildName, u32)>,
    /// Cleanup handlers that did not run.
    pub cleanups_left: usize,
}

/// Why a runtime did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The rules of the tree contradict each other.
    #[error("cannot build the tree: {}", all_of(errors))]
    Rules {
        /// What is wrong, all of it.
        errors: Vec<RuleError>,
    },
    /// A child has rules and nothing to execute.
    #[error("cannot start `{child}`: it has no command")]
    NoWork {
        /// The child.
        child: ChildName,
    },
    /// The mechanism could not be set up.
    #[error("cannot set up the process table")]
    Os(#[source] RealOsError),
    /// The deadline thread could not be started.
    #[error("cannot start the deadline thread")]
    Thread(#[source] io::Error),
    /// Signals could not be taken over.
    #[error("cannot listen for signals")]
    Signals(#[source] ListenError),
    /// An actor could not be started.
    #[error("cannot start an actor")]
    Actor(#[from] SpawnErr),
    /// The root ended while the runtime was being set up.
    #[error("cannot reach the root")]
    RootLost,
}

fn all_of(errors: &[RuleError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Why an operation did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// No child or supervisor has this name.
    #[error("cannot find `{name}`")]
    UnknownChild {
        /// The name.
        name: String,
    },
    /// The runtime has ended.
    #[error("cannot reach the runtime: it has ended")]
    Ended,
    /// It will not become ready.
    #[error("cannot wait for `{name}`: it is {}", state.as_str())]
    NotReady {
        /// The child.
        name: ChildName,
        /// Its state.
        state: State,
    },
}

/// Steers a running tree. Cloning is cheap; the tree lives on when all handles are gone, until the async runtime ends.
#[derive(Clone)]
pub struct RuntimeHandle(Arc<Inner>);

struct Inner {
    root: ActorRef<RootMsg>,
    names: HashMap<ChildName, NodeId>,
    events: broadcast::Sender<TreeEvent>,
    report: watch::Receiver<Option<ShutdownReport>>,
    cleanups: Arc<Cleanups>,
    signals: Option<ActorRef<SignalsMsg>>,
    budget: Option<Duration>,
}

impl fmt::Debug for RuntimeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeHandle")
            .field("children", &self.0.names.len())
            .finish_non_exhaustive()
    }
}

impl RuntimeHandle {
    /// Starts these, with what they depend on; returns when that is under way.
    pub fn start(&self, names: &[&str]) -> Result<(), OperationError> {
        let nodes = self.find(names)?;
        self.try_feed(Event::Start {
            nodes,
            reach: Reach::Connected,
        })
    }

    /// Starts everything; returns when that is under way.
    pub fn start_all(&self) -> Result<(), OperationError> {
        self.try_feed(Event::StartAll)
    }

    /// Stops these, and first what depends on them; returns when none of them has a process.
    pub async fn stop(&self, names: &[&str]) -> Result<(), OperationError> {
        let nodes = self.find(names)?;
        let event = Event::Stop {
            nodes: nodes.clone(),
            reach: Reach::Connected,
        };
        let sent = self
            .0
            .root
            .call(
                |reply| RootMsg::FeedUntilDown {
                    event,
                    nodes,
                    reply,
                },
                None,
            )
            .await;
        match sent {
            Ok(ractor::rpc::CallResult::Success(())) => Ok(()),
            Ok(_) | Err(_) => Err(OperationError::Ended),
        }
    }

    /// Stops these if they run and starts them again, with their counters cleared; returns when that is under way.
    pub fn restart(&self, names: &[&str]) -> Result<(), OperationError> {
        let nodes = self.find(names)?;
        self.try_feed(Event::Restart { nodes })
    }

    /// Returns when this child or supervisor is ready, or a task has completed; an error if it is not going to be.
    pub async fn ready(&self, name: &str) -> Result<(), OperationError> {
        let mut events = self.events();
        loop {
            let status = self.status_of(name).await?;
            match status.state {
                State::Ready | State::Completed => return Ok(()),
                State::Pending | State::Starting | State::Running | State::Backoff => {}
                State::Stopping | State::Stopped | State::Failed | State::Lost => {
                    return Err(OperationError::NotReady {
                        name: status.name,
                        state: status.state,
                    });
                }
            }
            match events.recv().await {
                // Missed events change nothing: the state is what counts.
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return Err(OperationError::Ended),
            }
        }
    }

    /// What is to be said of every child and supervisor, in the order of the tree, the root first.
    pub async fn status(&self) -> Result<Vec<ChildStatus>, OperationError> {
        match self.0.root.call(RootMsg::Status, None).await {
            Ok(ractor::rpc::CallResult::Success(status)) => Ok(status),
            Ok(_) | Err(_) => Err(OperationError::Ended),
        }
    }

    async fn status_of(&self, name: &str) -> Result<ChildStatus, OperationError> {
        let unknown = || OperationError::UnknownChild {
            name: name.to_owned(),
        };
        let all = self.status().await?;
        all.into_iter()
            .find(|status| status.name.as_str() == name)
            .ok_or_else(unknown)
    }

    /// Subscribes to what becomes true from now on. A subscriber that falls 1,024 events behind is told that it missed some.
    pub fn events(&self) -> broadcast::Receiver<TreeEvent> {
        self.0.events.subscribe()
    }

    /// Runs a command once, as a child of the root, within the limits.
    pub async fn exec(&self, exec: Exec) -> Result<ExecOutcome, ExecError> {
        let (reply, outcome) = oneshot::channel();
        let exec = Box::new(PendingExec::new(exec));
        self.0
            .root
            .cast(RootMsg::Exec { exec, reply })
            .map_err(|_| ExecError::Ended)?;
        outcome.await.unwrap_or(Err(ExecError::Ended))
    }

    /// Registers a handler that runs after everything is down, in the order of registration, within the deadline. A forced
    /// shutdown runs none.
    pub fn on_shutdown<F, Fut>(&self, name: &'static str, handler: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.0.cleanups.add(name, Box::new(|| Box::pin(handler())));
    }

    /// How many handlers are registered.
    pub fn cleanup_count(&self) -> usize {
        self.0.cleanups.count()
    }

    /// Shuts everything down in order and waits for the end.
    pub async fn shutdown(&self) -> ShutdownReport {
        self.ask_shutdown(ShutdownMode::Graceful);
        self.wait().await
    }

    /// Begins a shutdown, or turns the one under way into a forced one, and returns at once.
    pub fn ask_shutdown(&self, mode: ShutdownMode) {
        let order = RootMsg::ShutDown {
            mode,
            reason: ShutdownReason::Asked,
        };
        if self.0.root.cast(order).is_err() {
            warn!("a shutdown was asked for after the end");
        }
    }

    /// Waits for the end of the runtime.
    pub async fn wait(&self) -> ShutdownReport {
        let mut report = self.0.report.clone();
        let ended = report
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|report| report.clone());
        // The guardian always reports, unless the async runtime was torn down under it.
        ended.unwrap_or(ShutdownReport {
            reason: ShutdownReason::Internal,
            forced: false,
            failed: Vec::new(),
            survivors: Vec::new(),
            cleanups_left: self.cleanup_count(),
        })
    }

    /// The signals received, the newest first.
    pub async fn receipts(&self) -> Vec<Receipt> {
        let Some(signals) = &self.0.signals else {
            return Vec::new();
        };
        match signals.call(SignalsMsg::Receipts, None).await {
            Ok(ractor::rpc::CallResult::Success(receipts)) => receipts,
            Ok(_) | Err(_) => Vec::new(),
        }
    }

    /// How long a shutdown may take in all; none: as long as it takes.
    pub fn shutdown_budget(&self) -> Option<Duration> {
        self.0.budget
    }

    /// Injects a fault.
    #[cfg(feature = "testing")]
    pub fn inject(&self, fault: crate::testing::Fault) {
        use crate::testing::Fault;
        let sent = match (fault, &self.0.signals) {
            (Fault::PanicSignals, Some(signals)) => signals.cast(SignalsMsg::Panic).is_ok(),
            (Fault::PanicSignals, None) => false,
            (fault, _) => self.0.root.cast(RootMsg::Inject(fault)).is_ok(),
        };
        assert!(sent, "the actor to inject a fault into is there");
    }

    fn find(&self, names: &[&str]) -> Result<Vec<NodeId>, OperationError> {
        let node = |name: &&str| {
            let known = ChildName::new(name)
                .ok()
                .and_then(|name| self.0.names.get(&name).copied());
            known.ok_or_else(|| OperationError::UnknownChild {
                name: (*name).to_owned(),
            })
        };
        names.iter().map(node).collect()
    }

    fn feed(&self, event: Event) {
        if self.try_feed(event).is_err() {
            error!("the root ended before it was given anything to do");
        }
    }

    fn try_feed(&self, event: Event) -> Result<(), OperationError> {
        self.0
            .root
            .cast(RootMsg::Feed(event))
            .map_err(|_| OperationError::Ended)
    }
}
