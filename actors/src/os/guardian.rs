//! The guardian: a tiny process, the parent of the runtime, that sees to it that nothing outlives either of the two.
//!
//! A program that supervises calls [`split`] before it does anything else. The process that was started becomes the guardian
//! and stays the one that people see; the runtime goes on in a child of it. The guardian is the child subreaper of all that
//! the runtime starts, so whatever leaves its family (`setsid(2)`, a double fork) becomes a child of the guardian. It has one
//! thread and one loop: it reaps, passes signals on, and ends with the exit code of the runtime.
//!
//! - The runtime dies: the guardian kills its own children until it has none. Each kill hands it the orphans of the killed.
//! - The guardian dies: the runtime learns it at once and ends everything in order, but fast; see [`Ward`].
//! - Both die at once: the next start of the project cleans up; see [`ledger`].
//!
//! As PID 1 it does the same; the orphans of the whole PID namespace are its children then.

#![expect(
    unsafe_code,
    reason = "fork, signals with their senders, and memory that two processes share"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::mem;
use std::process::ExitCode;
use std::ptr;
use std::time::Duration;

use rustix::process::{
    Pid, Signal as Number, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group,
    set_child_subreaper,
};

use crate::os::clock::Clock;
use crate::os::kin::{self, Kin};
use crate::os::strays::RuntimeId;
use crate::os::ward::Page;
use crate::os::{contain, kernel, ledger, sign, signals};
use crate::policy::signal::Signal;

pub use crate::os::strays::Stray;
pub use crate::os::ward::{Loss, OnDeath, Ward};

/// What cannot be killed is named after this long.
const PATIENCE: Duration = Duration::from_secs(5);
/// After this long what was killed, and has not reported its end, is looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// A runtime that lives for so long may live for years; a short one is not worth the trouble of being frugal.
const SETTLED: Duration = Duration::from_millis(100);
/// What a runtime leaves that ended by itself may be on its way out.
const DYING: Duration = Duration::from_millis(20);
/// More are not named one by one.
const NAMED: usize = 5;

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Side {
    /// The one that was started; the other has ended. All that is left to do is to say this and to end so.
    Guardian(Farewell),
    /// The one that is to do the work.
    Runtime(Ward),
}

/// What the guardian ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Farewell {
    /// The exit code of the runtime; 128 + n if it died of signal n.
    pub code: u8,
    /// What is to be said about the end, if anything.
    pub words: Option<String>,
}

impl From<&Farewell> for ExitCode {
    fn from(farewell: &Farewell) -> Self {
        Self::from(farewell.code)
    }
}

/// Makes this process a guardian and goes on in a child; returns twice.
///
/// For the first lines of a program: it fails in a process that has more than one thread.
pub fn split() -> io::Result<Side> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("there is more than one thread already"));
    }
    let page = Page::new()?;
    let guardian = getpid();
    set_child_subreaper(Some(guardian))?;
    // Where it is ignored the kernel reaps, and no status can be read.
    signals::default_child_signal();
    let every = every_signal();
    let former = block(&every);
    // SAFETY: this is the only thread, so the child has all that the parent has, and may go on as if it were the parent.
    match unsafe { libc::fork() } {
        -1 => {
            let error = io::Error::last_os_error();
            unblock(&former);
            Err(error)
        }
        0 => {
            unblock(&former);
            Ward::new(guardian, page).map(Side::Runtime)
        }
        child => {
            let runtime = Pid::from_raw(child).expect("fork returns a positive id to the parent");
            let guardian = Guardian {
                runtime,
                id: RuntimeId::of(child),
                page,
                every,
            };
            Ok(Side::Guardian(guardian.run()))
        }
    }
}

/// Whether this process is the first of its PID namespace, whose orphans are its children.
pub fn is_first() -> bool {
    getpid() == Pid::INIT
}

struct Guardian {
    runtime: Pid,
    id: Option<RuntimeId>,
    page: Page,
    every: libc::sigset_t,
}

/// What is left when the runtime has ended.
#[derive(Debug, Default)]
struct Cleared {
    /// Those that were seen: one that was killed with its group may not have been.
    killed: Vec<Stray>,
    /// How many were reaped that had been killed.
    count: usize,
}

