//! Quick commands: the thread that started one stays with it for a moment.
//!
//! Most captured commands are over in a fraction of a millisecond. To hand such a one to the watching thread would take three
//! registrations, two changes of thread and as many wake-ups, more than all else that it costs. So whoever has started it waits
//! itself, briefly; one that takes longer is handed over then, as it stands.

use std::mem;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::thread::CpuSet;

use crate::os::Drained;
use crate::os::clock::Clock;
use crate::os::kernel;
use crate::os::real::Shared;
use crate::os::reap::{LeaderEnded, Settling};
use crate::os::table::{Handle, Phase, lock};
use crate::os::watch::{Chunk, Io, SCRATCH_BYTES};
use crate::policy::time::Moment;

/// How long a command may take to be stayed with.
const MOMENT: Duration = Duration::from_micros(500);
/// After so long without a sign of it, those that are over are told of, who were to be told of together with it.
const QUICK: Duration = Duration::from_micros(100);
/// So many quick commands are told of together, if as many wait to be started: who is told is woken once.
const TOGETHER: usize = 4;
/// How many commands in a row were quick, at most, as far as it counts.
const MOST_PATIENCE: u32 = 8;
/// Without any patience left, every so many commands one is stayed with all the same.
const ANOTHER_TRY: u32 = 16;

/// What a spawning thread needs to stay with what it has started.
#[derive(Debug)]
pub(super) struct Company {
    patience: Patience,
    seat: Option<Seat>,
    scratch: Box<[u8]>,
}

/// What became of a run with which a thread may have stayed.
pub(super) enum Kept {
    /// It has ended, and what it wrote was read.
    Over(Settling),
    /// It goes on, with what reads its output.
    Not(Option<Box<Io>>),
}

impl Company {
    pub(super) fn new() -> Self {
        Self {
            patience: Patience::new(),
            seat: None,
            // Untouched pages cost nothing.
            scratch: vec![0; SCRATCH_BYTES].into(),
        }
    }

    /// Keeps this thread on one processor as long as quick commands come one after the other.
    ///
    /// Its children begin there, end there and wake it there. Left to itself it would be moved about by those whom it wakes,
    /// and every such move costs an interrupt of another processor: together a fifth of what a command costs.
    pub(super) fn seat(&mut self, place: usize, others_wait: bool) {
        if self.seat.is_none() && others_wait && self.patience.is_full() {
            self.seat = Seat::take(place);
        }
    }

    /// Lets this thread run anywhere again, so that what comes next finds it wherever there is room.
    pub(super) fn rise(&mut self) {
        if let Some(seat) = self.seat.take() {
            seat.leave();
        }
    }

    /// Where its children may run, if that is not where it runs itself.
    pub(super) fn processors(&self) -> Option<&CpuSet> {
        self.seat.as_ref().map(|seat| &seat.before)
    }

    /// Stays with a run whose output is only to be kept, if it may be a quick one.
    pub(super) fn keep(
        &mut self,
        shared: &Arc<Shared>,
        handle: Handle,
        io: Option<Box<Io>>,
    ) -> Kept {
        let others_wait = shared.pool.others_wait();
        let mut io = match io {
            Some(io) if io.is_plain() && self.patience.is_left(others_wait) => io,
            io => {
                Shared::settle_all(shared);
                return Kept::Not(io);
            }
        };
        let slot = shared.table.slot(handle);
        let heard = |at| slot.heard(Some(at));
        let stayed = kernel::with_borrowed(slot.pidfd.load(Ordering::Acquire), |pidfd| {
            let must_go = || {
                Shared::settle_all(shared);
                shared.pool.is_urgent()
            };
            stay(
                &mut io,
                pidfd,
                &mut self.scratch,
                shared.clock,
                heard,
                must_go,
            )
        });
        self.patience.learn(stayed);
        if stayed == Stayed::TooLong {
            return Kept::Not(Some(io));
        }
        match shared.leader_ended(handle, Phase::Born) {
            LeaderEnded::Over(mut settling, _) => {
                settling.captured = Some((io, Drained::Eof));
                Kept::Over(settling)
            }
            LeaderEnded::AskLater | LeaderEnded::Nothing => Kept::Not(Some(io)),
        }
    }
}

/// Runs that are over, and of which nobody was told yet. Whoever has them may be held up in the start of another: all others
/// that start processes, and the watching thread, see to them too.
#[derive(Default)]
pub(super) struct Over(Mutex<Vec<Settling>>);

impl Over {
    pub(super) fn is_some(&self) -> bool {
        !lock(&self.0).is_empty()
    }
}

impl Shared {
    /// Settles a quick run; not at once if others wait to be started.
    pub(super) fn settle_together(shared: &Arc<Self>, settling: Settling) {
        let others_wait = shared.pool.others_wait();
        let mut over = lock(&shared.over.0);
        over.push(settling);
        let is_time = !others_wait || over.len() >= TOGETHER;
        drop(over);
        if is_time {
            Self::settle_all(shared);
        }
    }

    /// Settles those that are over.
    pub(super) fn settle_all(shared: &Arc<Self>) {
        let over = mem::take(&mut *lock(&shared.over.0));
        for settling in over {
            Self::settle(shared, settling);
        }
    }
}

/// One processor of those on which a thread may run.
#[derive(Debug)]
struct Seat {
    before: CpuSet,
}

