//! The last steps of a run: kill what it has left, reap its leader, tell its end. And the thread for what takes longer.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::os::contain::{self, Dying, Leaf, Survivor, Swept};
use crate::os::kernel::{self, Observed, Zombie};
use crate::os::ledger;
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
    /// The kernel killed one of its processes for lack of memory.
    pub(super) oom: bool,
    /// Somebody else has reaped it: its ids name nothing any more.
    pub(super) lost: bool,
    pub(super) job: Box<Job>,
    /// The control group that it is in.
    pub(super) leaf: Option<Leaf>,
    pub(super) telling: Telling,
    /// What it wrote, with why reading ended.
    pub(super) captured: Option<(Box<Io>, Drained)>,
    pub(super) seen_by: SeenBy,
}

/// Who has seen the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeenBy {
    /// The watching thread, which has registered its process.
    Watch,
    /// Whoever had started it.
    Spawner,
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
    pub(super) fn dying(&self) -> Dying<'_> {
        Dying {
            leader: self.pid,
            run: self.job.run,
            leaf: self.leaf.as_ref(),
            is_lost: self.lost,
        }
    }

    /// Tells how it ended.
    pub(super) fn tell(
        &self,
        killed: Vec<u32>,
        survivors: Vec<Survivor>,
        captured: Option<Captured>,
    ) {
        let end = Box::new(End {
            exit: self.observed.exit,
            oom: self.oom,
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
    pub(super) fn conclude(mut self, shared: &Shared, Swept { killed, survivors }: Swept) {
        // First of all, so that the next run finds it.
        if let Some(leaf) = self.leaf.take() {
            shared.container.give_back(leaf);
        }
        let captured = self.captured.take().and_then(|(io, drained)| {
            let captured = io.into_captured(drained, &shared.watch, shared.clock.now());
            shared.table.finish_io(self.handle);
            captured
        });
        let (_, pidfd) = shared.table.slot(self.handle).forget_process();
        ledger::strike(shared, self.handle);
        if pidfd >= 0 {
            if self.seen_by == SeenBy::Watch {
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
            Telling::Already => lock(&shared.left).extend(survivors),
        }
        Gone::call(shared.finish(self.handle, self.job.run));
    }
}

/// Of what was not counted nothing is known.
fn has_risen(before: Option<u64>, after: Option<u64>) -> bool {
    before
        .zip(after)
        .is_some_and(|(before, after)| after > before)
}

/// The thread that sweeps, and what waits for it.
#[derive(Default)]
pub(super) struct Sweeper {
    state: Mutex<SweeperState>,
    wake: Condvar,
}

#[derive(Default)]
struct SweeperState {
    /// Bounded by the slots of the table.
    queue: VecDeque<Settling>,
    /// Bounded by what is asked of a run before it ends: a signal or two.
    signals: Vec<Signalled>,
    is_started: bool,
    closing: bool,
}

/// A leader whose session has been sent a signal, but for those outside its group.
struct Signalled {
    handle: Handle,
    leader: i32,
    signal: Signal,
}

impl Sweeper {
    pub(super) fn close(&self) {
        lock(&self.state).closing = true;
        self.wake.notify_all();
    }

    fn next(&self) -> (Vec<Signalled>, Vec<Settling>) {
        let mut state = lock(&self.state);
        while state.is_idle() && !state.closing {
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.is_idle() {
            // A later one starts a new thread.
            state.is_started = false;
        }
        let signals = std::mem::take(&mut state.signals);
        (signals, state.queue.drain(..).collect())
    }
}

impl SweeperState {
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.signals.is_empty()
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
        let leaf = state.leaf.take();
        let io = state.io.take();
        let (born, kills_before) = (state.born, state.oom_kills);
        drop(state);
        let oom = leaf.as_ref().is_some_and(Leaf::ran_out_of_memory)
            || has_risen(kills_before, self.oom_kills(job.run));
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
            oom,
            lost,
            job,
            leaf,
            telling,
            captured: None,
            seen_by: if phase == Phase::Running {
                SeenBy::Watch
            } else {
                SeenBy::Spawner
            },
        };
        LeaderEnded::Over(settling, io)
    }

    /// Sweeps, reaps and tells: here if it is certain that nobody is left, otherwise in the thread for that.
    pub(super) fn settle(shared: &Arc<Self>, settling: Settling) {
        let age = shared.clock.now().since(settling.born);
        if shared.container.nobody_left(&settling.dying(), age) {
            settling.conclude(shared, Swept::default());
        } else {
            Self::sweep_later(shared, settling);
        }
    }

    /// Hands a run to the sweeping thread. All that wait are swept in one pass.
    pub(super) fn sweep_later(shared: &Arc<Self>, settling: Settling) {
        Self::have_swept(shared, |state| state.queue.push_back(settling));
    }

    /// Sends a signal to those of a leader's session who are outside its group. All that wait are looked for in one pass.
    pub(super) fn signal_others_later(
        shared: &Arc<Self>,
        handle: Handle,
        leader: i32,
        signal: Signal,
    ) {
        Self::have_swept(shared, |state| {
            state.signals.push(Signalled {
                handle,
                leader,
                signal,
            });
        });
    }

    fn have_swept(shared: &Arc<Self>, add: impl FnOnce(&mut SweeperState)) {
        let mut state = lock(&shared.sweeper.state);
        add(&mut state);
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
            let signals = std::mem::take(&mut state.signals);
            let waiting = state.queue.drain(..).collect();
            drop(state);
            shared.signal_others_now(&signals);
            shared.sweep_now(waiting);
        }
    }

    fn sweep(&self) {
        loop {
            let (signals, waiting) = self.sweeper.next();
            if signals.is_empty() && waiting.is_empty() {
                return;
            }
            self.signal_others_now(&signals);
            self.sweep_now(waiting);
        }
    }

    fn signal_others_now(&self, signals: &[Signalled]) {
        if signals.is_empty() {
            return;
        }
        let leaders: Vec<i32> = signals.iter().map(|one| one.leader).collect();
        let others = self.container.others(&leaders);
        for Signalled {
            handle,
            leader,
            signal,
        } in signals
        {
            for (_, pidfd) in others.iter().filter(|(of, _)| of == leader) {
                // While this leader is not reaped nobody else has its session.
                let slot = self.table.get(*handle);
                if slot.is_some_and(|(slot, _)| slot.pid.load(Ordering::Acquire) == *leader) {
                    contain::send(pidfd, *signal);
                }
            }
        }
    }

    fn sweep_now(&self, waiting: Vec<Settling>) {
        let dying: Vec<Dying<'_>> = waiting.iter().map(Settling::dying).collect();
        let swept = self.container.sweep(&dying, self);
        drop(dying);
        for (settling, swept) in waiting.into_iter().zip(swept) {
            settling.conclude(self, swept);
        }
    }
}
