//! What was done last and how long it took: one entry an operation, always noted.
//!
//! An entry is plain numbers. It names children and commands by their ids, so that nothing of it is on the heap, and
//! [`Telemetry`] holds no more than the last [`Telemetry::KEPT`].

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::admission::RequestId;
use crate::policy::exit::{Exit, StartFailure};
use crate::policy::signal::Signal;
use crate::policy::spec::{NodeId, RunId};
use crate::policy::time::Moment;

/// One operation that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was over.
    pub at: Moment,
    /// What was done.
    pub operation: Operation,
    /// To what.
    pub subject: Subject,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it waited for its place; only a command does.
    pub waited: Span,
    /// How long it took from there.
    pub took: Span,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operation {
    /// A command was run once: from its place to its result.
    Exec,
    /// A child was started: from the order until its program runs.
    Start,
    /// The same, after a run that ended by itself or with its group.
    Restart,
    /// A child was stopped: from the order until nothing of it is left.
    Stop,
    /// A signal came to us, or was sent to a command.
    Signal(Signal),
}

/// What an operation was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Subject {
    /// A run of a child.
    Child {
        /// The child.
        child: NodeId,
        /// Its run.
        run: RunId,
    },
    /// A one-shot command.
    Command(RequestId),
    /// All of the tree.
    Tree,
}

/// What came of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// What was wanted.
    Done,
    /// Nothing was to be done.
    Ignored,
    /// It ended like this.
    Ended(Exit),
    /// It was stopped because its time was over, in all or without output.
    TimedOut,
    /// It was killed because it wrote too much.
    OutputLimit,
    /// It was not wanted any more.
    Cancelled,
    /// It was not admitted.
    Rejected,
    /// It could not be started.
    NotStarted(StartFailure),
    /// Nobody knows.
    Lost,
}

/// A span of time in 32 bits: to the microsecond below 35 minutes, to the millisecond beyond, and no more than 24 days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span(u32);

impl Span {
    /// Set where milliseconds are counted.
    const COARSE: u32 = 1 << 31;
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        let fits = |count: u128| {
            let count = u32::try_from(count).ok()?;
            (count < Self::COARSE).then_some(count)
        };
        if let Some(micros) = fits(duration.as_micros()) {
            return Self(micros);
        }
        let millis = fits(duration.as_millis()).unwrap_or(Self::COARSE - 1);
        Self(millis | Self::COARSE)
    }
}

impl From<Span> for Duration {
    fn from(Span(bits): Span) -> Self {
        let count = u64::from(bits & !Span::COARSE);
        if bits & Span::COARSE == 0 {
            Self::from_micros(count)
        } else {
            Self::from_millis(count)
        }
    }
}

/// The entries of the last operations.
#[derive(Clone, Debug, Default)]
pub struct Telemetry(VecDeque<Entry>);

impl Telemetry {
    /// So many are kept.
    pub const KEPT: usize = 1000;

    /// Takes note of an operation, and forgets the oldest if there are too many.
    pub fn note(&mut self, entry: Entry) {
        if self.0.capacity() == 0 {
            // Once and exactly: to grow by doubling would hold more than is kept.
            self.0.reserve_exact(Self::KEPT);
        }
        if self.0.len() == Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }

    /// All that are kept, the oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        self.0.iter().copied().collect()
    }

    /// How much memory is held for entries, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.0.capacity() * size_of::<Entry>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> Entry {
        Entry {
            at: Moment::after_begin(Duration::from_secs(number)),
            operation: Operation::Exec,
            subject: Subject::Command(RequestId(number)),
            outcome: Outcome::Done,
            waited: Span::default(),
            took: Span::default(),
        }
    }

    /// What can be copied owns nothing on the heap.
    fn owns_nothing<T: Copy + 'static>() {}

    #[test]
    fn an_entry_has_at_most_64_bytes_heap_included() {
        owns_nothing::<Entry>();
        assert!(size_of::<Entry>() <= 64, "{}", size_of::<Entry>());
        let mut telemetry = Telemetry::default();
        assert_eq!(telemetry.held_bytes(), 0);
        for number in 0..3000 {
            telemetry.note(entry(number));
            assert!(telemetry.held_bytes() <= 64 * Telemetry::KEPT);
        }
    }

    #[test]
    fn the_last_thousand_are_kept_the_oldest_first() {
        let mut telemetry = Telemetry::default();
        for number in 0..2500 {
            telemetry.note(entry(number));
        }
        let expected: Vec<Entry> = (1500..2500).map(entry).collect();
        assert_eq!(telemetry.entries(), expected);
    }

    #[test]
    fn a_span_is_as_fine_as_its_length_allows() {
        let micros = Duration::from_micros;
        let millis = Duration::from_millis;
        let half = u64::from(Span::COARSE);
        for (duration, shown) in [
            (Duration::ZERO, Duration::ZERO),
            (Duration::from_nanos(1_999), micros(1)),
            (micros(half - 1), micros(half - 1)),
            (micros(half), millis(half / 1000)),
            (millis(half - 1), millis(half - 1)),
            (millis(half), millis(half - 1)),
            (Duration::MAX, millis(half - 1)),
        ] {
            assert_eq!(Duration::from(Span::from(duration)), shown, "{duration:?}");
        }
    }
}
