//! The result of a one-shot command as data, the same for the command line, the bridge and the API.

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use kimi_actors::os::{Drained, Kept, Survivor};
use kimi_actors::policy::exit::Exit;
use kimi_actors::policy::spec::CommandSpec;
use kimi_actors::{ExecError, ExecOutcome, How, TimedOut};
use serde::Serialize;
use serde_json::Value;

use crate::wall_time::rfc3339;

/// Which shape this is.
const SCHEMA_VERSION: u32 = 1;

/// What was asked for, as the result repeats it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Names the command to whoever asked.
    pub id: Value,
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// The working directory.
    pub cwd: PathBuf,
}

impl Asked {
    /// Of a command that is to be run.
    pub fn new(id: Value, command: &CommandSpec) -> Self {
        let program = std::iter::once(&command.program);
        // One that has gone is named where the command could not start.
        let here = std::env::current_dir().unwrap_or_default();
        Self {
            id,
            argv: program.chain(&command.args).cloned().collect(),
            cwd: match &command.cwd {
                Some(cwd) => here.join(cwd),
                None => here,
            },
        }
    }
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExecResult {
    /// Which shape this is.
    pub schema_version: u32,
    /// As it was asked for.
    pub id: Value,
    /// The program and its arguments; what is no text is shown with marks in it.
    pub argv: Vec<String>,
    /// The working directory.
    pub cwd: String,
    /// The process, if there was one.
    pub pid: Option<u32>,
    /// When that began, by RFC 3339.
    pub started_at: Option<String>,
    /// From its place to this result.
    pub duration_ms: u64,
    /// How long it waited for its place.
    pub queue_ms: u64,
    /// What brought its end about.
    pub outcome: OutcomeWord,
    /// Its exit code, if it had one.
    pub exit_code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<String>,
    /// What it wrote to stdout.
    pub stdout: StreamResult,
    /// What it wrote to stderr.
    pub stderr: StreamResult,
    /// When something came last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_output_at: Option<String>,
    /// Why reading ended.
    pub drained: Option<DrainedWord>,
    /// Processes that it left behind and that could not be killed.
    pub escaped: Vec<Escaped>,
    /// Processes that it left behind and that were killed.
    pub killed: Vec<u32>,
    /// The largest resident memory of any of its processes, in bytes, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rss: Option<u64>,
    /// Processor time.
    pub cpu_ms: u64,
    /// The kernel killed a process of it for lack of memory.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub oom_killed: bool,
    /// Which time was over, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<TimeoutWord>,
    /// What may have been the matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Why it did not run, or why nothing is known of its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A process that could not be killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Escaped {
    /// The process.
    pub pid: u32,
    /// What it executes, without arguments.
    pub command: String,
    /// How it got away: `unkillable`, `own_session` or `unattributed`.
    pub how: &'static str,
}

impl Escaped {
    fn new(survivor: &Survivor) -> Self {
        Self {
            pid: survivor.pid,
            command: survivor.command.clone(),
            how: survivor.escaped.as_str(),
        }
    }
}

/// What brought the end of a command about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeWord {
    /// It ended by itself.
    Exited,
    /// A signal ended it that was not ours.
    Signaled,
    /// Its time was over.
    TimedOut,
    /// It wrote more than it may.
    OutputLimit,
    /// It could not be started.
    SpawnFailed,
    /// It was not wanted any more.
    Cancelled,
    /// It was not admitted.
    Rejected,
}

/// Which time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeoutWord {
    /// That of the whole command.
    Total,
    /// That without output.
    Idle,
}

/// Why reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainedWord {
    /// Every writer had closed it.
    Eof,
    /// The command was gone and nothing came any more.
    Idle,
    /// The command was gone and it did not stop coming.
    Deadline,
}

/// What was kept of a stream: the head and the tail, with a line between them that says how much is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StreamResult {
    /// If it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// If it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// How much was written.
    pub bytes_total: u64,
    /// How much of that is here.
    pub bytes_kept: u64,
    /// Whether something is missing.
    pub truncated: bool,
}

impl StreamResult {
    /// Of what was kept.
    pub fn new(kept: &Kept) -> Self {
        let (text, base64) = match String::from_utf8(kept.to_bytes_marked()) {
            Ok(text) => (Some(text), None),
            Err(error) => (None, Some(base64(error.as_bytes()))),
        };
        Self {
            text,
            base64,
            bytes_total: kept.bytes_total,
            bytes_kept: kept.bytes_kept(),
            truncated: kept.truncated(),
        }
    }

    fn empty() -> Self {
        Self::new(&Kept::default())
    }
}

