//! What a run writes, handed on as it comes, with a bound on what waits.
//!
//! The thread that reads never waits for who takes the chunks: it stops reading that stream, and the run waits, as it would
//! at any full pipe. Once the run's leader has ended, what is left in its pipes is handed on at once, bound or not: the
//! result must not wait either, and it is no more than pipes hold.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

use crate::os::{ChunkSink, Flow, Resume, Stream};

/// A piece of what a run wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where to.
    pub stream: Stream,
    /// What, as it was read: a piece may end within a character.
    pub bytes: Vec<u8>,
}

/// The pieces of what a run writes, in the order in which they were read. Dropping it lets the run write on, to nobody.
pub struct Chunks {
    chunks: mpsc::UnboundedReceiver<Chunk>,
    shared: Arc<Shared>,
}

/// The other end, to be given to the run.
struct Sink {
    /// Who reads pauses at the bound, so it is bounded.
    chunks: mpsc::UnboundedSender<Chunk>,
    shared: Arc<Shared>,
}

struct Shared {
    bound_bytes: usize,
    waiting_bytes: AtomicUsize,
    /// Reading was paused, and nobody has resumed it.
    is_paused: AtomicBool,
    resume: OnceLock<Resume>,
}

/// Two ends: one for the run, one for who wants what it writes. Reading pauses while more than `bound_bytes` wait.
pub fn chunks(bound_bytes: usize) -> (Arc<dyn ChunkSink>, Chunks) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        bound_bytes,
        waiting_bytes: AtomicUsize::new(0),
        is_paused: AtomicBool::new(false),
        resume: OnceLock::new(),
    });
    let sink = Sink {
        chunks: sender,
        shared: Arc::clone(&shared),
    };
    let chunks = Chunks {
        chunks: receiver,
        shared,
    };
    (Arc::new(sink), chunks)
}

impl std::fmt::Debug for Chunks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunks").finish_non_exhaustive()
    }
}

impl Chunks {
    /// The next piece; `None`: nothing comes any more. Safe to drop before it is done.
    pub async fn next(&mut self) -> Option<Chunk> {
        let chunk = self.chunks.recv().await?;
        self.shared.took(chunk.bytes.len());
        Some(chunk)
    }

    /// The same, for a thread without an async runtime.
    pub fn blocking_next(&mut self) -> Option<Chunk> {
        let chunk = self.chunks.blocking_recv()?;
        self.shared.took(chunk.bytes.len());
        Some(chunk)
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        self.chunks.close();
        self.shared.waiting_bytes.store(0, Ordering::SeqCst);
        self.shared.resume_if_paused();
    }
}

impl ChunkSink for Sink {
    fn begin(&self, resume: Resume) {
        // A second run with the same sink would have to be resumed by the first one's; nobody starts one.
        drop(self.shared.resume.set(resume));
    }

    fn chunk(&self, stream: Stream, bytes: &[u8]) -> Flow {
        let chunk = Chunk {
            stream,
            bytes: bytes.to_vec(),
        };
        self.shared
            .waiting_bytes
            .fetch_add(bytes.len(), Ordering::SeqCst);
        if self.chunks.send(chunk).is_err() {
            return Flow::Go;
        }
        self.shared.flow()
    }
}

impl Shared {
    fn is_full(&self) -> bool {
        self.waiting_bytes.load(Ordering::SeqCst) > self.bound_bytes
    }

    fn flow(&self) -> Flow {
        if !self.is_full() {
            return Flow::Go;
        }
        self.is_paused.store(true, Ordering::SeqCst);
        // All may have been taken before that was to be seen, and then nobody would resume.
        if !self.is_full() && self.is_paused.swap(false, Ordering::SeqCst) {
            Flow::Go
        } else {
            Flow::Pause
        }
    }

    fn took(&self, bytes: usize) {
        self.waiting_bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.resume_if_paused();
    }

    fn resume_if_paused(&self) {
        if !self.is_full()
            && self.is_paused.swap(false, Ordering::SeqCst)
            && let Some(resume) = self.resume.get()
        {
            resume();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted() -> (Arc<AtomicUsize>, Resume) {
        let count = Arc::new(AtomicUsize::new(0));
        let theirs = Arc::clone(&count);
        let resume = move || {
            theirs.fetch_add(1, Ordering::SeqCst);
        };
        (count, Box::new(resume))
    }

    #[test]
    fn reading_pauses_beyond_the_bound_and_resumes_once_below_it() {
        let (sink, mut chunks) = chunks(10);
        let (resumed, resume) = counted();
        sink.begin(resume);
        assert_eq!(sink.chunk(Stream::Stdout, &[0; 10]), Flow::Go);
        assert_eq!(sink.chunk(Stream::Stderr, &[1; 6]), Flow::Pause);
        assert_eq!(resumed.load(Ordering::SeqCst), 0);
        assert_eq!(chunks.blocking_next().unwrap().bytes, [0; 10]);
        assert_eq!(resumed.load(Ordering::SeqCst), 1);
        assert_eq!(chunks.blocking_next().unwrap().stream, Stream::Stderr);
        assert_eq!(resumed.load(Ordering::SeqCst), 1);
        drop(sink);
        assert_eq!(chunks.blocking_next(), None);
    }

    #[test]
    fn who_takes_no_more_holds_up_nobody() {
        let (sink, chunks) = chunks(0);
        let (resumed, resume) = counted();
        sink.begin(resume);
        assert_eq!(sink.chunk(Stream::Stdout, b"x"), Flow::Pause);
        drop(chunks);
        assert_eq!(resumed.load(Ordering::SeqCst), 1);
        assert_eq!(sink.chunk(Stream::Stdout, b"x"), Flow::Go);
    }
}
