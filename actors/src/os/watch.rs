//! The thread that watches every process and reads every pipe.
//!
//! It sleeps until something happens: there is no periodic wake-up. Of what happened at once it handles the ends of
//! processes first and then reads each readable pipe once, so that one who writes without pause delays nobody.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;

use crate::os::kernel;
use crate::os::output::{DRAIN_IDLE, Drain, HeadTail, LineSplitter};
use crate::os::real::{Shared, contained};
use crate::os::reap::{LeaderEnded, Settling, Telling};
use crate::os::sign::{self, Beacon, Ear, PARTIAL_PAUSE};
use crate::os::spawn::Pool;
use crate::os::table::{Handle, Phase, lock};
use crate::os::{Captured, ChunkSink, Drained, Flow, Kept, Line, LineSink, News, Observer, Stream};
use crate::policy::spec::{ChildName, RunId};
use crate::policy::time::Moment;

pub(super) const SCRATCH_BYTES: usize = 64 * 1024;
const BATCH: usize = 256;
/// How often a wake is tried.
const WAKE_TRIES: usize = 3;
/// How many chunks are read for the last time: what a pipe holds, several times over, since a survivor may write on.
const LAST_CHUNKS: usize = 32;
/// When to ask again for the end of a process whose tracer holds it.
const TRACED_PAUSE: Duration = Duration::from_millis(50);

/// The output of a run: who reads it, and what becomes of it.
pub(super) struct Io {
    pub(super) handle: Handle,
    pub(super) run: RunId,
    pub(super) child: ChildName,
    pub(super) sink: Option<Arc<dyn LineSink>>,
    pub(super) chunks: Option<Arc<dyn ChunkSink>>,
    /// Is told that more came than is kept; none: was told.
    pub(super) over: Option<Arc<dyn Observer>>,
    pub(super) born: Moment,
    pub(super) last_output: Option<Moment>,
    /// What comes is the rest, and is read whoever cannot take it.
    pub(super) heedless: bool,
    /// Stdout and stderr.
    pub(super) readers: [Reader; 2],
    /// Waits for a line, until it has come.
    pub(super) ear: Option<Box<Ear>>,
    /// Where it gives its sign. As long as its leader lives it is not at its end.
    pub(super) beacon: Option<Box<Beacon>>,
    /// The leader is gone, so reading ends soon.
    pub(super) drain: Option<Drain>,
    /// What waits for that.
    pub(super) ending: Option<Box<Settling>>,
}

pub(super) struct Reader {
    /// `None`: every writer has closed it.
    pub(super) fd: Option<OwnedFd>,
    pub(super) keep: Keep,
    /// Who takes what is read cannot take more.
    pub(super) paused: bool,
}

pub(super) enum Keep {
    Lines(LineSplitter),
    Bytes(HeadTail),
}

/// What came of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    Some,
    Nothing,
    Eof,
}

impl Io {
    fn is_captured(&self) -> bool {
        matches!(self.readers[0].keep, Keep::Bytes(_))
    }

    /// Whether all there is to it is to read until it has ended.
    pub(super) fn is_plain(&self) -> bool {
        self.is_captured() && self.chunks.is_none() && self.ear.is_none() && self.beacon.is_none()
    }

    /// Stdout and stderr, as far as they are open.
    pub(super) fn streams(&self) -> [Option<BorrowedFd<'_>>; 2] {
        let [stdout, stderr] = &self.readers;
        [stdout, stderr].map(|reader| reader.fd.as_ref().map(AsFd::as_fd))
    }

    /// What is to be watched, −1 for what is not: stdout, stderr, the beacon.
    pub(super) fn raw_streams(&self) -> [RawFd; 3] {
        let [stdout, stderr] = self.streams();
        let raw = |fd: Option<BorrowedFd<'_>>| fd.map_or(-1, |fd| fd.as_raw_fd());
        let beacon = self.beacon.as_deref().map_or(-1, Beacon::raw_fd);
        [raw(stdout), raw(stderr), beacon]
    }

