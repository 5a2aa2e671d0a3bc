//! Who needs whom, by name.

use std::collections::{HashMap, HashSet};

use kimi_actors::policy::spec::{
    ChildName, ChildRules, Condition, Kind, NodeRules, SupervisorRules, TreeRules,
};

/// The dependencies of a tree.
pub struct Reach<'a> {
    children: HashMap<&'a ChildName, &'a ChildRules>,
    /// The children below each supervisor.
    below: HashMap<&'a ChildName, Vec<&'a ChildName>>,
}

impl<'a> Reach<'a> {
    /// The dependencies of this tree.
    pub fn of(rules: &'a TreeRules) -> Self {
        let mut reach = Self {
            children: HashMap::new(),
            below: HashMap::new(),
        };
        reach.add(&rules.root);
        reach
    }

    fn add(&mut self, supervisor: &'a SupervisorRules) -> Vec<&'a ChildName> {
        let mut below = Vec::new();
        for member in &supervisor.members {
            match member {
                NodeRules::Child(child) => {
                    self.children.insert(&child.name, child);
                    below.push(&child.name);
                }
                NodeRules::Supervisor(nested) => below.extend(self.add(nested)),
            }
        }
        self.below.insert(&supervisor.name, below.clone());
        below
    }

    /// Whether this is the name of a service, task or supervisor.
    pub fn knows(&self, name: &ChildName) -> bool {
        self.children.contains_key(name) || self.below.contains_key(name)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &'a ChildName> + '_ {
        self.children.keys().chain(self.below.keys()).copied()
    }

    /// The children and supervisors to start for all to run but these: each child that stands below none of these. A supervisor
    /// is not among them, since to start one is to start all below it.
    pub fn all_but(&self, left_out: &[ChildName]) -> Vec<ChildName> {
        let below_left_out: HashSet<&ChildName> = left_out
            .iter()
            .flat_map(|name| {
                let below = self.below.get(name).into_iter().flatten().copied();
                below.chain(std::iter::once(name))
            })
            .collect();
        let mut names: Vec<ChildName> = self
            .children
            .keys()
            .filter(|name| !below_left_out.contains(*name))
            .map(|name| (*name).clone())
            .collect();
        names.sort_unstable();
        names
    }

    /// These, those below them, and all that they depend on.
    pub fn closure(&self, names: &[ChildName]) -> HashSet<ChildName> {
        let mut all = HashSet::new();
        let mut stack: Vec<ChildName> = names.to_vec();
        while let Some(name) = stack.pop() {
            stack.extend(
                self.below
                    .get(&name)
                    .into_iter()
                    .flatten()
                    .map(|name| (*name).clone()),
            );
            let depends_on = self
                .children
                .get(&name)
                .into_iter()
                .flat_map(|child| &child.depends_on);
            stack.extend(
                depends_on
                    .map(|dependency| dependency.on.clone())
                    .filter(|on| !all.contains(on)),
            );
            all.insert(name);
        }
        all
    }

    /// Whether a task must have succeeded before it, which may be what builds its program.
    pub fn follows_a_task(&self, name: &ChildName) -> bool {
        let mut before = self.closure(std::slice::from_ref(name));
        before.remove(name);
        before
            .iter()
            .filter_map(|name| self.children.get(name))
            .any(|child| child.kind == Kind::Task)
            && self.children.get(name).is_some_and(|child| {
                child
                    .depends_on
                    .iter()
                    .any(|dependency| dependency.condition != Condition::Started)
            })
    }
}
