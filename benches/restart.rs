//! How long is a crashed child away?
//!
//! From `kill -9` of the child until the first instruction of its successor. More than 1.5 times the reference would worry us.

use std::process::ExitCode;

use rustix::event::Timespec;
use rustix::process::Signal;

use crate::support::process::{Bed, Began, Children, Kind, Supervisor, pause, send};
use crate::support::report::{Report, Wanted};
use crate::support::sample::{Pairs, median};
use crate::support::{is_asked_for, library, now_ns};

#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

/// How many restarts make one sample, their median.
const RESTARTS: usize = 20;
/// Before each of those that come out of a rest, which are fewer.
const REST: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};
const RESTARTS_AFTER_REST: usize = 5;

fn main() -> ExitCode {
    if let Some(code) = library::serve() {
        return code;
    }
    if !is_asked_for() {
        return ExitCode::SUCCESS;
    }
    let mut report = Report::begin(
        "How long is a crashed child away: from kill -9 to the first instruction of its successor?",
    );
    let bed = Bed::new();
    let wanted = Wanted {
        aim: 1.15,
        gate: 1.5,
    };
    let pairs = measure(&bed, Kind::Program, 1);
    report.compare_to("restart", "us", &pairs, Some(wanted));
    report.compare("restart after a rest", "us", &measure_after_rest(&bed));
    report.compare(
        "restart among 100",
        "us",
        &measure(&bed, Kind::Program, 100),
    );
    report.compare(
        "restart, library alone",
        "us",
        &measure(&bed, Kind::Library, 1),
    );
    report.end()
}

/// Both supervisors live at the same time and take turns.
fn measure(bed: &Bed, kind: Kind, count: usize) -> Pairs {
    let mut ours = Side::new(bed, kind, count);
    let mut reference = Side::new(bed, Kind::Reference, count);
    Pairs::measure(|| ours.sample(), || reference.sample())
}

/// Whoever sleeps is slower to begin with, since the processor sleeps too.
fn measure_after_rest(bed: &Bed) -> Pairs {
    let mut ours = Side::new(bed, Kind::Program, 1);
    let mut reference = Side::new(bed, Kind::Reference, 1);
    Pairs::measure(
        || ours.sample_after_rest(),
        || reference.sample_after_rest(),
    )
}

struct Side {
    supervisor: Supervisor,
    victim: Began,
}

impl Side {
    fn new(bed: &Bed, kind: Kind, count: usize) -> Self {
        let mut supervisor = bed.start(kind, count, Children::Telling);
        let children = supervisor.reports(count);
        Self {
            supervisor,
            victim: children[count / 2],
        }
    }

    fn sample(&mut self) -> f64 {
        let restarts: Vec<f64> = (0..RESTARTS).map(|_| self.restart()).collect();
        median(&restarts)
    }

    fn sample_after_rest(&mut self) -> f64 {
        let restarts = (0..RESTARTS_AFTER_REST).map(|_| {
            pause(REST);
            self.restart()
        });
        median(&restarts.collect::<Vec<_>>())
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "nanoseconds of less than a minute"
    )]
    fn restart(&mut self) -> f64 {
        let killed_ns = now_ns();
        send(self.victim.pid.unsigned_abs(), Signal::KILL);
        self.victim = self.supervisor.report();
        (self.victim.at_ns - killed_ns) as f64 / 1e3
    }
}
