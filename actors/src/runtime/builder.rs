//! Puts a tree together and wires its actors.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use ractor::{Actor, SpawnErr};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::child::{Child, Job as Given, Member, Supervisor};
use crate::os::check::{CheckError, Way};
use crate::os::clock::{self, Clock};
use crate::os::force_exit::{AtDeadline, ForceExit};
use crate::os::guardian::Ward;
use crate::os::ledger::{Ledger, Project};
use crate::os::signals::ListenError;
use crate::os::{ContainmentRules, Os, Output, RealOs, RealOsError, RealOsOptions};
use crate::policy::admission::Limits;
use crate::policy::escalation::SignalRules;
use crate::policy::event::TreeEvent;
use crate::policy::order::{self, RuleError};
use crate::policy::probe::{self, AfterReady, Probes};
use crate::policy::run::{Ask, RunRules};
use crate::policy::spec::{
    ChildName, ChildRules, CommandSpec, Lifetime, NodeId, NodeRules, Readiness, StopSpec,
    SupervisorRules, TreeRules,
};
use crate::policy::tree::{Event, Input, Tree};
use crate::runtime::guards::{self, Cleanups, Guardian, Guards};
use crate::runtime::{Inner, RuntimeHandle};
use crate::tree::probes::ProbePlan;
use crate::tree::root::{Job, Recorder, Root, RootArguments, Watcher};
use crate::tree::timer::Timer;
use crate::work::Work;

/// How many events a subscriber may fall behind before it is told that it missed some.
const EVENTS_KEPT: usize = 1024;
/// More processes than this no machine has, whatever the limits allow.
const MOST_SLOTS: usize = 1 << 20;

