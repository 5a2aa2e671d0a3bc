//! Whether everything that was asked for is up, how long that took, and what it waited for longest.
//!
//! Fed with what observers of the tree are told; says once what became of the start.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use kimi_actors::policy::event::{Fact, TreeEvent};
use kimi_actors::policy::order::{self, Need, Rules};
use kimi_actors::policy::spec::{ChildName, Condition, Kind, TreeRules};
use kimi_actors::policy::time::Moment;

/// Watches a tree start.
#[derive(Clone, Debug)]
pub struct StartUp {
    nodes: Vec<Watched>,
    names: HashMap<ChildName, usize>,
    /// The children in an order in which each stands after all that it can wait for.
    order: Vec<usize>,
    begin: Option<Moment>,
    /// How many that were asked for are neither up nor down for good.
    open: usize,
    /// How many of those are on their way.
    moving: usize,
    /// Whether anything happened that lets others wait in vain: without it nobody need look for them.
    is_any_lost: bool,
    is_over: bool,
}

/// What became of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How long it took until nothing more was to be expected.
    pub took: Duration,
    /// How many services are up and tasks completed.
    pub up: usize,
    /// The chain of those that waited for each other and was the last to be up, the first one first.
    pub chain: Vec<Step>,
    /// What is not up.
    pub down: Vec<Down>,
}

/// One of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Who.
    pub child: ChildName,
    /// From the moment when it was free to start until it let the next one start; of the last one, until it was up.
    pub took: Duration,
}

/// A child that is not up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Down {
    /// Who.
    pub child: ChildName,
    /// Why not.
    pub why: Why,
}

/// Why a child is not up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It failed.
    Failed,
    /// It was stopped.
    Stopped,
    /// It waits for one that is not going to be as it should.
    BlockedBy(ChildName),
}

#[derive(Clone, Debug)]
struct Watched {
    name: ChildName,
    is_asked: bool,
    kind: WatchedKind,
    /// What it waits for, also through the supervisors above it.
    waits: Vec<(usize, Need)>,
    state: State,
    /// When it was first free to start.
    free: Option<Moment>,
    /// When its first process ran.
    ran: Option<Moment>,
    /// When it was first ready.
    ready: Option<Moment>,
    /// When it ended by itself, for good.
    ended: Option<Moment>,
}

#[derive(Clone, Debug)]
enum WatchedKind {
    Child(Kind),
    /// With the nodes below it.
    Supervisor(Range<usize>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It waits, or nobody has asked for it.
    Waiting,
    Moving,
    Ready,
    Completed,
    Failed,
    Stopped,
}

impl State {
    fn is_settled(self) -> bool {
        match self {
            Self::Waiting | Self::Moving => false,
            Self::Ready | Self::Completed | Self::Failed | Self::Stopped => true,
        }
    }

    fn is_up(self) -> bool {
        matches!(self, Self::Ready | Self::Completed)
    }
}

impl StartUp {
    /// Of a tree in which some children were asked for. Rules that cannot be put in order start nothing, so nothing is said.
    pub fn of(rules: &TreeRules, is_asked: impl Fn(&ChildName) -> bool) -> Self {
        let Ok(arrangement) = order::arrange(rules) else {
            return Self::over();
        };
        let places = &arrangement.places;
        let mut nodes: Vec<Watched> = places
            .iter()
            .map(|place| match place.rules {
                Rules::Child(child) => Watched::new(
                    &child.name,
                    WatchedKind::Child(child.kind),
                    is_asked(&child.name),
                ),
                Rules::Supervisor(supervisor) => {
                    Watched::new(&supervisor.name, WatchedKind::Supervisor(0..0), false)
                }
            })
            .collect();
        for gate in &arrangement.gates {
            if gate.need != Need::Begun {
                nodes[gate.to.index()]
                    .waits
                    .push((gate.from.index(), gate.need));
            }
        }
        // Each supervisor stands before its members, and all that is below it right behind it.
        for index in 1..nodes.len() {
            let parent = places[index].parent.index();
            let inherited = nodes[parent].waits.clone();
            nodes[index].waits.extend(inherited);
        }
        let mut ends: Vec<usize> = (1..=nodes.len()).collect();
        for index in (1..nodes.len()).rev() {
            let parent = places[index].parent.index();
            ends[parent] = ends[parent].max(ends[index]);
        }
        for (index, end) in ends.into_iter().enumerate() {
            if let WatchedKind::Supervisor(below) = &mut nodes[index].kind {
                *below = index + 1..end;
            }
        }
        let mut order: Vec<usize> = (0..nodes.len())
            .filter(|index| nodes[*index].is_child())
            .collect();
        order.sort_by_key(|index| arrangement.waves[*index]);
        Self {
            names: (0..)
                .zip(&nodes)
                .map(|(index, node)| (node.name.clone(), index))
                .collect(),
            open: nodes.iter().filter(|node| node.is_asked).count(),
            nodes,
            order,
            begin: None,
            moving: 0,
            is_any_lost: false,
            is_over: false,
        }
    }

