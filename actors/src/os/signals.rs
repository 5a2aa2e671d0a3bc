//! Hears the signals that are sent to this process, and who sent them.
//!
//! The handler writes a record to a pipe; a plain thread reads it and tells. Neither needs the async runtime, so a signal is
//! heard however busy that is. Nothing in here decides anything: that is `policy::escalation`'s.
//!
//! Two quick signals are two records: what the pipe cannot take is counted instead, and told without its sender. (The kernel
//! itself merges a standard signal with one of the same kind that is still pending.)
//!
//! A guardian passes on what was sent to it, with the sender. What was sent to the whole group comes twice, once straight and
//! once by the guardian, and is told once.
//!
//! Dispositions belong to the whole process, so only one [`Listening`] exists at a time, and the embedder asks for it.

use std::collections::VecDeque;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use crate::os::clock::Clock;
use crate::policy::signal::Signal;
use crate::policy::time::Moment;

/// A signal that this process received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Which one.
    pub signal: Signal,
    /// The process that sent it; none if the kernel did (a key at the terminal, for one), or if that is not known.
    pub sender: Option<Sender>,
    /// When it was read, which is right after it came unless the reader is held up.
    pub at: Moment,
}

/// Who sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The process; 0 for one outside of our PID namespace.
    pub pid: u32,
    /// Its real user.
    pub uid: u32,
}

/// Why signals cannot be listened to.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// There is one listener in this process already.
    #[error("cannot listen to signals twice in one process")]
    AlreadyListening,
    /// The signal cannot be caught, or belongs to somebody else in this process.
    #[error("cannot take {signal}")]
    Reserved {
        /// Which one.
        signal: Signal,
    },
    /// A system call failed.
    #[error("cannot {step}")]
    System {
        /// What was tried, as a verb and an object.
        step: &'static str,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
}

/// Listens until it is dropped; then the former dispositions hold again, and what came before was told.
#[derive(Debug)]
#[must_use = "dropping it ends the listening"]
pub struct Listening {
    former: Vec<Former>,
    honoured: Vec<Signal>,
    end: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Listening {
    /// The signals that were asked for and not taken, because this process was started to ignore them (`nohup`).
    pub fn honoured(&self) -> &[Signal] {
        &self.honoured
    }
}

/// What a signal did before.
struct Former {
    signal: Signal,
    action: libc::sigaction,
}

impl std::fmt::Debug for Former {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Former").field(&self.signal).finish()
    }
}

/// What the handler writes. All of it goes in one `write`, which is atomic up to `PIPE_BUF` (`pipe(7)`).
#[derive(Clone, Copy, Default)]
struct Record {
    /// 0 only wakes the reader.
    signal: i32,
    code: i32,
    pid: i32,
    uid: u32,
}

const RECORD_LEN: usize = 16;
const SIGNALS: usize = 65;
const ERROR_PAUSE: Duration = Duration::from_millis(100);
/// The code of a record whose signal was passed on; the kernel uses none of this size.
const FORWARDED: i32 = i32::MIN;
/// What was sent to a whole group comes straight and by the guardian, at most so much later.
const ECHO: Duration = Duration::from_millis(200);
/// More senders at once are not told apart.
const ECHOES: usize = 8;

/// The pipe of this process. It is never closed, so that a handler that is still under way writes to no other file.
static PIPE: OnceLock<(OwnedFd, OwnedFd)> = OnceLock::new();
/// The writing end of [`PIPE`], where the handler finds it without a lock.
static WRITE_END: AtomicI32 = AtomicI32::new(-1);
/// The process that listens: a fork of it, which shares the pipe, must not write there.
static OWNER: AtomicI32 = AtomicI32::new(0);
/// The process that passes signals on to this one; 0: there is none.
static FORWARDER: AtomicI32 = AtomicI32::new(0);
/// Whether there is a listener.
static CLAIMED: AtomicBool = AtomicBool::new(false);
/// By signal: how many were received that the pipe did not take.
static UNWRITTEN: [AtomicU32; SIGNALS] = [const { AtomicU32::new(0) }; SIGNALS];
/// The sum of [`UNWRITTEN`], so that the reader need not look at each.
static UNWRITTEN_SUM: AtomicUsize = AtomicUsize::new(0);

