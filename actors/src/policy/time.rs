//! Time as the policy sees it: a number that its callers pass in.

use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time, in nanoseconds since the runtime began.
///
/// Plain data instead of `std::time::Instant`, so that a recorded life can be stored and replayed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Moment(u64);

impl Moment {
    /// The beginning of the runtime.
    pub const ZERO: Self = Self(0);

    /// The moment that lies `since_begin` after the beginning; saturates after 584 years.
    pub fn after_begin(since_begin: Duration) -> Self {
        Self(u64::try_from(since_begin.as_nanos()).unwrap_or(u64::MAX))
    }

    /// How long after the beginning this is.
    pub fn since_begin(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self::after_begin(self.since_begin().saturating_add(span))
    }
}
