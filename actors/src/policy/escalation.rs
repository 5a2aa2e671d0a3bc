//! What a signal to us means: shutdown, force, or nothing.
//!
//! Called by the thread that reads the signals, and by nobody else, so the decision needs neither an actor nor the async
//! runtime. It maps no exit codes and knows no deadline.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Serving
//!     Serving --> Stopping: INT, TERM, HUP / Shutdown
//!     Serving --> Forced: QUIT / Force
//!     Stopping --> Forced: INT, TERM, QUIT outside of the burst / Force
//!     Forced --> Leaving: INT, TERM, QUIT outside of the burst / ExitNow
//! ```
//!
//! A person who presses Ctrl-C again after a while means "now"; a script, or an impatient init system, that sends the same
//! signal a hundred times means one shutdown. They are told apart by the **burst**. A signal belongs to the burst, and does
//! nothing, if
//!
//! - it comes less than `force_after` after the step that was taken last, whatever its kind, or
//! - the last one *of its kind* came less than `force_after` before it. So a storm goes on for as long as it lasts, while
//!   an INT in the midst of a storm of TERM is heard.
//!
//! HUP begins a shutdown and never forces one: a terminal that is closed sends several. Status and reload are ignored once
//! a shutdown began. A signal whose action is a *forced* shutdown obeys the same burst rule after another one began.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::signal::Signal;
use crate::policy::time::Moment;

/// What signals mean.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalRules {
    /// What each one does. One that is not listed does nothing; SIGTSTP is refused.
    pub actions: BTreeMap<Signal, Action>,
    /// How long a burst's signals may lie apart, and how long after the last step the next one is possible.
    pub force_after: Duration,
}

/// What a signal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Begins the shutdown; a second one forces it.
    Shutdown,
    /// Begins a shutdown that kills at once.
    ForcedShutdown,
    /// Reopens the logs and logs a snapshot of the tree.
    Status,
    /// Reads the manifest again.
    Reload,
    /// Goes on to the children.
    Forward,
    /// Does nothing.
    Ignore,
}

impl Default for SignalRules {
    fn default() -> Self {
        Self {
            actions: BTreeMap::from([
                (Signal::INT, Action::Shutdown),
                (Signal::TERM, Action::Shutdown),
                (Signal::HUP, Action::Shutdown),
                (Signal::QUIT, Action::ForcedShutdown),
                (Signal::USR1, Action::Status),
                (Signal::USR2, Action::Reload),
            ]),
            force_after: Duration::from_millis(300),
        }
    }
}

/// What to do about a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Decision {
    /// Begin the shutdown.
    Shutdown {
        /// Because of this one.
        signal: Signal,
    },
    /// Kill what still runs.
    ///
    /// Without a [`Decision::Shutdown`] before it, `signal` itself asked for force; after one, a later signal did.
    Force {
        /// The one that began it all.
        signal: Signal,
    },
    /// Kill what still runs and end the process at once.
    ExitNow,
    /// Reopen the logs and log a snapshot.
    Status,
    /// Read the manifest again.
    Reload,
    /// Send it on to the children.
    Forward(Signal),
    /// Say that it is not supported: nothing is suspended.
    Refuse,
    /// Nothing.
    Nothing(Why),
}

/// Why a signal does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Why {
    /// The rules do not list it.
    NotHandled,
    /// The rules say so.
    Ignored,
    /// It belongs to the burst that was answered already.
    SameBurst,
    /// HUP never forces.
    NeverForces,
    /// A shutdown is under way.
    ShuttingDown,
    /// The process is about to end.
    Leaving,
}

/// How far signals have brought the shutdown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escalation {
    rules: SignalRules,
    stage: Stage,
    /// When each signal that can escalate was last heard; bounded by the number of signals.
    heard: BTreeMap<Signal, Moment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    Serving,
    Stopping { first: Signal, since: Moment },
    Forced { since: Moment },
    Leaving,
}