/// Listens to these signals and tells each one that comes, in a thread of its own.
///
/// A panic in `tell` is caught there: the next signal is told all the same. An inherited ignored SIGHUP stays ignored; other
/// ignored signals are taken, since shells let background jobs ignore SIGINT and SIGQUIT without anybody having asked.
pub fn listen(
    signals: &[Signal],
    clock: Clock,
    tell: Box<dyn FnMut(Received) + Send>,
) -> Result<Listening, ListenError> {
    if let Some(signal) = signals.iter().copied().find(|signal| is_reserved(*signal)) {
        return Err(ListenError::Reserved { signal });
    }
    let claim = Claim::take()?;
    let (read_end, write_end) = open_pipe().map_err(|source| ListenError::System {
        step: "make a pipe for signals",
        source,
    })?;
    forget_leftovers(read_end);
    WRITE_END.store(write_end.as_raw_fd(), Ordering::SeqCst);
    OWNER.store(pid(), Ordering::SeqCst);

    let end = Arc::new(AtomicBool::new(false));
    let mut reader = Reader {
        read_end,
        clock,
        tell,
        echoes: Echoes::default(),
        end: Arc::clone(&end),
        _claim: claim,
    };
    let thread = thread::Builder::new()
        .name("kimi-signals".into())
        .spawn(move || {
            block_all();
            reader.run();
        })
        .map_err(|source| ListenError::System {
            step: "start the thread that reads signals",
            source,
        })?;
    let mut listening = Listening {
        former: Vec::with_capacity(signals.len()),
        honoured: Vec::new(),
        end,
        reader: Some(thread),
    };
    for signal in signals {
        // On an error the drop of `listening` gives back what was taken so far.
        listening
            .take(*signal)
            .map_err(|source| ListenError::System {
                step: "install a signal handler",
                source,
            })?;
    }
    Ok(listening)
}

/// Makes signals work whatever this process was started with; for the first lines of a program, while it has one thread.
///
/// SIGCHLD gets its default again, for where it is ignored no exit code can be read. Every signal is unblocked. Returns what
/// was ignored, except SIGPIPE, which Rust ignores itself.
pub fn normalise() -> Vec<Signal> {
    let ignored: Vec<Signal> = (1..)
        .map_while(Signal::from_number)
        .filter(|signal| signal.number() != libc::SIGPIPE && is_ignored(*signal))
        .collect();
    default_child_signal();
    set_mask(libc::SIG_UNBLOCK);
    ignored
}

/// Gives SIGCHLD its default: where it is ignored, the kernel reaps.
pub(super) fn default_child_signal() {
    let mut default = blank_action();
    default.sa_sigaction = libc::SIG_DFL;
    set_action(Signal::CHLD, &default).expect("SIGCHLD can have its default");
}

/// Blocks every signal in the calling thread, so that handlers run elsewhere.
pub fn block_all() {
    set_mask(libc::SIG_BLOCK);
}

/// Signals that cannot be caught, that report a fault of the very thread, or that the runtime itself or libc uses.
fn is_reserved(signal: Signal) -> bool {
    matches!(
        signal.number(),
        libc::SIGKILL
            | libc::SIGSTOP
            | libc::SIGCHLD
            | libc::SIGSEGV
            | libc::SIGBUS
            | libc::SIGFPE
            | libc::SIGILL
            | libc::SIGTRAP
            | libc::SIGABRT
            | libc::SIGSYS
            | libc::SIGPIPE
            | 32
            | 33
    )
}

/// The right to be the one listener; given back when the reader ends.
struct Claim;

impl Claim {
    fn take() -> Result<Self, ListenError> {
        if CLAIMED.swap(true, Ordering::SeqCst) {
            Err(ListenError::AlreadyListening)
        } else {
            Ok(Self)
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        CLAIMED.store(false, Ordering::SeqCst);
    }
}

/// Called with the claim held, so never twice at once.
fn open_pipe() -> io::Result<&'static (OwnedFd, OwnedFd)> {
    if let Some(pipe) = PIPE.get() {
        return Ok(pipe);
    }
    let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    Ok(PIPE.get_or_init(|| (read_end, write_end)))
}

