//! The exec shim: this program again, which becomes somebody else and then the program that is wanted.
//!
//! A clone that shares the memory of its parent must not change its identity: who may trace the one could reach the other.
//! So the clone executes this program first, which has memory of its own, and that carries out the same last steps
//! (`launch.rs`). What to do comes in a sealed file of memory and not in its arguments, which everybody can
//! read; its own environment is empty, so that nothing that is meant for the program, such as `LD_PRELOAD`, works on it.
//!
//! What becomes of it comes back through a pipe that the execution closes: a mark right before that, then nothing more, or
//! else the failed step and its error.

mod handover;
mod instructions;

use std::ffi::{CStr, OsStr, c_char};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, SealFlags};

use crate::os::kernel;
use crate::os::launch::{self, Failure, Launch, Never, Program, Stage};
use instructions::Instructions;

pub(super) use handover::{Handover, Outcome, instead};
pub(super) use instructions::Telling;

/// What it begins with besides stdin, stdout and stderr: what to do, where to tell what became of it, itself, and possibly
/// what the program is to notify by.
const INSTRUCTIONS: RawFd = 3;
const STATUS: RawFd = 4;
const ITSELF: RawFd = 5;
const NOTIFY: RawFd = 6;
/// From here on nothing is in the way of these.
const OUT_OF_THE_WAY: RawFd = 16;

/// The word that asks for it.
const VERB: &CStr = c"__exec";

/// What it is called by, as the kernel takes it.
pub(super) fn words() -> [*const c_char; 3] {
    [c"kimi-shell".as_ptr(), VERB.as_ptr(), ptr::null()]
}

/// Whether this program can be its own shim.
static IS_REGISTERED: AtomicBool = AtomicBool::new(false);

/// Is the exec shim if this process was started as that, and then never returns. Otherwise it registers this program as one
/// that can be, and returns.
///
/// Call it first in `main`, before anything that costs time or starts a thread: whatever comes before it is done again for
/// each run that needs the shim. A program that does not call it can start everything but runs as another user or group,
/// which are refused then ([`SpawnError::NoShim`](crate::os::SpawnError::NoShim)).
pub fn run_if_asked() {
    if let Some(instructions) = asked() {
        let mut status = STATUS;
        let (stage, errno) = match carry_out(&instructions, &mut status) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        launch::tell(status, stage.to_number(), errno);
        kernel::exit_now(127);
    }
    IS_REGISTERED.store(true, Ordering::Release);
}

/// This program, whatever becomes of its file; none if it cannot be the shim.
pub(super) fn pin() -> io::Result<Option<OwnedFd>> {
    if !IS_REGISTERED.load(Ordering::Acquire) {
        return Ok(None);
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let itself = rustix::fs::open("/proc/self/exe", flags, Mode::empty())?;
    Ok(Some(rustix::io::fcntl_dupfd_cloexec(
        &itself,
        OUT_OF_THE_WAY,
    )?))
}

/// What this process is to do, if it was started as the shim.
fn asked() -> Option<Instructions> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().as_deref() != Some(OsStr::from_bytes(VERB.to_bytes()))
        || arguments.next().is_some()
    {
        return None;
    }
    // Anybody can type that word. Nobody has such a file by chance.
    let file = kernel::borrowed(INSTRUCTIONS);
    let seals = rustix::fs::fcntl_get_seals(file).ok()?;
    if !seals.contains(SealFlags::WRITE) {
        return None;
    }
    let mut bytes = Vec::new();
    File::from(kernel::owned(INSTRUCTIONS))
        .read_to_end(&mut bytes)
        .ok()?;
    Instructions::read(&bytes)
}

/// Everything that needs memory comes first: a limit may leave none.
fn carry_out(instructions: &Instructions, status: &mut RawFd) -> Result<Never, Failure> {
    place_descriptors(instructions.notify, status)
        .map_err(|error| (Stage::Extra, error.raw_os_error().unwrap_or(libc::EIO)))?;
    let (argv, envp) = (instructions.argv.pointers(), instructions.envp.pointers());
    Launch {
        program: Program::Path(&instructions.path),
        argv: &argv,
        envp: &envp,
        directory: instructions.directory.as_deref(),
        nofile: None,
        actions: &instructions.actions,
        groups: &instructions.groups,
        parent: instructions.parent,
        ignored: 0,
        // The standard library ignores SIGPIPE before `main`.
        resets_all: true,
        mask: 0,
        mark: Some(*status),
    }
    .carry_out()
}

/// Leaves the program nothing but what it is to notify by, in the place where it looks for that.
fn place_descriptors(notify: Option<RawFd>, status: &mut RawFd) -> io::Result<()> {
    let aside = if notify == Some(OUT_OF_THE_WAY) {
        OUT_OF_THE_WAY + 1
    } else {
        OUT_OF_THE_WAY
    };
    let moved = rustix::io::fcntl_dupfd_cloexec(kernel::borrowed(STATUS), aside)?;
    *status = moved.into_raw_fd();
    kernel::close(STATUS);
    kernel::close(ITSELF);
    if let Some(place) = notify.filter(|place| *place != NOTIFY) {
        kernel::copy_to(NOTIFY, place)?;
        kernel::close(NOTIFY);
    }
    Ok(())
}
