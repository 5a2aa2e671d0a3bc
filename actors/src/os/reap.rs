//! The last steps of a run: sweep its session, reap its leader, tell its end.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::os::contain::{self, Everyone};
use crate::os::kernel::{self, Observed, Zombie};
use crate::os::real::{Shared, contained};
use crate::os::table::{Gone, Handle, Phase, lock};
use crate::os::watch::Io;
use crate::os::{Captured, Drained, End, Job, News, Output, SpawnError, thread};
use crate::policy::exit::Exit;
use crate::policy::signal::Signal;
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
    /// The watching thread knows its process.
    pub(super) is_watched: bool,
}

/// What is left to be told of a run that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Telling {
    /// How it ended.
    Ended,
    /// That it began, and how it ended.
    Over,
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
            max_rss: Some(self.observed.max_rss).filter(|peak| kernel::exceeds_own_peak(*peak)),
            killed,
            survivors,
            captured,
        });
        let news = match self.telling {
            Telling::Over => News::Over {
                pid: self.pid.cast_unsigned(),
                end,
            },
            Telling::Ended | Telling::Already | Telling::Abandoned => News::Ended(end),
        };
        contained(|| self.job.observer.tell(news));
    }

    /// Reaps it, tells what is left to be told, and lets go of the slot.
    pub(super) fn conclude(mut self, shared: &Shared, killed: Vec<u32>, survivors: Vec<u32>) {
        let captured = self.captured.take().and_then(|(io, drained)| {
            let captured = io.into_captured(drained, &shared.watch, shared.clock.now());
            shared.table.finish_io(self.handle);
            captured
        });
        let (_, pidfd) = shared.table.slot(self.handle).forget_process();
        if pidfd >= 0 {
            if self.is_watched {
                shared.watch.remove(pidfd);
            }
            // It is dead, so this does not wait; if somebody else was faster, nothing is left to do.
            drop(kernel::observe(pidfd, Zombie::Reap));
            kernel::close(pidfd);
        }
        match self.telling {
            Telling::Ended | Telling::Over => self.tell(killed, survivors, captured),
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

/// What was found of a run whose process may have ended.
pub(super) enum LeaderEnded {
    /// It has; with what reads its output.
    Over(Settling, Option<Box<Io>>),
    /// It has, but its tracer holds it.
    AskLater,
    /// Nothing is to be done here, or not yet.
    Nothing,
}

impl Shared {
    /// Looks at the end of a run that is in this phase, without reaping it. What is left of one that was not asked to end is
    /// killed at once, as far as it is of its group.
    pub(super) fn leader_ended(&self, handle: Handle, phase: Phase) -> LeaderEnded {
        let Some((slot, mut state)) = self.table.get(handle) else {
            return LeaderEnded::Nothing;
        };
        if state.phase != phase {
            state.ended_early |= state.phase == Phase::Born;
            return LeaderEnded::Nothing;
        }
        let pidfd = slot.pidfd.load(Ordering::Acquire);
        if pidfd < 0 {
            return LeaderEnded::Nothing;
        }
        let observed = match kernel::observe(pidfd, Zombie::Keep) {
            Ok(Some(observed)) => Some(observed),
            Ok(None) => return LeaderEnded::AskLater,
            // Somebody else has reaped it; its ids may be another's already.
            Err(_) => None,
        };
        let Some(job) = state.job.take() else {
            return LeaderEnded::Nothing;
        };
        let pid = slot.pid.load(Ordering::Acquire);
        let captures = matches!(job.output, Output::Capture { .. });
        let telling = match (state.abandoned, state.asked, captures) {
            (true, _, _) => Telling::Abandoned,
            _ if phase == Phase::Born => Telling::Over,
            (false, false, false) => Telling::Already,
            _ => Telling::Ended,
        };
        let asked = state.asked;
        if telling == Telling::Already && observed.is_some() {
            drop(kernel::signal_group(pid, Signal::KILL.number()));
        }
        let io = state.io.take();
        let born = state.born;
        drop(state);
        let lost = observed.is_none();
        let settling = Settling {
            handle,
            pid,
            born,
            observed: observed.unwrap_or(Observed {
                exit: Exit::Lost,
                cpu: Duration::ZERO,
                max_rss: 0,
            }),
            asked,
            lost,
            job,
            telling,
            captured: None,
            is_watched: phase == Phase::Running,
        };
        LeaderEnded::Over(settling, io)
    }

    /// Sweeps, reaps and tells: here if it is certain that nobody is left, otherwise in the thread for that.
    pub(super) fn settle(shared: &Arc<Self>, settling: Settling) {
        let age = shared.clock.now().since(settling.born);
        if settling.lost || shared.last_pid.nobody_left(settling.pid, age) {
            settling.conclude(shared, Vec::new(), Vec::new());
        } else {
            Self::sweep_later(shared, settling);
        }
    }

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