/// What a handler wrote after the former listener had ended is nobody's.
fn forget_leftovers(read_end: &OwnedFd) {
    let mut buffer = [0; 64 * RECORD_LEN];
    while rustix::io::read(read_end, &mut buffer).is_ok_and(|len| len > 0) {}
    for count in &UNWRITTEN {
        count.store(0, Ordering::SeqCst);
    }
    UNWRITTEN_SUM.store(0, Ordering::SeqCst);
}

impl Listening {
    fn take(&mut self, signal: Signal) -> io::Result<()> {
        if signal == Signal::HUP && is_ignored(signal) {
            self.honoured.push(signal);
            return Ok(());
        }
        let mut action = blank_action();
        action.sa_sigaction = handler_address();
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        fill(&mut action.sa_mask);
        let former = set_action(signal, &action)?;
        // Given twice, the second time the former one is ours.
        if former.sa_sigaction != handler_address() {
            self.former.push(Former {
                signal,
                action: former,
            });
        }
        Ok(())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        for Former { signal, action } in self.former.drain(..) {
            // Somebody who took the signal after us keeps it.
            let ours = get_action(signal).is_ok_and(|now| now.sa_sigaction == handler_address());
            if ours {
                set_action(signal, &action).expect("a former disposition can be set again");
            }
        }
        self.end.store(true, Ordering::SeqCst);
        wake_reader();
        let Some(reader) = self.reader.take() else {
            return;
        };
        // Dropped by `tell` itself, the thread ends after it and cannot be awaited.
        if reader.thread().id() != thread::current().id() {
            let ended = reader.join();
            debug_assert!(ended.is_ok(), "what `tell` does is caught");
        }
    }
}

/// A full pipe needs no record to wake the reader.
fn wake_reader() {
    write_record(WRITE_END.load(Ordering::SeqCst), Record::default());
}

struct Reader {
    read_end: &'static OwnedFd,
    clock: Clock,
    tell: Box<dyn FnMut(Received) + Send>,
    echoes: Echoes,
    end: Arc<AtomicBool>,
    _claim: Claim,
}

impl Reader {
    fn run(&mut self) {
        loop {
            // Looked at before waiting, for the record that wakes may have been read already; and before reading, so that
            // all that came before the end is told.
            let end = self.end.load(Ordering::SeqCst);
            if !end {
                self.wait();
            }
            self.read_all();
            self.tell_unwritten();
            if end {
                return;
            }
        }
    }

    /// Waits until there is something to read.
    fn wait(&self) {
        let mut fds = [PollFd::from_borrowed_fd(
            self.read_end.as_fd(),
            PollFlags::IN,
        )];
        if poll(&mut fds, None).is_err() {
            // Out of memory, or somebody closed our descriptor: no reason to go deaf, and none to spin.
            thread::park_timeout(ERROR_PAUSE);
        }
    }

    fn read_all(&mut self) {
        let mut buffer = [0; 256 * RECORD_LEN];
        // Only whole records are written, and the buffer holds a whole number of them.
        while let Ok(len @ 1..) = rustix::io::read(self.read_end, &mut buffer) {
            let (records, _) = buffer[..len].as_chunks::<RECORD_LEN>();
            for bytes in records {
                let record = Record::from_bytes(*bytes);
                let Some(signal) = Signal::from_number(record.signal) else {
                    continue;
                };
                let sender = record.sender();
                if !self
                    .echoes
                    .is_echo(signal, sender, record.way(), self.clock.now())
                {
                    self.tell(signal, sender);
                }
            }
        }
    }

    fn tell_unwritten(&mut self) {
        if UNWRITTEN_SUM.swap(0, Ordering::SeqCst) == 0 {
            return;
        }
        for (signal, count) in (0..).map(Signal::from_number).zip(&UNWRITTEN) {
            let Some(signal) = signal else { continue };
            for _ in 0..count.swap(0, Ordering::SeqCst) {
                self.tell(signal, None);
            }
        }
    }

