//! The last steps before a program: what is set up, signals, the directory, and the execution itself.
//!
//! They are carried out by the clone of a spawning thread, which shares the memory of its parent, or by the exec shim. For
//! both the strictest rules hold: nothing in here may allocate, lock, panic or use the C library.

#![expect(
    unsafe_code,
    reason = "raw system calls in a process that shares the memory of its parent"
)]

use std::ffi::{CStr, c_char};
use std::os::fd::RawFd;
use std::ptr;

use crate::os::clone::arch;
use crate::policy::setup::{Action, Resource};

/// What is done at the last.
pub(super) struct Launch<'a> {
    pub(super) program: Program<'a>,
    /// Ends with null, as does the next.
    pub(super) argv: &'a [*const c_char],
    pub(super) envp: &'a [*const c_char],
    pub(super) directory: Option<&'a CStr>,
    /// The limit on open files to restore.
    pub(super) nofile: Option<libc::rlimit64>,
    pub(super) actions: &'a [Action],
    /// The supplementary groups, for the action that sets them.
    pub(super) groups: &'a [u32],
    /// With which it dies, if it is to.
    pub(super) parent: i32,
    /// Signals that are ignored.
    pub(super) ignored: u64,
    /// Whether all signals may be ignored, or handled.
    pub(super) resets_all: bool,
    /// The signals that the program begins with blocked.
    pub(super) mask: u64,
    /// Where it is told that nothing but the execution is left.
    pub(super) mark: Option<RawFd>,
}

/// What is executed.
#[derive(Clone, Copy)]
pub(super) enum Program<'a> {
    /// An absolute path.
    Path(&'a CStr),
    /// An open file, which is no script.
    Descriptor(RawFd),
}

/// The step at which a process failed before its program ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Session,
    Files,
    Stdio,
    Extra,
    Limit,
    Signals,
    Directory,
    Exec,
    /// The action with this index.
    Action(u32),
}

const NUMBERED: [Stage; 8] = [
    Stage::Session,
    Stage::Files,
    Stage::Stdio,
    Stage::Extra,
    Stage::Limit,
    Stage::Signals,
    Stage::Directory,
    Stage::Exec,
];
/// The number of the first action.
const ACTIONS: u32 = 100;

impl Stage {
    /// Never 0, which stands for none.
    pub(super) fn to_number(self) -> u32 {
        match self {
            Self::Session => 1,
            Self::Files => 2,
            Self::Stdio => 3,
            Self::Extra => 4,
            Self::Limit => 5,
            Self::Signals => 6,
            Self::Directory => 7,
            Self::Exec => 8,
            Self::Action(index) => ACTIONS.wrapping_add(index),
        }
    }

    pub(super) fn from_number(number: u32) -> Option<Self> {
        let numbered = NUMBERED.into_iter();
        let mut found = numbered.filter(|stage| stage.to_number() == number);
        let action = number.checked_sub(ACTIONS).map(Self::Action);
        found.next().or(action)
    }
}

/// What a successful execution returns.
pub(super) enum Never {}

/// Where, and the number of the error.
pub(super) type Failure = (Stage, i32);

