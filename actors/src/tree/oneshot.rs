//! The one-shot commands of the root: who asked for which, what has a place, and who is answered.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::exec::{Answering, ExecError, ExecOutcome, How, PendingExec, Started, Stopped, Timing};
use crate::os::clock;
use crate::os::{End, SpawnError};
use crate::policy::admission::{Rejection, RequestId};
use crate::policy::spec::{NodeId, RunId, StopSpec};
use crate::policy::telemetry::Outcome;

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

/// A command that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Over {
    pub(crate) request: RequestId,
    pub(crate) outcome: Outcome,
    pub(crate) timing: Timing,
}

/// What became of a command, in a word.
fn in_a_word(answer: &Result<ExecOutcome, ExecError>) -> Outcome {
    match answer {
        Ok(outcome) => match outcome.how {
            How::Exited | How::Signaled => Outcome::Ended(outcome.exit),
            How::TimedOut(_) => Outcome::TimedOut,
            How::OutputLimit => Outcome::OutputLimit,
            How::Cancelled => Outcome::Cancelled,
        },
        Err(ExecError::Rejected(_)) => Outcome::Rejected,
        Err(ExecError::NotStarted(error)) => Outcome::NotStarted(error.kind()),
        Err(ExecError::TimedOut) => Outcome::TimedOut,
        Err(ExecError::Cancelled) => Outcome::Cancelled,
        Err(ExecError::Lost | ExecError::Ended) => Outcome::Lost,
    }
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
    pub(crate) fn reject(&mut self, request: RequestId, why: Rejection) -> Option<Over> {
        let asked = self.asked.remove(&request)?;
        Some(asked.refuse(request, ExecError::Rejected(why)))
    }

    /// It is not wanted any more. One that has a place is answered when it has ended.
    pub(crate) fn cancel(&mut self, request: RequestId) -> Option<Over> {
        if self.placed.values().any(|placed| placed.request == request) {
            return None;
        }
        let asked = self.asked.remove(&request)?;
        Some(asked.refuse(request, ExecError::Cancelled))
    }

    /// The command that has this place, if it is a one-shot command's.
    pub(crate) fn at(&mut self, child: NodeId) -> Option<&mut PendingExec> {
        let placed = self.placed.get(&child)?;
        Some(&mut self.asked.get_mut(&placed.request)?.exec)
    }

    /// The run of a command that has a place.
    pub(crate) fn run_of(&self, request: RequestId) -> Option<(NodeId, RunId)> {
        let mut placed = self.placed.iter();
        placed.find_map(|(child, it)| (it.request == request).then_some((*child, it.run)))
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
    ) -> Option<Over> {
        self.answer(child, run, |_| Err(ExecError::not_started(error, stopped)))
    }

    pub(crate) fn ended(
        &mut self,
        child: NodeId,
        run: RunId,
        end: End,
        stopped: Option<Stopped>,
    ) -> Option<Over> {
        self.answer(child, run, |answering| {
            Ok(ExecOutcome::new(end, stopped, answering))
        })
    }

    /// Its actor is gone, and so are its processes.
    pub(crate) fn lost(&mut self, child: NodeId, run: RunId) -> Option<Over> {
        self.answer(child, run, |_| Err(ExecError::Lost))
    }

    /// Of a child that is no one-shot command this does nothing, nor if its place is another's by now.
    fn answer(
        &mut self,
        child: NodeId,
        run: RunId,
        answer: impl FnOnce(Answering<'_>) -> Result<ExecOutcome, ExecError>,
    ) -> Option<Over> {
        let Entry::Occupied(found) = self.placed.entry(child) else {
            return None;
        };
        if found.get().run != run {
            return None;
        }
        let placed = found.remove();
        let asked = self.asked.remove(&placed.request)?;
        let answering = Answering {
            id: placed.request,
            exec: &asked.exec,
            started: placed.started,
            timing: Timing {
                queued: placed.at - asked.at,
                ran: placed.at.elapsed(),
            },
        };
        let timing = answering.timing;
        let answer = answer(answering);
        let outcome = in_a_word(&answer);
        // Who asked may be gone.
        drop(asked.reply.send(answer));
        Some(Over {
            request: placed.request,
            outcome,
            timing,
        })
    }
}

impl Asked {
    /// It will not run.
    fn refuse(self, request: RequestId, why: ExecError) -> Over {
        let queued = self.at.elapsed();
        let answer = Err(why);
        let outcome = in_a_word(&answer);
        // Who asked may be gone.
        drop(self.reply.send(answer));
        Over {
            request,
            outcome,
            timing: Timing {
                queued,
                ran: Duration::ZERO,
            },
        }
    }
}
