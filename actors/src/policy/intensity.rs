//! How many restarts are too many.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::time::Moment;

/// At most this many restarts in this window (OTP: intensity and period).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intensity {
    /// So many are allowed; one more is too many. With 0 the first is.
    pub max_restarts: u32,
    /// How far back they count.
    pub window: Duration,
}

impl Default for Intensity {
    fn default() -> Self {
        Self {
            max_restarts: 5,
            window: Duration::from_secs(60),
        }
    }
}

/// The restarts that still count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamps(VecDeque<Moment>);

/// Whether one more restart is within the intensity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Within,
    /// It is one too many.
    Exceeded,
}

impl Stamps {
    /// Counts a restart at `now`; those older than the window are forgotten, one exactly as old is not (OTP: `in_period`).
    #[must_use]
    pub fn record(&mut self, now: Moment, intensity: Intensity) -> Verdict {
        while self
            .0
            .front()
            .is_some_and(|stamp| now.since(*stamp) > intensity.window)
        {
            self.0.pop_front();
        }
        self.0.push_back(now);
        if self.0.len() > intensity.max_restarts as usize {
            Verdict::Exceeded
        } else {
            Verdict::Within
        }
    }

    /// How many restarts were counted at the last look.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn the_restart_after_the_last_allowed_one_is_too_many() {
        let mut stamps = Stamps::default();
        let intensity = Intensity {
            max_restarts: 2,
            window: Duration::from_secs(5),
        };
        assert_eq!(stamps.record(at(0), intensity), Verdict::Within);
        assert_eq!(stamps.record(at(1), intensity), Verdict::Within);
        assert_eq!(stamps.record(at(5), intensity), Verdict::Exceeded);
    }

    #[test]
    fn each_restart_leaves_the_window_by_itself() {
        let mut stamps = Stamps::default();
        let intensity = Intensity {
            max_restarts: 2,
            window: Duration::from_secs(5),
        };
        let verdicts: Vec<Verdict> = [0, 1, 6, 7, 8]
            .map(|s| stamps.record(at(s), intensity))
            .into();
        assert_eq!(
            verdicts,
            [
                Verdict::Within,
                Verdict::Within,
                Verdict::Within,
                Verdict::Within,
                Verdict::Exceeded
            ]
        );
    }

    #[test]
    fn with_intensity_zero_the_first_restart_is_too_many() {
        let intensity = Intensity {
            max_restarts: 0,
            window: Duration::from_secs(5),
        };
        assert_eq!(
            Stamps::default().record(at(0), intensity),
            Verdict::Exceeded
        );
    }
}
