//! One child, from the clone to the program.
//!
//! The child shares the memory of its parent, whose thread waits in the kernel until the program runs or the child is
//! gone (`CLONE_VM | CLONE_VFORK`): nothing is copied, however large the parent is. Two rules follow. What runs in the
//! child must not allocate, lock, panic or touch the C library, errno included: it makes raw system calls on what the
//! parent has prepared. And no handler of the parent may ever run in it: it begins without any (`CLONE_CLEAR_SIGHAND`), or,
//! on kernels that cannot do that, with every signal blocked until all dispositions are the default ones.
//!
//! The table of descriptors is shared as well (`CLONE_FILES`) until the child gets its own with only the first few
//! entries, by `close_range(CLOSE_RANGE_UNSHARE)`. So the cost does not grow with the descriptors of a parent of ten
//! thousand children. Before that call the child touches no descriptor.

#![expect(
    unsafe_code,
    reason = "clone3 and what happens in the child before the program runs"
)]

use std::ffi::{CStr, c_char};
use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use rustix::thread::CpuSet;

use crate::os::kernel;
use crate::os::launch::{Launch, Never, Program, Stage, call};
use crate::policy::setup::Action;

/// What the child does. The parent prepares all of it.
pub(super) struct Plan<'a> {
    stdio: [RawFd; 3],
    extras: &'a [Extra],
    files: Files,
    processors: *const CpuSet,
    cgroup: Option<RawFd>,
    launch: Launch<'a>,
    has_begun: AtomicBool,
    stage: AtomicU32,
    errno: AtomicI32,
}

/// What a plan is made of.
pub(super) struct Parts<'a> {
    /// The program.
    pub(super) program: Program<'a>,
    /// Its arguments, its name first.
    pub(super) argv: &'a [*const c_char],
    /// Its environment.
    pub(super) envp: &'a [*const c_char],
    /// Its working directory.
    pub(super) directory: Option<&'a CStr>,
    /// What becomes 0, 1 and 2, each 3 or more; −1 leaves the parent's in place.
    pub(super) stdio: [RawFd; 3],
    /// What it has besides, in the order of what they become. Unless there is only one, none may come from where another goes.
    pub(super) extras: &'a [Extra],
    /// How the other descriptors are closed.
    pub(super) files: Files,
    /// Signals that the parent ignores.
    pub(super) ignored: u64,
    /// The limit on open files to set.
    pub(super) nofile: Option<libc::rlimit64>,
    /// The processors that it may run on, if not those of the calling thread.
    pub(super) processors: Option<&'a CpuSet>,
    /// The control group to begin in.
    pub(super) cgroup: Option<RawFd>,
    /// What is set up; nothing that changes the identity, since the memory is the parent's.
    pub(super) actions: &'a [Action],
    /// The parent, for what is set up.
    pub(super) parent: i32,
    /// The signals that the program begins with blocked.
    pub(super) mask: u64,
}

/// One more descriptor that the child has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extra {
    /// Ours, 3 or more.
    pub(super) from: RawFd,
    /// What it becomes, 3 or more.
    pub(super) to: u32,
}

/// How the child closes the descriptors that it must not have.
#[derive(Clone, Copy, Debug)]
pub(super) enum Files {
    /// Share the parent's table, then copy only what lies below this.
    Share {
        /// All that the plan needs lies below.
        below: u32,
    },
    /// Copy the table, then close one by one up to this, for kernels before 5.9.
    Copy {
        /// No descriptor of the parent is higher.
        limit: u32,
    },
}

impl<'a> Plan<'a> {
    /// Both lists must end with a null pointer.
    pub(super) fn new(parts: &Parts<'a>) -> Self {
        assert!(
            parts.argv.last().is_some_and(|last| last.is_null())
                && parts.envp.last().is_some_and(|last| last.is_null()),
            "the lists of a plan end with null"
        );
        Self {
            stdio: parts.stdio,
            extras: parts.extras,
            files: parts.files,
            processors: parts.processors.map_or(ptr::null(), ptr::from_ref),
            cgroup: parts.cgroup,
            has_begun: AtomicBool::new(false),
            launch: Launch {
                program: parts.program,
                argv: parts.argv,
                envp: parts.envp,
                directory: parts.directory,
                nofile: parts.nofile,
                actions: parts.actions,
                groups: &[],
                parent: parts.parent,
                ignored: parts.ignored,
                resets_all: false,
                mask: parts.mask,
                mark: None,
            },
            stage: AtomicU32::new(0),
            errno: AtomicI32::new(0),
        }
    }

