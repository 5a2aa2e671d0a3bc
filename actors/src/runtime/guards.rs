//! What stands beside the tree: the signal thread's reach, the cleanup handlers, and who waits for the end.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ractor::{Actor, ActorRef};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::{error, warn};

use crate::exit;
use crate::os::clock::Clock;
use crate::os::force_exit::ForceExit;
use crate::os::guardian::{Loss, Ward};
use crate::os::ledger::Ledger;
use crate::os::signals::{self, Listening, Received};
use crate::os::{Os, Survivor};
use crate::policy::escalation::{Decision, Escalation};
use crate::policy::event::ShutdownReason;
use crate::policy::signal::Signal;
use crate::policy::spec::ChildName;
use crate::policy::tree::ShutdownMode;
use crate::runtime::ShutdownReport;
use crate::runtime::builder::{SignalOptions, StartError};
use crate::tree::root::{Finished, RootMsg};
use crate::tree::signals::{Receipt, Signals, SignalsMsg};
use crate::tree::timer::TimerMsg;

/// After force was asked for, the process ends at the latest after this long, whatever hangs.
const FORCED_MARGIN: Duration = Duration::from_millis(500);
/// When the guardian of this process has died, it ends at the latest after this long.
const ALONE: Duration = Duration::from_millis(900);
/// How long the death of what a lost root had held is waited for.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// What the signal thread reaches without any actor.
#[derive(Clone)]
pub(super) struct Guards {
    pub(super) os: Arc<dyn Os>,
    pub(super) force_exit: ForceExit,
    pub(super) clock: Clock,
    pub(super) budget: Option<Duration>,
    /// Force was applied. Everything may be down before the root hears that it was.
    pub(super) is_forced: Arc<AtomicBool>,
}

impl Guards {
    /// The deadline is armed, and force applied, before any actor hears of the signal.
    fn apply(&self, received: &Received, decision: Decision) {
        match decision {
            Decision::Shutdown { .. } => {
                if let Some(budget) = self.budget {
                    self.force_exit.arm(received.at + budget, exit::FORCED);
                }
            }
            Decision::Force { signal } => {
                let code = if signal == Signal::QUIT {
                    exit::QUIT
                } else {
                    exit::FORCED
                };
                self.force_exit.arm(self.clock.now() + FORCED_MARGIN, code);
                self.is_forced.store(true, Ordering::SeqCst);
                self.os.kill_all();
            }
            Decision::ExitNow => self.force_exit.now(exit::FORCED),
            Decision::Status
            | Decision::Reload
            | Decision::Forward(_)
            | Decision::Refuse
            | Decision::Nothing(_) => {}
        }
    }
}

/// Ends everything should the guardian of this process die; without any actor, if need be.
pub(super) fn heed(ward: &Ward, root: &ActorRef<RootMsg>, guards: Guards) {
    let root = root.clone();
    ward.on_loss(move |loss| match loss {
        Loss::EndInOrder => {
            guards
                .force_exit
                .arm(guards.clock.now() + ALONE, exit::FORCED);
            let order = RootMsg::ShutDown {
                mode: ShutdownMode::Graceful,
                reason: ShutdownReason::Internal,
            };
            // Gone, it has ended everything.
            root.cast(order).ok();
        }
        Loss::KillAll => {
            guards.is_forced.store(true, Ordering::SeqCst);
            guards.os.kill_all();
        }
    });
}

pub(super) async fn listen(
    options: SignalOptions,
    root: &ActorRef<RootMsg>,
    guards: Guards,
) -> Result<(ActorRef<SignalsMsg>, Listening), StartError> {
    let arguments = (root.get_derived(), options.history);
    let (actor, _) = Actor::spawn_linked(None, Signals, arguments, root.get_cell()).await?;
    root.cast(RootMsg::SignalsAre(actor.get_id()))
        .map_err(|_| StartError::RootLost)?;
    // SIGTSTP is taken over to be refused: the children, in sessions of their own, would run on unwatched.
    let handled: Vec<Signal> = options.rules.handled().chain([Signal::TSTP]).collect();
    let mut escalation = Escalation::new(options.rules);
    let (clock, receiver) = (guards.clock, actor.clone());
    let tell = move |received: Received| {
        let decision = escalation.next(received.signal, received.at);
        guards.apply(&received, decision);
        if let Err(error) = receiver.cast(SignalsMsg::Decided(Receipt { received, decision })) {
            warn!(%error, "the signal actor was gone before a signal");
        }
    };
    let listening =
        signals::listen(&handled, clock, Box::new(tell)).map_err(StartError::Signals)?;
    Ok((actor, listening))
}

