//! A scripted operating system and fault injection, for this crate's tests and for those of embedders.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::os::check::{CheckFailure, CheckOrder, Errand, Tell};
use crate::os::sign::{Listener, Notice};
use crate::os::{End, Job, News, Observer, Os, Process, SignalError, SpawnError, StartPath};
use crate::policy::exit::Exit;
use crate::policy::signal::Signal;
use crate::policy::spec::{ChildName, RunId};

/// A fault to inject into a running tree.
#[derive(Debug)]
pub enum Fault {
    /// The actor of this child's run panics.
    PanicChild(ChildName),
    /// The actors of the probes of this child's run panic.
    PanicProbe(ChildName),
    /// The actor of this nested supervisor panics.
    PanicSupervisor(ChildName),
    /// The root panics.
    PanicRoot,
    /// The timer actor panics.
    PanicTimer,
    /// The signal actor panics.
    PanicSignals,
    /// The root blocks its thread until something is sent, or the sender is dropped.
    BlockRoot(mpsc::Receiver<()>),
}

/// Which actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActorKind {
    /// The root.
    Root,
    /// That of a nested supervisor.
    Supervisor,
    /// That of a run.
    Child,
    /// That of a probe.
    Probe,
    /// The signal actor.
    Signals,
    /// The timer actor.
    Timer,
}

/// Lets an actor panic at one of its messages, and counts them. It holds for the runtimes of the thread that laid it, so for
/// those of a current-thread async runtime, and as long as it is not dropped.
#[derive(Debug)]
pub struct Tripwire(());

thread_local! {
    static TRIPWIRE: RefCell<Option<Steps>> = const { RefCell::new(None) };
}

#[derive(Debug)]
struct Steps {
    at: Option<(ActorKind, u64)>,
    taken: HashMap<ActorKind, u64>,
}

impl Tripwire {
    /// Counts only.
    pub fn loose() -> Self {
        Self::lay(None)
    }

    /// The actors of this kind together panic once: at this message of theirs, from 0.
    pub fn at(kind: ActorKind, message: u64) -> Self {
        Self::lay(Some((kind, message)))
    }

    fn lay(at: Option<(ActorKind, u64)>) -> Self {
        let steps = Steps {
            at,
            taken: HashMap::new(),
        };
        let former = TRIPWIRE.with(|wire| wire.borrow_mut().replace(steps));
        assert!(former.is_none(), "a thread has one tripwire at a time");
        Self(())
    }

    /// How many messages and ends of others the actors of this kind have been told.
    pub fn steps(&self, kind: ActorKind) -> u64 {
        let Self(()) = self;
        TRIPWIRE.with(|wire| {
            let wire = wire.borrow();
            let taken = wire.as_ref().and_then(|steps| steps.taken.get(&kind));
            taken.copied().unwrap_or_default()
        })
    }
}

impl Drop for Tripwire {
    fn drop(&mut self) {
        TRIPWIRE.with(|wire| wire.borrow_mut().take());
    }
}

/// An actor takes note of a message.
pub(crate) fn step(kind: ActorKind) {
    let trips = TRIPWIRE.with(|wire| {
        let mut wire = wire.borrow_mut();
        let Some(steps) = wire.as_mut() else {
            return false;
        };
        let taken = steps.taken.entry(kind).or_default();
        *taken += 1;
        steps.at == Some((kind, *taken - 1))
    });
    assert!(!trips, "a fault was injected into a message of {kind:?}");
}

/// What was asked of the operating system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To begin a run of this child.
    Begin(ChildName),
    /// To send this child's run a signal.
    Signal(ChildName, Signal),
    /// To kill this child's run.
    Kill(ChildName),
    /// To give up this child's run: whoever held it is gone.
    Abandon(ChildName),
}

/// How the runs of a child behave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Script {
    /// Runs until it is asked to stop, then ends by the signal.
    #[default]
    Obeys,
    /// Ignores every signal but the kill.
    IgnoresSignals,
    /// Ends at once with this.
    Ends(Exit),
    /// Ends after this long.
    EndsAfter(Duration, Exit),
    /// Cannot be started.
    CannotStart,
    /// Hangs in its start until it is killed.
    HangsInStart,
}

/// How a check is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reply {
    /// It passes at once.
    #[default]
    Passes,
    /// It fails at once.
    Fails,
    /// It passes after this long.
    PassesAfter(Duration),
    /// It passes at once if the run began at least this long ago, and fails otherwise.
    PassesFrom(Duration),
    /// It is never answered.
    Hangs,
}

