//! Warm shells: one shell that stays and runs many commands, each with bounds and a result of its own.
//!
//! The shell is a one-shot command of the tree like any other: it takes a place, is contained, and ends with the runtime. It
//! reads its script from a pipe. For each command it is told to `eval` a quoted line whose output goes to two fresh pipes,
//! which it opens by their names under `/proc`, and then to write the status to a descriptor that the command does not have.
//! So no output can be taken for a status or for that of another command, whatever bytes it has and whoever still writes.
//!
//! ```mermaid
//! sequenceDiagram
//!     participant session
//!     participant shell
//!     session->>shell: command eval '…' >out 2>err, then echo $? >&3
//!     shell->>session: the status
//!     session->>session: reads out and err until they are empty
//! ```
//!
//! What a command left in the background may go on writing to its own pipes: that is read and dropped, so that it neither
//! blocks nor dies of it.

mod channel;
mod pool;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::exec::{Exec, ExecError, ExecOutcome};
use crate::os::Kept;
use crate::policy::admission::ClientId;
use crate::policy::exit::Exit;
use crate::policy::signal::Signal;
use crate::policy::spec::{BaseEnv, CommandSpec};
use crate::runtime::{ExecTicket, RuntimeHandle};
use channel::{Said, Script, Status, Stream};

pub use pool::SessionPool;

/// How long a command may take before its output is read while it runs; most are done by then.
const PATIENCE: Duration = Duration::from_millis(1);

/// How much is kept of what the shell itself says, outside of any command: why it could not begin.
const NOISE_BYTES: usize = 4 * 1024;

/// Which shell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Shell {
    /// `/bin/sh`.
    #[default]
    Sh,
    /// `bash`, without its start-up files.
    Bash,
}

/// How a session's shells are started.
#[derive(Clone, Debug)]
pub struct SessionSpec {
    /// Which shell.
    pub shell: Shell,
    /// Where it starts; the supervisor's own directory if absent.
    pub cwd: Option<std::path::PathBuf>,
    /// What its environment starts from.
    pub base_env: BaseEnv,
    /// Set on top of that.
    pub env: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    /// What a command that overruns is interrupted with. It goes to the shell as well, which mostly ends with the command.
    pub interrupt: Signal,
    /// How long an overrun command may take after it was interrupted, before the shell is killed.
    pub grace: Duration,
    /// On whose behalf the shell waits for its place.
    pub client: ClientId,
}

impl Default for SessionSpec {
    /// `sh` in the supervisor's directory and environment; SIGINT and 500 ms of grace for what overruns.
    fn default() -> Self {
        Self {
            shell: Shell::default(),
            cwd: None,
            base_env: BaseEnv::default(),
            env: Vec::new(),
            interrupt: Signal::INT,
            grace: Duration::from_millis(500),
            client: ClientId::default(),
        }
    }
}

impl SessionSpec {
    /// The command that becomes the shell: it opens our pipes by their names and then reads its script from one of them.
    fn exec(&self, script: RawFd, status: RawFd) -> Exec {
        let ours = std::process::id();
        let shell = match self.shell {
            Shell::Sh => "/bin/sh",
            Shell::Bash => "bash --noprofile --norc",
        };
        let line = format!("exec {shell} </proc/{ours}/fd/{script} 3>/proc/{ours}/fd/{status}");
        let command = CommandSpec {
            cwd: self.cwd.clone(),
            base_env: self.base_env,
            env: self.env.clone(),
            ..CommandSpec::shell(line)
        };
        Exec {
            timeout: None,
            grace: self.grace,
            max_output: NOISE_BYTES,
            client: self.client,
            ..Exec::new(command)
        }
    }
}

/// One command for a session.
#[derive(Clone, Debug)]
pub struct Line {
    /// What the shell evaluates; it may have several lines.
    pub text: String,
    /// How long it may take; none: for ever.
    pub timeout: Option<Duration>,
    /// How much of each stream is kept, in bytes: half of it the head, half the tail.
    pub max_output: usize,
}

impl Line {
    /// The command with the default bounds: 30 s, 10 MiB a stream.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            timeout: Some(Duration::from_secs(30)),
            max_output: 10 * 1024 * 1024,
        }
    }
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LineOutcome {
    /// How it ended.
    pub end: LineEnd,
    /// What it wrote to stdout.
    pub stdout: Kept,
    /// What it wrote to stderr.
    pub stderr: Kept,
    /// How long it took.
    pub took: Duration,
}

/// How a command of a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnd {
    /// With this status, as the shell counts: 128+n for one that died of signal n. The session goes on.
    Status(u8),
    /// It took too long: it was interrupted, and the shell ended with it. Directory, variables and functions are lost.
    TimedOut,
    /// It took too long and was interrupted, and the shell lived to say its status. The session goes on.
    Interrupted(u8),
    /// The shell itself ended, as `exit` and a failure under `set -e` make it. Directory, variables and functions are lost.
    ShellEnded(Exit),
}

