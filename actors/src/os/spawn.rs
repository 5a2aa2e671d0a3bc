//! The threads that start processes.
//!
//! Whoever starts a process waits in the kernel until its program runs, which a hanging file system can delay for ever. So
//! a few threads of this module's own do it. One that is held up for a second is replaced, up to a bound.

use std::ffi::{CString, OsStr, OsString, c_char};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{DupFlags, Errno, FdFlags};
use rustix::pipe::PipeFlags;
use rustix::thread::{NanosleepRelativeResult, Timespec};

use crate::os::clone::{self, Extra, Files, Parts, Plan, Stack};
use crate::os::contain::{Leaf, Place};
use crate::os::launch::{Program, Stage};
use crate::os::linger::{Company, Kept};
use crate::os::output::{HeadTail, LineSplitter};
use crate::os::queue::Queue;
use crate::os::real::{RealOsOptions, Shared, contained};
use crate::os::shim::{self, Handover, Outcome, Telling};
use crate::os::sign::{Beacon, BeaconEnd, Ear, Listen, Sign};
use crate::os::stdin::{Stdin, above_stdio};
use crate::os::table::{Handle, Phase, lock};
use crate::os::watch::{Io, Keep, Order, Reader};
use crate::os::{
    News, Output, Rank, SpawnError, StartPath, is_exhaustion, kernel, ledger, means, tee, thread,
    validate,
};
use crate::policy::setup::{self, Action, Controllers, Examined, Identity};
use crate::policy::signal::Signal;
use crate::policy::spec::{BaseEnv, CommandSpec, RunId};
use crate::policy::time::Moment;

/// More do not help: the kernel takes turns at making processes.
const MAX_SERVING: usize = 4;
/// Threads for each processor: while one waits for its child, another has something to do.
const EACH: usize = 2;
/// How many may be held up before nobody takes their place any more.
const MAX_STUCK: usize = 16;
/// After this long a thread counts as held up.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// How often a program that is still being written is tried again, and how long that waits.
const BUSY_RETRIES: u32 = 3;
const BUSY_PAUSE_NANOSECONDS: i64 = 50_000_000;
/// How old the known set of ignored signals may be.
const IGNORED_AGE: Duration = Duration::from_secs(1);
/// Larger blocks of arguments are given back after use.
const BLOCK_BYTES: usize = 256 * 1024;
/// Where `sd_notify(3)` finds its socket. Ours is our own: a child that is not listened to must not speak for us.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// The jobs that wait, and who serves them.
pub(super) struct Pool {
    state: Mutex<PoolState>,
    wake: Condvar,
    base: usize,
    dev_null: OwnedFd,
    can_share: bool,
    child_nofile: Option<u64>,
    /// Ours, as it was when the runtime began; to copy it for each child would take as long as all else together.
    environment: Vec<(OsString, OsString)>,
    controllers: Controllers,
    /// What is done for a child that asks for nothing.
    unasked: Option<Action>,
    /// This program as the exec shim.
    itself: Option<OwnedFd>,
}

struct PoolState {
    /// Bounded by the slots of the table.
    queue: Queue<Handle>,
    workers: [Worker; MAX_SERVING + MAX_STUCK],
    idle: usize,
    /// Threads that are not held up.
    serving: usize,
    check_is_due: bool,
    closing: bool,
    spare: Vec<Berth>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worker {
    Absent,
    Idle,
    Busy(Moment),
    Stuck,
}

/// Two low descriptor numbers kept occupied, so that a child's outputs can be put there however many are open.
struct Berth {
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Berth {
    fn new(dev_null: &OwnedFd) -> io::Result<Self> {
        Ok(Self {
            stdout: rustix::io::fcntl_dupfd_cloexec(dev_null, 3)?,
            stderr: rustix::io::fcntl_dupfd_cloexec(dev_null, 3)?,
        })
    }
}

impl Pool {
    pub(super) fn new(options: &RealOsOptions, controllers: Controllers) -> io::Result<Self> {
        let dev_null = rustix::fs::open(
            "/dev/null",
            OFlags::RDWR | OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        let dev_null = above_stdio(dev_null)?;
        let base = std::thread::available_parallelism()
            .map_or(1, std::num::NonZero::get)
            .saturating_mul(EACH)
            .min(MAX_SERVING);
        let spare = (0..base)
            .map(|_| Berth::new(&dev_null))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            state: Mutex::new(PoolState {
                queue: Queue::new(),
                workers: [Worker::Absent; MAX_SERVING + MAX_STUCK],
                idle: 0,
                serving: 0,
                check_is_due: false,
                closing: false,
                spare,
            }),
            wake: Condvar::new(),
            base,
            dev_null,
            can_share: kernel::has_close_range(),
            child_nofile: options.child_nofile,
            environment: std::env::vars_os()
                .filter(|(name, _)| name != NOTIFY_SOCKET)
                .collect(),
            controllers,
            unasked: setup::unasked(means::own_oom_score_adj()),
            itself: shim::pin()?,
        })
    }