impl Guardian {
    fn run(self) -> Farewell {
        // Without a name of its own a `killall kimi-shell` would reach both, each signal twice. Nothing depends on it.
        rustix::thread::set_name(c"kimi-guardian").ok();
        let end = self.serve();
        let leave = self.page.on_death() == OnDeath::Leave;
        let cleared = if leave {
            Cleared::default()
        } else if end.terminating_signal().is_some() {
            if let Some(id) = self.id {
                contain::kill_groups_of((id.pid, id.start));
            }
            self.clear()
        } else {
            self.clear_gently()
        };
        if let Some(id) = self.id {
            if end.terminating_signal().is_some() && !leave {
                contain::remove_groups_of((id.pid, id.start));
                sign::remove_sockets_of(id.pid);
            }
            ledger::remove_of(id);
        }
        farewell(end, &cleared)
    }

    /// Reaps and passes signals on until the runtime has ended.
    fn serve(&self) -> WaitStatus {
        let clock = Clock::start();
        let mut settled = Some(clock.now() + SETTLED);
        loop {
            if let Some(end) = self.reap() {
                return end;
            }
            let left = settled.map(|at| at.since(clock.now()));
            if left == Some(Duration::ZERO) {
                settled = None;
                give_back_memory();
            }
            let heard = self.wait_for_signal(left.filter(|left| !left.is_zero()));
            if let Some(heard) = heard.filter(|heard| heard.is_for_the_runtime(leads_session())) {
                signals::pass_on(self.runtime, heard.signal, heard.sender());
            }
        }
    }

    /// Reaps all that have ended; returns how the runtime did.
    fn reap(&self) -> Option<WaitStatus> {
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
        while let Ok(Some((pid, status))) = rustix::process::wait(options) {
            if pid != self.runtime {
                continue;
            }
            if !status.stopped() {
                return Some(status);
            }
            self.stop();
        }
        None
    }

    /// Stops as the runtime has, so that a shell sees it; goes on with it.
    fn stop(&self) {
        // It stops here. As PID 1 it cannot be stopped, and goes on at once.
        kill_process(getpid(), Number::STOP).ok();
        kill_process(self.runtime, Number::CONT).ok();
    }

    /// Waits for a signal; without a limit, or for so long.
    fn wait_for_signal(&self, limit: Option<Duration>) -> Option<Heard> {
        // SAFETY: plain data, for which all zeroes is a value.
        let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
        let limit = limit.map(|limit| libc::timespec {
            tv_sec: limit.as_secs().cast_signed(),
            tv_nsec: limit.subsec_nanos().into(),
        });
        let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: the set and the limit are read, the record is written, and all outlive the call; null waits for ever.
        let signal = unsafe { libc::sigtimedwait(&raw const self.every, &raw mut info, limit) };
        // Time over, or interrupted by being stopped and continued: the caller looks and asks again.
        let signal = Signal::from_number(signal)?;
        // SAFETY: the kernel has filled the record as a whole; whether the fields mean a sender is told by the code.
        let pid = unsafe { info.si_pid() };
        // SAFETY: as above.
        let uid = unsafe { info.si_uid() };
        Some(Heard {
            signal,
            code: info.si_code,
            pid,
            uid,
        })
    }

    /// Of a runtime that ended by itself nothing is left, or what dies already.
    fn clear_gently(&self) -> Cleared {
        let clock = Clock::start();
        let deadline = clock.now() + DYING;
        while clock.now() < deadline {
            if !reap_all(&mut 0) {
                return Cleared::default();
            }
            self.wait_for_signal(Some(deadline.since(clock.now())));
        }
        self.clear()
    }

    /// Kills all children, and theirs, which become ours, until there are none.
    fn clear(&self) -> Cleared {
        let clock = Clock::start();
        let deadline = clock.now() + PATIENCE;
        let mut seen: BTreeMap<i32, Kin> = BTreeMap::new();
        let mut count = 0;
        // In another namespace's `/proc` no list is ours. PID 1, whose end is that of the rest, needs none.
        while reap_all(&mut count) && clock.now() < deadline && kin::is_ours() {
            for pid in kin::children().unwrap_or_default() {
                if let Some(kin) = Kin::of(pid).filter(|kin| !kin.is_dead()) {
                    seen.insert(pid, kin);
                    kill(pid);
                }
            }
            self.wait_for_signal(Some(LOOK_AGAIN));
        }
        let left = if reap_all(&mut count) && kin::is_ours() {
            kin::children().unwrap_or_default()
        } else {
            Vec::new()
        };
        let stray = |(pid, kin): (i32, Kin)| Stray {
            pid: pid.cast_unsigned(),
            command: kin.command,
            is_gone: !left.contains(&pid),
        };
        let killed = seen.into_iter().map(stray).collect();
        Cleared { killed, count }
    }
}