    /// One that says nothing.
    pub fn over() -> Self {
        Self {
            nodes: Vec::new(),
            names: HashMap::new(),
            order: Vec::new(),
            begin: None,
            open: 0,
            moving: 0,
            is_any_lost: false,
            is_over: true,
        }
    }

    /// Takes note of an event; says what became of the start when nothing more is to be expected of it.
    pub fn observe(&mut self, event: &TreeEvent) -> Option<Summary> {
        if self.is_over {
            return None;
        }
        let begin = *self.begin.get_or_insert(event.at);
        self.take_note(&event.fact, event.at);
        if self.is_over || self.moving > 0 {
            return None;
        }
        let blocked = if self.open > 0 && self.is_any_lost {
            self.blocked()
        } else {
            HashMap::new()
        };
        if blocked.len() < self.open {
            return None;
        }
        self.is_over = true;
        let summary = self.summary(event.at.since(begin), &blocked);
        // If everything has ended, that is said anyway.
        let is_worth_it = self
            .nodes
            .iter()
            .any(|node| node.is_asked && node.state == State::Ready);
        (is_worth_it || !blocked.is_empty()).then_some(summary)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "facts may be added; one that is not known here changes no state"
    )]
    fn take_note(&mut self, fact: &Fact, at: Moment) {
        let (child, state) = match fact {
            Fact::ShutdownStarted { .. } => {
                self.is_over = true;
                return;
            }
            Fact::Starting { child, .. }
            | Fact::Exited { child, .. }
            | Fact::RestartScheduled { child, .. } => (child, State::Moving),
            Fact::Ready { child, .. } => (child, State::Ready),
            Fact::Completed { child } => (child, State::Completed),
            Fact::Failed { child, .. } => (child, State::Failed),
            Fact::Stopped { child } => (child, State::Stopped),
            Fact::Running { child, .. } => {
                if let Some(node) = self.names.get(child).map(|index| &mut self.nodes[*index]) {
                    node.ran.get_or_insert(at);
                }
                return;
            }
            _ => return,
        };
        let Some(node) = self.names.get(child).map(|index| &mut self.nodes[*index]) else {
            return;
        };
        match state {
            State::Moving => drop(node.free.get_or_insert(at)),
            State::Ready => drop(node.ready.get_or_insert(at)),
            State::Completed | State::Failed => drop(node.ended.get_or_insert(at)),
            State::Waiting | State::Stopped => {}
        }
        self.is_any_lost |= match state {
            State::Failed | State::Stopped => true,
            State::Completed => matches!(node.kind, WatchedKind::Child(Kind::Service)),
            State::Waiting | State::Moving | State::Ready => false,
        };
        let before = std::mem::replace(&mut node.state, state);
        if node.is_asked {
            let open = |state: State| usize::from(!state.is_settled());
            let moving = |state: State| usize::from(state == State::Moving);
            self.open = self.open + open(state) - open(before);
            self.moving = self.moving + moving(state) - moving(before);
        }
    }

    /// Those who wait for what is not going to be, each with one that it waits for.
    fn blocked(&self) -> HashMap<usize, usize> {
        let mut blocked = HashMap::new();
        for &index in &self.order {
            let node = &self.nodes[index];
            if node.is_asked && node.state == State::Waiting {
                let mut blockers = node.waits.iter();
                let by = blockers.find_map(|(from, need)| self.blocker(*from, *need, &blocked));
                if let Some(by) = by {
                    blocked.insert(index, by);
                }
            }
        }
        blocked
    }

