//! `start`: the foreground supervisor.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use kimi_actors::policy::spec::{ChildName, InvalidName};

use crate::cli::{Context, Error, FileArgs};

/// What `start` takes.
#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    #[command(flatten)]
    pub(super) file: FileArgs,

    /// Start all services, as without names
    #[arg(long, conflicts_with = "names")]
    pub all: bool,

    /// The services and tasks to start, with what they depend on
    #[arg(value_name = "NAME", value_parser = name)]
    pub names: Vec<ChildName>,

    /// How to show what happens
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    pub output: Option<StartOutput>,

    /// Stop everything when a service or task fails
    #[arg(long)]
    pub abort_on_failure: bool,
}

/// How `start` shows what happens; on a terminal, one line a child unless one of these is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StartOutput {
    /// One line for each change
    Plain,
    /// One JSON object for each event
    Ndjson,
}

fn name(text: &str) -> Result<ChildName, InvalidName> {
    ChildName::new(text)
}

/// Starts the tree and returns when it has ended.
pub fn run(_args: StartArgs, context: &Context) -> Result<ExitCode, Error> {
    // PLACEHOLDER: the foreground supervisor takes the place of this body.
    let _manifest = context.manifest()?;
    Err(Error::NotBuilt {
        what: "start the services",
    })
}
