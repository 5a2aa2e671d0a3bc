//! Who waits for whom: the tree laid flat, its gates, and its waves.
//!
//! Starts follow gates: a node begins when every gate into it is met. Stops follow waves in reverse: the wave of a child is the
//! length of the longest chain of children that must be ready before it.
//!
//! Ordering is global. A supervisor's list and every `depends_on` are edges of one graph, over two vertices a node: that it
//! begins, and that it is ready. So a list that contradicts a dependency is a cycle like any other.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::policy::spec::{
    ChildName, ChildRules, Condition, NodeId, NodeRules, OnLost, OnRestart, Order, StopSpec,
    SupervisorRules, TreeRules,
};

/// Supervisors may stand in each other this deep.
pub const MAX_DEPTH: usize = 64;

/// What is wrong with the rules of a tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Two nodes have one name.
    #[error("`{name}` is the name of more than one service or supervisor")]
    DuplicateName {
        /// The name.
        name: ChildName,
    },
    /// A dependency does not exist.
    #[error("`{child}` depends on `{on}`, which does not exist")]
    UnknownDependency {
        /// Who depends.
        child: ChildName,
        /// On what.
        on: ChildName,
    },
    /// Some wait for each other.
    #[error("these wait for each other: {}", chain(path))]
    Cycle {
        /// Each waits for the next; the last is the first again.
        path: Vec<ChildName>,
    },
    /// Supervisors stand in each other too deep.
    #[error("`{name}` stands more than {MAX_DEPTH} supervisors deep")]
    TooDeep {
        /// The first one that is too deep.
        name: ChildName,
    },
}

fn chain(path: &[ChildName]) -> String {
    path.iter()
        .map(ChildName::as_str)
        .collect::<Vec<_>>()
        .join(" → ")
}

/// The tree laid flat, root first, each supervisor before its members.
#[derive(Debug)]
pub struct Arrangement<'a> {
    /// Every node; the index is its [`NodeId`].
    pub places: Vec<Place<'a>>,
    /// Every gate.
    pub gates: Vec<Gate>,
    /// The dependencies that matter beyond the start.
    pub edges: Vec<Edge>,
    /// The wave of each node; of a supervisor, that of its first members.
    pub waves: Vec<u32>,
}

/// A node and where it stands.
#[derive(Debug)]
pub struct Place<'a> {
    /// Its rules.
    pub rules: Rules<'a>,
    /// Its supervisor; the root's is itself.
    pub parent: NodeId,
    /// How many members of its supervisor come before it.
    pub position: u32,
    /// Its members, in order.
    pub members: Vec<NodeId>,
}

/// The rules of a node.
#[derive(Clone, Copy, Debug)]
pub enum Rules<'a> {
    /// Of a child.
    Child(&'a ChildRules),
    /// Of a supervisor.
    Supervisor(&'a SupervisorRules),
}

impl Rules<'_> {
    /// The node's name.
    pub fn name(&self) -> &ChildName {
        match self {
            Self::Child(child) => &child.name,
            Self::Supervisor(supervisor) => &supervisor.name,
        }
    }
}

/// One node that waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Waited for.
    pub from: NodeId,
    /// Who waits.
    pub to: NodeId,
    /// For what.
    pub need: Need,
}

/// A dependency whose restart or loss means something to the dependent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Depended on.
    pub from: NodeId,
    /// Who depends.
    pub to: NodeId,
    /// What must be true of it.
    pub condition: Condition,
    /// What its restart means.
    pub on_restart: OnRestart,
    /// What its loss means.
    pub on_lost: OnLost,
}

/// What a gate waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// That its supervisor has begun.
    Begun,
    /// That the member listed before it is ready, or is not going to be and holds nobody up.
    Passed,
    /// A dependency's condition.
    Condition(Condition),
}

