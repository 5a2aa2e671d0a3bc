//! The public face: what a tree is built with, and what it is steered by.

mod builder;
mod guards;
mod ticket;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::{broadcast, watch};
use tracing::{error, warn};

pub use builder::{
    ForceExitPolicy, ProbeError, RuntimeBuilder, ShutdownTimeout, SignalOptions, StartError,
};
pub use ticket::ExecTicket;

use crate::exec::{Exec, ExecError, ExecOutcome};
use crate::os::{Os, Survivor};
use crate::policy::admission::RequestId;
use crate::policy::event::{ShutdownReason, TreeEvent};
use crate::policy::probe::ProbeStatus;
use crate::policy::spec::{ChildName, Containment, NodeId};
use crate::policy::telemetry::Entry;
#[cfg(doc)]
use crate::policy::telemetry::Telemetry;
use crate::policy::tree::{ChildStatus, Event, Reach, ShutdownMode, State};
use crate::runtime::guards::Cleanups;
use crate::tree::child::Activity;
use crate::tree::root::RootMsg;
use crate::tree::signals::{Receipt, SignalsMsg};

/// The supervision runtime; see [`Runtime::builder`].
#[derive(Debug)]
pub struct Runtime;

impl Runtime {
    /// Begins an empty tree.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }
}

/// How a runtime ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Why.
    pub reason: ShutdownReason,
    /// Whether force was asked for.
    pub forced: bool,
    /// Children that had failed, or could not start because of one that had, when the end began.
    pub failed: Vec<ChildName>,
    /// Processes that could not be ended, each with its child if that is known.
    pub survivors: Vec<(Option<ChildName>, Survivor)>,
    /// Cleanup handlers that did not run.
    pub cleanups_left: usize,
}

/// Why an operation did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// No child or supervisor has this name.
    #[error("cannot find `{name}`")]
    UnknownChild {
        /// The name.
        name: String,
    },
    /// The runtime has ended.
    #[error("cannot reach the runtime: it has ended")]
    Ended,
    /// It will not become ready.
    #[error("cannot wait for `{name}`: it is {}", state.as_str())]
    NotReady {
        /// The child.
        name: ChildName,
        /// Its state.
        state: State,
    },
}

/// Steers a running tree. Cloning is cheap; the tree lives on when all handles are gone, until the async runtime ends.
#[derive(Clone)]
pub struct RuntimeHandle(Arc<Inner>);

struct Inner {
    root: ActorRef<RootMsg>,
    names: HashMap<ChildName, NodeId>,
    events: broadcast::Sender<TreeEvent>,
    report: watch::Receiver<Option<ShutdownReport>>,
    cleanups: Arc<Cleanups>,
    signals: Option<ActorRef<SignalsMsg>>,
    budget: Option<Duration>,
    /// Not to be kept by those who steer it.
    os: Weak<dyn Os>,
    /// At the start.
    containment: Containment,
    notes: Vec<String>,
    /// Numbers one-shot commands.
    requests: AtomicU64,
}

impl fmt::Debug for RuntimeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeHandle")
            .field("children", &self.0.names.len())
            .finish_non_exhaustive()
    }
}

impl RuntimeHandle {
    fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// What holds the processes of a run together.
    pub fn containment(&self) -> Containment {
        let os = self.0.os.upgrade();
        os.map_or(self.0.containment, |os| os.containment())
    }

    /// What is to be said of how the runtime was set up: sentences for people, mostly none.
    pub fn notes(&self) -> &[String] {
        &self.0.notes
    }

    /// Starts these, with what they depend on; returns when that is under way.
    pub fn start(&self, names: &[&str]) -> Result<(), OperationError> {
        let nodes = self.find(names)?;
        self.try_feed(Event::Start {
            nodes,
            reach: Reach::Connected,
        })
    }

    /// Starts everything; returns when that is under way.
    pub fn start_all(&self) -> Result<(), OperationError> {
        self.try_feed(Event::StartAll)
    }