    pub(super) fn is_at_eof(&self) -> bool {
        let is_over = self.beacon.is_none() || self.drain.is_some();
        is_over && self.readers.iter().all(|reader| reader.fd.is_none())
    }

    /// Reads one chunk of one stream.
    fn read(&mut self, which: usize, scratch: &mut [u8], watch: &Watch) -> Chunk {
        let reader = &self.readers[which];
        let Some(fd) = reader.fd.as_ref().filter(|_| !reader.paused) else {
            return Chunk::Nothing;
        };
        match rustix::io::read(fd, &mut *scratch) {
            Ok(length) if length > 0 => {
                self.feed(which, &scratch[..length]);
                if self.pass_on(which, &scratch[..length]) == Flow::Pause && !self.heedless {
                    self.pause(which, watch);
                }
                Chunk::Some
            }
            Err(Errno::AGAIN | Errno::INTR) => Chunk::Nothing,
            Ok(_) | Err(_) => {
                self.end(which, watch);
                Chunk::Eof
            }
        }
    }

    /// Reads one chunk of a stream of a plain one that nobody watches.
    pub(super) fn read_unwatched(&mut self, which: usize, scratch: &mut [u8]) -> Chunk {
        let Some(fd) = &self.readers[which].fd else {
            return Chunk::Nothing;
        };
        match rustix::io::read(fd, &mut *scratch) {
            Ok(length) if length > 0 => {
                self.feed(which, &scratch[..length]);
                Chunk::Some
            }
            Err(Errno::AGAIN | Errno::INTR) => Chunk::Nothing,
            Ok(_) | Err(_) => {
                self.readers[which].fd = None;
                Chunk::Eof
            }
        }
    }

    fn feed(&mut self, which: usize, bytes: &[u8]) {
        let target = (&self.child, self.run, stream(which));
        let (sink, ear) = (self.sink.as_deref(), &mut self.ear);
        match &mut self.readers[which].keep {
            Keep::Lines(splitter) if sink.is_some() || ear.is_some() => {
                splitter.feed(bytes, &mut |text, complete| {
                    listen(ear, text);
                    emit(sink, target, text, complete);
                });
            }
            Keep::Bytes(kept) => {
                kept.feed(bytes);
                if kept.is_over()
                    && let Some(observer) = self.over.take()
                {
                    contained(|| observer.tell(News::OutputLimit));
                }
            }
            // Heard, and to be discarded.
            Keep::Lines(_) => {}
        }
    }

    /// Shows the incomplete lines to the ear.
    fn look(&mut self) {
        for reader in &self.readers {
            if let Keep::Lines(splitter) = &reader.keep {
                listen(&mut self.ear, splitter.pending());
            }
        }
    }

    fn pause(&mut self, which: usize, watch: &Watch) {
        self.readers[which].paused = true;
        // Of a hang-up the kernel still tells, once.
        self.rewatch(which, watch, EventFlags::ONESHOT);
    }

    fn resume(&mut self, watch: &Watch) {
        for which in 0..self.readers.len() {
            if mem::replace(&mut self.readers[which].paused, false) {
                self.rewatch(which, watch, EventFlags::IN);
            }
        }
    }

    fn rewatch(&self, which: usize, watch: &Watch, flags: EventFlags) {
        if let Some(fd) = &self.readers[which].fd {
            let data = Subject::Stream(self.handle, which).pack();
            kernel::rewatch(watch.epoll.as_fd(), fd.as_raw_fd(), data, flags);
        }
    }

    fn pass_on(&self, which: usize, bytes: &[u8]) -> Flow {
        let mut flow = Flow::Go;
        if let Some(sink) = &self.chunks {
            contained(|| flow = sink.chunk(stream(which), bytes));
        }
        flow
    }