impl LineEnd {
    /// Whether the next command runs in a new shell.
    pub fn lost_state(self) -> bool {
        !matches!(self, Self::Status(_) | Self::Interrupted(_))
    }
}

/// Why a command has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The line has a NUL byte, which no shell reads.
    #[error("cannot give a NUL byte to a shell")]
    Nul,
    /// The shell could not be started.
    #[error("cannot start the shell")]
    NotStarted(#[source] ExecError),
    /// The shell ended before it read a command.
    #[error("cannot use the shell: it ended at once{}", said(.stderr))]
    EndedAtOnce {
        /// How.
        exit: Exit,
        /// What it said.
        stderr: Vec<u8>,
    },
    /// The pipes to the shell failed.
    #[error("cannot talk to the shell")]
    Channel(#[from] io::Error),
}

/// A shell that stays.
///
/// It is started by the first command, or by [`Session::warm`]. Needs a tokio runtime with its I/O driver enabled.
#[derive(Debug)]
pub struct Session {
    handle: RuntimeHandle,
    spec: SessionSpec,
    shell: Option<Live>,
}

/// A shell that runs.
#[derive(Debug)]
struct Live {
    script: Script,
    status: Status,
    ticket: ExecTicket,
    interrupt: Signal,
    grace: Duration,
    /// Whether a command was given to it whose status nobody has read.
    is_busy: bool,
}

impl Session {
    /// A session of this runtime, without a shell yet.
    pub fn new(handle: RuntimeHandle, spec: SessionSpec) -> Self {
        Self {
            handle,
            spec,
            shell: None,
        }
    }

    /// Starts the shell, if there is none, and waits until it reads commands.
    pub async fn warm(&mut self) -> Result<(), SessionError> {
        self.shell().await.map(drop)
    }

    /// Runs a command, and waits for its result.
    ///
    /// If the future is dropped, the command is interrupted, and the next one runs in a new shell.
    pub async fn run(&mut self, line: &Line) -> Result<LineOutcome, SessionError> {
        if line.text.contains('\0') {
            return Err(SessionError::Nul);
        }
        let began = Instant::now();
        let mut exchange = Exchange {
            stdout: Stream::new(line.max_output)?,
            stderr: Stream::new(line.max_output)?,
            deadline: line.timeout.and_then(|timeout| began.checked_add(timeout)),
        };
        let script = exchange.script(&line.text);
        let mut said = self.give(&script, &mut exchange).await?;
        if said == Answer::NotHeard {
            // The shell had died before: this line has not begun.
            self.shell = None;
            said = self.give(&script, &mut exchange).await?;
        }
        let end = match said {
            Answer::Ended(end) => end,
            Answer::NotHeard => LineEnd::ShellEnded(Exit::Lost),
        };
        if end.lost_state() {
            self.shell = None;
        }
        Ok(LineOutcome {
            end,
            stdout: exchange.stdout.finish()?,
            stderr: exchange.stderr.finish()?,
            took: began.elapsed(),
        })
    }

    /// Gives a script to the shell. The start of that counts too: it may hang as long as a file system does.
    async fn give(
        &mut self,
        script: &[u8],
        exchange: &mut Exchange,
    ) -> Result<Answer, SessionError> {
        let shell = match exchange.deadline {
            Some(deadline) => match timeout_at(deadline, self.shell()).await {
                Ok(shell) => shell?,
                Err(_) => return Ok(Answer::Ended(LineEnd::TimedOut)),
            },
            None => self.shell().await?,
        };
        shell.converse(script, exchange).await
    }

    fn is_usable(&self) -> bool {
        let is_usable = |live: &Live| !live.is_busy && !live.status.is_closed();
        self.shell.as_ref().is_some_and(is_usable)
    }

    /// The shell: the one that is there, or a new one.
    async fn shell(&mut self) -> Result<&mut Live, SessionError> {
        if self.shell.as_ref().is_none_or(|live| live.is_busy) {
            self.shell = None;
            self.shell = Some(Live::start(&self.handle, &self.spec).await?);
        }
        Ok(self.shell.as_mut().expect("it was just put there"))
    }
}

impl Live {
    async fn start(handle: &RuntimeHandle, spec: &SessionSpec) -> Result<Self, SessionError> {
        let (script, theirs_script) = Script::new()?;
        let (status, theirs_status) = Status::new()?;
        let ticket =
            handle.begin_exec(spec.exec(theirs_script.as_raw_fd(), theirs_status.as_raw_fd()));
        let mut live = Self {
            script,
            status,
            ticket,
            interrupt: spec.interrupt,
            grace: spec.grace,
            is_busy: false,
        };
        live.script.write(b"echo 0 >&3\n").await?;
        let said = tokio::select! {
            said = live.status.read() => said?,
            ended = live.ticket.ended() => return Err(not_started(ended)),
        };
        // From here on only the shell holds its ends, so that its death can be seen.
        drop((theirs_script, theirs_status));
        match said {
            Said::Status(_) => Ok(live),
            Said::Nothing | Said::NotHeard => Err(not_started(live.ticket.ended().await)),
        }
    }

    async fn converse(
        &mut self,
        script: &[u8],
        exchange: &mut Exchange,
    ) -> Result<Answer, SessionError> {
        self.is_busy = true;
        let end = match self.say(script, exchange).await? {
            Spoken::InTime(Said::Status(status)) => LineEnd::Status(status),
            Spoken::InTime(Said::NotHeard) => return Ok(Answer::NotHeard),
            Spoken::InTime(Said::Nothing) => LineEnd::ShellEnded(self.end(exchange).await?),
            Spoken::Interrupted(Said::Status(status)) => LineEnd::Interrupted(status),
            Spoken::Interrupted(Said::Nothing | Said::NotHeard) => {
                self.end(exchange).await?;
                LineEnd::TimedOut
            }
            Spoken::Never => {
                self.ticket.signal(Signal::KILL);
                self.end(exchange).await?;
                LineEnd::TimedOut
            }
        };
        self.is_busy = false;
        Ok(Answer::Ended(end))
    }

    /// Gives the script to the shell and waits for its answer; when its time is over it is interrupted, and has the grace to
    /// answer yet.
    async fn say(&mut self, script: &[u8], exchange: &mut Exchange) -> io::Result<Spoken> {
        let Self {
            script: pipe,
            status,
            ticket,
            ..
        } = self;
        let answer = async {
            match pipe.write(script).await {
                Ok(()) => status.read().await,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Said::NotHeard),
                Err(error) => Err(error),
            }
        };
        tokio::pin!(answer);
        let soon = Instant::now() + PATIENCE;
        let soon = exchange
            .deadline
            .map_or(soon, |deadline| deadline.min(soon));
        if let Ok(said) = timeout_at(soon, &mut answer).await {
            return said.map(Spoken::InTime);
        }
        let pumped = async {
            tokio::select! {
                biased;
                said = &mut answer => said,
                never = exchange.stdout.pump() => match never? {},
                never = exchange.stderr.pump() => match never? {},
            }
        };
        tokio::pin!(pumped);
        let Some(deadline) = exchange.deadline else {
            return pumped.await.map(Spoken::InTime);
        };
        if let Ok(said) = timeout_at(deadline, &mut pumped).await {
            return said.map(Spoken::InTime);
        }
        ticket.signal(self.interrupt);
        // One that is stopped neither hears it nor ends.
        ticket.signal(Signal::CONT);
        match tokio::time::timeout(self.grace, pumped).await {
            Ok(said) => said.map(Spoken::Interrupted),
            Err(_) => Ok(Spoken::Never),
        }
    }

    /// Waits for the end of the shell and of all that it started.
    async fn end(&mut self, exchange: &mut Exchange) -> io::Result<Exit> {
        tokio::select! {
            biased;
            ended = self.ticket.ended() => Ok(ended.map_or(Exit::Lost, |outcome| outcome.exit)),
            never = exchange.stdout.pump() => match never? {},
            never = exchange.stderr.pump() => match never? {},
        }
    }
}

