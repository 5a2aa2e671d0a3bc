//! What does a command cost, with every bound on: one that is a process, and one of a warm shell?
//!
//! Beside the least that does the same in C, in the same run. For a line of one session more than 1.33 times its time (0.75
//! of its rate) would worry us, and for many processes at once more than the bare `output()` of tokio; the rest is shown.

use std::hint::black_box;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use kimi_actors::policy::admission::Limits;
use kimi_actors::policy::escalation::{Escalation, SignalRules};
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{BaseEnv, CommandSpec};
use kimi_actors::policy::time::Moment;
use kimi_actors::session::{Line, LineEnd, Session, SessionSpec};
use kimi_actors::{Exec, Runtime, RuntimeHandle};
use tokio::runtime::Runtime as Tokio;

use crate::support::process::{command, compile, status};
use crate::support::report::{Report, Wanted};
use crate::support::sample::Pairs;
use crate::support::{is_asked_for, ms_since, now_ns};

#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

/// 0.75 of the rate of the reference, as a ratio of times; the aim is 0.9.
const WANTED: Wanted = Wanted {
    aim: 1.0 / 0.9,
    gate: 1.0 / 0.75,
};
const NO_SLOWER: Wanted = Wanted {
    aim: 1.0,
    gate: 1.0,
};
/// Commands in one sample.
const PROCESSES: usize = 1000;
const LINES: usize = 4000;
const IN_FLIGHT: usize = 16;
const SESSIONS: usize = 4;
/// The argument of the process that measures memory.
const MEMORY: &str = "--memory";
const HEAP_BYTES: usize = 512 << 20;

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == MEMORY) {
        print_memory();
        return ExitCode::SUCCESS;
    }
    if !is_asked_for() {
        return ExitCode::SUCCESS;
    }
    let mut report =
        Report::begin("What does a command cost: as a process of its own, and in a warm shell?");
    let bed = Bed::new();
    processes(&bed, &mut report);
    lines(&bed, &mut report);
    peers(&bed, &mut report);
    memory(&mut report);
    bed.end();
    report.end()
}

/// A runtime with all that a program has, and what it is compared with.
struct Bed {
    tokio: Tokio,
    handle: RuntimeHandle,
    nothing: PathBuf,
    limit: PathBuf,
    driver: PathBuf,
}

impl Bed {
    fn new() -> Self {
        let bare = [
            "-static",
            "-nostdlib",
            "-ffreestanding",
            "-fno-stack-protector",
        ];
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("there is room for a runtime");
        let handle = tokio
            .block_on(Runtime::builder().start())
            .expect("the runtime starts");
        Self {
            tokio,
            handle,
            nothing: compile("nothing", &bare),
            limit: compile("exec", &["-pthread"]),
            driver: compile("session", &["-pthread"]),
        }
    }

    fn end(self) {
        self.tokio.block_on(self.handle.shutdown());
    }

    /// Microseconds a command, with so many in flight.
    fn ours(&self, program: &Path, in_flight: usize) -> f64 {
        self.tokio.block_on(async {
            let begin_ns = now_ns();
            let spec = || CommandSpec::new(program, Vec::<String>::new());
            let runners = (0..in_flight).map(|_| {
                let (handle, command) = (self.handle.clone(), spec());
                tokio::spawn(async move {
                    for _ in 0..PROCESSES / in_flight {
                        let outcome = handle.exec(Exec::new(command.clone())).await;
                        let captured = outcome.expect("the command runs").captured;
                        assert_eq!(captured.stdout.head, b"hi\n");
                    }
                })
            });
            let runners: Vec<_> = runners.collect();
            for runner in runners {
                runner.await.expect("no command fails");
            }
            each(begin_ns, PROCESSES / in_flight * in_flight)
        })
    }