impl Launch<'_> {
    pub(super) fn carry_out(&self) -> Result<Never, Failure> {
        if let Some(limit) = &self.nofile {
            let limit = ptr::from_ref(limit) as usize;
            let nofile = libc::RLIMIT_NOFILE as usize;
            call(Stage::Limit, libc::SYS_prlimit64, [0, nofile, limit, 0, 0])?;
        }
        let mut index = 0;
        for action in self.actions {
            if let Err(errno) = self.act(*action) {
                return Err((Stage::Action(index), errno));
            }
            index = index.wrapping_add(1);
        }
        self.reset_signals()?;
        if let Some(directory) = self.directory {
            let path = directory.as_ptr() as usize;
            call(Stage::Directory, libc::SYS_chdir, [path, 0, 0, 0, 0])?;
        }
        // A signal that waits may end it from here on, as it may end the program.
        if let Some(fd) = self.mark {
            tell(fd, 0, 0);
        }
        let mask = ptr::from_ref(&self.mask) as usize;
        call(
            Stage::Signals,
            libc::SYS_rt_sigprocmask,
            [libc::SIG_SETMASK as usize, mask, 0, size_of::<u64>(), 0],
        )?;
        let (argv, envp) = (self.argv.as_ptr() as usize, self.envp.as_ptr() as usize);
        match self.program {
            Program::Path(path) => call(
                Stage::Exec,
                libc::SYS_execve,
                [path.as_ptr() as usize, argv, envp, 0, 0],
            )?,
            Program::Descriptor(fd) => call(
                Stage::Exec,
                libc::SYS_execveat,
                [
                    fd.cast_unsigned() as usize,
                    c"".as_ptr() as usize,
                    argv,
                    envp,
                    libc::AT_EMPTY_PATH as usize,
                ],
            )?,
        }
        Err((Stage::Exec, libc::EINVAL))
    }

    fn act(&self, action: Action) -> Result<(), i32> {
        match action {
            Action::OomScoreAdj(value) => set_oom_score_adj(value),
            Action::Limit(resource, most) => limit(resource, most),
            Action::Umask(mask) => done(libc::SYS_umask, [mask as usize, 0, 0, 0, 0]),
            Action::Nice(value) => {
                let which = libc::PRIO_PROCESS as usize;
                done(
                    libc::SYS_setpriority,
                    [which, 0, i32::from(value).cast_unsigned() as usize, 0, 0],
                )
            }
            Action::Groups => done(
                libc::SYS_setgroups,
                [self.groups.len(), self.groups.as_ptr() as usize, 0, 0, 0],
            ),
            Action::Group(gid) => {
                let gid = gid as usize;
                done(libc::SYS_setresgid, [gid, gid, gid, 0, 0])
            }
            Action::User(uid) => {
                let uid = uid as usize;
                done(libc::SYS_setresuid, [uid, uid, uid, 0, 0])
            }
            Action::Verify { uid, gid } => verify(uid, gid),
            Action::NoNewPrivs => done(
                libc::SYS_prctl,
                [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0],
            ),
            Action::DieWithParent => die_with(self.parent),
        }
    }

    /// Gives every signal its default disposition: those that were handled are so already, unless all are to be reset.
    fn reset_signals(&self) -> Result<(), Failure> {
        // The kernel's struct: handler, flags, restorer, mask.
        let default = [0_usize; 4];
        let mut signal: usize = 1;
        while signal <= 64 {
            let ignored = self.ignored >> signal.wrapping_sub(1) & 1 == 1;
            let fixed = signal == libc::SIGKILL as usize || signal == libc::SIGSTOP as usize;
            if (ignored || self.resets_all) && !fixed {
                call(
                    Stage::Signals,
                    libc::SYS_rt_sigaction,
                    [
                        signal,
                        ptr::from_ref(&default) as usize,
                        0,
                        size_of::<u64>(),
                        0,
                    ],
                )?;
            }
            signal = signal.wrapping_add(1);
        }
        Ok(())
    }
}

/// Of a process that shares memory only its own value is changed as long as its parent waits for it (`__set_oom_adj` in
/// the kernel's `fs/proc/base.c`).
fn set_oom_score_adj(value: i16) -> Result<(), i32> {
    let mut text = [0_u8; 6];
    let mut length: usize = 0;
    let mut rest = value.unsigned_abs();
    for place in text.iter_mut().rev() {
        let is_over = rest == 0 && length > 0;
        if is_over && value >= 0 {
            break;
        }
        let digit = b'0'.wrapping_add((rest % 10) as u8);
        *place = if is_over { b'-' } else { digit };
        length = length.wrapping_add(1);
        rest /= 10;
        if is_over {
            break;
        }
    }
    let begin = text.as_ptr() as usize;
    let begin = begin.wrapping_add(text.len().wrapping_sub(length));
    let path = c"/proc/self/oom_score_adj".as_ptr() as usize;
    let flags = (libc::O_WRONLY | libc::O_CLOEXEC).cast_unsigned() as usize;
    let here = libc::AT_FDCWD.cast_unsigned() as usize;
    let fd = raise(libc::SYS_openat, [here, path, flags, 0, 0])?;
    let written = done(libc::SYS_write, [fd, begin, length, 0, 0]);
    done(libc::SYS_close, [fd, 0, 0, 0, 0])?;
    written
}