/// What happens at the force-exit deadline of a shutdown, set with [`RuntimeBuilder::shutdown_timeout`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForceExitPolicy {
    /// Everything is killed; the process of the embedder lives on.
    #[default]
    KillOnly,
    /// Everything is killed and the process ends with [`FORCED`](crate::exit::FORCED), whatever hangs.
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
    jobs: Vec<Given>,
    probes: Vec<(ChildName, Probes)>,
    stop_commands: Vec<(ChildName, CommandSpec)>,
    output: Output,
    shutdown_timeout: ShutdownTimeout,
    force_exit: ForceExitPolicy,
    last_words: Option<Box<dyn FnOnce() + Send>>,
    signals: Option<SignalOptions>,
    os: Option<Arc<dyn Os>>,
    child_descriptors: Option<u64>,
    containment: ContainmentRules,
    ward: Option<Ward>,
    project: Option<Project>,
    ledger: Option<Arc<Ledger>>,
    recorder: Option<Recorder>,
    watcher: Option<Watcher>,
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

    /// How long it is in a tree with this [chain](order::Arrangement::explicit_stop_chain); none: as long as it takes.
    #[must_use]
    pub fn resolve(self, chain: Option<Duration>) -> Option<Duration> {
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
            probes: Vec::new(),
            stop_commands: Vec::new(),
            output: Output::Discard,
            shutdown_timeout: ShutdownTimeout::Grown,
            force_exit: ForceExitPolicy::KillOnly,
            last_words: None,
            signals: None,
            os: None,
            child_descriptors: None,
            containment: ContainmentRules::default(),
            ward: None,
            project: None,
            ledger: None,
            recorder: None,
            watcher: None,
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
        let work = |(name, command)| Given::new(name, Work::Command(Arc::new(command)));
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

    /// Sets the probes of children, by name. One whose readiness is probed is ready when its probe says so.
    pub fn probes(mut self, probes: impl IntoIterator<Item = (ChildName, Probes)>) -> Self {
        self.probes.extend(probes);
        self
    }

    /// Sets the commands that ask children to stop instead of their signals, by name; see [`Child::stop_command`].
    pub fn stop_commands(
        mut self,
        commands: impl IntoIterator<Item = (ChildName, CommandSpec)>,
    ) -> Self {
        self.stop_commands.extend(commands);
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

    /// What is to hold the processes of a run together; the best that the machine has if nothing is said.
    pub fn containment(mut self, rules: ContainmentRules) -> Self {
        self.containment = rules;
        self
    }

    /// The guardian of this process, if it has one: should it die, everything ends in order, but fast. See
    /// [`guardian::split`](crate::os::guardian::split).
    pub fn ward(mut self, ward: Option<Ward>) -> Self {
        self.ward = ward;
        self
    }

    /// Keeps a [ledger](crate::os::ledger) of the processes for the next start of this project. Without one none is kept.
    pub fn ledger(mut self, project: Project) -> Self {
        self.project = Some(project);
        self
    }

    /// Is shown every input of the machine of the tree, in order: what is needed to replay its life.
    pub fn record(mut self, recorder: impl FnMut(&Input) + Send + 'static) -> Self {
        self.recorder = Some(Box::new(recorder));
        self
    }

    /// Is told every event, in order and without a gap, before anything else happens: must not block. A subscriber of
    /// [`RuntimeHandle::events`] may take its time instead, and miss some.
    pub fn watch(mut self, watcher: impl FnMut(&TreeEvent) + Send + 'static) -> Self {
        self.watcher = Some(Box::new(watcher));
        self
    }

    /// Starts the runtime and every child.
    pub async fn start(self) -> Result<RuntimeHandle, StartError> {
        let handle = self.start_idle().await?;
        handle.feed(Event::StartAll);
        Ok(handle)
    }

    /// Starts the runtime; children start when they are asked for.
    pub async fn start_idle(mut self) -> Result<RuntimeHandle, StartError> {
        let mut plans = self.plans()?;
        self.give_stop_commands()?;
        let stops = |job: &&Given| job.stop_command.is_some();
        let commands = 2 * plans.len() + self.jobs.iter().filter(stops).count();
        let tree = self.tree()?;
        let budget = self.rules.shutdown_budget;
        let jobs = jobs_by_node(
            &tree,
            &self.rules,
            std::mem::take(&mut self.jobs),
            &mut plans,
            &self.output,
        )?;
        let names: HashMap<ChildName, NodeId> = tree
            .nodes()
            .map(|node| (tree.name(node).clone(), node))
            .collect();
        let os = self.mechanism(names.len(), commands)?;
        let clock = Clock::start();
        let force_exit = self.deadline(&os, clock)?;
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        let (finished_sender, finished) = oneshot::channel();
        // Not linked below the root: it would die with what it guards.
        let (timer, _) = Actor::spawn(None, Timer, (clock, force_exit.clone())).await?;
        let arguments = RootArguments {
            tree,
            jobs,
            os: Arc::clone(&os),
            events: events.clone(),
            timer: timer.clone(),
            deadline: (clock, force_exit.clone()),
            finished: Some(finished_sender),
            signals: None,
            begin: Instant::now(),
            budget,
            seed: clock::seed(),
            recorder: self.recorder,
            watcher: self.watcher,
        };
        let (root, _) = Actor::spawn(None, Root, arguments).await?;
        let (containment, notes) = (os.containment(), os.notes());
        debug!(containment = containment.as_str(), "contained");
        let guards = Guards {
            os: Arc::clone(&os),
            force_exit,
            clock,
            budget,
            is_forced: Arc::default(),
        };
        if let Some(ward) = &self.ward {
            guards::heed(ward, &root, guards.clone());
        }
        let (signals, listening) = match self.signals {
            Some(options) => {
                match guards::listen(options, &root, guards.clone()).await {
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
            guards,
            timer,
            listening,
            ward: self.ward,
            ledger: self.ledger,
            cleanups: Arc::clone(&cleanups),
            report: report_sender,
        };
        // Ends with the root.
        tokio::spawn(guardian.run(finished));
        Ok(RuntimeHandle::new(Inner {
            root,
            names,
            events,
            report,
            cleanups,
            signals,
            budget,
            os: Arc::downgrade(&os),
            containment,
            notes,
            requests: AtomicU64::new(0),
        }))
    }

    /// The probes by child, in the form in which they are asked; their children's readiness is reported from here on.
    fn plans(&mut self) -> Result<HashMap<ChildName, ProbePlan>, StartError> {
        let own = self.jobs.iter_mut().filter_map(Given::take_probes);
        let mut probes: Vec<(ChildName, Probes)> = own.collect();
        probes.append(&mut self.probes);
        let mut plans = HashMap::with_capacity(probes.len());
        for (name, probes) in probes {
            let rules = find_mut(&mut self.rules.root, &name);
            let rules = rules.ok_or_else(|| StartError::NoSuchChild {
                child: name.clone(),
            })?;
            if probes.readiness.is_some() {
                rules.readiness = Readiness::Reported;
            }
            let plan = plan(&probes).map_err(|source| StartError::Probe {
                child: name.clone(),
                source,
            })?;
            plans.insert(name, plan);
        }
        let kept = probe::kept_after_ready(&self.rules);
        for (name, plan) in &mut plans {
            if let Some((_, _, after_ready)) = &mut plan.readiness
                && kept.contains(name)
            {
                *after_ready = AfterReady::Keep;
            }
        }
        Ok(plans)
    }

    fn give_stop_commands(&mut self) -> Result<(), StartError> {
        for (name, command) in std::mem::take(&mut self.stop_commands) {
            let job = self.jobs.iter_mut().find(|job| job.name == name);
            let job = job.ok_or(StartError::NoSuchChild { child: name })?;
            job.stop_command = Some(Arc::new(command));
        }
        Ok(())
    }

    /// The machine, with the time that a shutdown may take.
    fn tree(&mut self) -> Result<Tree, StartError> {
        let refused = |errors| StartError::Rules { errors };
        let chain = order::arrange(&self.rules)
            .map_err(refused)?
            .explicit_stop_chain();
        self.rules.shutdown_budget = self.shutdown_timeout.resolve(chain);
        Tree::new(&self.rules, clock::first_run()).map_err(refused)
    }

    /// What starts the processes. A run that ended may hold its slot for a moment when the next one begins, and one that is
    /// probed, or stopped by a command, may have `commands` besides.
    fn mechanism(&mut self, nodes: usize, commands: usize) -> Result<Arc<dyn Os>, StartError> {
        if let Some(os) = self.os.take() {
            return Ok(os);
        }
        let one_shots = self.rules.limits.max_concurrent as usize;
        let slots = (2 * nodes + commands)
            .saturating_add(one_shots.saturating_mul(2))
            .clamp(64, MOST_SLOTS);
        self.ledger = self.project.and_then(|project| ledger(project, slots));
        let options = RealOsOptions {
            slots,
            child_nofile: self.child_descriptors,
            containment: ContainmentRules {
                adopter: self
                    .containment
                    .adopter
                    .or(self.ward.as_ref().map(Ward::adopter)),
                ..self.containment
            },
            ledger: self.ledger.clone(),
            ..RealOsOptions::default()
        };
        Ok(Arc::new(RealOs::new(&options).map_err(StartError::Os)?))
    }

    fn deadline(&mut self, os: &Arc<dyn Os>, clock: Clock) -> Result<ForceExit, StartError> {
        let at_deadline = match self.force_exit {
            ForceExitPolicy::KillOnly => AtDeadline::KillOnly,
            ForceExitPolicy::ExitProcess => AtDeadline::ExitProcess,
        };
        let force_exit =
            ForceExit::start(Arc::clone(os), clock, at_deadline).map_err(StartError::Thread)?;
        if let Some(words) = self.last_words.take() {
            force_exit.set_last_words(words);
        }
        Ok(force_exit)
    }
}

/// Without one, only what a runtime and its guardian leave that die at once is not found again.
fn ledger(project: Project, slots: usize) -> Option<Arc<Ledger>> {
    let ledger = Ledger::create(project, slots).inspect_err(|error| {
        warn!(%error, "no ledger of the processes is kept");
    });
    ledger.ok().map(Arc::new)
}

fn jobs_by_node(
    tree: &Tree,
    rules: &TreeRules,
    jobs: Vec<Given>,
    plans: &mut HashMap<ChildName, ProbePlan>,
    output: &Output,
) -> Result<HashMap<NodeId, Job>, StartError> {
    let mut jobs: HashMap<ChildName, Given> = jobs
        .into_iter()
        .map(|job| (job.name.clone(), job))
        .collect();
    let mut by_node = HashMap::with_capacity(jobs.len());
    let rules = rules_by_name(rules);
    for node in tree.nodes().filter(|node| !tree.is_supervisor(*node)) {
        let name = tree.name(node);
        let job = jobs.remove(name).ok_or_else(|| StartError::NoWork {
            child: name.clone(),
        })?;
        let probes = plans.remove(name);
        if probes.as_ref().is_some_and(ProbePlan::needs_a_process)
            && matches!(job.work, Work::Task(_))
        {
            return Err(StartError::NoProcess {
                child: name.clone(),
            });
        }
        let output = job.output.unwrap_or_else(|| output.clone());
        let ask = if job.stop_command.is_some() {
            Ask::Command
        } else {
            Ask::Signal
        };
        let rules = rules.get(name).map(|rules| run_rules(rules, ask, &output));
        by_node.insert(
            node,
            Job {
                work: job.work,
                output,
                rules: rules.unwrap_or_else(|| RunRules::from(StopSpec::default())),
                probes: probes.map(Arc::new),
                stop_command: job.stop_command,
            },
        );
    }
    Ok(by_node)
}

fn plan(probes: &Probes) -> Result<ProbePlan, ProbeError> {
    let readiness = probes.readiness.as_ref().map(|probe| {
        let way = Way::of(&probe.check)?;
        Ok::<_, ProbeError>((way, probe.rules, AfterReady::Stop))
    });
    let liveness = probes
        .liveness
        .as_ref()
        .map(|probe| match Way::of(&probe.check)? {
            Way::Ask(question) => Ok((question, probe.rules)),
            Way::Hear(_) => Err(ProbeError::NotLiveness),
        });
    Ok(ProbePlan {
        readiness: readiness.transpose()?,
        liveness: liveness.transpose()?,
    })
}

fn find_mut<'a>(
    supervisor: &'a mut SupervisorRules,
    name: &ChildName,
) -> Option<&'a mut ChildRules> {
    supervisor
        .members
        .iter_mut()
        .find_map(|member| match member {
            NodeRules::Child(child) => (child.name == *name).then_some(child),
            NodeRules::Supervisor(nested) => find_mut(nested, name),
        })
}

fn run_rules(rules: &ChildRules, ask: Ask, output: &Output) -> RunRules {
    // Of what is not read nobody knows when it came.
    let is_read = matches!(output, Output::Lines(_) | Output::Capture { .. });
    RunRules {
        ask,
        timeout: rules.max_runtime,
        idle_timeout: rules.idle_timeout.filter(|_| is_read),
        ..RunRules::from(rules.stop)
    }
}

fn rules_by_name(rules: &TreeRules) -> HashMap<&ChildName, &ChildRules> {
    let mut by_name = HashMap::new();
    let mut stack = vec![&rules.root];
    while let Some(supervisor) = stack.pop() {
        for member in &supervisor.members {
            match member {
                NodeRules::Child(child) => {
                    by_name.insert(&child.name, child);
                }
                NodeRules::Supervisor(nested) => stack.push(nested),
            }
        }
    }
    by_name
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
    /// Something was given for a child that is not in the tree.
    #[error("cannot find `{child}` in the tree")]
    NoSuchChild {
        /// The name.
        child: ChildName,
    },
    /// A probe cannot be made.
    #[error("cannot probe `{child}`")]
    Probe {
        /// The child.
        child: ChildName,
        /// What is wrong with it.
        #[source]
        source: ProbeError,
    },
    /// A task of the program itself writes no output of its own, and inherits nothing.
    #[error("cannot listen to `{child}`: it is a task without a process")]
    NoProcess {
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

/// Why a probe cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Its check cannot be made.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// A run says once that it is ready; that says nothing of whether it lives.
    #[error("a log line or a notification is no check of liveness")]
    NotLiveness,
}

fn all_of(errors: &[RuleError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}
