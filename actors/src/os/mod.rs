//! Mechanism: the only place that touches processes, signals and threads.
//!
//! [`Os`] is the seam. Actors know nothing beyond it; [`RealOs`] is the kernel, `testing::FakeOs` a scripted one. A later
//! keeper process that owns the children while the runtime is replaced fits behind the same seam.

pub mod account;
pub mod check;
pub mod chunks;
pub mod clock;
mod clone;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use clone::bare;
mod contain;
pub mod force_exit;
pub mod guardian;
mod kernel;
mod kin;
mod launch;
pub mod ledger;
pub mod limits;
mod linger;
mod means;
pub mod output;
mod queue;
mod real;
mod reap;
pub mod shim;
pub mod sign;
pub mod signals;
mod spawn;
pub mod stdin;
mod strays;
mod table;
mod tee;
pub mod terminal;
mod thread;
mod validate;
mod waiting;
mod ward;
mod watch;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::os::check::{CheckFailure, CheckOrder, Tell};
use crate::os::sign::Listen;
use crate::os::stdin::Stdin;
use crate::policy::exit::{Exit, StartFailure};
use crate::policy::setup::Unmet;
use crate::policy::signal::Signal;
use crate::policy::spec::{ChildName, CommandSpec, Containment, RunId};

pub use contain::{
    ContainmentError, ContainmentRules, Escape, Lacking, NoAdopter, NoCgroup, Survivor,
    clean_up_after_the_dead, controllers,
};
pub use means::means;
pub use real::{OomCounter, RealOs, RealOsError, RealOsOptions};
pub use validate::resolve;

/// What starts processes and owns them until they are gone.
pub trait Os: Send + Sync + 'static {
    /// Begins a run and returns at once; what becomes of it is told to the job's observer.
    ///
    /// Dropping what is returned kills the run's processes and reaps them, also if the spawn is still under way.
    fn begin(&self, job: Job) -> Box<dyn Process>;

    /// Calls `then` once no process of this run is left that can be awaited; at once if there is none.
    fn when_gone(&self, run: RunId, then: Box<dyn FnOnce() + Send>);

    /// Kills every process of every run, without waiting. Safe to call from any thread, whatever else hangs.
    fn kill_all(&self);

    /// How many runs have a process that is not reaped.
    fn live(&self) -> usize;

    /// What holds the processes of a run together.
    fn containment(&self) -> Containment {
        Containment::Group
    }

    /// What is to be said of how it was set up: sentences for people, mostly none.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// No run is to come for now: ends whatever got away from the runs that were, and removes what was made for them. Tells who
    /// could not be ended, at once or from another thread. Does nothing while there is a run.
    fn finish(&self, tell: TellSurvivors) {
        tell(Vec::new());
    }

    /// Makes a check and tells its answer, at most once, from any thread.
    ///
    /// Dropping what is returned gives the check up; its command, if it is one, is killed with all that it started. The
    /// process of a command stands in the table as the run [`Errand::run`](check::Errand::run), so [`Os::when_gone`] tells
    /// when nothing is left of it. What can make no checks need not implement this: then every check fails.
    fn check(&self, order: CheckOrder, tell: Tell) -> Box<dyn Send> {
        drop(order);
        tell(Err(CheckFailure::Unsupported));
        Box::new(())
    }
}

/// Told who could not be ended.
pub type TellSurvivors = Box<dyn FnOnce(Vec<Survivor>) + Send>;

/// A run that was begun; dropping it kills what is left of it.
pub trait Process: Send + Sync {
    /// Sends a signal to the run's processes. One that is gone already is no error.
    fn signal(&self, signal: Signal) -> Result<(), SignalError>;

    /// Kills the run's processes; one that is still being spawned dies as soon as it exists.
    fn kill(&self);

    /// For how long it has written nothing, if what it writes is read, and it could write.
    fn quiet(&self) -> Duration {
        Duration::ZERO
    }