    /// The same with nothing but tokio.
    fn tokio(&self, program: &Path, in_flight: usize) -> f64 {
        self.tokio.block_on(async {
            let begin_ns = now_ns();
            let runners = (0..in_flight).map(|_| {
                let program = program.to_owned();
                tokio::spawn(async move {
                    for _ in 0..PROCESSES / in_flight {
                        let mut command = tokio::process::Command::from(command(program.clone()));
                        let output = command.stdin(std::process::Stdio::null()).output().await;
                        assert_eq!(output.expect("the command runs").stdout, b"hi\n");
                    }
                })
            });
            let runners: Vec<_> = runners.collect();
            for runner in runners {
                runner.await.expect("no command fails");
            }
            each(begin_ns, PROCESSES / in_flight * in_flight)
        })
    }

    /// The same in C, in so many threads.
    fn limit(&self, program: &Path, threads: usize) -> f64 {
        rate(
            command(self.limit.clone())
                .args([&threads.to_string(), &PROCESSES.to_string()])
                .arg(program),
        )
    }

    /// Microseconds a line, in so many sessions at once, each driven by a thread of its own, as in the reference.
    fn session(&self, sessions: usize, line: &str) -> f64 {
        let drivers: Vec<_> = (0..sessions)
            .map(|_| {
                let (handle, line) = (self.handle.clone(), Line::new(line));
                thread::spawn(move || drive(handle, &line))
            })
            .collect();
        // The runtime itself needs its thread only while the shells begin and end.
        let spans = self.tokio.block_on(async {
            let wait = || {
                drivers
                    .into_iter()
                    .map(|driver| driver.join().expect("no line fails"))
            };
            tokio::task::spawn_blocking(move || wait().collect::<Vec<_>>())
                .await
                .expect("the drivers end")
        });
        let begin = spans.iter().map(|span| span.0).min().unwrap_or_default();
        let end = spans.iter().map(|span| span.1).max().unwrap_or_default();
        per_line(end - begin, sessions)
    }

    fn driver(&self, sessions: usize, line: &str) -> f64 {
        rate(command(self.driver.clone()).args([
            "/bin/sh",
            &sessions.to_string(),
            &LINES.to_string(),
            line,
        ]))
    }
}

/// Runs a line that often in a warm shell; returns when that began and ended.
fn drive(handle: RuntimeHandle, line: &Line) -> (i64, i64) {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("there is room for a runtime");
    tokio.block_on(async {
        let mut session = Session::new(handle, SessionSpec::default());
        session.warm().await.expect("there is a shell");
        let begin_ns = now_ns();
        for _ in 0..LINES {
            let outcome = session.run(line).await.expect("the shell lives");
            assert_eq!(outcome.end, LineEnd::Status(0));
            assert_eq!(outcome.stdout.head, b"hi\n");
        }
        (begin_ns, now_ns())
    })
}

#[expect(clippy::cast_precision_loss, reason = "these are few")]
fn each(begin_ns: i64, count: usize) -> f64 {
    ms_since(begin_ns) * 1e3 / count as f64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nanoseconds of less than a minute"
)]
fn per_line(span_ns: i64, sessions: usize) -> f64 {
    span_ns as f64 / 1e3 / (sessions * LINES) as f64
}

/// What a reference prints is commands a second; we want microseconds each.
fn rate(command: &mut std::process::Command) -> f64 {
    let output = command.output().expect("the reference was compiled");
    let text = String::from_utf8(output.stdout).expect("it prints a number");
    let rate: f64 = text.trim().parse().expect("it prints a number");
    1e6 / rate
}

