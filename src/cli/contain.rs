//! `--require-containment`: what must hold the processes of a run together.

use clap::{Args, ValueEnum};
use kimi_actors::StartError;
use kimi_actors::os::{ContainmentRules, RealOsError};
use kimi_actors::policy::spec::Containment;

/// What verbs take that start processes.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct ContainArgs {
    /// Contain processes by this or start nothing [default: the best that the machine has]
    #[arg(long, value_name = "HOW", value_enum)]
    pub require_containment: Option<How>,
}

/// What holds the processes of a run together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum How {
    /// A control group for each run
    Cgroup,
    /// A parent that adopts what a run leaves behind
    Subreaper,
    /// The session of each run
    Group,
}

impl ContainArgs {
    /// What the runtime is to keep to.
    pub fn rules(self) -> ContainmentRules {
        let require = self.require_containment.map(|how| match how {
            How::Cgroup => Containment::Cgroup,
            How::Subreaper => Containment::Subreaper,
            How::Group => Containment::Group,
        });
        ContainmentRules {
            require,
            ..ContainmentRules::default()
        }
    }
}

/// Whether nothing was started since the machine lacks what was insisted on.
pub(super) fn is_lacking(error: &StartError) -> bool {
    matches!(error, StartError::Os(RealOsError::Containment(_)))
}
