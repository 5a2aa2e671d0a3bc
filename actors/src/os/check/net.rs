//! The thread that asks over the network.
//!
//! It begins with the first check, asks all of them at once with sockets that never block, and ends when there was none for
//! a while. So nothing is there while nobody probes, and the async runtime of the host needs no driver for sockets.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};

use crate::os::check::head::{self, HEAD_MAX};
use crate::os::check::lookup::{self, Found, Lookups};
use crate::os::check::{CheckFailure, Question, Target, Tell};
use crate::os::real::contained;
use crate::os::table::lock;
use crate::os::thread;

/// How long the thread waits for the next check before it ends; longer than most intervals.
const IDLE: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};
const BATCH: usize = 64;
const CHUNK_BYTES: usize = 4 * 1024;
/// What an event carries that is about no check.
const WAKE: u64 = u64::MAX;

/// How others reach the thread, if there is one.
#[derive(Default)]
pub(in crate::os) struct Net(Mutex<State>);

#[derive(Default)]
struct State {
    /// Bounded by the probes that there are: each has one check at a time, and gives up one before it begins another.
    orders: Vec<Order>,
    /// Wakes the thread; none if there is no thread.
    wake: Option<Arc<OwnedFd>>,
    is_closing: bool,
    next: u64,
}

enum Order {
    Begin {
        check: u64,
        question: Question,
        tell: Tell,
    },
    Cancel(u64),
    Found {
        host: String,
        found: Found,
    },
}

/// A check that somebody waits for. Dropped, it is given up.
struct Asked {
    net: Arc<Net>,
    check: u64,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.net.order(Order::Cancel(self.check));
    }
}

impl Net {
    /// Asks; dropping what is returned gives it up.
    pub(in crate::os) fn ask(self: &Arc<Self>, question: Question, tell: Tell) -> Box<dyn Send> {
        let mut state = lock(&self.0);
        let check = state.next;
        state.next += 1;
        state.orders.push(Order::Begin {
            check,
            question,
            tell,
        });
        let started = match &state.wake {
            Some(wake) => {
                wake_up(wake);
                Ok(())
            }
            None => self.start(&mut state),
        };
        let refused = match started {
            Ok(()) => Vec::new(),
            Err(_) => mem::take(&mut state.orders),
        };
        drop(state);
        if let Err(source) = started {
            refuse(refused, &source);
        }
        Box::new(Asked {
            net: Arc::clone(self),
            check,
        })
    }

    /// Ends the thread, and with it every check, unanswered.
    pub(in crate::os) fn close(&self) {
        let mut state = lock(&self.0);
        state.is_closing = true;
        if let Some(wake) = &state.wake {
            wake_up(wake);
        }
    }

    fn start(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let asker = Asker::new(Arc::clone(self))?;
        let wake = Arc::clone(&asker.wake);
        thread::start("kimi-check", move || asker.run())?;
        state.wake = Some(wake);
        Ok(())
    }

    /// For the thread; without one there is nothing that this could be about.
    fn order(&self, order: Order) {
        let mut state = lock(&self.0);
        if let Some(wake) = &state.wake {
            wake_up(wake);
            state.orders.push(order);
        }
    }

    /// What was ordered; `None`: the thread is not needed any more.
    fn take(&self, has_work: bool) -> Option<Vec<Order>> {
        let mut state = lock(&self.0);
        if state.is_closing || (!has_work && state.orders.is_empty()) {
            state.wake = None;
            state.orders.clear();
            return None;
        }
        Some(mem::take(&mut state.orders))
    }
}

fn wake_up(wake: &OwnedFd) {
    // It fails only when the counter is full, and then the thread is awake.
    rustix::io::write(wake, &1_u64.to_ne_bytes()).ok();
}

fn refuse(orders: Vec<Order>, source: &io::Error) {
    for order in orders {
        if let Order::Begin { tell, .. } = order {
            let source = io::Error::new(source.kind(), source.to_string());
            contained(|| {
                tell(Err(CheckFailure::System {
                    step: "start the thread that asks over the network",
                    source,
                }));
            });
        }
    }
}

/// What the thread keeps.
struct Asker {
    net: Arc<Net>,
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    checks: HashMap<u64, Check>,
    lookups: Lookups,
}

/// A check under way.
struct Check {
    question: Question,
    tell: Tell,
    stage: Stage,
    /// Addresses that were not tried, the next one last.
    left: Vec<SocketAddr>,
    /// Why the first one that was tried did not do.
    failure: Option<CheckFailure>,
}

enum Stage {
    Resolving,
    Connecting(TcpStream, SocketAddr),
    Sending {
        stream: TcpStream,
        at: SocketAddr,
        request: Vec<u8>,
        sent: usize,
    },
    Reading {
        stream: TcpStream,
        at: SocketAddr,
        answer: Vec<u8>,
    },
}

/// What is to become of a check.
enum Next {
    Wait(EventFlags),
    Elsewhere(CheckFailure),
    Done(Result<(), CheckFailure>),
}

