//! A shell bridge: a JSON request a line on stdin, many commands at once, a JSON result a line on stdout.
//!
//! `echo '{"command": ["echo", "hi"], "cwd": "/tmp", "timeout": "10s"}' | cargo run --example bridge`; `{"shell": "…"}` runs
//! a line of shell, and `{"session": "a", "shell": "…"}` one in a shell that stays.
//!
//! It ends in order: 0 at the end of its input, 130, 143 and 129 after SIGINT, SIGTERM and SIGHUP.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use kimi_actors::os::guardian::Ward;
use kimi_actors::{ForceExitPolicy, Runtime, SignalOptions};
use kimi_shell::cli::guarded;
use kimi_shell::exit_code;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use answer::Bridge;

mod answer;
mod request;

/// So many requests are under way at once, running or queued in the runtime; the rest waits in the pipe.
const AT_ONCE: usize = 1000;
/// After the end of the runtime, so long is waited for a reader of the last results.
const LAST_RESULTS: Duration = Duration::from_secs(1);

fn main() -> Result<ExitCode, Box<dyn Error>> {
    guarded::run(serve)
}

#[tokio::main(flavor = "current_thread")]
async fn serve(ward: Option<Ward>) -> Result<ExitCode, Box<dyn Error>> {
    kimi_actors::os::signals::normalise();
    let tree = Runtime::builder()
        .signals(SignalOptions::default())
        .force_exit(ForceExitPolicy::ExitProcess)
        .ward(ward)
        .start()
        .await?;

    // Plain threads read and write, so neither a silent stdin nor a stalled stdout holds up the runtime or its end.
    let (lines, mut requests) = mpsc::channel(64);
    thread::spawn(move || request::read(&lines));
    let (results, to_print) = mpsc::channel(64);
    let (is_printed, printed) = oneshot::channel();
    thread::spawn(move || is_printed.send(print(to_print)));

    let bridge = Arc::new(Bridge::new(tree.clone()));
    let mut under_way = JoinSet::new();
    let (mut number, mut at_end) = (0, false);
    while !at_end || !under_way.is_empty() {
        tokio::select! {
            line = requests.recv(), if !at_end && under_way.len() < AT_ONCE => {
                let Some(line) = line else { at_end = true; continue };
                number += 1;
                let (bridge, results) = (Arc::clone(&bridge), results.clone());
                under_way.spawn(async move {
                    let result = bridge.answer(&line, number).await;
                    results.send(result).await.is_ok()
                });
            }
            Some(_) = under_way.join_next() => {}
            _ = tree.wait() => break,
            () = results.closed() => break,
        }
    }
    let report = tree.shutdown().await;
    let last_results = async {
        while under_way.join_next().await.is_some() {}
        drop(results);
        printed.await
    };
    drop(timeout(LAST_RESULTS, last_results).await);
    Ok(ExitCode::from(exit_code::of_report(&report)))
}

fn print(mut results: mpsc::Receiver<Value>) -> io::Result<()> {
    while let Some(result) = results.blocking_recv() {
        writeln!(io::stdout(), "{result}")?;
    }
    Ok(())
}
