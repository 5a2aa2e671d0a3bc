//! The child actors below one supervisor.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorId, ActorRef, SpawnErr};
use tracing::debug;

use crate::policy::spec::{NodeId, RunId};
use crate::tree::child::{Child, ChildMsg, RunOrder};

/// Actors by the run that they carry, and those that were released and have not ended.
#[derive(Default)]
pub(crate) struct Children {
    live: HashMap<NodeId, (RunId, ActorRef<ChildMsg>)>,
    runs: HashMap<ActorId, (NodeId, RunId)>,
    leaving: HashSet<ActorId>,
}

impl Children {
    pub(crate) async fn start(
        &mut self,
        supervisor: ActorCell,
        order: RunOrder,
    ) -> Result<(), SpawnErr> {
        let (child, run) = (order.child, order.run);
        // Anonymous: the registry of names is one for the whole process.
        let (actor, _) = Actor::spawn_linked(None, Child, order, supervisor).await?;
        self.runs.insert(actor.get_id(), (child, run));
        self.live.insert(child, (run, actor));
        Ok(())
    }

    pub(crate) fn stop(&self, child: NodeId, run: RunId, grace: Duration) {
        self.tell(child, run, ChildMsg::Stop { grace });
    }

    pub(crate) fn kill(&self, child: NodeId, run: RunId) {
        self.tell(child, run, ChildMsg::Kill);
    }

    pub(crate) fn tell(&self, child: NodeId, run: RunId, message: ChildMsg) {
        let actor = self.live.get(&child).filter(|(live, _)| *live == run);
        if let Some(Err(error)) = actor.map(|(_, actor)| actor.cast(message)) {
            // Its termination is on its way to the supervisor.
            debug!(%error, run = run.0, "a run's actor was gone before an order");
        }
    }

    /// The run's end was taken note of.
    pub(crate) fn release(&mut self, child: NodeId, run: RunId) {
        if self.live.get(&child).is_some_and(|(live, _)| *live == run)
            && let Some((_, actor)) = self.live.remove(&child)
        {
            self.runs.remove(&actor.get_id());
            self.leaving.insert(actor.get_id());
            actor.stop(None);
        }
    }

    /// An actor ended: the run that dies with it, if it carried one that was not over.
    pub(crate) fn ended(&mut self, actor: ActorId) -> Option<(NodeId, RunId)> {
        self.leaving.remove(&actor);
        let (child, run) = self.runs.remove(&actor)?;
        if self.live.get(&child).is_some_and(|(live, _)| *live == run) {
            self.live.remove(&child);
        }
        Some((child, run))
    }

    /// Whether all are gone.
    pub(crate) fn is_empty(&self) -> bool {
        self.live.is_empty() && self.leaving.is_empty()
    }
}
