//! Where a run's stdin comes from.
//!
//! Always a descriptor that the child reads by itself: nothing of ours stands between, so one that never reads holds up
//! nobody, and what is written faster than it is read waits in the kernel.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::pipe::PipeFlags;
use tokio::sync::mpsc;

use crate::os::thread;

/// How many chunks of a channel may wait besides what the pipe holds.
const CHANNEL_CHUNKS: usize = 16;

/// Where a run's stdin comes from; by default `/dev/null`, so that it is at its end at once.
#[derive(Clone, Debug, Default)]
pub struct Stdin(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    Null,
    Inherited,
    /// Shared, since a start may be tried again; given back once the run has its own copy.
    Descriptor(Arc<OwnedFd>),
}

impl Stdin {
    /// The supervisor's own stdin.
    pub fn inherited() -> Self {
        Self(Source::Inherited)
    }

    /// A file, a socket, the end of a pipe. Our copy is closed as soon as the run has its own; who writes at the other end of
    /// a pipe learns that nobody reads any more from `EPIPE`.
    pub fn descriptor(descriptor: impl Into<OwnedFd>) -> io::Result<Self> {
        let descriptor = above_stdio(descriptor.into())?;
        Ok(Self(Source::Descriptor(Arc::new(descriptor))))
    }

    /// These bytes and then the end.
    pub fn bytes(bytes: &[u8]) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(rustix::fs::memfd_create("kimi-stdin", flags)?);
        file.write_all(bytes)?;
        file.rewind()?;
        // It is open for writing too: a child that writes to its stdin must not fill our memory.
        let seals = SealFlags::GROW | SealFlags::SHRINK | SealFlags::WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals)?;
        Self::descriptor(file)
    }

    /// What is sent, as it comes, and the end once every sender is dropped.
    ///
    /// Sending waits while [the bound](mpsc::Sender::capacity) is reached, and fails once nobody reads any more.
    pub fn channel() -> io::Result<(Self, mpsc::Sender<Vec<u8>>)> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let stdin = Self::descriptor(read)?;
        let mut write = File::from(above_stdio(write)?);
        let (sender, mut chunks) = mpsc::channel::<Vec<u8>>(CHANNEL_CHUNKS);
        // Ends with the senders, or with the last process that could read: writing fails then.
        thread::start("kimi-stdin", move || {
            while let Some(chunk) = chunks.blocking_recv() {
                if write.write_all(&chunk).is_err() {
                    return;
                }
            }
        })?;
        Ok((stdin, sender))
    }

    /// What to connect: −1 keeps ours.
    pub(super) fn number(&self, null: RawFd, inherited: impl FnOnce() -> RawFd) -> RawFd {
        match &self.0 {
            Source::Null => null,
            Source::Inherited => inherited(),
            Source::Descriptor(descriptor) => descriptor.as_raw_fd(),
        }
    }
}

/// Keeps our descriptors out of the places of stdin, stdout and stderr, should the host have closed those.
pub(super) fn above_stdio(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        Ok(fd)
    } else {
        Ok(rustix::io::fcntl_dupfd_cloexec(&fd, 3)?)
    }
}
