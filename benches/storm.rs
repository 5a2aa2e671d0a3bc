//! Does a storm of one-shot commands delay a restart?
//!
//! From `kill -9` of a service until the first instruction of its successor, while one runtime runs commands as fast as the
//! machine can, beside the same runtime at rest. The commands leave the processors no rest, so the successor has to wait for
//! its share of them: more than ten times the unloaded time would mean that it waits for commands as well.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use kimi_actors::policy::spec::{CommandSpec, Governor};
use kimi_actors::{Child, Exec, Runtime, RuntimeHandle};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::process::{Began, compile, send};
use crate::support::report::{Report, Wanted};
use crate::support::sample::{Pairs, median};
use crate::support::{is_asked_for, ms_since, now_ns};

#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

/// How many restarts make one sample, their median.
const RESTARTS: usize = 20;
/// More than have a place: the queue before them is never empty.
const IN_FLIGHT: usize = 300;
/// Few enough that the processors are busy and nobody queues.
const SOME_IN_FLIGHT: usize = 8;

fn main() -> ExitCode {
    if !is_asked_for() {
        return ExitCode::SUCCESS;
    }
    let mut report =
        Report::begin("Does a storm of commands (ours) delay a restart, beside none (reference)?");
    for (name, in_flight, wanted) in [
        (
            "restart, 8 commands at once",
            SOME_IN_FLIGHT,
            Wanted {
                aim: 3.0,
                gate: 10.0,
            },
        ),
        (
            "restart, 300 commands at once",
            IN_FLIGHT,
            Wanted {
                aim: 5.0,
                gate: 10.0,
            },
        ),
    ] {
        let mut bed = Bed::new();
        let mut rates = Vec::new();
        let pairs = {
            let bed = std::cell::RefCell::new(&mut bed);
            Pairs::measure(
                || {
                    let (rate, latency) = bed.borrow_mut().under_storm(in_flight);
                    rates.push(rate);
                    latency
                },
                || bed.borrow_mut().sample(),
            )
        };
        report.compare_to(name, "us", &pairs, Some(wanted));
        report.alone("  commands a second meanwhile", "1/s", &rates);
        bed.end();
    }
    report.end()
}

/// A runtime with one service that tells when it begins.
struct Bed {
    tokio: Handle,
    /// The thread that the runtime's tasks run on.
    driver: thread::JoinHandle<()>,
    stop: oneshot::Sender<()>,
    handle: RuntimeHandle,
    nothing: PathBuf,
    reports: File,
    victim: Began,
    _directory: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let bare = [
            "-static",
            "-nostdlib",
            "-ffreestanding",
            "-fno-stack-protector",
        ];
        let directory = tempfile::tempdir().expect("there is a place for temporary files");
        let fifo = directory.path().join("reports");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .expect("a FIFO can be made");
        // Held open for reading and writing, opening it waits for nobody, and it never ends.
        let mut options = File::options();
        let options = options.read(true).write(true);
        let mut reports = options.open(&fifo).expect("the FIFO was just made");
        let service = CommandSpec::new(compile("child", &bare), [&fifo]);
        let service = Child::command("service", service).expect("the name keeps to the grammar");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("there is room for a runtime");
        let tokio = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        // Ends when the bed does.
        let driver = thread::spawn(move || drop(runtime.block_on(stopped)));
        let builder = Runtime::builder().child(service.governor(Governor::NONE));
        let handle = tokio.block_on(builder.start()).expect("the runtime starts");
        let victim = began(&mut reports);
        Self {
            tokio,
            driver,
            stop,
            handle,
            nothing: compile("nothing", &bare),
            reports,
            victim,
            _directory: directory,
        }
    }

    fn end(self) {
        self.tokio.block_on(self.handle.shutdown());
        drop(self.stop);
        self.driver.join().expect("the runtime does not panic");
    }

    /// Commands a second, and the latency meanwhile.
    fn under_storm(&mut self, in_flight: usize) -> (f64, f64) {
        let storm = Storm::begin(&self.tokio, &self.handle, &self.nothing, in_flight);
        storm.wait_for(in_flight as u64);
        let (begin_ns, before) = (now_ns(), storm.done());
        let latency = self.sample();
        let count = storm.done() - before;
        let rate =
            f64::from(u32::try_from(count).expect("these are few")) * 1e3 / ms_since(begin_ns);
        storm.end(&self.tokio);
        (rate, latency)
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
        self.victim = began(&mut self.reports);
        (self.victim.at_ns - killed_ns) as f64 / 1e3
    }
}

fn began(reports: &mut File) -> Began {
    let mut record = [0; Began::BYTES];
    reports
        .read_exact(&mut record)
        .expect("a report is written whole");
    Began::of(record)
}

/// Commands without end.
struct Storm {
    is_over: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    runners: Vec<JoinHandle<()>>,
}

impl Storm {
    fn begin(tokio: &Handle, handle: &RuntimeHandle, program: &Path, in_flight: usize) -> Self {
        let (is_over, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let runner = |_| {
            let (is_over, done) = (Arc::clone(&is_over), Arc::clone(&done));
            let (handle, program) = (handle.clone(), program.to_owned());
            tokio.spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let command = CommandSpec::new(&program, Vec::<String>::new());
                    let outcome = handle.exec(Exec::new(command)).await;
                    assert_eq!(
                        outcome.expect("the command runs").captured.stdout.head,
                        b"hi\n"
                    );
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let runners = (0..in_flight).map(runner).collect();
        Self {
            is_over,
            done,
            runners,
        }
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn wait_for(&self, count: u64) {
        while self.done() < count {
            thread::yield_now();
        }
    }

    fn end(self, tokio: &Handle) {
        self.is_over.store(true, Ordering::Relaxed);
        for runner in self.runners {
            tokio.block_on(runner).expect("no command fails");
        }
    }
}