impl Asker {
    fn new(net: Arc<Net>) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        Ok(Self {
            net,
            epoll,
            wake: Arc::new(wake),
            checks: HashMap::new(),
            lookups: Lookups::default(),
        })
    }

    fn run(mut self) {
        let mut events = Vec::with_capacity(BATCH);
        let mut has_work = true;
        while let Some(orders) = self.net.take(has_work) {
            for order in orders {
                self.obey(order);
            }
            events.clear();
            let timeout = self.checks.is_empty().then_some(&IDLE);
            let waited = epoll::wait(&self.epoll, spare_capacity(&mut events), timeout);
            for event in &events {
                match { event.data }.u64() {
                    WAKE => {
                        rustix::io::read(&self.wake, &mut [0; 8]).ok();
                    }
                    check => self.advance(check),
                }
            }
            // Interrupted, it has not waited long enough to know.
            has_work = waited.is_err() || !events.is_empty() || !self.checks.is_empty();
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Begin {
                check,
                question,
                tell,
            } => self.begin(check, question, tell),
            // With the socket goes what epoll knew of it.
            Order::Cancel(check) => drop(self.checks.remove(&check)),
            Order::Found { host, found } => self.found(&host, &found),
        }
        let Self {
            lookups,
            checks,
            net,
            ..
        } = self;
        let is_wanted = |host: &str| checks.values().any(|check| check.waits_for(host));
        let net = Arc::clone(net);
        lookups.start(is_wanted, move |host, found| {
            net.order(Order::Found { host, found });
        });
    }

    fn begin(&mut self, check: u64, question: Question, tell: Tell) {
        let Some(target) = target(&question) else {
            return;
        };
        let known = lookup::known(&target.host);
        if known.is_none() {
            self.lookups.want(&target.host);
        }
        let begun = Check {
            question,
            tell,
            stage: Stage::Resolving,
            left: Vec::new(),
            failure: None,
        };
        self.checks.insert(check, begun);
        if let Some(addresses) = known {
            self.connect(check, &addresses);
        }
    }

    fn found(&mut self, host: &str, found: &Found) {
        self.lookups.done(host);
        let waiting: Vec<u64> = self
            .checks
            .iter()
            .filter(|(_, check)| check.waits_for(host))
            .map(|(check, _)| *check)
            .collect();
        for check in waiting {
            match found {
                Ok(addresses) => self.connect(check, addresses),
                Err(error) => {
                    let failure = CheckFailure::NoAddress {
                        host: host.to_owned(),
                        source: Some(io::Error::new(error.kind(), error.to_string())),
                    };
                    self.finish(check, Err(failure));
                }
            }
        }
    }

    fn connect(&mut self, check: u64, addresses: &[IpAddr]) {
        let Some(begun) = self.checks.get_mut(&check) else {
            return;
        };
        let Some(target) = target(&begun.question) else {
            return;
        };
        let at = |address: &IpAddr| SocketAddr::new(*address, target.port);
        begun.left = addresses.iter().rev().map(at).collect();
        self.try_next_address(check);
    }

    fn try_next_address(&mut self, check: u64) {
        loop {
            let Some(begun) = self.checks.get_mut(&check) else {
                return;
            };
            let Some(at) = begun.left.pop() else {
                let failure = begun.failure.take().unwrap_or_else(|| begun.no_address());
                self.finish(check, Err(failure));
                return;
            };
            match self.try_address(check, at) {
                Ok(()) => return,
                Err(source) => self.note(check, explain(at, source)),
            }
        }
    }

    /// The first address is the one that people expect to be told of.
    fn note(&mut self, check: u64, failure: CheckFailure) {
        if let Some(begun) = self.checks.get_mut(&check) {
            begun.failure.get_or_insert(failure);
        }
    }

    fn try_address(&mut self, check: u64, at: SocketAddr) -> io::Result<()> {
        let family = match at {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let socket = rustix::net::socket_with(
            family,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(ipproto::TCP),
        )?;
        match rustix::net::connect(&socket, &at) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let data = EventData::new_u64(check);
        epoll::add(&self.epoll, &socket, data, EventFlags::OUT)?;
        if let Some(begun) = self.checks.get_mut(&check) {
            begun.stage = Stage::Connecting(socket.into(), at);
        }
        Ok(())
    }

    /// Something happened to the check's socket.
    fn advance(&mut self, check: u64) {
        let Some(begun) = self.checks.get_mut(&check) else {
            return;
        };
        match begun.advance() {
            Next::Wait(flags) => {
                let stream = begun.stage.stream();
                let data = EventData::new_u64(check);
                let modified = stream.map(|stream| epoll::modify(&self.epoll, stream, data, flags));
                if let Some(Err(error)) = modified {
                    let failure = CheckFailure::System {
                        step: "watch a connection",
                        source: error.into(),
                    };
                    self.finish(check, Err(failure));
                }
            }
            Next::Elsewhere(failure) => {
                begun.stage = Stage::Resolving;
                self.note(check, failure);
                self.try_next_address(check);
            }
            Next::Done(result) => self.finish(check, result),
        }
    }

    fn finish(&mut self, check: u64, result: Result<(), CheckFailure>) {
        if let Some(begun) = self.checks.remove(&check) {
            let tell = begun.tell;
            contained(|| tell(result));
        }
    }
}

