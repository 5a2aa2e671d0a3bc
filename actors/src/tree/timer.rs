//! The timer actor: sets the force-exit deadline of a shutdown and takes it back at its end.
//!
//! It only directs. The deadline itself is kept by a plain thread ([`crate::os::force_exit`]), so it holds although this
//! actor, or all of the async runtime, hangs. It is not linked below the root: it would die with what it guards.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tracing::info;

use crate::exit;
use crate::os::clock::Clock;
use crate::os::force_exit::ForceExit;

/// What the timer actor is told.
pub(crate) enum TimerMsg {
    /// A shutdown began, which may take this long in all; none: as long as it takes.
    ShutdownStarted { budget: Option<Duration> },
    #[cfg(feature = "testing")]
    Panic,
}

pub(crate) struct Timer;

pub(crate) struct TimerState {
    clock: Clock,
    force_exit: ForceExit,
}

impl Actor for Timer {
    type Msg = TimerMsg;
    type State = TimerState;
    type Arguments = (Clock, ForceExit);

    async fn pre_start(
        &self,
        _: ActorRef<TimerMsg>,
        (clock, force_exit): (Clock, ForceExit),
    ) -> Result<TimerState, ActorProcessingErr> {
        Ok(TimerState { clock, force_exit })
    }

    async fn handle(
        &self,
        _: ActorRef<TimerMsg>,
        message: TimerMsg,
        state: &mut TimerState,
    ) -> Result<(), ActorProcessingErr> {
        #[cfg(feature = "testing")]
        crate::testing::step(crate::testing::ActorKind::Timer);
        match message {
            TimerMsg::ShutdownStarted {
                budget: Some(budget),
            } => {
                // The signal thread may have set it already; the earlier one holds.
                state
                    .force_exit
                    .arm(state.clock.now() + budget, exit::FORCED);
                info!(?budget, "the force-exit deadline is set");
            }
            TimerMsg::ShutdownStarted { budget: None } => {}
            #[cfg(feature = "testing")]
            TimerMsg::Panic => panic!("a fault was injected into the timer actor"),
        }
        Ok(())
    }
}
