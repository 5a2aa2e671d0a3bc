//! The last steps of a run: sweep its session, reap its leader, tell its end.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::os::contain::{self, Everyone};
use crate::os::kernel::{self, Observed, Zombie};
use crate::os::ledger;
use crate::os::real::{Shared, contained};
use crate::os::table::{Gone, Handle, lock};
use crate::os::watch::Io;
use crate::os::{Captured, Drained, End, Job, News, SpawnError, thread};
use crate::policy::time::Moment;

/// A run whose leader is dead and not reaped.
pub(super) struct Settling {
    pub(super) handle: Handle,
    pub(super) pid: i32,
    pub(super) born: Moment,
    pub(super) observed: Observed,
    /// Somebody had signalled it before that.
    pub(super) asked: bool,
    /// Somebody else has reaped it: its ids name nothing any more.
    pub(super) lost: bool,
    pub(super) job: Box<Job>,
    pub(super) telling: Telling,
    /// What it wrote, with why reading ended.
    pub(super) captured: Option<(Box<Io>, Drained)>,
}

/// What is left to be told of a run that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Telling {
    /// How it ended.
    Ended,
    /// Nothing: it was told at once.
    Already,
    /// That it never began.
    Abandoned,
}

impl Settling {
    /// Tells how it ended.
    pub(super) fn tell(&self, killed: Vec<u32>, survivors: Vec<u32>, captured: Option<Captured>) {
        let end = Box::new(End {
            exit: self.observed.exit,
            asked: self.asked,
            cpu: self.observed.cpu,
            max_rss: Some(self.observed.max_rss).filter(|peak| *peak > kernel::own_peak()),
            killed,
            survivors,
            captured,
        });
        contained(|| self.job.observer.tell(News::Ended(end)));
    }

    /// Reaps it, tells what is left to be told, and lets go of the slot.
    pub(super) fn conclude(mut self, shared: &Shared, killed: Vec<u32>, survivors: Vec<u32>) {
        let captured = self.captured.take().and_then(|(io, drained)| {
            let captured = io.into_captured(drained, &shared.watch, shared.clock.now());
            shared.table.finish_io(self.handle);
            captured
        });
        let (_, pidfd) = shared.table.slot(self.handle).forget_process();
        ledger::strike(shared, self.handle);
        if pidfd >= 0 {
            shared.watch.remove(pidfd);
            // It is dead, so this does not wait; if somebody else was faster, nothing is left to do.
            drop(kernel::observe(pidfd, Zombie::Reap));
            kernel::close(pidfd);
        }
        match self.telling {
            Telling::Ended => self.tell(killed, survivors, captured),
            Telling::Abandoned => contained(|| {
                self.job
                    .observer
                    .tell(News::NotStarted(SpawnError::Abandoned));
            }),
            Telling::Already => {}
        }
        Gone::call(shared.finish(self.handle, self.job.run));
    }
}

/// The thread that sweeps, and what waits for it.
pub(super) struct Sweeper {
    everyone: Everyone,
    state: Mutex<SweeperState>,
    wake: Condvar,
}

#[derive(Default)]
struct SweeperState {
    /// Bounded by the slots of the table.
    queue: VecDeque<Settling>,
    is_started: bool,
    closing: bool,
}

impl Sweeper {
    pub(super) fn new() -> Self {
        Self {
            everyone: Everyone::new(),
            state: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    pub(super) fn close(&self) {
        lock(&self.state).closing = true;
        self.wake.notify_all();
    }

    fn next(&self) -> Vec<Settling> {
        let mut state = lock(&self.state);
        while state.queue.is_empty() && !state.closing {
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.queue.is_empty() {
            // A later one starts a new thread.
            state.is_started = false;
        }
        state.queue.drain(..).collect()
    }
}

impl Shared {
    /// Hands a run to the sweeping thread. All that wait are swept in one pass.
    pub(super) fn sweep_later(shared: &Arc<Self>, settling: Settling) {
        let mut state = lock(&shared.sweeper.state);
        state.queue.push_back(settling);
        let is_started = std::mem::replace(&mut state.is_started, true);
        drop(state);
        if is_started {
            shared.sweeper.wake.notify_one();
            return;
        }
        let theirs = Arc::clone(shared);
        if thread::start("kimi-sweep", move || theirs.sweep()).is_err() {
            // Then by whoever noticed, and the next one tries again.
            let mut state = lock(&shared.sweeper.state);
            state.is_started = false;
            let waiting = state.queue.drain(..).collect();
            drop(state);
            shared.sweep_now(waiting);
        }
    }

    fn sweep(&self) {
        loop {
            let waiting = self.sweeper.next();
            if waiting.is_empty() {
                return;
            }
            self.sweep_now(waiting);
        }
    }

    fn sweep_now(&self, waiting: Vec<Settling>) {
        let leaders: Vec<i32> = waiting.iter().map(|settling| settling.pid).collect();
        let swept = contain::sweep(&leaders, &self.sweeper.everyone, &self.clock);
        for (settling, swept) in waiting.into_iter().zip(swept) {
            settling.conclude(self, swept.killed, swept.survivors);
        }
    }
}