fn target(question: &Question) -> Option<&Target> {
    match question {
        Question::Tcp(target) | Question::Http { target, .. } => Some(target),
        Question::Exec(_) => None,
    }
}

fn explain(at: SocketAddr, source: io::Error) -> CheckFailure {
    if source.kind() == ErrorKind::ConnectionRefused {
        CheckFailure::Refused { at }
    } else {
        CheckFailure::Unreachable { at, source }
    }
}

impl Stage {
    fn stream(&self) -> Option<&TcpStream> {
        match self {
            Self::Resolving => None,
            Self::Connecting(stream, _)
            | Self::Sending { stream, .. }
            | Self::Reading { stream, .. } => Some(stream),
        }
    }
}

impl Check {
    fn waits_for(&self, host: &str) -> bool {
        matches!(self.stage, Stage::Resolving)
            && target(&self.question).is_some_and(|target| target.host == host)
    }

    fn no_address(&self) -> CheckFailure {
        let host = target(&self.question).map_or_else(String::new, |target| target.host.clone());
        CheckFailure::NoAddress { host, source: None }
    }

    /// As far as it goes without waiting.
    fn advance(&mut self) -> Next {
        loop {
            let (stage, next) = mem::replace(&mut self.stage, Stage::Resolving).advance(self);
            self.stage = stage;
            if let Some(next) = next {
                return next;
            }
        }
    }
}

impl Stage {
    /// One step. No next: there is another one at once.
    fn advance(self, check: &Check) -> (Self, Option<Next>) {
        match self {
            Self::Resolving => (self, Some(Next::Wait(EventFlags::empty()))),
            Self::Connecting(stream, at) => connected(stream, at, &check.question),
            Self::Sending {
                stream,
                at,
                request,
                sent,
            } => send(stream, at, request, sent),
            Self::Reading { stream, at, answer } => read(stream, at, answer),
        }
    }
}

fn connected(stream: TcpStream, at: SocketAddr, question: &Question) -> (Stage, Option<Next>) {
    let error = match stream.take_error() {
        Ok(None) => None,
        Ok(Some(error)) | Err(error) => Some(error),
    };
    // Where nobody listens on a port from which connections begin, one may come to be connected with itself.
    let is_own = || stream.local_addr().is_ok_and(|own| own == at);
    let failure = match error {
        Some(source) => Some(explain(at, source)),
        None if is_own() => Some(CheckFailure::Refused { at }),
        None => None,
    };
    match (failure, question) {
        (Some(failure), _) => (Stage::Resolving, Some(Next::Elsewhere(failure))),
        (None, Question::Http { target, path }) => {
            let request = head::request(target, path);
            let sending = Stage::Sending {
                stream,
                at,
                request,
                sent: 0,
            };
            (sending, None)
        }
        (None, Question::Tcp(_) | Question::Exec(_)) => {
            (Stage::Resolving, Some(Next::Done(Ok(()))))
        }
    }
}

fn send(
    mut stream: TcpStream,
    at: SocketAddr,
    request: Vec<u8>,
    mut sent: usize,
) -> (Stage, Option<Next>) {
    let next = match stream.write(&request[sent..]) {
        Ok(length) => {
            sent += length;
            None
        }
        Err(error) if is_later(&error) => Some(Next::Wait(EventFlags::OUT)),
        // It may have answered before it closed: a status that came too early tells more than the lost connection.
        Err(_) => {
            sent = request.len();
            None
        }
    };
    let stage = if sent < request.len() {
        Stage::Sending {
            stream,
            at,
            request,
            sent,
        }
    } else {
        Stage::Reading {
            stream,
            at,
            answer: Vec::new(),
        }
    };
    (stage, next)
}

/// One chunk at a time, so that a server that sends without pause delays no other check.
fn read(mut stream: TcpStream, at: SocketAddr, mut answer: Vec<u8>) -> (Stage, Option<Next>) {
    let mut chunk = [0; CHUNK_BYTES];
    let room = CHUNK_BYTES.min(HEAD_MAX - answer.len());
    let next = match stream.read(&mut chunk[..room]) {
        Ok(0) => Next::Done(Err(CheckFailure::Closed { at })),
        Ok(length) => {
            answer.extend_from_slice(&chunk[..length]);
            head::judge(&answer).map_or(Next::Wait(EventFlags::IN), Next::Done)
        }
        Err(error) if is_later(&error) => Next::Wait(EventFlags::IN),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {
            Next::Done(Err(CheckFailure::Closed { at }))
        }
        Err(source) => Next::Done(Err(CheckFailure::Unreachable { at, source })),
    };
    (Stage::Reading { stream, at, answer }, Some(next))
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
