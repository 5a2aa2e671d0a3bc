//! One child: start it, look at it, stop it, and nothing is left.
//!
//! `cargo run --example 01_one_child`

#![expect(clippy::print_stdout, reason = "an example talks to who runs it")]

use std::error::Error;
use std::path::Path;

use kimi_actors::policy::spec::CommandSpec;
use kimi_actors::policy::tree::State;
use kimi_actors::{Child, Runtime};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // A child is a name, a command and rules. Without rules of its own it is a service: always restarted.
    let nap = Child::command("nap", CommandSpec::new("sleep", ["3600"]))?;

    // The tree of a runtime is a root supervisor and what you put below it. Starting returns at once.
    let tree = Runtime::builder().child(nap).start().await?;

    // A child without a probe is ready when it runs, and it runs once the kernel has executed the program.
    tree.ready("nap").await?;
    let status = tree.status().await?;
    let nap = status.iter().find(|child| child.name.as_str() == "nap");
    let pid = nap.and_then(|nap| nap.pid).ok_or("nap has no process")?;
    println!("nap runs as process {pid}");

    // It leads a session of its own, so whatever it starts can be stopped with it.
    let process = format!("/proc/{pid}");
    assert!(Path::new(&process).exists());

    // Stopping returns when the process is gone: not asked to go, not a zombie, gone. The runtime lives on.
    tree.stop(&["nap"]).await?;
    assert!(!Path::new(&process).exists());
    let nap = tree.status().await?.pop().ok_or("no status")?;
    assert_eq!(nap.state, State::Stopped);
    println!("nap is {}", nap.state.as_str());

    // The end of the runtime stops the rest in order and says how it went.
    let report = tree.shutdown().await;
    assert!(report.failed.is_empty() && report.survivors.is_empty());
    println!("ended: {:?}", report.reason);
    Ok(())
}