/// One command on its way.
struct Exchange {
    stdout: Stream,
    stderr: Stream,
    deadline: Option<Instant>,
}

/// What a shell said to a command, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoken {
    InTime(Said),
    /// After the command was interrupted.
    Interrupted(Said),
    /// Nothing, although it was interrupted.
    Never,
}

/// What came of giving a command to a shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Ended(LineEnd),
    /// Nothing of it was read: the shell was gone.
    NotHeard,
}

impl Exchange {
    /// What makes the shell run a line, its output to these pipes, and say how it ended.
    ///
    /// `command` keeps a syntax error from ending the shell, as it does in a special builtin (POSIX, 2.8.1), and finds the
    /// builtin `echo` whatever function has that name; the backslash keeps aliases away, and the quotes an odd `IFS`. The
    /// line's processes have no descriptor 3.
    fn script(&self, line: &str) -> Vec<u8> {
        let ours = std::process::id();
        let quoted = line.replace('\'', r"'\''");
        let (stdout, stderr) = (self.stdout.number(), self.stderr.number());
        format!(
            "\\command eval '{quoted}' </dev/null >/proc/{ours}/fd/{stdout} 2>/proc/{ours}/fd/{stderr} 3>&-;\\command echo \"$?\" >&3\n"
        )
        .into_bytes()
    }
}

fn not_started(ended: Result<ExecOutcome, ExecError>) -> SessionError {
    match ended {
        Err(error) => SessionError::NotStarted(error),
        Ok(outcome) => SessionError::EndedAtOnce {
            exit: outcome.exit,
            stderr: outcome.captured.stderr.to_bytes_marked(),
        },
    }
}

fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    match text.trim() {
        "" => String::new(),
        text => format!(": {text}"),
    }
}
