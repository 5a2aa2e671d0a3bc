//! A scripted operating system and fault injection, for this crate's tests and for those of embedders.

use std::collections::{HashMap, VecDeque};
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
}

struct Run {
    child: ChildName,
    script: Script,
    observer: Arc<dyn Observer>,
    asked: bool,
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

    fn finish(&self, run: RunId, exit: Exit) {
        let Some(ended) = self.lock().runs.remove(&run) else {
            return;
        };
        let end = End {
            exit,
            oom: false,
            asked: ended.asked,
            cpu: Duration::ZERO,
            max_rss: None,
            killed: Vec::new(),
            survivors: Vec::new(),
            captured: None,
        };
        ended.observer.tell(News::Ended(Box::new(end)));
        ended.gone.into_iter().for_each(|then| then());
    }

    fn act(&self, run: RunId, signal: Signal) {
        let script = self.lock().runs.get_mut(&run).map(|run| {
            run.asked = true;
            run.script
        });
        let ends = match script {
            None => false,
            Some(Script::IgnoresSignals | Script::HangsInStart) => signal == Signal::KILL,
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

impl Os for FakeOs {
    fn begin(&self, job: Job) -> Box<dyn Process> {
        let mut fake = self.lock();
        fake.asked.push(Asked::Begin(job.child.clone()));
        fake.next_pid += 1;
        let pid = fake.next_pid;
        let script = fake.scripts.get(&job.child).copied().unwrap_or_default();
        let observer = Arc::clone(&job.observer);
        if script != Script::CannotStart {
            let run = Run {
                child: job.child.clone(),
                script,
                observer: Arc::clone(&observer),
                asked: false,
                begun: Instant::now(),
                last_output: None,
                listener: job.listen.map(|listen| listen.listener),
                gone: Vec::new(),
            };
            fake.runs.insert(job.run, run);
        }
        drop(fake);
        match script {
            Script::CannotStart => observer.tell(News::NotStarted(SpawnError::Abandoned)),
            Script::HangsInStart => {}
            Script::Obeys | Script::IgnoresSignals => observer.tell(News::Started {
                pid,
                path: StartPath::Direct,
            }),
            Script::Ends(exit) => {
                observer.tell(News::Started {
                    pid,
                    path: StartPath::Direct,
                });
                self.finish(job.run, exit);
            }
            Script::EndsAfter(after, exit) => {
                observer.tell(News::Started {
                    pid,
                    path: StartPath::Direct,
                });
                let (fake, run) = (self.clone(), job.run);
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    fake.finish(run, exit);
                });
            }
        }
        Box::new(FakeProcess {
            os: self.clone(),
            run: job.run,
            child: job.child,
        })
    }

    fn when_gone(&self, run: RunId, then: Box<dyn FnOnce() + Send>) {
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
        let reply = self.reply(&of, order.run);
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
        self.os
            .lock()
            .asked
            .push(Asked::Signal(self.child.clone(), signal));
        self.os.act(self.run, signal);
        Ok(())
    }

    fn kill(&self) {
        self.os.lock().asked.push(Asked::Kill(self.child.clone()));
        self.os.act(self.run, Signal::KILL);
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