/// A call of the operating system that can come to grief.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// [`Os::begin`].
    Begin,
    /// [`Process::signal`].
    Signal,
    /// [`Process::kill`].
    Kill,
    /// [`Os::when_gone`].
    WhenGone,
    /// [`Os::check`].
    Check,
}

/// What befalls a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// It is refused with this number of an error. A kill cannot be, and of who is gone everybody is told.
    Refused(i32),
    /// Nothing comes of it: a run hangs in its start until it is killed, a signal is not heard, a check is not answered.
    Lost,
    /// What comes of it comes so much later.
    Late(Duration),
}

/// A check that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// When it began.
    pub begun: Instant,
    /// When it was answered or given up; none: it is under way.
    pub over: Option<Instant>,
}

/// An operating system without processes. Runs behave as scripted; time is tokio's, so it may be paused.
#[derive(Clone, Default)]
pub struct FakeOs(Arc<Mutex<Fake>>);

#[derive(Default)]
struct Fake {
    scripts: HashMap<ChildName, Script>,
    asked: Vec<Asked>,
    runs: HashMap<RunId, Run>,
    next_pid: u32,
    /// The last one holds for every check that follows.
    replies: HashMap<(ChildName, Errand), VecDeque<Reply>>,
    checks: HashMap<(ChildName, Errand), Vec<Checked>>,
    calls: Vec<Call>,
    /// The number of the call that comes to grief, from 0.
    mishap: Option<(usize, Mishap)>,
}

struct Run {
    child: ChildName,
    script: Script,
    observer: Arc<dyn Observer>,
    asked: bool,
    is_started: bool,
    begun: Instant,
    last_output: Option<Instant>,
    listener: Option<Arc<dyn Listener>>,
    gone: Vec<Box<dyn FnOnce() + Send>>,
}

impl FakeOs {
    /// Decides how the next runs of a child behave.
    pub fn script(&self, child: &str, script: Script) {
        self.lock().scripts.insert(named(child), script);
    }

    /// Decides how checks of a child are answered, one after another; the last reply holds for all that follow.
    pub fn answer(&self, child: &str, errand: Errand, replies: impl IntoIterator<Item = Reply>) {
        let replies = replies.into_iter().collect();
        self.lock().replies.insert((named(child), errand), replies);
    }

