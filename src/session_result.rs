//! The result of a command of a warm shell as data, the same for the command line and the bridge.

use kimi_actors::policy::exit::Exit;
use kimi_actors::session::{LineEnd, LineOutcome, SessionError};
use serde::Serialize;
use serde_json::Value;

use crate::exec_result::{StreamResult, with_causes};

/// Which shape this is.
const SCHEMA_VERSION: u32 = 1;

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LineResult {
    /// Which shape this is.
    pub schema_version: u32,
    /// As it was asked for.
    pub id: Value,
    /// What brought its end about.
    pub outcome: LineWord,
    /// Its status, as the shell counts; the shell's own code if that ended.
    pub exit_code: Option<i32>,
    /// The signal that ended the shell, if one did.
    pub signal: Option<String>,
    /// What it wrote to stdout.
    pub stdout: StreamResult,
    /// What it wrote to stderr.
    pub stderr: StreamResult,
    /// From its being asked for to its result.
    pub duration_ms: u64,
    /// Whether directory, variables and functions are still there for the next command.
    pub state: StateWord,
    /// Why it did not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What brought the end of a command about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LineWord {
    /// It ended by itself.
    Exited,
    /// Its time was over: it was interrupted, and mostly the shell ended with it.
    TimedOut,
    /// The shell ended.
    ShellEnded,
    /// The shell could not be started, or not be talked to.
    SpawnFailed,
    /// It is nothing that a shell can be given.
    Rejected,
}

/// What became of the session's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StateWord {
    /// The next command finds it.
    Kept,
    /// The next command runs in a new shell.
    Lost,
}

impl LineResult {
    /// Of a command that was given to a session.
    pub fn new(id: Value, result: &Result<LineOutcome, SessionError>) -> Self {
        match result {
            Ok(outcome) => Self::ended(id, outcome),
            Err(error) => {
                let is_rejected = matches!(error, SessionError::Nul);
                Self {
                    outcome: if is_rejected {
                        LineWord::Rejected
                    } else {
                        LineWord::SpawnFailed
                    },
                    state: if is_rejected {
                        StateWord::Kept
                    } else {
                        StateWord::Lost
                    },
                    error: Some(with_causes(error)),
                    ..Self::nothing(id)
                }
            }
        }
    }

    fn nothing(id: Value) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            id,
            outcome: LineWord::Exited,
            exit_code: None,
            signal: None,
            stdout: StreamResult::default(),
            stderr: StreamResult::default(),
            duration_ms: 0,
            state: StateWord::Kept,
            error: None,
        }
    }

    fn ended(id: Value, outcome: &LineOutcome) -> Self {
        let (word, exit_code, signal) = match outcome.end {
            LineEnd::Status(status) => (LineWord::Exited, Some(i32::from(status)), None),
            LineEnd::TimedOut => (LineWord::TimedOut, None, None),
            LineEnd::Interrupted(status) => (LineWord::TimedOut, Some(i32::from(status)), None),
            LineEnd::ShellEnded(Exit::Code(code)) => (LineWord::ShellEnded, Some(code), None),
            LineEnd::ShellEnded(Exit::Signal { signal, core: _ }) => {
                (LineWord::ShellEnded, None, Some(signal.to_string()))
            }
            LineEnd::ShellEnded(Exit::Lost | Exit::NotStarted(_)) => {
                (LineWord::ShellEnded, None, None)
            }
        };
        Self {
            outcome: word,
            exit_code,
            signal,
            stdout: StreamResult::new(&outcome.stdout),
            stderr: StreamResult::new(&outcome.stderr),
            duration_ms: u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX),
            state: if outcome.end.lost_state() {
                StateWord::Lost
            } else {
                StateWord::Kept
            },
            ..Self::nothing(id)
        }
    }
}