/// Lays the tree flat and checks it; all errors at once, cycles only if there is nothing else.
pub fn arrange(rules: &TreeRules) -> Result<Arrangement<'_>, Vec<RuleError>> {
    let mut errors = Vec::new();
    let places = lay_flat(&rules.root, &mut errors);
    let names = index_names(&places, &mut errors);
    let gates = find_gates(&places, &names, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let waves = find_waves(&places, &gates).map_err(|cycle| vec![cycle])?;
    let edges = find_edges(&places, &names);
    Ok(Arrangement {
        places,
        gates,
        edges,
        waves,
    })
}

impl Arrangement<'_> {
    /// How long a shutdown takes if every child uses up the stop timeout that was set for it by hand: the waves stop one
    /// after another, so each counts with its longest. None if no timeout was set by hand.
    pub fn explicit_stop_chain(&self) -> Option<Duration> {
        let mut longest: BTreeMap<u32, Duration> = BTreeMap::new();
        for (place, wave) in self.places.iter().zip(&self.waves) {
            if let Rules::Child(ChildRules {
                stop: StopSpec {
                    grace: Some(grace), ..
                },
                ..
            }) = place.rules
            {
                let of_wave = longest.entry(*wave).or_default();
                *of_wave = (*grace).max(*of_wave);
            }
        }
        (!longest.is_empty()).then(|| longest.values().sum())
    }
}

fn lay_flat<'a>(root: &'a SupervisorRules, errors: &mut Vec<RuleError>) -> Vec<Place<'a>> {
    let mut places = vec![Place {
        rules: Rules::Supervisor(root),
        parent: NodeId::ROOT,
        position: 0,
        members: Vec::new(),
    }];
    lay_members(NodeId::ROOT, root, 1, &mut places, errors);
    places
}

fn lay_members<'a>(
    parent: NodeId,
    supervisor: &'a SupervisorRules,
    depth: usize,
    places: &mut Vec<Place<'a>>,
    errors: &mut Vec<RuleError>,
) {
    if depth > MAX_DEPTH {
        errors.push(RuleError::TooDeep {
            name: supervisor.name.clone(),
        });
        return;
    }
    for (position, member) in (0..).zip(&supervisor.members) {
        let node = NodeId(u32::try_from(places.len()).expect("a tree has fewer than 2^32 nodes"));
        places[parent.index()].members.push(node);
        let rules = match member {
            NodeRules::Child(child) => Rules::Child(child),
            NodeRules::Supervisor(supervisor) => Rules::Supervisor(supervisor),
        };
        places.push(Place {
            rules,
            parent,
            position,
            members: Vec::new(),
        });
        if let NodeRules::Supervisor(supervisor) = member {
            lay_members(node, supervisor, depth + 1, places, errors);
        }
    }
}

fn index_names<'a>(
    places: &'a [Place<'_>],
    errors: &mut Vec<RuleError>,
) -> HashMap<&'a ChildName, NodeId> {
    let mut names = HashMap::with_capacity(places.len());
    for (node, place) in (0..).map(NodeId).zip(places) {
        if names.insert(place.rules.name(), node).is_some() {
            errors.push(RuleError::DuplicateName {
                name: place.rules.name().clone(),
            });
        }
    }
    names
}

