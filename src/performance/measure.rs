//! Measures on this machine what the benchmark summary promises.

use std::hint::black_box;
use std::io;

use kimi_actors::os::clock::Clock;
use kimi_actors::policy::admission::{Limits, RequestId};
use kimi_actors::policy::escalation::{Escalation, SignalRules};
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::CommandSpec;
use kimi_actors::policy::telemetry::{Entry, Operation, Outcome, Span, Subject, Telemetry};
use kimi_actors::policy::time::Moment;
use kimi_actors::session::{Line, Session, SessionError, SessionSpec};
use kimi_actors::{Exec, ExecError, Receipt, Runtime, RuntimeHandle, StartError};

use crate::performance::Metrics;

/// How often each figure is measured; the middle one counts.
const ROUNDS: usize = 7;
const HANDLERS: u32 = 20_000;
const COUNTS: u32 = 1_000_000;
const DISPATCHES: u32 = 200_000;
/// Commands that wait while their memory is counted.
const WAITING: u32 = 20_000;
const LINES: u32 = 1_000;
const PROCESSES: u32 = 200;
/// How many sessions are driven at once.
const SESSIONS: u32 = 4;

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What was measured.
    pub name: &'static str,
    /// The key under which programs find it.
    pub key: &'static str,
    /// The median, and the quartiles around it.
    pub value: Value,
    /// What of it is judged by the thresholds.
    pub judged: Metrics,
}

/// A measured value with its unit: the median, with the quartiles where there is more than one sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Operations a second.
    OpsPerSec(Spread),
    /// Milliseconds.
    Milliseconds(Spread),
    /// Bytes.
    Bytes(u64),
}

/// The quartiles of the samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// A quarter lies below.
    pub low: f64,
    /// The median.
    pub median: f64,
    /// A quarter lies above.
    pub high: f64,
}

/// Everything that was measured, in the order of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured(pub Vec<Figure>);

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// There is no runtime to measure.
    #[error("cannot start a runtime to measure")]
    Runtime(#[source] StartError),
    /// Nor an async one.
    #[error("cannot start a runtime to measure")]
    Setup(#[source] io::Error),
    /// A command failed.
    #[error("cannot run a command to measure")]
    Command(#[from] ExecError),
    /// A shell failed.
    #[error("cannot run a line in a shell to measure")]
    Session(#[from] SessionError),
    /// A thread that measured is gone.
    #[error("cannot finish measuring: a part of it was lost")]
    Lost,
}

/// Measures everything; takes a few seconds and one core or two.
pub fn measure() -> Result<Measured, MeasureError> {
    let base = resident();
    let each = per_command()?;
    let mut figures = signals()?;
    figures.extend(commands()?);
    figures.push(Figure {
        name: "Base footprint",
        key: "base_footprint",
        value: Value::Bytes(base),
        judged: Metrics {
            memory: Some(base),
            ..Metrics::default()
        },
    });
    figures.push(size("Per-command overhead", "per_command", each));
    figures.push(size("Signal state", "signal_state", size_of::<Receipt>()));
    figures.push(size(
        "Telemetry entry",
        "telemetry_entry",
        telemetry_entry(),
    ));
    Ok(Measured(figures))
}

fn size(name: &'static str, key: &'static str, bytes: usize) -> Figure {
    Figure {
        name,
        key,
        value: Value::Bytes(u64::try_from(bytes).unwrap_or(u64::MAX)),
        judged: Metrics::default(),
    }
}

/// What this process holds of the machine's memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: Option<u64> =
        line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok());
    kilobytes.unwrap_or_default() * 1024
}

fn tokio() -> Result<tokio::runtime::Runtime, MeasureError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(MeasureError::Setup)
}

/// The median of some rounds of `measure`, which answers in seconds.
fn spread(mut measure: impl FnMut() -> Result<f64, MeasureError>) -> Result<Spread, MeasureError> {
    let mut samples = Vec::with_capacity(ROUNDS);
    // The first round warms up and does not count.
    measure()?;
    for _ in 0..ROUNDS {
        samples.push(measure()?);
    }
    samples.sort_by(f64::total_cmp);
    Ok(Spread {
        low: samples[ROUNDS / 4],
        median: samples[ROUNDS / 2],
        high: samples[ROUNDS - 1 - ROUNDS / 4],
    })
}