    /// How long ago it wrote last, if it has, and what it writes is read.
    fn last_output(&self) -> Option<Duration> {
        None
    }

    /// Whether one of its processes waits for something to come on stdin, as far as can be told.
    fn waits_for_input(&self) -> bool {
        false
    }
}

/// One run to begin.
pub struct Job {
    /// Names it.
    pub run: RunId,
    /// Whose run it is.
    pub child: ChildName,
    /// What to execute.
    pub command: Arc<CommandSpec>,
    /// Where its stdin comes from.
    pub stdin: Stdin,
    /// Where its output goes.
    pub output: Output,
    /// Who is told.
    pub observer: Arc<dyn Observer>,
    /// By what sign it says that it is ready, if by any.
    pub listen: Option<Listen>,
    /// Whom it overtakes where many wait to be started.
    pub rank: Rank,
}

/// Which runs overtake which where many wait to be started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rank {
    /// A child of the tree, or what belongs to one.
    #[default]
    Supervised,
    /// A one-shot command: however many of them wait, they delay no restart.
    OneShot,
}

/// Is told what becomes of a run. Called from the threads of this module: must not block.
pub trait Observer: Send + Sync {
    /// `Started` or `NotStarted` comes first; after `Started` comes `Ended`. Nothing comes after `NotStarted` or `Ended`, and
    /// nothing but `OutputLimit` beside `Over`.
    /// `OutputLimit` may come at any time before `Ended`.
    fn tell(&self, news: News);
}

/// What became of a run.
#[derive(Debug)]
pub enum News {
    /// Its process exists and executes the program.
    Started {
        /// The process.
        pid: u32,
        /// How it came to that.
        path: StartPath,
    },
    /// It never ran; no process is left of the attempt.
    NotStarted(SpawnError),
    /// It has written more than is kept. Told once, of whichever stream it is.
    OutputLimit,
    /// It ended.
    Ended(Box<End>),
    /// It had ended before its start was told: both at once, in place of `Started` and `Ended`. Its start was
    /// [direct](StartPath::Direct).
    Over {
        /// The process that was.
        pid: u32,
        /// How it ended.
        end: Box<End>,
    },
}

/// How a process came to execute its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartPath {
    /// At once; what was to be set up was set up on the way.
    Direct,
    /// Through the exec [shim], as another user or group.
    Shim,
}

/// How a run ended, and what was left of it.
#[derive(Debug)]
pub struct End {
    /// How its leader ended.
    pub exit: Exit,
    /// Whether the kernel killed a process of it for lack of memory, as far as [`OomCounter`] knows.
    pub oom: bool,
    /// Whether somebody here had signalled it, or given it up, before its leader ended.
    pub asked: bool,
    /// Processor time of the leader and the children that it reaped, by the kernel's accounting.
    pub cpu: Duration,
    /// The largest resident memory of any of these, in bytes. Only where it is known to be true: what a program has used is
    /// counted together with what its parent had when it started it, so nothing is said of one smaller than the supervisor.
    pub max_rss: Option<u64>,
    /// Its processes that outlived the leader and were killed. Empty for a run that ended unasked: that is told at once, and
    /// what is left is killed right after.
    pub killed: Vec<u32>,
    /// Processes that could not be killed.
    pub survivors: Vec<Survivor>,
    /// What it wrote, if that was captured.
    pub captured: Option<Captured>,
}

/// Where a run's stdout and stderr go.
#[derive(Clone)]
pub enum Output {
    /// To `/dev/null`.
    Discard,
    /// To the supervisor's own.
    Inherit,
    /// Line by line to a sink.
    Lines(Arc<dyn LineSink>),
    /// Kept for the end: of each stream at most `cap_bytes`, half of it the head, half the tail.
    Capture {
        /// The bound for each stream.
        cap_bytes: usize,
        /// Is handed everything as it comes, whatever is kept.
        chunks: Option<Arc<dyn ChunkSink>>,
    },
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Discard => f.write_str("Discard"),
            Self::Inherit => f.write_str("Inherit"),
            Self::Lines(_) => f.write_str("Lines"),
            Self::Capture { cap_bytes, .. } => write!(f, "Capture({cap_bytes})"),
        }
    }
}

