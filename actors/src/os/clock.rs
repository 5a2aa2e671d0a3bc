//! The one clock.

use std::time::Instant;

use crate::policy::time::Moment;

/// Tells the time since it was started; the only place that reads it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    begin: Instant,
}

impl Clock {
    /// Starts it at [`Moment::ZERO`].
    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    pub fn start() -> Self {
        Self {
            begin: Instant::now(),
        }
    }

    /// The time.
    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    pub fn now(&self) -> Moment {
        Moment::after_begin(Instant::now().saturating_duration_since(self.begin))
    }

    /// A moment of this clock as the standard library's kind.
    pub fn instant(&self, moment: Moment) -> Instant {
        self.begin + moment.since_begin()
    }
}