fn processes(bed: &Bed, report: &mut Report) {
    let small = bed.nothing.as_path();
    let alone = Pairs::measure(|| bed.ours(small, 1), || bed.limit(small, 1));
    report.compare("a command, one at a time", "us", &alone);
    let many = Pairs::measure(|| bed.ours(small, IN_FLIGHT), || bed.limit(small, 2));
    report.compare_to("a command, 16 in flight", "us", &many, Some(WANTED));
    let tokio = Pairs::measure(|| bed.ours(small, 1), || bed.tokio(small, 1));
    report.compare("one at a time, to tokio's output()", "us", &tokio);
    let tokio = Pairs::measure(
        || bed.ours(small, IN_FLIGHT),
        || bed.tokio(small, IN_FLIGHT),
    );
    report.compare_to(
        "16 in flight, to tokio's output()",
        "us",
        &tokio,
        Some(NO_SLOWER),
    );
    let echo = Path::new("/bin/sh");
    let shell = ["-c", "echo hi"];
    let spec = || CommandSpec::new(echo, shell);
    let ours = |env: bool, cwd: bool| {
        bed.tokio.block_on(async {
            let begin_ns = now_ns();
            for _ in 0..PROCESSES {
                let mut command = spec();
                if env {
                    command.base_env = BaseEnv::Empty;
                    command.env = vec![("KIMI_BENCH".into(), "1".into())];
                }
                if cwd {
                    command.cwd = Some("/".into());
                }
                let outcome = bed.handle.exec(Exec::new(command)).await;
                assert_eq!(
                    outcome.expect("the command runs").captured.stdout.head,
                    b"hi\n"
                );
            }
            each(begin_ns, PROCESSES)
        })
    };
    let reference = || {
        let threads_and_count = ["1".to_owned(), PROCESSES.to_string()];
        let mut command = command(bed.limit.clone());
        rate(command.args(threads_and_count).arg(echo).args(shell))
    };
    for (name, env, cwd) in [
        ("sh -c, one at a time", false, false),
        ("sh -c, with an environment", true, false),
        ("sh -c, with a directory", false, true),
    ] {
        let pairs = Pairs::measure(|| ours(env, cwd), reference);
        report.compare(name, "us", &pairs);
    }
}

fn lines(bed: &Bed, report: &mut Report) {
    for (name, sessions, line, wanted) in [
        ("a line, one session", 1, "echo hi", Some(WANTED)),
        ("a line, four sessions", SESSIONS, "echo hi", Some(WANTED)),
        (
            "a line with an environment",
            1,
            "KIMI_BENCH=1 command echo hi",
            None,
        ),
        ("a line with a directory", 1, "cd / && echo hi", None),
    ] {
        let pairs = Pairs::measure(
            || bed.session(sessions, line),
            || bed.driver(sessions, line),
        );
        report.compare_to(name, "us", &pairs, wanted);
    }
}

/// What a command takes beyond what it wrote, running and waiting; and whether a large heap of ours makes it dear.
fn memory(report: &mut Report) {
    let measured = || -> [f64; 3] {
        let ours = std::env::current_exe().expect("the system knows this program");
        let output = command(ours)
            .arg(MEMORY)
            .output()
            .expect("it can be started anew");
        let text = String::from_utf8(output.stdout).expect("it prints numbers");
        let numbers: Vec<f64> = text
            .split_whitespace()
            .map(|word| word.parse().expect("a number"))
            .collect();
        numbers.try_into().expect("three numbers")
    };
    let rounds: Vec<[f64; 3]> = (0..7).map(|_| measured()).collect();
    let column = |n: usize| rounds.iter().map(|round| round[n]).collect::<Vec<_>>();
    report.alone("a command that runs or waits", "KB", &column(0));
    let most = column(0).into_iter().fold(0.0, f64::max);
    let holds = if most <= 16.0 {
        Ok(())
    } else {
        Err(format!("{most:.1} KB"))
    };
    report.require("at most 16 KB a command", holds);
    let pairs = Pairs {
        ours: column(2),
        reference: column(1),
    };
    let wanted = Wanted {
        aim: 1.0,
        gate: 1.25,
    };
    report.compare_to(
        "with a heap of 512 MB, to without",
        "us",
        &pairs,
        Some(wanted),
    );
}

