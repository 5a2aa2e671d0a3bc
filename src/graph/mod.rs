//! The order of a tree, drawn: who waits for whom, what starts together, and in which order all of it stops.
//!
//! The order itself is [`order::arrange`]'s, the same that the runtime follows; here it only becomes text.

mod ascii;
mod dot;
mod json;
mod mermaid;

use std::collections::HashSet;
use std::time::Duration;

use kimi_actors::policy::intensity::Intensity;
use kimi_actors::policy::order::{self, Arrangement, Need, Place, RuleError, Rules};
use kimi_actors::policy::restart::Strategy;
use kimi_actors::policy::spec::{
    ChildName, Condition, Kind, NodeId, NodeRules, StopSpec, SupervisorRules, TreeRules,
};

pub use self::ascii::Paint;

/// A tree and its order.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Every node, the root first, each supervisor before its members.
    pub nodes: Vec<Node>,
    /// Who waits for whom.
    pub edges: Vec<Edge>,
    /// What starts together, by indices of nodes.
    pub start: Vec<Vec<usize>>,
    /// What stops together, each wave after the one before it.
    pub stop: Vec<StopWave>,
    /// How long a shutdown may take in all; none: as long as it takes.
    pub limit: Option<Duration>,
}

/// A service, a task or a supervisor.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: ChildName,
    /// What it is.
    pub kind: NodeKind,
    /// The index of its supervisor; none for the root.
    pub parent: Option<usize>,
    /// The indices of its members, in order.
    pub members: Vec<usize>,
    /// The wave in which it starts, from 0; of a supervisor, that of its first members.
    pub wave: usize,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// Runs on.
    Service {
        /// How it is stopped.
        stop: StopSpec,
    },
    /// Runs once.
    Task {
        /// How it is stopped.
        stop: StopSpec,
    },
    /// Has members.
    Supervisor {
        /// Who restarts together.
        strategy: Strategy,
        /// How many restarts are too many.
        intensity: Option<Intensity>,
    },
}

/// One node that waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The index of what is waited for.
    pub from: usize,
    /// The index of who waits.
    pub to: usize,
    /// For what.
    pub wait: Wait,
}

/// What an edge waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A dependency's condition.
    Condition(Condition),
    /// That the member listed before it in its supervisor is ready.
    Listed,
}

/// What is asked to stop together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopWave {
    /// The indices of the nodes.
    pub children: Vec<usize>,
    /// The longest grace of them.
    pub grace: Duration,
}

impl Graph {
    /// Draws a tree whose shutdown may take so long.
    pub fn of(rules: &TreeRules, limit: Option<Duration>) -> Result<Self, Vec<RuleError>> {
        let arrangement = order::arrange(rules)?;
        let nodes: Vec<Node> = arrangement
            .places
            .iter()
            .zip(&arrangement.waves)
            .enumerate()
            .map(|(index, (place, wave))| node(index, place, *wave))
            .collect();
        let start = waves(&nodes);
        let stop = start.iter().rev().map(|wave| stop_wave(&nodes, wave));
        Ok(Self {
            edges: edges(&arrangement),
            stop: stop.collect(),
            start,
            nodes,
            limit,
        })
    }

    /// How long a shutdown takes in which every wave uses up its longest grace.
    pub fn total(&self) -> Duration {
        self.stop.iter().map(|wave| wave.grace).sum()
    }

    /// For people, at most 80 columns wide.
    pub fn ascii(&self, paint: Paint) -> String {
        ascii::text(self, paint)
    }

    /// For Mermaid.
    pub fn mermaid(&self) -> String {
        mermaid::text(self)
    }

    /// For Graphviz.
    pub fn dot(&self) -> String {
        dot::text(self)
    }

    /// For programs.
    pub fn json(&self) -> serde_json::Result<String> {
        json::text(self)
    }

    fn edges_into(&self, node: usize) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| edge.to == node)
    }
}

impl Node {
    fn stop(&self) -> Option<&StopSpec> {
        match &self.kind {
            NodeKind::Service { stop } | NodeKind::Task { stop } => Some(stop),
            NodeKind::Supervisor { .. } => None,
        }
    }

    fn is_child(&self) -> bool {
        self.stop().is_some()
    }
}

/// A tree with the children that are to be kept only, and the supervisors above them.
#[must_use]
pub fn restricted(rules: &TreeRules, keep: impl Fn(&ChildName) -> bool) -> TreeRules {
    let mut rules = rules.clone();
    restrict(&mut rules.root, &keep);
    rules
}

fn restrict(supervisor: &mut SupervisorRules, keep: &impl Fn(&ChildName) -> bool) {
    supervisor.members.retain_mut(|member| match member {
        NodeRules::Child(child) => keep(&child.name),
        NodeRules::Supervisor(nested) => {
            restrict(nested, keep);
            !nested.members.is_empty()
        }
    });
}

