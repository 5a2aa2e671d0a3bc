//! The pipes of a session: script and status for its whole life, two for the output of each command.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;

use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe;

use crate::os::Kept;
use crate::os::output::HeadTail;

const CHUNK_BYTES: usize = 16 * 1024;
/// Most commands write less; what is larger is mostly read by [`Stream::pump`] while the command runs.
const SMALL_CHUNK_BYTES: usize = 4 * 1024;
/// More than a pipe can hold by the system's default limit (`pipe(7)`, `pipe-max-size`).
const MOST_IN_A_PIPE: usize = 1024 * 1024;
/// The longest status has three digits and a newline.
const STATUS_BYTES: usize = 8;

/// A pipe of which neither end blocks. Who opens an end by its name under `/proc` gets one of its own, which does.
fn new_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(
        PipeFlags::CLOEXEC | PipeFlags::NONBLOCK,
    )?)
}

/// Where the shell reads what to do. Only the shell has the other end.
#[derive(Debug)]
pub(super) struct Script(OwnedFd);

impl Script {
    /// Our end, and the shell's, which is its stdin.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let (theirs, ours) = new_pipe()?;
        Ok((Self(ours), theirs))
    }

    /// Writes all of it; waits while the pipe is full.
    pub(super) async fn write(&self, text: &[u8]) -> io::Result<()> {
        let mut left = text;
        // Most scripts fit into the pipe: nothing to wait for, nothing to register.
        while !left.is_empty() {
            match rustix::io::write(&self.0, left) {
                Ok(written) => left = &left[written..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return self.write_slowly(left).await,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn write_slowly(&self, text: &[u8]) -> io::Result<()> {
        let pipe = pipe::Sender::from_owned_fd(self.0.try_clone()?)?;
        let mut left = text;
        while !left.is_empty() {
            pipe.writable().await?;
            match pipe.try_write(left) {
                Ok(written) => left = &left[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Reads what comes next; nothing at the end.
async fn read(pipe: &mut pipe::Receiver, buffer: &mut [u8]) -> io::Result<usize> {
    let mut buffer = ReadBuf::new(buffer);
    poll_fn(|cx| Pin::new(&mut *pipe).poll_read(cx, &mut buffer)).await?;
    Ok(buffer.filled().len())
}

/// Where the shell says how a command ended.
#[derive(Debug)]
pub(super) struct Status(pipe::Receiver);

/// What the shell said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The command ended with this.
    Status(u8),
    /// Nothing any more: the shell is gone.
    Nothing,
    /// Nothing, since the shell was gone before it read anything.
    NotHeard,
}

impl Status {
    /// Our end, and the shell's.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = new_pipe()?;
        Ok((Self(pipe::Receiver::from_owned_fd(ours)?), theirs))
    }

    /// Waits for the status of the command that runs.
    pub(super) async fn read(&mut self) -> io::Result<Said> {
        let mut text = [0; STATUS_BYTES];
        // One command, one status: it is shorter than a pipe writes at once, so it comes whole.
        match read(&mut self.0, &mut text).await? {
            0 => Ok(Said::Nothing),
            length => said(&text[..length]),
        }
    }

    /// Whether the shell is gone, as far as can be seen without waiting.
    pub(super) fn is_closed(&self) -> bool {
        matches!(rustix::io::read(&self.0, &mut [0; STATUS_BYTES]), Ok(0))
    }
}

fn said(text: &[u8]) -> io::Result<Said> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.strip_suffix('\n')?.parse().ok())
        .map(Said::Status)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "that is no status"))
}

/// One output of one command.
#[derive(Debug)]
pub(super) struct Stream {
    ours: Option<OwnedFd>,
    /// Held until the shell has opened it by its name, at the latest when the status has come.
    theirs: Option<OwnedFd>,
    watched: Option<pipe::Receiver>,
    kept: HeadTail,
}

/// What is left to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// Nothing now; somebody may still write.
    Writers,
    /// Nothing, for ever.
    Nothing,
}

impl Stream {
    pub(super) fn new(cap_bytes: usize) -> io::Result<Self> {
        let (ours, theirs) = new_pipe()?;
        Ok(Self {
            ours: Some(ours),
            theirs: Some(theirs),
            watched: None,
            kept: HeadTail::new(cap_bytes),
        })
    }

    /// The number under which the shell finds it among our descriptors.
    pub(super) fn number(&self) -> RawFd {
        self.theirs.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Reads what comes; never returns, since we hold a writing end ourselves.
    pub(super) async fn pump(&mut self) -> io::Result<Infallible> {
        if let Some(ours) = self.ours.take() {
            self.watched = Some(pipe::Receiver::from_owned_fd(ours)?);
        }
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Some(watched) = &mut self.watched {
            let length = read(watched, &mut buffer).await?;
            self.kept.feed(&buffer[..length]);
        }
        pending().await
    }

    /// Reads what is there, after the command has ended. What somebody in the background still writes goes nowhere.
    pub(super) fn finish(mut self) -> io::Result<Kept> {
        self.theirs = None;
        if self.read_what_is_there()? == Left::Writers {
            self.drop_the_rest()?;
        }
        Ok(self.kept.finish())
    }

    fn read_what_is_there(&mut self) -> io::Result<Left> {
        let ours = match (&self.watched, &self.ours) {
            (Some(watched), _) => watched.as_fd(),
            (None, Some(ours)) => ours.as_fd(),
            (None, None) => return Ok(Left::Nothing),
        };
        let mut buffer = [MaybeUninit::uninit(); SMALL_CHUNK_BYTES];
        // A background job may write faster than we read; the command's own bytes are among those that the pipe holds now.
        let mut budget = MOST_IN_A_PIPE;
        loop {
            match rustix::io::read(ours, &mut buffer).map(|(read, _)| &*read) {
                Ok([]) => return Ok(Left::Nothing),
                Ok(read) => {
                    self.kept.feed(read);
                    budget = budget.saturating_sub(read.len());
                    if budget == 0 {
                        return Ok(Left::Writers);
                    }
                }
                Err(Errno::AGAIN) => return Ok(Left::Writers),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends with the last writer, at the latest when the shell's tree is killed.
    fn drop_the_rest(&mut self) -> io::Result<()> {
        let mut watched = match (self.watched.take(), self.ours.take()) {
            (Some(watched), _) => watched,
            (None, Some(ours)) => pipe::Receiver::from_owned_fd(ours)?,
            (None, None) => return Ok(()),
        };
        tokio::spawn(async move {
            let mut buffer = vec![0; CHUNK_BYTES];
            while let Ok(1..) = read(&mut watched, &mut buffer).await {}
        });
        Ok(())
    }
}