fn milliseconds(seconds: Spread) -> Value {
    Value::Milliseconds(Spread {
        low: seconds.low * 1e3,
        median: seconds.median * 1e3,
        high: seconds.high * 1e3,
    })
}

/// So many operations in these seconds.
fn rate(count: u32, seconds: Spread) -> Value {
    let rate = |seconds: f64| f64::from(count) / seconds;
    Value::OpsPerSec(Spread {
        low: rate(seconds.high),
        median: rate(seconds.median),
        high: rate(seconds.low),
    })
}

fn timed<T>(clock: Clock, work: impl FnOnce() -> T) -> (T, f64) {
    let begin = clock.now();
    let result = work();
    (result, clock.now().since(begin).as_secs_f64())
}

/// How signals and the handlers of the shutdown fare.
fn signals() -> Result<Vec<Figure>, MeasureError> {
    let clock = Clock::start();
    let tokio = tokio()?;
    let start = || {
        tokio
            .block_on(Runtime::builder().start())
            .map_err(MeasureError::Runtime)
    };
    let registration = spread(|| {
        let handle = start()?;
        // With something to own, as handlers have.
        let register = || {
            for number in 0..HANDLERS {
                handle.on_shutdown("bench", move || async move {
                    black_box(number);
                });
            }
        };
        let ((), seconds) = timed(clock, register);
        tokio.block_on(handle.shutdown());
        Ok(seconds)
    })?;
    let handle = start()?;
    handle.on_shutdown("bench", || async {});
    let count = spread(|| {
        let ask = || {
            for _ in 0..COUNTS {
                black_box(black_box(&handle).cleanup_count());
            }
        };
        Ok(timed(clock, ask).1)
    })?;
    tokio.block_on(handle.shutdown());
    let dispatch = spread(|| {
        let mut escalation = Escalation::new(SignalRules::default());
        let decide = || {
            for _ in 0..DISPATCHES {
                black_box(escalation.next(black_box(Signal::USR1), black_box(Moment::ZERO)));
            }
        };
        Ok(timed(clock, decide).1 / f64::from(DISPATCHES))
    })?;
    let shutdown = spread(|| {
        let handle = start()?;
        let (_, seconds) = timed(clock, || tokio.block_on(handle.shutdown()));
        Ok(seconds)
    })?;
    let plain = |name, key, value| Figure {
        name,
        key,
        value,
        judged: Metrics::default(),
    };
    Ok(vec![
        plain(
            "Handler registration",
            "handler_registration",
            rate(HANDLERS, registration),
        ),
        plain("Handler count", "handler_count", rate(COUNTS, count)),
        plain(
            "Dispatch latency",
            "dispatch_latency",
            milliseconds(dispatch),
        ),
        plain(
            "Baseline shutdown",
            "baseline_shutdown",
            milliseconds(shutdown),
        ),
    ])
}

/// What an entry of the telemetry takes when as many are held as are kept, in bytes.
fn telemetry_entry() -> usize {
    let mut telemetry = Telemetry::default();
    for number in 0..Telemetry::KEPT {
        telemetry.note(Entry {
            at: Moment::ZERO,
            operation: Operation::Exec,
            subject: Subject::Command(RequestId(number as u64)),
            outcome: Outcome::Done,
            waited: Span::default(),
            took: Span::default(),
        });
    }
    telemetry.held_bytes() / Telemetry::KEPT
}

/// What a command takes that waits for its place, in bytes.
fn per_command() -> Result<usize, MeasureError> {
    let limits = Limits {
        max_concurrent: 1,
        queue: WAITING,
        ..Limits::default()
    };
    let tokio = tokio()?;
    tokio.block_on(async {
        let handle = Runtime::builder()
            .limits(limits)
            .start()
            .await
            .map_err(MeasureError::Runtime)?;
        let sleep = || Exec::new(CommandSpec::new("sleep", ["60"]));
        let before = resident();
        let tickets: Vec<_> = (0..WAITING).map(|_| handle.begin_exec(sleep())).collect();
        // Answered after all that was asked for before.
        let _status = handle.status().await;
        let held = resident().saturating_sub(before);
        drop(tickets);
        handle.shutdown().await;
        Ok(usize::try_from(held / u64::from(WAITING)).unwrap_or(usize::MAX))
    })
}

