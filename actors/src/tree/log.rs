//! The facts of the tree as log records: one line a lifecycle change, the message constant, the data in fields.

use std::error::Error;
use std::fmt;

use tracing::{debug, error, info, warn};

use crate::policy::event::{EndedBy, Fact, TreeEvent};
use crate::policy::exit::Exit;

pub(crate) fn log(event: &TreeEvent) {
    match &event.fact {
        Fact::Pending { child, blocked_by } => info!(%child, %blocked_by, "child waits"),
        Fact::Starting {
            child,
            run,
            ordinal,
        } => debug!(%child, run = run.0, ordinal, "child starting"),
        Fact::Running { child, run, pid } => {
            info!(%child, run = run.0, process.pid = pid, "child running");
        }
        Fact::Ready { child, run } => info!(%child, run = run.0, "child ready"),
        Fact::Unready { child, run } => warn!(%child, run = run.0, "child no longer ready"),
        Fact::StartTimedOut { child, run, after } => {
            warn!(%child, run = run.0, ?after, "child not ready in time");
        }
        Fact::Unhealthy { child, run } => warn!(%child, run = run.0, "child unhealthy"),
        Fact::Overran {
            child,
            run,
            bound,
            limit,
            waits_for_input,
        } => {
            warn!(%child, run = run.0, ?bound, ?limit, waits_for_input, "child overran");
        }
        Fact::DependencyRestarted { child, dependency } => {
            info!(%child, %dependency, "dependency restarts");
        }
        Fact::DependencyLost { child, dependency } => {
            warn!(%child, %dependency, "dependency lost");
        }
        Fact::Stopping { child, run, grace } => {
            info!(%child, run = run.0, ?grace, "child stopping");
        }
        Fact::OutOfMemory { child, run } => {
            warn!(%child, run = run.0, "a process was killed for lack of memory");
        }
        Fact::Exited {
            child,
            run,
            exit: exit @ Exit::Code(0),
            by: _,
        }
        | Fact::Exited {
            child,
            run,
            exit,
            by: EndedBy::Supervisor | EndedBy::Dependency,
        } => {
            info!(%child, run = run.0, %exit, "child exited");
        }
        Fact::Exited {
            child,
            run,
            exit,
            by: EndedBy::Itself | EndedBy::StartTimeout | EndedBy::Liveness | EndedBy::Bound(_),
        } => warn!(%child, run = run.0, %exit, "child exited"),
        Fact::RestartScheduled {
            child,
            delay,
            unstable,
        } => info!(%child, ?delay, unstable, "child restarts"),
        Fact::Completed { child } => info!(%child, "child completed"),
        Fact::Failed { child, why } => error!(%child, ?why, "child failed"),
        Fact::Stopped { child } => info!(%child, "child stopped"),
        Fact::SupervisorStarted { supervisor } => debug!(%supervisor, "supervisor started"),
        Fact::GroupRestart {
            supervisor,
            strategy,
            because_of,
            delay,
        } => {
            warn!(%supervisor, ?strategy, %because_of, ?delay, "supervisor restarts its group");
        }
        Fact::SupervisorEnding { supervisor, why } => warn!(%supervisor, ?why, "supervisor ends"),
        Fact::SupervisorEnded { supervisor } => debug!(%supervisor, "supervisor ended"),
        Fact::ShutdownStarted { reason, budget } => info!(?reason, ?budget, "shutdown started"),
        Fact::ShutdownForced => warn!("shutdown kills what still runs"),
        Fact::ShutdownFinished => info!("shutdown finished"),
    }
}

/// An error with its causes, on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