    /// Queues a run; starts a thread for it if none is free and there may be more.
    pub(super) fn push(shared: &Arc<Shared>, handle: Handle, rank: Rank) {
        let pool = &shared.pool;
        let mut state = lock(&pool.state);
        state.queue.push(rank, handle);
        if state.queue.len() <= state.idle {
            drop(state);
            pool.wake.notify_one();
            return;
        }
        let may_start = state.serving < pool.base;
        drop(state);
        // Without a new thread those that exist serve it; should they be held up, it is tried again.
        if may_start && Self::start_worker(shared).is_ok() {
            return;
        }
        let was_due = mem::replace(&mut lock(&pool.state).check_is_due, true);
        if !was_due {
            let at = shared.clock.now() + STUCK_AFTER;
            shared.watch.order(Order::CheckSpawners(at));
        }
    }

    /// Starts one more thread.
    pub(super) fn start_worker(shared: &Arc<Shared>) -> io::Result<()> {
        let mut state = lock(&shared.pool.state);
        let Some(place) = state.workers.iter().position(|w| *w == Worker::Absent) else {
            return Ok(());
        };
        state.workers[place] = Worker::Busy(shared.clock.now());
        state.serving += 1;
        drop(state);
        let theirs = Arc::clone(shared);
        let started = Bench::new(&shared.pool)
            .and_then(|bench| thread::start("kimi-spawn", move || work(&theirs, place, bench)));
        if started.is_err() {
            let mut state = lock(&shared.pool.state);
            state.workers[place] = Worker::Absent;
            state.serving -= 1;
        }
        started
    }

    /// Replaces who is held up while others wait; returns when to look again.
    pub(super) fn check(shared: &Arc<Shared>, now: Moment) -> Option<Moment> {
        // Whoever was to do that may be held up now.
        Shared::settle_all(shared);
        let mut state = lock(&shared.pool.state);
        if state.queue.is_empty() && !shared.over.is_some() {
            state.check_is_due = false;
            return None;
        }
        let mut next = now + STUCK_AFTER;
        for place in 0..state.workers.len() {
            match state.workers[place] {
                Worker::Busy(since) if now.since(since) >= STUCK_AFTER => {
                    state.workers[place] = Worker::Stuck;
                    state.serving -= 1;
                }
                Worker::Busy(since) => next = next.min(since + STUCK_AFTER),
                Worker::Absent | Worker::Idle | Worker::Stuck => {}
            }
        }
        // Also those whose start failed the last time.
        let missing = shared.pool.base.saturating_sub(state.serving);
        drop(state);
        for _ in 0..missing {
            drop(Self::start_worker(shared));
        }
        Some(next)
    }

    /// Lets the threads end once nothing waits.
    pub(super) fn close(&self) {
        lock(&self.state).closing = true;
        self.wake.notify_all();
    }

    /// Waits for the next run; `None`: this thread is not needed any more.
    ///
    /// One on whose life that of children hangs is needed until the end of the runtime, which takes these with it.
    fn next(&self, place: usize, shared: &Arc<Shared>, bench: &mut Bench) -> Option<Handle> {
        let (hold, company) = (bench.hold, &mut bench.company);
        let mut state = lock(&self.state);
        if state.workers[place] == Worker::Stuck {
            if state.serving >= self.base && hold == Hold::Free {
                state.workers[place] = Worker::Absent;
                drop(state);
                Shared::settle_all(shared);
                return None;
            }
            state.serving += 1;
        }
        state.workers[place] = Worker::Idle;
        state.idle += 1;
        loop {
            if let Some(handle) = state.queue.pop() {
                state.idle -= 1;
                state.workers[place] = Worker::Busy(shared.clock.now());
                let others_wait = !state.queue.is_empty();
                drop(state);
                company.seat(place, others_wait);
                return Some(handle);
            }
            if shared.over.is_some() {
                // Whoever is told may well push what is next.
                drop(state);
                Shared::settle_all(shared);
                state = lock(&self.state);
                continue;
            }
            if state.closing {
                state.idle -= 1;
                state.serving -= 1;
                state.workers[place] = Worker::Absent;
                return None;
            }
            company.rise();
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether somebody waits for a thread.
    pub(super) fn others_wait(&self) -> bool {
        !lock(&self.state).queue.is_empty()
    }

    /// Whether one waits that must not be kept waiting by commands.
    pub(super) fn is_urgent(&self) -> bool {
        lock(&self.state).queue.is_urgent()
    }

    fn give_back(&self, berth: Berth) {
        let mut state = lock(&self.state);
        if state.spare.len() < self.base {
            state.spare.push(berth);
        }
    }
}

/// Whether a thread may end.
///
/// A process that is to die with its supervisor dies with the very thread that made it (`PR_SET_PDEATHSIG` in prctl(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Free,
    /// It has made one that is to die with the supervisor.
    Held,
}

/// What one thread needs to start processes, kept from one to the next.
struct Bench {
    stack: Stack,
    berth: Berth,
    hold: Hold,
    ignored: u64,
    ignored_at: Option<Moment>,
    company: Company,
}

// The stack is used by the children of one thread at a time; it moves to that thread before the first.
impl Bench {
    fn new(pool: &Pool) -> io::Result<Self> {
        let spare = lock(&pool.state).spare.pop();
        let berth = match spare {
            Some(berth) => berth,
            None => Berth::new(&pool.dev_null)?,
        };
        Ok(Self {
            stack: Stack::new()?,
            berth,
            hold: Hold::Free,
            ignored: 0,
            ignored_at: None,
            company: Company::new(),
        })
    }

