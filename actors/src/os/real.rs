//! The kernel behind the seam.

use std::fmt;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::os::check::{self, CheckOrder, Net, Question, Tell};
use crate::os::clock::Clock;
use crate::os::contain::{Container, ContainmentError, ContainmentRules, Living, Survivor};
use crate::os::ledger::Ledger;
use crate::os::linger::Over;
use crate::os::reap::Sweeper;
use crate::os::sign::Directory;
use crate::os::spawn::Pool;
use crate::os::table::{Gone, Handle, Phase, Table, lock};
use crate::os::watch::{Watch, Watcher};
use crate::os::{Job, News, Os, Process, SignalError, SpawnError, TellSurvivors, thread, waiting};
use crate::policy::setup::Controllers;
use crate::policy::signal::Signal;
use crate::policy::spec::{Containment, RunId};

/// What a [`RealOs`] is made with.
#[derive(Clone)]
pub struct RealOsOptions {
    /// How many runs there can be at once.
    pub slots: usize,
    /// The soft limit on open files that children get; ours if absent. For a host that has raised its own.
    pub child_nofile: Option<u64>,
    /// What holds the processes of a run together.
    pub containment: ContainmentRules,
    /// The controllers of the control groups that runs get, if that is not to be found out; without one a limit is kept by other
    /// means, or refused.
    pub controllers: Option<Controllers>,
    /// Knows how many processes of a run the kernel has killed for lack of memory.
    pub oom: Option<Arc<dyn OomCounter>>,
    /// Where it is written down which processes there are, if anywhere.
    pub ledger: Option<Arc<Ledger>>,
}

/// Counts the processes that the kernel has killed for lack of memory.
pub trait OomCounter: Send + Sync {
    /// How many of a run, or of whatever stands for it in the kernel; none: nobody knows. Asked when the run has started and
    /// when it has ended; what counts is whether there are more then.
    fn oom_kills(&self, run: RunId) -> Option<u64>;
}

impl fmt::Debug for RealOsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealOsOptions")
            .field("slots", &self.slots)
            .field("child_nofile", &self.child_nofile)
            .field("containment", &self.containment)
            .field("controllers", &self.controllers)
            .field("oom", &self.oom.is_some())
            .field("ledger", &self.ledger.is_some())
            .finish()
    }
}

impl Default for RealOsOptions {
    fn default() -> Self {
        Self {
            slots: 16 * 1024,
            child_nofile: None,
            containment: ContainmentRules::default(),
            controllers: None,
            oom: None,
            ledger: None,
        }
    }
}

/// Why what processes need could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RealOsError {
    /// A thread or descriptor.
    #[error("cannot {step}")]
    System {
        /// What was tried, as a verb and an object.
        step: &'static str,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// The containment that was insisted on.
    #[error(transparent)]
    Containment(#[from] ContainmentError),
}

/// How long the end of the last run is waited for, which was told already.
const LAST_END: Duration = Duration::from_millis(2500);
/// How often to look for it.
const LAST_END_PAUSE: Duration = Duration::from_millis(1);

/// Real processes. Dropping it kills them all; its threads end once they are reaped.
pub struct RealOs {
    shared: Arc<Shared>,
}

/// What the threads share.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) table: Table,
    pub(super) pool: Pool,
    pub(super) watch: Watch,
    pub(super) sweeper: Sweeper,
    pub(super) container: Container,
    pub(super) over: Over,
    /// Who outlived a run whose end was told before that was known.
    pub(super) left: Mutex<Vec<Survivor>>,
    pub(super) sockets: Directory,
    pub(super) oom: Option<Arc<dyn OomCounter>>,
    pub(super) ledger: Option<Arc<Ledger>>,
    net: Arc<Net>,
    closing: AtomicBool,
}