impl SignalRules {
    /// The signals that must be listened to, so that none of them takes its default action.
    pub fn handled(&self) -> impl Iterator<Item = Signal> + '_ {
        self.actions.keys().copied()
    }
}

impl Escalation {
    /// Nothing was heard yet.
    pub fn new(rules: SignalRules) -> Self {
        Self {
            rules,
            stage: Stage::Serving,
            heard: BTreeMap::new(),
        }
    }

    /// Takes one signal, heard at `now`, and decides.
    #[must_use]
    pub fn next(&mut self, signal: Signal, now: Moment) -> Decision {
        match self.rules.actions.get(&signal) {
            None if signal == Signal::TSTP => Decision::Refuse,
            None => Decision::Nothing(Why::NotHandled),
            Some(Action::Ignore) => Decision::Nothing(Why::Ignored),
            Some(Action::Status) => self.while_serving(Decision::Status),
            Some(Action::Reload) => self.while_serving(Decision::Reload),
            Some(Action::Forward) => self.until_forced(Decision::Forward(signal)),
            Some(Action::Shutdown) => self.shutdown(signal, now),
            Some(Action::ForcedShutdown) => self.forced_shutdown(signal, now),
        }
    }

    fn while_serving(&self, decision: Decision) -> Decision {
        match self.stage {
            Stage::Serving => decision,
            Stage::Stopping { .. } | Stage::Forced { .. } => Decision::Nothing(Why::ShuttingDown),
            Stage::Leaving => Decision::Nothing(Why::Leaving),
        }
    }

    /// A child that is being stopped may still want what is forwarded; one that is being killed cannot.
    fn until_forced(&self, decision: Decision) -> Decision {
        match self.stage {
            Stage::Serving | Stage::Stopping { .. } => decision,
            Stage::Forced { .. } => Decision::Nothing(Why::ShuttingDown),
            Stage::Leaving => Decision::Nothing(Why::Leaving),
        }
    }

    fn shutdown(&mut self, signal: Signal, now: Moment) -> Decision {
        match self.stage {
            Stage::Serving => {
                self.heard.insert(signal, now);
                self.stage = Stage::Stopping {
                    first: signal,
                    since: now,
                };
                Decision::Shutdown { signal }
            }
            Stage::Stopping { .. } | Stage::Forced { .. } if signal == Signal::HUP => {
                Decision::Nothing(Why::NeverForces)
            }
            Stage::Stopping { .. } | Stage::Forced { .. } | Stage::Leaving => {
                self.escalate(signal, now)
            }
        }
    }

    fn forced_shutdown(&mut self, signal: Signal, now: Moment) -> Decision {
        match self.stage {
            Stage::Serving => {
                self.heard.insert(signal, now);
                self.stage = Stage::Forced { since: now };
                Decision::Force { signal }
            }
            Stage::Stopping { .. } | Stage::Forced { .. } | Stage::Leaving => {
                self.escalate(signal, now)
            }
        }
    }