/// Prints what a command takes in kilobytes, then what one costs without and with a large heap; in a process of its own, so
/// that no memory of former figures is used again.
fn print_memory() {
    let bed = Bed::new();
    let limits = Limits::default();
    let asked = (limits.max_concurrent + limits.queue) as usize;
    let rss = || status(std::process::id(), "VmRSS:");
    let held = bed.tokio.block_on(async {
        let sleep = || Exec::new(CommandSpec::new("/bin/sleep", ["60"]));
        let before = rss();
        let tickets: Vec<_> = (0..asked).map(|_| bed.handle.begin_exec(sleep())).collect();
        // Until all that have a place run.
        while child_count() < limits.max_concurrent as usize {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let held = rss().saturating_sub(before);
        drop(tickets);
        while child_count() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        held
    });
    let light = bed.ours(&bed.nothing, 1);
    let heap = vec![1_u8; HEAP_BYTES];
    let heavy = bed.ours(&bed.nothing, 1);
    assert_eq!(heap.last(), Some(&1));
    #[expect(clippy::cast_precision_loss, reason = "these are few")]
    let each = held as f64 / asked as f64;
    drop(writeln!(std::io::stdout(), "{each} {light} {heavy}"));
    bed.end();
}

/// Of this process, whichever of its threads started them.
fn child_count() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("we are here");
    tasks
        .map(|task| {
            let path = task
                .expect("a directory can be read")
                .path()
                .join("children");
            std::fs::read_to_string(path)
                .unwrap_or_default()
                .split_whitespace()
                .count()
        })
        .sum()
}

/// Beside Bun, where it is: in the `PATH`, or installed by `npm install --prefix benches/peers bun`.
fn peers(bed: &Bed, report: &mut Report) {
    let Some(bun) = bun() else {
        Report::note("no bun here: not compared with it");
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/commands.js");
    let peer = |way: &str, count: usize| {
        let mut command = command(bun.clone());
        command
            .arg(&script)
            .args([way, &count.to_string()])
            .arg(&bed.nothing);
        rate(&mut command)
    };
    let small = bed.nothing.as_path();
    for (name, in_flight) in [
        ("one at a time, to Bun.spawn", 1),
        ("16 in flight, to Bun.spawn", IN_FLIGHT),
    ] {
        let pairs = Pairs::measure(|| bed.ours(small, in_flight), || peer("spawn", PROCESSES));
        report.compare(name, "us", &pairs);
    }
    let pairs = Pairs::measure(|| bed.session(SESSIONS, "echo hi"), || peer("shell", LINES));
    report.compare("a line, four sessions, to Bun's $", "us", &pairs);
    let handlers = 10_000;
    let pairs = Pairs::measure(|| bed.registration(handlers), || peer("on", handlers));
    report.compare_to(
        "register a handler, to process.on",
        "us",
        &pairs,
        Some(NO_SLOWER),
    );
    let many = 1_000_000;
    let pairs = Pairs::measure(|| bed.count(many), || peer("count", many));
    report.compare_to(
        "count the handlers, to listenerCount",
        "us",
        &pairs,
        Some(NO_SLOWER),
    );
    let pairs = Pairs::measure(|| dispatch(many), || peer("emit", many));
    report.compare_to("dispatch a signal, to emit", "us", &pairs, Some(NO_SLOWER));
}

fn bun() -> Option<PathBuf> {
    let installed =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/node_modules/.bin/bun");
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&in_path)
        .map(|directory| directory.join("bun"))
        .chain([installed])
        .find(|path| path.exists())
}

/// What the signal thread decides by for each signal, in microseconds.
fn dispatch(count: usize) -> f64 {
    let mut escalation = Escalation::new(SignalRules::default());
    let begin_ns = now_ns();
    for _ in 0..count {
        black_box(escalation.next(black_box(Signal::USR1), black_box(Moment::ZERO)));
    }
    each(begin_ns, count)
}

impl Bed {
    /// Registers handlers with a runtime of their own, in microseconds each.
    fn registration(&self, count: usize) -> f64 {
        self.tokio.block_on(async {
            let handle = Runtime::builder()
                .start()
                .await
                .expect("the runtime starts");
            let begin_ns = now_ns();
            for number in 0..count {
                handle.on_shutdown("bench", move || async move {
                    black_box(number);
                });
            }
            let each = each(begin_ns, count);
            handle.shutdown().await;
            each
        })
    }

    fn count(&self, count: usize) -> f64 {
        let begin_ns = now_ns();
        for _ in 0..count {
            black_box(black_box(&self.handle).cleanup_count());
        }
        each(begin_ns, count)
    }
}
