//! Runs of tasks of the program itself: the same actor, the same rules, no process.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinError};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::os::{End, News, Observer, Process, SignalError, StartPath};
use crate::policy::exit::Exit;
use crate::policy::signal::Signal;
use crate::policy::spec::{ChildName, RunId};

/// What a task may fail with.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) type TaskFuture = Pin<Box<dyn Future<Output = Result<(), TaskError>> + Send>>;

/// Makes the future of each run of a task.
#[derive(Clone)]
pub(crate) struct TaskBody(Arc<dyn Fn(TaskContext) -> TaskFuture + Send + Sync>);

impl TaskBody {
    pub(crate) fn new<F, Fut>(body: F) -> Self
    where
        F: Fn(TaskContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        Self(Arc::new(move |context| Box::pin(body(context))))
    }
}

impl fmt::Debug for TaskBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskBody")
    }
}

/// What a run of a task is given.
#[derive(Clone, Debug)]
pub struct TaskContext {
    name: ChildName,
    run: RunId,
    stop: CancellationToken,
}

impl TaskContext {
    pub(crate) fn new(name: ChildName, run: RunId) -> Self {
        Self {
            name,
            run,
            stop: CancellationToken::new(),
        }
    }

    /// The child's name.
    pub fn name(&self) -> &ChildName {
        &self.name
    }

    /// This run.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Completes when the task is asked to stop; it is aborted after its grace.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Whether the task was asked to stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }
}

/// A running task. Dropping it aborts it.
struct RunningTask {
    stop: CancellationToken,
    abort: AbortHandle,
}

impl Process for RunningTask {
    /// Any signal but CONT asks the task to stop: it has no other ear.
    fn signal(&self, signal: Signal) -> Result<(), SignalError> {
        if signal != Signal::CONT {
            self.stop.cancel();
        }
        Ok(())
    }

    fn kill(&self) {
        self.abort.abort();
    }
}

impl Drop for RunningTask {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// Begins a run of a task on the current runtime.
pub(crate) fn begin(
    body: &TaskBody,
    context: TaskContext,
    observer: Arc<dyn Observer>,
) -> Box<dyn Process> {
    let stop = context.stop.clone();
    let name = context.name.clone();
    // The body itself may panic before it returns a future; that is a panic of the run, not of the supervisor.
    let made = std::panic::catch_unwind(AssertUnwindSafe(|| (body.0)(context)));
    let task = tokio::spawn(async move {
        match made {
            Ok(future) => future.await,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    let abort = task.abort_handle();
    let asked = stop.clone();
    observer.tell(News::Started {
        pid: 0,
        path: StartPath::Direct,
    });
    // Ends with the task, which ends at the latest when the handle above is dropped.
    tokio::spawn(async move {
        let exit = exit_of(&name, task.await);
        observer.tell(News::Ended(Box::new(End {
            exit,
            oom: false,
            // An abort is the only kill that a task knows.
            asked: asked.is_cancelled() || matches!(exit, Exit::Signal { .. }),
            cpu: Duration::ZERO,
            max_rss: None,
            killed: Vec::new(),
            survivors: Vec::new(),
            captured: None,
        })));
    });
    Box::new(RunningTask { stop, abort })
}

/// 0 and 1 as for a program; 101 is what a Rust program that panics ends with.
fn exit_of(name: &ChildName, ended: Result<Result<(), TaskError>, JoinError>) -> Exit {
    match ended {
        Ok(Ok(())) => Exit::Code(0),
        Ok(Err(error)) => {
            warn!(child = %name, %error, "a task failed");
            Exit::Code(1)
        }
        Err(error) if error.is_panic() => Exit::Code(101),
        Err(_) => Exit::Signal {
            signal: Signal::KILL,
            core: false,
        },
    }
}
