//! What probes ask, how often, and what the answers mean.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Waiting: begun
//!     Waiting --> Checking: due
//!     Checking --> Clearing: answered, timed out
//!     Clearing --> Waiting: nothing is left of the check
//!     Clearing --> Over: no further answer is needed
//! ```
//!
//! A check never overlaps the one before it: the interval counts from the moment at which nothing is left of that.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::spec::{
    ChildName, ChildRules, CommandSpec, NodeRules, OnLost, RunId, SupervisorRules, TreeRules,
};

/// The probes of a child.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Probes {
    /// Says when the child is ready; without it, running is ready.
    pub readiness: Option<Probe>,
    /// Says whether the child still lives; its failure restarts the child.
    pub liveness: Option<Probe>,
}

/// A question and its rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// What is asked.
    pub check: Check,
    /// How often, and what the answers mean.
    pub rules: ProbeRules,
}

/// How a probe is repeated, and how many answers in a row make a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeRules {
    /// From the end of one check to the beginning of the next.
    pub interval: Duration,
    /// How long one check may take; one that takes longer has failed.
    pub timeout: Duration,
    /// How long after the start of the run the first check is made; for liveness, how long after it became ready.
    pub initial_delay: Duration,
    /// How many failures in a row make it fail; at least 1.
    pub failure_threshold: u32,
    /// How many successes in a row make it succeed; at least 1.
    pub success_threshold: u32,
}

impl Probe {
    /// The question with the standard rules.
    pub fn new(check: Check) -> Self {
        let rules = ProbeRules::default();
        Self { check, rules }
    }
}

impl Default for ProbeRules {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            initial_delay: Duration::ZERO,
            failure_threshold: 3,
            success_threshold: 1,
        }
    }
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Check {
    /// A connection is accepted.
    Tcp {
        /// A name or an address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A GET is answered with a status from 200 to 299. Redirects are not followed and the body is not read.
    Http {
        /// A name or an address, without brackets.
        host: String,
        /// The port.
        port: u16,
        /// The path with its query, beginning with `/`.
        path: String,
    },
    /// A command ends with 0.
    Exec(CommandSpec),
    /// A line of the output matches this regular expression. Once matched, it stays so for the run.
    Log {
        /// The expression.
        pattern: String,
    },
    /// The run writes a newline to this descriptor, which it inherits (s6's notification descriptor).
    NotifyFd {
        /// Its number in the run, from 3.
        fd: u32,
    },
    /// The run sends `READY=1` to the socket that `NOTIFY_SOCKET` names (`sd_notify(3)`).
    SdNotify,
}

/// What probes have found of a child, and what it says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProbeStatus {
    /// The run that the latest was heard of.
    pub run: Option<RunId>,
    /// Why the last check of its readiness failed; none if it did not, or there was none.
    pub readiness_failure: Option<String>,
    /// Why the last check of its life failed; none if it did not, or there was none.
    pub liveness_failure: Option<String>,
    /// What the run says of its state (`STATUS=` of `sd_notify(3)`).
    pub text: Option<String>,
    /// How much more time the run has asked for last (`EXTEND_TIMEOUT_USEC=`).
    pub extended_by: Option<Duration>,
    /// Whether the run has said that it is about to end (`STOPPING=1`).
    pub is_stopping: bool,
}

/// What the verdicts of a probe are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Purpose {
    /// Whether the run is ready.
    Readiness(AfterReady),
    /// Whether the run lives.
    Liveness,
}

/// What becomes of a readiness probe once its run is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AfterReady {
    /// It ends: nobody would do anything about a readiness that is lost.
    #[default]
    Stop,
    /// It goes on at the same interval.
    Keep,
}

/// The children whose loss of readiness somebody acts on: those on which another depends with [`OnLost::Stop`], and those
/// below a supervisor on which another depends so.
pub fn kept_after_ready(rules: &TreeRules) -> HashSet<&ChildName> {
    let mut children = Vec::new();
    collect(&rules.root, &mut Vec::new(), &mut children);
    let acted_on: HashSet<&ChildName> = children
        .iter()
        .flat_map(|(child, _)| &child.depends_on)
        .filter(|dependency| dependency.on_lost == OnLost::Stop)
        .map(|dependency| &dependency.on)
        .collect();
    let is_needed = |ancestors: &[&ChildName]| ancestors.iter().any(|name| acted_on.contains(name));
    children
        .into_iter()
        .filter(|(child, ancestors)| acted_on.contains(&child.name) || is_needed(ancestors))
        .map(|(child, _)| &child.name)
        .collect()
}