    /// Who keeps this need from ever being met, if anybody does.
    fn blocker(&self, from: usize, need: Need, blocked: &HashMap<usize, usize>) -> Option<usize> {
        let node = &self.nodes[from];
        match &node.kind {
            WatchedKind::Child(kind) => self.is_in_vain(from, *kind, need, blocked).then_some(from),
            WatchedKind::Supervisor(_) if node.state == State::Failed => {
                (need != Need::Condition(Condition::Completed)).then_some(from)
            }
            WatchedKind::Supervisor(below) => below.clone().find(|index| {
                let kind = WatchedKind::kind(&self.nodes[*index].kind);
                kind.is_some_and(|kind| self.is_in_vain(*index, kind, Need::Passed, blocked))
            }),
        }
    }

    fn is_in_vain(
        &self,
        from: usize,
        kind: Kind,
        need: Need,
        blocked: &HashMap<usize, usize>,
    ) -> bool {
        let node = &self.nodes[from];
        match (node.state, need) {
            (State::Waiting, _) => blocked.contains_key(&from),
            (State::Moving | State::Ready, _)
            | (_, Need::Begun)
            | (State::Failed | State::Completed, Need::Condition(Condition::Completed))
            | (State::Completed | State::Stopped, Need::Passed)
            | (State::Completed, Need::Condition(Condition::Succeeded | Condition::Started)) => {
                false
            }
            // One that was ready once holds nobody up by its end.
            (State::Failed, Need::Passed) => node.ready.is_none(),
            (State::Completed, Need::Condition(Condition::Ready)) => kind == Kind::Service,
            (State::Failed | State::Stopped, Need::Condition(_)) => true,
        }
    }

    fn summary(&self, took: Duration, blocked: &HashMap<usize, usize>) -> Summary {
        let asked = || {
            self.nodes
                .iter()
                .enumerate()
                .filter(|(_, node)| node.is_asked)
        };
        let why = |index: usize, node: &Watched| match node.state {
            State::Failed => Some(Why::Failed),
            State::Stopped => Some(Why::Stopped),
            State::Waiting => {
                let by = blocked.get(&index)?;
                Some(Why::BlockedBy(self.nodes[*by].name.clone()))
            }
            State::Moving | State::Ready | State::Completed => None,
        };
        let down = asked().filter_map(|(index, node)| {
            let (child, why) = (node.name.clone(), why(index, node)?);
            Some(Down { child, why })
        });
        Summary {
            took,
            up: asked().filter(|(_, node)| node.state.is_up()).count(),
            chain: self.chain(),
            down: down.collect(),
        }
    }

    /// From the last one to be up back to what each waited for longest.
    fn chain(&self) -> Vec<Step> {
        let asked = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| node.is_asked);
        let last = asked
            .filter(|(_, node)| node.state.is_up())
            .filter_map(|(index, node)| Some((node.passed()?, index)))
            .max();
        let mut chain = Vec::new();
        let mut here = last;
        while let Some((released, index)) = here {
            let node = &self.nodes[index];
            let Some(free) = node.free else { break };
            chain.push(Step {
                child: node.name.clone(),
                took: released.since(free),
            });
            let waits = node.waits.iter();
            here = waits
                .filter_map(|(from, need)| self.released(*from, *need))
                // What came true later cannot be what it waited for: it had been true before.
                .filter(|(released, _)| *released <= free)
                .max();
        }
        chain.reverse();
        chain
    }

    /// When this need was met, and by whom.
    fn released(&self, from: usize, need: Need) -> Option<(Moment, usize)> {
        let node = &self.nodes[from];
        match &node.kind {
            WatchedKind::Child(_) => Some((node.met(need)?, from)),
            WatchedKind::Supervisor(below) => below
                .clone()
                .filter(|index| self.nodes[*index].is_child())
                .filter_map(|index| Some((self.nodes[index].passed()?, index)))
                .max(),
        }
    }
}

impl Watched {
    fn new(name: &ChildName, kind: WatchedKind, is_asked: bool) -> Self {
        Self {
            name: name.clone(),
            is_asked,
            kind,
            waits: Vec::new(),
            state: State::Waiting,
            free: None,
            ran: None,
            ready: None,
            ended: None,
        }
    }