    /// The signals that we ignore. Asking takes a system call for each signal, so a recent answer is used again.
    fn ignored(&mut self, now: Moment) -> u64 {
        if self
            .ignored_at
            .is_none_or(|at| now.since(at) >= IGNORED_AGE)
        {
            self.ignored = kernel::ignored_signals();
            self.ignored_at = Some(now);
        }
        self.ignored
    }
}

fn work(shared: &Arc<Shared>, place: usize, mut bench: Bench) {
    kernel::unblock_child_signal();
    let mut argv = Block::default();
    let mut envp = Block::default();
    while let Some(handle) = shared.pool.next(place, shared, &mut bench) {
        let mut begun = 0;
        loop {
            let result = begin(shared, &mut bench, (&mut argv, &mut envp), handle);
            let Err(error) = result else {
                break;
            };
            if begun < BUSY_RETRIES && is_busy(&error) {
                begun += 1;
                Shared::settle_all(shared);
                pause();
            } else {
                shared.refuse(handle, error);
                Shared::settle_all(shared);
                break;
            }
        }
        argv.trim();
        envp.trim();
    }
    shared.pool.give_back(bench.berth);
}

fn is_busy(error: &SpawnError) -> bool {
    matches!(error, SpawnError::System { source, .. } if source.raw_os_error() == Some(libc::ETXTBSY))
}

fn pause() {
    let mut left = Timespec {
        tv_sec: 0,
        tv_nsec: BUSY_PAUSE_NANOSECONDS,
    };
    while let NanosleepRelativeResult::Interrupted(rest) = rustix::thread::nanosleep(&left) {
        left = rest;
    }
}

/// Starts the run's process. An error means that none is left of the attempt.
fn begin(
    shared: &Arc<Shared>,
    bench: &mut Bench,
    (argv, envp): (&mut Block, &mut Block),
    handle: Handle,
) -> Result<(), SpawnError> {
    let Some(ToStart {
        run,
        command,
        stdin,
        output,
        listen,
    }) = shared.job_of(handle)
    else {
        return Ok(());
    };
    let prepared = shared.pool.prepare(&command)?;
    let path = validate::locate(&command)?;
    let program = validate::terminated(path.clone(), "the program")?;
    fill_arguments(argv, &command)?;
    let mut wires = Wires::new(shared, run, listen)?;
    let mark = shared.container.marked(run);
    fill_environment(
        envp,
        &shared.pool.environment,
        &command,
        wires.socket.as_deref(),
        &mark,
    )?;
    let directory = command
        .cwd
        .clone()
        .map(|cwd| validate::terminated(cwd, "the working directory"))
        .transpose()?;
    let telling = Telling {
        path: &program,
        directory: directory.as_deref(),
        argv: &argv.bytes,
        envp: &envp.bytes,
        actions: &prepared.actions,
        groups: prepared.groups(),
        parent: prepared.parent,
    };
    let extra = wires.extra();
    let shim = shared.pool.shim(&prepared, telling, extra)?;
    let pipes = Pipes::new(
        &stdin,
        &output,
        &mut wires.ear,
        &shared.pool,
        &mut bench.berth,
    )?;
    let ignored = bench.ignored(shared.clock.now());
    if prepared.actions.contains(&Action::DieWithParent) {
        bench.hold = Hold::Held;
    }
    let mut place = match shared.container.place(&prepared.limits) {
        Ok(place) => place,
        Err(source) => {
            pipes.abandon(&shared.pool, &mut bench.berth);
            let step = "make a control group";
            return Err(SpawnError::System { step, source });
        }
    };
    let (argv_pointers, envp_pointers) = (argv.pointers(), envp.pointers());
    let extras = shim.as_ref().map_or(extra.as_slice(), Handover::extras);
    let words = shim::words();
    let new_plan = |place: Option<&Place>| {
        let direct = Parts {
            program: Program::Path(&program),
            argv: argv_pointers,
            envp: envp_pointers,
            directory: directory.as_deref(),
            stdio: pipes.stdio,
            extras,
            files: files(&shared.pool, &pipes.stdio, extras),
            ignored,
            nofile: shared.pool.child_nofile.map(limit_on_files),
            processors: bench.company.processors(),
            cgroup: place.map(Place::number),
            actions: &prepared.actions,
            parent: prepared.parent,
            mask: 0,
        };
        Plan::new(&match shim {
            None => direct,
            Some(_) => shim::instead(&words, &direct),
        })
    };
    let mut plan = new_plan(place.as_ref());
    if !shared.set_cloning(handle) {
        pipes.abandon(&shared.pool, &mut bench.berth);
        shared.vacate(place);
        return Err(SpawnError::Abandoned);
    }
    let slot = shared.table.slot(handle);
    let since = ledger::Since::now(shared);
    let cloned = loop {
        let cloned = clone::spawn(&mut plan, &bench.stack, &slot.pid, &slot.pidfd);
        let is_refused = |error: &io::Error| !is_exhaustion(error);
        // Linux 6.14 kills at once who is born into a group that was killed once, unless its parent's was as well.
        let is_killed = cloned.is_ok() && !plan.has_begun() && !shared.was_asked(handle);
        let cloned = if is_killed && place.is_some() {
            shared.reap(handle);
            Err(Errno::CANCELED.into())
        } else {
            cloned
        };
        match (cloned, place.take()) {
            (Err(error), Some(refused)) if is_refused(&error) => {
                slot.forget_process();
                match shared.container.another(refused, error) {
                    Ok(another) => place = another,
                    Err(error) => break Err(error),
                }
                plan = new_plan(place.as_ref());
            }
            (cloned, same) => {
                place = same;
                break cloned;
            }
        }
    };
    if cloned.is_ok() {
        ledger::enter(shared, handle, since);
    }
    let readers = pipes.into_readers(&shared.pool, &mut bench.berth);
    wires.given = None;
    if let Err(source) = cloned {
        // The kernel may have written a descriptor there and closed it again.
        slot.forget_process();
        shared.set_waiting(handle);
        shared.vacate(place);
        return Err(SpawnError::System {
            step: "make a process",
            source,
        });
    }
    if let Some(place) = place {
        shared.keep(handle, place.into_leaf());
    }
    let failure = plan.failure();
    let (start_path, outcome) = match shim {
        None => (StartPath::Direct, Outcome::of(failure)),
        Some(shim) => {
            // It may take long to answer.
            Shared::settle_all(shared);
            (StartPath::Shim, shim.outcome(failure))
        }
    };
    let error = match outcome {
        Outcome::Executed => None,
        Outcome::Failed(stage, source) => {
            let place = (path.as_path(), directory.as_ref());
            let size = Size::of(&[argv, envp]);
            Some(explain(&command, place, size, &prepared, stage, source))
        }
        Outcome::NoShim(source) => Some(SpawnError::System {
            step: "execute the exec shim",
            source,
        }),
        Outcome::Vanished if shared.is_doomed(handle) => Some(SpawnError::Abandoned),
        Outcome::Vanished => Some(SpawnError::Vanished),
    };
    if let Some(error) = error {
        shared.discard(handle);
        return Err(error);
    }
    if let Output::Capture {
        chunks: Some(sink), ..
    } = &output
    {
        let shared = Arc::downgrade(shared);
        sink.begin(Box::new(move || {
            if let Some(shared) = shared.upgrade() {
                shared.watch.order(Order::Resume(handle));
            }
        }));
    }
    let io = shared.io(handle, readers, wires, &output);
    Shared::adopt(shared, handle, io, start_path, &mut bench.company)
}

/// Makes a child in this control group that fails to execute anything, and reaps it.
pub(super) fn try_out(cgroup: RawFd) -> io::Result<()> {
    let (pid, pidfd) = (AtomicI32::new(0), AtomicI32::new(-1));
    let nothing = [std::ptr::null()];
    let mut plan = Plan::new(&Parts {
        program: Program::Path(c"/"),
        argv: &nothing,
        envp: &nothing,
        directory: None,
        stdio: [-1; 3],
        extras: &[],
        files: Files::Copy { limit: 0 },
        ignored: 0,
        nofile: None,
        processors: None,
        cgroup: Some(cgroup),
        actions: &[],
        parent: 0,
        mask: 0,
    });
    let stack = Stack::new()?;
    clone::spawn(&mut plan, &stack, &pid, &pidfd)?;
    let pidfd = pidfd.into_inner();
    drop(kernel::wait_and_reap(pidfd));
    kernel::close(pidfd);
    if plan.has_begun() {
        Ok(())
    } else {
        Err(Errno::CANCELED.into())
    }
}

/// The soft limit, within the hard one of now: the child may not raise that.
fn limit_on_files(soft: u64) -> libc::rlimit64 {
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .maximum
        .unwrap_or(libc::RLIM64_INFINITY);
    libc::rlimit64 {
        rlim_cur: soft.min(hard),
        rlim_max: hard,
    }
}

fn files(pool: &Pool, stdio: &[RawFd; 3], extras: &[Extra]) -> Files {
    if pool.can_share {
        let extras = extras.iter().map(|extra| extra.from);
        let needed = stdio.iter().copied().chain(extras);
        let highest = needed.max().unwrap_or(0).max(2);
        Files::Share {
            below: highest.cast_unsigned() + 1,
        }
    } else {
        Files::Copy {
            limit: table_size().unwrap_or(u32::from(u16::MAX)),
        }
    }
}

/// How many descriptors our table has room for. The limit on open files would not do: it may have been lowered since, and
/// closing one by one up to a large one takes minutes.
fn table_size() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let size = status
        .lines()
        .find_map(|line| line.strip_prefix("FDSize:"))?;
    size.trim().parse().ok()
}

fn explain(
    command: &CommandSpec,
    (path, directory): (&Path, Option<&CString>),
    size: Size,
    prepared: &Prepared<'_>,
    stage: Stage,
    source: io::Error,
) -> SpawnError {
    let step = match stage {
        Stage::Action(index) => {
            return SpawnError::Setup {
                step: prepared.describe(index),
                source,
            };
        }
        // That a user has too many processes is found at the execution (execve(2)).
        Stage::Exec if source.raw_os_error() == Some(libc::EAGAIN) => {
            return SpawnError::ProcessLimit {
                user: prepared.user(),
            };
        }
        Stage::Exec if source.raw_os_error() == Some(libc::E2BIG) => {
            return SpawnError::TooLarge {
                bytes: size.bytes,
                longest: size.longest,
            };
        }
        Stage::Exec => return validate::explain(command, path, source),
        Stage::Directory => {
            let path = directory.map_or(&b""[..], |cwd| cwd.as_bytes());
            return SpawnError::Cwd {
                path: OsStr::from_bytes(path).into(),
                source,
            };
        }
        Stage::Session => "make a session",
        Stage::Files => "close the descriptors that it must not have",
        Stage::Stdio => "connect its output",
        Stage::Extra => "open its notification descriptor",
        Stage::Limit => "restore its limit on open files",
        Stage::Signals => "reset its signals",
    };
    SpawnError::System { step, source }
}

/// What is set up in a process, and as whom it runs.
struct Prepared<'a> {
    actions: Vec<Action>,
    identity: Option<&'a Identity>,
    /// With which it may have to die.
    parent: i32,
    /// What its control group sees to.
    limits: Vec<(&'static str, String)>,
}

impl Prepared<'_> {
    fn groups(&self) -> &[u32] {
        self.identity.map_or(&[], |identity| &identity.groups)
    }

