//! What whoever asked for a one-shot command holds.

use std::fmt;

use ractor::ActorRef;
use tokio::sync::oneshot;
use tracing::debug;

use crate::exec::{Exec, ExecError, ExecOutcome, PendingExec};
use crate::policy::admission::RequestId;
use crate::policy::signal::Signal;
use crate::tree::child::Activity;
use crate::tree::root::RootMsg;

/// A one-shot command that was asked for. Dropped before its end, it cancels the command.
#[must_use]
pub struct ExecTicket {
    root: ActorRef<RootMsg>,
    request: RequestId,
    /// Until it was read.
    outcome: Option<oneshot::Receiver<Result<ExecOutcome, ExecError>>>,
}

impl fmt::Debug for ExecTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ExecTicket").field(&self.request).finish()
    }
}

impl ExecTicket {
    pub(super) fn new(root: ActorRef<RootMsg>, request: RequestId, exec: Exec) -> Self {
        let (reply, outcome) = oneshot::channel();
        let exec = Box::new(PendingExec::new(exec));
        let order = RootMsg::Exec {
            request,
            exec,
            reply,
        };
        if root.cast(order).is_err() {
            debug!("a command was asked for after the end of the runtime");
        }
        Self {
            root,
            request,
            outcome: Some(outcome),
        }
    }

    /// Waits for its end. May be dropped and called again; after it has answered once it says [`ExecError::Ended`].
    pub async fn ended(&mut self) -> Result<ExecOutcome, ExecError> {
        let Some(outcome) = &mut self.outcome else {
            return Err(ExecError::Ended);
        };
        let answer = outcome.await;
        self.outcome = None;
        answer.unwrap_or(Err(ExecError::Ended))
    }

    /// Asks it to stop, by its signal, its grace and the kill; the end is told as any other.
    pub fn cancel(&self) {
        if self.root.cast(RootMsg::CancelExec(self.request)).is_err() {
            debug!("a command was cancelled after the end of the runtime");
        }
    }

    /// What it does at the moment; nothing while it waits for its place, and after its end.
    pub async fn activity(&self) -> Activity {
        let ask = |reply| RootMsg::ExecActivity(self.request, reply);
        match self.root.call(ask, None).await {
            Ok(ractor::rpc::CallResult::Success(activity)) => activity,
            Ok(_) | Err(_) => Activity::default(),
        }
    }

    /// Sends its processes a signal, if they run by then. Nothing follows from that: whether it ends is its own affair.
    pub fn signal(&self, signal: Signal) {
        let order = RootMsg::SignalExec(self.request, signal);
        if self.root.cast(order).is_err() {
            debug!("a command was signalled after the end of the runtime");
        }
    }
}

impl Drop for ExecTicket {
    fn drop(&mut self) {
        if self.outcome.is_some() {
            self.cancel();
        }
    }
}
