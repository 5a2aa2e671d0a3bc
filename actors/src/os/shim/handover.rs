//! The side of the supervisor: what the shim is given, and what becomes of it.

use std::ffi::c_char;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::pipe::PipeFlags;

use crate::os::clone::{Extra, Parts};
use crate::os::kernel;
use crate::os::launch::{Program, Stage};
use crate::os::shim::instructions::Telling;
use crate::os::shim::{INSTRUCTIONS, ITSELF, NOTIFY, OUT_OF_THE_WAY, STATUS};
use crate::os::stdin::above_stdio;

/// What the shim tells: two numbers, that of a stage and that of an error.
const RECORD: usize = 2 * size_of::<u32>();

/// All that is needed to start the shim and to hear of it.
pub(in crate::os) struct Handover {
    status: OwnedFd,
    extras: Vec<Extra>,
    /// What it has, kept open until it has it.
    _given: Vec<OwnedFd>,
}

/// What became of a process before its program.
#[derive(Debug)]
pub(in crate::os) enum Outcome {
    /// It executed the program.
    Executed,
    /// It could not carry this out, and ends.
    Failed(Stage, io::Error),
    /// The shim could not be executed.
    NoShim(io::Error),
    /// It ended without a word: somebody killed it.
    Vanished,
}

impl Outcome {
    /// Of one that needs no shim.
    pub(in crate::os) fn of(failure: Option<(Stage, io::Error)>) -> Self {
        match failure {
            None => Self::Executed,
            Some((stage, error)) => Self::Failed(stage, error),
        }
    }
}

impl Handover {
    /// `notify` is what the program has besides its stdio.
    pub(in crate::os) fn new(
        telling: Telling<'_>,
        itself: &OwnedFd,
        notify: Option<Extra>,
    ) -> io::Result<Self> {
        let bytes = telling.to_bytes(notify.map(|notify| notify.to));
        let (status, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let mut given = vec![aside(sealed(&bytes)?)?, aside(theirs)?];
        given.extend(notify.map(copy_aside).transpose()?);
        let mut extras: Vec<Extra> = given
            .iter()
            .zip([INSTRUCTIONS, STATUS, NOTIFY])
            .map(|(from, to)| extra(from, to))
            .collect();
        extras.push(extra(itself, ITSELF));
        extras.sort_by_key(|extra| extra.to);
        Ok(Self {
            status: above_stdio(status)?,
            extras,
            _given: given,
        })
    }

    /// What the shim has, itself included.
    pub(in crate::os) fn extras(&self) -> &[Extra] {
        &self.extras
    }

    /// Waits until the program runs, or the shim is about to end; `failure` is that of the process that was to become the shim.
    pub(in crate::os) fn outcome(self, failure: Option<(Stage, io::Error)>) -> Outcome {
        match failure {
            Some((Stage::Exec, error)) => return Outcome::NoShim(error),
            Some((stage, error)) => return Outcome::Failed(stage, error),
            None => {}
        }
        let Self {
            status,
            _given: given,
            ..
        } = self;
        // While ours is open, the end of the pipe never comes.
        drop(given);
        let mut told = Vec::with_capacity(2 * RECORD);
        // Of an error no more is known than of an end without a word.
        File::from(status)
            .take(2 * RECORD as u64)
            .read_to_end(&mut told)
            .ok();
        outcome_of(&told)
    }
}

/// The shim in place of the program. Signals wait until the program runs.
pub(in crate::os) fn instead<'a>(words: &'a [*const c_char; 3], direct: &Parts<'a>) -> Parts<'a> {
    Parts {
        program: Program::Descriptor(ITSELF),
        argv: words,
        envp: &words[words.len() - 1..],
        directory: None,
        actions: &[],
        mask: u64::MAX,
        ..*direct
    }
}

fn extra(from: &OwnedFd, to: RawFd) -> Extra {
    Extra {
        from: from.as_raw_fd(),
        to: to.cast_unsigned(),
    }
}

/// A copy that is in nobody's way.
fn copy_aside(extra: Extra) -> io::Result<OwnedFd> {
    let fd = kernel::borrowed(extra.from);
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, OUT_OF_THE_WAY)?)
}

fn outcome_of(told: &[u8]) -> Outcome {
    let number = |bytes: &[u8]| Some(u32::from_ne_bytes(bytes.try_into().ok()?));
    let record = |bytes: &[u8]| {
        let (stage, errno) = bytes.split_at_checked(size_of::<u32>())?;
        Some((number(stage)?, number(errno)?.cast_signed()))
    };
    match told.chunks(RECORD).last().and_then(record) {
        Some((0, _)) => Outcome::Executed,
        Some((stage, errno)) => match Stage::from_number(stage) {
            Some(stage) => Outcome::Failed(stage, io::Error::from_raw_os_error(errno)),
            None => Outcome::Vanished,
        },
        None => Outcome::Vanished,
    }
}

fn aside(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() >= OUT_OF_THE_WAY {
        Ok(fd)
    } else {
        Ok(rustix::io::fcntl_dupfd_cloexec(&fd, OUT_OF_THE_WAY)?)
    }
}

/// A file of memory that holds these bytes for good.
fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("kimi-exec", flags)?);
    file.write_all(bytes)?;
    file.rewind()?;
    let seals = SealFlags::GROW | SealFlags::SHRINK | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(stage: u32, errno: u32) -> Vec<u8> {
        [stage.to_ne_bytes(), errno.to_ne_bytes()].concat()
    }

    #[test]
    fn only_the_mark_means_that_the_program_runs() {
        let mark = record(0, 0);
        assert!(matches!(outcome_of(&mark), Outcome::Executed));
        let failed = [mark, record(Stage::Exec.to_number(), 2)].concat();
        assert!(
            matches!(outcome_of(&failed), Outcome::Failed(Stage::Exec, error) if error.raw_os_error() == Some(2))
        );
        let early = record(Stage::Action(3).to_number(), 1);
        assert!(
            matches!(outcome_of(&early), Outcome::Failed(Stage::Action(3), error) if error.raw_os_error() == Some(1))
        );
        for nothing in [&[][..], &early[..5], &record(9, 9)] {
            assert!(matches!(outcome_of(nothing), Outcome::Vanished));
        }
    }
}
