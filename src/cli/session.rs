//! `session`: commands from standard input, run one after another in one shell that stays.

use std::ffi::OsString;
use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Args;
use kimi_actors::os::guardian::Ward;
use kimi_actors::os::signals;
use kimi_actors::policy::signal::Signal;
use kimi_actors::session::{Line, LineEnd, LineOutcome, Session, SessionError, SessionSpec, Shell};
use kimi_actors::{ForceExitPolicy, Runtime, RuntimeHandle, SignalOptions, StartError};
use serde_json::json;
use tokio::sync::mpsc;

use crate::cli::contain::{self, ContainArgs};
use crate::cli::{Error, out};
use crate::exit_code;
use crate::quantity;
use crate::session_result::LineResult;

/// A command that is longer than so many bytes is refused, and the session ends.
const LONGEST_COMMAND: u64 = 16 << 20;

/// What `session` takes.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Directory, variables and functions stay from one command to the next. A command that overruns is \
                  interrupted, and its shell replaced unless it outlives that; a shell that ends is replaced too. \
                  Exit code: that of the last command, 124 if it overran."
)]
pub struct SessionArgs {
    /// Use bash instead of sh
    #[arg(long)]
    pub bash: bool,

    /// How long each command may take, such as `30s`; `0s`: for ever
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    pub timeout: Duration,

    /// How much of each stream is kept of each command, such as `10MiB`
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "10MiB")]
    pub max_output: usize,

    #[command(flatten)]
    pub(super) contain: ContainArgs,

    /// Where the shell starts
    #[arg(long, value_name = "DIRECTORY")]
    pub cwd: Option<PathBuf>,

    /// Set a variable in the shell's environment; may be given more than once
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = variable)]
    pub env: Vec<(OsString, OsString)>,

    /// Commands end with a NUL byte, not with the line, so that one may have several lines
    #[arg(short = '0', long)]
    pub null: bool,

    /// Print one JSON object for each command, with its status and both streams
    #[arg(long)]
    pub json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    quantity::duration(text).map_err(|error| error.to_string())
}

fn size(text: &str) -> Result<usize, String> {
    let bytes = quantity::size(text).map_err(|error| error.to_string())?;
    usize::try_from(bytes).map_err(|_| format!("`{text}` is more than there can be"))
}

