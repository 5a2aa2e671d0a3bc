//! The library at work in a process of its own: this program, started anew with other arguments.

use std::io::Write;
use std::process::ExitCode;

use kimi_actors::os::{limits, signals};
use kimi_actors::policy::spec::{CommandSpec, Governor};
use kimi_actors::{Child, ForceExitPolicy, Runtime, SignalOptions};

/// Stands before the arguments of such a process.
pub(crate) const ARGUMENT: &str = "--library";

/// If this process is to be one, lives as one.
pub(crate) fn serve() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, first, count, command @ ..] = &arguments[..] else {
        return None;
    };
    if first != ARGUMENT {
        return None;
    }
    let count = count.parse().expect("the bench passes a number");
    supervise(count, command);
    Some(ExitCode::SUCCESS)
}

/// Supervises so many of these children until a signal ends it.
fn supervise(count: usize, command: &[String]) {
    signals::normalise();
    let descriptors =
        limits::raise_descriptors().expect("the soft limit may be raised to the hard one");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("there is room for a runtime");
    runtime.block_on(async {
        let mut builder = Runtime::builder()
            .signals(SignalOptions::default())
            .child_descriptors(descriptors)
            .force_exit(ForceExitPolicy::ExitProcess);
        for number in 0..count {
            let spec = CommandSpec::new(&command[0], &command[1..]);
            let child = Child::command(&format!("child-{number}"), spec)
                .expect("the name keeps to the grammar");
            builder = builder.child(child.governor(Governor::NONE));
        }
        let handle = builder.start().await.expect("the runtime starts");
        let mut stdout = std::io::stdout();
        stdout
            .write_all(b"ready\n")
            .and_then(|()| stdout.flush())
            .expect("the bench listens");
        handle.wait().await;
    });
}