/// How commands fare: lines of warm shells, and processes of their own.
fn commands() -> Result<Vec<Figure>, MeasureError> {
    let clock = Clock::start();
    let tokio = tokio()?;
    let handle = tokio
        .block_on(Runtime::builder().start())
        .map_err(MeasureError::Runtime)?;
    let mut figures = Vec::new();
    for (name, key, sessions, line) in [
        ("Simple command", "simple_command", SESSIONS, "echo hi"),
        (
            "With env vars",
            "with_env",
            SESSIONS,
            "KIMI_BENCH=1 command echo hi",
        ),
        ("With cwd change", "with_cwd", SESSIONS, "cd / && echo hi"),
        (
            "Full wrapper",
            "full_wrapper",
            SESSIONS,
            "cd / && KIMI_BENCH=1 command echo hi",
        ),
        (
            "Simple command, one at a time",
            "simple_command_alone",
            1,
            "echo hi",
        ),
    ] {
        let seconds = spread(|| tokio.block_on(lines(&handle, clock, sessions, line)))?;
        let value = rate(sessions * LINES, seconds);
        let judged = if sessions == SESSIONS {
            judged(value)
        } else {
            Metrics::default()
        };
        figures.push(Figure {
            name,
            key,
            value,
            judged,
        });
    }
    let seconds = spread(|| tokio.block_on(processes(&handle, clock)))?;
    figures.push(Figure {
        name: "Command with a process of its own",
        key: "process",
        value: rate(PROCESSES, seconds),
        judged: Metrics::default(),
    });
    tokio.block_on(handle.shutdown());
    Ok(figures)
}

/// The rate, and the average time that follows from it.
fn judged(value: Value) -> Metrics {
    match value {
        Value::OpsPerSec(spread) => Metrics {
            ops_per_sec: Some(spread.median),
            latency_ms: Some(1e3 / spread.median),
            memory: None,
        },
        Value::Milliseconds(_) | Value::Bytes(_) => Metrics::default(),
    }
}

/// Seconds for the lines of all sessions, each driven by a thread of its own; their shells are warm before.
async fn lines(
    handle: &RuntimeHandle,
    clock: Clock,
    sessions: u32,
    line: &'static str,
) -> Result<f64, MeasureError> {
    let drivers: Vec<_> = (0..sessions)
        .map(|_| {
            let handle = handle.clone();
            tokio::task::spawn_blocking(move || drive(handle, clock, line))
        })
        .collect();
    let (mut begin, mut end) = (None::<Moment>, Moment::ZERO);
    for driver in drivers {
        let span = driver.await.map_err(|_| MeasureError::Lost)??;
        begin = Some(begin.map_or(span.0, |begin| begin.min(span.0)));
        end = end.max(span.1);
    }
    Ok(end.since(begin.unwrap_or(end)).as_secs_f64())
}

fn drive(
    handle: RuntimeHandle,
    clock: Clock,
    line: &str,
) -> Result<(Moment, Moment), MeasureError> {
    let line = Line::new(line);
    tokio()?.block_on(async {
        let mut session = Session::new(handle, SessionSpec::default());
        session.warm().await?;
        let begin = clock.now();
        for _ in 0..LINES {
            session.run(&line).await?;
        }
        Ok((begin, clock.now()))
    })
}

/// Seconds for some commands, one after another.
async fn processes(handle: &RuntimeHandle, clock: Clock) -> Result<f64, MeasureError> {
    let begin = clock.now();
    for _ in 0..PROCESSES {
        let command = CommandSpec::new("true", Vec::<String>::new());
        handle.exec(Exec::new(command)).await?;
    }
    Ok(clock.now().since(begin).as_secs_f64())
}