fn variable(text: &str) -> Result<(OsString, OsString), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        // The value may be a secret: the name alone is shown.
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionVerbError {
    /// The async runtime could not be made.
    #[error("cannot set up the session")]
    Setup(#[source] io::Error),
    /// Nor ours.
    #[error("cannot set up the session")]
    Runtime(#[from] StartError),
    /// The shell could not be started, or not be talked to.
    #[error("cannot run a command")]
    Session(#[from] SessionError),
    /// Standard input cannot be read.
    #[error("cannot read commands from standard input")]
    Input(#[source] io::Error),
    /// A command is too long.
    #[error("cannot take a command of more than {} bytes", LONGEST_COMMAND)]
    TooLong,
}

impl SessionVerbError {
    /// The code that the program ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Runtime(error) if contain::is_lacking(error) => exit_code::INVALID_CONFIGURATION,
            Self::Setup(_)
            | Self::Runtime(_)
            | Self::Session(_)
            | Self::Input(_)
            | Self::TooLong => exit_code::EXEC_FAILED,
        }
    }
}

/// Runs the commands until the input ends, or a signal comes.
pub fn run(args: &SessionArgs, ward: Option<Ward>) -> Result<ExitCode, Error> {
    signals::normalise();
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(SessionVerbError::Setup)?;
    tokio.block_on(converse(args, ward))
}

async fn converse(args: &SessionArgs, ward: Option<Ward>) -> Result<ExitCode, Error> {
    let handle = Runtime::builder()
        .containment(args.contain.rules())
        .signals(SignalOptions::default())
        .force_exit(ForceExitPolicy::ExitProcess)
        .ward(ward)
        .start()
        .await
        .map_err(SessionVerbError::Runtime)?;
    // A plain thread reads, so that a silent stdin holds up neither a signal nor the end.
    let (commands, mut to_run) = mpsc::channel(1);
    let separator = if args.null { b'\0' } else { b'\n' };
    thread::spawn(move || read(separator, &commands));
    let mut session = Session::new(handle.clone(), spec(args));
    let ended = tokio::select! {
        ended = run_all(args, &mut session, &mut to_run) => Some(ended),
        _ = handle.wait() => None,
    };
    drop(session);
    let report = finish(&handle).await;
    match ended {
        Some(code) if report == exit_code::DONE => Ok(ExitCode::from(code?)),
        Some(_) | None => Ok(ExitCode::from(report)),
    }
}

/// Ends everything; the code says whether that was asked for by a signal, and whether something is left.
async fn finish(handle: &RuntimeHandle) -> u8 {
    exit_code::of_report(&handle.shutdown().await)
}

fn spec(args: &SessionArgs) -> SessionSpec {
    SessionSpec {
        shell: if args.bash { Shell::Bash } else { Shell::Sh },
        cwd: args.cwd.clone(),
        env: args.env.clone(),
        ..SessionSpec::default()
    }
}

/// Runs one command after another; returns the code of the last.
async fn run_all(
    args: &SessionArgs,
    session: &mut Session,
    to_run: &mut mpsc::Receiver<Result<String, SessionVerbError>>,
) -> Result<u8, Error> {
    let mut code = exit_code::DONE;
    let mut number = 0_u64;
    while let Some(text) = to_run.recv().await {
        number += 1;
        let line = Line {
            text: text?,
            timeout: (!args.timeout.is_zero()).then_some(args.timeout),
            max_output: args.max_output,
        };
        let result = session.run(&line).await;
        code = code_of(&result);
        if args.json {
            let result = LineResult::new(json!(number), &result);
            // Text, numbers and booleans: nothing in it can fail to be JSON.
            let object = serde_json::to_string(&result)?;
            out::print(&format!("{object}\n")).map_err(Error::Output)?;
        } else {
            show(args, &result.map_err(SessionVerbError::Session)?)?;
        }
    }
    Ok(code)
}

fn show(args: &SessionArgs, outcome: &LineOutcome) -> Result<(), Error> {
    let write =
        |mut to: Box<dyn Write>, bytes: &[u8]| to.write_all(bytes).and_then(|()| to.flush());
    let stdout = write(Box::new(io::stdout()), &outcome.stdout.to_bytes_marked());
    let stderr = write(Box::new(io::stderr()), &outcome.stderr.to_bytes_marked());
    out::unless_closed(stdout.and(stderr)).map_err(Error::Output)?;
    let lost = "directory, variables and functions are lost";
    match outcome.end {
        LineEnd::Status(_) => {}
        LineEnd::TimedOut => {
            let timeout = quantity::duration_text(args.timeout);
            out::talk(&format!("kimi-shell: timed out after {timeout}; {lost}\n"));
        }
        LineEnd::Interrupted(_) => {
            let timeout = quantity::duration_text(args.timeout);
            out::talk(&format!(
                "kimi-shell: timed out after {timeout}; the shell goes on\n"
            ));
        }
        LineEnd::ShellEnded(_) => out::talk(&format!("kimi-shell: the shell ended; {lost}\n")),
    }
    Ok(())
}

/// As for a command of `exec`.
fn code_of(result: &Result<LineOutcome, SessionError>) -> u8 {
    use kimi_actors::policy::exit::Exit;
    let signal = |signal: Signal| {
        u8::try_from(signal.number()).map_or(exit_code::FAILED, |n| exit_code::SIGNAL_BASE + n)
    };
    match result.as_ref().map(|outcome| outcome.end) {
        Ok(LineEnd::Status(status)) => status,
        Ok(LineEnd::TimedOut | LineEnd::Interrupted(_)) => exit_code::TIMED_OUT,
        Ok(LineEnd::ShellEnded(Exit::Code(code))) => {
            u8::try_from(code).unwrap_or(exit_code::FAILED)
        }
        Ok(LineEnd::ShellEnded(Exit::Signal { signal: by, .. })) => signal(by),
        Ok(LineEnd::ShellEnded(Exit::Lost | Exit::NotStarted(_))) | Err(_) => {
            exit_code::EXEC_FAILED
        }
    }
}

/// Reads commands until the end, or until nobody wants them.
fn read(separator: u8, commands: &mpsc::Sender<Result<String, SessionVerbError>>) {
    let mut input = io::stdin().lock();
    loop {
        let mut bytes = Vec::new();
        let read = (&mut input)
            .take(LONGEST_COMMAND + 1)
            .read_until(separator, &mut bytes);
        let is_too_long = bytes.len() as u64 > LONGEST_COMMAND;
        if bytes.last() == Some(&separator) {
            bytes.pop();
        }
        let command = match read {
            Ok(0) => return,
            Ok(_) if is_too_long => Err(SessionVerbError::TooLong),
            Ok(_) => String::from_utf8(bytes).map_err(|error| {
                SessionVerbError::Input(io::Error::new(io::ErrorKind::InvalidData, error))
            }),
            Err(error) => Err(SessionVerbError::Input(error)),
        };
        let is_last = command.is_err();
        if commands.blocking_send(command).is_err() || is_last {
            return;
        }
    }
}
