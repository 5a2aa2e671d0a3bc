//! The deadline: a plain thread that kills what is left and ends the process, whatever else hangs.
//!
//! Armed by the thread that reads the signals before anybody else hears of them; re-armed, disarmed and reported by the
//! timer actor. The thread is there from the start, so that it cannot fail later for want of memory or threads. It takes no
//! lock but its own, which is never held for longer than it takes to copy a few words, and [`Os::kill_all`], which must
//! work whatever hangs. It wakes up only when something changes or the deadline has come.
//!
//! At the deadline, in this order: kill until nothing is left, for 200 ms at most; let the last words be said, for 250 ms
//! at most and in another thread; exit, without running destructors or exit handlers, which might hang.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::os::clock::Clock;
use crate::os::{Os, signals};
use crate::policy::time::Moment;

/// So often it kills, however long that takes: a machine that stalls must not cost a process its end.
const KILL_ROUNDS: usize = 3;
/// How long killing may take beyond that.
const KILL_LIMIT: Duration = Duration::from_millis(200);
/// How long to wait between two rounds of killing; what dies is reaped meanwhile.
const KILL_PAUSE: Duration = Duration::from_millis(5);
/// How long the last words may take.
const WORDS_LIMIT: Duration = Duration::from_millis(250);

/// What happens at the deadline, after killing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtDeadline {
    /// The process ends.
    ExitProcess,
    /// The process goes on; for embedders, whose process is not ours to end.
    KillOnly,
}

/// A handle of the deadline thread.
///
/// When the last one is dropped the thread ends, unless it is armed: then the deadline holds.
#[derive(Clone)]
pub struct ForceExit {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    order: Option<Order>,
    fired: bool,
    abandoned: bool,
    last_words: Option<Box<dyn FnOnce() + Send>>,
}

#[derive(Clone, Copy)]
struct Order {
    deadline: Moment,
    code: u8,
}

