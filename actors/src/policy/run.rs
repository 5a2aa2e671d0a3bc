//! The machine of one run: from the order to start to its end.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Starting
//!     Starting --> Running: started
//!     Starting --> StopPending: stop, timed out
//!     StopPending --> Stopping: started
//!     Running --> Stopping: stop, timed out, silent
//!     Stopping --> Killing: grace over, kill
//!     Starting --> Killing: kill
//!     Running --> Killing: kill, wrote too much
//!     StopPending --> Killing: grace over, kill
//!     Running --> Ended: exited
//!     Stopping --> Ended: exited
//!     Killing --> Ended: exited
//! ```

use std::time::Duration;

use crate::policy::event::Bound;
use crate::policy::signal::Signal;
use crate::policy::spec::StopSpec;

/// Where a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Run {
    /// Ordered; no news yet.
    #[default]
    Starting,
    /// Asked to stop before it was heard to have started.
    StopPending,
    /// Its process executes the program.
    Running,
    /// Asked to stop.
    Stopping,
    /// Killed; its end is awaited.
    Killing,
    /// Over.
    Ended,
}

/// How a run is asked to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ask {
    /// By its signal.
    #[default]
    Signal,
    /// By a command; should the run outlive that, by its signal.
    Command,
}

/// The rules of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunRules {
    /// How it is asked to stop.
    pub ask: Ask,
    /// What it is asked to stop with.
    pub signal: Signal,
    /// How long a run that timed out may take to stop.
    pub grace: Duration,
    /// How long it may take from its order to its end; none: for ever.
    pub timeout: Option<Duration>,
    /// How long it may write nothing; none: for ever.
    pub idle_timeout: Option<Duration>,
    /// What becomes of it when it writes more than is kept.
    pub on_output_limit: OnOutputLimit,
}

impl RunRules {
    /// How long this bound is, if there is one.
    pub fn limit(&self, bound: Bound) -> Option<Duration> {
        match bound {
            Bound::MaxRuntime => self.timeout,
            Bound::IdleTimeout => self.idle_timeout,
        }
    }
}

impl From<StopSpec> for RunRules {
    /// Without any bound.
    fn from(stop: StopSpec) -> Self {
        Self {
            ask: Ask::Signal,
            signal: stop.signal,
            grace: stop.grace(),
            timeout: None,
            idle_timeout: None,
            on_output_limit: OnOutputLimit::default(),
        }
    }
}

/// What becomes of a run that writes more than is kept of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnOutputLimit {
    /// It goes on; the middle of its output is dropped.
    #[default]
    Truncate,
    /// It is killed.
    Kill,
}

/// Why a run was made to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopCause {
    /// Somebody asked for it.
    Asked,
    /// It took longer than it may.
    Timeout,
    /// It wrote nothing for longer than it may.
    Idle,
    /// It wrote more than it may.
    OutputLimit,
}

impl StopCause {
    /// Why a run is to end that this event moved from one state to the other; `None` if it is not, or was to before.
    pub fn of_move(from: Run, to: Run, by: Event) -> Option<Self> {
        let is_wanted = |run| matches!(run, Run::Starting | Run::Running);
        if !is_wanted(from) || is_wanted(to) {
            return None;
        }
        match by {
            Event::StopRequested { .. } | Event::KillRequested => Some(Self::Asked),
            Event::TimedOut => Some(Self::Timeout),
            Event::IdleDue { .. } => Some(Self::Idle),
            Event::OutputLimit => Some(Self::OutputLimit),
            Event::Started | Event::GraceElapsed | Event::CommandOver | Event::Ended => None,
        }
    }

    /// The bound on its time that was exceeded, if it was for that.
    pub fn bound(self) -> Option<Bound> {
        match self {
            Self::Timeout => Some(Bound::MaxRuntime),
            Self::Idle => Some(Bound::IdleTimeout),
            Self::Asked | Self::OutputLimit => None,
        }
    }
}

/// What happened to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its process executes the program.
    Started,
    /// It is to stop within this grace.
    StopRequested {
        /// How long it may take.
        grace: Duration,
    },
    /// It is to be killed.
    KillRequested,
    /// The grace is over.
    GraceElapsed,
    /// It took as long as it may.
    TimedOut,
    /// It may have written nothing for as long as it may.
    IdleDue {
        /// For how long it has written nothing.
        quiet: Duration,
    },
    /// It wrote more than is kept.
    OutputLimit,
    /// The command that asks it to stop ended, or did not start.
    CommandOver,
    /// It ended, or did not start.
    Ended,
}

