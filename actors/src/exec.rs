//! One-shot commands: run once, bounded in time, output and number.
//!
//! A command waits for its place, starts, runs, and is read to the end of what it wrote; then whatever it left behind is
//! killed, and its [`ExecOutcome`] is told. It can be cancelled at each of these stages. Its time counts from its place to its
//! end and hangs on no pipe.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::os::chunks::{self, Chunks};
use crate::os::stdin::Stdin;
use crate::os::{Captured, ChunkSink, Drained, End, Kept, Output, SpawnError, Survivor};
use crate::policy::admission::{ClientId, Rejection, RequestId};
use crate::policy::exit::Exit;
use crate::policy::run::{OnOutputLimit, RunRules, StopCause};
use crate::policy::signal::Signal;
use crate::policy::spec::{CommandSpec, StopSpec};
use crate::work::Work;

/// How much may wait to be taken of what a command writes, before it has to wait, in bytes.
const STREAM_BYTES: usize = 1024 * 1024;

/// A command to run once.
#[derive(Clone, Debug)]
pub struct Exec {
    /// What to execute.
    pub command: CommandSpec,
    /// Where its stdin comes from; `/dev/null` unless something is given.
    pub stdin: Stdin,
    /// Where its stdout and stderr go.
    pub output: ExecOutput,
    /// How long it may take from its place to its end before it is stopped; none: for ever.
    pub timeout: Option<Duration>,
    /// How long it may write nothing before it is stopped; none: for ever. Only for what is captured.
    pub idle_timeout: Option<Duration>,
    /// What it is asked to stop with.
    pub stop_signal: Signal,
    /// How long it may take to stop before it is killed.
    pub grace: Duration,
    /// How much of each captured stream is kept, in bytes: half of it the head, half the tail.
    pub max_output: usize,
    /// What becomes of it when it writes more.
    pub on_output_limit: OnOutputLimit,
    /// On whose behalf it runs: where places are short, clients take turns.
    pub client: ClientId,
}

/// Where the stdout and stderr of a command go.
#[derive(Clone, Debug, Default)]
pub struct ExecOutput(Destination);

#[derive(Clone, Default)]
enum Destination {
    #[default]
    Captured,
    Streamed(Arc<dyn ChunkSink>),
    Inherited,
}

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Captured => "Captured",
            Self::Streamed(_) => "Streamed",
            Self::Inherited => "Inherited",
        })
    }
}

impl ExecOutput {
    /// Into the outcome, up to the bound.
    pub fn captured() -> Self {
        Self(Destination::Captured)
    }

    /// To the supervisor's own stdout and stderr. Nothing is counted or kept.
    pub fn inherited() -> Self {
        Self(Destination::Inherited)
    }
}

impl Exec {
    /// The command with the default bounds: 30 s, then 500 ms of grace, 10 MiB a stream.
    pub fn new(command: CommandSpec) -> Self {
        Self {
            command,
            stdin: Stdin::default(),
            output: ExecOutput::default(),
            timeout: Some(Duration::from_secs(30)),
            idle_timeout: None,
            stop_signal: Signal::TERM,
            grace: Duration::from_millis(500),
            max_output: 10 * 1024 * 1024,
            on_output_limit: OnOutputLimit::default(),
            client: ClientId::default(),
        }
    }

    /// Hands on what it writes while it runs, besides what is kept.
    ///
    /// Who takes it slowly slows the command down: at most 1 MiB waits, and after the command's end what its pipes hold.
    pub fn stream(&mut self) -> Chunks {
        let (sink, chunks) = chunks::chunks(STREAM_BYTES);
        self.output = ExecOutput(Destination::Streamed(sink));
        chunks
    }
}

/// What became of a command that ran.
#[derive(Debug)]
#[non_exhaustive]
pub struct ExecOutcome {
    /// Names it within its runtime.
    pub id: RequestId,
    /// Its process.
    pub pid: u32,
    /// When that began, by the wall clock.
    pub started_at: SystemTime,
    /// What brought its end about.
    pub how: How,
    /// How it ended.
    pub exit: Exit,
    /// Whether the kernel killed a process of it for lack of memory.
    pub oom: bool,
    /// What it wrote.
    pub captured: Captured,
    /// Processes that it left behind and that were killed.
    pub killed: Vec<u32>,
    /// Processes that it left behind and that could not be killed.
    pub survivors: Vec<Survivor>,
    /// Processor time.
    pub cpu: Duration,
    /// The largest resident memory of any of its processes, in bytes, where it is known; see [`End::max_rss`].
    pub max_rss: Option<u64>,
    /// How long it waited and how long it ran.
    pub timing: Timing,
    /// When it ran out of time it waited for something to come on its stdin.
    pub waited_for_input: bool,
}

/// What brought the end of a command about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// It ended by itself.
    Exited,
    /// A signal ended it, which was not ours.
    Signaled,
    /// It was stopped because its time was over.
    TimedOut(TimedOut),
    /// It wrote more than it may, and [`OnOutputLimit::Kill`] was asked for.
    OutputLimit,
    /// It was stopped because it was not wanted any more: cancelled, or the runtime shut down.
    Cancelled,
}

/// Which time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimedOut {
    /// That from its place to its end.
    Total,
    /// That without output.
    Silence,
}

/// How long a command took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// It waited for a place.
    pub queued: Duration,
    /// From there to its result.
    pub ran: Duration,
}

/// Why a run was made to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopped {
    pub(crate) cause: StopCause,
    /// It waited for something to come on its stdin.
    pub(crate) waited_for_input: bool,
}