    fn tell(&mut self, signal: Signal, sender: Option<Sender>) {
        let received = Received {
            signal,
            sender,
            at: self.clock.now(),
        };
        // The panic hook has told it; were the thread to end, the process could not be stopped any more.
        drop(catch_unwind(AssertUnwindSafe(|| (self.tell)(received))));
    }
}

impl Record {
    fn to_bytes(self) -> [u8; RECORD_LEN] {
        let mut bytes = [0; RECORD_LEN];
        bytes[..4].copy_from_slice(&self.signal.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.code.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.pid.to_ne_bytes());
        bytes[12..].copy_from_slice(&self.uid.to_ne_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; RECORD_LEN]) -> Self {
        let [a, b, c, d] = [0, 4, 8, 12].map(|at| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[at..at + 4]);
            word
        });
        Self {
            signal: i32::from_ne_bytes(a),
            code: i32::from_ne_bytes(b),
            pid: i32::from_ne_bytes(c),
            uid: u32::from_ne_bytes(d),
        }
    }

    /// Only for these codes do the fields name a sender (`sigaction(2)`).
    fn sender(self) -> Option<Sender> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let by_process = matches!(
            self.code,
            libc::SI_USER | libc::SI_QUEUE | libc::SI_TKILL | FORWARDED
        );
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let by_process = matches!(self.code, libc::SI_USER | libc::SI_QUEUE | FORWARDED);
        let pid = u32::try_from(self.pid).ok()?;
        by_process.then_some(Sender { pid, uid: self.uid })
    }
}

/// How a signal came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Straight,
    Forwarded,
}

impl Record {
    fn way(self) -> Way {
        match self.code {
            FORWARDED => Way::Forwarded,
            _ => Way::Straight,
        }
    }
}

/// What came one way and may come the other as well: sent to a group, it reaches both this process and the guardian.
#[derive(Debug, Default)]
struct Echoes {
    heard: VecDeque<(Signal, Sender, Way, Moment)>,
}

impl Echoes {
    /// Whether this is the same as one that came the other way just before.
    fn is_echo(&mut self, signal: Signal, sender: Option<Sender>, way: Way, now: Moment) -> bool {
        let Some(sender) = sender else {
            return false;
        };
        self.heard.retain(|(.., at)| now.since(*at) <= ECHO);
        let same = self
            .heard
            .iter()
            .position(|(of, by, other, _)| (*of, *by) == (signal, sender) && *other != way);
        if let Some(at) = same {
            self.heard.remove(at);
            return true;
        }
        self.heard.truncate(ECHOES - 1);
        self.heard.push_front((signal, sender, way, now));
        false
    }
}

/// Says which process passes signals on to this one.
pub(super) fn heed_forwarder(forwarder: Pid) {
    FORWARDER.store(forwarder.as_raw_pid(), Ordering::SeqCst);
}

/// Sends a signal on, with who had sent it.
#[expect(unsafe_code, reason = "no safe wrapper sends a signal with a value")]
pub(super) fn pass_on(to: Pid, signal: Signal, sender: Option<Sender>) {
    let Some(Sender { pid, uid }) = sender else {
        let number = rustix::process::Signal::from_named_raw(signal.number());
        if let Some(number) = number {
            // It may have ended just now.
            rustix::process::kill_process(to, number).ok();
        }
        return;
    };
    let value = libc::sigval {
        sival_ptr: ptr::without_provenance_mut(pack(pid, uid)),
    };
    // SAFETY: takes numbers only; the value is not a pointer to anybody.
    unsafe { libc::sigqueue(to.as_raw_pid(), signal.number(), value) };
}

/// A pid has 22 bits at most; where a word is too small for both, the user is not told.
fn pack(pid: u32, uid: u32) -> usize {
    let uid = (uid as usize).checked_shl(u32::BITS).unwrap_or(0);
    uid | pid as usize
}

fn unpack(value: usize) -> (i32, u32) {
    let uid = value.checked_shr(u32::BITS).unwrap_or(0);
    let low = |value: usize| u32::try_from(value & u32::MAX as usize).unwrap_or(0);
    (low(value).cast_signed(), low(uid))
}