type Below<'a> = (&'a ChildRules, Vec<&'a ChildName>);

fn collect<'a>(
    supervisor: &'a SupervisorRules,
    ancestors: &mut Vec<&'a ChildName>,
    children: &mut Vec<Below<'a>>,
) {
    ancestors.push(&supervisor.name);
    for member in &supervisor.members {
        match member {
            NodeRules::Child(child) => children.push((child, ancestors.clone())),
            NodeRules::Supervisor(nested) => collect(nested, ancestors, children),
        }
    }
    ancestors.pop();
}

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Answer {
    /// What was asked is so.
    Passed,
    /// It is not so, or could not be found out.
    Failed,
}

/// What a probe finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// The run is ready.
    Ready,
    /// The run was ready and is not any more.
    Unready,
    /// The run does not live any more. The last verdict of its probe.
    Unhealthy,
}

/// What happened to a probe. All but the first two name the check that they are about; what is told of another is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The probe begins.
    Begun,
    /// The probe takes the place of one that was lost.
    Resumed,
    /// A delay is over.
    Due {
        /// Of the check that follows.
        check: u64,
    },
    /// A check has an answer.
    Answered {
        /// Which.
        check: u64,
        /// The answer.
        answer: Answer,
    },
    /// A check took too long.
    TimedOut {
        /// Which.
        check: u64,
    },
    /// Nothing is left of a check.
    Cleared {
        /// Which.
        check: u64,
    },
}

/// What must be done for a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Feed [`Event::Due`] after this delay.
    WakeAfter {
        /// The check that is due then.
        check: u64,
        /// From now.
        delay: Duration,
    },
    /// Begin a check, and feed [`Event::TimedOut`] after this long.
    Check {
        /// Which.
        check: u64,
        /// How long it may take.
        timeout: Duration,
    },
    /// Give up what is left of a check, and feed [`Event::Cleared`] when nothing is.
    Clear {
        /// Which.
        check: u64,
    },
    /// Pass this on.
    Tell(Verdict),
    /// The probe is not needed any more.
    Finish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Checking,
    Clearing,
    Over,
}

/// The machine of one probe of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probing {
    purpose: Purpose,
    rules: ProbeRules,
    phase: Phase,
    /// Of the check that is under way, or comes next.
    check: u64,
    /// Answers of the same kind in a row.
    passed: u32,
    failed: u32,
    is_ready: bool,
}

impl Probing {
    /// A probe that has not begun.
    pub fn new(purpose: Purpose, rules: ProbeRules) -> Self {
        Self {
            purpose,
            rules,
            phase: Phase::Waiting,
            check: 0,
            passed: 0,
            failed: 0,
            is_ready: false,
        }
    }

    /// The same for a run that was found ready before.
    #[must_use]
    pub fn of_a_ready_run(mut self) -> Self {
        self.is_ready = true;
        self
    }

    /// Moves the probe on by one event. Pure: equal inputs from the beginning give equal effects.
    #[must_use]
    pub fn next(&mut self, event: Event) -> Vec<Effect> {
        match (self.phase, event) {
            (Phase::Waiting, Event::Begun) if self.rules.initial_delay.is_zero() => self.ask(),
            (Phase::Waiting, Event::Begun) => vec![self.wake_after(self.rules.initial_delay)],
            (Phase::Waiting, Event::Resumed) => vec![self.wake_after(self.rules.interval)],
            (Phase::Waiting, Event::Due { check }) if check == self.check => self.ask(),
            (Phase::Checking, Event::Answered { check, answer }) if check == self.check => {
                self.judge(answer)
            }
            (Phase::Checking, Event::TimedOut { check }) if check == self.check => {
                self.judge(Answer::Failed)
            }
            (Phase::Clearing, Event::Cleared { check }) if check == self.check => {
                self.phase = Phase::Waiting;
                self.check += 1;
                vec![self.wake_after(self.rules.interval)]
            }
            // Of a check that is over, or told twice.
            (
                Phase::Waiting | Phase::Checking | Phase::Clearing | Phase::Over,
                Event::Begun
                | Event::Resumed
                | Event::Due { .. }
                | Event::Answered { .. }
                | Event::TimedOut { .. }
                | Event::Cleared { .. },
            ) => Vec::new(),
        }
    }