    /// Watches its streams no longer; they can still be read.
    fn disregard(&self, watch: &Watch) {
        for fd in self.readers.iter().filter_map(|reader| reader.fd.as_ref()) {
            watch.remove(fd.as_raw_fd());
        }
        if let Some(beacon) = &self.beacon {
            watch.remove(beacon.raw_fd());
        }
    }

    /// Hears no sign any more.
    fn deafen(&mut self, watch: &Watch) {
        if let Some(beacon) = self.beacon.take() {
            watch.remove(beacon.raw_fd());
        }
    }

    /// Ends the reading of one stream.
    fn end(&mut self, which: usize, watch: &Watch) {
        let Some(fd) = self.readers[which].fd.take() else {
            return;
        };
        watch.remove(fd.as_raw_fd());
        drop(fd);
        let target = (&self.child, self.run, stream(which));
        let (sink, ear) = (self.sink.as_deref(), &mut self.ear);
        if let Keep::Lines(splitter) = &mut self.readers[which].keep {
            splitter.finish(&mut |text, complete| {
                listen(ear, text);
                emit(sink, target, text, complete);
            });
        }
    }

    /// Reads what is there, for the last time, and returns what was kept.
    pub(super) fn into_captured(
        mut self,
        drained: Drained,
        watch: &Watch,
        now: Moment,
    ) -> Option<Captured> {
        let mut scratch = Vec::new();
        self.heedless = true;
        for which in 0..self.readers.len() {
            self.readers[which].paused = false;
            for _ in 0..LAST_CHUNKS {
                if self.readers[which].fd.is_none() {
                    break;
                }
                scratch.resize(SCRATCH_BYTES, 0);
                if self.read(which, &mut scratch, watch) != Chunk::Some {
                    break;
                }
                self.last_output = Some(now);
            }
            self.end(which, watch);
        }
        let last_output = self.last_output.map(|last| last.since(self.born));
        let [stdout, stderr] = self.readers.map(|reader| reader.keep);
        Some(Captured {
            stdout: kept(stdout)?,
            stderr: kept(stderr)?,
            drained,
            last_output,
        })
    }
}

fn kept(keep: Keep) -> Option<Kept> {
    match keep {
        Keep::Bytes(kept) => Some(kept.finish()),
        Keep::Lines(_) => None,
    }
}

fn stream(which: usize) -> Stream {
    if which == 0 {
        Stream::Stdout
    } else {
        Stream::Stderr
    }
}

/// Once the line was heard, nothing more is listened to.
fn listen(ear: &mut Option<Box<Ear>>, line: &[u8]) {
    ear.take_if(|ear| !line.is_empty() && ear.hear(line));
}

fn emit(
    sink: Option<&dyn LineSink>,
    (child, run, stream): (&ChildName, RunId, Stream),
    bytes: &[u8],
    complete: bool,
) {
    let Some(sink) = sink else {
        return;
    };
    contained(|| {
        sink.line(Line {
            child,
            run,
            stream,
            bytes,
            complete,
        });
    });
}

/// What other threads ask of the watching one.
#[derive(Debug)]
pub(super) enum Order {
    /// This one ended before its start was told.
    Ended(Handle),
    /// Who takes the output of this one can take more.
    Resume(Handle),
    /// See then whether the spawning threads are held up.
    CheckSpawners(Moment),
}

/// How others reach the watching thread.
pub(super) struct Watch {
    epoll: OwnedFd,
    wake: OwnedFd,
    /// Bounded: an end and a resumption for each slot, and one check.
    orders: Mutex<Vec<Order>>,
}

/// What an event is about, as epoll carries it: two bits of kind, thirty of generation, the index. No index is so high that
/// all bits are set, which stands for a wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Process(Handle),
    /// Stdout, stderr or the beacon.
    Stream(Handle, usize),
    Wake,
}

/// Which stream the beacon is.
const BEACON: usize = 2;

