//! An embeddable supervision runtime: programs and async tasks in one tree, by OTP's rules.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use kimi_actors::policy::spec::CommandSpec;
//! use kimi_actors::{Child, Runtime};
//!
//! let web = Child::command("web", CommandSpec::new("python3", ["-m", "http.server"]))?;
//! let handle = Runtime::builder().child(web).start().await?;
//! handle.ready("web").await?;
//! let report = handle.shutdown().await;
//! assert!(report.survivors.is_empty());
//! # Ok(()) }
//! ```
//!
//! # Theory of operation
//!
//! **The tree.** A supervisor has members, children or supervisors, a strategy and an intensity. The root restarts its members
//! one for one. All decisions are made by one pure machine, [`policy::tree::Tree`]: events go in, with the time and a random
//! number, and effects come out. The root actor owns it, feeds it and carries out the effects; each nested supervisor has an
//! actor that holds the actors of its children.
//!
//! **The life of a run.** One actor is one run of one child. It hands a job to [`os`], whose threads spawn the process, watch
//! it and read its output; it is told when the process has started and how it ended, and reports that to the root. A restart
//! is a new actor. The actor holds a token of the process: if the actor is lost, in whatever way, the token's drop kills and
//! reaps, and only when nothing is left does the root decide what follows.
//!
//! **Readiness and life.** A run may be probed: the policy says when to ask and what the answers mean ([`policy::probe`]), an actor
//! linked below that of the run asks, through [`os::check`]. What a run says of itself ([`os::sign`]) is heard by the thread that
//! watches it, and needs neither. A verdict is an event of the tree like any other. When its run is stopped a probe ends at once;
//! the command that it may have under way is killed, and the stop waits for that as well.
//!
//! **Containment.** What holds a run's processes together is the best that the machine has, see
//! [`Containment`](policy::spec::Containment); [`RuntimeBuilder::containment`] insists on one. A run is over when none of them is
//! left; who cannot be killed is named.
//!
//! **Shutdown** is a message, not the stopping of actors. Everything that waits is laid down; what runs is asked wave by wave in
//! the reverse of the start order, each within its share of the budget, and killed after its grace. The deadline is kept by a
//! plain thread, set before any actor hears of the signal, so it holds although the async runtime hangs.
//!
//! **Limits and identity.** What a command asks for besides its program ([`policy::setup::Setup`]) is set up in its process right
//! before that runs, in the order in which nothing takes away what the next step needs, or refused with the reason. To run as
//! another user or group takes an exec [`shim`]: a program registers itself as that by calling [`shim::run_if_asked`] first in
//! its `main`.
//!
//! **The guardian.** A program that wants nothing to outlive it, not even its own SIGKILL, calls [`os::guardian::split`] first of
//! all: the process that was started becomes the guardian, parent and child subreaper of the runtime, which goes on in a child and
//! is told by [`RuntimeBuilder::ward`]. Whoever of the two dies, the other ends everything. A library never does that unasked.
//!
//! **What it leaves alone.** No signal is taken, no process ended, no stranger reaped, nothing global set, unless the builder is
//! told to. Two runtimes in one program do not know of each other, but for signals, which have one listener a process.
//!
//! A host that calls `waitpid(-1)`, or ignores SIGCHLD, takes the exit status away; such an end is [`Exit::Lost`].
//!
//! [`Exit::Lost`]: policy::exit::Exit::Lost

mod child;
pub mod exec;
pub mod exit;
pub mod os;
pub mod policy;
pub mod runtime;
pub mod session;
#[cfg(feature = "testing")]
pub mod testing;
mod tree;
mod work;

pub use child::{Child, Supervisor};
pub use exec::{Exec, ExecError, ExecOutcome, ExecOutput, How, TimedOut};
pub use os::shim;
pub use runtime::{
    ExecTicket, ForceExitPolicy, OperationError, ProbeError, Runtime, RuntimeBuilder,
    RuntimeHandle, ShutdownReport, ShutdownTimeout, SignalOptions, StartError,
};
pub use tree::child::Activity;
pub use tree::root::STATUS_TARGET;
pub use tree::signals::Receipt;
pub use tree::task::{TaskContext, TaskError};