/// The handler: async-signal-safe, and `errno` is as it was when it returns.
extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let errno = errno();
    if pid() == OWNER.load(Ordering::SeqCst) {
        let (code, pid, uid) = origin(info);
        report(Record {
            signal,
            code,
            pid,
            uid,
        });
    }
    set_errno(errno);
}

fn report(record: Record) {
    let write_end = WRITE_END.load(Ordering::SeqCst);
    if write_record(write_end, record) {
        return;
    }
    // Counted before the second try: if the pipe is full then too, the reader has yet to read it and looks here afterwards;
    // if it is not, that try wakes the reader.
    if let Some(count) = usize::try_from(record.signal)
        .ok()
        .and_then(|signal| UNWRITTEN.get(signal))
    {
        count.fetch_add(1, Ordering::SeqCst);
        UNWRITTEN_SUM.fetch_add(1, Ordering::SeqCst);
    }
    write_record(write_end, Record::default());
}

#[expect(unsafe_code, reason = "reads what the kernel handed to the handler")]
fn origin(info: *mut libc::siginfo_t) -> (i32, i32, u32) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid record, which lives as long as the handler runs.
    let info = unsafe { &*info };
    // SAFETY: the record is initialised as a whole; whether the fields mean a sender is told by the code.
    let pid = unsafe { info.si_pid() };
    if info.si_code == libc::SI_QUEUE && pid == FORWARDER.load(Ordering::SeqCst) && pid != 0 {
        // SAFETY: with this code the field is the value that was sent along.
        let value = unsafe { info.si_value() };
        let (pid, uid) = unpack(value.sival_ptr.addr());
        return (FORWARDED, pid, uid);
    }
    // SAFETY: as above.
    let uid = unsafe { info.si_uid() };
    (info.si_code, pid, uid)
}