impl Subject {
    fn pack(self) -> u64 {
        let (kind, handle) = match self {
            Self::Process(handle) => (0, handle),
            Self::Stream(handle, which) => (1 + which as u64, handle),
            Self::Wake => {
                return u64::MAX;
            }
        };
        kind << 62 | u64::from(handle.generation) << 32 | u64::from(handle.index)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "takes the number apart again"
    )]
    fn unpack(data: u64) -> Self {
        let handle = Handle {
            index: data as u32,
            generation: (data >> 32) as u32 & 0x3fff_ffff,
        };
        match data >> 62 {
            _ if data == u64::MAX => Self::Wake,
            0 => Self::Process(handle),
            kind => Self::Stream(handle, kind as usize - 1),
        }
    }
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(
            &epoll,
            &wake,
            EventData::new_u64(Subject::Wake.pack()),
            EventFlags::IN,
        )?;
        Ok(Self {
            epoll,
            wake,
            orders: Mutex::new(Vec::new()),
        })
    }

    pub(super) fn order(&self, order: Order) {
        lock(&self.orders).push(order);
        self.wake();
    }

    pub(super) fn wake(&self) {
        // When the counter is full it is awake. Nothing else is known to fail, and a lost wake would be for ever.
        for _ in 0..WAKE_TRIES {
            let woken = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
            if matches!(woken, Ok(_) | Err(Errno::AGAIN)) {
                break;
            }
        }
    }

    /// Watches a new process and its pipes; −1 is none.
    pub(super) fn add(&self, handle: Handle, pidfd: RawFd, streams: [RawFd; 3]) -> io::Result<()> {
        let epoll = self.epoll.as_fd();
        for (which, fd) in streams.into_iter().enumerate() {
            if fd >= 0 {
                let data = Subject::Stream(handle, which).pack();
                kernel::watch(epoll, fd, data, EventFlags::IN)?;
            }
        }
        // Last, since the end of the process takes everything apart. Once is enough.
        let data = Subject::Process(handle).pack();
        kernel::watch(epoll, pidfd, data, EventFlags::IN | EventFlags::ONESHOT)
    }

    pub(super) fn remove(&self, fd: RawFd) {
        kernel::unwatch(self.epoll.as_fd(), fd);
    }

    /// Ends the reading of a run's output.
    pub(super) fn close(&self, mut io: Io) {
        for which in 0..io.readers.len() {
            io.end(which, self);
        }
        io.deafen(self);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Drain(Handle),
    Ended(Handle),
    /// A line that is not complete may never be.
    Look(Handle),
    CheckSpawners,
}

/// What the thread itself keeps.
pub(super) struct Watcher {
    shared: Arc<Shared>,
    scratch: Box<[u8]>,
    due: BinaryHeap<Reverse<(Moment, Due)>>,
}

