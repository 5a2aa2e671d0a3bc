//! The one clock. Everything else gets the time as an argument, or asks a [`Clock`].

use std::time::{Duration, Instant, SystemTime};

use crate::policy::spec::RunId;
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

/// The first run id of a runtime: ids never repeat in a project, since a runtime makes fewer than 2^20 of them a millisecond.
pub fn first_run() -> RunId {
    RunId(unix_time().as_millis().try_into().unwrap_or(u64::MAX >> 20) << 20)
}

/// The time of day, for people; never for measuring.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
pub fn wall_time() -> SystemTime {
    SystemTime::now()
}

/// A number to begin random numbers with.
pub fn seed() -> u64 {
    u64::try_from(unix_time().as_nanos() & u128::from(u64::MAX)).unwrap_or_default()
}

fn unix_time() -> Duration {
    wall_time()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}
