//! A tree to try decisions on: what is fed to it and what it orders, in words.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks at some effects, and at no others that may come"
)]

use std::time::Duration;

use crate::policy::event::{Bound, Fact, ShutdownReason};
use crate::policy::exit::Exit;
use crate::policy::restart::{Restart, Strategy};
use crate::policy::spec::{
    ChildName, ChildRules, Condition, Dependency, NodeId, NodeRules, OnLost, OnRestart, Readiness,
    RunId, SupervisorRules, TreeRules,
};
use crate::policy::time::Moment;
use crate::policy::tree::{
    ChildStatus, Effect, Event, Input, Reach, ShutdownMode, State, Timer, Tree,
};

/// The jitter is none.
const MIDDLE: u64 = 1 << 63;

/// A tree, its clock and its timers.
pub(super) struct Trial {
    tree: Tree,
    now: Moment,
    timers: Vec<(Moment, Timer)>,
    /// What the last event led to.
    effects: Vec<Effect>,
}

pub(super) fn name(text: &str) -> ChildName {
    ChildName::new(text).unwrap()
}

/// A service that says itself when it is ready.
pub(super) fn service(text: &str) -> ChildRules {
    ChildRules {
        readiness: Readiness::Reported,
        ..ChildRules::service(name(text))
    }
}

/// A service that depends on others over edges that say all there is to say.
pub(super) fn follower(text: &str, on: &[&str]) -> ChildRules {
    let edge = |on: &&str| Dependency {
        on_restart: OnRestart::Restart,
        on_lost: OnLost::Stop,
        ..Dependency::on(name(on))
    };
    ChildRules {
        depends_on: on.iter().map(edge).collect(),
        ..service(text)
    }
}

pub(super) fn with_condition(rules: ChildRules, condition: Condition) -> ChildRules {
    let changed = |dependency| Dependency {
        condition,
        ..dependency
    };
    ChildRules {
        depends_on: rules.depends_on.into_iter().map(changed).collect(),
        ..rules
    }
}

pub(super) fn group(text: &str, strategy: Strategy, members: Vec<ChildRules>) -> NodeRules {
    let members = members.into_iter().map(NodeRules::Child).collect();
    NodeRules::Supervisor(SupervisorRules::new(name(text), strategy, members))
}

pub(super) fn restarts(rules: ChildRules, restart: Restart) -> ChildRules {
    ChildRules { restart, ..rules }
}

impl Trial {
    /// A tree of children below the root, which is started.
    pub(super) fn of(children: Vec<ChildRules>) -> Self {
        Self::with(children.into_iter().map(NodeRules::Child).collect())
    }

    /// The same with supervisors.
    pub(super) fn with(members: Vec<NodeRules>) -> Self {
        let mut trial = Self {
            tree: Tree::new(&TreeRules::new(members), RunId(1)).unwrap(),
            now: Moment::ZERO,
            timers: Vec::new(),
            effects: Vec::new(),
        };
        trial.feed(Event::StartAll);
        trial
    }

    /// Answers every order to start, and lets whatever says so be ready, until nothing is left to start.
    pub(super) fn all_ready(mut self) -> Self {
        let mut names = self.starts();
        while !names.is_empty() {
            let mut next = Vec::new();
            for name in names {
                self.started(&name);
                next.extend(self.starts());
                self.ready(&name);
                next.extend(self.starts());
            }
            names = next;
        }
        self
    }

    fn starts(&self) -> Vec<String> {
        self.orders()
            .iter()
            .filter_map(|order| order.strip_prefix("start "))
            .map(str::to_owned)
            .collect()
    }

    // What happens.

    /// Feeds an event; what it led to, in words.
    pub(super) fn feed(&mut self, event: Event) -> Vec<String> {
        self.effects = self.tree.next(&Input {
            event,
            now: self.now,
            random: MIDDLE,
        });
        let set = self.effects.iter().filter_map(|effect| match effect {
            Effect::WakeAfter { timer, delay } => Some((self.now + *delay, *timer)),
            _ => None,
        });
        self.timers.extend(set);
        self.timers.sort_by_key(|(due, _)| *due);
        self.orders()
    }

    pub(super) fn id(&self, name: &str) -> NodeId {
        self.tree.find(name).unwrap()
    }