    fn describe(&self, index: u32) -> String {
        let action = self.actions.get(index as usize);
        action.map_or_else(String::new, |action| action.describe(self.identity))
    }

    fn user(&self) -> String {
        match self.identity {
            Some(identity) => identity.user_text(),
            None => rustix::process::getuid().to_string(),
        }
    }
}

impl Pool {
    /// What is to be done for a command, if that can be done here.
    fn prepare<'a>(&self, command: &'a CommandSpec) -> Result<Prepared<'a>, SpawnError> {
        let Some(setup) = &command.setup else {
            return Ok(Prepared {
                actions: Vec::from_iter(self.unasked),
                identity: None,
                parent: 0,
                limits: Vec::new(),
            });
        };
        let Examined { actions, unmet, .. } = setup::examine(setup, &means(self.controllers));
        if let Some(unmet) = unmet.into_iter().next() {
            return Err(unmet.into());
        }
        Ok(Prepared {
            actions,
            identity: setup.identity.as_ref(),
            parent: rustix::process::getpid().as_raw_pid(),
            limits: setup::controller_files(&setup.limits, self.controllers),
        })
    }

    /// What takes this program there as somebody else; none: it need not become that.
    fn shim(
        &self,
        prepared: &Prepared<'_>,
        telling: Telling<'_>,
        notify: Option<Extra>,
    ) -> Result<Option<Handover>, SpawnError> {
        if !telling.actions.iter().any(|it| it.changes_identity()) {
            return Ok(None);
        }
        let Some(itself) = &self.itself else {
            return Err(SpawnError::NoShim {
                user: prepared.user(),
            });
        };
        let handover = Handover::new(telling, itself, notify);
        handover.map(Some).map_err(|source| SpawnError::System {
            step: "prepare the exec shim",
            source,
        })
    }
}