impl RealOs {
    /// Starts the two threads that are always there.
    pub fn new(options: &RealOsOptions) -> Result<Self, RealOsError> {
        let failed = |step| move |source| RealOsError::System { step, source };
        let clock = Clock::start();
        let container = Container::new(&options.containment, clock)?;
        let controllers = options
            .controllers
            .unwrap_or_else(|| container.controllers());
        let shared = Arc::new(Shared {
            clock,
            table: Table::new(options.slots),
            pool: Pool::new(options, controllers).map_err(failed("prepare to start processes"))?,
            watch: Watch::new().map_err(failed("prepare to watch processes"))?,
            sweeper: Sweeper::default(),
            container,
            over: Over::default(),
            left: Mutex::default(),
            sockets: Directory::default(),
            oom: options.oom.clone(),
            ledger: options.ledger.clone(),
            net: Arc::new(Net::default()),
            closing: AtomicBool::new(false),
        });
        // From here on dropping it ends what was started.
        let os = Self { shared };
        let watcher = Watcher::new(Arc::clone(&os.shared));
        thread::start("kimi-watch", move || watcher.run())
            .map_err(failed("start the watching thread"))?;
        Pool::start_worker(&os.shared).map_err(failed("start a spawning thread"))?;
        Ok(os)
    }
}

impl Drop for RealOs {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.kill_all();
        self.shared.close_if_over();
        self.shared.pool.close();
        self.shared.net.close();
    }
}

impl Os for RealOs {
    fn begin(&self, job: Job) -> Box<dyn Process> {
        let (run, rank) = (job.run, job.rank);
        let handle = match self.shared.table.take(Box::new(job)) {
            Ok(handle) => {
                Pool::push(&self.shared, handle, rank);
                Some(handle)
            }
            Err(job) => {
                let slots = self.shared.table.slots();
                contained(|| {
                    job.observer
                        .tell(News::NotStarted(SpawnError::TableFull { slots }));
                });
                None
            }
        };
        Box::new(RealProcess {
            shared: Arc::clone(&self.shared),
            handle,
            run,
        })
    }

    fn when_gone(&self, run: RunId, then: Box<dyn FnOnce() + Send>) {
        Gone::call(self.shared.table.when_gone(run, then));
    }

    fn kill_all(&self) {
        // First those that are to be known as killed from outside, then all that they may have around them.
        self.shared.table.kill_all();
        self.shared.container.kill_all();
    }

    fn live(&self) -> usize {
        self.shared.table.live()
    }

    fn containment(&self) -> Containment {
        self.shared.container.mode()
    }

    fn notes(&self) -> Vec<String> {
        self.shared.container.notes().to_vec()
    }

    fn finish(&self, tell: TellSurvivors) {
        let (shared, tell) = (Arc::clone(&self.shared), Mutex::new(Some(tell)));
        let finish = Arc::new(move || {
            let told = lock(&tell).take();
            if let Some(tell) = told {
                tell(shared.finish_up());
            }
        });
        let theirs = Arc::clone(&finish);
        // On a thread of its own, since it may take a moment; should there be none to be had, on this one.
        if thread::start("kimi-finish", move || theirs()).is_err() {
            finish();
        }
    }

    fn check(&self, order: CheckOrder, tell: Tell) -> Box<dyn Send> {
        match order.question.clone() {
            Question::Exec(command) => Box::new(check::begin(self, order, command, tell)),
            question @ (Question::Tcp(_) | Question::Http { .. }) => {
                self.shared.net.ask(question, tell)
            }
        }
    }
}

struct RealProcess {
    shared: Arc<Shared>,
    /// `None`: there was no slot.
    handle: Option<Handle>,
    run: RunId,
}

impl Process for RealProcess {
    fn signal(&self, signal: Signal) -> Result<(), SignalError> {
        let Some((slot, mut state)) = self.handle.and_then(|handle| self.shared.table.get(handle))
        else {
            return Ok(());
        };
        state.asked = true;
        if slot.pid.load(Ordering::Acquire) <= 0 {
            // What has not begun is not stopped, and another signal that waits must not be lost for this one.
            if signal != Signal::CONT {
                state.pending = Some(signal);
            }
            return Ok(());
        }
        let sent = slot.signal(signal);
        let leader = slot.pid.load(Ordering::Acquire);
        match (&state.leaf, self.handle) {
            (Some(leaf), _) => self.shared.container.signal_others(leaf, leader, signal),
            (None, Some(handle)) => {
                drop(state);
                Shared::signal_others_later(&self.shared, handle, leader, signal);
            }
            (None, None) => {}
        }
        sent.map_err(|source| SignalError {
            signal,
            run: self.run,
            source,
        })
    }