    fn is_child(&self) -> bool {
        matches!(self.kind, WatchedKind::Child(_))
    }

    /// When it first held nobody up any more.
    fn passed(&self) -> Option<Moment> {
        self.ready.or(self.ended)
    }

    fn met(&self, need: Need) -> Option<Moment> {
        match need {
            Need::Begun => None,
            Need::Condition(Condition::Started) => self.ran.or(self.ended),
            Need::Condition(Condition::Completed | Condition::Succeeded) => self.ended,
            Need::Passed | Need::Condition(Condition::Ready) => self.passed(),
        }
    }
}

impl WatchedKind {
    fn kind(&self) -> Option<Kind> {
        match self {
            Self::Child(kind) => Some(*kind),
            Self::Supervisor(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimi_actors::policy::event::{FailedBecause, ShutdownReason};
    use kimi_actors::policy::restart::Strategy;
    use kimi_actors::policy::spec::{ChildRules, Dependency, NodeRules, RunId, SupervisorRules};

    fn name(text: &str) -> ChildName {
        ChildName::new(text).unwrap()
    }

    /// `name: on on`, a task if it ends in `!`; `on` is `db` or `db=condition`.
    fn child(line: &str) -> NodeRules {
        let (who, on) = line.split_once(':').unwrap_or((line, ""));
        let mut child = match who.strip_suffix('!') {
            Some(task) => ChildRules::task(name(task)),
            None => ChildRules::service(name(who)),
        };
        child.depends_on = on
            .split_whitespace()
            .map(|on| {
                let (on, condition) = on.split_once('=').unwrap_or((on, "ready"));
                let condition = match condition {
                    "started" => Condition::Started,
                    "completed" => Condition::Completed,
                    "succeeded" => Condition::Succeeded,
                    _ => Condition::Ready,
                };
                Dependency {
                    condition,
                    ..Dependency::on(name(on))
                }
            })
            .collect();
        NodeRules::Child(child)
    }

    fn group(who: &str, members: &[&str]) -> NodeRules {
        let members = members.iter().map(|line| child(line)).collect();
        NodeRules::Supervisor(SupervisorRules::new(
            name(who),
            Strategy::OneForOne,
            members,
        ))
    }

    /// `db starting`, with the tenths of a second at which that is told.
    fn event(at: u64, line: &str) -> TreeEvent {
        let (who, what) = line.split_once(' ').unwrap();
        let (child, run) = (name(who), RunId(1));
        let fact = match what {
            "starting" => Fact::Starting {
                child,
                run,
                ordinal: 1,
            },
            "running" => Fact::Running {
                child,
                run,
                pid: None,
            },
            "ready" => Fact::Ready { child, run },
            "completed" => Fact::Completed { child },
            "stopped" => Fact::Stopped { child },
            "failed" => Fact::Failed {
                child,
                why: FailedBecause::Limit,
            },
            "restarting" => Fact::RestartScheduled {
                child,
                delay: Duration::ZERO,
                unstable: 1,
            },
            "shutdown" => Fact::ShutdownStarted {
                reason: ShutdownReason::Asked,
                budget: None,
            },
            other => panic!("{other}"),
        };
        TreeEvent {
            seq: 1,
            at: Moment::after_begin(Duration::from_millis(at * 100)),
            fact,
        }
    }

    /// What is said, and at which event.
    fn told(members: Vec<NodeRules>, story: &[(u64, &str)]) -> Option<(usize, String)> {
        let mut start = StartUp::of(&TreeRules::new(members), |_| true);
        let mut said = story
            .iter()
            .enumerate()
            .filter_map(|(nth, (at, line))| Some((nth, start.observe(&event(*at, line))?)));
        let (nth, summary) = said.next()?;
        assert!(said.next().is_none(), "it is said once");
        let chain: Vec<String> = summary
            .chain
            .iter()
            .map(|step| format!("{} {}", step.child, step.took.as_millis() / 100))
            .collect();
        let down: Vec<String> = summary
            .down
            .iter()
            .map(|down| match &down.why {
                Why::Failed => format!("{} failed", down.child),
                Why::Stopped => format!("{} stopped", down.child),
                Why::BlockedBy(by) => format!("{} by {by}", down.child),
            })
            .collect();
        let took = summary.took.as_millis() / 100;
        let text = format!(
            "{} up in {took}; {}; {}",
            summary.up,
            chain.join(" > "),
            down.join(", ")
        );
        Some((nth, text))
    }

    fn assert_told(members: Vec<NodeRules>, story: &[(u64, &str)], expected: &str) {
        let last = story.len() - 1;
        assert_eq!(told(members, story), Some((last, expected.to_owned())));
    }

    #[test]
    fn the_slowest_chain_is_that_of_the_last_one_to_be_up() {
        assert_told(
            vec![
                child("db"),
                child("cache"),
                child("api:db cache"),
                child("web:api"),
            ],
            &[
                (0, "db starting"),
                (0, "cache starting"),
                (1, "cache ready"),
                (21, "db ready"),
                (21, "api starting"),
                (30, "api ready"),
                (30, "web starting"),
                (32, "web ready"),
            ],
            "4 up in 32; db 21 > api 9 > web 2; ",
        );
    }

    #[test]
    fn a_chain_goes_through_conditions_lists_and_supervisors() {
        assert_told(
            vec![
                group("store", &["db", "cache"]),
                child("seed!:store"),
                child("web:seed=succeeded"),
                child("side:web=started"),
            ],
            &[
                (0, "db starting"),
                (5, "db ready"),
                (5, "cache starting"),
                (6, "cache ready"),
                (6, "seed starting"),
                (6, "seed running"),
                (9, "seed completed"),
                (9, "web starting"),
                (10, "web running"),
                (10, "side starting"),
                (11, "web ready"),
                (14, "side ready"),
            ],
            "5 up in 14; db 5 > cache 1 > seed 3 > web 1 > side 4; ",
        );
    }

    #[test]
    fn a_start_with_failures_is_over_when_the_rest_waits_in_vain() {
        assert_told(
            vec![
                child("db"),
                child("api:db"),
                child("web:api"),
                child("lone"),
            ],
            &[
                (0, "db starting"),
                (0, "lone starting"),
                (1, "lone ready"),
                (2, "db restarting"),
                (3, "db starting"),
                (4, "db failed"),
            ],
            "1 up in 4; lone 1; db failed, api by db, web by api",
        );
    }

    #[test]
    fn whoever_waits_for_an_end_is_not_blocked_by_a_failure() {
        assert_told(
            vec![
                child("job!"),
                child("after:job=completed"),
                child("never:job=succeeded"),
            ],
            &[
                (0, "job starting"),
                (1, "job failed"),
                (1, "after starting"),
                (2, "after ready"),
            ],
            "1 up in 2; job 1 > after 1; job failed, never by job",
        );
    }

    #[test]
    fn those_listed_after_a_failure_wait_in_vain_and_so_do_those_who_wait_for_their_supervisor() {
        assert_told(
            vec![group("pair", &["first", "second"]), child("after:pair")],
            &[(0, "first starting"), (1, "first failed")],
            "0 up in 1; ; first failed, second by first, after by first",
        );
    }

    #[test]
    fn one_that_was_ready_and_restarts_is_waited_for_again() {
        assert_told(
            vec![child("db"), child("api")],
            &[
                (0, "db starting"),
                (1, "db ready"),
                (1, "api starting"),
                (2, "db restarting"),
                (3, "api ready"),
                (4, "db starting"),
                (5, "db ready"),
            ],
            "2 up in 5; api 2; ",
        );
    }

    #[test]
    fn what_a_shutdown_cuts_short_and_what_has_only_ended_is_not_summed_up() {
        for story in [
            &[(0, "a starting"), (1, "a shutdown"), (2, "a ready")][..],
            &[(0, "a starting"), (1, "a completed")],
            &[(0, "a starting"), (1, "a failed")],
        ] {
            assert_eq!(told(vec![child("a!")], story), None, "{story:?}");
        }
    }

    #[test]
    fn what_was_not_asked_for_is_not_waited_for() {
        let rules = TreeRules::new(vec![child("a"), child("b")]);
        let mut start = StartUp::of(&rules, |child| child.as_str() == "a");
        assert_eq!(start.observe(&event(0, "a starting")), None);
        assert_eq!(start.observe(&event(1, "a ready")).unwrap().up, 1);
    }
}