fn node(index: usize, place: &Place<'_>, wave: u32) -> Node {
    let kind = match place.rules {
        Rules::Child(child) => {
            let stop = child.stop;
            match child.kind {
                Kind::Service => NodeKind::Service { stop },
                Kind::Task => NodeKind::Task { stop },
            }
        }
        Rules::Supervisor(supervisor) => NodeKind::Supervisor {
            strategy: supervisor.strategy,
            intensity: supervisor.intensity,
        },
    };
    Node {
        name: place.rules.name().clone(),
        kind,
        parent: (index > 0).then(|| place.parent.index()),
        members: place.members.iter().map(|member| member.index()).collect(),
        wave: wave as usize,
    }
}

/// A list that only repeats what a dependency says is not drawn twice, and that members wait for their supervisor is plain.
fn edges(arrangement: &Arrangement<'_>) -> Vec<Edge> {
    let depends: HashSet<(NodeId, NodeId)> = arrangement
        .gates
        .iter()
        .filter(|gate| matches!(gate.need, Need::Condition(_)))
        .map(|gate| (gate.from, gate.to))
        .collect();
    let edge = |gate: &order::Gate| {
        let wait = match gate.need {
            Need::Begun => None,
            Need::Passed if depends.contains(&(gate.from, gate.to)) => None,
            Need::Passed => Some(Wait::Listed),
            Need::Condition(condition) => Some(Wait::Condition(condition)),
        };
        Some(Edge {
            from: gate.from.index(),
            to: gate.to.index(),
            wait: wait?,
        })
    };
    arrangement.gates.iter().filter_map(edge).collect()
}

fn waves(nodes: &[Node]) -> Vec<Vec<usize>> {
    let mut waves: Vec<Vec<usize>> = Vec::new();
    for (index, node) in nodes.iter().enumerate().filter(|(_, node)| node.is_child()) {
        if waves.len() <= node.wave {
            waves.resize(node.wave + 1, Vec::new());
        }
        waves[node.wave].push(index);
    }
    waves
}

fn stop_wave(nodes: &[Node], wave: &[usize]) -> StopWave {
    let graces = wave.iter().filter_map(|child| nodes[*child].stop());
    StopWave {
        children: wave.to_vec(),
        grace: graces.map(StopSpec::grace).max().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimi_actors::policy::spec::{ChildRules, Dependency};

    fn name(text: &str) -> ChildName {
        ChildName::new(text).unwrap()
    }

    fn child(text: &str, on: &[&str], grace: Option<u64>) -> NodeRules {
        let mut child = ChildRules::service(name(text));
        child.depends_on = on.iter().map(|on| Dependency::on(name(on))).collect();
        child.stop.grace = grace.map(Duration::from_secs);
        NodeRules::Child(child)
    }

    fn tree() -> TreeRules {
        let store = SupervisorRules::new(
            name("store"),
            Strategy::RestForOne,
            vec![child("db", &[], Some(9)), child("cache", &["db"], None)],
        );
        TreeRules::new(vec![
            child("api", &["store"], Some(1)),
            NodeRules::Supervisor(store),
            child("other", &[], None),
        ])
    }

    fn named(graph: &Graph, indices: &[usize]) -> Vec<String> {
        let name = |index: &usize| graph.nodes[*index].name.to_string();
        indices.iter().map(name).collect()
    }

    #[test]
    fn waves_start_in_order_and_stop_in_reverse_with_their_longest_grace() {
        let graph = Graph::of(&tree(), None).unwrap();
        let start: Vec<_> = graph.start.iter().map(|wave| named(&graph, wave)).collect();
        assert_eq!(start, [vec!["db", "other"], vec!["cache"], vec!["api"]]);
        let stop: Vec<_> = graph
            .stop
            .iter()
            .map(|wave| (named(&graph, &wave.children), wave.grace.as_secs()))
            .collect();
        let expected = [
            (vec!["api".to_owned()], 1),
            (vec!["cache".to_owned()], 5),
            (vec!["db".to_owned(), "other".to_owned()], 9),
        ];
        assert_eq!(stop, expected);
        assert_eq!(graph.total(), Duration::from_secs(15));
    }

    #[test]
    fn a_list_that_repeats_a_dependency_is_one_edge() {
        let graph = Graph::of(&tree(), None).unwrap();
        let edges: Vec<_> = graph
            .edges
            .iter()
            .map(|edge| (named(&graph, &[edge.from, edge.to]).join(" "), edge.wait))
            .collect();
        let ready = Wait::Condition(Condition::Ready);
        assert_eq!(
            edges,
            [
                ("store api".to_owned(), ready),
                ("db cache".to_owned(), ready)
            ]
        );
    }

    #[test]
    fn a_part_of_a_tree_keeps_the_supervisors_above_it() {
        let part = restricted(&tree(), |child| child.as_str() == "db");
        let graph = Graph::of(&part, None).unwrap();
        let all: Vec<usize> = (0..graph.nodes.len()).collect();
        assert_eq!(named(&graph, &all), ["root", "store", "db"]);
    }
}
