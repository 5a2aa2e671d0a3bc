//! What is asked of the bridge.

use std::path::PathBuf;
use std::time::Duration;

use kimi_actors::Exec;
use kimi_actors::policy::spec::{BaseEnv, CommandSpec};
use kimi_shell::quantity;
use serde::Deserialize;
use serde_json::Value;

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
    /// The working directory.
    cwd: Option<PathBuf>,
    /// A text such as `10s`, or a number of seconds; 30 s if absent.
    timeout: Option<Value>,
}

impl Request {
    /// The command, with its bounds and little of our environment.
    pub(crate) fn exec(&self) -> Result<Exec, String> {
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
        if let Some(timeout) = &self.timeout {
            exec.timeout = Some(duration(timeout)?);
        }
        Ok(exec)
    }
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
