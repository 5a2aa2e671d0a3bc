//! `exec`: one command with bounds, that leaves nothing behind.
//!
//! Unless something is to be seen of its output, the command writes to our own stdout and stderr itself, as under
//! `timeout(1)`: nothing is copied, a slow reader slows the command, and one that goes away ends it by SIGPIPE. With a bound on
//! its output or its silence, what it writes goes through a relay, which behaves the same.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use kimi_actors::os::chunks::{Chunk, Chunks};
use kimi_actors::os::guardian::Ward;
use kimi_actors::os::stdin::Stdin;
use kimi_actors::os::{Captured, Kept, Stream, Survivor, signals};
use kimi_actors::policy::event::ShutdownReason;
use kimi_actors::policy::run::OnOutputLimit;
use kimi_actors::policy::spec::CommandSpec;
use kimi_actors::{
    Exec, ExecError, ExecOutcome, ExecOutput, ForceExitPolicy, How, Runtime, RuntimeHandle,
    SignalOptions, StartError, TimedOut,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use serde_json::Value;
use tokio::sync::{Notify, oneshot};

use crate::cli::contain::{self, ContainArgs};
use crate::cli::{Context, Error, out};
use crate::document::Source;
use crate::document::problem::Problems;
use crate::document::read::{self, ReadError};
use crate::env_file;
use crate::exec_result::{Asked, ExecResult};
use crate::exit_code;
use crate::quantity::{self, NotADuration, NotASize};
use crate::settings::{Children, Effective};

/// How long the end waits for a reader who is too slow, once the time is over or a signal came.
const LAST_WAIT: Duration = Duration::from_millis(250);

/// What `exec` takes.
#[derive(Clone, Debug, Args)]
pub struct ExecArgs {
    /// Stop it after this long, such as `90s`; `0`: never [default: the setting `children.default_timeout`, 30s]
    #[arg(long, value_name = "DURATION", value_parser = patience)]
    pub timeout: Option<Patience>,

    /// Stop it when it has written nothing for this long
    #[arg(long, value_name = "DURATION", value_parser = patience)]
    pub idle_timeout: Option<Patience>,

    /// Run it in this directory
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,

    /// Set a variable of its environment; may be given more than once
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<OsString>,

    /// Take variables from a file, before those of `-e`; may be given more than once
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,

    /// Pass our standard input on; otherwise it has none
    #[arg(long)]
    pub stdin: bool,

    /// Keep, or print, at most so much of each stream, such as `1MiB`: the first half and the last half
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_output: Option<u64>,

    /// What to do when it writes more
    #[arg(long, value_name = "ACTION", value_enum)]
    pub on_limit: Option<OnLimit>,

    /// Print one object that says what became of it, with its output, and nothing else
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub(super) contain: ContainArgs,

    /// Run this line by /bin/sh instead of a command
    #[arg(long, value_name = "LINE", conflicts_with = "command")]
    pub shell: Option<OsString>,

    /// The command and its arguments
    #[arg(
        value_name = "CMD",
        trailing_var_arg = true,
        required_unless_present = "shell"
    )]
    pub command: Vec<OsString>,
}

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// As long as it takes.
    Unlimited,
    /// So long.
    For(Duration),
}

impl Patience {
    fn limit(self) -> Option<Duration> {
        match self {
            Self::Unlimited => None,
            Self::For(limit) => Some(limit),
        }
    }
}

fn patience(text: &str) -> Result<Patience, NotADuration> {
    let duration = match text {
        "0" => Duration::ZERO,
        text => quantity::duration(text)?,
    };
    Ok(if duration.is_zero() {
        Patience::Unlimited
    } else {
        Patience::For(duration)
    })
}

fn size(text: &str) -> Result<u64, NotASize> {
    quantity::size(text)
}

/// What to do when a command writes too much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnLimit {
    /// Let it go on, and leave out the middle
    #[default]
    Truncate,
    /// Kill it
    Kill,
}

