//! What is asked of the bridge.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use kimi_actors::Exec;
use kimi_actors::policy::spec::{BaseEnv, CommandSpec};
use kimi_shell::quantity;
use serde::Deserialize;
use serde_json::Value;

/// What a command gets of our environment.
const ENVIRONMENT: [&str; 5] = ["PATH", "HOME", "USER", "LANG", "TZ"];

/// One line of the input.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// Given back with the result; the number of the line if absent.
    pub(crate) id: Option<Value>,
    /// A program and its arguments.
    pub(crate) command: Vec<String>,
    /// The working directory.
    pub(crate) cwd: Option<PathBuf>,
    /// A text such as `10s`, or a number of seconds; 30 s if absent.
    timeout: Option<Value>,
}

impl Request {
    /// The command, with its bounds and little of our environment.
    pub(crate) fn exec(&self) -> Result<Exec, String> {
        let (program, args) = self.command.split_first().ok_or("`command` is empty")?;
        let mut command = CommandSpec::new(program, args);
        command.cwd.clone_from(&self.cwd);
        command.base_env = BaseEnv::Empty;
        let inherited = |name: &&str| Some(((*name).into(), env::var_os(name)?));
        command.env = ENVIRONMENT.iter().filter_map(inherited).collect();
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
