//! What the bridge answers.

use std::error::Error;
use std::iter;
use std::time::Duration;

use kimi_actors::os::{Drained, Kept};
use kimi_actors::policy::exit::Exit;
use kimi_actors::{ExecError, ExecOutcome, RuntimeHandle};
use serde_json::{Value, json};

use crate::request::Request;

/// Runs what a line asks for. A line that cannot be understood is answered too.
pub(crate) async fn answer(tree: &RuntimeHandle, line: &[u8], number: u64) -> Value {
    let request: Request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => return json!({ "line": number, "error": format!("not a request: {error}") }),
    };
    let mut result = match request.exec() {
        Ok(exec) => match tree.exec(exec).await {
            Ok(outcome) => ended(&outcome),
            Err(error) => did_not_run(&error),
        },
        Err(error) => json!({ "outcome": "rejected", "error": error }),
    };
    result["id"] = request.id.unwrap_or_else(|| json!(number));
    result["argv"] = json!(request.command);
    result["cwd"] = json!(request.cwd);
    result
}

fn ended(outcome: &ExecOutcome) -> Value {
    let (how, exit_code, signal) = match outcome.exit {
        Exit::Code(code) => ("exited", Some(code), None),
        Exit::Signal { signal, .. } => ("signaled", None, Some(signal.to_string())),
        Exit::Lost | Exit::NotStarted(_) => ("lost", None, None),
    };
    json!({
        "outcome": if outcome.timed_out { "timed_out" } else { how },
        "exit_code": exit_code,
        "signal": signal,
        "stdout": stream(&outcome.captured.stdout),
        "stderr": stream(&outcome.captured.stderr),
        "drained": match outcome.captured.drained {
            Drained::Eof => "eof",
            Drained::Idle => "idle",
            Drained::Deadline => "deadline",
        },
        "killed": outcome.killed,
        "escaped": outcome.survivors,
        "duration_ms": milliseconds(outcome.timing.ran),
        "queue_ms": milliseconds(outcome.timing.queued),
        "cpu_ms": milliseconds(outcome.cpu),
    })
}

fn stream(kept: &Kept) -> Value {
    json!({
        "text": String::from_utf8_lossy(&kept.to_bytes_marked()),
        "bytes_total": kept.bytes_total,
        "bytes_kept": kept.bytes_kept(),
        "truncated": kept.truncated(),
    })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn did_not_run(error: &ExecError) -> Value {
    let outcome = match error {
        ExecError::Rejected(_) => "rejected",
        ExecError::NotStarted(_) => "spawn_failed",
        ExecError::Ended => "cancelled",
        ExecError::Lost => "lost",
    };
    let causes = iter::successors(Some(error as &dyn Error), |error| (*error).source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    json!({ "outcome": outcome, "error": causes.join(": ") })
}
