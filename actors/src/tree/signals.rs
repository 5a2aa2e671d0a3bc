//! The signal actor: turns what the signal thread has decided into messages to the root, and keeps the receipts.
//!
//! The thread comes first: it has armed the deadline, and killed where force was asked, before this actor hears of it.

use std::collections::VecDeque;

use ractor::{Actor, ActorProcessingErr, ActorRef, DerivedActorRef, RpcReplyPort};
use tracing::{info, warn};

use crate::os::signals::Received;
use crate::policy::escalation::Decision;
use crate::policy::event::ShutdownReason;
use crate::policy::signal::Signal;
use crate::policy::telemetry::Outcome;
use crate::policy::tree::ShutdownMode;

/// One signal that was received, and what was made of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Receipt {
    /// The signal, its sender and its time.
    pub received: Received,
    /// What followed.
    pub decision: Decision,
}

/// What the signal actor is told.
pub(crate) enum SignalsMsg {
    Decided(Receipt),
    Receipts(RpcReplyPort<Vec<Receipt>>),
    #[cfg(feature = "testing")]
    Panic,
}

/// What the signal actor asks of the root.
pub(crate) enum SignalOrder {
    ShutDown {
        mode: ShutdownMode,
        reason: ShutdownReason,
    },
    LogStatus,
    Forward(Signal),
    /// This one came, and led to that.
    Came(Signal, Outcome),
}

pub(crate) struct Signals;

pub(crate) struct SignalsState {
    root: DerivedActorRef<SignalOrder>,
    receipts: VecDeque<Receipt>,
    history: usize,
}

impl Actor for Signals {
    type Msg = SignalsMsg;
    type State = SignalsState;
    type Arguments = (DerivedActorRef<SignalOrder>, usize);

    async fn pre_start(
        &self,
        _: ActorRef<SignalsMsg>,
        (root, history): (DerivedActorRef<SignalOrder>, usize),
    ) -> Result<SignalsState, ActorProcessingErr> {
        Ok(SignalsState {
            root,
            receipts: VecDeque::new(),
            history,
        })
    }

    async fn handle(
        &self,
        _: ActorRef<SignalsMsg>,
        message: SignalsMsg,
        state: &mut SignalsState,
    ) -> Result<(), ActorProcessingErr> {
        #[cfg(feature = "testing")]
        crate::testing::step(crate::testing::ActorKind::Signals);
        match message {
            SignalsMsg::Decided(receipt) => state.take(receipt)?,
            SignalsMsg::Receipts(reply) => {
                // Who asked may be gone.
                drop(reply.send(state.receipts.iter().cloned().collect()));
            }
            #[cfg(feature = "testing")]
            SignalsMsg::Panic => panic!("a fault was injected into the signal actor"),
        }
        Ok(())
    }
}

impl SignalsState {
    fn take(&mut self, receipt: Receipt) -> Result<(), ActorProcessingErr> {
        let Receipt { received, decision } = &receipt;
        info!(signal = %received.signal, sender = ?received.sender, ?decision, "signal received");
        let outcome = match decision {
            Decision::Nothing(_) | Decision::Refuse | Decision::Reload => Outcome::Ignored,
            Decision::Shutdown { .. }
            | Decision::Force { .. }
            | Decision::Status
            | Decision::Forward(_)
            | Decision::ExitNow => Outcome::Done,
        };
        // Only a note: should the root be gone, an order to it says so.
        drop(self.root.cast(SignalOrder::Came(received.signal, outcome)));
        let shut_down = |mode, signal| SignalOrder::ShutDown {
            mode,
            reason: ShutdownReason::Signal(signal),
        };
        let order = match *decision {
            Decision::Shutdown { signal } => Some(shut_down(ShutdownMode::Graceful, signal)),
            Decision::Force { signal } => Some(shut_down(ShutdownMode::Forced, signal)),
            Decision::Status => Some(SignalOrder::LogStatus),
            Decision::Forward(signal) => Some(SignalOrder::Forward(signal)),
            Decision::Reload => {
                warn!("nothing to reload: the configuration is read once, at the start");
                None
            }
            Decision::Refuse => {
                warn!(signal = %received.signal, "refused: suspended, nobody would watch the children");
                None
            }
            // The thread has ended the process, or is about to.
            Decision::ExitNow | Decision::Nothing(_) => None,
        };
        if self.history > 0 {
            self.receipts.truncate(self.history - 1);
            self.receipts.push_front(receipt);
        }
        if let Some(order) = order {
            self.root.cast(order)?;
        }
        Ok(())
    }
}
