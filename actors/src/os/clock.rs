//! The one clock. Everything else gets the time as an argument, or asks a [`Clock`].

use std::time::Instant;

use crate::policy::time::Moment;

/// A monotonic clock that counts from the beginning of a runtime.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    begin: Instant,
}

impl Clock {
    /// A clock that begins now.
    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    pub fn start() -> Self {
        Self {
            begin: Instant::now(),
        }
    }

    /// What it says.
    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    pub fn now(self) -> Moment {
        Moment::after_begin(Instant::now().saturating_duration_since(self.begin))
    }
}
