//! How long to wait before a restart.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Exponential delays with jitter and a cap.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backoff {
    /// The delay after the first unstable run.
    pub initial: Duration,
    /// Each further one is this many times longer.
    pub factor: f64,
    /// No delay is longer than this, jitter included.
    pub max: Duration,
    /// The share by which a delay is moved at random, to either side: 0.1 = ±10 %.
    pub jitter: f64,
    /// A run that was good for this long is stable: it restarts at once and forgives the unstable ones before it.
    pub reset_after: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(500),
            factor: 2.0,
            max: Duration::from_secs(30),
            jitter: 0.1,
            reset_after: Duration::from_secs(10),
        }
    }
}

impl Backoff {
    /// No delay at all, as in OTP.
    pub const NONE: Self = Self {
        initial: Duration::ZERO,
        factor: 1.0,
        max: Duration::ZERO,
        jitter: 0.0,
        reset_after: Duration::ZERO,
    };

    /// The delay after `unstable` unstable runs in a row; `random` picks the jitter.
    #[must_use]
    pub fn delay(&self, unstable: u32, random: u64) -> Duration {
        let Some(doublings) = unstable.checked_sub(1) else {
            return Duration::ZERO;
        };
        let exponent = i32::try_from(doublings).unwrap_or(i32::MAX);
        let nominal = self.initial.as_secs_f64() * self.factor.powi(exponent);
        let jittered =
            nominal.min(self.max.as_secs_f64()) * (1.0 + self.jitter * signed_unit(random));
        // Not finite or too large for a Duration: the cap is the answer.
        Duration::try_from_secs_f64(jittered)
            .unwrap_or(self.max)
            .min(self.max)
    }
}

/// Maps a random number to the range from -1 to 1.
fn signed_unit(random: u64) -> f64 {
    // 53 bits are all that an f64 holds exactly.
    #[expect(clippy::cast_precision_loss, reason = "the value has 53 bits")]
    let unit = (random >> 11) as f64 / (1_u64 << 53) as f64;
    2.0 * unit - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: u64 = 1 << 63;

    #[test]
    fn delays_double_up_to_the_cap_and_never_overflow() {
        let backoff = Backoff::default();
        let seconds: Vec<f64> = (0..9)
            .map(|n| backoff.delay(n, MIDDLE).as_secs_f64())
            .collect();
        assert_eq!(seconds, [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        assert_eq!(backoff.delay(u32::MAX, MIDDLE), backoff.max);
        assert_eq!(
            Backoff {
                factor: f64::INFINITY,
                ..backoff
            }
            .delay(7, MIDDLE),
            backoff.max
        );
        assert_eq!(Backoff::NONE.delay(7, MIDDLE), Duration::ZERO);
    }

    #[test]
    fn jitter_stays_within_its_share_and_below_the_cap() {
        let backoff = Backoff::default();
        for random in (0..64).map(|n| u64::MAX / 63 * n) {
            let first = backoff.delay(1, random).as_secs_f64();
            assert!((0.45..=0.55).contains(&first), "{first}");
            assert!(backoff.delay(50, random) <= backoff.max);
        }
    }
}