/// When a command's process began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    pub(crate) pid: u32,
    pub(crate) at: SystemTime,
}

/// What is known of a command besides its end.
#[derive(Clone, Copy)]
pub(crate) struct Answering<'a> {
    pub(crate) id: RequestId,
    pub(crate) exec: &'a PendingExec,
    pub(crate) started: Option<Started>,
    pub(crate) timing: Timing,
}

impl ExecOutcome {
    pub(crate) fn new(end: End, stopped: Option<Stopped>, answering: Answering<'_>) -> Self {
        let nothing = Captured {
            stdout: Kept::default(),
            stderr: Kept::default(),
            drained: Drained::Eof,
            last_output: None,
        };
        let captured = end.captured.unwrap_or(nothing);
        // Until its end it has one, and an end is told only after its start.
        let started = answering.started.unwrap_or(Started {
            pid: 0,
            at: SystemTime::UNIX_EPOCH,
        });
        let is_over = answering.exec.kills_at_limit()
            && (captured.stdout.truncated() || captured.stderr.truncated());
        // What was asked for after the leader had ended did not end it.
        let stopped = stopped.filter(|_| end.asked);
        Self {
            id: answering.id,
            pid: started.pid,
            started_at: started.at,
            how: How::of(end.exit, stopped.map(|stopped| stopped.cause), is_over),
            exit: end.exit,
            oom: end.oom,
            captured,
            killed: end.killed,
            survivors: end.survivors,
            cpu: end.cpu,
            max_rss: end.max_rss,
            timing: answering.timing,
            waited_for_input: stopped.is_some_and(|stopped| stopped.waited_for_input),
        }
    }

    /// Whether it was stopped because its time was over.
    pub fn timed_out(&self) -> bool {
        matches!(self.how, How::TimedOut(_))
    }
}

impl How {
    /// The first cause counts. One that wrote too much may have ended just before the kill; it wrote too much all the same.
    fn of(exit: Exit, cause: Option<StopCause>, is_over_limit: bool) -> Self {
        match (cause, exit) {
            (Some(StopCause::Timeout), _) => Self::TimedOut(TimedOut::Total),
            (Some(StopCause::Idle), _) => Self::TimedOut(TimedOut::Silence),
            (Some(StopCause::Asked), _) => Self::Cancelled,
            (Some(StopCause::OutputLimit), _) => Self::OutputLimit,
            (None, _) if is_over_limit => Self::OutputLimit,
            (None, Exit::Signal { .. }) => Self::Signaled,
            (None, Exit::Code(_) | Exit::Lost | Exit::NotStarted(_)) => Self::Exited,
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
    /// Its time was over before it had started.
    #[error("cannot start the command in time")]
    TimedOut,
    /// It was cancelled before it had started.
    #[error("cannot run the command: it was cancelled")]
    Cancelled,
    /// Its actor was lost; its processes are gone.
    #[error("cannot tell what became of the command")]
    Lost,
    /// The runtime has ended.
    #[error("cannot reach the runtime: it has ended")]
    Ended,
}

impl ExecError {
    pub(crate) fn not_started(error: SpawnError, stopped: Option<Stopped>) -> Self {
        // What the kernel said counts more than that it was to be stopped anyway.
        let is_given_up = matches!(error, SpawnError::Abandoned);
        match stopped.map(|stopped| stopped.cause) {
            Some(StopCause::Timeout) if is_given_up => Self::TimedOut,
            Some(StopCause::Asked) if is_given_up => Self::Cancelled,
            _ => Self::NotStarted(error),
        }
    }
}

/// A command that waits for its place, or has it.
pub(crate) struct PendingExec {
    command: Arc<CommandSpec>,
    stdin: Stdin,
    output: Output,
    idle_timeout: Option<Duration>,
    on_output_limit: OnOutputLimit,
    pub(crate) stop: StopSpec,
    pub(crate) client: ClientId,
    timeout: Option<Duration>,
}

impl PendingExec {
    pub(crate) fn new(exec: Exec) -> Self {
        let capture = |chunks| Output::Capture {
            cap_bytes: exec.max_output,
            chunks,
        };
        let (output, is_captured) = match exec.output.0 {
            Destination::Captured => (capture(None), true),
            Destination::Streamed(sink) => (capture(Some(sink)), true),
            Destination::Inherited => (Output::Inherit, false),
        };
        Self {
            command: Arc::new(exec.command),
            stdin: exec.stdin,
            output,
            // Of what is not read nobody knows when it came.
            idle_timeout: exec.idle_timeout.filter(|_| is_captured),
            on_output_limit: exec.on_output_limit,
            stop: StopSpec {
                signal: exec.stop_signal,
                grace: Some(exec.grace),
            },
            client: exec.client,
            timeout: exec.timeout,
        }
    }

    pub(crate) fn work(&self) -> Work {
        Work::Command(Arc::clone(&self.command))
    }

    /// Taken, so that no copy is left open once the command has its own; it starts only once.
    pub(crate) fn stdin(&mut self) -> Stdin {
        mem::take(&mut self.stdin)
    }

    pub(crate) fn output(&self) -> Output {
        self.output.clone()
    }

    pub(crate) fn rules(&self) -> RunRules {
        RunRules {
            timeout: self.timeout,
            idle_timeout: self.idle_timeout,
            on_output_limit: self.on_output_limit,
            ..RunRules::from(self.stop)
        }
    }

    fn kills_at_limit(&self) -> bool {
        self.on_output_limit == OnOutputLimit::Kill
    }
}
