//! Edges: dependencies that matter beyond the start.
//!
//! Those who follow a dependency are told of two things, when its life is looked at after it has changed: that another run of it
//! comes after one that ended, and that it is lost. Over an edge that says so they are stopped, those who follow them before them,
//! and wait for their gates as at a start together with their group. That is no restart of their own: it costs no budget, counts
//! nowhere, and leaves what an operator wants as it is.
//!
//! What comes again is a dependency whose run has ended and that is going to start by itself, or that starts after it was down; for
//! a task, that is when an operator runs it again. What is lost is one that is down for good, is no longer ready, or was stopped
//! for a loss itself, and does not meet the condition any more. A supervisor comes again, or is lost, as a whole: what its members
//! do by themselves is its own affair.
//!
//! Who follows another also does not restart by itself as long as that would only be undone: see [`Tree::begin_again`].

use std::collections::HashSet;

use crate::policy::event::Fact;
use crate::policy::order::Edge;
use crate::policy::restart::Restart;
use crate::policy::spec::{NodeId, OnLost, OnRestart};
use crate::policy::tree::node::{Cause, Edges, Life, Look, Node, Origin, Phase, Standing};
use crate::policy::tree::plan::Then;
use crate::policy::tree::status::State;
use crate::policy::tree::{Phase as TreePhase, Tree};

/// Puts the edges at both their ends, and has each supervisor know whom others follow below it.
pub(super) fn lay_edges(nodes: &mut [Node], edges: &[Edge]) {
    for edge in edges {
        edges_of(nodes, edge.to).follows.push(*edge);
        let followers = &mut edges_of(nodes, edge.from).followers;
        followers.push(*edge);
        if followers.len() > 1 {
            continue; // Those above it know it already.
        }
        let mut above = nodes[edge.from.index()].parent;
        while above != NodeId::ROOT {
            let node = &mut nodes[above.index()];
            above = node.parent;
            if let Some(supervisor) = node.supervisor_mut() {
                supervisor.followed.push(edge.from);
            }
        }
    }
}

fn edges_of(nodes: &mut [Node], id: NodeId) -> &mut Edges {
    nodes[id.index()].edges.get_or_insert_default()
}

/// Whether this edge stops who follows when this has become of the dependency.
fn says_so(edge: &Edge, cause: Cause) -> bool {
    match cause {
        Cause::Restart => edge.on_restart == OnRestart::Restart,
        Cause::Loss => edge.on_lost == OnLost::Stop,
    }
}

/// Those who are stopped for what they follow.
struct Yielding {
    cause: Cause,
    children: Vec<NodeId>,
    /// Those who are stopped anyway.
    stopped: HashSet<NodeId>,
}

impl Yielding {
    fn new(cause: Cause, stopped: HashSet<NodeId>) -> Self {
        Self {
            cause,
            children: Vec::new(),
            stopped,
        }
    }
}

impl Tree {
    /// Looks at what became of a node, and stops who follows it over an edge that says so.
    pub(super) fn tell_followers(&mut self, id: NodeId) {
        let is_followed =
            |node: &Node| matches!(&node.edges, Some(edges) if !edges.followers.is_empty());
        if !is_followed(self.node(id)) || self.phase != TreePhase::Running {
            return;
        }
        let Some(cause) = self.take_look(id) else {
            return;
        };
        let mut yielding = Yielding::new(cause, HashSet::new());
        for edge in self.followers(id, cause) {
            if cause == Cause::Restart || !self.holds(id, edge.condition) {
                self.take_along(edge, &mut yielding);
            }
        }
        self.take_their_followers(&mut yielding);
        if !yielding.children.is_empty() {
            self.stop_these(yielding.children, Then::Await);
        }
    }

    /// What has become of a node since the last look.
    fn take_look(&mut self, id: NodeId) -> Option<Cause> {
        let (standing, run) = (self.standing(id), self.node(id).live_run());
        let look = &mut self.node_mut(id).edges.as_mut()?.look;
        let before = std::mem::replace(
            look,
            Look {
                standing,
                run,
                has_run: look.has_run || run.is_some(),
            },
        );
        let has_ended = before.run.is_some() && before.run != run;
        let returns = before.standing == Standing::Down && before.has_run;
        match standing {
            Standing::Up if has_ended || returns => Some(Cause::Restart),
            Standing::Unready | Standing::Down if before.standing != standing => Some(Cause::Loss),
            Standing::Up | Standing::Unready | Standing::Down => None,
        }
    }

