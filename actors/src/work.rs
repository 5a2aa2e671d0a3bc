//! What a child executes.

use std::sync::Arc;

use crate::policy::spec::{ChildName, CommandSpec, RunId};
use crate::tree::task::TaskBody;

/// A program, or a task of the program itself.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Command(Arc<CommandSpec>),
    Task(TaskBody),
}

/// Tells the program whose run it is, and which.
pub(crate) fn introduced(command: &CommandSpec, child: &ChildName, run: RunId) -> CommandSpec {
    let mut command = command.clone();
    let told = [
        ("KIMI_CHILD", child.as_str().to_owned()),
        ("KIMI_RUN_ID", run.to_string()),
    ];
    let told = told.map(|(name, value)| (name.into(), value.into()));
    // Last, so that it holds whatever else the environment says.
    command.env.extend(told);
    command
}

/// The command in the directory and environment of a host, and as whom and with what limits that runs, but for what it sets
/// itself.
pub(crate) fn within(command: &CommandSpec, host: &CommandSpec) -> CommandSpec {
    CommandSpec {
        cwd: command.cwd.clone().or_else(|| host.cwd.clone()),
        base_env: host.base_env,
        env: [host.env.as_slice(), &command.env].concat(),
        setup: command.setup.clone().or_else(|| host.setup.clone()),
        ..command.clone()
    }
}
