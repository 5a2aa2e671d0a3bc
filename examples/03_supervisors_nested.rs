//! Supervisors in supervisors: a strategy says who restarts together, an intensity says when that is too much.
//!
//! `cargo run --example 03_supervisors_nested`

#![expect(clippy::print_stdout, reason = "an example talks to who runs it")]

use std::error::Error;
use std::time::Duration;

use kimi_actors::policy::backoff::Backoff;
use kimi_actors::policy::event::{Fact, SupervisorEnd, TreeEvent};
use kimi_actors::policy::intensity::Intensity;
use kimi_actors::policy::restart::Strategy;
use kimi_actors::policy::spec::{CommandSpec, Governor, OnLimit};
use kimi_actors::{Child, Runtime, RuntimeHandle, Supervisor};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::broadcast::Receiver;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // root ─┬─ pipeline (rest_for_one) ─┬─ queue
    //       │                           └─ worker
    //       └─ web
    let one_a_minute = Intensity {
        max_restarts: 1,
        window: Duration::from_secs(60),
    };
    let pipeline = Supervisor::new("pipeline", Strategy::RestForOne)?
        .intensity(one_a_minute, OnLimit::Escalate)
        .child(nap("queue")?)
        .child(nap("worker")?);
    let tree = Runtime::builder()
        .supervisor(pipeline)
        .child(nap("web")?)
        .start()
        .await?;
    for name in ["queue", "worker", "web"] {
        tree.ready(name).await?;
    }
    let web = pid_of(&tree, "web").await?;

    // `worker` comes after `queue`, so with `rest_for_one` it restarts too: stopped first, started last.
    let mut events = tree.events();
    kill(&tree, "queue").await?;
    let group = |fact: &Fact| matches!(fact, Fact::GroupRestart { because_of, .. } if because_of.as_str() == "queue");
    told(&mut events, "queue ended: queue and worker restart", group).await?;
    told(&mut events, "worker is back", is_ready("worker")).await?;

    // One restart was allowed. At the second the supervisor itself ends, and its own supervisor starts it again.
    kill(&tree, "worker").await?;
    let ends = |fact: &Fact| matches!(fact, Fact::SupervisorEnding { why, .. } if *why == SupervisorEnd::Intensity);
    told(&mut events, "too many restarts: pipeline ends", ends).await?;
    let begins = |fact: &Fact| matches!(fact, Fact::SupervisorStarted { .. });
    told(&mut events, "the root starts pipeline again", begins).await?;
    told(&mut events, "worker is back", is_ready("worker")).await?;

    // All that time, what stands elsewhere in the tree was left alone.
    assert_eq!(pid_of(&tree, "web").await?, web);
    tree.shutdown().await;
    Ok(())
}

/// A service that comes back without much delay.
fn nap(name: &str) -> Result<Child, Box<dyn Error>> {
    let governor = Governor {
        backoff: Backoff::NONE,
        ..Governor::standard()
    };
    Ok(Child::command(name, CommandSpec::new("sleep", ["3600"]))?.governor(governor))
}

fn is_ready(name: &str) -> impl Fn(&Fact) -> bool {
    move |fact| matches!(fact, Fact::Ready { child, .. } if child.as_str() == name)
}

async fn told(
    events: &mut Receiver<TreeEvent>,
    what: &str,
    is_it: impl Fn(&Fact) -> bool,
) -> Result<(), Box<dyn Error>> {
    while !is_it(&events.recv().await?.fact) {}
    println!("{what}");
    Ok(())
}

async fn pid_of(tree: &RuntimeHandle, name: &str) -> Result<u32, Box<dyn Error>> {
    let status = tree.status().await?;
    let child = status.iter().find(|child| child.name.as_str() == name);
    child
        .and_then(|child| child.pid)
        .ok_or_else(|| format!("{name} has no process").into())
}

async fn kill(tree: &RuntimeHandle, name: &str) -> Result<(), Box<dyn Error>> {
    let pid = i32::try_from(pid_of(tree, name).await?)?;
    kill_process(Pid::from_raw(pid).ok_or("no process")?, Signal::KILL)?;
    Ok(())
}
