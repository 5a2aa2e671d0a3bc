//! System calls that no safe wrapper offers, each as a safe function on plain numbers.
//!
//! The process table keeps process ids and pidfds as numbers, since the kernel writes them there; who passes one in has
//! made sure, by the slot's lock, that it has not been given back.

#![expect(
    unsafe_code,
    reason = "raw system calls on descriptors and ids that the process table owns"
)]

use std::io;
use std::mem;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::epoll;

use crate::policy::exit::Exit;
use crate::policy::signal::Signal;

/// Whether a process that ended stays a zombie, which pins its ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zombie {
    Keep,
    Reap,
}

/// What the kernel says of a process that ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observed {
    pub(super) exit: Exit,
    pub(super) cpu: Duration,
    /// In bytes; no less than what its parent had when it began.
    pub(super) max_rss: u64,
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Sends a signal to the process of a pidfd.
pub(super) fn signal_process(pidfd: RawFd, signal: i32) -> io::Result<()> {
    // SAFETY: takes numbers only; a null siginfo means that of kill(2).
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd,
            signal,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check(result).map(drop)
}

/// Sends a signal to every process of a group.
pub(super) fn signal_group(leader: i32, signal: i32) -> io::Result<()> {
    // Zero, one or a negative number would address others than a group that we made.
    if leader <= 1 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: takes numbers only.
    let result = unsafe { libc::kill(-leader, signal) };
    check(result.into()).map(drop)
}

/// The session of a process; `None` if it does not exist, or its session was made outside our namespace.
pub(super) fn session(pid: i32) -> Option<i32> {
    // SAFETY: takes a number only.
    let session = unsafe { libc::getsid(pid) };
    (pid > 0 && session > 0).then_some(session)
}

/// Asks how a child ended, and reaps it if told so. `None`: it has not ended, or its tracer holds it.
pub(super) fn observe(pidfd: RawFd, zombie: Zombie) -> io::Result<Option<Observed>> {
    wait(
        pidfd,
        libc::WNOHANG
            | match zombie {
                Zombie::Keep => libc::WNOWAIT,
                Zombie::Reap => 0,
            },
    )
}

/// Waits until a child that was killed, or is about to exit, has ended, and reaps it.
pub(super) fn wait_and_reap(pidfd: RawFd) -> io::Result<()> {
    wait(pidfd, 0).map(drop)
}

fn wait(pidfd: RawFd, options: i32) -> io::Result<Option<Observed>> {
    // SAFETY: both are plain data, for which all zeroes is a value.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    // SAFETY: as above.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    loop {
        // SAFETY: the kernel writes into the two structs, which outlive the call. Unlike the function of libc, the system
        // call takes a rusage.
        let result = unsafe {
            libc::syscall(
                libc::SYS_waitid,
                libc::P_PIDFD,
                pidfd,
                &raw mut info,
                libc::WEXITED | libc::__WALL | options,
                &raw mut usage,
            )
        };
        match check(result) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    // SAFETY: waitid sets the fields of SIGCHLD, or leaves the zeroes.
    let pid = unsafe { info.si_pid() };
    if pid == 0 {
        return Ok(None);
    }
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    let exit = match info.si_code {
        libc::CLD_EXITED => Exit::Code(status & 0xff),
        code => Signal::from_number(status).map_or(Exit::Lost, |signal| Exit::Signal {
            signal,
            core: code == libc::CLD_DUMPED,
        }),
    };
    Ok(Some(Observed {
        exit,
        cpu: span(usage.ru_utime) + span(usage.ru_stime),
        max_rss: peak(&usage),
    }))
}

/// Whether this is more memory, in bytes, than this process ever had resident.
pub(super) fn exceeds_own_peak(bytes: u64) -> bool {
    // It only grows, so that what is below an old answer needs no new one.
    static KNOWN: AtomicU64 = AtomicU64::new(0);
    bytes > KNOWN.load(Ordering::Relaxed) && {
        let peak = own_peak();
        KNOWN.store(peak, Ordering::Relaxed);
        bytes > peak
    }
}

fn own_peak() -> u64 {
    // SAFETY: plain data, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes into the struct, which outlives the call. It cannot fail.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    peak(&usage)
}

fn peak(usage: &libc::rusage) -> u64 {
    u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024
}

fn span(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.unsigned_abs())
        + Duration::from_micros(time.tv_usec.unsigned_abs())
}

/// Closes a descriptor of the process table.
pub(super) fn close(fd: RawFd) {
    // SAFETY: the table owned it and has just forgotten it. There is nothing to do about an error.
    unsafe { libc::close(fd) };
}