    /// Lets one call come to grief, by its number from 0.
    pub fn spoil(&self, number: usize, mishap: Mishap) {
        self.lock().mishap = Some((number, mishap));
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    fn take_note(&self, call: Call) -> Option<Mishap> {
        let mut fake = self.lock();
        let number = fake.calls.len();
        fake.calls.push(call);
        fake.mishap
            .filter(|(at, _)| *at == number)
            .map(|(_, mishap)| mishap)
    }

    /// Does it after a while.
    fn later(&self, after: Duration, act: impl FnOnce(&Self) + Send + 'static) {
        let fake = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            act(&fake);
        });
    }

    /// The checks that were made of a child.
    pub fn checks(&self, child: &str, errand: Errand) -> Vec<Checked> {
        let checks = &self.lock().checks;
        checks
            .get(&(named(child), errand))
            .cloned()
            .unwrap_or_default()
    }

    /// Lets the live run of a child say something of itself.
    pub fn notify(&self, child: &str, notice: Notice) {
        let listener = self
            .lock()
            .runs
            .values()
            .find(|run| run.child.as_str() == child)
            .and_then(|run| run.listener.clone());
        let listener = listener.expect("a test lets only those speak who are listened to");
        listener.hear(notice);
    }

    /// Lets the live run of a child write something.
    pub fn write(&self, child: &str) {
        let mut fake = self.lock();
        let mut runs = fake.runs.values_mut();
        let run = runs.find(|run| run.child.as_str() == child);
        let run = run.expect("a test lets only those write who run");
        run.last_output = Some(Instant::now());
    }

    fn reply(&self, of: &(ChildName, Errand), run: RunId) -> Reply {
        let mut fake = self.lock();
        let since = fake.runs.get(&run).map(|run| run.begun.elapsed());
        let replies = fake.replies.entry(of.clone()).or_default();
        let first = replies.front().copied().unwrap_or_default();
        if replies.len() > 1 {
            replies.pop_front();
        }
        match first {
            Reply::PassesFrom(from) if since.is_some_and(|since| since >= from) => Reply::Passes,
            Reply::PassesFrom(_) => Reply::Fails,
            Reply::Passes | Reply::Fails | Reply::PassesAfter(_) | Reply::Hangs => first,
        }
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.lock().asked.clone()
    }

    /// Ends the live run of a child from outside.
    pub fn end(&self, child: &str, exit: Exit) {
        let run = self
            .lock()
            .runs
            .iter()
            .find(|(_, run)| run.child.as_str() == child)
            .map(|(id, _)| *id);
        if let Some(run) = run {
            self.finish(run, exit);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Fake> {
        self.0
            .lock()
            .expect("no test panics while it holds the fake")
    }

    fn over(&self, of: &(ChildName, Errand), at: usize) {
        let mut fake = self.lock();
        if let Some(check) = fake
            .checks
            .get_mut(of)
            .and_then(|checks| checks.get_mut(at))
        {
            check.over.get_or_insert_with(Instant::now);
        }
    }

    /// The run has started, unless it was ended before, and behaves as scripted.
    fn enter(&self, run: RunId) {
        let mut fake = self.lock();
        fake.next_pid += 1;
        let pid = fake.next_pid;
        let Some(begun) = fake.runs.get_mut(&run) else {
            return;
        };
        let (script, observer) = (begun.script, Arc::clone(&begun.observer));
        begun.is_started = script != Script::HangsInStart;
        drop(fake);
        match script {
            Script::HangsInStart | Script::CannotStart => {}
            Script::Obeys | Script::IgnoresSignals => observer.tell(News::Started {
                pid,
                path: StartPath::Direct,
            }),
            Script::Ends(exit) => {
                observer.tell(News::Started {
                    pid,
                    path: StartPath::Direct,
                });
                self.finish(run, exit);
            }
            Script::EndsAfter(after, exit) => {
                observer.tell(News::Started {
                    pid,
                    path: StartPath::Direct,
                });
                self.later(after, move |fake| fake.finish(run, exit));
            }
        }
    }

    fn finish(&self, run: RunId, exit: Exit) {
        let Some(ended) = self.lock().runs.remove(&run) else {
            return;
        };
        let news = if ended.is_started {
            News::Ended(Box::new(End {
                exit,
                oom: false,
                asked: ended.asked,
                cpu: Duration::ZERO,
                max_rss: None,
                killed: Vec::new(),
                survivors: Vec::new(),
                captured: None,
            }))
        } else {
            News::NotStarted(SpawnError::Abandoned)
        };
        ended.observer.tell(news);
        ended.gone.into_iter().for_each(|then| then());
    }

    fn act(&self, run: RunId, signal: Signal) {
        let script = self.lock().runs.get_mut(&run).map(|run| {
            run.asked = true;
            (run.script, run.is_started)
        });
        let ends = match script {
            None => false,
            Some((Script::IgnoresSignals | Script::HangsInStart, _) | (_, false)) => {
                signal == Signal::KILL
            }
            Some(_) => signal != Signal::CONT,
        };
        if ends {
            self.finish(
                run,
                Exit::Signal {
                    signal,
                    core: false,
                },
            );
        }
    }
}

/// What a spawn that is refused with this number of an error is told as.
fn refusal(child: &ChildName, number: i32) -> SpawnError {
    if number == libc::ENOENT {
        let program = child.to_string();
        return SpawnError::NotFound { program };
    }
    SpawnError::System {
        step: "make a process",
        source: io::Error::from_raw_os_error(number),
    }
}

impl Os for FakeOs {
    fn begin(&self, job: Job) -> Box<dyn Process> {
        let mishap = self.take_note(Call::Begin);
        let mut fake = self.lock();
        fake.asked.push(Asked::Begin(job.child.clone()));
        let mut script = fake.scripts.get(&job.child).copied().unwrap_or_default();
        let mut refused = (script == Script::CannotStart).then_some(SpawnError::Abandoned);
        match mishap {
            Some(Mishap::Refused(number)) => refused = Some(refusal(&job.child, number)),
            Some(Mishap::Lost) => script = Script::HangsInStart,
            Some(Mishap::Late(_)) | None => {}
        }
        let observer = Arc::clone(&job.observer);
        if refused.is_none() {
            let run = Run {
                child: job.child.clone(),
                script,
                observer: Arc::clone(&observer),
                asked: false,
                is_started: false,
                begun: Instant::now(),
                last_output: None,
                listener: job.listen.map(|listen| listen.listener),
                gone: Vec::new(),
            };
            fake.runs.insert(job.run, run);
        }
        drop(fake);
        let run = job.run;
        match (refused, mishap) {
            (Some(error), _) => observer.tell(News::NotStarted(error)),
            (None, Some(Mishap::Late(after))) => self.later(after, move |fake| fake.enter(run)),
            (None, _) => self.enter(run),
        }
        Box::new(FakeProcess {
            os: self.clone(),
            run: job.run,
            child: job.child,
        })
    }

    fn when_gone(&self, run: RunId, then: Box<dyn FnOnce() + Send>) {
        let then = match self.take_note(Call::WhenGone) {
            Some(Mishap::Late(after)) => {
                let fake = self.clone();
                Box::new(move || fake.later(after, |_| then())) as Box<dyn FnOnce() + Send>
            }
            Some(Mishap::Refused(_) | Mishap::Lost) | None => then,
        };
        let mut fake = self.lock();
        if let Some(run) = fake.runs.get_mut(&run) {
            run.gone.push(then);
        } else {
            drop(fake);
            then();
        }
    }

    fn kill_all(&self) {
        let runs: Vec<RunId> = self.lock().runs.keys().copied().collect();
        for run in runs {
            self.act(run, Signal::KILL);
        }
    }

    fn live(&self) -> usize {
        self.lock().runs.len()
    }

    fn check(&self, order: CheckOrder, tell: Tell) -> Box<dyn Send> {
        let of = (order.child, order.errand);
        let mut reply = self.reply(&of, order.run);
        match self.take_note(Call::Check) {
            Some(Mishap::Refused(_)) => reply = Reply::Fails,
            Some(Mishap::Lost) => reply = Reply::Hangs,
            Some(Mishap::Late(after)) => reply = Reply::PassesAfter(after),
            None => {}
        }
        let mut fake = self.lock();
        let checks = fake.checks.entry(of.clone()).or_default();
        let at = checks.len();
        checks.push(Checked {
            begun: Instant::now(),
            over: None,
        });
        drop(fake);
        let os = self.clone();
        let mut check = FakeCheck {
            os: self.clone(),
            of: of.clone(),
            at,
            answer: None,
        };
        match reply {
            Reply::Passes | Reply::Fails | Reply::PassesFrom(_) => {
                os.over(&of, at);
                let status = 503;
                let failed = reply == Reply::Fails;
                tell(if failed {
                    Err(CheckFailure::Status { status })
                } else {
                    Ok(())
                });
            }
            Reply::PassesAfter(after) => {
                let answer = tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    os.over(&of, at);
                    tell(Ok(()));
                });
                check.answer = Some(answer.abort_handle());
            }
            Reply::Hangs => {}
        }
        Box::new(check)
    }
}

