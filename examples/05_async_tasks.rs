//! Async tasks of the program itself are children like any other: the same tree, the same rules.
//!
//! `cargo run --example 05_async_tasks`

#![expect(clippy::print_stdout, reason = "an example talks to who runs it")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kimi_actors::policy::backoff::Backoff;
use kimi_actors::policy::restart::Restart;
use kimi_actors::policy::spec::{CommandSpec, Condition, Governor};
use kimi_actors::{Child, Runtime};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // The body is called for each run. An error is a failure, and a panic is one too: it ends this run and nothing else.
    let tries = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&tries);
    let import = Child::task("import", move |_| {
        let this = count.fetch_add(1, Ordering::Relaxed) + 1;
        async move {
            println!("import: try {this}");
            match this {
                1 => Err("the other side is not there yet".into()),
                2 => panic!("this one is meant"),
                _ => Ok(()),
            }
        }
    })?
    .restart(Restart::OnFailure)
    .governor(Governor {
        backoff: Backoff {
            initial: Duration::from_millis(20),
            ..Backoff::default()
        },
        ..Governor::standard()
    });

    // A task that runs on is told when to end. One that does not listen is aborted after its grace.
    let ticks = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&ticks);
    let ticker = Child::task("ticker", move |context| {
        let count = Arc::clone(&count);
        async move {
            let mut clock = tokio::time::interval(Duration::from_millis(10));
            loop {
                tokio::select! {
                    () = context.stopped() => break,
                    _ = clock.tick() => { count.fetch_add(1, Ordering::Relaxed); }
                }
            }
            println!("ticker: told to end");
            Ok(())
        }
    })?;

    // Programs and tasks can wait for each other: this one starts when the import has succeeded.
    let report = Child::command("report", CommandSpec::shell("exit 0"))?
        .once()
        .depends_on("import", Condition::Succeeded)?;

    let tree = Runtime::builder()
        .child(import)
        .child(ticker)
        .child(report)
        .start()
        .await?;
    tree.ready("report").await?;
    assert_eq!(tries.load(Ordering::Relaxed), 3);

    let report = tree.shutdown().await;
    assert!(report.failed.is_empty());
    assert!(ticks.load(Ordering::Relaxed) > 0);
    println!("done after {} ticks", ticks.load(Ordering::Relaxed));
    Ok(())
}
