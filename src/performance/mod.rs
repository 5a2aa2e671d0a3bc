//! Whether measured performance is good enough: pure comparison with the thresholds of the settings.

mod measure;

use std::fmt;

use crate::quantity::size_text;
use crate::settings::Thresholds;

pub use measure::{Figure, MeasureError, Measured, Spread, Value, measure};

/// What was measured; what was not is not judged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Operations a second.
    pub ops_per_sec: Option<f64>,
    /// Milliseconds an operation.
    pub latency_ms: Option<f64>,
    /// Resident memory, in bytes.
    pub memory: Option<u64>,
}

/// What came of comparing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Validation {
    /// Whether no threshold is violated.
    pub valid: bool,
    /// Those that are.
    pub violations: Vec<Violation>,
}

/// One threshold that is violated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Violation {
    /// Fewer operations a second than wanted.
    OpsPerSec {
        /// What was measured.
        measured: f64,
        /// At least this was wanted.
        at_least: f64,
    },
    /// More time an operation than wanted.
    LatencyMs {
        /// What was measured.
        measured: f64,
        /// At most this was wanted.
        at_most: f64,
    },
    /// More memory than wanted.
    Memory {
        /// What was measured.
        measured: u64,
        /// At most this was wanted.
        at_most: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpsPerSec { measured, at_least } => write!(
                f,
                "{measured:.0} operations a second; expected at least {at_least:.0} (`thresholds.ops_per_sec`)"
            ),
            Self::LatencyMs { measured, at_most } => write!(
                f,
                "{measured:.4} ms an operation; expected at most {at_most} ms (`thresholds.latency_ms`)"
            ),
            Self::Memory { measured, at_most } => write!(
                f,
                "{} of memory; expected at most {} (`thresholds.memory`)",
                size_text(*measured),
                size_text(*at_most)
            ),
        }
    }
}

/// Compares what was measured with the thresholds. Exactly the threshold is good enough; what is no number is not.
pub fn validate_performance(metrics: &Metrics, thresholds: &Thresholds) -> Validation {
    let ops_per_sec = metrics
        .ops_per_sec
        .filter(|measured| measured.is_nan() || *measured < thresholds.ops_per_sec)
        .map(|measured| Violation::OpsPerSec {
            measured,
            at_least: thresholds.ops_per_sec,
        });
    let latency_ms = metrics
        .latency_ms
        .filter(|measured| measured.is_nan() || *measured > thresholds.latency_ms)
        .map(|measured| Violation::LatencyMs {
            measured,
            at_most: thresholds.latency_ms,
        });
    let memory = metrics
        .memory
        .filter(|measured| *measured > thresholds.memory)
        .map(|measured| Violation::Memory {
            measured,
            at_most: thresholds.memory,
        });
    let violations: Vec<Violation> = [ops_per_sec, latency_ms, memory]
        .into_iter()
        .flatten()
        .collect();
    Validation {
        valid: violations.is_empty(),
        violations,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn exactly_the_thresholds_are_valid_and_what_is_beyond_is_named() {
        let thresholds = Settings::default().thresholds;
        let judged = |ops, ms, memory| {
            let metrics = Metrics {
                ops_per_sec: ops,
                latency_ms: ms,
                memory,
            };
            let validation = validate_performance(&metrics, &thresholds);
            assert_eq!(validation.valid, validation.violations.is_empty());
            validation.violations.len()
        };
        for (ops, ms, memory, violations) in [
            (Some(20_000.0), Some(0.05), None, 0),
            (None, None, None, 0),
            (Some(19_999.9), Some(0.05), Some(512 << 20), 1),
            (Some(1e9), Some(0.0501), Some(0), 1),
            (Some(0.0), Some(1.0), Some(u64::MAX), 3),
            (Some(f64::NAN), Some(f64::NAN), None, 2),
            (Some(f64::INFINITY), Some(0.0), None, 0),
        ] {
            assert_eq!(
                judged(ops, ms, memory),
                violations,
                "{ops:?} {ms:?} {memory:?}"
            );
        }
    }

    #[test]
    fn a_violation_names_its_key() {
        let violation = Violation::Memory {
            measured: 1 << 30,
            at_most: 512 << 20,
        };
        assert_eq!(
            violation.to_string(),
            "1GiB of memory; expected at most 512MiB (`thresholds.memory`)"
        );
    }
}