/// What is needed to hear a child's sign.
#[derive(Default)]
struct Wires {
    ear: Option<Ear>,
    beacon: Option<Beacon>,
    /// The child's end, and its place there.
    given: Option<(OwnedFd, u32)>,
    /// The path of its socket.
    socket: Option<PathBuf>,
}

impl Wires {
    fn new(shared: &Shared, run: RunId, listen: Option<Listen>) -> Result<Self, SpawnError> {
        let failed = |step| move |source| SpawnError::System { step, source };
        let Some(Listen { sign, listener }) = listen else {
            return Ok(Self::default());
        };
        match sign {
            Sign::Line(pattern) => Ok(Self {
                ear: Some(Ear::new(pattern, listener)),
                ..Self::default()
            }),
            Sign::NotifyFd(to) => {
                let (fd, given) = notify_pipe().map_err(failed("make a pipe"))?;
                let is_heard = false;
                Ok(Self {
                    beacon: Some(Beacon::new(BeaconEnd::Pipe { fd, is_heard }, listener)),
                    given: Some((given, to)),
                    ..Self::default()
                })
            }
            Sign::SdNotify => {
                let socket = shared.sockets.socket(run);
                let socket = socket.map_err(failed("make a notification socket"))?;
                let path = socket.path().to_owned();
                Ok(Self {
                    beacon: Some(Beacon::new(BeaconEnd::Socket(socket), listener)),
                    socket: Some(path),
                    ..Self::default()
                })
            }
        }
    }

    fn extra(&self) -> Option<Extra> {
        self.given.as_ref().map(|(fd, to)| Extra {
            from: fd.as_raw_fd(),
            to: *to,
        })
    }
}

/// Our end, which never blocks, and the child's.
fn notify_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (read, write) = (above_stdio(read)?, above_stdio(write)?);
    fcntl_setfl(&read, OFlags::NONBLOCK)?;
    Ok((read, write))
}

/// A child's ends of its pipes, in their berths, and ours.
struct Pipes {
    stdio: [RawFd; 3],
    readers: [Option<OwnedFd>; 2],
}

