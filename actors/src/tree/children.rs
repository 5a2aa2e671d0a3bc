//! The child actors below one supervisor.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorId, ActorRef, SpawnErr};
use tracing::debug;

use crate::os::Rank;
use crate::policy::spec::{NodeId, RunId};
use crate::tree::child::{Child, ChildMsg, RunOrder};

/// As many actors may rest until another one-shot command comes. To make one takes as long as a quick command.
const MOST_RESTING: usize = 16;

/// Actors by the run that they carry, those that rest, and those that were released and have not ended.
#[derive(Default)]
pub(crate) struct Children {
    live: HashMap<NodeId, Carrier>,
    runs: HashMap<ActorId, (NodeId, RunId)>,
    resting: Vec<ActorRef<ChildMsg>>,
    leaving: HashSet<ActorId>,
}

struct Carrier {
    run: RunId,
    actor: ActorRef<ChildMsg>,
    /// It may carry another run afterwards.
    is_once: bool,
}

impl Children {
    pub(crate) async fn start(
        &mut self,
        supervisor: ActorCell,
        order: RunOrder,
    ) -> Result<(), SpawnErr> {
        let (child, run, is_once) = (order.child, order.run, order.rank == Rank::OneShot);
        let rested = if is_once { self.resting.pop() } else { None };
        let actor = if let Some(actor) = rested {
            // Should it be gone, its termination is on its way, and with it the loss of this run.
            drop(actor.cast(ChildMsg::Begin(Box::new(order))));
            actor
        } else {
            // Anonymous: the registry of names is one for the whole process.
            let (actor, _) = Actor::spawn_linked(None, Child, order, supervisor).await?;
            actor
        };
        self.runs.insert(actor.get_id(), (child, run));
        let carrier = Carrier {
            run,
            actor,
            is_once,
        };
        self.live.insert(child, carrier);
        Ok(())
    }

    pub(crate) fn stop(&self, child: NodeId, run: RunId, grace: Duration) {
        self.tell(child, run, ChildMsg::Stop { grace });
    }

    pub(crate) fn kill(&self, child: NodeId, run: RunId) {
        self.tell(child, run, ChildMsg::Kill);
    }

    pub(crate) fn tell(&self, child: NodeId, run: RunId, message: ChildMsg) {
        let carrier = self.live.get(&child).filter(|live| live.run == run);
        if let Some(Err(error)) = carrier.map(|carrier| carrier.actor.cast(message)) {
            // Its termination is on its way to the supervisor.
            debug!(%error, run = run.0, "a run's actor was gone before an order");
        }
    }

    /// The run's end was taken note of.
    pub(crate) fn release(&mut self, child: NodeId, run: RunId) {
        if self.live.get(&child).is_some_and(|live| live.run == run)
            && let Some(Carrier { actor, is_once, .. }) = self.live.remove(&child)
        {
            self.runs.remove(&actor.get_id());
            if is_once && self.resting.len() < MOST_RESTING && actor.cast(ChildMsg::Rest).is_ok() {
                self.resting.push(actor);
            } else {
                self.leave(&actor);
            }
        }
    }

    /// Lets those end that rest.
    pub(crate) fn dismiss(&mut self) {
        for actor in std::mem::take(&mut self.resting) {
            self.leave(&actor);
        }
    }

    fn leave(&mut self, actor: &ActorRef<ChildMsg>) {
        self.leaving.insert(actor.get_id());
        actor.stop(None);
    }

    /// An actor ended: the run that dies with it, if it carried one that was not over.
    pub(crate) fn ended(&mut self, actor: ActorId) -> Option<(NodeId, RunId)> {
        self.leaving.remove(&actor);
        self.resting.retain(|resting| resting.get_id() != actor);
        let (child, run) = self.runs.remove(&actor)?;
        if self.live.get(&child).is_some_and(|live| live.run == run) {
            self.live.remove(&child);
        }
        Some((child, run))
    }

    /// Whether all are gone.
    pub(crate) fn is_empty(&self) -> bool {
        self.live.is_empty() && self.leaving.is_empty()
    }
}
