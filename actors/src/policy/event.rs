//! What observers are told.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::exit::Exit;
use crate::policy::restart::Strategy;
use crate::policy::signal::Signal;
use crate::policy::spec::{ChildName, RunId};
use crate::policy::time::Moment;

/// One fact about the tree, in the order in which they became true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TreeEvent {
    /// Counts from 1 without gaps.
    pub seq: u64,
    /// When.
    pub at: Moment,
    /// What.
    pub fact: Fact,
}

/// What became true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Fact {
    /// A child is to start and waits for others first.
    Pending {
        /// The child.
        child: ChildName,
        /// One that it waits for.
        blocked_by: ChildName,
    },
    /// A run was ordered.
    Starting {
        /// The child.
        child: ChildName,
        /// The run.
        run: RunId,
        /// Which run of this child it is, from 1.
        ordinal: u64,
    },
    /// The run's process exists.
    Running {
        /// The child.
        child: ChildName,
        /// The run.
        run: RunId,
        /// The process; none for a task of the program itself.
        pid: Option<u32>,
    },
    /// The run is ready.
    Ready {
        /// The child.
        child: ChildName,
        /// The run.
        run: RunId,
    },
    /// The run is no longer ready; it runs on, and may become ready again.
    Unready {
        /// The child.
        child: ChildName,
        /// The run.
        run: RunId,
    },
    /// The run was not ready in its start timeout: a failed start, which is stopped.
    StartTimedOut {
        /// The child.
        child: ChildName,
        /// The run.
        run: RunId,
        /// How long it had, extensions included.
        after: Duration,
    },
    /// The run's liveness probe failed: it is stopped, as one that failed.
    Unhealthy {
        /// The child.
        child: ChildName,
        /// The run.
        run: RunId,
    },
    /// The run exceeded a bound on its time: it is stopped, as one that failed.
    Overran {
        /// The child.
        child: ChildName,
        /// The run.
        run: RunId,
        /// Which bound.
        bound: Bound,
        /// How long that is.
        limit: Duration,
        /// Whether it waited for something to come on its stdin, as far as could be told.
        waits_for_input: bool,
    },
    /// What the child depends on restarts, so the child is stopped and starts again after it.
    DependencyRestarted {
        /// The child.
        child: ChildName,
        /// What it depends on.
        dependency: ChildName,
    },
    /// What the child depends on is lost, so the child is stopped until it is back.
    DependencyLost {
        /// The child.
        child: ChildName,
        /// What it depends on.
        dependency: ChildName,
    },
    /// The run was asked to stop.
    Stopping {
        /// The child.
        child: ChildName,
        /// The run.
        run: RunId,
        /// How long it may take before it is killed; zero: it is killed now.
        grace: Duration,
    },
    /// The kernel killed a process of the run for lack of memory; the end of the run is told next.
    OutOfMemory {
        /// The child.
        child: ChildName,
        /// The run.
        run: RunId,
    },
    /// The run ended.
    Exited {
        /// The child.
        child: ChildName,
        /// The run.
        run: RunId,
        /// How.
        exit: Exit,
        /// Who wanted that.
        by: EndedBy,
    },
    /// The child will be started again.
    RestartScheduled {
        /// The child.
        child: ChildName,
        /// After this long.
        delay: Duration,
        /// How many unstable runs in a row it had.
        unstable: u32,
    },
    /// The child ended for good, successfully.
    Completed {
        /// The child.
        child: ChildName,
    },
    /// The child ended for good, and not well.
    Failed {
        /// The child.
        child: ChildName,
        /// Why nothing is tried any more.
        why: FailedBecause,
    },
    /// The child is down because it was asked to be.
    Stopped {
        /// The child.
        child: ChildName,
    },
    /// A supervisor began.
    SupervisorStarted {
        /// The supervisor.
        supervisor: ChildName,
    },
    /// A supervisor restarts several members because of one.
    GroupRestart {
        /// The supervisor.
        supervisor: ChildName,
        /// Its strategy.
        strategy: Strategy,
        /// The member that ended.
        because_of: ChildName,
        /// After this long.
        delay: Duration,
    },
    /// A supervisor ends.
    SupervisorEnding {
        /// The supervisor.
        supervisor: ChildName,
        /// Why.
        why: SupervisorEnd,
    },
    /// A supervisor ended: none of its children runs.
    SupervisorEnded {
        /// The supervisor.
        supervisor: ChildName,
    },
    /// The shutdown of the tree began.
    ShutdownStarted {
        /// Why.
        reason: ShutdownReason,
        /// How long it may take in all; none: as long as it takes.
        budget: Option<Duration>,
    },
    /// What still runs is killed now.
    ShutdownForced,
    /// Nothing runs any more.
    ShutdownFinished,
}

/// Who wanted a run to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EndedBy {
    /// Nobody here: the run itself, or somebody outside.
    Itself,
    /// Its supervisor.
    Supervisor,
    /// Its start timeout, in which it was not ready.
    StartTimeout,
    /// Its liveness probe.
    Liveness,
    /// A bound on its time.
    Bound(Bound),
    /// The restart or loss of what it depends on.
    Dependency,
}

/// A bound on the time of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Bound {
    /// That from its order to its end.
    MaxRuntime,
    /// That without output.
    IdleTimeout,
}

/// Why a child is `failed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FailedBecause {
    /// It failed, and is not one that restarts.
    NotRestarted,
    /// It restarted too often.
    Limit,
    /// It cannot be started.
    CannotStart,
    /// A supervisor among whose members restarts were too many gave up.
    SupervisorGaveUp,
}

/// Why a supervisor ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SupervisorEnd {
    /// Its members restarted too often.
    Intensity,
    /// A member's limit was reached, and it escalates.
    MemberEscalated,
    /// Its significant members ended.
    AutoShutdown,
    /// One of its members could not start.
    StartFailed,
    /// Its own actor was lost.
    Lost,
    /// It was asked to stop.
    Asked,
}

/// Why a tree shuts down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ShutdownReason {
    /// A signal asked for it.
    Signal(Signal),
    /// The program, or an operator, asked for it.
    Asked,
    /// Every child had ended.
    AllEnded,
    /// Restarts were too many, and the answer to that is to end.
    Limit,
    /// A part of ours was lost that cannot be restarted.
    Internal,
}