/// What must be done to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send this signal.
    Signal(Signal),
    /// Run the command that asks it to stop, and feed [`Event::CommandOver`] when that is over.
    RunCommand,
    /// Kill it.
    Kill,
    /// Feed [`Event::GraceElapsed`] after this long.
    WakeAfterGrace(Duration),
    /// Feed [`Event::TimedOut`] after this long.
    WakeAfterTimeout(Duration),
    /// Feed [`Event::IdleDue`] after this long.
    WakeAfterIdle(Duration),
}

impl Run {
    /// A run that is ordered. Its time counts from now, since its start itself may hang.
    #[must_use]
    pub fn begin(rules: &RunRules) -> (Self, Vec<Effect>) {
        let timeout = rules.timeout.map(Effect::WakeAfterTimeout);
        (Self::Starting, timeout.into_iter().collect())
    }

    /// Moves the run on by one event. Pure: same input, same answer.
    #[must_use]
    pub fn next(self, event: Event, rules: &RunRules) -> (Self, Vec<Effect>) {
        match (self, event) {
            (Self::Starting, Event::Started) => (
                Self::Running,
                rules
                    .idle_timeout
                    .map(Effect::WakeAfterIdle)
                    .into_iter()
                    .collect(),
            ),
            // Nothing can be asked of a process that may not exist; its grace counts from now all the same.
            (Self::Starting, Event::StopRequested { grace }) => {
                (Self::StopPending, vec![Effect::WakeAfterGrace(grace)])
            }
            (Self::Starting, Event::TimedOut) => {
                (Self::StopPending, vec![Effect::WakeAfterGrace(rules.grace)])
            }
            (Self::StopPending, Event::Started) => (Self::Stopping, ask(rules)),
            (Self::Running, Event::StopRequested { grace }) => {
                (Self::Stopping, ask_within(rules, grace))
            }
            (Self::Running, Event::TimedOut) => (Self::Stopping, ask_within(rules, rules.grace)),
            (Self::Running, Event::IdleDue { quiet }) => match rules.idle_timeout {
                Some(limit) if quiet < limit => {
                    let left = limit.saturating_sub(quiet);
                    (self, vec![Effect::WakeAfterIdle(left)])
                }
                Some(_) => (Self::Stopping, ask_within(rules, rules.grace)),
                None => (self, Vec::new()),
            },
            // What it has written may be read before its start is heard of.
            (
                Self::Starting | Self::StopPending | Self::Running | Self::Stopping,
                Event::OutputLimit,
            ) if rules.on_output_limit == OnOutputLimit::Kill => {
                (Self::Killing, vec![Effect::Kill])
            }
            (Self::StopPending | Self::Stopping, Event::GraceElapsed)
            | (
                Self::Starting | Self::StopPending | Self::Running | Self::Stopping,
                Event::KillRequested,
            ) => (Self::Killing, vec![Effect::Kill]),
            (Self::Stopping, Event::CommandOver) => (self, signal(rules)),
            (_, Event::Ended) => (Self::Ended, Vec::new()),
            // A shorter grace than the one that runs: a shutdown is shorter of time than the stop before it.
            (Self::StopPending | Self::Stopping, Event::StopRequested { grace }) => {
                (self, vec![Effect::WakeAfterGrace(grace)])
            }
            // Told twice.
            (Self::Running | Self::Stopping | Self::Killing, Event::Started)
            | (Self::Stopping | Self::StopPending | Self::Killing, Event::TimedOut)
            | (
                Self::Starting | Self::StopPending | Self::Stopping | Self::Killing,
                Event::IdleDue { .. },
            )
            | (
                Self::Starting | Self::StopPending | Self::Running | Self::Stopping | Self::Killing,
                Event::OutputLimit,
            )
            | (
                Self::Killing,
                Event::StopRequested { .. } | Event::KillRequested | Event::GraceElapsed,
            )
            | (Self::Starting | Self::Running, Event::GraceElapsed)
            // The run was quicker, or has been killed meanwhile.
            | (
                Self::Starting | Self::StopPending | Self::Running | Self::Killing | Self::Ended,
                Event::CommandOver,
            )
            | (
                Self::Ended,
                Event::Started
                | Event::StopRequested { .. }
                | Event::KillRequested
                | Event::GraceElapsed
                | Event::TimedOut
                | Event::IdleDue { .. }
                | Event::OutputLimit,
            ) => (self, Vec::new()),
        }
    }
}

