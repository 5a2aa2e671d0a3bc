//! A child that crashes comes back: a little later each time, and not for ever.
//!
//! `cargo run --example 02_restart_with_backoff`

#![expect(clippy::print_stdout, reason = "an example talks to who runs it")]

use std::error::Error;
use std::time::Duration;

use kimi_actors::policy::backoff::Backoff;
use kimi_actors::policy::event::{Fact, FailedBecause};
use kimi_actors::policy::intensity::Intensity;
use kimi_actors::policy::restart::Restart;
use kimi_actors::policy::spec::{CommandSpec, Governor, OnLimit};
use kimi_actors::{Child, Runtime};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // The governor of a child: how long to wait before a restart, and how many in a window are too many.
    let governor = Governor {
        backoff: Backoff {
            initial: Duration::from_millis(50),
            factor: 2.0,
            max: Duration::from_secs(1),
            jitter: 0.1,
            // A run that was good for so long restarts at once and forgives those before it.
            reset_after: Duration::from_secs(10),
        },
        limit: Some(Intensity {
            max_restarts: 3,
            window: Duration::from_secs(60),
        }),
        // It is `failed` then, and its siblings live. See `OnLimit` for the other answers.
        on_limit: OnLimit::GiveUp,
    };
    let crasher = Child::command("crasher", CommandSpec::shell("exit 7"))?
        .restart(Restart::OnFailure)
        .governor(governor);
    let sibling = Child::command("sibling", CommandSpec::new("sleep", ["3600"]))?;

    // Idle, so that the subscription is there before the first event.
    let tree = Runtime::builder()
        .child(crasher)
        .child(sibling)
        .start_idle()
        .await?;
    let mut events = tree.events();
    tree.start_all()?;

    let mut delays = Vec::new();
    loop {
        let fact = events.recv().await?.fact;
        if let Fact::RestartScheduled { child, delay, .. } = fact {
            println!("{child}: again in {delay:?}");
            delays.push(delay.as_secs_f64());
        } else if let Fact::Failed { child, why } = fact {
            println!("{child}: given up");
            assert_eq!(why, FailedBecause::Limit);
            break;
        }
    }

    // Three restarts, each delay twice the one before, moved by a tenth at most; the fourth was one too many.
    assert_eq!(delays.len(), 3);
    for (delay, nominal) in delays.iter().zip([0.05, 0.1, 0.2]) {
        assert!((nominal * 0.9..=nominal * 1.1).contains(delay));
    }
    tree.ready("sibling").await?;

    // What had failed before the end is in the report.
    let report = tree.shutdown().await;
    assert_eq!(report.failed.len(), 1);
    println!("failed: {:?}", report.failed);
    Ok(())
}
