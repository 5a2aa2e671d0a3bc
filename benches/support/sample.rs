//! Paired measurements, and how sure one can be of their median.

/// How many pairs are measured unless `KIMI_BENCH_PAIRS` says otherwise.
const PAIRS: usize = 21;
/// The chance of a false alarm.
const ALPHA: f64 = 0.05;

/// What was measured on both sides, pair by pair.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    pub(crate) ours: Vec<f64>,
    pub(crate) reference: Vec<f64>,
}

impl Pairs {
    /// Measures in the order ABBA, so that a machine that becomes slower or faster favours neither side.
    ///
    /// One more pair comes first and does not count.
    pub(crate) fn measure(
        mut ours: impl FnMut() -> f64,
        mut reference: impl FnMut() -> f64,
    ) -> Self {
        let mut pairs = Self::default();
        for pair in 0..=count() {
            let (a, b) = if pair % 2 == 0 {
                let a = ours();
                (a, reference())
            } else {
                let b = reference();
                (ours(), b)
            };
            if pair > 0 {
                pairs.ours.push(a);
                pairs.reference.push(b);
            }
        }
        pairs
    }

    /// The ratio within each pair.
    pub(crate) fn ratios(&self) -> Vec<f64> {
        self.ours
            .iter()
            .zip(&self.reference)
            .map(|(ours, reference)| ours / reference)
            .collect()
    }
}

/// How many pairs to measure.
pub(crate) fn count() -> usize {
    std::env::var("KIMI_BENCH_PAIRS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(PAIRS)
        .max(1)
}

/// The value below which this share of the samples lies.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "samples are few, and a position among them is not negative"
)]
pub(crate) fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let position = share * (sorted.len() - 1) as f64;
    let below = sorted[position.floor() as usize];
    let above = sorted[position.ceil() as usize];
    below + (above - below) * position.fract()
}

/// The middle one.
pub(crate) fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// The one-sided lower 95 % bound of the median, by the sign test: no shape is assumed. `None`: too few samples.
pub(crate) fn lower_bound(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let size = i32::try_from(sorted.len()).ok()?;
    // How likely it is that so few samples lie below the true median, by chance.
    let mut combinations = 1.0;
    let mut likelihood = 0.0;
    let mut bound = None;
    for (below, sample) in (0..size).zip(&sorted) {
        likelihood += combinations / 2_f64.powi(size);
        if likelihood > ALPHA {
            break;
        }
        bound = Some(*sample);
        combinations *= f64::from(size - below) / f64::from(below + 1);
    }
    bound
}