impl ForceExit {
    /// Starts the thread, disarmed.
    pub fn start(os: Arc<dyn Os>, clock: Clock, at_deadline: AtDeadline) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            clock,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let of_thread = Arc::clone(&shared);
        thread::Builder::new()
            .name("kimi-deadline".into())
            .spawn(move || {
                signals::block_all();
                if let Some(code) = of_thread.wait_for_deadline() {
                    of_thread.fire(os.as_ref());
                    match at_deadline {
                        AtDeadline::ExitProcess => exit_now(code),
                        AtDeadline::KillOnly => {}
                    }
                }
            })?;
        Ok(Self {
            handle: Arc::new(Handle { shared }),
        })
    }

    /// Forces at `deadline`, and exits with `code`; an earlier deadline that is armed already stays, with its code.
    pub fn arm(&self, deadline: Moment, code: u8) {
        self.change(|state| {
            let earlier = state.order.is_some_and(|order| order.deadline <= deadline);
            if !earlier {
                state.order = Some(Order { deadline, code });
            }
        });
    }

    /// Forces at `deadline`, and exits with `code`, whatever was armed before.
    pub fn rearm(&self, deadline: Moment, code: u8) {
        self.change(|state| state.order = Some(Order { deadline, code }));
    }

    /// Forces nothing any more, unless it has begun.
    pub fn disarm(&self) {
        self.change(|state| state.order = None);
    }

    /// Forces at once.
    pub fn now(&self, code: u8) {
        let deadline = self.handle.shared.clock.now();
        self.rearm(deadline, code);
    }

    /// What is said before the exit, in a thread of its own and for 250 ms at most; it replaces what was set before.
    pub fn set_last_words(&self, last_words: Box<dyn FnOnce() + Send>) {
        let former = self.handle.shared.lock().last_words.replace(last_words);
        // Dropped here, without the lock: what it holds is the embedder's.
        drop(former);
    }

    /// The deadline, if one is armed.
    pub fn armed(&self) -> Option<Moment> {
        self.handle.shared.lock().order.map(|order| order.deadline)
    }

    /// Whether the deadline came. From then on nothing can be changed.
    pub fn fired(&self) -> bool {
        self.handle.shared.lock().fired
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let shared = &self.handle.shared;
        let mut state = shared.lock();
        if state.fired {
            return;
        }
        let before = state.order.map(|order| order.deadline);
        change(&mut state);
        let after = state.order.map(|order| order.deadline);
        drop(state);
        // A thread that waits for an earlier deadline than there is looks again by itself.
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            shared.changed.notify_all();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().abandoned = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// A panic elsewhere must not keep the deadline from holding; the state is valid after each of its changes.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the exit code at the deadline; none once there is nobody left who could arm it.
    fn wait_for_deadline(&self) -> Option<u8> {
        let mut state = self.lock();
        loop {
            let Some(order) = state.order else {
                if state.abandoned {
                    return None;
                }
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = order.deadline.since(self.clock.now());
            if left.is_zero() {
                state.fired = true;
                return Some(order.code);
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn fire(&self, os: &dyn Os) {
        // A panic in there must not keep the process from ending.
        drop(catch_unwind(AssertUnwindSafe(|| self.kill(os))));
        let last_words = self.lock().last_words.take();
        if let Some(last_words) = last_words {
            say(last_words);
        }
    }

    /// Again and again, since what is killed may have been forking.
    fn kill(&self, os: &dyn Os) {
        let limit = self.clock.now() + KILL_LIMIT;
        for round in 1.. {
            os.kill_all();
            let late = round >= KILL_ROUNDS && self.clock.now() >= limit;
            if os.live() == 0 || late {
                return;
            }
            thread::park_timeout(KILL_PAUSE);
        }
    }
}

/// Without memory or threads for it they stay unsaid: the exit is what counts.
fn say(last_words: Box<dyn FnOnce() + Send>) {
    let (said, heard) = sync_channel::<()>(0);
    let speaker = thread::Builder::new()
        .name("kimi-last-words".into())
        .spawn(move || {
            signals::block_all();
            last_words();
            drop(said);
        });
    if speaker.is_ok() {
        // Nothing is ever sent: the channel closes when the thread is through, also by a panic.
        heard.recv_timeout(WORDS_LIMIT).ok();
    }
}

#[expect(
    unsafe_code,
    reason = "exit handlers and destructors may hang, and only `_exit` runs none"
)]
fn exit_now(code: u8) -> ! {
    // SAFETY: it ends the process; nothing of it is used afterwards.
    unsafe { libc::_exit(i32::from(code)) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::os::{Job, Process};
    use crate::policy::spec::RunId;

    /// Lives until it was killed this many times.
    struct Stubborn {
        lives: AtomicUsize,
        kills: AtomicUsize,
    }

    impl Stubborn {
        fn new(lives: usize) -> Arc<Self> {
            Arc::new(Self {
                lives: AtomicUsize::new(lives),
                kills: AtomicUsize::new(0),
            })
        }
    }

    impl Os for Stubborn {
        fn begin(&self, _: Job) -> Box<dyn Process> {
            unreachable!("nothing begins here")
        }

        fn when_gone(&self, _: RunId, then: Box<dyn FnOnce() + Send>) {
            then();
        }

        fn kill_all(&self) {
            self.kills.fetch_add(1, Ordering::SeqCst);
            let lives = self.lives.load(Ordering::SeqCst);
            assert!(lives < usize::MAX, "cannot be killed");
            self.lives.store(lives.saturating_sub(1), Ordering::SeqCst);
        }

        fn live(&self) -> usize {
            self.lives.load(Ordering::SeqCst)
        }
    }

    /// A guard that kills only, and a channel that hears its last words.
    fn guard(os: &Arc<Stubborn>) -> (ForceExit, Clock, Receiver<()>) {
        let clock = Clock::start();
        let os: Arc<dyn Os> = Arc::<Stubborn>::clone(os);
        let force = ForceExit::start(os, clock, AtDeadline::KillOnly).unwrap();
        let (said, heard) = channel();
        force.set_last_words(Box::new(move || said.send(()).unwrap()));
        (force, clock, heard)
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn at_the_deadline_it_kills_until_nothing_is_left_and_says_its_last_words() {
        let os = Stubborn::new(3);
        let (force, clock, heard) = guard(&os);
        let deadline = clock.now() + Duration::from_millis(10);
        force.arm(deadline, 137);
        heard.recv().unwrap();
        assert!(clock.now() >= deadline);
        assert!(force.fired());
        assert_eq!(os.live(), 0);
        assert_eq!(os.kills.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn what_cannot_be_killed_holds_it_up_for_a_while_only() {
        for lives in [usize::MAX, usize::MAX - 1] {
            let os = Stubborn::new(lives);
            let (force, _, heard) = guard(&os);
            force.now(137);
            heard.recv().unwrap();
            assert!(os.kills.load(Ordering::SeqCst) > 0);
        }
    }

    #[test]
    fn the_earlier_deadline_stays_unless_it_is_rearmed() {
        let (force, clock, _) = guard(&Stubborn::new(0));
        let soon = clock.now() + HOUR;
        assert_eq!(force.armed(), None);
        force.arm(soon, 137);
        force.arm(soon + HOUR, 137);
        assert_eq!(force.armed(), Some(soon));
        force.rearm(soon + HOUR, 137);
        assert_eq!(force.armed(), Some(soon + HOUR));
        force.arm(soon, 137);
        assert_eq!(force.armed(), Some(soon));
        force.disarm();
        assert_eq!(force.armed(), None);
        assert!(!force.fired());
    }

    #[test]
    fn a_shorter_deadline_wakes_the_thread() {
        let (force, clock, heard) = guard(&Stubborn::new(0));
        force.arm(clock.now() + HOUR, 137);
        force.arm(clock.now(), 137);
        heard.recv().unwrap();
    }

    #[test]
    fn once_fired_nothing_changes_it() {
        let (force, clock, heard) = guard(&Stubborn::new(0));
        force.now(137);
        heard.recv().unwrap();
        let fired_at = force.armed();
        force.disarm();
        force.rearm(clock.now() + HOUR, 1);
        assert!(force.fired());
        assert_eq!(force.armed(), fired_at);
    }

    #[test]
    fn the_thread_ends_with_its_last_handle() {
        let os = Stubborn::new(0);
        let (force, _, _heard) = guard(&os);
        let second = force.clone();
        let shared = Arc::downgrade(&force.handle.shared);
        drop(force);
        second.now(137);
        drop(second);
        while shared.strong_count() > 0 {
            thread::yield_now();
        }
        let unarmed = guard(&os).0;
        let shared = Arc::downgrade(&unarmed.handle.shared);
        drop(unarmed);
        while shared.strong_count() > 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn armed_it_holds_although_every_handle_is_gone() {
        let os = Stubborn::new(1);
        let (force, clock, heard) = guard(&os);
        force.arm(clock.now() + Duration::from_millis(20), 137);
        drop(force);
        heard.recv().unwrap();
        assert_eq!(os.live(), 0);
    }

    #[test]
    fn last_words_without_end_are_cut_short() {
        let os = Stubborn::new(0);
        let (force, _, _) = guard(&os);
        let (release, held) = channel::<()>();
        force.set_last_words(Box::new(move || {
            held.recv().ok();
        }));
        let shared = Arc::downgrade(&force.handle.shared);
        force.now(137);
        drop(force);
        while shared.strong_count() > 0 {
            thread::yield_now();
        }
        drop(release);
    }
}