    /// Whether the child has carried out anything at all; if not, it was killed before that.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Acquire)
    }

    /// Where and why the child failed, if it did before the program ran.
    pub(super) fn failure(&self) -> Option<(Stage, io::Error)> {
        let stage = Stage::from_number(self.stage.load(Ordering::Acquire))?;
        Some((
            stage,
            io::Error::from_raw_os_error(self.errno.load(Ordering::Relaxed)),
        ))
    }
}

/// The stack on which children of one thread run until their program does.
#[derive(Debug)]
pub(super) struct Stack {
    base: *mut libc::c_void,
}

// SAFETY: it is memory that nobody else refers to; `spawn` borrows it for as long as a child is on it.
unsafe impl Send for Stack {}

impl Stack {
    const BYTES: usize = 64 * 1024;
    const GUARD_BYTES: usize = 4096 * 16;

    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: asks for new memory at no particular place.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                Self::BYTES + Self::GUARD_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { base };
        // SAFETY: the lowest part of what was just mapped, which nobody uses.
        let result = unsafe { libc::mprotect(base, Self::GUARD_BYTES, libc::PROT_NONE) };
        if result == 0 {
            Ok(stack)
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn bottom(&self) -> u64 {
        (self.base as usize + Self::GUARD_BYTES) as u64
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and no child is on it: `spawn` returns only when the child has left it.
        unsafe { libc::munmap(self.base, Self::BYTES + Self::GUARD_BYTES) };
    }
}

/// The argument of clone3, its third version.
#[repr(C)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLOSE_RANGE_UNSHARE: usize = 2;
const COMMON: i32 = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD;

/// Set when clone3 turned out to be missing or forbidden (old kernels, seccomp of some containers).
static NO_CLONE3: AtomicBool = AtomicBool::new(false);

/// Makes a child that carries out the plan; returns once its program runs or it is gone.
///
/// The kernel writes its id and pidfd into the two places before the child does anything, so that other threads can kill
/// it although this one waits. With clone3 no handler of ours can run in the child, since it has none from its first instant on.
pub(super) fn spawn(
    plan: &mut Plan<'_>,
    stack: &Stack,
    pid: &AtomicI32,
    pidfd: &AtomicI32,
) -> io::Result<()> {
    if plan.cgroup.is_some() || !NO_CLONE3.load(Ordering::Relaxed) {
        match clone3(plan, stack, pid, pidfd) {
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENOSYS | libc::EPERM | libc::EINVAL)
                ) && plan.cgroup.is_none() =>
            {
                plan.launch.resets_all = true;
                kernel::with_signals_blocked(|| clone_legacy(plan, stack, pid, pidfd))?;
                // Only when the old call works was the new one at fault.
                NO_CLONE3.store(true, Ordering::Relaxed);
                return Ok(());
            }
            result => return result,
        }
    }
    plan.launch.resets_all = true;
    kernel::with_signals_blocked(|| clone_legacy(plan, stack, pid, pidfd))
}

fn file_flags(plan: &Plan<'_>) -> i32 {
    match plan.files {
        Files::Share { .. } => libc::CLONE_FILES,
        Files::Copy { .. } => 0,
    }
}

fn clone3(plan: &Plan<'_>, stack: &Stack, pid: &AtomicI32, pidfd: &AtomicI32) -> io::Result<()> {
    let into_cgroup = if plan.cgroup.is_some() {
        CLONE_INTO_CGROUP
    } else {
        0
    };
    let flags = COMMON | libc::CLONE_PARENT_SETTID | file_flags(plan);
    let args = CloneArgs {
        flags: u64::from(flags.cast_unsigned()) | CLONE_CLEAR_SIGHAND | into_cgroup,
        pidfd: pidfd.as_ptr() as u64,
        child_tid: 0,
        parent_tid: pid.as_ptr() as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.bottom(),
        stack_size: Stack::BYTES as u64,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: plan.cgroup.map_or(0, |fd| u64::from(fd.cast_unsigned())),
    };
    // SAFETY: the arguments name memory that outlives the child's use of it, because the kernel holds this thread until
    // the child has executed its program or ended; the child runs `child` on a stack of its own and never returns.
    let result = unsafe { arch::clone3(&args, size_of::<CloneArgs>(), child, plan) };
    outcome(result)
}