/// Where threads of ours may run that one with a seat starts: a thread begins where its maker may run.
static ELSEWHERE: OnceLock<CpuSet> = OnceLock::new();

/// Lets a new thread run wherever it may.
pub(super) fn leave_the_seat_of_the_maker() {
    if let Some(elsewhere) = ELSEWHERE.get() {
        rustix::thread::sched_setaffinity(None, elsewhere).ok();
    }
}

impl Seat {
    fn take(place: usize) -> Option<Self> {
        let before = rustix::thread::sched_getaffinity(None).ok()?;
        ELSEWHERE.get_or_init(|| before);
        let count = usize::try_from(before.count())
            .ok()
            .filter(|count| *count > 0)?;
        let chosen = (0..CpuSet::MAX_CPU)
            .filter(|cpu| before.is_set(*cpu))
            .nth(place % count)?;
        let mut one = CpuSet::new();
        one.set(chosen);
        rustix::thread::sched_setaffinity(None, &one).ok()?;
        Some(Self { before })
    }

    fn leave(self) {
        // What was allowed then may not be any more; then the kernel allows what it can.
        rustix::thread::sched_setaffinity(None, &self.before).ok();
    }
}

/// What staying with a command came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stayed {
    /// It has ended, and all that it wrote was read.
    Over,
    /// Somebody else has to go on.
    TooLong,
}

/// Whether commands are quick enough to stay with them while others wait to be started.
#[derive(Debug)]
pub(super) struct Patience {
    left: u32,
    passed: u32,
}

impl Patience {
    pub(super) const fn new() -> Self {
        Self { left: 1, passed: 0 }
    }

    /// Whether to stay with the next one.
    pub(super) fn is_left(&mut self, others_wait: bool) -> bool {
        if !others_wait || self.left > 0 {
            return true;
        }
        self.passed += 1;
        self.passed.is_multiple_of(ANOTHER_TRY)
    }

    fn is_full(&self) -> bool {
        self.left == MOST_PATIENCE
    }

    /// Learns how it was.
    pub(super) fn learn(&mut self, stayed: Stayed) {
        self.left = match stayed {
            Stayed::Over => (self.left + 1).min(MOST_PATIENCE),
            Stayed::TooLong => self.left / 2,
        };
    }
}

/// Reads what a command writes until it has ended, for a moment at most.
pub(super) fn stay(
    io: &mut Io,
    pidfd: BorrowedFd<'_>,
    scratch: &mut [u8],
    clock: Clock,
    heard: impl Fn(Moment),
    must_go: impl Fn() -> bool,
) -> Stayed {
    let mut ready = wait(io, pidfd, QUICK);
    if ready.is_nothing() && must_go() {
        return Stayed::TooLong;
    }
    let deadline = clock.now() + MOMENT;
    loop {
        let left = deadline.since(clock.now());
        for (which, is_ready) in ready.streams.into_iter().enumerate() {
            if is_ready && io.read_unwatched(which, scratch) == Chunk::Some {
                let now = clock.now();
                io.last_output = Some(now);
                heard(now);
                if ready.has_ended {
                    io.read_unwatched(which, scratch);
                }
            }
        }
        if ready.has_ended && io.is_at_eof() {
            return Stayed::Over;
        }
        // If it has ended and its pipes are open, somebody else holds them: that is for the one who can wait.
        if ready.has_ended || left.is_zero() {
            return Stayed::TooLong;
        }
        ready = wait(io, pidfd, left);
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    streams: [bool; 2],
    has_ended: bool,
}

impl Ready {
    fn is_nothing(self) -> bool {
        !self.has_ended && self.streams == [false; 2]
    }
}

/// What there is to read, and whether it has ended. One who has ended has written all that it will, so then everything that
/// is open is to be looked at.
fn wait(io: &Io, pidfd: BorrowedFd<'_>, left: Duration) -> Ready {
    let streams = io.streams();
    let mut polled = [
        // One that is not open stands there as the process does, which is awaited anyway.
        PollFd::from_borrowed_fd(streams[0].unwrap_or(pidfd), PollFlags::IN),
        PollFd::from_borrowed_fd(streams[1].unwrap_or(pidfd), PollFlags::IN),
        PollFd::from_borrowed_fd(pidfd, PollFlags::IN),
    ];
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: left.subsec_nanos().into(),
    };
    // Interrupted, or nothing yet: whoever asks looks at the time.
    if rustix::event::poll(&mut polled, Some(&timeout)).is_err() {
        return Ready::default();
    }
    let has_ended = !polled[2].revents().is_empty();
    let is_ready = |which: usize| {
        streams[which].is_some() && (has_ended || !polled[which].revents().is_empty())
    };
    Ready {
        streams: [is_ready(0), is_ready(1)],
        has_ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_slow_is_not_stayed_with_while_others_wait_but_is_tried_again() {
        let mut patience = Patience::new();
        assert!(patience.is_left(true));
        patience.learn(Stayed::TooLong);
        assert!(patience.is_left(false), "nobody waits");
        let tried = (0..2 * ANOTHER_TRY)
            .filter(|_| patience.is_left(true))
            .count();
        assert_eq!(tried, 2);
        patience.learn(Stayed::Over);
        assert!(patience.is_left(true));
    }
}