impl Watcher {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            scratch: vec![0; SCRATCH_BYTES].into(),
            due: BinaryHeap::new(),
        }
    }

    /// Runs until the runtime is closed and nothing is left.
    pub(super) fn run(mut self) {
        let mut events = Vec::with_capacity(BATCH);
        while !self.shared.is_over() {
            events.clear();
            let timeout = self.timeout();
            // Interrupted, or nothing at all: the loop asks again.
            epoll::wait(
                &self.shared.watch.epoll,
                spare_capacity(&mut events),
                timeout.as_ref(),
            )
            .ok();
            self.handle(&events);
            self.obey();
            self.handle_due();
        }
        // Nobody reads on; a last line without its newline would be lost.
        for mut io in self.shared.table.take_all_io() {
            self.read_all(&mut io, Moment::ZERO);
            self.shared.watch.close(io);
        }
        self.shared.container.remove();
    }

    fn timeout(&self) -> Option<Timespec> {
        let Reverse((at, _)) = self.due.peek()?;
        // Rounded up, or it would wake just before.
        let wait = at.since(self.shared.clock.now()) + Duration::from_millis(1);
        Some(Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        })
    }

    fn handle(&mut self, events: &[epoll::Event]) {
        let subjects = || {
            events
                .iter()
                .map(|event| Subject::unpack({ event.data }.u64()))
        };
        for subject in subjects() {
            if let Subject::Process(handle) = subject {
                self.process_ended(handle);
            }
        }
        for subject in subjects() {
            match subject {
                Subject::Stream(handle, BEACON) => self.beacon_is_readable(handle),
                Subject::Stream(handle, which) => self.stream_is_readable(handle, which),
                Subject::Wake => {
                    rustix::io::read(&self.shared.watch.wake, &mut [0; 8]).ok();
                }
                Subject::Process(_) => {}
            }
        }
    }

    fn obey(&mut self) {
        let orders = mem::take(&mut *lock(&self.shared.watch.orders));
        for order in orders {
            match order {
                Order::Ended(handle) => self.process_ended(handle),
                Order::Resume(handle) => self.resume(handle),
                Order::CheckSpawners(at) => self.due.push(Reverse((at, Due::CheckSpawners))),
            }
        }
    }

    fn handle_due(&mut self) {
        if self.due.is_empty() {
            return;
        }
        let now = self.shared.clock.now();
        while let Some(Reverse((at, due))) = self.due.peek().copied() {
            if at > now {
                break;
            }
            self.due.pop();
            match due {
                Due::Drain(handle) => self.drain(handle, now),
                Due::Ended(handle) => self.process_ended(handle),
                Due::Look(handle) => self.look(handle, now),
                Due::CheckSpawners => {
                    if let Some(next) = Pool::check(&self.shared, now) {
                        self.due.push(Reverse((next, Due::CheckSpawners)));
                    }
                }
            }
        }
    }

    fn process_ended(&mut self, handle: Handle) {
        match self.shared.leader_ended(handle, Phase::Running) {
            LeaderEnded::Over(settling, io) => self.leader_ended(settling, io),
            LeaderEnded::AskLater => {
                let at = self.shared.clock.now() + TRACED_PAUSE;
                self.due.push(Reverse((at, Due::Ended(handle))));
            }
            LeaderEnded::Nothing => {}
        }
    }

    fn leader_ended(&mut self, settling: Settling, mut io: Option<Box<Io>>) {
        let handle = settling.handle;
        let captures = io.as_ref().is_some_and(|io| io.is_captured());
        let now = self.shared.clock.now();
        if let Some(io) = &mut io {
            io.drain = Some(Drain::begin(now));
            // Its last lines come before its end, since with that its supervisor may end too; and most have closed their
            // pipes by now, which saves a round.
            self.read_all(io, now);
        }
        if settling.telling == Telling::Already {
            settling.tell(Vec::new(), Vec::new(), None);
        }
        match io {
            Some(mut io) => {
                if captures {
                    io.ending = Some(Box::new(settling));
                    self.go_on(handle, io, now);
                } else {
                    self.go_on(handle, io, now);
                    Shared::settle(&self.shared, settling);
                }
                self.due
                    .push(Reverse((now + DRAIN_IDLE, Due::Drain(handle))));
            }
            None => Shared::settle(&self.shared, settling),
        }
    }

    /// Two chunks of each stream at most: what was written, and its end.
    fn read_all(&mut self, io: &mut Io, now: Moment) {
        for which in 0..io.readers.len() {
            for _ in 0..2 {
                if io.read(which, &mut self.scratch, &self.shared.watch) != Chunk::Some {
                    break;
                }
                io.last_output = Some(now);
                if let Some(drain) = &mut io.drain {
                    drain.chunk(now);
                }
            }
        }
    }

    fn stream_is_readable(&mut self, handle: Handle, which: usize) {
        let Some(mut io) = self.take_io(handle) else {
            return;
        };
        let chunk = io.read(which, &mut self.scratch, &self.shared.watch);
        let now = self.shared.clock.now();
        if chunk == Chunk::Some {
            if let Some(drain) = &mut io.drain {
                drain.chunk(now);
            }
            self.note(handle, &mut io, now);
        }
        if let (Some(ear), Chunk::Some) = (&mut io.ear, chunk)
            && ear.last.replace(now).is_none()
        {
            let at = now + PARTIAL_PAUSE;
            self.due.push(Reverse((at, Due::Look(handle))));
        }
        self.go_on(handle, io, now);
    }

    fn beacon_is_readable(&mut self, handle: Handle) {
        let Some(mut io) = self.take_io(handle) else {
            return;
        };
        let flow = io
            .beacon
            .as_mut()
            .map(|beacon| beacon.read(&mut self.scratch));
        if flow == Some(sign::Flow::Closed) {
            io.deafen(&self.shared.watch);
        }
        let now = self.shared.clock.now();
        self.go_on(handle, io, now);
    }

    /// What has stood there without its newline for a while is looked at as it is; it costs one look a pause, however the
    /// bytes come.
    fn look(&mut self, handle: Handle, now: Moment) {
        let Some(mut io) = self.take_io(handle) else {
            return;
        };
        if let Some(ear) = &mut io.ear
            && let Some(last) = ear.last
        {
            let at = last + PARTIAL_PAUSE;
            if at > now {
                self.due.push(Reverse((at, Due::Look(handle))));
            } else {
                ear.last = None;
                io.look();
            }
        }
        self.go_on(handle, io, now);
    }

    /// Takes note of when something came.
    fn note(&self, handle: Handle, io: &mut Io, now: Moment) {
        io.last_output = Some(now);
        let is_paused = io.readers.iter().any(|reader| reader.paused);
        let heard = (!is_paused).then_some(now);
        self.shared.table.slot(handle).heard(heard);
    }

    fn resume(&self, handle: Handle) {
        let Some(mut io) = self.take_io(handle) else {
            return;
        };
        io.resume(&self.shared.watch);
        let now = self.shared.clock.now();
        self.shared.table.slot(handle).heard(Some(now));
        self.put_back(handle, io);
    }

    fn drain(&mut self, handle: Handle, now: Moment) {
        let Some(mut io) = self.take_io(handle) else {
            return;
        };
        // This thread may have been held up: what came meanwhile is not silence.
        self.read_all(&mut io, now);
        let deadline = io.drain.map(|drain| drain.deadline());
        let over = io.drain.is_some_and(|drain| drain.verdict(now).is_some());
        self.go_on(handle, io, now);
        if let Some(deadline) = deadline.filter(|_| !over) {
            self.due.push(Reverse((deadline, Due::Drain(handle))));
        }
    }

    fn take_io(&self, handle: Handle) -> Option<Box<Io>> {
        let (_, mut state) = self.shared.table.get(handle)?;
        state.io.take()
    }

    /// Reads on later, or ends it, by the rule.
    fn go_on(&mut self, handle: Handle, mut io: Box<Io>, now: Moment) {
        let drained = if io.is_at_eof() {
            Some(Drained::Eof)
        } else {
            io.drain.and_then(|drain| drain.verdict(now))
        };
        let captures = io.is_captured();
        match (drained, io.ending.take()) {
            (Some(drained), Some(mut settling)) => {
                // One who writes on would wake this thread in vain until the run is settled.
                io.disregard(&self.shared.watch);
                settling.captured = Some((io, drained));
                Shared::settle(&self.shared, *settling);
            }
            (Some(_), None) if !captures => {
                self.shared.watch.close(*io);
                self.shared.table.finish_io(handle);
            }
            (_, ending) => {
                io.ending = ending;
                self.put_back(handle, io);
            }
        }
    }

    fn put_back(&self, handle: Handle, io: Box<Io>) {
        match self.shared.table.get(handle) {
            Some((_, mut state)) if state.io_held => state.io = Some(io),
            gone => {
                drop(gone);
                self.shared.watch.close(*io);
            }
        }
    }
}
