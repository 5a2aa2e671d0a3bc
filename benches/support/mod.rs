//! What the benches share: paired measurements, the reference to compare with, and the report.

pub(crate) mod library;
pub(crate) mod process;
pub(crate) mod report;
pub(crate) mod sample;

use rustix::time::{ClockId, clock_gettime};

/// Whether the figures were asked for: `cargo test --all-targets` starts benches too, which must not take long.
pub(crate) fn is_asked_for() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// The clock that the children read as well, in nanoseconds.
pub(crate) fn now_ns() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Milliseconds since then.
#[expect(
    clippy::cast_precision_loss,
    reason = "spans of minutes, in nanoseconds, fit into 53 bits"
)]
pub(crate) fn ms_since(begin_ns: i64) -> f64 {
    (now_ns() - begin_ns) as f64 / 1e6
}
