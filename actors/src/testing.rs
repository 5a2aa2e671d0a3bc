//! A scripted operating system and fault injection, for this crate's tests and for those of embedders.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::os::{End, Job, News, Observer, Os, Process, SignalError, SpawnError};
use crate::policy::exit::Exit;
use crate::policy::signal::Signal;
use crate::policy::spec::{ChildName, RunId};

/// A fault to inject into a running tree.
#[derive(Debug)]
pub enum Fault {
    /// The actor of this child's run panics.
    PanicChild(ChildName),
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

/// An operating system without processes. Runs behave as scripted; time is tokio's, so it may be paused.
#[derive(Clone, Default)]
pub struct FakeOs(Arc<Mutex<Fake>>);

#[derive(Default)]
struct Fake {
    scripts: HashMap<ChildName, Script>,
    asked: Vec<Asked>,
    runs: HashMap<RunId, Run>,
    next_pid: u32,
}

struct Run {
    child: ChildName,
    script: Script,
    observer: Arc<dyn Observer>,
    asked: bool,
    gone: Vec<Box<dyn FnOnce() + Send>>,
}

impl FakeOs {
    /// Decides how the next runs of a child behave.
    pub fn script(&self, child: &str, script: Script) {
        let child = ChildName::new(child).expect("a test names its children well");
        self.lock().scripts.insert(child, script);
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

    fn finish(&self, run: RunId, exit: Exit) {
        let Some(ended) = self.lock().runs.remove(&run) else {
            return;
        };
        let end = End {
            exit,
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
                gone: Vec::new(),
            };
            fake.runs.insert(job.run, run);
        }
        drop(fake);
        match script {
            Script::CannotStart => observer.tell(News::NotStarted(SpawnError::Abandoned)),
            Script::HangsInStart => {}
            Script::Obeys | Script::IgnoresSignals => observer.tell(News::Started { pid }),
            Script::Ends(exit) => {
                observer.tell(News::Started { pid });
                self.finish(job.run, exit);
            }
            Script::EndsAfter(after, exit) => {
                observer.tell(News::Started { pid });
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