impl Pipes {
    /// Takes the ear if it listens to what is passed on: a thread does both.
    fn new(
        from: &Stdin,
        output: &Output,
        ear: &mut Option<Ear>,
        pool: &Pool,
        berth: &mut Berth,
    ) -> Result<Self, SpawnError> {
        let null = pool.dev_null.as_raw_fd();
        let stdin = from.number(null, || inherited(rustix::stdio::stdin(), null));
        match (output, ear.is_some()) {
            (Output::Discard, false) => Ok(Self {
                stdio: [stdin, null, null],
                readers: [None, None],
            }),
            (Output::Inherit, false) => Ok(Self {
                stdio: [
                    stdin,
                    inherited(rustix::stdio::stdout(), null),
                    inherited(rustix::stdio::stderr(), null),
                ],
                readers: [None, None],
            }),
            (Output::Inherit, true) => {
                Self::piped(stdin, pool, berth)?.passed_on(ear.take(), pool, berth)
            }
            (Output::Lines(_) | Output::Capture { .. }, _) | (Output::Discard, true) => {
                Self::piped(stdin, pool, berth)
            }
        }
    }

    fn piped(stdin: RawFd, pool: &Pool, berth: &mut Berth) -> Result<Self, SpawnError> {
        let made = pipe_into(&mut berth.stdout)
            .and_then(|stdout| Ok((stdout, pipe_into(&mut berth.stderr)?)));
        match made {
            Ok((stdout, stderr)) => Ok(Self {
                stdio: [stdin, berth.stdout.as_raw_fd(), berth.stderr.as_raw_fd()],
                readers: [Some(stdout), Some(stderr)],
            }),
            Err(source) => {
                clear(pool, berth);
                Err(SpawnError::System {
                    step: "make a pipe",
                    source,
                })
            }
        }
    }

    /// Hands our ends to a thread, which ends when the child's are closed: also when the child never comes to be.
    fn passed_on(
        mut self,
        ear: Option<Ear>,
        pool: &Pool,
        berth: &mut Berth,
    ) -> Result<Self, SpawnError> {
        let null = pool.dev_null.as_raw_fd();
        let target = |ours| (inherited(ours, null) != null).then_some(ours);
        let targets = [
            target(rustix::stdio::stdout()),
            target(rustix::stdio::stderr()),
        ];
        let readers = mem::take(&mut self.readers);
        let started = ear.map_or(Ok(()), |ear| tee::start(readers, targets, ear));
        started.map(|()| self).map_err(|source| {
            clear(pool, berth);
            SpawnError::System {
                step: "start the thread that passes its output on",
                source,
            }
        })
    }

    /// Closes our copies of the child's ends.
    fn into_readers(self, pool: &Pool, berth: &mut Berth) -> [Option<OwnedFd>; 2] {
        if self.stdio[1] == berth.stdout.as_raw_fd() {
            clear(pool, berth);
        }
        self.readers
    }

    fn abandon(self, pool: &Pool, berth: &mut Berth) {
        drop(self.into_readers(pool, berth));
    }
}

/// −1, so that the child keeps ours; what is closed with us, or has become one of our own files, is replaced, lest the
/// child's first file become its stdout.
fn inherited(ours: rustix::fd::BorrowedFd<'_>, null: RawFd) -> RawFd {
    match rustix::io::fcntl_getfd(ours) {
        Ok(flags) if !flags.contains(FdFlags::CLOEXEC) => -1,
        Ok(_) | Err(_) => null,
    }
}

/// Makes a pipe whose write end is in this berth; returns its read end.
fn pipe_into(berth: &mut OwnedFd) -> io::Result<OwnedFd> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let read = above_stdio(read)?;
    fcntl_setfl(&read, OFlags::NONBLOCK)?;
    rustix::io::dup3(&write, berth, DupFlags::CLOEXEC)?;
    Ok(read)
}

/// Puts `/dev/null` back into the berths. Neither call allocates a descriptor, so neither fails.
fn clear(pool: &Pool, berth: &mut Berth) {
    rustix::io::dup3(&pool.dev_null, &mut berth.stdout, DupFlags::CLOEXEC).ok();
    rustix::io::dup3(&pool.dev_null, &mut berth.stderr, DupFlags::CLOEXEC).ok();
}

/// What is to be started: copies of what the job says, since nobody may hold it meanwhile.
struct ToStart {
    run: RunId,
    command: Arc<CommandSpec>,
    stdin: Stdin,
    output: Output,
    listen: Option<Listen>,
}

impl Shared {
    /// What is to be started, if it is still wanted.
    fn job_of(&self, handle: Handle) -> Option<ToStart> {
        let (_, state) = self.table.get(handle)?;
        let job = state
            .job
            .as_ref()
            .filter(|_| state.phase == Phase::Waiting)?;
        Some(ToStart {
            run: job.run,
            command: Arc::clone(&job.command),
            stdin: job.stdin.clone(),
            output: job.output.clone(),
            listen: job.listen.clone(),
        })
    }

