//! The one-shot commands of the root: who asked for which, what has a place, and who is answered.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::exec::{Answering, ExecError, ExecOutcome, PendingExec, Started, Stopped, Timing};
use crate::os::clock;
use crate::os::{End, SpawnError};
use crate::policy::admission::{Rejection, RequestId};
use crate::policy::spec::{NodeId, RunId, StopSpec};

/// Answers who asked for a one-shot command.
pub(crate) type ExecReply = oneshot::Sender<Result<ExecOutcome, ExecError>>;

/// One-shot commands by request, and by node once they have a place.
#[derive(Default)]
pub(crate) struct OneShots {
    asked: HashMap<RequestId, Asked>,
    placed: HashMap<NodeId, Placed>,
}

struct Asked {
    exec: Box<PendingExec>,
    reply: ExecReply,
    at: Instant,
}

#[derive(Clone, Copy)]
struct Placed {
    request: RequestId,
    run: RunId,
    at: Instant,
    started: Option<Started>,
}

impl OneShots {
    /// Takes note of a request; returns how it is to be stopped, which is all that the machine needs to know.
    pub(crate) fn ask(
        &mut self,
        request: RequestId,
        exec: Box<PendingExec>,
        reply: ExecReply,
    ) -> StopSpec {
        let stop = exec.stop;
        let at = Instant::now();
        self.asked.insert(request, Asked { exec, reply, at });
        stop
    }

    /// It has a place.
    pub(crate) fn admit(&mut self, request: RequestId, child: NodeId, run: RunId) {
        let placed = Placed {
            request,
            run,
            at: Instant::now(),
            started: None,
        };
        self.placed.insert(child, placed);
    }

    /// It will not run.
    pub(crate) fn reject(&mut self, request: RequestId, why: Rejection) {
        if let Some(asked) = self.asked.remove(&request) {
            // Who asked may be gone.
            drop(asked.reply.send(Err(ExecError::Rejected(why))));
        }
    }

    /// It is not wanted any more. One that has a place is answered when it has ended.
    pub(crate) fn cancel(&mut self, request: RequestId) {
        let is_placed = self.placed.values().any(|placed| placed.request == request);
        if !is_placed && let Some(asked) = self.asked.remove(&request) {
            // Who asked may be gone.
            drop(asked.reply.send(Err(ExecError::Cancelled)));
        }
    }

    /// The command that has this place, if it is a one-shot command's.
    pub(crate) fn at(&mut self, child: NodeId) -> Option<&mut PendingExec> {
        let placed = self.placed.get(&child)?;
        Some(&mut self.asked.get_mut(&placed.request)?.exec)
    }

    #[cfg(feature = "testing")]
    pub(crate) fn places(&self) -> impl Iterator<Item = NodeId> {
        self.placed.keys().copied()
    }

    pub(crate) fn started(&mut self, child: NodeId, run: RunId, pid: Option<u32>) {
        let placed = self.placed.get_mut(&child);
        if let Some(placed) = placed.filter(|placed| placed.run == run) {
            let at = clock::wall_time();
            placed.started = pid.map(|pid| Started { pid, at });
        }
    }

    pub(crate) fn not_started(
        &mut self,
        child: NodeId,
        run: RunId,
        error: SpawnError,
        stopped: Option<Stopped>,
    ) {
        self.answer(child, run, |_| Err(ExecError::not_started(error, stopped)));
    }

    pub(crate) fn ended(&mut self, child: NodeId, run: RunId, end: End, stopped: Option<Stopped>) {
        self.answer(child, run, |answering| {
            Ok(ExecOutcome::new(end, stopped, answering))
        });
    }

    /// Its actor is gone, and so are its processes.
    pub(crate) fn lost(&mut self, child: NodeId, run: RunId) {
        self.answer(child, run, |_| Err(ExecError::Lost));
    }

    /// Of a child that is no one-shot command this does nothing, nor if its place is another's by now.
    fn answer(
        &mut self,
        child: NodeId,
        run: RunId,
        answer: impl FnOnce(Answering<'_>) -> Result<ExecOutcome, ExecError>,
    ) {
        let Entry::Occupied(found) = self.placed.entry(child) else {
            return;
        };
        if found.get().run != run {
            return;
        }
        let placed = found.remove();
        let Some(asked) = self.asked.remove(&placed.request) else {
            return;
        };
        let answering = Answering {
            id: placed.request,
            exec: &asked.exec,
            started: placed.started,
            timing: Timing {
                queued: placed.at - asked.at,
                ran: placed.at.elapsed(),
            },
        };
        let answer = answer(answering);
        // Who asked may be gone.
        drop(asked.reply.send(answer));
    }
}