impl ExecResult {
    /// Of a command that was asked for.
    pub fn new(asked: &Asked, result: &Result<ExecOutcome, ExecError>) -> Self {
        let nothing = Self::nothing(asked);
        match result {
            Ok(outcome) => nothing.ended(outcome),
            Err(error) => Self {
                outcome: OutcomeWord::of_error(error),
                timeout: matches!(error, ExecError::TimedOut).then_some(TimeoutWord::Total),
                error: Some(with_causes(error)),
                ..nothing
            },
        }
    }

    fn nothing(asked: &Asked) -> Self {
        let text = |text: &OsString| text.to_string_lossy().into_owned();
        Self {
            schema_version: SCHEMA_VERSION,
            id: asked.id.clone(),
            argv: asked.argv.iter().map(text).collect(),
            cwd: asked.cwd.to_string_lossy().into_owned(),
            pid: None,
            started_at: None,
            duration_ms: 0,
            queue_ms: 0,
            outcome: OutcomeWord::Rejected,
            exit_code: None,
            signal: None,
            stdout: StreamResult::empty(),
            stderr: StreamResult::empty(),
            last_output_at: None,
            drained: None,
            escaped: Vec::new(),
            killed: Vec::new(),
            max_rss: None,
            cpu_ms: 0,
            oom_killed: false,
            timeout: None,
            hint: None,
            error: None,
        }
    }

    fn ended(self, outcome: &ExecOutcome) -> Self {
        let (exit_code, signal, error) = match outcome.exit {
            Exit::Code(code) => (Some(code), None, None),
            Exit::Signal { signal, core: _ } => (None, Some(signal.to_string()), None),
            Exit::Lost | Exit::NotStarted(_) => {
                let error = "its end was taken note of by somebody else in this process";
                (None, None, Some(error.to_owned()))
            }
        };
        let captured = &outcome.captured;
        let at = |after: Duration| rfc3339(outcome.started_at + after);
        let hint = "it was waiting for input";
        Self {
            pid: Some(outcome.pid),
            started_at: Some(rfc3339(outcome.started_at)),
            duration_ms: milliseconds(outcome.timing.ran),
            queue_ms: milliseconds(outcome.timing.queued),
            outcome: OutcomeWord::of_end(outcome.how),
            exit_code,
            signal,
            stdout: StreamResult::new(&captured.stdout),
            stderr: StreamResult::new(&captured.stderr),
            last_output_at: captured.last_output.map(at),
            drained: Some(DrainedWord::new(captured.drained)),
            escaped: outcome.survivors.iter().map(Escaped::new).collect(),
            killed: outcome.killed.clone(),
            max_rss: outcome.max_rss,
            cpu_ms: milliseconds(outcome.cpu),
            oom_killed: outcome.oom,
            timeout: TimeoutWord::new(outcome.how),
            hint: outcome.waited_for_input.then(|| hint.to_owned()),
            error,
            ..self
        }
    }
}

impl OutcomeWord {
    fn of_end(how: How) -> Self {
        match how {
            How::Exited => Self::Exited,
            How::Signaled => Self::Signaled,
            How::TimedOut(_) => Self::TimedOut,
            How::OutputLimit => Self::OutputLimit,
            How::Cancelled => Self::Cancelled,
        }
    }

    fn of_error(error: &ExecError) -> Self {
        match error {
            ExecError::Rejected(_) => Self::Rejected,
            ExecError::NotStarted(_) => Self::SpawnFailed,
            ExecError::TimedOut => Self::TimedOut,
            // Of one that was lost as of one whose runtime has ended: what was left of it was killed.
            ExecError::Cancelled | ExecError::Lost | ExecError::Ended => Self::Cancelled,
        }
    }
}

impl TimeoutWord {
    fn new(how: How) -> Option<Self> {
        match how {
            How::TimedOut(TimedOut::Total) => Some(Self::Total),
            How::TimedOut(TimedOut::Silence) => Some(Self::Idle),
            How::Exited | How::Signaled | How::OutputLimit | How::Cancelled => None,
        }
    }
}

impl DrainedWord {
    fn new(drained: Drained) -> Self {
        match drained {
            Drained::Eof => Self::Eof,
            Drained::Idle => Self::Idle,
            Drained::Deadline => Self::Deadline,
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An error and its causes, on one line.
pub fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() {
                letter.into()
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_comes_as_base64() {
        for (bytes, expected) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foobar", "Zm9vYmFy"),
            (&[0xfb, 0xff, 0xfe], "+//+"),
        ] {
            assert_eq!(base64(bytes), expected);
        }
        let kept = |head: &[u8]| Kept {
            head: head.to_vec(),
            tail: Vec::new(),
            bytes_total: head.len() as u64,
        };
        let junk = StreamResult::new(&kept(&[0xff, 0]));
        assert_eq!((junk.text, junk.base64.as_deref()), (None, Some("/wA=")));
        let text = StreamResult::new(&kept("ä".as_bytes()));
        assert_eq!((text.text.as_deref(), text.base64), (Some("ä"), None));
    }
}