    /// From here on a process may exist.
    fn set_cloning(&self, handle: Handle) -> bool {
        let now = self.clock.now();
        let Some((_, mut state)) = self.table.get(handle) else {
            return false;
        };
        if state.phase != Phase::Waiting || state.doomed || self.is_closing() {
            return false;
        }
        state.phase = Phase::Cloning;
        state.born = now;
        true
    }

    /// Whether it was given up.
    fn is_doomed(&self, handle: Handle) -> bool {
        self.table.get(handle).is_none_or(|(_, state)| state.doomed)
    }

    /// Whether somebody here has sent it a signal, or given it up.
    fn was_asked(&self, handle: Handle) -> bool {
        let state = self.table.get(handle);
        state.is_none_or(|(_, state)| state.asked || state.doomed)
    }

    fn count_oom_kills(&self, handle: Handle) -> Option<u64> {
        self.oom.as_ref()?;
        let (_, state) = self.table.get(handle)?;
        let run = state.job.as_ref()?.run;
        drop(state);
        self.oom_kills(run)
    }

    fn set_waiting(&self, handle: Handle) {
        if let Some((_, mut state)) = self.table.get(handle) {
            state.phase = Phase::Waiting;
        }
    }

    fn vacate(&self, place: Option<Place>) {
        if let Some(place) = place {
            self.container.give_back(place.into_leaf());
        }
    }

    /// Remembers in which control group the process is.
    fn keep(&self, handle: Handle, leaf: Leaf) {
        if let Some((_, mut state)) = self.table.get(handle) {
            state.leaf = Some(leaf);
        }
    }

    /// Reaps a process that is dead or was killed, and that nobody watches.
    fn discard(&self, handle: Handle) {
        self.reap(handle);
        let leaf = self
            .table
            .get(handle)
            .and_then(|(_, mut state)| state.leaf.take());
        if let Some(leaf) = leaf {
            self.container.give_back(leaf);
        }
        self.set_waiting(handle);
    }

    fn reap(&self, handle: Handle) {
        let (_, pidfd) = self.table.slot(handle).forget_process();
        ledger::strike(self, handle);
        if pidfd >= 0 {
            drop(kernel::wait_and_reap(pidfd));
            kernel::close(pidfd);
        }
    }

    /// Stays with a new process for a moment if that is promising; otherwise, or then, hands it to the thread that watches, and
    /// tells that it has started.
    fn adopt(
        shared: &Arc<Self>,
        handle: Handle,
        io: Option<Box<Io>>,
        path: StartPath,
        company: &mut Company,
    ) -> Result<(), SpawnError> {
        let slot = shared.table.slot(handle);
        let pidfd = slot.pidfd.load(Ordering::Acquire);
        let oom_kills = shared.count_oom_kills(handle);
        let Some((_, mut state)) = shared.table.get(handle) else {
            return Ok(());
        };
        state.oom_kills = oom_kills;
        state.phase = Phase::Born;
        state.io_held = io.is_some();
        state.abandoned = state.doomed;
        slot.heard(Some(state.born));
        // The child has its own copy. As long as ours is open, who writes does not learn that it has ended.
        let stdin = state.job.as_mut().map(|job| mem::take(&mut job.stdin));
        let observer = state
            .job
            .as_ref()
            .filter(|_| !state.doomed)
            .map(|job| Arc::clone(&job.observer));
        let pid = slot.pid.load(Ordering::Acquire).cast_unsigned();
        state.deliver(slot);
        drop(state);
        drop(stdin);
        let kept = match path {
            StartPath::Direct => company.keep(shared, handle, io),
            StartPath::Shim => Kept::Not(io),
        };
        let io = match kept {
            Kept::Over(settling) => {
                Self::settle_together(shared, settling);
                return Ok(());
            }
            Kept::Not(io) => io,
        };
        let streams = io.as_ref().map_or([-1; 3], |io| io.raw_streams());
        if let Some((_, mut state)) = shared.table.get(handle) {
            state.io = io;
        }
        if let Err(source) = shared.watch.add(handle, pidfd, streams) {
            shared.withdraw(handle, pidfd);
            return Err(SpawnError::System {
                step: "watch the process",
                source,
            });
        }
        if let Some(observer) = observer {
            contained(|| observer.tell(News::Started { pid, path }));
        }
        shared.announce(handle);
        Ok(())
    }

    fn io(
        &self,
        handle: Handle,
        readers: [Option<OwnedFd>; 2],
        wires: Wires,
        output: &Output,
    ) -> Option<Box<Io>> {
        if wires.beacon.is_none() && readers.iter().all(Option::is_none) {
            return None;
        }
        let (sink, keep): (_, fn(usize) -> Keep) = match output {
            Output::Discard | Output::Inherit => (None, |_| Keep::Lines(LineSplitter::new())),
            Output::Lines(sink) => (Some(Arc::clone(sink)), |_| Keep::Lines(LineSplitter::new())),
            Output::Capture { .. } => (None, |cap| Keep::Bytes(HeadTail::new(cap))),
        };
        let (cap_bytes, chunks) = match output {
            Output::Capture { cap_bytes, chunks } => (*cap_bytes, chunks.clone()),
            Output::Discard | Output::Inherit | Output::Lines(_) => (0, None),
        };
        let (_, state) = self.table.get(handle)?;
        let job = state.job.as_ref()?;
        let (run, child, born) = (job.run, job.child.clone(), state.born);
        let observer = Arc::clone(&job.observer);
        drop(state);
        let readers = readers.map(|fd| Reader {
            fd,
            keep: keep(cap_bytes),
            paused: false,
        });
        Some(Box::new(Io {
            handle,
            run,
            child,
            sink,
            chunks,
            over: Some(observer),
            born,
            last_output: None,
            heedless: false,
            readers,
            ear: wires.ear.map(Box::new),
            beacon: wires.beacon.map(Box::new),
            drain: None,
            ending: None,
        }))
    }

