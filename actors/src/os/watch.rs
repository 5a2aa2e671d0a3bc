//! The thread that watches every process and reads every pipe.
//!
//! It sleeps until something happens: there is no periodic wake-up. Of what happened at once it handles the ends of
//! processes first and then reads each readable pipe once, so that one who writes without pause delays nobody.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;

use crate::os::contain::LastPid;
use crate::os::kernel::{self, Observed, Zombie};
use crate::os::output::{DRAIN_IDLE, Drain, HeadTail, LineSplitter};
use crate::os::real::{Shared, contained};
use crate::os::reap::{Settling, Telling};
use crate::os::sign::{self, Beacon, Ear, PARTIAL_PAUSE};
use crate::os::spawn::Pool;
use crate::os::table::{Handle, Phase, lock};
use crate::os::{
    Captured, ChunkSink, Drained, Flow, Kept, Line, LineSink, News, Observer, Output, Stream,
};
use crate::policy::exit::Exit;
use crate::policy::signal::Signal;
use crate::policy::spec::{ChildName, RunId};
use crate::policy::time::Moment;

const SCRATCH_BYTES: usize = 64 * 1024;
const BATCH: usize = 256;
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
enum Chunk {
    Some,
    Nothing,
    Eof,
}

impl Io {
    fn is_captured(&self) -> bool {
        matches!(self.readers[0].keep, Keep::Bytes(_))
    }

    fn is_at_eof(&self) -> bool {
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

/// Of what was not counted nothing is known.
fn has_risen(before: Option<u64>, after: Option<u64>) -> bool {
    before
        .zip(after)
        .is_some_and(|(before, after)| after > before)
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
        // It fails only when the counter is full, and then it is awake.
        rustix::io::write(&self.wake, &1_u64.to_ne_bytes()).ok();
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
    last_pid: LastPid,
}

impl Watcher {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            scratch: vec![0; SCRATCH_BYTES].into(),
            due: BinaryHeap::new(),
            last_pid: LastPid::new(),
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
        let shared = Arc::clone(&self.shared);
        let Some((slot, mut state)) = shared.table.get(handle) else {
            return;
        };
        match state.phase {
            Phase::Born => {
                state.ended_early = true;
                return;
            }
            Phase::Running => {}
            Phase::Free | Phase::Waiting | Phase::Cloning | Phase::Over => return,
        }
        let pidfd = slot.pidfd.load(Ordering::Acquire);
        if pidfd < 0 {
            return;
        }
        let observed = match kernel::observe(pidfd, Zombie::Keep) {
            Ok(Some(observed)) => Some(observed),
            Ok(None) => {
                let at = shared.clock.now() + TRACED_PAUSE;
                self.due.push(Reverse((at, Due::Ended(handle))));
                return;
            }
            // Somebody else has reaped it; its ids may be another's already.
            Err(_) => None,
        };
        let Some(job) = state.job.take() else {
            return;
        };
        let pid = slot.pid.load(Ordering::Acquire);
        let captures = matches!(job.output, Output::Capture { .. });
        let telling = match (state.abandoned, state.asked, captures) {
            (true, _, _) => Telling::Abandoned,
            (false, false, false) => Telling::Already,
            _ => Telling::Ended,
        };
        let asked = state.asked;
        if telling == Telling::Already && observed.is_some() {
            drop(kernel::signal_group(pid, Signal::KILL.number()));
        }
        let io = state.io.take();
        let (born, kills_before) = (state.born, state.oom_kills);
        drop(state);
        let settling = Settling {
            handle,
            pid,
            born,
            observed: observed.unwrap_or(Observed {
                exit: Exit::Lost,
                cpu: Duration::ZERO,
                max_rss: 0,
            }),
            asked,
            oom: has_risen(kills_before, shared.oom_kills(job.run)),
            lost: observed.is_none(),
            job,
            telling,
            captured: None,
        };
        self.leader_ended(settling, io, captures);
    }

    fn leader_ended(&mut self, settling: Settling, mut io: Option<Box<Io>>, captures: bool) {
        let handle = settling.handle;
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
                    self.settle(settling);
                }
                self.due
                    .push(Reverse((now + DRAIN_IDLE, Due::Drain(handle))));
            }
            None => self.settle(settling),
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
        let mut now = Moment::ZERO;
        if io.drain.is_some() || io.ear.is_some() || io.is_captured() {
            now = self.shared.clock.now();
        }
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
        if io.is_captured() {
            io.last_output = Some(now);
            let is_paused = io.readers.iter().any(|reader| reader.paused);
            let heard = (!is_paused).then_some(now);
            self.shared.table.slot(handle).heard(heard);
        }
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
                self.settle(*settling);
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

    /// Sweeps, reaps and tells: here if it is certain that nobody is left, otherwise in the thread for that.
    fn settle(&self, settling: Settling) {
        let age = self.shared.clock.now().since(settling.born);
        if settling.lost || self.last_pid.nobody_left(settling.pid, age) {
            settling.conclude(&self.shared, Vec::new(), Vec::new());
        } else {
            Shared::sweep_later(&self.shared, settling);
        }
    }
}
