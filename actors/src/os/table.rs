//! The one owner of live processes.
//!
//! Each run has a slot from its beginning until its process is reaped and its output read. The kernel itself writes a new
//! process's id and pidfd into the slot, so there is no moment at which a process exists and nobody owns it; any thread can
//! kill it, also while the one that spawns it is held in the kernel.
//!
//! A slot's lock guards memory and system calls that do not block; nothing is allocated and nobody is called under it.
//! Signals are sent only under it and only while the process is not reaped: a zombie pins its ids.

use std::collections::HashMap;
use std::hint;
use std::mem;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::os::contain::Leaf;
use crate::os::watch::Io;
use crate::os::{Job, kernel};
use crate::policy::signal::Signal;
use crate::policy::spec::RunId;
use crate::policy::time::Moment;

/// Slots that are made together, when the first of them is needed.
const CHUNK: usize = 64;
/// How often the forced path tries a slot's lock before it goes without.
const SPINS: u32 = 2000;
/// Generations fit into the rest of what epoll carries for us.
const GENERATION_MASK: u32 = (1 << 30) - 1;

type Chunk = Box<[Slot]>;

pub(super) struct Table {
    chunks: Box<[OnceLock<Chunk>]>,
    slots: usize,
    index: Mutex<Index>,
    live: AtomicUsize,
}

struct Index {
    by_run: HashMap<RunId, u32>,
    /// The first free slot; each free slot knows the next.
    free: Option<u32>,
    /// From here on no slot was ever used.
    fresh: usize,
}

/// Names one use of a slot; does nothing once that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Handle {
    pub(super) index: u32,
    pub(super) generation: u32,
}

pub(super) struct Slot {
    /// 0: none, or reaped.
    pub(super) pid: AtomicI32,
    /// −1: none, or reaped.
    pub(super) pidfd: AtomicI32,
    /// When something was read of its output last, in nanoseconds since the beginning; the maximum while nobody reads.
    last_output: AtomicU64,
    state: Mutex<State>,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is set by another thread, independently of the others"
)]
pub(super) struct State {
    pub(super) generation: u32,
    pub(super) phase: Phase,
    /// Somebody sent it a signal or gave it up.
    pub(super) asked: bool,
    /// It was given up; what does not run yet must not.
    pub(super) doomed: bool,
    /// It was given up before its start was told, so its start is not told at all.
    pub(super) abandoned: bool,
    /// When it was cloned.
    pub(super) born: Moment,
    /// How many of its processes had been killed for lack of memory when it was.
    pub(super) oom_kills: Option<u64>,
    /// It ended before its start was told.
    pub(super) ended_early: bool,
    /// Its output is still read, or a thread has the readers at hand.
    pub(super) io_held: bool,
    /// Sent once it runs.
    pub(super) pending: Option<Signal>,
    pub(super) job: Option<Box<Job>>,
    pub(super) io: Option<Box<Io>>,
    /// The control group that it is in.
    pub(super) leaf: Option<Leaf>,
    gone: Option<Box<Gone>>,
    next_free: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Free,
    /// No process exists.
    Waiting,
    /// A process may come to exist at any time.
    Cloning,
    /// Its program runs, but its start has not been told.
    Born,
    /// Its start was told.
    Running,
    /// No process exists any more.
    Over,
}

/// A link in the list of those who wait for the end of a run.
pub(super) struct Gone {
    then: Box<dyn FnOnce() + Send>,
    next: Option<Box<Self>>,
}

impl Gone {
    /// Calls everyone.
    pub(super) fn call(list: Option<Box<Self>>) {
        let mut list = list;
        while let Some(link) = list {
            super::real::contained(link.then);
            list = link.next;
        }
    }
}

impl State {
    /// Sends what was to be sent once there is a process.
    pub(super) fn deliver(&mut self, slot: &Slot) {
        if self.doomed {
            drop(slot.signal(Signal::KILL));
        } else if let Some(signal) = self.pending.take() {
            drop(slot.signal(signal));
        }
    }
}