/// Uses a descriptor of the process table that nobody else closes meanwhile.
pub(super) fn with_borrowed<T>(fd: RawFd, run: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    // SAFETY: the caller has seen to it that it stays open, and the borrow ends with the call.
    run(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Watches a descriptor of the process table.
pub(super) fn watch(
    epoll: BorrowedFd<'_>,
    fd: RawFd,
    data: u64,
    flags: epoll::EventFlags,
) -> io::Result<()> {
    // SAFETY: the table keeps it open for the duration of the call.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    epoll::add(epoll, fd, epoll::EventData::new_u64(data), flags)?;
    Ok(())
}

/// Changes for what it is watched.
pub(super) fn rewatch(epoll: BorrowedFd<'_>, fd: RawFd, data: u64, flags: epoll::EventFlags) {
    // SAFETY: the table keeps it open for the duration of the call.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    // Of what is watched already nothing is allocated, so it cannot fail.
    epoll::modify(epoll, fd, epoll::EventData::new_u64(data), flags).ok();
}

/// Watches it no longer. Closing alone does not end that while another process holds a copy.
pub(super) fn unwatch(epoll: BorrowedFd<'_>, fd: RawFd) {
    // SAFETY: the table keeps it open for the duration of the call.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    // One that was never watched is fine.
    epoll::delete(epoll, fd).ok();
}

/// The signals of this process that are ignored; bit n − 1 stands for signal n.
pub(super) fn ignored_signals() -> u64 {
    (1..=64).fold(0, |set, signal| {
        // The kernel's struct: handler, flags, restorer, mask. The function of libc hides signals 32 and 33.
        let mut action = [0_usize; 4];
        // SAFETY: a null new action only asks; what was is written into memory that is large enough and outlives the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                ptr::null::<usize>(),
                action.as_mut_ptr(),
                size_of::<u64>(),
            )
        };
        let ignored = result == 0 && action[0] == libc::SIG_IGN;
        set | u64::from(ignored) << (signal - 1)
    })
}

/// Runs something with every signal blocked in this thread; a thread started meanwhile keeps that.
pub(super) fn with_signals_blocked<T>(run: impl FnOnce() -> T) -> T {
    // SAFETY: all zeroes is a value of this plain struct.
    let mut every: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: as above.
    let mut before: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: writes into a set that outlives the call.
    unsafe { libc::sigfillset(&raw mut every) };
    // SAFETY: reads one set and writes the other; both outlive the call.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const every, &raw mut before) };
    let result = run();
    // SAFETY: reads a set that the kernel has filled.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
    result
}

/// Whether the kernel can close ranges of descriptors, Linux 5.9 and later.
pub(super) fn has_close_range() -> bool {
    // SAFETY: no descriptor has this number, so nothing is closed.
    let result = unsafe { libc::syscall(libc::SYS_close_range, u32::MAX, u32::MAX, 0) };
    result == 0
}

/// Lets SIGCHLD reach this thread.
///
/// At the death of a child the kernel signals the thread that made it. Where the signal is blocked it is not ignored but
/// queued, and another thread is woken up for nothing (`sig_ignored` in the kernel's `signal.c`).
pub(super) fn unblock_child_signal() {
    // SAFETY: all zeroes is a value of this plain struct.
    let mut one: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: writes into a set that outlives the call.
    unsafe { libc::sigaddset(&raw mut one, libc::SIGCHLD) };
    // SAFETY: reads it.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const one, ptr::null_mut()) };
}

/// Our user and our group, each if its real, effective and saved one are the same.
pub(super) fn ids() -> (Option<u32>, Option<u32>) {
    let same = |ids: [u32; 3]| (ids == [ids[0]; 3]).then_some(ids[0]);
    let [mut real, mut effective, mut saved] = [0; 3];
    // SAFETY: writes into three numbers that outlive the call. It cannot fail then.
    unsafe { libc::getresuid(&raw mut real, &raw mut effective, &raw mut saved) };
    let uid = same([real, effective, saved]);
    // SAFETY: as above.
    unsafe { libc::getresgid(&raw mut real, &raw mut effective, &raw mut saved) };
    (uid, same([real, effective, saved]))
}

/// A descriptor that this process was started with.
pub(super) fn borrowed(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the exec shim is single-threaded and keeps what it was started with until it says otherwise; of a number that
    // is not open nothing but an error comes.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// The same, to be closed.
pub(super) fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller has found there what only it can have been given, and takes it once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Puts a copy of a descriptor that this process was started with into this place, where it stays over an execution.
pub(super) fn copy_to(fd: RawFd, place: RawFd) -> io::Result<()> {
    // SAFETY: takes numbers only; the exec shim has nothing of its own in that place.
    let result = unsafe { libc::dup2(fd, place) };
    check(result.into()).map(drop)
}

/// Ends this process at once.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: ends this process; nothing of the runtime is to run any more.
    unsafe { libc::_exit(code) }
}