/// With the old call the pidfd takes the place of the parent's copy of the id, so the child's copy is used: it is written
/// into the memory that both share before the child does anything.
fn clone_legacy(
    plan: &Plan<'_>,
    stack: &Stack,
    pid: &AtomicI32,
    pidfd: &AtomicI32,
) -> io::Result<()> {
    let flags = COMMON | libc::CLONE_CHILD_SETTID | file_flags(plan) | libc::SIGCHLD;
    let top = stack.bottom() + Stack::BYTES as u64;
    // SAFETY: as for clone3.
    let result = unsafe { arch::clone(flags, top, pidfd.as_ptr(), pid.as_ptr(), child, plan) };
    outcome(result)
}

fn outcome(result: isize) -> io::Result<()> {
    if result < 0 {
        let errno = i32::try_from(-result).unwrap_or(libc::EINVAL);
        Err(io::Error::from_raw_os_error(errno))
    } else {
        Ok(())
    }
}

/// What runs in the child. Nothing in here may allocate, lock, panic or use the C library.
extern "C" fn child(plan: *const Plan<'_>) -> ! {
    // SAFETY: the parent's thread waits, and with it the plan stays.
    let plan = unsafe { &*plan };
    plan.has_begun.store(true, Ordering::Release);
    let (stage, errno) = match carry_out(plan) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    plan.errno.store(errno, Ordering::Relaxed);
    plan.stage.store(stage.to_number(), Ordering::Release);
    loop {
        // SAFETY: ends this process and no other.
        unsafe { arch::syscall(libc::SYS_exit_group, [127, 0, 0, 0, 0]) };
    }
}

fn carry_out(plan: &Plan<'_>) -> Result<Never, (Stage, i32)> {
    call(Stage::Session, libc::SYS_setsid, [0; 5])?;
    if let Files::Share { below } = plan.files {
        call(
            Stage::Files,
            libc::SYS_close_range,
            [below as usize, u32::MAX as usize, CLOSE_RANGE_UNSHARE, 0, 0],
        )?;
    }
    let [stdin, stdout, stderr] = plan.stdio;
    connect(stdin, 0)?;
    connect(stdout, 1)?;
    connect(stderr, 2)?;
    for extra in plan.extras {
        place(*extra)?;
    }
    let mut first: usize = 3;
    for extra in plan.extras {
        let to = extra.to as usize;
        close(plan.files, first, to.wrapping_sub(1))?;
        first = to.wrapping_add(1);
    }
    close(plan.files, first, u32::MAX as usize)?;
    if !plan.processors.is_null() {
        let set = [0, size_of::<CpuSet>(), plan.processors as usize, 0, 0];
        // A set that is not possible any more leaves it where its parent is, which is no reason not to run.
        call(Stage::Limit, libc::SYS_sched_setaffinity, set).ok();
    }
    plan.launch.carry_out()
}

/// Closes all of these descriptors, first and last included.
fn close(files: Files, first: usize, last: usize) -> Result<(), (Stage, i32)> {
    match files {
        Files::Share { .. } if first <= last => {
            call(Stage::Files, libc::SYS_close_range, [first, last, 0, 0, 0])
        }
        Files::Share { .. } => Ok(()),
        Files::Copy { limit } => {
            let mut fd = first;
            while fd <= last && fd < limit as usize {
                // SAFETY: closes a copy that is this process's own; one that is not open is fine.
                unsafe { arch::syscall(libc::SYS_close, [fd, 0, 0, 0, 0]) };
                fd = fd.wrapping_add(1);
            }
            Ok(())
        }
    }
}

/// Puts the extra descriptor into its place. The stdio of the child is in its own by now.
fn place(extra: Extra) -> Result<(), (Stage, i32)> {
    let (from, to) = (extra.from.cast_unsigned() as usize, extra.to as usize);
    if from == to {
        // It is there, and only to be kept over the exec.
        let keep = [from, libc::F_SETFD as usize, 0, 0, 0];
        call(Stage::Extra, libc::SYS_fcntl, keep)
    } else {
        call(Stage::Extra, libc::SYS_dup3, [from, to, 0, 0, 0])
    }
}

fn connect(from: RawFd, to: usize) -> Result<(), (Stage, i32)> {
    if from < 0 {
        return Ok(());
    }
    call(
        Stage::Stdio,
        libc::SYS_dup3,
        [from.cast_unsigned() as usize, to, 0, 0, 0],
    )
}

#[cfg(target_arch = "x86_64")]
#[expect(
    clippy::cast_possible_truncation,
    clippy::many_single_char_names,
    reason = "registers are 64 bits wide, and have no better names"
)]
pub(super) mod arch {
    use std::arch::asm;

    use super::{CloneArgs, Plan};