/// Waits for the end of the root, however it comes, and does what is to be done after it.
pub(super) struct Guardian {
    pub(super) guards: Guards,
    pub(super) timer: ActorRef<TimerMsg>,
    pub(super) listening: Option<Listening>,
    pub(super) ward: Option<Ward>,
    pub(super) ledger: Option<Arc<Ledger>>,
    pub(super) cleanups: Arc<Cleanups>,
    pub(super) report: watch::Sender<Option<ShutdownReport>>,
}

impl Guardian {
    pub(super) async fn run(mut self, finished: oneshot::Receiver<Finished>) {
        let mut report = match finished.await {
            Ok(Finished { finish, survivors }) => ShutdownReport {
                reason: finish.reason,
                forced: finish.forced,
                failed: finish.failed,
                survivors: survivors
                    .into_iter()
                    .map(|(child, survivor)| (Some(child), survivor))
                    .collect(),
                cleanups_left: 0,
            },
            Err(_) => self.root_lost().await,
        };
        report.forced |= self.guards.is_forced.load(Ordering::SeqCst);
        self.finish(&mut report.survivors).await;
        if !report.forced {
            self.clean_up().await;
        }
        report.cleanups_left = self.cleanups.count();
        // Whoever could arm the deadline ends before it is disarmed: armed after that, it would hit a runtime that is over.
        drop(self.listening.take());
        // An error means that it is gone already.
        self.timer.stop_and_wait(None, None).await.ok();
        self.guards.force_exit.disarm();
        if let Some(ward) = &self.ward {
            ward.release();
        }
        if let Some(ledger) = self.ledger.take().filter(|_| self.guards.os.live() == 0) {
            ledger.remove();
        }
        self.report.send_replace(Some(report));
    }

    /// Ends what got away from its run. Who was named with its child already is not named again.
    async fn finish(&self, survivors: &mut Vec<(Option<ChildName>, Survivor)>) {
        // It removes a directory for each run that there was, and may wait for the dying.
        let (tell, told) = oneshot::channel();
        // Who is told late is told no more, when all else is over.
        let tell = Box::new(move |left| drop(tell.send(left)));
        self.guards.os.finish(tell);
        for survivor in told.await.unwrap_or_default() {
            let is_named = survivors.iter().any(|(_, known)| known.pid == survivor.pid);
            if !is_named {
                survivors.push((None, survivor));
            }
        }
    }

    /// The tokens of its children have gone with the root; what they held dies, and its death is waited for.
    async fn root_lost(&self) -> ShutdownReport {
        error!("the root is gone: everything is killed");
        self.arm();
        self.guards.os.kill_all();
        let patience = Instant::now() + LAST_WAIT;
        while self.guards.os.live() > 0 && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        ShutdownReport {
            reason: ShutdownReason::Internal,
            forced: false,
            failed: Vec::new(),
            survivors: Vec::new(),
            cleanups_left: 0,
        }
    }

    /// Sets the deadline, unless there is an earlier one.
    fn arm(&self) {
        if let Some(budget) = self.guards.budget {
            let deadline = self.guards.clock.now() + budget;
            self.guards.force_exit.arm(deadline, exit::FORCED);
        }
    }

    /// Runs the cleanup handlers in the order of their registration, as long as there is time.
    async fn clean_up(&self) {
        // The timer actor may not have come to it, or be gone.
        self.arm();
        let left = self
            .guards
            .force_exit
            .armed()
            .map(|deadline| deadline.since(self.guards.clock.now()));
        let all = async {
            while let Some((name, handler)) = self.cleanups.take_first() {
                // A panic in one must not keep the next from running.
                if tokio::spawn(handler()).await.is_err() {
                    error!(name, "a cleanup handler panicked");
                }
            }
        };
        match left {
            Some(left) => {
                if tokio::time::timeout(left, all).await.is_err() {
                    error!("the time for cleanup handlers is over");
                }
            }
            None => all.await,
        }
    }
}

pub(super) type CleanupFuture = Pin<Box<dyn Future<Output = ()> + Send>>;
pub(super) type Cleanup = Box<dyn FnOnce() -> CleanupFuture + Send>;

/// Handlers that run after everything is down.
#[derive(Default)]
pub(super) struct Cleanups {
    handlers: Mutex<VecDeque<(&'static str, Cleanup)>>,
    count: AtomicUsize,
}

impl Cleanups {
    pub(super) fn add(&self, name: &'static str, handler: Cleanup) {
        self.handlers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back((name, handler));
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn take_first(&self) -> Option<(&'static str, Cleanup)> {
        let first = self
            .handlers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        if first.is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        first
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}
