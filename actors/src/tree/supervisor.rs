//! The actor of a nested supervisor: the link between its children and the tree above.
//!
//! It decides nothing. It carries out the root's orders for its own children, so that their actors are linked below it: its
//! death is theirs, and the root hears of it from its own supervisor.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, DerivedActorRef, SupervisionEvent};
use tracing::error;

use crate::policy::spec::{NodeId, RunId};
use crate::tree::child::{ChildMsg, RunOrder};
use crate::tree::children::Children;

/// What a nested supervisor is told.
pub(crate) enum SupervisorMsg {
    Start(Box<RunOrder>),
    Stop {
        child: NodeId,
        run: RunId,
        grace: Duration,
    },
    Kill {
        child: NodeId,
        run: RunId,
    },
    Release {
        child: NodeId,
        run: RunId,
    },
    /// Pass this on.
    Tell {
        child: NodeId,
        run: RunId,
        message: Box<ChildMsg>,
    },
    /// No child of it is left: it may end.
    Close,
    #[cfg(feature = "testing")]
    Panic,
}

/// The actor of a run ended although the run was not over.
pub(crate) struct RunLost {
    pub(crate) child: NodeId,
    pub(crate) run: RunId,
}

pub(crate) struct Supervisor;

pub(crate) struct SupervisorState {
    children: Children,
    is_closing: bool,
    report_to: DerivedActorRef<RunLost>,
}

impl Actor for Supervisor {
    type Msg = SupervisorMsg;
    type State = SupervisorState;
    type Arguments = DerivedActorRef<RunLost>;

    async fn pre_start(
        &self,
        _: ActorRef<SupervisorMsg>,
        report_to: DerivedActorRef<RunLost>,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        Ok(SupervisorState {
            children: Children::default(),
            is_closing: false,
            report_to,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<SupervisorMsg>,
        message: SupervisorMsg,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        #[cfg(feature = "testing")]
        crate::testing::step(crate::testing::ActorKind::Supervisor);
        match message {
            SupervisorMsg::Start(order) => {
                let (child, run) = (order.child, order.run);
                if let Err(error) = state.children.start(myself.get_cell(), *order).await {
                    error!(%error, run = run.0, "the actor of a run could not start");
                    state.lost(child, run);
                }
            }
            SupervisorMsg::Stop { child, run, grace } => state.children.stop(child, run, grace),
            SupervisorMsg::Kill { child, run } => state.children.kill(child, run),
            SupervisorMsg::Release { child, run } => state.children.release(child, run),
            SupervisorMsg::Tell {
                child,
                run,
                message,
            } => state.children.tell(child, run, *message),
            SupervisorMsg::Close => state.is_closing = true,
            #[cfg(feature = "testing")]
            SupervisorMsg::Panic => panic!("a fault was injected into the actor of a supervisor"),
        }
        state.end_if_done(&myself);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SupervisorMsg>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        #[cfg(feature = "testing")]
        crate::testing::step(crate::testing::ActorKind::Supervisor);
        if let SupervisionEvent::ActorTerminated(cell, ..) | SupervisionEvent::ActorFailed(cell, _) =
            event
            && let Some((child, run)) = state.children.ended(cell.get_id())
        {
            state.lost(child, run);
        }
        state.end_if_done(&myself);
        Ok(())
    }
}

impl SupervisorState {
    fn lost(&self, child: NodeId, run: RunId) {
        if let Err(error) = self.report_to.cast(RunLost { child, run }) {
            error!(%error, "the root was gone before a report");
        }
    }

    /// Stopping is the last act: whatever is linked below would be killed by it.
    fn end_if_done(&self, myself: &ActorRef<SupervisorMsg>) {
        if self.is_closing && self.children.is_empty() {
            myself.stop(None);
        }
    }
}
