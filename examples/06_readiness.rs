//! A dependent starts when the server that it needs answers, not when the server's process exists.
//!
//! `cargo run --example 06_readiness`

#![expect(clippy::print_stdout, reason = "an example talks to who runs it")]

use std::error::Error;
use std::net::TcpListener;
use std::time::Duration;

use kimi_actors::policy::event::Fact;
use kimi_actors::policy::probe::{Check, Probe, ProbeRules};
use kimi_actors::policy::spec::{CommandSpec, Condition};
use kimi_actors::{Child, Runtime};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    // It takes a moment before it listens.
    let serve = format!("sleep 0.3; exec python3 -m http.server --bind 127.0.0.1 {port}");
    let answers = Probe {
        check: Check::Http {
            host: "127.0.0.1".to_owned(),
            port,
            path: "/".to_owned(),
        },
        rules: ProbeRules {
            interval: Duration::from_millis(50),
            ..ProbeRules::default()
        },
    };
    // A client says by itself when it is ready: it writes a newline to a descriptor that it inherits.
    let says_so = Probe::new(Check::NotifyFd { fd: 3 });
    let tree = Runtime::builder()
        .child(
            Child::command("server", CommandSpec::shell(serve))?
                .readiness(answers.clone())
                // From then on the same question tells whether it lives.
                .liveness(answers),
        )
        .child(
            Child::command("client", CommandSpec::shell("echo >&3; exec sleep 3600"))?
                .readiness(says_so)
                .depends_on("server", Condition::Ready)?,
        )
        .start_idle()
        .await?;
    let mut events = tree.events();
    tree.start_all()?;
    tree.ready("client").await?;

    let mut order = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let Fact::Running { child, .. } = &event.fact {
            order.push(format!("{child} runs"));
        } else if let Fact::Ready { child, .. } = &event.fact {
            order.push(format!("{child} is ready"));
        }
    }
    println!("{}", order.join(", "));
    let expected = [
        "server runs",
        "server is ready",
        "client runs",
        "client is ready",
    ];
    assert_eq!(order, expected);
    tree.shutdown().await;
    Ok(())
}
