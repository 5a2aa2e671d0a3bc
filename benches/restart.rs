//! How long is a crashed child away?
//!
//! From `kill -9` of the child until the first instruction of its successor. More than 1.5 times the reference would worry us.

use std::process::ExitCode;

use rustix::process::Signal;

use crate::support::process::{Bed, Began, Children, Kind, Supervisor, send};
use crate::support::report::{Report, Wanted};
use crate::support::sample::{Pairs, median};
use crate::support::{is_asked_for, library, now_ns};

#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

/// How many restarts make one sample, their median.
const RESTARTS: usize = 20;

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