    /// Stops these, and first what depends on them; returns when none of them has a process.
    pub async fn stop(&self, names: &[&str]) -> Result<(), OperationError> {
        let nodes = self.find(names)?;
        let event = Event::Stop {
            nodes: nodes.clone(),
            reach: Reach::Connected,
        };
        let sent = self
            .0
            .root
            .call(
                |reply| RootMsg::FeedUntilDown {
                    event,
                    nodes,
                    reply,
                },
                None,
            )
            .await;
        match sent {
            Ok(ractor::rpc::CallResult::Success(())) => Ok(()),
            Ok(_) | Err(_) => Err(OperationError::Ended),
        }
    }

    /// Stops these if they run and starts them again, with their counters cleared; returns when that is under way.
    pub fn restart(&self, names: &[&str]) -> Result<(), OperationError> {
        let nodes = self.find(names)?;
        self.try_feed(Event::Restart { nodes })
    }

    /// Returns when this child or supervisor is ready, or a task has completed; an error if it is not going to be.
    pub async fn ready(&self, name: &str) -> Result<(), OperationError> {
        let mut events = self.events();
        loop {
            let status = self.status_of(name).await?;
            match status.state {
                State::Ready | State::Completed => return Ok(()),
                State::Pending | State::Starting | State::Running | State::Backoff => {}
                State::Stopping | State::Stopped | State::Failed | State::Lost => {
                    return Err(OperationError::NotReady {
                        name: status.name,
                        state: status.state,
                    });
                }
            }
            match events.recv().await {
                // Missed events change nothing: the state is what counts.
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return Err(OperationError::Ended),
            }
        }
    }

    /// What is to be said of every child and supervisor, in the order of the tree, the root first.
    pub async fn status(&self) -> Result<Vec<ChildStatus>, OperationError> {
        match self.0.root.call(RootMsg::Status, None).await {
            Ok(ractor::rpc::CallResult::Success(status)) => Ok(status),
            Ok(_) | Err(_) => Err(OperationError::Ended),
        }
    }

    /// What the probes of this child have found last, and what its run says of itself.
    pub async fn probe_status(&self, name: &str) -> Result<ProbeStatus, OperationError> {
        let node = self.find(&[name])?[0];
        let ask = |reply| RootMsg::ProbeStatus(node, reply);
        match self.0.root.call(ask, None).await {
            Ok(ractor::rpc::CallResult::Success(status)) => Ok(status),
            Ok(_) | Err(_) => Err(OperationError::Ended),
        }
    }

    /// What the run of this child does at the moment: when it wrote last, and whether it waits for input.
    pub async fn activity(&self, name: &str) -> Result<Activity, OperationError> {
        let node = self.find(&[name])?[0];
        let ask = |reply| RootMsg::Activity(node, reply);
        match self.0.root.call(ask, None).await {
            Ok(ractor::rpc::CallResult::Success(activity)) => Ok(activity),
            // It was the run that ended, not the root.
            Ok(_) => Ok(Activity::default()),
            Err(_) => Err(OperationError::Ended),
        }
    }

    /// What was done last and how long it took, the oldest first: the last [`Telemetry::KEPT`] operations. Children are named
    /// by their places; [`RuntimeHandle::name_of`] says whose they are.
    pub async fn telemetry(&self) -> Result<Vec<Entry>, OperationError> {
        match self.0.root.call(RootMsg::Telemetry, None).await {
            Ok(ractor::rpc::CallResult::Success(entries)) => Ok(entries),
            Ok(_) | Err(_) => Err(OperationError::Ended),
        }
    }

    /// The name of the child or supervisor at this place.
    pub fn name_of(&self, node: NodeId) -> Option<&ChildName> {
        let mut names = self.0.names.iter();
        names.find_map(|(name, place)| (*place == node).then_some(name))
    }

    async fn status_of(&self, name: &str) -> Result<ChildStatus, OperationError> {
        let unknown = || OperationError::UnknownChild {
            name: name.to_owned(),
        };
        let all = self.status().await?;
        all.into_iter()
            .find(|status| status.name.as_str() == name)
            .ok_or_else(unknown)
    }