/// Whether it was written; it is not if the pipe is full.
#[expect(
    unsafe_code,
    reason = "the handler has the number of a file descriptor only, and `write` is async-signal-safe"
)]
fn write_record(write_end: i32, record: Record) -> bool {
    let bytes = record.to_bytes();
    // SAFETY: the buffer is valid for its length; the descriptor is -1 or the pipe's, which is never closed.
    let written = unsafe { libc::write(write_end, bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(written) == Ok(RECORD_LEN)
}

#[expect(unsafe_code, reason = "`getpid` is async-signal-safe")]
fn pid() -> i32 {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::getpid() }
}

#[expect(unsafe_code, reason = "the handler must not change what it interrupts")]
fn errno() -> i32 {
    // SAFETY: the place is this thread's own and always valid.
    unsafe { *errno_place() }
}

#[expect(unsafe_code, reason = "the handler must not change what it interrupts")]
fn set_errno(errno: i32) {
    // SAFETY: the place is this thread's own and always valid.
    unsafe { *errno_place() = errno }
}

#[expect(unsafe_code, reason = "libc's errno has no other access")]
fn errno_place() -> *mut i32 {
    #[cfg(target_os = "macos")]
    // SAFETY: it takes nothing and returns this thread's place.
    return unsafe { libc::__error() };
    #[cfg(not(target_os = "macos"))]
    // SAFETY: it takes nothing and returns this thread's place.
    return unsafe { libc::__errno_location() };
}

fn handler_address() -> libc::sighandler_t {
    let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = on_signal;
    handler as libc::sighandler_t
}

fn is_ignored(signal: Signal) -> bool {
    get_action(signal).is_ok_and(|action| action.sa_sigaction == libc::SIG_IGN)
}

#[expect(unsafe_code, reason = "dispositions are reached through libc only")]
fn blank_action() -> libc::sigaction {
    // SAFETY: zeros are valid: the default action, an empty mask and no flags.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

#[expect(unsafe_code, reason = "dispositions are reached through libc only")]
fn get_action(signal: Signal) -> io::Result<libc::sigaction> {
    let mut now = blank_action();
    // SAFETY: a null pointer asks only; `now` is valid for writing.
    let code = unsafe { libc::sigaction(signal.number(), ptr::null(), &raw mut now) };
    checked(code).map(|()| now)
}

/// Sets it and returns the former one.
#[expect(unsafe_code, reason = "dispositions are reached through libc only")]
fn set_action(signal: Signal, action: &libc::sigaction) -> io::Result<libc::sigaction> {
    let mut former = blank_action();
    // SAFETY: both are valid; `action` names our handler, a default, or what the kernel gave as the former one.
    let code = unsafe { libc::sigaction(signal.number(), action, &raw mut former) };
    checked(code).map(|()| former)
}

fn checked(code: i32) -> io::Result<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[expect(unsafe_code, reason = "signal sets are reached through libc only")]
fn fill(set: &mut libc::sigset_t) {
    // SAFETY: the set is valid for writing; it cannot fail on a valid one.
    let code = unsafe { libc::sigfillset(set) };
    debug_assert_eq!(code, 0);
}

/// Blocks or unblocks every signal for the calling thread.
#[expect(unsafe_code, reason = "signal masks are reached through libc only")]
fn set_mask(how: i32) {
    let mut every = blank_action().sa_mask;
    fill(&mut every);
    // SAFETY: the set is valid, and the former mask is not asked for.
    let code = unsafe { libc::pthread_sigmask(how, &raw const every, ptr::null_mut()) };
    debug_assert_eq!(code, 0);
}

const _: () = assert!(size_of::<Record>() == RECORD_LEN);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_be_taken_is_refused() {
        for name in ["KILL", "STOP", "CHLD", "SEGV", "BUS", "PIPE", "ABRT", "32"] {
            let signal: Signal = name.parse().unwrap();
            let refused = listen(&[Signal::USR1, signal], Clock::start(), Box::new(|_| ()));
            assert!(
                matches!(refused, Err(ListenError::Reserved { signal: named }) if named == signal),
                "{name}"
            );
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = Record {
            signal: 15,
            code: libc::SI_QUEUE,
            pid: 4_194_303,
            uid: 4_294_967_294,
        };
        let again = Record::from_bytes(record.to_bytes());
        assert_eq!(again.signal, 15);
        assert_eq!(
            again.sender(),
            Some(Sender {
                pid: 4_194_303,
                uid: 4_294_967_294
            })
        );
    }

    #[test]
    fn a_sender_fits_into_the_value_that_is_sent_along() {
        for (pid, uid) in [(1, 0), (4_194_304, 1000), (7, u32::MAX)] {
            assert_eq!(unpack(pack(pid, uid)), (pid.cast_signed(), uid));
        }
    }

    #[test]
    fn what_is_sent_to_the_whole_group_is_told_once() {
        let (term, int) = (Signal::TERM, Signal::INT);
        let sender = |pid| Some(Sender { pid, uid: 0 });
        let at = |ms| Moment::after_begin(Duration::from_millis(ms));
        let mut echoes = Echoes::default();
        for (step, (signal, from, way, now, expected)) in [
            (term, sender(7), Way::Straight, at(10), false),
            (int, sender(7), Way::Forwarded, at(10), false),
            (term, sender(8), Way::Forwarded, at(10), false),
            (term, sender(7), Way::Forwarded, at(11), true),
            (term, sender(7), Way::Forwarded, at(12), false),
            (term, sender(7), Way::Forwarded, at(13), false),
            (term, sender(7), Way::Straight, at(14), true),
            (int, sender(9), Way::Straight, at(100), false),
            (int, sender(9), Way::Forwarded, at(301), false),
            (int, None, Way::Straight, at(302), false),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(echoes.is_echo(signal, from, way, now), expected, "{step}");
        }
        for pid in 0..100 {
            assert!(!echoes.is_echo(term, sender(pid), Way::Straight, at(400)));
        }
        assert_eq!(echoes.heard.len(), ECHOES);
    }

    #[test]
    fn what_the_kernel_sends_has_no_sender() {
        for code in [libc::SI_KERNEL, libc::SI_TIMER, libc::CLD_EXITED] {
            let record = Record {
                signal: 2,
                code,
                pid: 7,
                uid: 0,
            };
            assert_eq!(record.sender(), None);
        }
    }
}