    pub(super) fn run(&self, name: &str) -> RunId {
        self.tree.live_run(self.id(name)).unwrap()
    }

    fn both(&self, name: &str) -> (NodeId, RunId) {
        (self.id(name), self.run(name))
    }

    pub(super) fn started(&mut self, name: &str) -> Vec<String> {
        let (child, run) = self.both(name);
        let pid = Some(1);
        self.feed(Event::Started { child, run, pid })
    }

    pub(super) fn ready(&mut self, name: &str) -> Vec<String> {
        let (child, run) = self.both(name);
        self.feed(Event::Ready { child, run })
    }

    pub(super) fn unready(&mut self, name: &str) -> Vec<String> {
        let (child, run) = self.both(name);
        self.feed(Event::Unready { child, run })
    }

    pub(super) fn unhealthy(&mut self, name: &str) -> Vec<String> {
        let (child, run) = self.both(name);
        self.feed(Event::Unhealthy { child, run })
    }

    pub(super) fn overruns(&mut self, name: &str, bound: Bound) -> Vec<String> {
        let (child, run) = self.both(name);
        self.feed(Event::Overran {
            child,
            run,
            bound,
            limit: Duration::from_secs(10),
            waits_for_input: false,
        })
    }

    pub(super) fn extends(&mut self, name: &str, by: Duration) -> Vec<String> {
        let (child, run) = self.both(name);
        self.feed(Event::StartExtended { child, run, by })
    }

    pub(super) fn exits(&mut self, name: &str, code: i32) -> Vec<String> {
        let (child, run) = self.both(name);
        let exit = Exit::Code(code);
        self.feed(Event::Exited { child, run, exit })
    }

    pub(super) fn start(&mut self, name: &str, reach: Reach) -> Vec<String> {
        let nodes = vec![self.id(name)];
        self.feed(Event::Start { nodes, reach })
    }

    pub(super) fn stop(&mut self, name: &str, reach: Reach) -> Vec<String> {
        let nodes = vec![self.id(name)];
        self.feed(Event::Stop { nodes, reach })
    }

    pub(super) fn restart(&mut self, name: &str) -> Vec<String> {
        let nodes = vec![self.id(name)];
        self.feed(Event::Restart { nodes })
    }

    pub(super) fn shut_down(&mut self) -> Vec<String> {
        self.feed(Event::ShutdownRequested {
            mode: ShutdownMode::Graceful,
            reason: ShutdownReason::Asked,
            budget: None,
        })
    }

    /// Time passes, and timers go off; what they led to.
    pub(super) fn pass(&mut self, span: Duration) -> Vec<String> {
        let until = self.now + span;
        let mut orders = Vec::new();
        while self.timers.first().is_some_and(|(due, _)| *due <= until) {
            let (due, timer) = self.timers.remove(0);
            self.now = due;
            orders.extend(self.feed(Event::Due { timer }));
        }
        self.now = until;
        orders
    }

    // What is seen.

    /// The orders of the last event.
    fn orders(&self) -> Vec<String> {
        let name = |id: &NodeId| self.tree.name(*id).clone();
        let order = |effect: &Effect| match effect {
            Effect::Start { child, .. } => Some(format!("start {}", name(child))),
            Effect::Stop { child, .. } => Some(format!("stop {}", name(child))),
            Effect::Kill { child, .. } => Some(format!("kill {}", name(child))),
            Effect::Finished(_) => Some("finished".to_owned()),
            _ => None,
        };
        self.effects.iter().filter_map(order).collect()
    }

    /// The facts of the last event.
    pub(super) fn facts(&self) -> Vec<Fact> {
        let fact = |effect: &Effect| match effect {
            Effect::Announce(event) => Some(event.fact.clone()),
            _ => None,
        };
        self.effects.iter().filter_map(fact).collect()
    }

    pub(super) fn status(&self, name: &str) -> ChildStatus {
        self.tree.status(self.id(name))
    }

    pub(super) fn state(&self, name: &str) -> State {
        self.tree.state(self.id(name))
    }

    pub(super) fn timers(&self) -> usize {
        self.timers.len()
    }

    pub(super) fn now(&self) -> Moment {
        self.now
    }
}