    fn standing(&self, id: NodeId) -> Standing {
        match self.node(id).life {
            Life::Live {
                phase: Phase::Unready,
                ..
            } => Standing::Unready,
            // Not lost yet: its supervisor is going to start, and it with that.
            Life::Down(_) if self.state(id) == State::Pending => Standing::Up,
            Life::Down(_) | Life::Pending(Origin::Return(Cause::Loss)) => Standing::Down,
            Life::Live { .. } | Life::Pending(_) | Life::Held | Life::Backoff { .. } => {
                Standing::Up
            }
        }
    }

    /// The edges over which others are stopped for this.
    fn followers(&self, id: NodeId, cause: Cause) -> Vec<Edge> {
        let edges = self.node(id).edges.iter();
        edges
            .flat_map(|edges| &edges.followers)
            .filter(|edge| says_so(edge, cause))
            .copied()
            .collect()
    }

    /// Has who follows stopped; who waits already, or is being stopped, waits for the graver cause.
    fn take_along(&mut self, edge: Edge, yielding: &mut Yielding) {
        if yielding.stopped.contains(&edge.to) {
            return;
        }
        let cause = yielding.cause;
        let node = self.node_mut(edge.to);
        if node.yields.is_some() {
            node.yields = node.yields.max(Some(cause));
        } else if node.is_up() && node.plan.is_none() {
            node.yields = Some(cause);
            yielding.children.push(edge.to);
            self.announce_yielding(edge, cause);
        } else if node.life == Life::Pending(Origin::Return(Cause::Restart)) && cause == Cause::Loss
        {
            self.set_life(edge.to, Life::Pending(Origin::Return(Cause::Loss)));
        }
    }

    /// Adds those who follow these in turn.
    fn take_their_followers(&mut self, yielding: &mut Yielding) {
        let mut next = 0;
        while let Some(id) = yielding.children.get(next) {
            for edge in self.followers(*id, yielding.cause) {
                self.take_along(edge, yielding);
            }
            next += 1;
        }
    }

    fn announce_yielding(&mut self, edge: Edge, cause: Cause) {
        let child = self.node(edge.to).name.clone();
        let dependency = self.node(edge.from).name.clone();
        self.announce(match cause {
            Cause::Restart => Fact::DependencyRestarted { child, dependency },
            Cause::Loss => Fact::DependencyLost { child, dependency },
        });
    }

    /// Adds to the runs that a restart ends those of who follows them, or these nodes, so that they stop first.
    pub(super) fn add_followers(&mut self, restarting: &[NodeId], live: &mut Vec<NodeId>) {
        let starts_again = |id: &&NodeId| self.node(**id).restart != Restart::Never;
        let edges: Vec<Edge> = restarting
            .iter()
            .filter(|id| self.node(**id).live_run().is_some())
            .chain(live.iter().filter(starts_again))
            .flat_map(|id| self.followers(*id, Cause::Restart))
            .collect();
        if edges.is_empty() {
            return;
        }
        let mut yielding = Yielding::new(Cause::Restart, live.iter().copied().collect());
        for edge in edges {
            self.take_along(edge, &mut yielding);
        }
        self.take_their_followers(&mut yielding);
        live.extend(yielding.children);
    }

    /// What a plan had stopped for what it depends on may start when its gates allow.
    pub(super) fn let_return(&mut self, id: NodeId) {
        self.node_mut(id).unmet -= 1;
        if matches!(self.node(id).life, Life::Pending(_)) {
            self.announce_if_blocked(id);
        }
        if self.is_free(id) {
            self.candidates.push_back(id);
        }
    }

    /// Starts a node again by itself: now, or when what it follows is back.
    pub(super) fn begin_again(&mut self, id: NodeId, origin: Origin) {
        match self.waits_for(id) {
            Some(cause) => {
                self.set_life(id, Life::Pending(Origin::Return(cause)));
                self.announce_if_blocked(id);
            }
            None => self.begin(id, origin),
        }
    }

