//! What a child executes.

use std::sync::Arc;

use crate::policy::spec::CommandSpec;
use crate::tree::task::TaskBody;

/// A program, or a task of the program itself.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Command(Arc<CommandSpec>),
    Task(TaskBody),
}