impl Slot {
    fn new() -> Self {
        Self {
            pid: AtomicI32::new(0),
            pidfd: AtomicI32::new(-1),
            last_output: AtomicU64::new(0),
            state: Mutex::new(State {
                generation: 0,
                phase: Phase::Free,
                asked: false,
                doomed: false,
                abandoned: false,
                born: Moment::ZERO,
                oom_kills: None,
                ended_early: false,
                io_held: false,
                pending: None,
                job: None,
                io: None,
                leaf: None,
                gone: None,
                next_free: None,
            }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Something came, or, `None`, nothing can come: nobody reads.
    pub(super) fn heard(&self, at: Option<Moment>) {
        let at = at.map(|at| u64::try_from(at.since_begin().as_nanos()).unwrap_or(u64::MAX));
        self.last_output
            .store(at.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// For how long nothing came although it could have.
    pub(super) fn quiet(&self, now: Moment) -> Duration {
        let last = Duration::from_nanos(self.last_output.load(Ordering::Relaxed));
        now.since(Moment::after_begin(last))
    }

    /// How long ago something came, if it did since the birth.
    pub(super) fn last_output(&self, born: Moment, now: Moment) -> Option<Duration> {
        let last = Duration::from_nanos(self.last_output.load(Ordering::Relaxed));
        let last = Moment::after_begin(last);
        (last > born).then(|| now.since(last))
    }

    /// Signals the group and, before it has become a leader, the process. The lock is held, unless this is the forced path.
    pub(super) fn signal(&self, signal: Signal) -> std::io::Result<()> {
        let (pid, pidfd) = (
            self.pid.load(Ordering::Acquire),
            self.pidfd.load(Ordering::Acquire),
        );
        // The id is written last.
        if pid <= 0 || pidfd < 0 {
            return Ok(());
        }
        let group = kernel::signal_group(pid, signal.number());
        let result = match group {
            Ok(()) if signal != Signal::KILL => Ok(()),
            // The leader may not have made its group yet, and the kernel reports success if one of several was reached.
            _ => kernel::signal_process(pidfd, signal.number()),
        };
        match result {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result,
        }
    }

    /// Forgets the process, so that nobody signals it any more; the caller reaps it and closes the pidfd.
    pub(super) fn forget_process(&self) -> (i32, i32) {
        let _state = self.lock();
        (
            self.pid.swap(0, Ordering::AcqRel),
            self.pidfd.swap(-1, Ordering::AcqRel),
        )
    }
}

impl Table {
    pub(super) fn new(slots: usize) -> Self {
        let slots = slots.clamp(1, u32::MAX as usize / 2);
        Self {
            chunks: (0..slots.div_ceil(CHUNK))
                .map(|_| OnceLock::new())
                .collect(),
            slots,
            index: Mutex::new(Index {
                by_run: HashMap::with_capacity(slots),
                free: None,
                fresh: 0,
            }),
            live: AtomicUsize::new(0),
        }
    }

    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    /// Whether this run has a slot.
    pub(super) fn has(&self, run: RunId) -> bool {
        lock(&self.index).by_run.contains_key(&run)
    }

    /// Takes a slot for the job; gives it back if there is none.
    pub(super) fn take(&self, job: Box<Job>) -> Result<Handle, Box<Job>> {
        let run = job.run;
        let mut index = lock(&self.index);
        let slot_index = match index.free {
            Some(free) => {
                index.free = self.at(free).lock().next_free.take();
                free
            }
            None if index.fresh < self.slots => {
                let fresh = index.fresh;
                index.fresh += 1;
                // Allocates with the lock of the index held, once for many slots.
                self.chunks[fresh / CHUNK]
                    .get_or_init(|| (0..CHUNK).map(|_| Slot::new()).collect());
                u32::try_from(fresh).expect("the number of slots was bounded")
            }
            None => return Err(job),
        };
        index.by_run.insert(run, slot_index);
        drop(index);
        self.live.fetch_add(1, Ordering::SeqCst);
        let mut state = self.at(slot_index).lock();
        state.phase = Phase::Waiting;
        state.job = Some(job);
        Ok(Handle {
            index: slot_index,
            generation: state.generation,
        })
    }

    fn at(&self, index: u32) -> &Slot {
        let index = index as usize;
        &self.chunks[index / CHUNK]
            .get()
            .expect("a slot is named only after its chunk was made")[index % CHUNK]
    }

    pub(super) fn slot(&self, handle: Handle) -> &Slot {
        self.at(handle.index)
    }

    /// The slot's state, if this use of it is not over.
    pub(super) fn get(&self, handle: Handle) -> Option<(&Slot, MutexGuard<'_, State>)> {
        let slot = self.at(handle.index);
        let state = slot.lock();
        (state.generation == handle.generation && state.phase != Phase::Free)
            .then_some((slot, state))
    }

    /// Says that no process of this run is left; returns whom to tell.
    pub(super) fn finish(&self, handle: Handle, run: RunId) -> Option<Box<Gone>> {
        lock(&self.index).by_run.remove(&run);
        let (_, mut state) = self.get(handle)?;
        state.phase = Phase::Over;
        let gone = state.gone.take();
        let over = !state.io_held;
        drop(state);
        if over {
            self.free(handle);
        }
        self.live.fetch_sub(1, Ordering::SeqCst);
        gone
    }

    /// Says that the run's output is read no longer.
    pub(super) fn finish_io(&self, handle: Handle) {
        let Some((_, mut state)) = self.get(handle) else {
            return;
        };
        state.io_held = false;
        let over = state.phase == Phase::Over;
        drop(state);
        if over {
            self.free(handle);
        }
    }

    /// The readers of all whose output is still read, from the last thread that could read it.
    pub(super) fn take_all_io(&self) -> Vec<Io> {
        let slots = self.chunks.iter().filter_map(OnceLock::get).flatten();
        slots
            .filter_map(|slot| slot.lock().io.take())
            .map(|io| *io)
            .collect()
    }

    fn free(&self, handle: Handle) {
        let mut index = lock(&self.index);
        let mut state = self.at(handle.index).lock();
        if state.generation != handle.generation {
            return;
        }
        let next_free = index.free.replace(handle.index);
        let generation = (state.generation + 1) & GENERATION_MASK;
        let before = mem::replace(
            &mut *state,
            State {
                generation,
                phase: Phase::Free,
                asked: false,
                doomed: false,
                abandoned: false,
                born: Moment::ZERO,
                oom_kills: None,
                ended_early: false,
                io_held: false,
                pending: None,
                job: None,
                io: None,
                leaf: None,
                gone: None,
                next_free,
            },
        );
        drop(state);
        drop(index);
        drop(before);
    }

    /// Remembers whom to call when the run is over; gives it back if it is over already.
    pub(super) fn when_gone(
        &self,
        run: RunId,
        then: Box<dyn FnOnce() + Send>,
    ) -> Option<Box<Gone>> {
        let mut link = Box::new(Gone { then, next: None });
        let index = lock(&self.index);
        // Both locks, in this order, as in `free`: so the slot cannot be given to another run in between.
        let Some(slot) = index.by_run.get(&run).map(|found| self.at(*found)) else {
            return Some(link);
        };
        let mut state = slot.lock();
        link.next = state.gone.take();
        state.gone = Some(link);
        None
    }

    /// Kills everything, also what is only about to exist. Waits for no lock for long.
    pub(super) fn kill_all(&self) {
        for slot in self.chunks.iter().filter_map(OnceLock::get).flatten() {
            let state = slot.try_lock();
            if let Some(mut state) = state {
                if state.phase != Phase::Free {
                    state.asked = true;
                    state.doomed = true;
                }
                drop(slot.signal(Signal::KILL));
            } else {
                // Whoever holds it does not run. The ids may be stale only in the moment of a reap.
                drop(slot.signal(Signal::KILL));
            }
        }
    }
}

impl Slot {
    fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        for _ in 0..SPINS {
            match self.state.try_lock() {
                Ok(state) => return Some(state),
                Err(std::sync::TryLockError::Poisoned(poisoned)) => {
                    return Some(poisoned.into_inner());
                }
                Err(std::sync::TryLockError::WouldBlock) => hint::spin_loop(),
            }
        }
        None
    }
}

/// Nothing under these locks can panic halfway, so a poisoned one is as good as any.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::sync::Arc;

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;
    use crate::os::stdin::Stdin;
    use crate::os::{News, Observer, Output, Rank};
    use crate::policy::spec::{ChildName, CommandSpec};

    struct Deaf;

    impl Observer for Deaf {
        fn tell(&self, _: News) {}
    }

    fn take(table: &Table, run: u64) -> Option<Handle> {
        let job = Job {
            run: RunId(run),
            child: ChildName::new("child").unwrap(),
            command: Arc::new(CommandSpec::new("true", [""; 0])),
            stdin: Stdin::default(),
            output: Output::Discard,
            observer: Arc::new(Deaf),
            listen: None,
            rank: Rank::default(),
        };
        table.take(Box::new(job)).ok()
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the table has no spawner here")]
    fn a_lock_that_is_never_released_saves_nobody_from_the_kill() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .process_group(0)
            .spawn()
            .unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        let table = Table::new(2);
        let handle = take(&table, 1).unwrap();
        let slot = table.slot(handle);
        slot.pidfd.store(pidfd.as_raw_fd(), Ordering::Release);
        slot.pid.store(child.id().cast_signed(), Ordering::Release);
        let held = slot.lock();
        let index = lock(&table.index);
        table.kill_all();
        assert_eq!(table.live(), 1);
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        drop(index);
        drop(held);
    }

    #[test]
    fn a_slot_that_is_used_again_hears_nothing_of_its_former_use() {
        let table = Table::new(1);
        let first = take(&table, 1).unwrap();
        assert!(take(&table, 2).is_none());
        let told = Arc::new(AtomicUsize::new(0));
        let theirs = Arc::clone(&told);
        let count = move || {
            theirs.fetch_add(1, Ordering::Relaxed);
        };
        assert!(table.when_gone(RunId(1), Box::new(count.clone())).is_none());
        Gone::call(table.finish(first, RunId(1)));
        let second = take(&table, 2).unwrap();
        assert_eq!(second.index, first.index);
        assert!(table.get(first).is_none());
        Gone::call(table.finish(first, RunId(1)));
        Gone::call(table.when_gone(RunId(1), Box::new(count)));
        assert_eq!(told.load(Ordering::Relaxed), 2);
        assert!(table.get(second).is_some());
        assert_eq!(table.live(), 1);
    }
}
