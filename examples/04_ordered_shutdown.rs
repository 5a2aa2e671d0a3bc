//! A shutdown stops in the reverse of the order of starts, and kills what does not listen.
//!
//! `cargo run --example 04_ordered_shutdown`

#![expect(clippy::print_stdout, reason = "an example talks to who runs it")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use kimi_actors::os::{Line, LineSink, Output};
use kimi_actors::policy::event::Fact;
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{CommandSpec, Condition};
use kimi_actors::{Child, Runtime, ShutdownTimeout};
use tokio::sync::mpsc;

/// Passes lines on. It is called by the thread that reads the output of all children, so it never waits.
struct Lines(mpsc::Sender<String>);

impl LineSink for Lines {
    fn line(&self, line: Line<'_>) {
        let text = String::from_utf8_lossy(line.bytes);
        let _full = self.0.try_send(format!("{}: {text}", line.child));
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (sender, mut lines) = mpsc::channel(64);
    // api waits for db, web for api.
    let tree = Runtime::builder()
        .child(service("db", "trap 'echo closed; exit 0' TERM")?)
        .child(
            service("api", "trap 'echo closed; exit 0' TERM")?
                .depends_on("db", Condition::Ready)?,
        )
        .child(
            // Deaf to SIGTERM. It has 200 ms, and is killed then.
            service("web", "trap '' TERM")?
                .depends_on("api", Condition::Ready)?
                .stop(Signal::TERM, Duration::from_millis(200)),
        )
        .output(Output::Lines(Arc::new(Lines(sender))))
        // The whole shutdown takes no longer than this, whatever hangs.
        .shutdown_timeout(ShutdownTimeout::Set(Duration::from_secs(5)))
        .start()
        .await?;

    // Handlers run when every child is down, in the order of their registration, within the same deadline.
    tree.on_shutdown("farewell", || async { println!("every child is down") });

    // Each says so when its trap is set.
    for _ in 0..3 {
        println!("{}", lines.recv().await.ok_or("no line")?);
    }

    let mut events = tree.events();
    let report = tree.shutdown().await;
    assert!(report.survivors.is_empty() && report.cleanups_left == 0);

    // web goes first although it is the slow one: api is not asked before web is gone.
    let mut ends = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let Fact::Exited { child, exit, .. } = event.fact {
            println!("{child}: {exit}");
            ends.push(format!("{child}: {exit}"));
        }
    }
    assert_eq!(ends, ["web: SIGKILL", "api: exit 0", "db: exit 0"]);
    Ok(())
}

fn service(name: &str, trap: &str) -> Result<Child, Box<dyn Error>> {
    // The shell hears a signal while it waits, not while it runs a program in the foreground.
    let script = format!("{trap}; echo up; while :; do sleep 3600 & wait; done");
    Ok(Child::command(name, CommandSpec::shell(script))?)
}
