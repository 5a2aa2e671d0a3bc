//! What an embedder puts into a tree: children and supervisors.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::os::Output;
use crate::policy::exit::SuccessCodes;
use crate::policy::intensity::Intensity;
use crate::policy::probe::{Probe, Probes};
use crate::policy::restart::{Restart, Strategy};
use crate::policy::signal::Signal;
use crate::policy::spec::{
    ChildName, ChildRules, CommandSpec, Condition, Dependency, Governor, InvalidName, Kind,
    NodeRules, OnLimit, Readiness, SupervisorRules,
};
use crate::tree::task::{TaskBody, TaskContext, TaskError};
use crate::work::Work;

/// A child: a program or an async task, and the rules for it.
#[derive(Clone, Debug)]
#[must_use]
pub struct Child {
    pub(crate) rules: ChildRules,
    pub(crate) work: Work,
    pub(crate) output: Option<Output>,
    /// Few have any.
    pub(crate) probes: Option<Box<Probes>>,
    pub(crate) stop_command: Option<Arc<CommandSpec>>,
}

/// What is executed, apart from what decisions need.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) name: ChildName,
    pub(crate) work: Work,
    pub(crate) output: Option<Output>,
    pub(crate) stop_command: Option<Arc<CommandSpec>>,
    probes: Option<Box<Probes>>,
}

impl Job {
    pub(crate) fn new(name: ChildName, work: Work) -> Self {
        Self {
            name,
            work,
            output: None,
            stop_command: None,
            probes: None,
        }
    }

    /// Its probes, if it has any.
    pub(crate) fn take_probes(&mut self) -> Option<(ChildName, Probes)> {
        let probes = self.probes.take()?;
        Some((self.name.clone(), *probes))
    }
}

/// How long a run whose readiness is probed may take to become ready, unless it is said otherwise.
const START_TIMEOUT: Duration = Duration::from_secs(60);

impl Child {
    /// A service that executes a program: always restarted, by the standard governor.
    ///
    /// Each run finds its child's name in the environment as `KIMI_CHILD`, and its own id as `KIMI_RUN_ID`.
    pub fn command(name: &str, command: CommandSpec) -> Result<Self, InvalidName> {
        let rules = ChildRules::service(ChildName::new(name)?);
        Ok(Self {
            rules,
            work: Work::Command(Arc::new(command)),
            output: None,
            probes: None,
            stop_command: None,
        })
    }

    /// A service that is an async task of this program: `body` makes the future of each run.
    ///
    /// `Ok` is a success, `Err` a failure (code 1), a panic a failure (code 101). When [`TaskContext::stopped`] completes the
    /// task should end; after its grace it is aborted at its next await. Runs on the runtime that the tree runs on.
    pub fn task<F, Fut>(name: &str, body: F) -> Result<Self, InvalidName>
    where
        F: Fn(TaskContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        let rules = ChildRules::service(ChildName::new(name)?);
        Ok(Self {
            rules,
            work: Work::Task(TaskBody::new(body)),
            output: None,
            probes: None,
            stop_command: None,
        })
    }

    /// Makes it a job that runs once: never restarted, and it satisfies those who wait for it by succeeding.
    pub fn once(mut self) -> Self {
        self.rules.kind = Kind::Task;
        self.rules.restart = Restart::Never;
        self
    }

    /// Whether it restarts.
    pub fn restart(mut self, restart: Restart) -> Self {
        self.rules.restart = restart;
        self
    }

    /// How often it restarts, and when.
    pub fn governor(mut self, governor: Governor) -> Self {
        self.rules.governor = governor;
        self
    }

    /// What happens when it restarted too often.
    pub fn on_limit(mut self, on_limit: OnLimit) -> Self {
        self.rules.governor.on_limit = on_limit;
        self
    }

    /// What it is asked to stop with, and how long it may take before it is killed.
    pub fn stop(mut self, signal: Signal, grace: Duration) -> Self {
        self.rules.stop.signal = signal;
        self.rules.stop.grace = Some(grace);
        self
    }

    /// This command asks it to stop, instead of the signal, in its directory and environment; `KIMI_PID` is its process. If
    /// it outlives the command, or the command does not start, the signal follows. The grace bounds both.
    pub fn stop_command(mut self, command: CommandSpec) -> Self {
        self.stop_command = Some(Arc::new(command));
        self
    }