/// A check under way. Dropped, it is given up.
struct FakeCheck {
    os: FakeOs,
    of: (ChildName, Errand),
    at: usize,
    answer: Option<AbortHandle>,
}

impl Drop for FakeCheck {
    fn drop(&mut self) {
        if let Some(answer) = &self.answer {
            answer.abort();
        }
        self.os.over(&self.of, self.at);
    }
}

fn named(child: &str) -> ChildName {
    ChildName::new(child).expect("a test names its children well")
}

struct FakeProcess {
    os: FakeOs,
    run: RunId,
    child: ChildName,
}

impl Process for FakeProcess {
    fn signal(&self, signal: Signal) -> Result<(), SignalError> {
        let mishap = self.os.take_note(Call::Signal);
        self.os
            .lock()
            .asked
            .push(Asked::Signal(self.child.clone(), signal));
        let run = self.run;
        match mishap {
            Some(Mishap::Refused(number)) => {
                let source = io::Error::from_raw_os_error(number);
                return Err(SignalError {
                    signal,
                    run,
                    source,
                });
            }
            Some(Mishap::Lost) => {}
            Some(Mishap::Late(after)) => self.os.later(after, move |fake| fake.act(run, signal)),
            None => self.os.act(run, signal),
        }
        Ok(())
    }

    fn kill(&self) {
        let mishap = self.os.take_note(Call::Kill);
        self.os.lock().asked.push(Asked::Kill(self.child.clone()));
        let run = self.run;
        match mishap {
            Some(Mishap::Late(after)) => {
                self.os
                    .later(after, move |fake| fake.act(run, Signal::KILL));
            }
            Some(Mishap::Refused(_) | Mishap::Lost) | None => self.os.act(run, Signal::KILL),
        }
    }

    fn quiet(&self) -> Duration {
        let fake = self.os.lock();
        let since = fake.runs.get(&self.run);
        let since = since.map(|run| run.last_output.unwrap_or(run.begun));
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn last_output(&self) -> Option<Duration> {
        let fake = self.os.lock();
        let run = fake.runs.get(&self.run)?;
        run.last_output.map(|last| last.elapsed())
    }
}

impl Drop for FakeProcess {
    fn drop(&mut self) {
        let is_live = self.os.lock().runs.contains_key(&self.run);
        if is_live {
            self.os
                .lock()
                .asked
                .push(Asked::Abandon(self.child.clone()));
            self.os.act(self.run, Signal::KILL);
        }
    }
}