fn find_gates(
    places: &[Place<'_>],
    names: &HashMap<&ChildName, NodeId>,
    errors: &mut Vec<RuleError>,
) -> Vec<Gate> {
    let mut gates = Vec::new();
    for (node, place) in (0..).map(NodeId).zip(places) {
        match place.rules {
            Rules::Supervisor(rules) => {
                gates.extend(place.members.iter().map(|member| Gate {
                    from: node,
                    to: *member,
                    need: Need::Begun,
                }));
                if rules.order == Order::Listed {
                    let pairs = place.members.windows(2);
                    gates.extend(pairs.map(|pair| Gate {
                        from: pair[0],
                        to: pair[1],
                        need: Need::Passed,
                    }));
                }
            }
            Rules::Child(rules) => {
                for dependency in &rules.depends_on {
                    match names.get(&dependency.on) {
                        Some(on) => {
                            gates.push(Gate {
                                from: *on,
                                to: node,
                                need: Need::Condition(dependency.condition),
                            });
                        }
                        None => errors.push(RuleError::UnknownDependency {
                            child: rules.name.clone(),
                            on: dependency.on.clone(),
                        }),
                    }
                }
            }
        }
    }
    gates
}

fn find_edges(places: &[Place<'_>], names: &HashMap<&ChildName, NodeId>) -> Vec<Edge> {
    let mut edges = Vec::new();
    for (to, place) in (0..).map(NodeId).zip(places) {
        let Rules::Child(rules) = place.rules else {
            continue;
        };
        for dependency in &rules.depends_on {
            let says_more =
                dependency.on_restart != OnRestart::Ignore || dependency.on_lost != OnLost::Ignore;
            if let (true, Some(from)) = (says_more, names.get(&dependency.on)) {
                edges.push(Edge {
                    from: *from,
                    to,
                    condition: dependency.condition,
                    on_restart: dependency.on_restart,
                    on_lost: dependency.on_lost,
                });
            }
        }
    }
    edges
}

/// The graph of moments: vertex `2n` is that node n begins, vertex `2n + 1` that it is ready.
struct Moments {
    successors: Vec<Vec<(usize, u32)>>,
    predecessors: Vec<Vec<usize>>,
}

impl Moments {
    fn new(places: &[Place<'_>], gates: &[Gate]) -> Self {
        let vertices = places.len() * 2;
        let mut moments = Self {
            successors: vec![Vec::new(); vertices],
            predecessors: vec![Vec::new(); vertices],
        };
        for (node, place) in places.iter().enumerate() {
            let (begins, ready) = (2 * node, 2 * node + 1);
            match place.rules {
                Rules::Child(_) => moments.add(begins, ready, 1),
                Rules::Supervisor(_) => {
                    moments.add(begins, ready, 0);
                    place
                        .members
                        .iter()
                        .for_each(|member| moments.add(2 * member.index() + 1, ready, 0));
                }
            }
        }
        for gate in gates {
            let is_child = matches!(places[gate.from.index()].rules, Rules::Child(_));
            let (from, weight) = match gate.need {
                Need::Begun => (2 * gate.from.index(), 0),
                Need::Condition(Condition::Started) if is_child => (2 * gate.from.index(), 1),
                Need::Passed | Need::Condition(_) => (2 * gate.from.index() + 1, 0),
            };
            moments.add(from, 2 * gate.to.index(), weight);
        }
        moments
    }

    fn add(&mut self, from: usize, to: usize, weight: u32) {
        self.successors[from].push((to, weight));
        self.predecessors[to].push(from);
    }
}

/// Longest paths in topological order (Kahn).
fn find_waves(places: &[Place<'_>], gates: &[Gate]) -> Result<Vec<u32>, RuleError> {
    let moments = Moments::new(places, gates);
    let mut missing: Vec<usize> = moments.predecessors.iter().map(Vec::len).collect();
    let mut level = vec![0_u32; missing.len()];
    let mut free: Vec<usize> = (0..missing.len())
        .filter(|vertex| missing[*vertex] == 0)
        .collect();
    let mut done = 0;
    while let Some(vertex) = free.pop() {
        done += 1;
        for &(next, weight) in &moments.successors[vertex] {
            level[next] = level[next].max(level[vertex] + weight);
            missing[next] -= 1;
            if missing[next] == 0 {
                free.push(next);
            }
        }
    }
    if done < missing.len() {
        return Err(RuleError::Cycle {
            path: find_cycle(places, &moments, &missing),
        });
    }
    Ok((0..places.len()).map(|node| level[2 * node]).collect())
}

/// Walks back from a vertex that never became free; each step is to one that is waited for, so it must come round.
fn find_cycle(places: &[Place<'_>], moments: &Moments, missing: &[usize]) -> Vec<ChildName> {
    let stuck = |vertex: &usize| missing[*vertex] > 0;
    let mut seen_at = HashMap::new();
    let mut walk = Vec::new();
    let mut vertex = (0..missing.len())
        .find(stuck)
        .expect("a graph that cannot be ordered has a vertex that waits");
    while !seen_at.contains_key(&vertex) {
        seen_at.insert(vertex, walk.len());
        walk.push(vertex);
        vertex = *moments.predecessors[vertex]
            .iter()
            .find(|v| stuck(v))
            .expect("what waits, waits for one that waits");
    }
    let mut path: Vec<ChildName> = walk[seen_at[&vertex]..]
        .iter()
        .map(|vertex| places[vertex / 2].rules.name().clone())
        .collect();
    path.dedup();
    if path.len() > 1 && path.first() == path.last() {
        path.pop();
    }
    path.push(path[0].clone());
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::restart::Strategy;
    use crate::policy::spec::Dependency;

    fn name(text: &str) -> ChildName {
        ChildName::new(text).unwrap()
    }

    fn child(text: &str, on: &[&str]) -> NodeRules {
        let depends_on = on.iter().map(|on| Dependency::on(name(on))).collect();
        NodeRules::Child(ChildRules {
            depends_on,
            ..ChildRules::service(name(text))
        })
    }

    fn group(text: &str, members: Vec<NodeRules>) -> NodeRules {
        NodeRules::Supervisor(SupervisorRules::new(
            name(text),
            Strategy::OneForOne,
            members,
        ))
    }

    fn waves(members: Vec<NodeRules>) -> Vec<(String, u32)> {
        let rules = TreeRules::new(members);
        let arrangement = arrange(&rules).unwrap();
        let is_child = |place: &&Place<'_>| matches!(place.rules, Rules::Child(_));
        let named = arrangement.places.iter().zip(&arrangement.waves);
        named
            .filter(|(place, _)| is_child(place))
            .map(|(place, wave)| (place.rules.name().to_string(), *wave))
            .collect()
    }

    fn errors(members: Vec<NodeRules>) -> Vec<String> {
        let rules = TreeRules::new(members);
        arrange(&rules)
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn dependencies_and_lists_make_waves() {
        let tree = vec![
            child("api", &["db", "queue"]),
            group("store", vec![child("db", &[]), child("cache", &[])]),
            child("queue", &[]),
            child("web", &["api"]),
            child("after", &["store"]),
        ];
        let expected = [
            ("api", 1),
            ("db", 0),
            ("cache", 1),
            ("queue", 0),
            ("web", 2),
            ("after", 2),
        ];
        assert_eq!(
            waves(tree),
            expected.map(|(name, wave)| (name.to_owned(), wave))
        );
    }

    #[test]
    fn cycles_are_told_with_their_path() {
        assert_eq!(
            errors(vec![child("a", &["a"])]),
            ["these wait for each other: a → a"]
        );
        let three = errors(vec![
            child("a", &["b"]),
            child("b", &["c"]),
            child("c", &["a"]),
        ]);
        assert_eq!(three, ["these wait for each other: a → b → c → a"]);
        let list = errors(vec![group(
            "s",
            vec![child("first", &["second"]), child("second", &[])],
        )]);
        assert_eq!(list, ["these wait for each other: first → second → first"]);
        assert!(errors(vec![group("s", vec![child("inner", &["s"])])])[0].contains("inner"));
    }

    #[test]
    fn all_errors_are_told_at_once() {
        let told = errors(vec![child("a", &["x"]), child("a", &["y"])]);
        assert_eq!(told.len(), 3, "{told:?}");
    }

    #[test]
    fn a_deep_tree_is_refused_without_overflowing_the_stack() {
        let mut node = child("leaf", &[]);
        for level in 0..200 {
            node = group(&format!("s{level}"), vec![node]);
        }
        assert!(errors(vec![node])[0].contains("supervisors deep"));
    }
}