/// Why a command was not even asked for.
#[derive(Debug, thiserror::Error)]
pub enum ExecFailure {
    /// A variable on the command line is none. It is not shown, since it may be a secret.
    #[error("cannot set a variable: expected `-e NAME=VALUE`")]
    NotAVariable,
    /// A file of variables cannot be read.
    #[error("cannot read a file of variables")]
    UnreadableEnvFile(#[from] ReadError),
    /// A file of variables has a mistake.
    #[error("cannot understand a file of variables")]
    InvalidEnvFile(#[source] Problems),
    /// It did not run.
    #[error(transparent)]
    NotRun(ExecError),
    /// The runtime did not start.
    #[error(transparent)]
    Runtime(#[from] StartError),
    /// The async runtime, a thread or a pipe could not be had.
    #[error("cannot set up the command")]
    Setup(#[source] io::Error),
}

impl ExecFailure {
    /// The code that the program ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotAVariable | Self::InvalidEnvFile(_) => exit_code::USAGE,
            Self::Runtime(error) if contain::is_lacking(error) => exit_code::INVALID_CONFIGURATION,
            Self::NotRun(error) => exit_code::of_exec_error(error),
            Self::UnreadableEnvFile(_) | Self::Runtime(_) | Self::Setup(_) => {
                exit_code::EXEC_FAILED
            }
        }
    }
}

/// Runs the command and returns its exit code, or the one that says what became of it.
pub fn run(args: &ExecArgs, context: &Context, ward: Option<Ward>) -> Result<ExitCode, Error> {
    signals::normalise();
    let settings = Effective::load(&context.inputs)?.settings;
    let mut exec = Exec {
        timeout: limit(args, &settings.children),
        idle_timeout: args.idle_timeout.and_then(Patience::limit),
        grace: settings.children.grace,
        on_output_limit: match args.on_limit.unwrap_or_default() {
            OnLimit::Truncate => OnOutputLimit::Truncate,
            OnLimit::Kill => OnOutputLimit::Kill,
        },
        ..Exec::new(command(args)?)
    };
    if args.stdin {
        exec.stdin = stdin().map_err(ExecFailure::Setup)?;
    }
    let way = way(args, &settings.children, &mut exec);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(ExecFailure::Setup)?;
    let code = runtime.block_on(supervise(exec, way, args.contain, ward))?;
    Ok(ExitCode::from(code))
}

fn limit(args: &ExecArgs, settings: &Children) -> Option<Duration> {
    let default = Patience::For(settings.default_timeout);
    args.timeout.unwrap_or(default).limit()
}

fn command(args: &ExecArgs) -> Result<CommandSpec, ExecFailure> {
    let mut command = match (&args.shell, args.command.split_first()) {
        (Some(line), _) => CommandSpec::shell(line),
        (None, Some((program, rest))) => CommandSpec::new(program, rest),
        (None, None) => unreachable!("one of the two is required"),
    };
    command.cwd.clone_from(&args.cwd);
    for path in &args.env_file {
        command.env.extend(variables_of(path)?);
    }
    for given in &args.env {
        let variable = variable(given).ok_or(ExecFailure::NotAVariable)?;
        command.env.push(variable);
    }
    Ok(command)
}

fn variable(text: &OsStr) -> Option<(OsString, OsString)> {
    let bytes = text.as_bytes();
    let end = bytes.iter().position(|byte| *byte == b'=');
    let end = end.filter(|end| *end > 0)?;
    let owned = |bytes| OsStr::from_bytes(bytes).to_owned();
    Some((owned(&bytes[..end]), owned(&bytes[end + 1..])))
}

fn variables_of(path: &Path) -> Result<Vec<(OsString, OsString)>, ExecFailure> {
    let source = Arc::new(Source {
        name: path.display().to_string(),
        text: read::file(path)?,
    });
    let variables = env_file::parse(&source)
        .map_err(|problems| ExecFailure::InvalidEnvFile(Problems(problems)))?;
    let owned = |(name, value): (String, String)| (name.into(), value.into());
    Ok(variables.into_iter().map(owned).collect())
}

/// Ours; a terminal's by a pipe, since the command has no part in the terminal's job control.
fn stdin() -> io::Result<Stdin> {
    if !io::stdin().is_terminal() {
        return Ok(Stdin::inherited());
    }
    let (read, mut write) = io::pipe()?;
    // It ends with this process at the latest: nobody can interrupt who reads from a terminal.
    thread::Builder::new()
        .name("kimi-typed".into())
        .spawn(move || {
            signals::block_all();
            // An error is the end of either side.
            drop(io::copy(&mut io::stdin().lock(), &mut write));
        })?;
    Stdin::descriptor(read)
}

/// How what a command writes is shown.
enum Way {
    /// It writes to our own stdout and stderr.
    Itself,
    /// By a relay: so much of each stream as it comes, and what else was kept at the end.
    Relayed(Chunks, Option<u64>),
    /// In one object at the end.
    Object(Asked),
}

fn way(args: &ExecArgs, settings: &Children, exec: &mut Exec) -> Way {
    let default = settings.max_buffer_size;
    let asked = args.max_output.or(args.on_limit.map(|_| default));
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    if args.json {
        exec.max_output = bytes(asked.unwrap_or(default));
        Way::Object(Asked::new(Value::from(0), &exec.command))
    } else if asked.is_some() || exec.idle_timeout.is_some() {
        exec.max_output = bytes(asked.unwrap_or(0));
        Way::Relayed(exec.stream(), asked.map(|size| size / 2))
    } else {
        exec.output = ExecOutput::inherited();
        Way::Itself
    }
}

async fn supervise(
    exec: Exec,
    way: Way,
    contain: ContainArgs,
    ward: Option<Ward>,
) -> Result<u8, ExecFailure> {
    let tree = Runtime::builder()
        .containment(contain.rules())
        .signals(SignalOptions::default())
        .force_exit(ForceExitPolicy::ExitProcess)
        .ward(ward)
        .start_idle()
        .await?;
    let shown = show(&tree, exec, way).await;
    // A signal may lead it already; in any case nothing is left to be stopped.
    let report = tree.shutdown().await;
    let code = shown?;
    let unnamed = report.survivors.iter().filter(|(child, _)| child.is_none());
    let code = if unnamed.map(|(_, survivor)| talk_of(survivor)).count() > 0 && code == 0 {
        exit_code::FAILED
    } else {
        code
    };
    Ok(match report.reason {
        ShutdownReason::Signal(_) => exit_code::of_report(&report),
        ShutdownReason::Asked
        | ShutdownReason::AllEnded
        | ShutdownReason::Limit
        | ShutdownReason::Internal => code,
    })
}

/// Runs the command and shows what it wrote and how it ended.
async fn show(tree: &RuntimeHandle, exec: Exec, way: Way) -> Result<u8, ExecFailure> {
    match way {
        Way::Itself => ended(tree.exec(exec).await),
        Way::Relayed(chunks, at_once) => {
            let relay = Relay::start(chunks, at_once).map_err(ExecFailure::Setup)?;
            relayed(tree, exec, relay).await
        }
        Way::Object(asked) => {
            let result = tree.exec(exec).await;
            let code = exit_code::of_exec(&result);
            let text = serde_json::to_string(&ExecResult::new(&asked, &result));
            let text = text.map_err(io::Error::from).map_err(ExecFailure::Setup)?;
            let printed = on_a_thread(move || {
                // Nobody reads: then there is nobody to tell.
                drop(out::print(&format!("{text}\n")));
            });
            let printed = printed.map_err(ExecFailure::Setup)?;
            wait_for(printed, tree, is_hurried(&result)).await;
            Ok(code)
        }
    }
}

async fn relayed(tree: &RuntimeHandle, exec: Exec, relay: Relay) -> Result<u8, ExecFailure> {
    let mut ticket = tree.begin_exec(exec);
    let mut is_closed = false;
    let result = loop {
        tokio::select! {
            result = ticket.ended() => break result,
            () = relay.closed.notified(), if !is_closed => {
                is_closed = true;
                // What SIGPIPE does to one that writes there itself.
                ticket.cancel();
            }
        }
    };
    if let Ok(outcome) = &result {
        // It has ended if both streams were closed.
        drop(relay.rest.send(outcome.captured.clone()));
    }
    drop(relay.rest);
    wait_for(relay.printed, tree, is_hurried(&result)).await;
    match &result {
        Ok(outcome) if is_closed && outcome.how == How::Cancelled => Ok(exit_code::NO_READER),
        _ => ended(result),
    }
}

/// Says what is not to be seen from the code alone.
fn ended(result: Result<ExecOutcome, ExecError>) -> Result<u8, ExecFailure> {
    let code = exit_code::of_exec(&result);
    let outcome = result.map_err(ExecFailure::NotRun)?;
    let what = match outcome.how {
        How::TimedOut(TimedOut::Total) => Some("the command was stopped: its time was over"),
        How::TimedOut(TimedOut::Silence) => Some("the command was stopped: it wrote nothing"),
        How::OutputLimit => Some("the command was killed: it wrote too much"),
        How::Exited | How::Signaled | How::Cancelled => None,
    };
    if let Some(what) = what {
        let hint = if outcome.waited_for_input {
            "; it was waiting for input"
        } else {
            ""
        };
        out::talk(&format!("kimi-shell: {what}{hint}\n"));
    }
    for survivor in outcome.survivors {
        talk_of(&survivor);
    }
    Ok(code)
}

fn talk_of(survivor: &Survivor) {
    out::talk(&format!("kimi-shell: {survivor}\n"));
}

/// Whether nobody is to be waited for any more.
fn is_hurried(result: &Result<ExecOutcome, ExecError>) -> bool {
    match result {
        Ok(outcome) => outcome.timed_out(),
        Err(_) => true,
    }
}

/// Waits until everything is printed: as long as it takes, unless the time is over or a signal comes.
async fn wait_for(mut printed: oneshot::Receiver<()>, tree: &RuntimeHandle, is_hurried: bool) {
    if !is_hurried {
        tokio::select! {
            _ = &mut printed => return,
            _ = tree.wait() => {}
        }
    }
    drop(tokio::time::timeout(LAST_WAIT, printed).await);
}

/// Does something that may hang; what is returned is told when it is done. At the end of the process it is given up.
fn on_a_thread(run: impl FnOnce() + Send + 'static) -> io::Result<oneshot::Receiver<()>> {
    let (done, is_done) = oneshot::channel();
    thread::Builder::new()
        .name("kimi-relay".into())
        .spawn(move || {
            signals::block_all();
            run();
            let _nobody_waits = done.send(());
        })?;
    Ok(is_done)
}

/// Prints what a command writes, on a thread of its own.
struct Relay {
    /// Told when one of our streams is closed.
    closed: Arc<Notify>,
    /// Takes what was kept, at the end.
    rest: SyncSender<Captured>,
    printed: oneshot::Receiver<()>,
}

impl Relay {
    /// Prints so much of each stream as it comes.
    fn start(mut chunks: Chunks, at_once: Option<u64>) -> io::Result<Self> {
        let closed = Arc::new(Notify::new());
        let (rest, captured) = sync_channel::<Captured>(1);
        let mut ours = Printer {
            stdout: Outlet::new(io::stdout()),
            stderr: Outlet::new(io::stderr()),
            at_once,
            closed: Arc::clone(&closed),
        };
        let printed = on_a_thread(move || {
            while let Some(chunk) = chunks.blocking_next() {
                ours.chunk(&chunk);
            }
            if let Ok(captured) = captured.recv() {
                ours.rest(&captured);
            }
        })?;
        Ok(Self {
            closed,
            rest,
            printed,
        })
    }
}

struct Printer {
    stdout: Outlet<io::Stdout>,
    stderr: Outlet<io::Stderr>,
    /// So much of each stream is printed as it comes; none: all of it.
    at_once: Option<u64>,
    closed: Arc<Notify>,
}

impl Printer {
    fn chunk(&mut self, chunk: &Chunk) {
        let at_once = self.at_once.unwrap_or(u64::MAX);
        let is_read = match chunk.stream {
            Stream::Stdout => self.stdout.begin(&chunk.bytes, at_once) && is_read(&io::stdout()),
            Stream::Stderr => self.stderr.begin(&chunk.bytes, at_once) && is_read(&io::stderr()),
        };
        if !is_read {
            self.closed.notify_one();
        }
    }

    /// What was kept and is not printed yet.
    fn rest(&mut self, captured: &Captured) {
        if self.at_once.is_some() {
            self.stdout.end(&captured.stdout);
            self.stderr.end(&captured.stderr);
        }
    }
}

/// Whether somebody could read what is written there; of what is not written yet, writing does not tell.
fn is_read(stream: &impl AsFd) -> bool {
    let mut polled = [PollFd::new(stream, PollFlags::empty())];
    let asked = rustix::event::poll(&mut polled, Some(&Timespec::default()));
    asked.is_err() || !polled[0].revents().contains(PollFlags::ERR)
}

/// One of our streams, until it is closed.
struct Outlet<W> {
    stream: W,
    printed: u64,
    is_open: bool,
}

impl<W: Write> Outlet<W> {
    fn new(stream: W) -> Self {
        Self {
            stream,
            printed: 0,
            is_open: true,
        }
    }

    /// Prints what lies within the first so many bytes; whether somebody reads.
    fn begin(&mut self, bytes: &[u8], at_once: u64) -> bool {
        let left = at_once.saturating_sub(self.printed);
        let fits = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        self.write(&bytes[..fits]);
        self.printed += fits as u64;
        self.is_open
    }

    fn end(&mut self, kept: &Kept) {
        let bytes = kept.to_bytes_marked();
        // A character that the mark would have split may be printed already, in part.
        let printed = usize::try_from(self.printed).unwrap_or(usize::MAX);
        self.write(&bytes[printed.min(kept.head.len())..]);
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.is_open && !bytes.is_empty() {
            let written = self.stream.write_all(bytes);
            self.is_open = written.and_then(|()| self.stream.flush()).is_ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_printed_as_it_comes_and_the_tail_at_the_end() {
        let mut outlet = Outlet::new(Vec::new());
        assert!(outlet.begin(b"012", 5) && outlet.begin(b"3456789", 5));
        outlet.end(&Kept {
            head: b"01234".to_vec(),
            tail: b"789".to_vec(),
            bytes_total: 10,
        });
        assert_eq!(outlet.stream, b"01234\n[... 2 bytes dropped ...]\n789");
        let mut short = Outlet::new(Vec::new());
        assert!(short.begin(b"0123456", 5));
        short.end(&Kept {
            head: b"0123456".to_vec(),
            tail: Vec::new(),
            bytes_total: 7,
        });
        assert_eq!(short.stream, b"0123456");
    }

    #[test]
    fn nothing_and_zero_are_different_kinds_of_patience() {
        assert_eq!(patience("0"), Ok(Patience::Unlimited));
        assert_eq!(patience("0s"), Ok(Patience::Unlimited));
        assert_eq!(
            patience("1500ms"),
            Ok(Patience::For(Duration::from_millis(1500)))
        );
        for absurd in ["-1s", "5", "1000000d", "", "soon"] {
            assert!(patience(absurd).is_err(), "{absurd}");
        }
    }
}