    /// Whether a node would be stopped again for what it depends on if it started now.
    fn waits_for(&self, id: NodeId) -> Option<Cause> {
        let edges = self.node(id).edges.iter().flat_map(|edges| &edges.follows);
        edges
            .filter(|edge| !self.holds(edge.from, edge.condition))
            .filter_map(|edge| {
                let cause = match self.standing(edge.from) {
                    Standing::Up => Cause::Restart,
                    Standing::Unready | Standing::Down => Cause::Loss,
                };
                says_so(edge, cause).then_some(cause)
            })
            .max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    use crate::policy::event::EndedBy;
    use crate::policy::intensity::Intensity;
    use crate::policy::restart::Strategy;
    use crate::policy::spec::{
        ChildRules, Condition, Dependency, Kind, NodeRules, OnLimit, SupervisorRules,
    };
    use crate::policy::tree::trial::{
        Trial, follower, group, name, restarts, service, with_condition,
    };
    use crate::policy::tree::{Event, Reach};

    const NOTHING: [&str; 0] = [];
    const LONG: Duration = Duration::from_secs(3600);

    fn over(rules: ChildRules, on_restart: OnRestart, on_lost: OnLost) -> ChildRules {
        let changed = |dependency| Dependency {
            on_restart,
            on_lost,
            ..dependency
        };
        ChildRules {
            depends_on: rules.depends_on.into_iter().map(changed).collect(),
            ..rules
        }
    }

    /// db ← api ← web.
    fn chain() -> Trial {
        let chain = vec![
            service("db"),
            follower("api", &["db"]),
            follower("web", &["api"]),
        ];
        Trial::of(chain).all_ready()
    }

    /// db ← api, over this edge.
    fn two(on_restart: OnRestart, on_lost: OnLost) -> Trial {
        let api = over(follower("api", &["db"]), on_restart, on_lost);
        Trial::of(vec![service("db"), api]).all_ready()
    }

    #[test]
    fn who_follows_restarts_after_a_dependency_that_ended_those_at_the_end_of_the_chain_first() {
        let mut trial = chain();
        trial.pass(LONG);
        assert_eq!(trial.exits("db", 1), ["start db", "stop web"]);
        let told = |child, dependency| Fact::DependencyRestarted {
            child: name(child),
            dependency: name(dependency),
        };
        assert!(trial.facts().contains(&told("api", "db")));
        assert!(trial.facts().contains(&told("web", "api")));
        assert_eq!(trial.exits("web", 0), ["stop api"]);
        assert_eq!(trial.started("db"), NOTHING);
        assert_eq!(trial.ready("db"), NOTHING);
        assert_eq!(trial.exits("api", 1), ["start api"]);
        trial.started("api");
        assert_eq!(trial.ready("api"), ["start web"]);
        for name in ["api", "web"] {
            let status = trial.status(name);
            assert_eq!(status.ended_by, Some(EndedBy::Dependency));
            assert_eq!((status.runs, status.restarts, status.unstable), (2, 0, 0));
        }
    }

    #[test]
    fn who_is_stopped_for_a_dependency_waits_for_it_and_is_told_so() {
        let mut trial = chain();
        trial.exits("db", 1);
        trial.exits("web", 0);
        trial.exits("api", 0);
        assert_eq!(trial.status("api").blocked_by, [name("db")]);
        assert_eq!(trial.status("web").blocked_by, [name("api")]);
        let waits = |child, blocked_by| Fact::Pending {
            child: name(child),
            blocked_by: name(blocked_by),
        };
        assert!(trial.facts().contains(&waits("api", "db")));
        assert!(trial.facts().contains(&waits("web", "api")));
    }

    #[test]
    fn an_edge_that_says_ignore_touches_nobody() {
        let mut trial = two(OnRestart::Ignore, OnLost::Ignore);
        assert_eq!(trial.unready("db"), NOTHING);
        trial.ready("db");
        trial.unhealthy("db");
        assert_eq!(trial.exits("db", 1), NOTHING);
        trial.pass(LONG);
        assert_eq!(trial.stop("db", Reach::Alone), ["stop db"]);
        assert_eq!(trial.exits("db", 0), NOTHING);
        assert_eq!(trial.start("db", Reach::Alone), ["start db"]);
        assert_eq!(trial.state("api"), State::Ready);
    }

    #[test]
    fn a_restart_is_no_loss_and_a_loss_no_restart() {
        let mut trial = two(OnRestart::Ignore, OnLost::Stop);
        assert_eq!(trial.exits("db", 1), NOTHING);
        trial.pass(LONG);
        trial.started("db");
        trial.ready("db");
        assert_eq!(trial.unready("db"), ["stop api"]);

        let mut trial = two(OnRestart::Restart, OnLost::Ignore);
        assert_eq!(trial.unready("db"), NOTHING);
        trial.stop("db", Reach::Alone);
        assert_eq!(trial.exits("db", 0), NOTHING);
        // It never lives through the start of another run.
        assert_eq!(trial.start("db", Reach::Alone), ["start db", "stop api"]);
    }

    /// In each way in which it can be lost: what is lost, and how it comes back.
    #[test]
    fn who_follows_a_lost_dependency_is_down_until_that_is_back() {
        type Step = fn(&mut Trial) -> Vec<String>;
        let ways: [(Step, Step); 4] = [
            (|trial| trial.unready("db"), |trial| trial.ready("db")),
            (
                |trial| {
                    trial.stop("db", Reach::Alone);
                    trial.exits("db", 0)
                },
                |trial| {
                    trial.start("db", Reach::Connected);
                    trial.started("db");
                    trial.ready("db")
                },
            ),
            (
                |trial| trial.exits("db", 1),
                |trial| {
                    trial.start("db", Reach::Connected);
                    trial.started("db");
                    trial.ready("db")
                },
            ),
            (
                |trial| trial.exits("db", 0),
                |trial| {
                    trial.restart("db");
                    trial.started("db");
                    trial.ready("db")
                },
            ),
        ];
        for (way, (lose, bring_back)) in ways.into_iter().enumerate() {
            let db = restarts(service("db"), Restart::Never);
            let stays = |rules| over(rules, OnRestart::Ignore, OnLost::Stop);
            let (api, web) = (follower("api", &["db"]), follower("web", &["api"]));
            let mut trial = Trial::of(vec![db, stays(api), stays(web)]).all_ready();
            assert_eq!(lose(&mut trial), ["stop web"], "{way}");
            assert_eq!(trial.exits("web", 0), ["stop api"], "{way}");
            assert_eq!(trial.exits("api", 0), NOTHING, "{way}");
            assert_eq!(trial.pass(LONG), NOTHING, "{way}");
            assert_eq!(trial.state("api"), State::Pending, "{way}");
            assert_eq!(bring_back(&mut trial), ["start api"], "{way}");
            trial.started("api");
            assert_eq!(trial.ready("api"), ["start web"], "{way}");
        }
    }

    #[test]
    fn what_still_meets_the_condition_is_not_lost() {
        let task = ChildRules {
            kind: Kind::Task,
            ..restarts(ChildRules::service(name("db")), Restart::Never)
        };
        for condition in [Condition::Started, Condition::Ready, Condition::Succeeded] {
            let api = with_condition(follower("api", &["db"]), condition);
            let mut trial = Trial::of(vec![task.clone(), api]);
            trial.started("db");
            if condition != Condition::Started {
                assert_eq!(trial.exits("db", 0), ["start api"]);
            }
            trial.started("api");
            if condition == Condition::Started {
                assert_eq!(trial.exits("db", 0), NOTHING);
            }
            assert_eq!(trial.state("api"), State::Running);
            // It is run again: that is a restart.
            assert_eq!(
                trial.restart("db"),
                ["start db", "stop api"],
                "{condition:?}"
            );
            trial.started("db");
            trial.exits("db", 0);
            assert_eq!(trial.exits("api", 0), ["start api"], "{condition:?}");
        }
        let api = with_condition(follower("api", &["db"]), Condition::Started);
        let db = restarts(service("db"), Restart::Never);
        let mut trial = Trial::of(vec![db, api]).all_ready();
        assert_eq!(trial.unready("db"), NOTHING);
        assert_eq!(trial.exits("db", 1), ["stop api"]);
    }

    #[test]
    fn an_operators_restart_stops_first_who_follows() {
        let mut trial = chain();
        assert_eq!(trial.restart("db"), ["stop web"]);
        assert_eq!(trial.exits("web", 0), ["stop api"]);
        // Though what it depends on is still ready.
        assert_eq!(trial.exits("api", 0), ["stop db"]);
        assert_eq!(trial.exits("db", 0), ["start db"]);
        trial.started("db");
        assert_eq!(trial.ready("db"), ["start api"]);
        trial.started("api");
        assert_eq!(trial.ready("api"), ["start web"]);
    }

    #[test]
    fn a_restart_of_both_starts_who_follows_after_the_other() {
        let mut trial = chain();
        let nodes = vec![trial.id("api"), trial.id("db")];
        trial.feed(Event::Restart { nodes });
        let yields = |fact: &Fact| matches!(fact, Fact::DependencyRestarted { child, .. } if child.as_str() == "api");
        assert!(!trial.facts().iter().any(yields));
        trial.exits("web", 0);
        assert_eq!(trial.exits("api", 0), ["stop db"]);
        assert_eq!(trial.status("api").ended_by, Some(EndedBy::Supervisor));
        assert_eq!(trial.status("web").ended_by, Some(EndedBy::Dependency));
        assert_eq!(trial.exits("db", 0), ["start db"]);
        trial.started("db");
        assert_eq!(trial.ready("db"), ["start api"]);
    }

    #[test]
    fn nobody_starts_before_all_of_a_plan_are_down() {
        let rules = vec![
            service("db"),
            follower("api", &["db"]),
            follower("web", &["api"]),
            follower("log", &["api"]),
        ];
        let mut trial = Trial::of(rules).all_ready();
        assert_eq!(trial.unready("db"), ["stop log", "stop web"]);
        assert_eq!(trial.exits("web", 0), NOTHING);
        trial.ready("db");
        assert_eq!(trial.exits("log", 0), ["stop api"]);
        assert_eq!(trial.exits("api", 0), ["start api"]);
    }

    #[test]
    fn a_group_stops_who_follows_a_member_before_it() {
        let group = group("g", Strategy::OneForAll, vec![service("a"), service("b")]);
        let api = follower("api", &["a"]);
        let mut trial = Trial::with(vec![group, NodeRules::Child(api)]).all_ready();
        assert_eq!(trial.exits("b", 1), ["stop api"]);
        trial.pass(LONG);
        assert_eq!(trial.exits("api", 0), ["stop a"]);
        assert_eq!(trial.exits("a", 0), ["start a"]);
        trial.started("a");
        assert_eq!(trial.ready("a"), ["start b", "start api"]);
    }

    #[test]
    fn a_group_stops_who_follows_a_supervisor_in_it_before_that() {
        let inner = group("inner", Strategy::OneForOne, vec![service("b")]);
        let members = vec![NodeRules::Child(service("a")), inner];
        let rules = SupervisorRules::new(name("g"), Strategy::OneForAll, members);
        let api = NodeRules::Child(follower("api", &["inner"]));
        let mut trial = Trial::with(vec![NodeRules::Supervisor(rules), api]).all_ready();
        assert_eq!(trial.exits("a", 1), ["stop api"]);
        assert_eq!(trial.exits("api", 0), ["stop b"]);
        trial.exits("b", 0);
        assert_eq!(trial.pass(LONG), ["start a"]);
        trial.started("a");
        assert_eq!(trial.ready("a"), ["start b"]);
        trial.started("b");
        assert_eq!(trial.ready("b"), ["start api"]);
    }

    #[test]
    fn a_member_that_follows_another_restarts_with_the_group() {
        let members = vec![service("a"), follower("b", &["a"])];
        let mut trial = Trial::with(vec![group("g", Strategy::OneForAll, members)]).all_ready();
        assert_eq!(trial.exits("a", 1), ["stop b"]);
        assert_eq!(trial.exits("b", 0), NOTHING);
        assert_eq!(trial.status("b").ended_by, Some(EndedBy::Supervisor));
        assert_eq!(trial.pass(LONG), ["start a"]);
        trial.started("a");
        assert_eq!(trial.ready("a"), ["start b"]);
    }

    #[test]
    fn a_supervisor_comes_again_or_is_lost_as_a_whole() {
        let one_restart = Intensity {
            max_restarts: 1,
            ..Intensity::default()
        };
        let members = [service("a"), service("b"), service("c")].map(NodeRules::Child);
        let group = NodeRules::Supervisor(SupervisorRules {
            intensity: Some(one_restart),
            ..SupervisorRules::new(name("g"), Strategy::OneForOne, members.into())
        });
        let on_group = over(follower("one", &["g"]), OnRestart::Ignore, OnLost::Stop);
        let on_member = over(follower("two", &["c"]), OnRestart::Ignore, OnLost::Stop);
        let rules = vec![
            group,
            NodeRules::Child(on_group),
            NodeRules::Child(on_member),
        ];
        let mut trial = Trial::with(rules).all_ready();
        assert_eq!(trial.exits("a", 1), NOTHING);
        trial.pass(Duration::from_secs(1));
        // The group gives up: first what runs is stopped, and what becomes of that is known when the group is down.
        assert_eq!(trial.exits("a", 1), ["stop c"]);
        assert_eq!(trial.exits("c", 0), ["stop b"]);
        assert_eq!(trial.exits("b", 0), ["stop one", "stop two"]);
        trial.exits("one", 0);
        trial.exits("two", 0);
        assert_eq!(trial.start("g", Reach::Connected), ["start a"]);
        trial.started("a");
        assert_eq!(trial.ready("a"), ["start b"]);
        trial.started("b");
        assert_eq!(trial.ready("b"), ["start c"]);
        trial.started("c");
        assert_eq!(trial.ready("c"), ["start two", "start one"]);
    }

    #[test]
    fn a_member_is_not_lost_while_its_supervisor_is_going_to_start_again() {
        let once = Intensity {
            max_restarts: 0,
            ..Intensity::default()
        };
        let group = NodeRules::Supervisor(SupervisorRules {
            intensity: Some(once),
            on_limit: OnLimit::Escalate,
            ..SupervisorRules::new(
                name("g"),
                Strategy::OneForOne,
                [service("a"), service("b")].map(NodeRules::Child).into(),
            )
        });
        let api = |on_restart, on_lost| over(follower("api", &["b"]), on_restart, on_lost);
        for (on_restart, on_lost, orders) in [
            (OnRestart::Ignore, OnLost::Stop, &[][..]),
            (OnRestart::Restart, OnLost::Ignore, &["stop api"][..]),
        ] {
            let api = NodeRules::Child(api(on_restart, on_lost));
            let mut trial = Trial::with(vec![group.clone(), api]).all_ready();
            assert_eq!(trial.exits("a", 1), ["stop b"]);
            assert_eq!(trial.exits("b", 0), orders);
            assert_eq!(trial.state("g"), State::Backoff);
            assert_eq!(trial.pass(LONG), ["start a"]);
            trial.started("a");
            assert_eq!(trial.ready("a"), ["start b"]);
        }
    }

    #[test]
    fn who_follows_does_not_restart_by_itself_while_that_would_only_be_undone() {
        let mut trial = two(OnRestart::Ignore, OnLost::Stop);
        trial.exits("api", 1);
        assert_eq!(trial.state("api"), State::Backoff);
        trial.unready("db");
        assert_eq!(trial.pass(LONG), NOTHING);
        assert_eq!(trial.status("api").blocked_by, [name("db")]);
        // Not even if it is told to; but alone it is.
        assert_eq!(trial.restart("api"), NOTHING);
        assert_eq!(trial.start("api", Reach::Connected), NOTHING);
        assert_eq!(trial.start("api", Reach::Alone), ["start api"]);
        assert_eq!(trial.ready("db"), NOTHING);
    }

    #[test]
    fn a_single_restart_is_not_gated_where_the_edge_says_ignore() {
        let mut trial = two(OnRestart::Ignore, OnLost::Ignore);
        trial.unready("db");
        trial.exits("api", 1);
        assert_eq!(trial.pass(LONG), ["start api"]);
    }

    #[test]
    fn an_operators_word_holds_for_who_is_stopped_for_a_dependency() {
        // While it is being stopped, and when it is down.
        for is_down in [false, true] {
            let lost = || {
                let mut trial = two(OnRestart::Restart, OnLost::Stop);
                trial.unready("db");
                if is_down {
                    trial.exits("api", 0);
                }
                trial
            };
            let end = |trial: &mut Trial| {
                if !is_down {
                    trial.exits("api", 0);
                }
            };

            let mut trial = lost();
            trial.stop("api", Reach::Connected);
            end(&mut trial);
            assert_eq!(trial.state("api"), State::Stopped);
            assert_eq!(trial.ready("db"), NOTHING);
            assert_eq!(trial.start("api", Reach::Connected), ["start api"]);

            let mut trial = lost();
            trial.stop("api", Reach::Connected);
            trial.start("api", Reach::Connected);
            end(&mut trial);
            assert_eq!(trial.state("api"), State::Pending);
            assert_eq!(trial.ready("db"), ["start api"]);

            let mut trial = lost();
            let orders = trial.shut_down();
            assert_eq!(orders.contains(&"stop db".to_owned()), is_down);
            end(&mut trial);
            let by = trial.status("api").ended_by.unwrap();
            assert_eq!(by == EndedBy::Supervisor, !is_down);
            assert_eq!(trial.state("api"), State::Stopped);
            assert_eq!(trial.exits("db", 0), ["finished"]);
        }
    }

    #[test]
    fn a_dependency_that_flaps_faster_than_who_follows_stops_leads_to_one_run_of_it() {
        let mut trial = two(OnRestart::Restart, OnLost::Stop);
        let run = trial.run("api");
        assert_eq!(trial.unready("db"), ["stop api"]);
        for _ in 0..10 {
            assert_eq!(trial.ready("db"), NOTHING);
            assert_eq!(trial.unready("db"), NOTHING);
        }
        trial.ready("db");
        assert_eq!(trial.run("api"), run);
        assert_eq!(trial.exits("api", 0), ["start api"]);
        assert_eq!(trial.status("api").runs, 2);
    }

    #[test]
    fn who_waits_for_one_that_gives_up_is_lost_to_who_follows_it() {
        let db = service("db");
        let api = follower("api", &["db"]);
        let web = over(follower("web", &["api"]), OnRestart::Ignore, OnLost::Stop);
        let mut trial = Trial::of(vec![db, api, web]).all_ready();
        assert_eq!(trial.exits("db", 1), ["stop api"]);
        assert_eq!(trial.exits("api", 0), NOTHING);
        assert_eq!(trial.state("web"), State::Ready);
        assert_eq!(trial.stop("db", Reach::Alone), ["stop web"]);
    }

    #[test]
    fn who_is_being_stopped_for_a_restart_that_becomes_a_loss_is_lost_to_who_follows_it() {
        let api = follower("api", &["db"]);
        let web = over(follower("web", &["api"]), OnRestart::Ignore, OnLost::Stop);
        let mut trial = Trial::of(vec![service("db"), api, web]).all_ready();
        assert_eq!(trial.exits("db", 1), ["stop api"]);
        assert_eq!(trial.stop("db", Reach::Alone), NOTHING);
        assert_eq!(trial.exits("api", 0), ["stop web"]);
    }

    #[test]
    fn each_of_a_chain_starts_in_the_step_in_which_the_one_before_it_is_ready() {
        let child = |index: usize| {
            let on: Vec<Dependency> = (index > 0)
                .then(|| Dependency::on(name(&format!("c{}", index - 1))))
                .into_iter()
                .collect();
            ChildRules {
                depends_on: on,
                ..service(&format!("c{index}"))
            }
        };
        let mut trial = Trial::of((0..10).map(child).collect());
        for index in 0..10 {
            let (this, next) = (format!("c{index}"), format!("c{}", index + 1));
            trial.pass(Duration::from_secs(1));
            assert_eq!(trial.started(&this), NOTHING);
            let expected = if index < 9 {
                vec![format!("start {next}")]
            } else {
                Vec::new()
            };
            assert_eq!(trial.ready(&this), expected);
            // The facts of both bear the same time, so that a chain of them leaves nothing unexplained.
            let starting = |fact: &Fact| matches!(fact, Fact::Starting { child, .. } if child.as_str() == next);
            assert_eq!(trial.facts().iter().any(starting), index < 9);
        }
    }
}