/// Takes lines. Called from an output thread: must not block, or every other child's output waits.
pub trait LineSink: Send + Sync {
    /// One line, or a part of one that is longer than the bound of a line.
    fn line(&self, line: Line<'_>);
}

/// Takes what a run writes. Called from an output thread: must not block.
pub trait ChunkSink: Send + Sync {
    /// The run has begun; this lets reading go on after a pause.
    fn begin(&self, resume: Resume);

    /// A piece of what it wrote to this stream; whether more of that may come. Also after a pause more may come, once the
    /// run's leader has ended: what is left in its pipes.
    fn chunk(&self, stream: Stream, bytes: &[u8]) -> Flow;
}

/// Lets reading go on. May be called at any time, from any thread.
pub type Resume = Box<dyn Fn() + Send + Sync>;

/// Whether a stream is read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It is.
    Go,
    /// Not before it is resumed.
    Pause,
}

/// A line that a run wrote.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Whose.
    pub child: &'a ChildName,
    /// Which run.
    pub run: RunId,
    /// Which stream.
    pub stream: Stream,
    /// The bytes, without the newline.
    pub bytes: &'a [u8],
    /// Whether the line ends here; `false`: it was longer than the bound and goes on in the next one.
    pub complete: bool,
}

/// Which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a run wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// On stdout.
    pub stdout: Kept,
    /// On stderr.
    pub stderr: Kept,
    /// Why reading ended.
    pub drained: Drained,
    /// How long after the start something came last; none: nothing came.
    pub last_output: Option<Duration>,
}

/// What was kept of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The first bytes; all of them if nothing was dropped.
    pub head: Vec<u8>,
    /// The last bytes; empty if nothing was dropped.
    pub tail: Vec<u8>,
    /// How many were written in all.
    pub bytes_total: u64,
}

impl Kept {
    /// How many bytes are here.
    pub fn bytes_kept(&self) -> u64 {
        let len = |part: &Vec<u8>| u64::try_from(part.len()).unwrap_or(u64::MAX);
        len(&self.head).saturating_add(len(&self.tail))
    }

    /// Whether bytes between the head and the tail were dropped.
    pub fn truncated(&self) -> bool {
        self.bytes_kept() < self.bytes_total
    }

    /// The head and the tail, with a line between them that says how much was dropped; nothing dropped, no such line.
    pub fn to_bytes_marked(&self) -> Vec<u8> {
        let dropped = self.bytes_total.saturating_sub(self.bytes_kept());
        let mark = if dropped == 0 {
            String::new()
        } else {
            format!("\n[... {dropped} bytes dropped ...]\n")
        };
        [self.head.as_slice(), mark.as_bytes(), &self.tail].concat()
    }
}

