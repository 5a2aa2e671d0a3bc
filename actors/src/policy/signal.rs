//! Signals by number and by name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A POSIX signal, by its Linux number (`signal(7)`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
pub struct Signal(i32);

/// Names of the standard signals; the index is the number.
const NAMES: [&str; 32] = [
    "", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// The first real-time signal that programs see; glibc keeps 32 and 33 for itself.
const REALTIME_MIN: i32 = 34;
const REALTIME_MAX: i32 = 64;

impl Signal {
    /// Hang-up: the terminal was closed.
    pub const HUP: Self = Self(1);
    /// Interrupt: Ctrl-C.
    pub const INT: Self = Self(2);
    /// Quit: Ctrl-\.
    pub const QUIT: Self = Self(3);
    /// Kill: cannot be caught.
    pub const KILL: Self = Self(9);
    /// User-defined signal 1.
    pub const USR1: Self = Self(10);
    /// User-defined signal 2.
    pub const USR2: Self = Self(12);
    /// Termination request.
    pub const TERM: Self = Self(15);
    /// A child ended.
    pub const CHLD: Self = Self(17);
    /// Continue if stopped.
    pub const CONT: Self = Self(18);
    /// Stop: cannot be caught.
    pub const STOP: Self = Self(19);
    /// Stop typed at the terminal: Ctrl-Z.
    pub const TSTP: Self = Self(20);

    /// The signal with this number, 1 to 64.
    pub fn from_number(number: i32) -> Option<Self> {
        (1..=REALTIME_MAX).contains(&number).then_some(Self(number))
    }

    /// Its number.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match usize::try_from(self.0)
            .ok()
            .and_then(|number| NAMES.get(number))
        {
            Some(name) => write!(f, "SIG{name}"),
            None if self.0 >= REALTIME_MIN => write!(f, "SIGRTMIN+{}", self.0 - REALTIME_MIN),
            None => write!(f, "SIG{}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that names no signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a signal; expected a name such as SIGTERM or a number from 1 to 64")]
pub struct UnknownSignal {
    /// What was given.
    pub text: String,
}

impl FromStr for Signal {
    type Err = UnknownSignal;

    /// Takes `SIGTERM`, `TERM`, `15` and `SIGRTMIN+3`, in any case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let number = match name.strip_prefix("RTMIN") {
            Some("") => Some(REALTIME_MIN),
            Some(offset) => offset
                .strip_prefix('+')
                .and_then(|n| n.parse::<u8>().ok())
                .map(|n| i32::from(n) + REALTIME_MIN),
            None => match NAMES
                .iter()
                .position(|known| !known.is_empty() && *known == name)
            {
                Some(position) => i32::try_from(position).ok(),
                None => name.parse().ok(),
            },
        };
        number
            .and_then(Self::from_number)
            .ok_or_else(|| UnknownSignal {
                text: text.to_owned(),
            })
    }
}

impl From<Signal> for i32 {
    fn from(signal: Signal) -> Self {
        signal.0
    }
}

impl TryFrom<i32> for Signal {
    type Error = UnknownSignal;

    fn try_from(number: i32) -> Result<Self, Self::Error> {
        Self::from_number(number).ok_or_else(|| UnknownSignal {
            text: number.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_is_found_again_by_its_name_and_its_number() {
        for number in 1..=REALTIME_MAX {
            let signal = Signal::from_number(number).unwrap();
            if number != 32 && number != 33 {
                assert_eq!(signal.to_string().parse(), Ok(signal));
            }
            assert_eq!(number.to_string().parse(), Ok(signal));
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in [
            "",
            "SIG",
            "0",
            "65",
            "-1",
            "SIGFOO",
            "SIGRTMIN+31",
            "SIGRTMIN+-1",
            "99999999999",
        ] {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
    }
}
