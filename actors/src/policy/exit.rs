//! How a run ended, and what counts as success.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::policy::signal::Signal;

/// How a run ended. `128 + n` is made only at the command line's edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Exit {
    /// It ended by itself with this code. A task of the program itself that returned an error has 1, one that panicked 101.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// Which one.
        signal: Signal,
        /// Whether it left a core dump.
        core: bool,
    },
    /// Nothing is known: our own actor, or another reaper in this process, was faster.
    Lost,
    /// It never ran.
    NotStarted(StartFailure),
}

/// Why a run never ran; a plain kind, so that the policy need not know the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StartFailure {
    /// The program, its interpreter or its working directory does not exist.
    NotFound,
    /// It exists and must not be executed.
    NotExecutable,
    /// The kernel does not know its format.
    BadFormat,
    /// The machine is short of processes, memory or descriptors (EAGAIN, ENOMEM, EMFILE, ENFILE): later may be better.
    Exhausted,
    /// It did not become ready in its start timeout.
    NotReady,
    /// Anything else.
    Other,
}

impl StartFailure {
    /// Whether trying again cannot help before somebody changes something.
    pub fn is_permanent(self) -> bool {
        match self {
            Self::NotFound | Self::NotExecutable | Self::BadFormat => true,
            Self::Exhausted | Self::NotReady | Self::Other => false,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Signal {
                signal,
                core: false,
            } => write!(f, "{signal}"),
            Self::Signal { signal, core: true } => write!(f, "{signal} (core dumped)"),
            Self::Lost => f.write_str("lost"),
            Self::NotStarted(failure) => write!(f, "{failure}"),
        }
    }
}

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::NotExecutable => "not executable",
            Self::BadFormat => "not a program",
            Self::Exhausted => "out of resources",
            Self::NotReady => "not ready in time",
            Self::Other => "could not start",
        })
    }
}

/// What counts as a success of a child: code 0, and what is listed here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuccessCodes {
    codes: Vec<i32>,
    signals: Vec<Signal>,
}

impl SuccessCodes {
    /// Success for these codes and signals besides code 0.
    ///
    /// A code above 128 also matches a death by that signal: 143 stands for SIGTERM, since shells and many servers
    /// report one for the other.
    pub fn new(
        codes: impl IntoIterator<Item = i32>,
        signals: impl IntoIterator<Item = Signal>,
    ) -> Self {
        let codes: Vec<i32> = codes.into_iter().collect();
        let mut signals: Vec<Signal> = signals.into_iter().collect();
        signals.extend(
            codes
                .iter()
                .filter_map(|code| code.checked_sub(128))
                .filter_map(Signal::from_number),
        );
        Self { codes, signals }
    }

    /// Whether this end is a success.
    pub fn contains(&self, exit: Exit) -> bool {
        match exit {
            Exit::Code(0) => true,
            Exit::Code(code) => self.codes.contains(&code),
            Exit::Signal { signal, core: _ } => self.signals.contains(&signal),
            Exit::Lost | Exit::NotStarted(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_zero_is_a_success_unless_more_is_listed() {
        let none = SuccessCodes::default();
        assert!(none.contains(Exit::Code(0)));
        for code in 1..=255 {
            assert!(!none.contains(Exit::Code(code)));
        }
        assert!(!none.contains(Exit::Signal {
            signal: Signal::TERM,
            core: false
        }));
        assert!(!none.contains(Exit::Lost));
    }

    #[test]
    fn code_143_also_matches_a_death_by_sigterm() {
        let success = SuccessCodes::new([143], []);
        assert!(success.contains(Exit::Code(143)));
        assert!(success.contains(Exit::Signal {
            signal: Signal::TERM,
            core: false
        }));
        assert!(!success.contains(Exit::Signal {
            signal: Signal::INT,
            core: false
        }));
    }
}
