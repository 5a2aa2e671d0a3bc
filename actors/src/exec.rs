//! One-shot commands: run once, bounded in time, output and number.

use std::sync::Arc;
use std::time::Duration;

use crate::os::{Captured, End, Output, SpawnError};
use crate::policy::admission::Rejection;
use crate::policy::exit::Exit;
use crate::policy::signal::Signal;
use crate::policy::spec::{CommandSpec, StopSpec};
use crate::work::Work;

/// A command to run once.
#[derive(Clone, Debug)]
pub struct Exec {
    /// What to execute.
    pub command: CommandSpec,
    /// How long it may run before it is stopped; none: for ever.
    pub timeout: Option<Duration>,
    /// How long it may take to stop before it is killed.
    pub grace: Duration,
    /// How much of each stream is kept, in bytes: half of it the head, half the tail.
    pub max_output: usize,
}

impl Exec {
    /// The command with the default bounds: 30 s, then 500 ms of grace, 10 MiB a stream.
    pub fn new(command: CommandSpec) -> Self {
        Self {
            command,
            timeout: Some(Duration::from_secs(30)),
            grace: Duration::from_millis(500),
            max_output: 10 * 1024 * 1024,
        }
    }
}

/// What became of a command.
#[derive(Debug)]
#[non_exhaustive]
pub struct ExecOutcome {
    /// How it ended.
    pub exit: Exit,
    /// Whether it was stopped because its time was over.
    pub timed_out: bool,
    /// What it wrote.
    pub captured: Captured,
    /// Processes that it left behind and that were killed.
    pub killed: Vec<u32>,
    /// Processes that it left behind and that could not be killed.
    pub survivors: Vec<u32>,
    /// Processor time.
    pub cpu: Duration,
    /// How long it waited and how long it ran.
    pub timing: Timing,
}

/// How long a command took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// It waited for a place.
    pub queued: Duration,
    /// From there to its result.
    pub ran: Duration,
}

impl ExecOutcome {
    pub(crate) fn new(end: End, timed_out: bool, timing: Timing) -> Self {
        let nothing = Captured {
            stdout: crate::os::Kept::default(),
            stderr: crate::os::Kept::default(),
            drained: crate::os::Drained::Eof,
        };
        Self {
            exit: end.exit,
            timed_out,
            captured: end.captured.unwrap_or(nothing),
            killed: end.killed,
            survivors: end.survivors,
            cpu: end.cpu,
            timing,
        }
    }
}

/// Why a command has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It was not admitted.
    #[error("cannot run the command")]
    Rejected(#[source] Rejection),
    /// It could not be started.
    #[error("cannot start the command")]
    NotStarted(#[source] SpawnError),
    /// Its actor was lost; its processes are gone.
    #[error("cannot tell what became of the command")]
    Lost,
    /// The runtime has ended.
    #[error("cannot reach the runtime: it has ended")]
    Ended,
}

/// A command that waits for its place, or has it.
pub(crate) struct PendingExec {
    command: Arc<CommandSpec>,
    max_output: usize,
    pub(crate) stop: StopSpec,
    pub(crate) timeout: Option<Duration>,
}

impl PendingExec {
    pub(crate) fn new(exec: Exec) -> Self {
        Self {
            command: Arc::new(exec.command),
            max_output: exec.max_output,
            stop: StopSpec {
                signal: Signal::TERM,
                grace: Some(exec.grace),
            },
            timeout: exec.timeout,
        }
    }

    pub(crate) fn work(&self) -> Work {
        Work::Command(Arc::clone(&self.command))
    }

    pub(crate) fn output(&self) -> Output {
        Output::Capture {
            cap_bytes: self.max_output,
        }
    }
}
