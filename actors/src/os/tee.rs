//! Output that is inherited and listened to: a thread a run, which passes it on to our own stdout and stderr.
//!
//! Writing there may wait for whoever reads it. So it is no work for the thread that watches every run, and the run itself
//! waits then, as it would with the real thing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::os::output::LineSplitter;
use crate::os::sign::{Ear, PARTIAL_PAUSE};
use crate::os::thread;

const CHUNK_BYTES: usize = 16 * 1024;

/// Where a run's stdout and stderr go; none: nowhere, ours being closed.
pub(super) type Targets = [Option<BorrowedFd<'static>>; 2];

/// Starts the thread. It ends when every writer has closed both pipes.
pub(super) fn start(readers: [Option<OwnedFd>; 2], targets: Targets, ear: Ear) -> io::Result<()> {
    let mut targets = targets.into_iter();
    let mut tee = Tee {
        streams: readers.map(|reader| Stream {
            reader,
            target: targets.next().flatten(),
            splitter: LineSplitter::new(),
            is_quiet: true,
        }),
        ear: Some(ear),
    };
    thread::start("kimi-tee", move || while tee.turn() {})
}

struct Tee {
    streams: [Stream; 2],
    ear: Option<Ear>,
}

struct Stream {
    /// `None`: it has ended.
    reader: Option<OwnedFd>,
    target: Option<BorrowedFd<'static>>,
    splitter: LineSplitter,
    /// Nothing came since its incomplete line was looked at.
    is_quiet: bool,
}

impl Tee {
    /// Waits for something to happen; `false`: nothing more will.
    fn turn(&mut self) -> bool {
        let looks = self.ear.is_some() && self.streams.iter().any(|stream| !stream.is_quiet);
        let pause = Timespec {
            tv_sec: 0,
            tv_nsec: PARTIAL_PAUSE.subsec_nanos().into(),
        };
        let mut polled: Vec<PollFd<'_>> = self
            .streams
            .iter()
            .filter_map(|stream| stream.reader.as_ref())
            .map(|reader| PollFd::from_borrowed_fd(reader.as_fd(), PollFlags::IN))
            .collect();
        if polled.is_empty() {
            return false;
        }
        let ready = poll(&mut polled, looks.then_some(&pause));
        drop(polled);
        if ready == Ok(0) {
            self.look();
        } else {
            for stream in &mut self.streams {
                stream.pass_on(&mut self.ear);
            }
        }
        true
    }

    /// Nothing came for a while: a line without its end is looked at as it is.
    fn look(&mut self) {
        for stream in &mut self.streams {
            stream.is_quiet = true;
            listen(&mut self.ear, stream.splitter.pending());
        }
    }
}

impl Stream {
    fn pass_on(&mut self, ear: &mut Option<Ear>) {
        let Some(reader) = &self.reader else {
            return;
        };
        let mut chunk = [0; CHUNK_BYTES];
        let length = match rustix::io::read(reader, &mut chunk) {
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok(length) => length,
            Err(_) => 0,
        };
        if length == 0 {
            self.splitter.finish(&mut |line, _| listen(ear, line));
            self.reader = None;
            return;
        }
        self.is_quiet = false;
        if ear.is_some() {
            self.splitter
                .feed(&chunk[..length], &mut |line, _| listen(ear, line));
        }
        if let Some(target) = self.target
            && write_all(target, &chunk[..length]).is_err()
        {
            // Nobody reads ours any more; closed, its own tells it so.
            self.reader = None;
        }
    }
}

fn listen(ear: &mut Option<Ear>, line: &[u8]) {
    ear.take_if(|ear| !line.is_empty() && ear.hear(line));
}

fn write_all(target: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(target, rest) {
            Ok(length) => rest = &rest[length..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut polled = [PollFd::from_borrowed_fd(target, PollFlags::OUT)];
                poll(&mut polled, None).ok();
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::sync::Arc;
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::os::sign::{Listener, Notice, Pattern};

    struct Tell(Sender<Notice>);

    impl Listener for Tell {
        fn hear(&self, notice: Notice) {
            self.0.send(notice).unwrap();
        }
    }

    #[test]
    fn what_is_listened_to_is_passed_on_as_it_is() {
        let (stdout, writes) = rustix::pipe::pipe().unwrap();
        let (passed_on, target) = rustix::pipe::pipe().unwrap();
        // Ours are there for as long as the process; so is this one.
        let target: &'static OwnedFd = Box::leak(Box::new(target));
        let (told, hears) = channel();
        let ear = Ear::new(Pattern::new("^up$").unwrap(), Arc::new(Tell(told)));
        start([Some(stdout), None], [Some(target.as_fd()), None], ear).unwrap();
        let text = b"starting\nup\nand more";
        rustix::io::write(&writes, text).unwrap();
        assert_eq!(hears.recv().unwrap(), Notice::Ready);
        drop(writes);
        let mut found = [0; 20];
        File::from(passed_on).read_exact(&mut found).unwrap();
        assert_eq!(found, *text);
        // The thread is through, and has let go of the listener.
        assert!(hears.recv().is_err());
    }
}
