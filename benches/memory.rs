//! How much memory does a supervisor take, and does it sleep when nothing happens?
//!
//! More than 6 MB to begin with, or more than 16 KB for each idle child, would worry us; so would a single wake-up.
//!
//! The program is two processes. What it holds is the resident memory of the runtime, and of the guardian what is its own and
//! its share of what both have: pages of the program that both use are in memory once, and counted with the runtime.

use std::process::ExitCode;

use rustix::event::Timespec;

use crate::support::process::{
    Bed, Children, Kind, Supervisor, most_children, pause, proportional, status, switches,
};
use crate::support::report::{Report, Wanted};
use crate::support::sample::{Pairs, count};
use crate::support::{is_asked_for, library};

#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

const CHILD: Wanted = Wanted {
    aim: 10.0,
    gate: 16.0,
};
const FEW: usize = 1000;
const MANY: usize = 10_000;
/// After this rest threads that were needed for the start sleep.
const REST: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};
/// Periodic work of the kernel may wake a thread once; in three windows in a row it does not.
const WINDOWS: usize = 3;

fn main() -> ExitCode {
    if let Some(code) = library::serve() {
        return code;
    }
    if !is_asked_for() {
        return ExitCode::SUCCESS;
    }
    let mut report = Report::begin(
        "How much memory does a supervisor take, and does it sleep when nothing happens?",
    );
    let bed = Bed::new();
    let base = Pairs::measure(
        || resident(&bed, Kind::Program, 1),
        || resident(&bed, Kind::Reference, 1),
    );
    report.absolute(
        "resident with 1 child",
        "MB",
        &base,
        Wanted {
            aim: 4.0,
            gate: 6.0,
        },
    );
    shares(&bed);
    let many = most_children(MANY);
    if many < MANY {
        Report::note(&format!(
            "scaled down to {many} children: the hard limit on descriptors allows no more"
        ));
    }
    let slope = Pairs::measure(
        || slope(&bed, Kind::Program, many),
        || slope(&bed, Kind::Reference, many),
    );
    report.absolute("an idle child more", "KB", &slope, CHILD);
    let alone = Pairs::measure(
        || slope_once(&bed, Kind::Library, FEW),
        || slope_once(&bed, Kind::Reference, FEW),
    );
    report.absolute("an idle child more, library alone", "KB", &alone, CHILD);
    let sleeps = (0..WINDOWS)
        .find_map(|_| sleep(&bed).ok())
        .ok_or_else(|| "woken in every window".to_owned());
    report.require("no wake-ups while nothing happens", sleeps);
    report.end()
}

fn settled(bed: &Bed, kind: Kind, children: usize) -> Supervisor {
    let supervisor = if children == 0 {
        let mut supervisor = bed.start(kind, 0, Children::Silent);
        supervisor.ready();
        supervisor
    } else {
        bed.up(kind, children)
    };
    pause(REST);
    supervisor
}

/// Resident memory in MB.
#[expect(clippy::cast_precision_loss, reason = "less than 2^53 kilobytes")]
fn resident(bed: &Bed, kind: Kind, children: usize) -> f64 {
    let supervisor = settled(bed, kind, children);
    let guardian: u64 = guardians(&supervisor).map(proportional).sum();
    (kilobytes(supervisor.pid(), "VmRSS:") + guardian as f64) / 1e3 * 1.024
}

fn guardians(supervisor: &Supervisor) -> impl Iterator<Item = u32> {
    let runtime = supervisor.pid();
    supervisor
        .pids()
        .into_iter()
        .filter(move |pid| *pid != runtime)
}

/// Kilobytes as the kernel means them.
#[expect(clippy::cast_precision_loss, reason = "less than 2^53 kilobytes")]
fn kilobytes(pid: u32, key: &str) -> f64 {
    status(pid, key) as f64
}

/// What the base consists of.
fn shares(bed: &Bed) {
    for (kind, name, children) in [
        (Kind::Program, "program", 1),
        (Kind::Library, "library alone", 0),
    ] {
        let supervisor = settled(bed, kind, children);
        let [all, own, files] =
            ["VmRSS:", "RssAnon:", "RssFile:"].map(|key| kilobytes(supervisor.pid(), key));
        let threads = status(supervisor.pid(), "Threads:");
        Report::note(&format!(
            "{name}: {all} KB, of which {own} its own and {files} of files; {threads} threads"
        ));
        for guardian in guardians(&supervisor) {
            let (all, share) = (status(guardian, "VmRSS:"), proportional(guardian));
            Report::note(&format!(
                "its guardian: {all} KB, its share of them {share}"
            ));
        }
    }
}

/// Kilobytes for each child beyond the first thousand.
#[expect(clippy::cast_precision_loss, reason = "some thousands")]
fn slope(bed: &Bed, kind: Kind, many: usize) -> f64 {
    let of = |children| kilobytes(settled(bed, kind, children).pid(), "VmRSS:");
    (of(many) - of(FEW)) / (many - FEW) as f64
}

/// Kilobytes for each child of the first so many.
#[expect(clippy::cast_precision_loss, reason = "some thousands")]
fn slope_once(bed: &Bed, kind: Kind, children: usize) -> f64 {
    let of = |children| kilobytes(settled(bed, kind, children).pid(), "VmRSS:");
    (of(children) - of(0)) / children as f64
}

/// Whether no thread of ours is switched for 10 s; for 2 s in a short run.
fn sleep(bed: &Bed) -> Result<(), String> {
    let supervisor = settled(bed, Kind::Program, 100);
    // Buffered lines and checks of the start are over by then.
    pause(Timespec {
        tv_sec: 1,
        tv_nsec: 500_000_000,
    });
    let window = Timespec {
        tv_sec: if count() < 21 { 2 } else { 10 },
        tv_nsec: 0,
    };
    let switched = || supervisor.pids().into_iter().map(switches).sum::<u64>();
    let before = switched();
    pause(window);
    match switched() - before {
        0 => Ok(()),
        woken => Err(format!("{woken} context switches in {} s", window.tv_sec)),
    }
}