/// Reaps all that have ended, and counts those that were killed; whether there are children yet.
fn reap_all(killed: &mut usize) -> bool {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((_, status))) => {
                let is_killed = status.terminating_signal() == Some(libc::SIGKILL);
                *killed += usize::from(is_killed);
            }
            Err(rustix::io::Errno::INTR) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// Kills a child that only this thread could reap, and the group that it may lead.
fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // The group in one go, so that one that forks meanwhile does not escape. Most lead none.
        kill_process_group(pid, Number::KILL).ok();
        kill_process(pid, Number::KILL).ok();
    }
}

fn leads_session() -> bool {
    let own = getpid().as_raw_pid();
    // One that was made outside of our PID namespace has no number here.
    kernel::session(own) == Some(own)
}

/// A signal that came, and how.
#[derive(Clone, Copy, Debug)]
struct Heard {
    signal: Signal,
    code: i32,
    pid: i32,
    uid: u32,
}

impl Heard {
    /// A key at the terminal reaches the runtime as well, since both are in one group. What a process sends does not; nor the
    /// end of the terminal, which is told to the leader of the session alone.
    fn is_for_the_runtime(&self, leads_session: bool) -> bool {
        match self.code {
            _ if self.signal == Signal::CHLD => false,
            libc::SI_USER | libc::SI_QUEUE | libc::SI_TKILL => true,
            libc::SI_KERNEL => leads_session && matches!(self.signal, Signal::HUP | Signal::CONT),
            _ => false,
        }
    }

    fn sender(&self) -> Option<signals::Sender> {
        let by_process = self.code != libc::SI_KERNEL;
        let pid = u32::try_from(self.pid).ok().filter(|_| by_process)?;
        Some(signals::Sender { pid, uid: self.uid })
    }
}

/// What to end with, and what to say.
fn farewell(end: WaitStatus, cleared: &Cleared) -> Farewell {
    let signal = end.terminating_signal();
    let code = match (end.exit_status(), signal) {
        (Some(code), _) => u8::try_from(code).unwrap_or(1),
        (None, Some(signal)) => u8::try_from(128 + signal).unwrap_or(1),
        (None, None) => 1,
    };
    let survivors = cleared.killed.iter().any(|stray| !stray.is_gone);
    Farewell {
        code: if survivors { code.max(1) } else { code },
        words: words(signal.and_then(Signal::from_number), cleared),
    }
}

fn words(died_of: Option<Signal>, cleared: &Cleared) -> Option<String> {
    let gone: Vec<&Stray> = cleared.killed.iter().filter(|one| one.is_gone).collect();
    let left: Vec<&Stray> = cleared.killed.iter().filter(|one| !one.is_gone).collect();
    let count = cleared.count.max(gone.len());
    let is_clean = count == 0 && left.is_empty();
    let mut text = match died_of {
        Some(signal) if is_clean && is_request(signal) => return None,
        None if is_clean => return None,
        Some(signal) => format!("the runtime died of {signal}"),
        None => "the runtime left processes behind".to_owned(),
    };
    // Writing to a string cannot fail.
    let _infallible = match (died_of, count) {
        (_, 0) => Ok(()),
        (Some(_), 1) => write!(text, "; killed 1 process that it had left"),
        (Some(_), _) => write!(text, "; killed {count} processes that it had left"),
        (None, _) => write!(text, "; killed {}", names(&gone, count)),
    };
    if !left.is_empty() {
        let _infallible = write!(text, "; could not kill {}", names(&left, left.len()));
    }
    Some(text)
}

/// Who is asked to end by one of these, before it has set itself up, ends in order.
fn is_request(signal: Signal) -> bool {
    matches!(signal, Signal::HUP | Signal::INT | Signal::TERM)
}

/// Of so many, the first few by name.
fn names(strays: &[&Stray], count: usize) -> String {
    let named = strays.iter().take(NAMED);
    let named: Vec<String> = named
        .map(|stray| format!("{} (pid {})", stray.command, stray.pid))
        .collect();
    match count - named.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

fn every_signal() -> libc::sigset_t {
    // SAFETY: all zeroes is a value of this plain struct.
    let mut every: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: writes into a set that outlives the call.
    unsafe { libc::sigfillset(&raw mut every) };
    every
}

/// Blocks these in this thread; returns what was blocked before.
fn block(set: &libc::sigset_t) -> libc::sigset_t {
    // SAFETY: all zeroes is a value of this plain struct.
    let mut former: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: reads one set and writes the other; both outlive the call.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set, &raw mut former) };
    former
}

fn unblock(former: &libc::sigset_t) {
    // SAFETY: reads a set that the kernel has filled.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, former, ptr::null_mut()) };
}