/// A stopped process neither takes a signal but the kill nor listens to a command until it continues, so CONT follows.
fn ask(rules: &RunRules) -> Vec<Effect> {
    match rules.ask {
        Ask::Signal => signal(rules),
        Ask::Command => vec![Effect::RunCommand, Effect::Signal(Signal::CONT)],
    }
}

fn signal(rules: &RunRules) -> Vec<Effect> {
    vec![Effect::Signal(rules.signal), Effect::Signal(Signal::CONT)]
}

fn ask_within(rules: &RunRules, grace: Duration) -> Vec<Effect> {
    let mut effects = ask(rules);
    effects.push(Effect::WakeAfterGrace(grace));
    effects
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);
    const RULES: RunRules = RunRules {
        ask: Ask::Signal,
        signal: Signal::INT,
        grace: Duration::from_millis(500),
        timeout: Some(GRACE),
        idle_timeout: Some(Duration::from_secs(2)),
        on_output_limit: OnOutputLimit::Kill,
    };
    const AWAIT_OUTPUT: Effect = Effect::WakeAfterIdle(Duration::from_secs(2));

    fn live(events: &[Event]) -> (Run, Vec<Effect>) {
        let step = |(run, mut all): (Run, Vec<Effect>), event: &Event| {
            let (run, effects) = run.next(*event, &RULES);
            all.extend(effects);
            (run, all)
        };
        events.iter().fold((Run::Starting, Vec::new()), step)
    }

    const ASKED: [Effect; 2] = [Effect::Signal(Signal::INT), Effect::Signal(Signal::CONT)];

    #[test]
    fn a_run_is_asked_then_killed_after_its_grace() {
        let (run, effects) = live(&[
            Event::Started,
            Event::StopRequested { grace: GRACE },
            Event::GraceElapsed,
        ]);
        assert_eq!(run, Run::Killing);
        let expected = [
            AWAIT_OUTPUT,
            ASKED[0],
            ASKED[1],
            Effect::WakeAfterGrace(GRACE),
            Effect::Kill,
        ];
        assert_eq!(effects, expected);
    }

    #[test]
    fn a_run_that_is_asked_by_a_command_is_signalled_only_if_it_outlives_that() {
        let rules = RunRules {
            ask: Ask::Command,
            ..RULES
        };
        let step = |run: Run, event| run.next(event, &rules);
        let (run, effects) = step(Run::Running, Event::StopRequested { grace: GRACE });
        let cont = Effect::Signal(Signal::CONT);
        let within = Effect::WakeAfterGrace(GRACE);
        assert_eq!(effects, [Effect::RunCommand, cont, within]);
        assert_eq!(
            step(run, Event::CommandOver),
            (Run::Stopping, ASKED.to_vec())
        );
        assert_eq!(
            step(run, Event::GraceElapsed),
            (Run::Killing, vec![Effect::Kill])
        );
        for over in [Run::Killing, Run::Ended] {
            assert_eq!(step(over, Event::CommandOver), (over, Vec::new()));
        }
    }

    #[test]
    fn a_run_asked_to_stop_while_it_starts_is_asked_once_it_has_started() {
        let (run, effects) = live(&[Event::StopRequested { grace: GRACE }, Event::Started]);
        assert_eq!(run, Run::Stopping);
        assert_eq!(effects, [Effect::WakeAfterGrace(GRACE), ASKED[0], ASKED[1]]);
    }

    #[test]
    fn a_run_that_hangs_in_its_start_is_killed_when_its_grace_is_over() {
        let (run, effects) = live(&[Event::StopRequested { grace: GRACE }, Event::GraceElapsed]);
        assert_eq!(
            (run, effects),
            (
                Run::Killing,
                vec![Effect::WakeAfterGrace(GRACE), Effect::Kill]
            )
        );
    }

    #[test]
    fn a_run_that_times_out_is_asked_with_its_own_grace() {
        let (run, effects) = live(&[Event::Started, Event::TimedOut]);
        assert_eq!(run, Run::Stopping);
        assert_eq!(effects.last(), Some(&Effect::WakeAfterGrace(RULES.grace)));
    }

    #[test]
    fn the_time_of_a_run_counts_from_its_order_and_ends_also_one_that_hangs_in_its_start() {
        let (run, effects) = Run::begin(&RULES);
        assert_eq!(effects, [Effect::WakeAfterTimeout(GRACE)]);
        let (run, effects) = run.next(Event::TimedOut, &RULES);
        assert_eq!(effects, [Effect::WakeAfterGrace(RULES.grace)]);
        assert_eq!(run.next(Event::GraceElapsed, &RULES).0, Run::Killing);
    }

    #[test]
    fn silence_counts_from_what_was_written_last() {
        let second = Duration::from_secs(1);
        let (run, effects) = Run::Running.next(Event::IdleDue { quiet: second }, &RULES);
        assert_eq!(
            (run, effects),
            (Run::Running, vec![Effect::WakeAfterIdle(second)])
        );
        let (run, effects) = run.next(Event::IdleDue { quiet: 2 * second }, &RULES);
        assert_eq!(run, Run::Stopping);
        assert_eq!(effects.last(), Some(&Effect::WakeAfterGrace(RULES.grace)));
    }

    #[test]
    fn one_that_writes_too_much_is_killed_or_goes_on() {
        assert_eq!(
            Run::Running.next(Event::OutputLimit, &RULES),
            (Run::Killing, vec![Effect::Kill])
        );
        let patient = RunRules {
            on_output_limit: OnOutputLimit::Truncate,
            ..RULES
        };
        assert_eq!(
            Run::Running.next(Event::OutputLimit, &patient),
            (Run::Running, Vec::new())
        );
    }

    #[test]
    fn the_cause_of_a_stop_is_what_came_first() {
        let causes = |events: &[Event]| {
            let step = |(run, mut all): (Run, Vec<StopCause>), event: &Event| {
                let (next, _) = run.next(*event, &RULES);
                all.extend(StopCause::of_move(run, next, *event));
                (next, all)
            };
            events.iter().fold((Run::Starting, Vec::new()), step).1
        };
        let stop = Event::StopRequested { grace: GRACE };
        let silent = Event::IdleDue { quiet: GRACE };
        for (events, expected) in [
            (&[Event::Started, Event::Ended][..], None),
            (
                &[Event::Started, Event::TimedOut, stop],
                Some(StopCause::Timeout),
            ),
            (
                &[Event::Started, stop, Event::TimedOut],
                Some(StopCause::Asked),
            ),
            (&[Event::TimedOut, Event::Started], Some(StopCause::Timeout)),
            (
                &[Event::Started, silent, Event::OutputLimit],
                Some(StopCause::Idle),
            ),
            (
                &[Event::OutputLimit, Event::Started],
                Some(StopCause::OutputLimit),
            ),
        ] {
            assert_eq!(causes(events), Vec::from_iter(expected), "{events:?}");
        }
    }

    #[test]
    fn a_stop_for_a_bound_on_its_time_names_the_bound_and_its_length() {
        for (cause, bound, limit) in [
            (StopCause::Timeout, Some(Bound::MaxRuntime), RULES.timeout),
            (
                StopCause::Idle,
                Some(Bound::IdleTimeout),
                RULES.idle_timeout,
            ),
            (StopCause::Asked, None, None),
            (StopCause::OutputLimit, None, None),
        ] {
            assert_eq!(cause.bound(), bound);
            assert_eq!(bound.and_then(|bound| RULES.limit(bound)), limit);
        }
    }

    #[test]
    fn nothing_is_done_to_a_run_that_is_over() {
        let events = [
            Event::Started,
            Event::StopRequested { grace: GRACE },
            Event::KillRequested,
            Event::GraceElapsed,
            Event::TimedOut,
            Event::IdleDue { quiet: GRACE },
            Event::OutputLimit,
            Event::Ended,
        ];
        for event in events {
            assert_eq!(Run::Ended.next(event, &RULES), (Run::Ended, Vec::new()));
        }
    }

    #[test]
    fn a_killed_run_is_killed_once() {
        let (run, effects) = live(&[
            Event::Started,
            Event::KillRequested,
            Event::KillRequested,
            Event::GraceElapsed,
        ]);
        assert_eq!(run, Run::Killing);
        assert_eq!(
            effects
                .iter()
                .filter(|effect| **effect == Effect::Kill)
                .count(),
            1
        );
    }
}