    pub(in crate::os) unsafe fn syscall(number: libc::c_long, args: [usize; 5]) -> isize {
        let [a, b, c, d, e] = args;
        let result: isize;
        // SAFETY: the caller vouches for the call; these are the registers that it takes and destroys.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") number as isize => result,
                in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
                lateout("rcx") _, lateout("r11") _,
                options(nostack)
            );
        }
        result
    }

    pub(super) unsafe fn clone3(
        args: &CloneArgs,
        size: usize,
        run: extern "C" fn(*const Plan<'_>) -> !,
        plan: &Plan<'_>,
    ) -> isize {
        let result: isize;
        // SAFETY: the parent falls through with nothing changed but the result. The child has a new, aligned stack and
        // the other registers of the parent, calls `run` and never comes back.
        unsafe {
            asm!(
                "syscall",
                "test rax, rax",
                "jnz 2f",
                "xor ebp, ebp",
                "mov rdi, r9",
                "call r8",
                "ud2",
                "2:",
                inlateout("rax") libc::SYS_clone3 as isize => result,
                in("rdi") args, in("rsi") size,
                in("r8") run, in("r9") plan,
                lateout("rcx") _, lateout("r11") _,
            );
        }
        result
    }

    pub(super) unsafe fn clone(
        flags: i32,
        stack_top: u64,
        pidfd: *mut i32,
        pid: *mut i32,
        run: extern "C" fn(*const Plan<'_>) -> !,
        plan: &Plan<'_>,
    ) -> isize {
        let result: isize;
        // SAFETY: as for clone3; no thread-local storage is set, so the child keeps that of its parent and leaves it alone.
        unsafe {
            asm!(
                "syscall",
                "test rax, rax",
                "jnz 2f",
                "xor ebp, ebp",
                "mov rdi, r12",
                "call r9",
                "ud2",
                "2:",
                inlateout("rax") libc::SYS_clone as isize => result,
                in("rdi") flags as isize, in("rsi") stack_top, in("rdx") pidfd, in("r10") pid, in("r8") 0,
                in("r9") run, in("r12") plan,
                lateout("rcx") _, lateout("r11") _,
            );
        }
        result
    }
}

#[cfg(target_arch = "aarch64")]
#[expect(
    clippy::cast_possible_truncation,
    clippy::many_single_char_names,
    reason = "registers are 64 bits wide, and have no better names"
)]
pub(super) mod arch {
    use std::arch::asm;

    use super::{CloneArgs, Plan};

    pub(in crate::os) unsafe fn syscall(number: libc::c_long, args: [usize; 5]) -> isize {
        let [a, b, c, d, e] = args;
        let result: isize;
        // SAFETY: the caller vouches for the call; these are the registers that it takes and destroys.
        unsafe {
            asm!(
                "svc 0",
                in("x8") number,
                inlateout("x0") a as isize => result,
                in("x1") b, in("x2") c, in("x3") d, in("x4") e,
                options(nostack)
            );
        }
        result
    }