    fn wake_after(&self, delay: Duration) -> Effect {
        Effect::WakeAfter {
            check: self.check,
            delay,
        }
    }

    fn ask(&mut self) -> Vec<Effect> {
        self.phase = Phase::Checking;
        vec![Effect::Check {
            check: self.check,
            timeout: self.rules.timeout,
        }]
    }

    fn judge(&mut self, answer: Answer) -> Vec<Effect> {
        match answer {
            Answer::Passed => (self.passed, self.failed) = (self.passed.saturating_add(1), 0),
            Answer::Failed => (self.passed, self.failed) = (0, self.failed.saturating_add(1)),
        }
        let verdict = self.verdict();
        let is_last = matches!(
            (self.purpose, verdict),
            (Purpose::Readiness(AfterReady::Stop), Some(Verdict::Ready))
                | (Purpose::Liveness, Some(Verdict::Unhealthy))
        );
        let mut effects: Vec<Effect> = verdict.map(Effect::Tell).into_iter().collect();
        if is_last {
            self.phase = Phase::Over;
            effects.push(Effect::Finish);
        } else {
            self.phase = Phase::Clearing;
            effects.push(Effect::Clear { check: self.check });
        }
        effects
    }

    /// Enough answers of one kind in a row say something new; a mixed series says nothing, so what flaps stays as it was.
    fn verdict(&mut self) -> Option<Verdict> {
        let has_passed = self.passed >= self.rules.success_threshold.max(1);
        let has_failed = self.failed >= self.rules.failure_threshold.max(1);
        match self.purpose {
            Purpose::Liveness => has_failed.then_some(Verdict::Unhealthy),
            Purpose::Readiness(_) if has_passed && !self.is_ready => {
                self.is_ready = true;
                Some(Verdict::Ready)
            }
            // Before it was ever ready, how long that may take is the start timeout's business.
            Purpose::Readiness(_) if has_failed && self.is_ready => {
                self.is_ready = false;
                Some(Verdict::Unready)
            }
            Purpose::Readiness(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::restart::Strategy;
    use crate::policy::spec::Dependency;

    const SECOND: Duration = Duration::from_secs(1);
    const KEEP: Purpose = Purpose::Readiness(AfterReady::Keep);

    fn rules(failure_threshold: u32, success_threshold: u32) -> ProbeRules {
        ProbeRules {
            failure_threshold,
            success_threshold,
            ..ProbeRules::default()
        }
    }

    /// The verdicts that a series of answers leads to: `+` passed, `-` failed, `t` timed out.
    fn verdicts(purpose: Purpose, rules: ProbeRules, answers: &str) -> Vec<(usize, Verdict)> {
        let mut probing = Probing::new(purpose, rules);
        let mut effects = probing.next(Event::Begun);
        let mut found = Vec::new();
        for (at, answer) in answers.chars().enumerate() {
            let [Effect::Check { check, .. }] = effects[..] else {
                assert_eq!(effects, [], "nothing but checks follow the one before");
                break;
            };
            effects = probing.next(match answer {
                '+' => Event::Answered {
                    check,
                    answer: Answer::Passed,
                },
                '-' => Event::Answered {
                    check,
                    answer: Answer::Failed,
                },
                _ => Event::TimedOut { check },
            });
            found.extend(effects.iter().filter_map(|effect| match effect {
                Effect::Tell(verdict) => Some((at, *verdict)),
                Effect::WakeAfter { .. }
                | Effect::Check { .. }
                | Effect::Clear { .. }
                | Effect::Finish => None,
            }));
            effects = probing.next(Event::Cleared { check });
            if let [Effect::WakeAfter { check, delay }] = effects[..] {
                assert_eq!(delay, rules.interval);
                effects = probing.next(Event::Due { check });
            }
        }
        found
    }

    #[test]
    fn answers_in_a_row_make_a_verdict() {
        use Verdict::{Ready, Unhealthy, Unready};
        type Row<'a> = (Purpose, u32, u32, &'a str, &'a [(usize, Verdict)]);
        let table: [Row<'_>; 10] = [
            (KEEP, 3, 1, "+", &[(0, Ready)]),
            (KEEP, 3, 1, "-----+", &[(5, Ready)]),
            (KEEP, 3, 2, "+-+-++", &[(5, Ready)]),
            (KEEP, 3, 1, "+--+--+", &[(0, Ready)]),
            (
                KEEP,
                3,
                1,
                "+-t--+",
                &[(0, Ready), (3, Unready), (5, Ready)],
            ),
            (
                KEEP,
                2,
                2,
                "++-+-+--++",
                &[(1, Ready), (7, Unready), (9, Ready)],
            ),
            (
                Purpose::Readiness(AfterReady::Stop),
                1,
                1,
                "-+---",
                &[(1, Ready)],
            ),
            (Purpose::Liveness, 3, 1, "+--+-t-", &[(6, Unhealthy)]),
            (Purpose::Liveness, 1, 1, "----", &[(0, Unhealthy)]),
            (Purpose::Liveness, 0, 0, "+t", &[(1, Unhealthy)]),
        ];
        for (purpose, failures, successes, answers, expected) in table {
            let found = verdicts(purpose, rules(failures, successes), answers);
            assert_eq!(found, expected, "{purpose:?} {answers}");
        }
    }

    #[test]
    fn the_first_check_waits_for_the_initial_delay_only() {
        let delayed = ProbeRules {
            initial_delay: SECOND * 7,
            ..ProbeRules::default()
        };
        let wake = |delay| Effect::WakeAfter { check: 0, delay };
        let check = Effect::Check {
            check: 0,
            timeout: SECOND,
        };
        let begin = |rules| Probing::new(KEEP, rules).next(Event::Begun);
        assert_eq!(begin(delayed), [wake(SECOND * 7)]);
        assert_eq!(begin(ProbeRules::default()), [check]);
        let mut resumed = Probing::new(KEEP, delayed).of_a_ready_run();
        assert_eq!(resumed.next(Event::Resumed), [wake(SECOND)]);
    }

    #[test]
    fn nothing_stale_moves_a_probe() {
        let mut probing = Probing::new(KEEP, ProbeRules::default());
        drop(probing.next(Event::Begun));
        let passed = |check| Event::Answered {
            check,
            answer: Answer::Passed,
        };
        let before = probing.clone();
        for stale in [
            Event::Begun,
            Event::Resumed,
            Event::Due { check: 0 },
            Event::Due { check: 1 },
            passed(1),
            Event::TimedOut { check: 1 },
            Event::Cleared { check: 0 },
        ] {
            assert_eq!(probing.next(stale), [], "{stale:?}");
            assert_eq!(probing, before);
        }
        // The answer comes after its time was over, and before what is left of the check is gone.
        assert_eq!(
            probing.next(Event::TimedOut { check: 0 }),
            [Effect::Clear { check: 0 }]
        );
        assert_eq!(probing.next(passed(0)), []);
        assert_eq!(probing.next(Event::TimedOut { check: 0 }), []);
    }

    #[test]
    fn only_what_somebody_acts_on_is_probed_on() {
        let name = |text: &str| ChildName::new(text).unwrap();
        let child = |text: &str, on: &[(&str, OnLost)]| {
            let depends_on = on.iter().map(|(on, on_lost)| Dependency {
                on_lost: *on_lost,
                ..Dependency::on(name(on))
            });
            NodeRules::Child(ChildRules {
                depends_on: depends_on.collect(),
                ..ChildRules::service(name(text))
            })
        };
        let group = |text: &str, members| {
            let rules = SupervisorRules::new(name(text), Strategy::OneForOne, members);
            NodeRules::Supervisor(rules)
        };
        let rules = TreeRules::new(vec![
            child("db", &[]),
            child("cache", &[]),
            group("pool", vec![group("inner", vec![child("worker", &[])])]),
            child("web", &[("db", OnLost::Stop), ("cache", OnLost::Ignore)]),
            group("edge", vec![child("proxy", &[("pool", OnLost::Stop)])]),
        ]);
        let kept = kept_after_ready(&rules);
        assert_eq!(kept, HashSet::from([&name("db"), &name("worker")]));
    }
}