fn limit(resource: Resource, most: u64) -> Result<(), i32> {
    let resource = match resource {
        Resource::Nofile => libc::RLIMIT_NOFILE,
        Resource::Core => libc::RLIMIT_CORE,
        Resource::Memory => libc::RLIMIT_AS,
        Resource::Pids => libc::RLIMIT_NPROC,
        // There is none; the policy asks for none.
        Resource::Cpu => return Err(libc::EINVAL),
    };
    let limit = libc::rlimit64 {
        rlim_cur: most,
        rlim_max: most,
    };
    let limit = ptr::from_ref(&limit) as usize;
    done(libc::SYS_prlimit64, [0, resource as usize, limit, 0, 0])
}

/// A change of identity that did not happen is the worst of failures (setuid(2)).
fn verify(uid: u32, gid: u32) -> Result<(), i32> {
    for (number, wanted) in [(libc::SYS_getresuid, uid), (libc::SYS_getresgid, gid)] {
        let mut found = [0_u32; 3];
        let [real, effective, saved] = found.each_mut().map(|place| ptr::from_mut(place) as usize);
        done(number, [real, effective, saved, 0, 0])?;
        if found != [wanted; 3] {
            return Err(libc::EPERM);
        }
    }
    let can_go_back = uid != 0 && done(libc::SYS_setuid, [0; 5]).is_ok();
    if can_go_back {
        Err(libc::EPERM)
    } else {
        Ok(())
    }
}

fn die_with(parent: i32) -> Result<(), i32> {
    let kill = libc::SIGKILL as usize;
    done(
        libc::SYS_prctl,
        [libc::PR_SET_PDEATHSIG as usize, kill, 0, 0, 0],
    )?;
    // It may have died right before.
    if raise(libc::SYS_getppid, [0; 5])? == parent.cast_unsigned() as usize {
        Ok(())
    } else {
        Err(libc::ESRCH)
    }
}

/// Tells the number of a stage, 0 for none, and that of an error. Nobody could do anything about a failure.
pub(super) fn tell(fd: RawFd, stage: u32, errno: i32) {
    let told = [stage, errno.cast_unsigned()];
    let fd = fd.cast_unsigned() as usize;
    let begin = ptr::from_ref(&told) as usize;
    done(libc::SYS_write, [fd, begin, size_of_val(&told), 0, 0]).ok();
}

pub(super) fn call(stage: Stage, number: libc::c_long, args: [usize; 5]) -> Result<(), Failure> {
    match done(number, args) {
        Ok(()) => Ok(()),
        Err(errno) => Err((stage, errno)),
    }
}

fn done(number: libc::c_long, args: [usize; 5]) -> Result<(), i32> {
    match raise(number, args) {
        Ok(_) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn raise(number: libc::c_long, args: [usize; 5]) -> Result<usize, i32> {
    // SAFETY: the callers pass what the calls need, and nothing that is passed is gone before the call returns.
    let result = unsafe { arch::syscall(number, args) };
    if result < 0 {
        #[expect(clippy::cast_possible_truncation, reason = "an errno is below 4096")]
        let errno = result.wrapping_neg() as i32;
        Err(errno)
    } else {
        Ok(result.cast_unsigned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_have_numbers() {
        for stage in NUMBERED
            .into_iter()
            .chain([Stage::Action(0), Stage::Action(12)])
        {
            assert_eq!(Stage::from_number(stage.to_number()), Some(stage));
        }
        for none in [0, 9, ACTIONS - 1] {
            assert_eq!(Stage::from_number(none), None);
        }
    }
}