    /// Subscribes to what becomes true from now on. A subscriber that falls 1,024 events behind is told that it missed some.
    /// The last event is [`Fact::ShutdownFinished`](crate::policy::event::Fact::ShutdownFinished); the channel stays open as
    /// long as there is a handle.
    pub fn events(&self) -> broadcast::Receiver<TreeEvent> {
        self.0.events.subscribe()
    }

    /// Runs a command once, as a child of the root, within the limits. Dropping the future stops the command.
    pub async fn exec(&self, exec: Exec) -> Result<ExecOutcome, ExecError> {
        self.begin_exec(exec).ended().await
    }

    /// Asks for a command to be run once, and returns at once.
    pub fn begin_exec(&self, exec: Exec) -> ExecTicket {
        let request = RequestId(self.0.requests.fetch_add(1, Ordering::Relaxed));
        ExecTicket::new(self.0.root.clone(), request, exec)
    }

    /// Registers a handler that runs after everything is down, in the order of registration, within the deadline. A forced
    /// shutdown runs none.
    pub fn on_shutdown<F, Fut>(&self, name: &'static str, handler: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.0.cleanups.add(name, Box::new(|| Box::pin(handler())));
    }

    /// How many handlers are registered.
    pub fn cleanup_count(&self) -> usize {
        self.0.cleanups.count()
    }

    /// Shuts everything down in order and waits for the end.
    pub async fn shutdown(&self) -> ShutdownReport {
        self.ask_shutdown(ShutdownMode::Graceful);
        self.wait().await
    }

    /// Begins a shutdown, or turns the one under way into a forced one, and returns at once.
    pub fn ask_shutdown(&self, mode: ShutdownMode) {
        let order = RootMsg::ShutDown {
            mode,
            reason: ShutdownReason::Asked,
        };
        if self.0.root.cast(order).is_err() {
            warn!("a shutdown was asked for after the end");
        }
    }

    /// Waits for the end of the runtime.
    pub async fn wait(&self) -> ShutdownReport {
        let mut report = self.0.report.clone();
        let ended = report
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|report| report.clone());
        // The guardian always reports, unless the async runtime was torn down under it.
        ended.unwrap_or(ShutdownReport {
            reason: ShutdownReason::Internal,
            forced: false,
            failed: Vec::new(),
            survivors: Vec::new(),
            cleanups_left: self.cleanup_count(),
        })
    }

    /// The signals received, the newest first.
    pub async fn receipts(&self) -> Vec<Receipt> {
        let Some(signals) = &self.0.signals else {
            return Vec::new();
        };
        match signals.call(SignalsMsg::Receipts, None).await {
            Ok(ractor::rpc::CallResult::Success(receipts)) => receipts,
            Ok(_) | Err(_) => Vec::new(),
        }
    }

    /// How long a shutdown may take in all; none: as long as it takes.
    pub fn shutdown_budget(&self) -> Option<Duration> {
        self.0.budget
    }

    /// Injects a fault.
    #[cfg(feature = "testing")]
    pub fn inject(&self, fault: crate::testing::Fault) {
        use crate::testing::Fault;
        let sent = match (fault, &self.0.signals) {
            (Fault::PanicSignals, Some(signals)) => signals.cast(SignalsMsg::Panic).is_ok(),
            (Fault::PanicSignals, None) => false,
            (fault, _) => self.0.root.cast(RootMsg::Inject(fault)).is_ok(),
        };
        assert!(sent, "the actor to inject a fault into is there");
    }

    fn find(&self, names: &[&str]) -> Result<Vec<NodeId>, OperationError> {
        let node = |name: &&str| {
            let known = ChildName::new(name)
                .ok()
                .and_then(|name| self.0.names.get(&name).copied());
            known.ok_or_else(|| OperationError::UnknownChild {
                name: (*name).to_owned(),
            })
        };
        names.iter().map(node).collect()
    }

    fn feed(&self, event: Event) {
        if self.try_feed(event).is_err() {
            error!("the root ended before it was given anything to do");
        }
    }

    fn try_feed(&self, event: Event) -> Result<(), OperationError> {
        self.0
            .root
            .cast(RootMsg::Feed(event))
            .map_err(|_| OperationError::Ended)
    }
}