    /// Success besides code 0.
    pub fn success(mut self, success: SuccessCodes) -> Self {
        self.rules.success = success;
        self
    }

    /// Its first start waits until this holds of that child or supervisor.
    pub fn depends_on(mut self, on: &str, condition: Condition) -> Result<Self, InvalidName> {
        self.rules.depends_on.push(Dependency {
            condition,
            ..Dependency::on(ChildName::new(on)?)
        });
        Ok(self)
    }

    /// It is ready when this probe says so, and not by running. It has 60 s for that, unless [`Child::start_timeout`] says
    /// otherwise. It is probed on only where a dependent stops when its readiness is lost.
    pub fn readiness(mut self, probe: Probe) -> Self {
        self.probes.get_or_insert_default().readiness = Some(probe);
        self.rules.readiness = Readiness::Reported;
        self.rules.start_timeout.get_or_insert(START_TIMEOUT);
        self
    }

    /// Once it is ready, this probe says whether it lives; when it does not, it is restarted. The probe succeeds again with
    /// the first success.
    pub fn liveness(mut self, probe: Probe) -> Self {
        self.probes.get_or_insert_default().liveness = Some(probe);
        self
    }

    /// How long it may take to become ready, if that is probed.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.rules.start_timeout = Some(timeout);
        self
    }

    /// How long a run may take before it is stopped as one that failed: one that runs once has failed then, one that
    /// restarts has had an unstable run.
    pub fn max_runtime(mut self, limit: Duration) -> Self {
        self.rules.max_runtime = Some(limit);
        self
    }

    /// How long a run may write nothing before it is stopped as one that failed. Only for output that is read: as lines, or
    /// captured.
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.rules.idle_timeout = Some(limit);
        self
    }

    /// Where its output goes; by default where the builder says.
    pub fn output(mut self, output: Output) -> Self {
        self.output = Some(output);
        self
    }
}

/// A nested supervisor: members in start order, a strategy, an intensity.
#[derive(Clone, Debug)]
#[must_use]
pub struct Supervisor {
    pub(crate) rules: SupervisorRules,
    pub(crate) members: Vec<Member>,
}

#[derive(Clone, Debug)]
pub(crate) enum Member {
    Child(Child),
    Supervisor(Supervisor),
}

impl Supervisor {
    /// A supervisor without members yet; always restarted itself.
    pub fn new(name: &str, strategy: Strategy) -> Result<Self, InvalidName> {
        let rules = SupervisorRules::new(ChildName::new(name)?, strategy, Vec::new());
        Ok(Self {
            rules,
            members: Vec::new(),
        })
    }

    /// Adds a child as its last member.
    pub fn child(mut self, child: Child) -> Self {
        self.members.push(Member::Child(child));
        self
    }

    /// Adds a supervisor as its last member.
    pub fn supervisor(mut self, supervisor: Self) -> Self {
        self.members.push(Member::Supervisor(supervisor));
        self
    }

    /// How many restarts of its members in which window are too many, and what happens then.
    pub fn intensity(mut self, intensity: Intensity, on_limit: OnLimit) -> Self {
        self.rules.intensity = Some(intensity);
        self.rules.on_limit = on_limit;
        self
    }

    /// Whether its own supervisor starts it again after it ended.
    pub fn restart(mut self, restart: Restart) -> Self {
        self.rules.restart = restart;
        self
    }
}

impl Member {
    /// Splits what decisions need from what is executed.
    pub(crate) fn split(self, jobs: &mut Vec<Job>) -> NodeRules {
        match self {
            Self::Child(child) => {
                jobs.push(Job {
                    name: child.rules.name.clone(),
                    work: child.work,
                    output: child.output,
                    stop_command: child.stop_command,
                    probes: child.probes,
                });
                NodeRules::Child(child.rules)
            }
            Self::Supervisor(supervisor) => {
                let mut rules = supervisor.rules;
                rules.members = supervisor
                    .members
                    .into_iter()
                    .map(|member| member.split(jobs))
                    .collect();
                NodeRules::Supervisor(rules)
            }
        }
    }
}