/// Gives back the pages of programs and libraries, which come again from their files when they are needed, and what the heap
/// does not need.
fn give_back_memory() {
    unsafe extern "C" fn each(
        object: *mut libc::dl_phdr_info,
        _size: usize,
        _none: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: `dl_iterate_phdr` passes a valid record, which lives as long as this call.
        let object = unsafe { &*object };
        if object.dlpi_phdr.is_null() {
            return 0;
        }
        // SAFETY: the two fields name the table of segments of a loaded object.
        let segments =
            unsafe { std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
        for segment in segments {
            if segment.p_type == libc::PT_LOAD && segment.p_flags & libc::PF_W == 0 {
                give_back(object.dlpi_addr + segment.p_vaddr, segment.p_memsz);
            }
        }
        0
    }
    // SAFETY: the function keeps nothing of what it is passed.
    unsafe { libc::dl_iterate_phdr(Some(each), ptr::null_mut()) };
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number only.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Whole pages within so many bytes from here, which nobody writes.
fn give_back(start: u64, length: u64) {
    // SAFETY: takes a number only.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.unsigned_abs();
    let first = start.next_multiple_of(page);
    let end = (start + length) / page * page;
    if let Ok(length) = usize::try_from(end.saturating_sub(first)) {
        // SAFETY: the segment is mapped privately from a file and cannot be written, so that what is dropped is read again
        // from there. Nothing is lost; an error changes nothing.
        unsafe { libc::madvise(first as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(signal: Signal, code: i32) -> Heard {
        Heard {
            signal,
            code,
            pid: 7,
            uid: 0,
        }
    }

    #[test]
    fn what_the_runtime_got_itself_is_not_passed_on() {
        for (signal, code, leads_session, expected) in [
            (Signal::TERM, libc::SI_USER, false, true),
            (Signal::INT, libc::SI_QUEUE, false, true),
            (Signal::USR1, libc::SI_TKILL, true, true),
            (Signal::INT, libc::SI_KERNEL, false, false),
            (Signal::INT, libc::SI_KERNEL, true, false),
            (Signal::TSTP, libc::SI_KERNEL, true, false),
            (Signal::HUP, libc::SI_KERNEL, false, false),
            (Signal::HUP, libc::SI_KERNEL, true, true),
            (Signal::CHLD, libc::SI_USER, true, false),
            (Signal::CHLD, libc::CLD_EXITED, true, false),
            (Signal::TERM, libc::SI_TIMER, false, false),
        ] {
            assert_eq!(
                heard(signal, code).is_for_the_runtime(leads_session),
                expected,
                "{signal} with {code}"
            );
        }
    }

    #[test]
    fn a_terminal_is_no_sender() {
        assert_eq!(heard(Signal::HUP, libc::SI_KERNEL).sender(), None);
        let sender = signals::Sender { pid: 7, uid: 0 };
        assert_eq!(heard(Signal::HUP, libc::SI_USER).sender(), Some(sender));
    }

    fn cleared(gone: &[u32], left: &[u32]) -> Cleared {
        let stray = |is_gone| {
            move |pid: &u32| Stray {
                pid: *pid,
                command: "sleep".into(),
                is_gone,
            }
        };
        let killed: Vec<Stray> = gone
            .iter()
            .map(stray(true))
            .chain(left.iter().map(stray(false)))
            .collect();
        Cleared {
            count: gone.len(),
            killed,
        }
    }

    #[test]
    fn it_says_what_became_of_the_runtime_and_of_what_that_had_left() {
        let many: Vec<u32> = (1..=7).collect();
        for (died_of, cleared, expected) in [
            (None, cleared(&[], &[]), None),
            (Some(Signal::TERM), cleared(&[], &[]), None),
            (
                Some(Signal::KILL),
                cleared(&[], &[]),
                Some("the runtime died of SIGKILL"),
            ),
            (
                Some(Signal::KILL),
                cleared(&many, &[]),
                Some("the runtime died of SIGKILL; killed 7 processes that it had left"),
            ),
            (
                Some(Signal::TERM),
                cleared(&[1], &[2]),
                Some(
                    "the runtime died of SIGTERM; killed 1 process that it had left; could not kill sleep (pid 2)",
                ),
            ),
            (
                None,
                cleared(&many, &[]),
                Some(
                    "the runtime left processes behind; killed sleep (pid 1), sleep (pid 2), sleep (pid 3), \
                     sleep (pid 4), sleep (pid 5) and 2 more",
                ),
            ),
        ] {
            assert_eq!(words(died_of, &cleared).as_deref(), expected);
        }
    }
}