    fn escalate(&mut self, signal: Signal, now: Moment) -> Decision {
        let before = self.heard.insert(signal, now);
        let recent = |then: Moment| now.since(then) < self.rules.force_after;
        let same_kind = before.is_some_and(recent);
        match self.stage {
            Stage::Stopping { since, .. } | Stage::Forced { since }
                if same_kind || recent(since) =>
            {
                Decision::Nothing(Why::SameBurst)
            }
            Stage::Stopping { first, .. } => {
                self.stage = Stage::Forced { since: now };
                Decision::Force { signal: first }
            }
            Stage::Forced { .. } => {
                self.stage = Stage::Leaving;
                Decision::ExitNow
            }
            Stage::Serving | Stage::Leaving => Decision::Nothing(Why::Leaving),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::after_begin(Duration::from_millis(millis))
    }

    fn decisions(script: &[(u64, Signal)]) -> Vec<Decision> {
        let mut escalation = Escalation::new(SignalRules::default());
        script
            .iter()
            .map(|(millis, signal)| escalation.next(*signal, at(*millis)))
            .collect()
    }

    /// The acting ones only.
    fn steps(script: &[(u64, Signal)]) -> Vec<Decision> {
        decisions(script)
            .into_iter()
            .filter(|decision| !matches!(decision, Decision::Nothing(_)))
            .collect()
    }

    const HUP: Signal = Signal::HUP;
    const INT: Signal = Signal::INT;
    const QUIT: Signal = Signal::QUIT;
    const TERM: Signal = Signal::TERM;
    const USR1: Signal = Signal::USR1;
    const USR2: Signal = Signal::USR2;
    const TSTP: Signal = Signal::TSTP;
    const CONT: Signal = Signal::CONT;

    /// Each stage, reached by these signals, and what a signal does there one second later.
    #[test]
    fn every_stage_has_an_answer_to_every_signal() {
        use Decision::{ExitNow, Force, Nothing, Refuse, Reload, Shutdown, Status};
        use Why::{Leaving, NeverForces, NotHandled, ShuttingDown};
        let stages: [&[(u64, Signal)]; 4] = [
            &[],
            &[(0, TERM)],
            &[(0, TERM), (1_000, INT)],
            &[(0, TERM), (1_000, INT), (2_000, TERM)],
        ];
        let (down, left) = (Nothing(ShuttingDown), Nothing(Leaving));
        let force = Force { signal: TERM };
        let calm = Nothing(NeverForces);
        let table = [
            (INT, [Shutdown { signal: INT }, force, ExitNow, left]),
            (TERM, [Shutdown { signal: TERM }, force, ExitNow, left]),
            (QUIT, [Force { signal: QUIT }, force, ExitNow, left]),
            (HUP, [Shutdown { signal: HUP }, calm, calm, left]),
            (USR1, [Status, down, down, left]),
            (USR2, [Reload, down, down, left]),
            (TSTP, [Refuse; 4]),
            (CONT, [Nothing(NotHandled); 4]),
        ];
        for (signal, answers) in table {
            for (stage, answer) in stages.iter().zip(answers) {
                let script = [*stage, &[(10_000, signal)]].concat();
                assert_eq!(
                    decisions(&script).last(),
                    Some(&answer),
                    "{signal} after {stage:?}"
                );
            }
        }
    }

    #[test]
    fn a_second_one_forces_from_300_ms_on_and_not_before() {
        for second in [INT, TERM, QUIT] {
            for first in [INT, TERM, HUP] {
                let expected = Decision::Nothing(Why::SameBurst);
                assert_eq!(decisions(&[(0, first), (299, second)])[1], expected);
                let expected = Decision::Force { signal: first };
                assert_eq!(decisions(&[(0, first), (300, second)])[1], expected);
            }
        }
    }

    #[test]
    fn a_third_one_ends_from_300_ms_after_the_second_on() {
        assert_eq!(
            steps(&[(0, INT), (1_000, INT), (1_299, INT), (1_598, INT)]).len(),
            2
        );
        assert_eq!(
            steps(&[(0, INT), (1_000, INT), (1_300, INT)]).last(),
            Some(&Decision::ExitNow)
        );
        assert_eq!(
            steps(&[(0, INT), (1_000, INT), (1_200, TERM)]).len(),
            2,
            "another kind shortly after the second belongs to it"
        );
    }

    #[test]
    fn a_second_signal_ends_what_quit_began() {
        assert_eq!(
            steps(&[(0, QUIT), (100, QUIT), (500, INT)]),
            [Decision::Force { signal: QUIT }, Decision::ExitNow]
        );
    }

    #[test]
    fn a_storm_is_one_shutdown() {
        for signal in [TERM, INT] {
            let storm: Vec<_> = (0..1_000).map(|n| (n * 10, signal)).collect();
            assert_eq!(steps(&storm), [Decision::Shutdown { signal }]);
        }
    }

    #[test]
    fn two_storms_that_begin_together_are_one_shutdown() {
        let storm: Vec<_> = (0..1_000)
            .map(|n| (n * 10, if n % 2 == 0 { TERM } else { INT }))
            .collect();
        assert_eq!(steps(&storm), [Decision::Shutdown { signal: TERM }]);
    }

    #[test]
    fn an_interrupt_in_the_midst_of_a_storm_is_heard() {
        let mut script: Vec<_> = (0..200).map(|n| (n * 10, TERM)).collect();
        script.insert(100, (991, INT));
        assert_eq!(
            steps(&script),
            [
                Decision::Shutdown { signal: TERM },
                Decision::Force { signal: TERM }
            ]
        );
    }

    #[test]
    fn the_first_after_a_storm_forces() {
        let mut script: Vec<_> = (0..100).map(|n| (n * 10, TERM)).collect();
        script.push((1_500, TERM));
        assert_eq!(
            steps(&script).last(),
            Some(&Decision::Force { signal: TERM })
        );
    }

    #[test]
    fn hang_ups_never_force() {
        let script: Vec<_> = (0..10).map(|n| (n * 1_000, HUP)).collect();
        assert_eq!(steps(&script), [Decision::Shutdown { signal: HUP }]);
    }

    #[test]
    fn a_clock_that_steps_back_forces_nothing() {
        assert_eq!(steps(&[(5_000, TERM), (0, TERM), (100, INT)]).len(), 1);
    }

    #[test]
    fn rules_of_ones_own_hold() {
        let mut rules = SignalRules::default();
        rules.actions.insert(USR1, Action::Shutdown);
        rules.actions.insert(USR2, Action::Forward);
        rules.actions.insert(INT, Action::Ignore);
        rules.actions.insert(TSTP, Action::Forward);
        let mut escalation = Escalation::new(rules);
        let script = [
            (0, INT, Decision::Nothing(Why::Ignored)),
            (0, TSTP, Decision::Forward(TSTP)),
            (0, USR1, Decision::Shutdown { signal: USR1 }),
            (1, USR2, Decision::Forward(USR2)),
            (400, INT, Decision::Nothing(Why::Ignored)),
            (400, USR1, Decision::Force { signal: USR1 }),
            (500, USR2, Decision::Nothing(Why::ShuttingDown)),
        ];
        for (millis, signal, expected) in script {
            assert_eq!(escalation.next(signal, at(millis)), expected, "{signal}");
        }
    }

    #[test]
    fn it_survives_being_written_down() {
        let mut escalation = Escalation::new(SignalRules::default());
        assert_eq!(
            escalation.next(TERM, at(7)),
            Decision::Shutdown { signal: TERM }
        );
        let text = serde_json::to_string(&escalation).unwrap();
        assert_eq!(
            serde_json::from_str::<Escalation>(&text).unwrap(),
            escalation
        );
    }

    proptest! {
        #[test]
        fn each_step_is_taken_once_and_at_least_300_ms_after_the_one_before(
            script in prop::collection::vec((0_u64..700, 0_usize..8), 0..60),
        ) {
            let signals = [HUP, INT, QUIT, TERM, USR1, USR2, TSTP, CONT];
            let mut escalation = Escalation::new(SignalRules::default());
            let mut now = 0;
            let mut taken: Vec<(u64, u8)> = Vec::new();
            for (gap, signal) in script {
                now += gap;
                let rank = match escalation.next(signals[signal], at(now)) {
                    Decision::Shutdown { .. } => 1,
                    Decision::Force { .. } => 2,
                    Decision::ExitNow => 3,
                    Decision::Status | Decision::Reload => {
                        prop_assert!(taken.is_empty());
                        continue;
                    }
                    Decision::Forward(_) | Decision::Refuse | Decision::Nothing(_) => continue,
                };
                if let Some((then, before)) = taken.last() {
                    prop_assert!(now - then >= 300);
                    prop_assert!(*before < rank);
                }
                taken.push((now, rank));
            }
        }
    }
}
