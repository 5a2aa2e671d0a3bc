//! How long does it take until everything is up, and until everything is down?
//!
//! Without children what remains is our own: its time, its system calls, its wake-ups. A multiple of the reference that grows
//! with the number of children would worry us.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::event::Timespec;

use crate::support::process::{Bed, Children, Kind, command, pause, switches, threads};
use crate::support::report::Report;
use crate::support::sample::{Pairs, count};
use crate::support::{is_asked_for, library};

#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

/// So long a supervisor rests before it is stopped.
const REST: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};

fn main() -> ExitCode {
    if let Some(code) = library::serve() {
        return code;
    }
    if !is_asked_for() {
        return ExitCode::SUCCESS;
    }
    let mut report = Report::begin(
        "How long until everything is up, and from SIGTERM until the supervisor is gone?",
    );
    let bed = Bed::new();
    baseline(&mut report, &bed);
    for children in [1, 100, 1000] {
        let up = Pairs::measure(
            || start(&bed, Kind::Program, children),
            || start(&bed, Kind::Reference, children),
        );
        report.compare(&format!("start of {children}"), "ms", &up);
        let down = Pairs::measure(
            || stop(&bed, Kind::Program, children),
            || stop(&bed, Kind::Reference, children),
        );
        report.compare(&format!("shutdown with {children}"), "ms", &down);
    }
    let up = Pairs::measure(
        || start(&bed, Kind::Library, 1000),
        || start(&bed, Kind::Reference, 1000),
    );
    report.compare("start of 1000, library alone", "ms", &up);
    let down = Pairs::measure(
        || stop(&bed, Kind::Library, 1000),
        || stop(&bed, Kind::Reference, 1000),
    );
    report.compare("shutdown with 1000, library alone", "ms", &down);
    report.end()
}

/// Without children: the library, since `kimi-shell start` ends by itself when it has none.
fn baseline(report: &mut Report, bed: &Bed) {
    let ms = |kind| move || ready(bed, kind).stop();
    report.compare(
        "shutdown, no child",
        "ms",
        &Pairs::measure(ms(Kind::Library), ms(Kind::Reference)),
    );
    let woken = |kind| {
        move || {
            let supervisor = ready(bed, kind);
            let before = switches(supervisor.pid());
            supervisor.stop_counting(before)
        }
    };
    let pairs = Pairs {
        ours: repeated(woken(Kind::Library)),
        reference: repeated(woken(Kind::Reference)),
    };
    report.compare("its context switches", "number", &pairs);
    match (calls(bed, Kind::Library), calls(bed, Kind::Reference)) {
        (Some(ours), Some(reference)) => {
            let pairs = Pairs {
                ours: vec![ours],
                reference: vec![reference],
            };
            report.compare("its system calls", "number", &pairs);
        }
        _ => Report::note("its system calls were not counted: strace is missing or may not trace"),
    }
}

fn repeated(mut sample: impl FnMut() -> f64) -> Vec<f64> {
    (0..count()).map(|_| sample()).collect()
}

fn ready(bed: &Bed, kind: Kind) -> support::process::Supervisor {
    let mut supervisor = bed.start(kind, 0, Children::Silent);
    supervisor.ready();
    pause(REST);
    supervisor
}

/// From the start of the supervisor until the last child's first instruction.
#[expect(
    clippy::cast_precision_loss,
    reason = "nanoseconds of less than a minute"
)]
fn start(bed: &Bed, kind: Kind, children: usize) -> f64 {
    let mut supervisor = bed.start(kind, children, Children::Telling);
    let last_ns = supervisor
        .reports(children)
        .iter()
        .map(|began| began.at_ns)
        .max()
        .expect("there is a child");
    (last_ns - supervisor.begun_ns) as f64 / 1e6
}

fn stop(bed: &Bed, kind: Kind, children: usize) -> f64 {
    let supervisor = bed.up(kind, children);
    pause(REST);
    supervisor.stop()
}

/// How many system calls follow upon the signal, in all threads.
#[expect(clippy::cast_precision_loss, reason = "these are few")]
fn calls(bed: &Bed, kind: Kind) -> Option<f64> {
    let supervisor = ready(bed, kind);
    let threads = threads(supervisor.pid());
    let trace = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("trace-{}", supervisor.pid()));
    let mut tracer = command(PathBuf::from("strace"))
        .args(["-f", "-qq", "-o"])
        .arg(&trace)
        .arg("-p")
        .arg(supervisor.pid().to_string())
        .spawn()
        .ok()?;
    pause(Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    });
    supervisor.stop();
    tracer.wait().ok()?;
    let text = std::fs::read_to_string(&trace).ok()?;
    drop(std::fs::remove_file(&trace));
    let is_call = |line: &&str| {
        !["resumed>", "+++", "---"]
            .iter()
            .any(|other| line.contains(other))
    };
    // Each thread was waiting in one when the trace began.
    let calls = text.lines().filter(is_call).count().saturating_sub(threads);
    (calls > 0).then_some(calls as f64)
}