    pub(super) unsafe fn clone3(
        args: &CloneArgs,
        size: usize,
        run: extern "C" fn(*const Plan<'_>) -> !,
        plan: &Plan<'_>,
    ) -> isize {
        let result: isize;
        // SAFETY: the parent falls through with nothing changed but the result. The child has a new, aligned stack and
        // the other registers of the parent, calls `run` and never comes back.
        unsafe {
            asm!(
                "svc 0",
                "cbnz x0, 2f",
                "mov x29, xzr",
                "mov x0, x10",
                "blr x9",
                "brk 1",
                "2:",
                in("x8") libc::SYS_clone3,
                inlateout("x0") args => result,
                in("x1") size,
                in("x9") run, in("x10") plan,
            );
        }
        result
    }

    pub(super) unsafe fn clone(
        flags: i32,
        stack_top: u64,
        pidfd: *mut i32,
        pid: *mut i32,
        run: extern "C" fn(*const Plan<'_>) -> !,
        plan: &Plan<'_>,
    ) -> isize {
        let result: isize;
        // SAFETY: as for clone3; no thread-local storage is set, so the child keeps that of its parent and leaves it alone.
        unsafe {
            asm!(
                "svc 0",
                "cbnz x0, 2f",
                "mov x29, xzr",
                "mov x0, x10",
                "blr x9",
                "brk 1",
                "2:",
                in("x8") libc::SYS_clone,
                inlateout("x0") flags as isize => result,
                in("x1") stack_top, in("x2") pidfd, in("x3") 0, in("x4") pid,
                in("x9") run, in("x10") plan,
            );
        }
        result
    }
}

/// The bare mechanism, for the bench that compares it with libc's.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod bare {
    use super::{
        AtomicI32, CStr, Files, Ordering, Parts, Plan, Program, RawFd, Stack, io, kernel, ptr,
        spawn,
    };

    /// Starts one program after the other and awaits each.
    #[derive(Debug)]
    pub struct Bare {
        stack: Stack,
        null: RawFd,
    }

    impl Bare {
        /// `null` is a descriptor of `/dev/null`, 3 or more.
        pub fn new(null: RawFd) -> io::Result<Self> {
            Ok(Self {
                stack: Stack::new()?,
                null,
            })
        }

        /// Runs the program without arguments and waits for its end.
        pub fn run(&self, program: &CStr, share: bool) -> io::Result<()> {
            let (pid, pidfd) = (AtomicI32::new(0), AtomicI32::new(-1));
            let argv = [program.as_ptr(), ptr::null()];
            let mut plan = Plan::new(&Parts {
                program: Program::Path(program),
                argv: &argv,
                envp: &[ptr::null()],
                directory: None,
                stdio: [self.null; 3],
                extras: &[],
                files: if share {
                    Files::Share {
                        below: self.null.cast_unsigned() + 1,
                    }
                } else {
                    // Nothing beyond, so that only the copy of the table counts.
                    Files::Copy { limit: 3 }
                },
                ignored: 1 << (libc::SIGPIPE - 1),
                nofile: None,
                processors: None,
                cgroup: None,
                actions: &[],
                parent: 0,
                mask: 0,
            });
            spawn(&mut plan, &self.stack, &pid, &pidfd)?;
            let pidfd = pidfd.load(Ordering::Acquire);
            let result = kernel::wait_and_reap(pidfd);
            kernel::close(pidfd);
            result.and(plan.failure().map_or(Ok(()), |(_, error)| Err(error)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::os::kernel;
    use crate::policy::exit::Exit;

    fn run(line: &CStr, files: Files, null: RawFd, extra: Option<u32>) -> Exit {
        let (pid, pidfd) = (AtomicI32::new(0), AtomicI32::new(-1));
        let argv = [c"sh".as_ptr(), c"-c".as_ptr(), line.as_ptr(), ptr::null()];
        let extra = extra.map(|to| Extra { from: null, to });
        let mut plan = Plan::new(&Parts {
            program: Program::Path(c"/bin/sh"),
            argv: &argv,
            envp: &[ptr::null()],
            directory: Some(c"/proc"),
            stdio: [null; 3],
            extras: extra.as_slice(),
            files,
            ignored: 0,
            nofile: None,
            processors: None,
            cgroup: None,
            actions: &[],
            parent: 0,
            mask: 0,
        });
        plan.launch.resets_all = true;
        let stack = Stack::new().unwrap();
        kernel::with_signals_blocked(|| clone_legacy(&plan, &stack, &pid, &pidfd)).unwrap();
        assert!(plan.failure().is_none(), "{:?}", plan.failure());
        let pidfd = pidfd.load(Ordering::Acquire);
        assert!(pid.load(Ordering::Acquire) > 0);
        let exit = loop {
            if let Some(observed) = kernel::observe(pidfd, kernel::Zombie::Keep).unwrap() {
                break observed.exit;
            }
            std::thread::yield_now();
        };
        kernel::wait_and_reap(pidfd).unwrap();
        kernel::close(pidfd);
        exit
    }

    #[test]
    fn kernels_without_the_new_calls_are_served_by_the_old_ones() {
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .unwrap();
        let fd = null.as_raw_fd();
        for files in [
            Files::Share {
                below: fd.cast_unsigned() + 1,
            },
            Files::Copy { limit: 1024 },
        ] {
            // SIGPIPE is ignored by every Rust program, and must not be by the child.
            let line =
                c"test -e self/fd/3 && exit 4; test $PWD = /proc || exit 5; kill -PIPE $$; exit 6";
            let exit = run(line, files, fd, None);
            assert!(
                matches!(exit, Exit::Signal { signal, .. } if signal.number() == libc::SIGPIPE),
                "{files:?}: {exit:?}"
            );
            // Below, at and above the place that it comes from, and beyond our own table.
            for to in [3, fd.cast_unsigned(), fd.cast_unsigned() + 1, 1000] {
                let others = CString::new(format!(
                    "test -e self/fd/{to} || exit 4; set -- self/fd/*; test $# -le 5 || exit 5"
                ));
                let exit = run(&others.unwrap(), files, fd, Some(to));
                assert_eq!(exit, Exit::Code(0), "{files:?} {to}");
            }
        }
    }
}