    /// Kills a process that cannot be watched.
    fn withdraw(&self, handle: Handle, pidfd: RawFd) {
        let Some((slot, mut state)) = self.table.get(handle) else {
            return;
        };
        drop(slot.signal(Signal::KILL));
        let io = state.io.take();
        state.io_held = false;
        drop(state);
        self.watch.remove(pidfd);
        if let Some(io) = io {
            self.watch.close(*io);
        }
        self.discard(handle);
    }

    /// Its start was told: lets its end be told.
    fn announce(&self, handle: Handle) {
        let Some((slot, mut state)) = self.table.get(handle) else {
            return;
        };
        state.phase = Phase::Running;
        state.deliver(slot);
        let ended = state.ended_early;
        drop(state);
        if ended {
            self.watch.order(Order::Ended(handle));
        }
    }
}

/// A list of texts as the kernel takes it.
#[derive(Debug, Default)]
struct Block {
    bytes: Vec<u8>,
    starts: Vec<usize>,
    pointers: Vec<*const c_char>,
}

/// How much is passed to a program.
#[derive(Clone, Copy)]
struct Size {
    bytes: usize,
    longest: usize,
}

impl Size {
    fn of(blocks: &[&Block]) -> Self {
        let ends = |block: &Block| {
            let ends = block.starts.iter().skip(1).copied();
            ends.chain([block.bytes.len()]).collect::<Vec<_>>()
        };
        let lengths = blocks.iter().flat_map(|block| {
            let ends = ends(block);
            block
                .starts
                .iter()
                .zip(ends)
                .map(|(start, end)| end - start)
        });
        Self {
            bytes: blocks.iter().map(|block| block.bytes.len()).sum(),
            longest: lengths.max().unwrap_or(0),
        }
    }
}

/// A text contains a NUL byte.
struct HasNul;

impl Block {
    fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
        self.pointers.clear();
    }

    fn push(&mut self, parts: &[&[u8]]) -> Result<(), HasNul> {
        self.starts.push(self.bytes.len());
        for part in parts {
            if part.contains(&0) {
                return Err(HasNul);
            }
            self.bytes.extend_from_slice(part);
        }
        self.bytes.push(0);
        Ok(())
    }

    fn pointers(&mut self) -> &[*const c_char] {
        self.pointers.clear();
        self.pointers.extend(
            self.starts
                .iter()
                .map(|start| self.bytes[*start..].as_ptr().cast()),
        );
        self.pointers.push(std::ptr::null());
        &self.pointers
    }

    fn trim(&mut self) {
        if self.bytes.capacity() > BLOCK_BYTES {
            *self = Self::default();
        }
    }
}

fn fill_arguments(block: &mut Block, command: &CommandSpec) -> Result<(), SpawnError> {
    block.clear();
    std::iter::once(&command.program)
        .chain(&command.args)
        .try_for_each(|argument| block.push(&[argument.as_bytes()]))
        .map_err(|HasNul| SpawnError::Nul {
            what: "an argument",
        })
}

fn fill_environment(
    block: &mut Block,
    ours: &[(OsString, OsString)],
    command: &CommandSpec,
    socket: Option<&Path>,
    (mark, value): &(&str, String),
) -> Result<(), SpawnError> {
    block.clear();
    let is_replaced = |name: &OsStr| name == *mark || (socket.is_some() && name == NOTIFY_SOCKET);
    let result = match command.base_env {
        BaseEnv::Empty => Ok(()),
        base @ (BaseEnv::Inherited | BaseEnv::Minimal) => ours
            .iter()
            .filter(|(name, _)| base.contains(name) && name != mark)
            .filter(|(name, _)| !command.env.iter().any(|(set, _)| set == name))
            .try_for_each(|(name, value)| block.push(&[name.as_bytes(), b"=", value.as_bytes()])),
    };
    result
        .and_then(|()| {
            command
                .env
                .iter()
                .enumerate()
                // The last one of a name wins.
                .filter(|(at, (name, _))| !command.env[at + 1..].iter().any(|(set, _)| set == name))
                .filter(|(_, (name, _))| !is_replaced(name))
                .try_for_each(|(_, (name, value))| {
                    block.push(&[name.as_bytes(), b"=", value.as_bytes()])
                })
        })
        .and_then(|()| block.push(&[mark.as_bytes(), b"=", value.as_bytes()]))
        .and_then(|()| match socket {
            Some(path) => {
                let path = path.as_os_str().as_bytes();
                block.push(&[NOTIFY_SOCKET.as_bytes(), b"=", path])
            }
            None => Ok(()),
        })
        .map_err(|HasNul| SpawnError::Nul {
            what: "the environment",
        })
}
