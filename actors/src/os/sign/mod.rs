//! Signs: what a run says of itself, heard by the thread that watches it. No sign takes a thread or a timer of its own.

mod line;
mod socket;

use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::os::real::contained;

pub(super) use line::{Ear, PARTIAL_PAUSE};
pub use line::{Pattern, PatternError};
pub(super) use socket::{Directory, NotifySocket, remove_sockets_of};

/// How many datagrams are taken in one go, so that one who sends without pause delays nobody.
const DATAGRAMS: usize = 16;

/// By what a run says that it is ready.
#[derive(Clone, Debug)]
pub enum Sign {
    /// A line of its output matches. It is heard whatever becomes of the output: what is discarded is read all the same, and
    /// what is inherited comes through a pipe, so that the run does not see a terminal.
    Line(Pattern),
    /// A newline on this descriptor, which it inherits.
    NotifyFd(u32),
    /// `READY=1`, sent to the socket that `NOTIFY_SOCKET` names.
    SdNotify,
}

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The run is ready.
    Ready,
    /// What it says of its state; one line, at most [`STATUS_MAX`] bytes.
    Status(String),
    /// It needs at least this much more time to become ready.
    Extend(Duration),
    /// It is about to end.
    Stopping,
}

/// The bound of a status in bytes.
pub const STATUS_MAX: usize = 256;

/// Is told what is heard. Called from the threads of this module: must not block. May be called before the run's start is
/// told.
pub trait Listener: Send + Sync {
    /// One notice, in the order in which they came.
    fn hear(&self, notice: Notice);
}

/// What to listen for, and who is told.
#[derive(Clone)]
pub struct Listen {
    /// The sign.
    pub sign: Sign,
    /// Who is told.
    pub listener: Arc<dyn Listener>,
}

impl fmt::Debug for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listen").field(&self.sign).finish()
    }
}

/// What a datagram of `sd_notify(3)` says.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub fn notices(datagram: &[u8]) -> impl Iterator<Item = Notice> {
    socket::notices(datagram)
}

/// Our end of a pipe or socket on which a run gives its sign.
pub(super) struct Beacon {
    end: BeaconEnd,
    listener: Arc<dyn Listener>,
}

/// What it is.
pub(super) enum BeaconEnd {
    Pipe { fd: OwnedFd, is_heard: bool },
    Socket(NotifySocket),
}

/// Whether more may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Open,
    Closed,
}

impl Beacon {
    pub(super) fn new(end: BeaconEnd, listener: Arc<dyn Listener>) -> Self {
        Self { end, listener }
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        match &self.end {
            BeaconEnd::Pipe { fd, .. } => fd.as_raw_fd(),
            BeaconEnd::Socket(socket) => socket.raw_fd(),
        }
    }

    /// Reads what is there, within bounds, and tells what it says.
    pub(super) fn read(&mut self, scratch: &mut [u8]) -> Flow {
        let Self { end, listener } = self;
        match end {
            // After the newline whatever comes is read and forgotten: closed, the pipe would kill its writer.
            BeaconEnd::Pipe { fd, is_heard } => match rustix::io::read(&*fd, &mut *scratch) {
                Ok(0) => Flow::Closed,
                Ok(length) => {
                    if !*is_heard && scratch[..length].contains(&b'\n') {
                        *is_heard = true;
                        contained(|| listener.hear(Notice::Ready));
                    }
                    Flow::Open
                }
                Err(Errno::AGAIN | Errno::INTR) => Flow::Open,
                Err(_) => Flow::Closed,
            },
            BeaconEnd::Socket(socket) => {
                for _ in 0..DATAGRAMS {
                    if !socket.receive(scratch, |notice| contained(|| listener.hear(notice))) {
                        break;
                    }
                }
                Flow::Open
            }
        }
    }
}