/// Why reading a run's output ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Drained {
    /// Every writer had closed it.
    Eof,
    /// The leader was gone and nothing came any more.
    Idle,
    /// The leader was gone and it did not stop coming.
    Deadline,
}

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// There is nothing to execute.
    #[error("cannot execute an empty command")]
    Empty,
    /// No file of that name is in the PATH, or the path does not exist.
    #[error("cannot find `{program}`{}", if program.contains('/') { "" } else { " in the PATH" })]
    NotFound {
        /// The program as given.
        program: String,
    },
    /// The file exists and cannot be executed.
    #[error("cannot execute `{}`: {reason}", path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: NotExecutable,
    },
    /// The interpreter that its first line names does not exist.
    #[error(
        "cannot find `{interpreter}`, the interpreter that the first line of `{}` names{}",
        path.display(),
        if interpreter.ends_with("\\r") { "; its lines end in CR LF, as on Windows" } else { "" }
    )]
    NoInterpreter {
        /// The script.
        path: PathBuf,
        /// What its first line names; a carriage return in it is shown as `\r`.
        interpreter: String,
    },
    /// The working directory cannot be entered.
    #[error("cannot enter the working directory `{}`", path.display())]
    Cwd {
        /// The directory.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// More is passed than the kernel takes.
    #[error(
        "cannot pass {bytes} bytes of arguments and environment, the longest of {longest}: the kernel takes \
         128 KiB in one and a quarter of the stack's limit in all"
    )]
    TooLarge {
        /// All of them.
        bytes: usize,
        /// The longest of them.
        longest: usize,
    },
    /// A NUL byte in an argument, the environment or a path.
    #[error("cannot pass a NUL byte in {what}")]
    Nul {
        /// Where it is.
        what: &'static str,
    },
    /// A system call failed.
    #[error("cannot {step}")]
    System {
        /// What was tried, as a verb and an object.
        step: &'static str,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// What was to be set up in its process was refused.
    #[error("cannot {step}")]
    Setup {
        /// What was tried, as a verb and an object.
        step: String,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// What is asked for it cannot be enforced here.
    #[error(transparent)]
    Unenforceable(#[from] Unmet),
    /// To run as somebody else takes the exec shim.
    #[error(
        "cannot run it as `{user}`: this program has not registered itself as its exec shim, by calling \
         `kimi_actors::shim::run_if_asked()` first in its `main`"
    )]
    NoShim {
        /// Whom it was to run as.
        user: String,
    },
    /// Its user has as many processes as it may have.
    #[error("cannot execute the program: `{user}` has as many processes as its limit allows")]
    ProcessLimit {
        /// The user.
        user: String,
    },
    /// The exec shim was killed before the program ran.
    #[error("cannot execute the program: its process was killed before that")]
    Vanished,
    /// Every slot of the process table is taken.
    #[error("cannot start more than {slots} processes at once")]
    TableFull {
        /// How many slots there are.
        slots: usize,
    },
    /// It was given up before it had begun.
    #[error("cannot start what was already given up")]
    Abandoned,
}

/// Why a file cannot be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotExecutable {
    /// It is a directory.
    #[error("it is a directory")]
    Directory,
    /// It is no regular file.
    #[error("it is not a regular file")]
    NotRegular,
    /// It lacks the permission.
    #[error("permission denied")]
    Permission,
    /// The kernel does not know its format.
    #[error("it is neither a binary for this machine nor a script that begins with `#!`")]
    Format,
}

impl SpawnError {
    /// The kind that the policy decides by.
    pub fn kind(&self) -> StartFailure {
        match self {
            Self::Empty | Self::NotFound { .. } | Self::NoInterpreter { .. } => {
                StartFailure::NotFound
            }
            Self::NotExecutable {
                reason: NotExecutable::Format,
                ..
            } => StartFailure::BadFormat,
            Self::TableFull { .. } | Self::ProcessLimit { .. } => StartFailure::Exhausted,
            Self::System { source, .. } | Self::Setup { source, .. } if is_exhaustion(source) => {
                StartFailure::Exhausted
            }
            // What was refused once is refused again.
            Self::NotExecutable { .. }
            | Self::Nul { .. }
            | Self::TooLarge { .. }
            | Self::Unenforceable(_)
            | Self::NoShim { .. }
            | Self::Setup { .. } => StartFailure::NotExecutable,
            Self::Cwd { .. } | Self::System { .. } | Self::Vanished | Self::Abandoned => {
                StartFailure::Other
            }
        }
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EAGAIN
                | libc::ENOMEM
                | libc::EMFILE
                | libc::ENFILE
                | libc::ENOSPC
                | libc::ETXTBSY
        )
    )
}

/// Why a signal could not be sent.
#[derive(Debug, thiserror::Error)]
#[error("cannot send {signal} to run {run}")]
pub struct SignalError {
    /// The signal.
    pub signal: Signal,
    /// To which run.
    pub run: RunId,
    /// What the kernel says.
    #[source]
    pub source: io::Error,
}
