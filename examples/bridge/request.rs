//! What is asked of the bridge.

use std::io::{self, BufRead, Read};
use std::path::PathBuf;
use std::time::Duration;

use kimi_actors::Exec;
use kimi_actors::policy::spec::{BaseEnv, CommandSpec};
use kimi_actors::session::Line;
use kimi_shell::quantity;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;

/// A line that is longer than so many bytes is the last that is read.
const LONGEST_LINE: u64 = 1 << 20;

/// One line of the input.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// Given back with the result; the number of the line if absent.
    pub(crate) id: Option<Value>,
    /// A program and its arguments.
    command: Option<Vec<String>>,
    /// A line for the shell, instead.
    shell: Option<String>,
    /// The name of the shell that stays and runs it, for a line.
    session: Option<String>,
    /// The working directory.
    cwd: Option<PathBuf>,
    /// A text such as `10s`, or a number of seconds; 30 s if absent.
    timeout: Option<Value>,
}

impl Request {
    /// What is to be done, within its bounds and with little of our environment.
    pub(crate) fn work(&self) -> Result<Work, String> {
        let timeout = self.timeout.as_ref().map(duration).transpose()?;
        if let Some(name) = &self.session {
            let (Some(text), None, None) = (&self.shell, &self.command, &self.cwd) else {
                return Err(
                    "expected `shell` beside `session`, and neither `command` nor `cwd`".to_owned(),
                );
            };
            let mut line = Line::new(text);
            line.timeout = timeout.or(line.timeout);
            return Ok(Work::Session(name.clone(), line));
        }
        let mut command = match (&self.command, &self.shell) {
            (Some(words), None) => {
                let (program, args) = words.split_first().ok_or("`command` is empty")?;
                CommandSpec::new(program, args)
            }
            (None, Some(line)) => CommandSpec::shell(line),
            _ => return Err("expected either `command` or `shell`".to_owned()),
        };
        command.cwd.clone_from(&self.cwd);
        command.base_env = BaseEnv::Minimal;
        let mut exec = Exec::new(command);
        exec.timeout = timeout.or(exec.timeout);
        Ok(Work::Exec(exec))
    }
}

/// What a request asks for.
pub(crate) enum Work {
    /// A command of its own.
    Exec(Exec),
    /// A line for the shell of this name.
    Session(String, Line),
}

fn duration(value: &Value) -> Result<Duration, String> {
    if let Some(text) = value.as_str() {
        return quantity::duration(text).map_err(|error| error.to_string());
    }
    let seconds = value
        .as_f64()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds
        .ok_or_else(|| format!("`timeout` is {value}; expected seconds, or text such as \"10s\""))
}

/// Reads requests until the end, or until nobody wants them.
pub(crate) fn read(lines: &mpsc::Sender<Vec<u8>>) {
    let mut input = io::stdin().lock();
    loop {
        let mut line = Vec::new();
        let read = (&mut input)
            .take(LONGEST_LINE + 1)
            .read_until(b'\n', &mut line);
        let is_last = line.len() as u64 > LONGEST_LINE;
        if !matches!(read, Ok(1..)) || lines.blocking_send(line).is_err() || is_last {
            return;
        }
    }
}
