//! What does a command cost, with every bound on: one that is a process, and one of a warm shell?
//!
//! Beside the least that does the same in C, in the same run. More than 1.33 times its time (0.75 of its rate) would worry
//! us, and so would a process that costs more than the bare `output()` of tokio.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use kimi_actors::policy::admission::Limits;
use kimi_actors::policy::spec::{BaseEnv, CommandSpec};
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
const HEAP_BYTES: usize = 512 << 20;

fn main() -> ExitCode {
    if !is_asked_for() {
        return ExitCode::SUCCESS;
    }
    let mut report =
        Report::begin("What does a command cost: as a process of its own, and in a warm shell?");
    let bed = Bed::new();
    processes(&bed, &mut report);
    lines(&bed, &mut report);
    memory(&bed, &mut report);
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
    report.compare_to("a command, one at a time", "us", &alone, Some(WANTED));
    let many = Pairs::measure(|| bed.ours(small, IN_FLIGHT), || bed.limit(small, 2));
    report.compare_to("a command, 16 in flight", "us", &many, Some(WANTED));
    let tokio = Pairs::measure(|| bed.ours(small, 1), || bed.tokio(small, 1));
    report.compare_to(
        "one at a time, to tokio's output()",
        "us",
        &tokio,
        Some(NO_SLOWER),
    );
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
fn memory(bed: &Bed, report: &mut Report) {
    let small = bed.nothing.as_path();
    let limits = Limits::default();
    let asked = (limits.max_concurrent + limits.queue) as usize;
    bed.tokio.block_on(async {
        let rss = || status(std::process::id(), "VmRSS:");
        let sleep = || Exec::new(CommandSpec::new("/bin/sleep", ["60"]));
        // What the allocator keeps from the first time does not count.
        for _ in 0..2 {
            let before = rss();
            let tickets: Vec<_> = (0..asked).map(|_| bed.handle.begin_exec(sleep())).collect();
            // Answered after all that was asked for.
            bed.handle.status().await.expect("the runtime runs");
            tokio::time::sleep(Duration::from_millis(300)).await;
            #[expect(clippy::cast_precision_loss, reason = "these are few")]
            let each = rss().saturating_sub(before) as f64 / asked as f64;
            drop(tickets);
            report.alone("memory of a running or waiting command", "KB", &[each]);
            report.require(
                "at most 16 KB a command",
                if each <= 16.0 {
                    Ok(())
                } else {
                    Err(format!("{each:.1} KB"))
                },
            );
        }
    });
    let light = || bed.ours(small, 1);
    let heap = std::cell::OnceCell::new();
    let heavy = || {
        heap.get_or_init(|| vec![1_u8; HEAP_BYTES]);
        bed.ours(small, 1)
    };
    let before: Vec<f64> = (0..7).map(|_| light()).collect();
    let after: Vec<f64> = (0..7).map(|_| heavy()).collect();
    report.alone("one at a time", "us", &before);
    report.alone("one at a time, with a heap of 512 MB", "us", &after);
}