    fn kill(&self) {
        let Some(handle) = self.handle else {
            return;
        };
        let Some((slot, mut state)) = self.shared.table.get(handle) else {
            return;
        };
        // Its end was told: what is left of it is on its way out already.
        if state.phase == Phase::Running && state.job.is_none() {
            return;
        }
        state.asked = true;
        state.doomed = true;
        let is_waiting = state.phase == Phase::Waiting;
        // It may be gone already; nobody could do anything about another failure.
        drop(slot.signal(Signal::KILL));
        drop(state);
        if is_waiting {
            self.shared.refuse(handle, SpawnError::Abandoned);
        }
    }

    fn quiet(&self) -> Duration {
        let slot = self.handle.and_then(|handle| self.shared.table.get(handle));
        slot.map_or(Duration::ZERO, |(slot, _)| {
            slot.quiet(self.shared.clock.now())
        })
    }

    fn last_output(&self) -> Option<Duration> {
        let (slot, state) = self
            .handle
            .and_then(|handle| self.shared.table.get(handle))?;
        slot.last_output(state.born, self.shared.clock.now())
    }

    fn waits_for_input(&self) -> bool {
        let slot = self.handle.and_then(|handle| self.shared.table.get(handle));
        // Looked up without the lock: should it be another's by then, the hint is wrong and nothing else.
        let pid = slot.map_or(0, |(slot, _)| slot.pid.load(Ordering::Acquire));
        pid > 0 && waiting::reads_stdin(pid)
    }
}

impl Drop for RealProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Shared {
    /// Tells that the run never began. Of several who try, one succeeds.
    pub(super) fn refuse(&self, handle: Handle, error: SpawnError) {
        let Some((_, mut state)) = self.table.get(handle) else {
            return;
        };
        if state.phase != Phase::Waiting {
            return;
        }
        let Some(job) = state.job.take() else {
            return;
        };
        drop(state);
        contained(|| job.observer.tell(News::NotStarted(error)));
        Gone::call(self.finish(handle, job.run));
    }

    /// Ends what got away from the runs.
    fn finish_up(&self) -> Vec<Survivor> {
        let patience = self.clock.now() + LAST_END;
        while self.table.live() > 0 {
            // Of several runtimes that share this one, the last tidies up.
            if self.clock.now() >= patience {
                return Vec::new();
            }
            std::thread::park_timeout(LAST_END_PAUSE);
        }
        let mut left = self.container.finish();
        left.append(&mut lock(&self.left));
        left
    }

    /// Lets go of the slot, and of the threads if this was the last.
    pub(super) fn finish(&self, handle: Handle, run: RunId) -> Option<Box<Gone>> {
        let gone = self.table.finish(handle, run);
        self.close_if_over();
        gone
    }

    /// How many processes of a run the kernel has killed for lack of memory, if anybody knows.
    pub(super) fn oom_kills(&self, run: RunId) -> Option<u64> {
        let counter = self.oom.as_ref()?;
        let mut kills = None;
        contained(|| kills = counter.oom_kills(run));
        kills
    }

    /// Whether the runtime was dropped.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Whether the runtime was dropped and no process is left.
    pub(super) fn is_over(&self) -> bool {
        // In one order with those who end the last run: one of the two sees what the other did.
        self.closing.load(Ordering::SeqCst) && self.table.live() == 0
    }

    fn close_if_over(&self) {
        if self.is_over() {
            self.watch.wake();
            self.sweeper.close();
        }
    }
}

impl Living for Shared {
    fn lives(&self, run: RunId) -> bool {
        self.table.has(run)
    }

    fn are_more_than(&self, dying: usize) -> bool {
        self.table.live() > dying
    }
}

/// Calls what others have written. A panic in it is theirs, and was reported by the panic hook; our threads go on.
pub(super) fn contained(call: impl FnOnce()) {
    drop(panic::catch_unwind(AssertUnwindSafe(call)));
}
