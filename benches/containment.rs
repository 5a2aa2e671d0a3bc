//! What does containment cost? The default, and each way that the machine has, beside the cheapest: the session of each run.
//!
//! Both sides are runtimes in this process. Less than 0.8 of the throughput of commands would worry us; the rest is shown.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use kimi_actors::os::ContainmentRules;
use kimi_actors::policy::event::Fact;
use kimi_actors::policy::spec::{CommandSpec, Containment, Governor};
use kimi_actors::{Child, Exec, Runtime, RuntimeHandle, StartError};
use kimi_shell::cli::guarded;
use rustix::process::Signal;
use tokio::runtime::Runtime as Tokio;

use crate::support::process::{compile, send};
use crate::support::report::{Report, Wanted};
use crate::support::sample::{Pairs, median};
use crate::support::{is_asked_for, ms_since, now_ns};

#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

/// 0.8 of the throughput, as a ratio of times.
const WANTED: Wanted = Wanted {
    aim: 1.05,
    gate: 1.0 / 0.8,
};
/// In one sample.
const COMMANDS: usize = 1000;
const IN_FLIGHT: usize = 16;
const RESTARTS: usize = 20;
/// After so long the kernel and the processor have gone to rest.
const REST: Duration = Duration::from_millis(1100);

fn main() -> ExitCode {
    if !is_asked_for() {
        return ExitCode::SUCCESS;
    }
    // Below a guardian, as the program is: so there is somebody who adopts.
    let compared =
        guarded::run(|ward| Ok::<_, Infallible>(compare_all(ward.map(|it| it.adopter()))));
    compared.unwrap_or_else(|never| match never {})
}

fn compare_all(adopter: Option<u32>) -> ExitCode {
    let mut report = Report::begin("What does containment cost, beside the session of each run?");
    let bare = [
        "-static",
        "-nostdlib",
        "-ffreestanding",
        "-fno-stack-protector",
    ];
    let bed = Bed {
        tokio: tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("there is room for a runtime"),
        nothing: compile("nothing", &bare),
        adopter,
    };
    let cheapest = bed
        .start(Some(Containment::Group))
        .expect("every machine has sessions");
    let chosen = bed.start(None).expect("something is always there");
    Report::note(&format!("the default here: {}", chosen.containment()));
    bed.compare(&mut report, "default", &chosen, &cheapest, Some(WANTED));
    for way in [Containment::Cgroup, Containment::Subreaper] {
        // The one that was chosen has its figures.
        if way == chosen.containment() {
            continue;
        }
        match bed.start(Some(way)) {
            Ok(side) => {
                bed.compare(&mut report, way.as_str(), &side, &cheapest, None);
                bed.tokio.block_on(side.shutdown());
            }
            Err(error) => Report::note(&format!("SKIPPED: containment {way}: {error}")),
        }
    }
    for side in [chosen, cheapest] {
        bed.tokio.block_on(side.shutdown());
    }
    report.end()
}

struct Bed {
    tokio: Tokio,
    nothing: PathBuf,
    adopter: Option<u32>,
}

impl Bed {
    /// With one child, to be restarted.
    fn start(&self, require: Option<Containment>) -> Result<RuntimeHandle, StartError> {
        let sleep = CommandSpec::new("/bin/sleep", ["100000"]);
        let child = Child::command("victim", sleep).expect("the name keeps to the grammar");
        let builder = Runtime::builder()
            .containment(ContainmentRules {
                require,
                adopter: self.adopter,
                ..ContainmentRules::default()
            })
            .child(child.governor(Governor::NONE));
        self.tokio.block_on(builder.start())
    }

    fn compare(
        &self,
        report: &mut Report,
        name: &str,
        ours: &RuntimeHandle,
        reference: &RuntimeHandle,
        wanted: Option<Wanted>,
    ) {
        for (what, in_flight) in [("one at a time", 1), ("16 in flight", IN_FLIGHT)] {
            let pairs = Pairs::measure(
                || self.commands(ours, in_flight),
                || self.commands(reference, in_flight),
            );
            report.compare_to(&format!("{name}: {what}"), "us", &pairs, wanted);
        }
        let pairs = Pairs::measure(|| self.restarts(ours), || self.restarts(reference));
        report.compare(&format!("{name}: restart"), "us", &pairs);
        let pairs = Pairs::measure(|| self.after_rest(ours), || self.after_rest(reference));
        report.compare(&format!("{name}: after a rest"), "us", &pairs);
    }

    /// Microseconds a command, with so many in flight.
    fn commands(&self, side: &RuntimeHandle, in_flight: usize) -> f64 {
        self.tokio.block_on(async {
            let begin_ns = now_ns();
            let runners = (0..in_flight).map(|_| {
                let (side, program) = (side.clone(), self.nothing.clone());
                tokio::spawn(async move {
                    for _ in 0..COMMANDS / in_flight {
                        run(&side, &program).await;
                    }
                })
            });
            for runner in runners.collect::<Vec<_>>() {
                runner.await.expect("no command fails");
            }
            each(begin_ns, COMMANDS / in_flight * in_flight)
        })
    }

    /// Microseconds from the kill of the child to the start of its successor.
    fn restarts(&self, side: &RuntimeHandle) -> f64 {
        let samples: Vec<f64> = (0..RESTARTS)
            .map(|_| self.tokio.block_on(restart(side)))
            .collect();
        median(&samples)
    }

    /// Microseconds of the first command after a while in which nothing happened.
    fn after_rest(&self, side: &RuntimeHandle) -> f64 {
        self.tokio.block_on(async {
            tokio::time::sleep(REST).await;
            let begin_ns = now_ns();
            run(side, &self.nothing).await;
            each(begin_ns, 1)
        })
    }
}

async fn run(side: &RuntimeHandle, program: &Path) {
    let command = CommandSpec::new(program, Vec::<String>::new());
    let outcome = side.exec(Exec::new(command)).await;
    let captured = outcome.expect("the command runs").captured;
    assert_eq!(captured.stdout.head, b"hi\n");
}

async fn restart(side: &RuntimeHandle) -> f64 {
    side.ready("victim").await.expect("it runs");
    let mut events = side.events();
    let status = side.status().await.expect("the runtime lives");
    let victim = status.iter().find_map(|status| status.pid);
    let begin_ns = now_ns();
    send(victim.expect("it has a process"), Signal::KILL);
    loop {
        let event = events.recv().await.expect("a few events fit");
        if let Fact::Running { .. } = event.fact {
            return each(begin_ns, 1);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "these are few")]
fn each(begin_ns: i64, count: usize) -> f64 {
    ms_since(begin_ns) * 1e3 / count as f64
}
