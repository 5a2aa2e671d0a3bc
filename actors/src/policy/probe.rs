//! What probes ask, and how often.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::spec::CommandSpec;

/// The probes of a child.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Probes {
    /// Says when the child is ready; without it, running is ready.
    pub readiness: Option<Probe>,
    /// Says whether the child still lives; its failure restarts the child.
    pub liveness: Option<Probe>,
}

/// A question and its rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// What is asked.
    pub check: Check,
    /// How often, and what the answers mean.
    pub rules: ProbeRules,
}

/// How a probe is repeated, and how many answers in a row make a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeRules {
    /// From the end of one check to the beginning of the next.
    pub interval: Duration,
    /// How long one check may take; one that takes longer has failed.
    pub timeout: Duration,
    /// How long after the start of the run the first check is made.
    pub initial_delay: Duration,
    /// How many failures in a row make it fail; at least 1.
    pub failure_threshold: u32,
    /// How many successes in a row make it succeed; at least 1.
    pub success_threshold: u32,
}

impl Default for ProbeRules {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            initial_delay: Duration::ZERO,
            failure_threshold: 3,
            success_threshold: 1,
        }
    }
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Check {
    /// A connection is accepted.
    Tcp {
        /// A name or an address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A GET is answered with a status from 200 to 299. Redirects are not followed and the body is not read.
    Http {
        /// A name or an address, without brackets.
        host: String,
        /// The port.
        port: u16,
        /// The path with its query, beginning with `/`.
        path: String,
    },
    /// A command ends with 0.
    Exec(CommandSpec),
    /// A line of the output matches this regular expression. Once matched, it stays so for the run.
    Log {
        /// The expression.
        pattern: String,
    },
    /// The run writes a newline to this descriptor, which it inherits (s6's notification descriptor).
    NotifyFd {
        /// Its number in the run, from 3.
        fd: u32,
    },
    /// The run sends `READY=1` to the socket that `NOTIFY_SOCKET` names (`sd_notify(3)`).
    SdNotify,
}
