//! From the shape of a manifest to its meaning: the only place where text becomes rules.
//!
//! Here *service* and *task* become *child*, defaults are filled in from the settings, and what is wrong between services
//! (names, dependencies, supervisors, cycles) is reported.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use kimi_actors::policy::exit::SuccessCodes;
use kimi_actors::policy::restart::Restart;
use kimi_actors::policy::spec::{
    ChildName, ChildRules, CommandSpec, Condition, Dependency, Governor, Kind, NodeRules, StopSpec,
    SupervisorRules, TreeRules,
};

use crate::document::Span;
use crate::document::decode::Report;
use crate::manifest::wire::{self, At, RestartRule};
use crate::settings::{Origins, Settings};

/// What the conversion needs besides the manifest.
pub(super) struct Conversion<'a> {
    pub(super) report: &'a Report,
    /// Takes what is allowed, but hardly meant.
    pub(super) warned: &'a Report,
    pub(super) settings: &'a Settings,
    pub(super) origins: &'a Origins,
    pub(super) directory: &'a Path,
}

/// The name that the policy gives the root supervisor.
const ROOT: &str = "root";

/// The members of the tree while it is put together.
struct Parts {
    services: HashMap<String, ChildRules>,
    supervisors: HashMap<String, SupervisorRules>,
}

impl Conversion<'_> {
    /// The rules and the commands; if anything is reported, they are not to be used.
    pub(super) fn convert(
        &self,
        wire: &wire::Manifest<'_>,
    ) -> (TreeRules, Vec<(ChildName, CommandSpec)>) {
        self.check_names(wire);
        let parents = self.check_parents(wire);
        self.check_dependencies(wire);
        self.check_cycles(wire);
        let mut commands = Vec::new();
        let mut parts = Parts {
            services: HashMap::new(),
            supervisors: HashMap::new(),
        };
        for service in &wire.services {
            let Some(name) = checked(service.name) else {
                continue;
            };
            if let Some(command) = self.command(service) {
                commands.push((name.clone(), command));
            }
            let rules = self.child(name, service);
            parts.services.insert(service.name.value.to_owned(), rules);
        }
        for supervisor in &wire.supervisors {
            if let Some(name) = checked(supervisor.name) {
                let rules = self.supervisor(name, supervisor);
                parts
                    .supervisors
                    .insert(supervisor.name.value.to_owned(), rules);
            }
        }
        let names = wire
            .services
            .iter()
            .map(|service| service.name.value)
            .chain(
                wire.supervisors
                    .iter()
                    .map(|supervisor| supervisor.name.value),
            );
        let lists: HashMap<&str, &[At<&str>]> = wire
            .supervisors
            .iter()
            .map(|supervisor| (supervisor.name.value, supervisor.children.as_slice()))
            .collect();
        let members = names
            .filter(|name| !parents.contains(name))
            .filter_map(|name| parts.take(name, &lists))
            .collect();
        (TreeRules::new(members), commands)
    }

    fn check_names(&self, wire: &wire::Manifest<'_>) {
        let mut services = HashSet::new();
        for At { value, span } in wire.services.iter().map(|service| service.name) {
            services.insert(value);
            self.check_name(value, span);
        }
        for At { value, span } in wire.supervisors.iter().map(|supervisor| supervisor.name) {
            self.check_name(value, span);
            if services.contains(value) {
                self.report.wrong(
                    span,
                    format!("`{value}` is the name of a service and of a supervisor"),
                );
            }
        }
    }

    fn check_name(&self, name: &str, span: Span) {
        if let Err(error) = ChildName::new(name) {
            self.report.wrong(span, error.to_string());
        } else if name.contains('.') {
            let message = format!("`{name}` is not a name here; `.N` is kept for replicas");
            self.report.wrong(span, message);
        } else if name == ROOT {
            let message = format!("`{ROOT}` is the name of the supervisor above all others");
            self.report.wrong(span, message);
        }
    }

    /// Every name that some supervisor lists; each may be listed once, and must exist.
    fn check_parents<'a>(&self, wire: &wire::Manifest<'a>) -> HashSet<&'a str> {
        let known: HashSet<&str> = all_names(wire).collect();
        let mut parents: HashMap<&str, &str> = HashMap::new();
        for supervisor in &wire.supervisors {
            let parent = supervisor.name.value;
            for At { value, span } in &supervisor.children {
                if !known.contains(value) {
                    let what = format!("`children` of the supervisor `{parent}`");
                    let message = wire::unknown_name(self.report, value, &what, all_names(wire));
                    self.report.wrong(*span, message);
                } else if let Some(first) = parents.insert(value, parent) {
                    let message = if first == parent {
                        format!("`{value}` stands twice in `children` of `{parent}`")
                    } else {
                        format!(
                            "`{value}` is a child of `{first}` already; expected one supervisor for each"
                        )
                    };
                    self.report.wrong(*span, message);
                }
            }
        }
        parents.into_keys().collect()
    }

    fn check_dependencies(&self, wire: &wire::Manifest<'_>) {
        let known: HashSet<&str> = all_names(wire).collect();
        let always: HashSet<&str> = wire
            .services
            .iter()
            .filter(|service| self.restart_of(service) == Restart::Always)
            .map(|service| service.name.value)
            .collect();
        for service in &wire.services {
            let name = service.name.value;
            for (on, condition) in &service.depends_on {
                if !known.contains(on.value) {
                    let what = format!("`depends_on` of `{name}`");
                    let message = wire::unknown_name(self.report, on.value, &what, all_names(wire));
                    self.report.wrong(on.span, message);
                } else if matches!(condition, Condition::Completed | Condition::Succeeded)
                    && always.contains(on.value)
                {
                    self.warned.wrong(
                        on.span,
                        format!(
                            "`{name}` waits for `{on}` to end, but `{on}` is always restarted",
                            on = on.value
                        ),
                    );
                }
            }
        }
    }

    fn check_cycles(&self, wire: &wire::Manifest<'_>) {
        let mut reported: HashSet<BTreeSet<&str>> = HashSet::new();
        for cycle in cycles(wire) {
            let names: BTreeSet<&str> = cycle.names.iter().copied().collect();
            if reported.insert(names) {
                let mut path = cycle.names;
                path.extend(path.first().copied());
                let path = path.join(" → ");
                self.report
                    .wrong(cycle.span, format!("these wait for each other: {path}"));
            }
        }
    }

    fn restart_of(&self, service: &wire::Service<'_>) -> Restart {
        service.restart.policy.unwrap_or(match service.kind {
            Kind::Service => self.settings.restart.services,
            Kind::Task => self.settings.restart.tasks,
        })
    }

    fn child(&self, name: ChildName, service: &wire::Service<'_>) -> ChildRules {
        let restart = self.restart_of(service);
        let dependencies = service.depends_on.iter().filter_map(|(on, condition)| {
            let on = ChildName::new(on.value).ok()?;
            Some(Dependency {
                condition: *condition,
                ..Dependency::on(on)
            })
        });
        ChildRules {
            kind: service.kind,
            restart,
            governor: self.governor(service.restart),
            success: SuccessCodes::new(
                service.success_codes.iter().copied(),
                service.success_signals.iter().copied(),
            ),
            stop: self.stop(service),
            depends_on: dependencies.collect(),
            ..ChildRules::service(name)
        }
    }

    /// The grace stays open unless somebody set it: only then does it lengthen the deadline of a shutdown.
    fn stop(&self, service: &wire::Service<'_>) -> StopSpec {
        let of_settings = self
            .origins
            .is_explicit("stop.timeout")
            .then_some(self.settings.stop.timeout);
        StopSpec {
            signal: service.stop_signal.unwrap_or(self.settings.stop.signal.0),
            grace: service.stop_timeout.or(of_settings),
        }
    }

    fn governor(&self, rule: RestartRule) -> Governor {
        let mut governor = self.settings.restart.governor();
        if let Some(limit) = &mut governor.limit {
            limit.max_restarts = rule.max_restarts.unwrap_or(limit.max_restarts);
            limit.window = rule.window.unwrap_or(limit.window);
        }
        governor.on_limit = rule.on_limit.unwrap_or(governor.on_limit);
        let backoff = &mut governor.backoff;
        backoff.initial = rule.initial.unwrap_or(backoff.initial);
        backoff.factor = rule.factor.unwrap_or(backoff.factor);
        backoff.max = rule.max.unwrap_or(backoff.max);
        backoff.jitter = rule.jitter.unwrap_or(backoff.jitter);
        backoff.reset_after = rule.reset_after.unwrap_or(backoff.reset_after);
        governor
    }

    fn supervisor(&self, name: ChildName, wire: &wire::Supervisor<'_>) -> SupervisorRules {
        let base = SupervisorRules::new(name, wire.strategy, Vec::new());
        let mut intensity = self.settings.restart.intensity();
        intensity.max_restarts = wire.max_restarts.unwrap_or(intensity.max_restarts);
        intensity.window = wire.window.unwrap_or(intensity.window);
        SupervisorRules {
            intensity: Some(intensity),
            on_limit: wire.on_limit.unwrap_or(base.on_limit),
            restart: wire.restart.policy.unwrap_or(base.restart),
            governor: self.governor(wire.restart),
            ..base
        }
    }

    fn command(&self, service: &wire::Service<'_>) -> Option<CommandSpec> {
        let mut command = match service.command.as_ref()? {
            wire::Command::Argv(program, arguments) => {
                CommandSpec::new(self.program(program), arguments.iter().map(OsString::from))
            }
            wire::Command::Shell(line) => CommandSpec::shell(line),
        };
        command.cwd = Some(match service.cwd {
            Some(cwd) => self.path(Path::new(cwd)),
            None => self.directory.to_owned(),
        });
        command.env = service
            .env
            .iter()
            .map(|(key, value)| (OsString::from(key), OsString::from(value)))
            .collect();
        Some(command)
    }

    /// A name without a slash is looked up in `PATH` by whoever starts it.
    fn program(&self, program: &str) -> OsString {
        if program.contains('/') {
            self.path(Path::new(program)).into_os_string()
        } else {
            program.into()
        }
    }

    /// Relative to the manifest; `..` stays, since what it means depends on links.
    fn path(&self, path: &Path) -> PathBuf {
        self.directory
            .join(path)
            .components()
            .filter(|component| *component != Component::CurDir)
            .collect()
    }
}

/// A name that follows the grammar; what does not was reported before.
fn checked(name: At<&str>) -> Option<ChildName> {
    ChildName::new(name.value).ok()
}

fn all_names<'a>(wire: &wire::Manifest<'a>) -> impl Iterator<Item = &'a str> {
    let services = wire.services.iter().map(|service| service.name.value);
    let supervisors = wire.supervisors.iter().map(|it| it.name.value);
    services.chain(supervisors)
}

impl Parts {
    /// Takes a member out, with all below it; none if it was taken before.
    fn take(&mut self, name: &str, lists: &HashMap<&str, &[At<&str>]>) -> Option<NodeRules> {
        if let Some(child) = self.services.remove(name) {
            return Some(NodeRules::Child(child));
        }
        let mut supervisor = self.supervisors.remove(name)?;
        let children = lists.get(name).copied().unwrap_or_default();
        supervisor.members = children
            .iter()
            .filter_map(|child| self.take(child.value, lists))
            .collect();
        Some(NodeRules::Supervisor(supervisor))
    }
}

/// Names that wait for each other, in the order of waiting, and where one of them says so.
struct Cycle<'a> {
    names: Vec<&'a str>,
    span: Span,
}

/// A moment in the start of a member. A supervisor has begun before its first member begins, and is done after its last.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Moment<'a> {
    Begun(&'a str),
    Done(&'a str),
}

impl<'a> Moment<'a> {
    fn name(self) -> &'a str {
        match self {
            Self::Begun(name) | Self::Done(name) => name,
        }
    }
}

/// What each moment waits for, and where that is written.
type Waits<'a> = HashMap<Moment<'a>, Vec<(Moment<'a>, Span)>>;

fn waits<'a>(wire: &wire::Manifest<'a>) -> Waits<'a> {
    let mut waits: Waits<'a> = HashMap::new();
    for service in &wire.services {
        let name = service.name.value;
        waits
            .entry(Moment::Done(name))
            .or_default()
            .push((Moment::Begun(name), service.name.span));
        for (on, _) in &service.depends_on {
            waits
                .entry(Moment::Begun(name))
                .or_default()
                .push((Moment::Done(on.value), on.span));
        }
    }
    for supervisor in &wire.supervisors {
        let name = supervisor.name.value;
        let mut before: Option<&str> = None;
        for At { value: child, span } in &supervisor.children {
            let begun = waits.entry(Moment::Begun(child)).or_default();
            begun.push((Moment::Begun(name), *span));
            if let Some(before) = before {
                begun.push((Moment::Done(before), *span));
            }
            before = Some(child);
            waits
                .entry(Moment::Done(name))
                .or_default()
                .push((Moment::Done(child), *span));
        }
    }
    waits
}

/// The first cycles that a walk along all waits closes.
///
/// The walk keeps its own stack: a chain of dependencies may be as long as a file.
fn cycles<'a>(wire: &wire::Manifest<'a>) -> Vec<Cycle<'a>> {
    const MOST: usize = 20;
    let waits = waits(wire);
    let mut done: HashSet<Moment<'a>> = HashSet::new();
    let mut cycles = Vec::new();
    for start in all_names(wire).map(Moment::Done) {
        let mut path: Vec<(Moment<'a>, usize)> = vec![(start, 0)];
        let mut on_path: HashMap<Moment<'a>, usize> = HashMap::from([(start, 0)]);
        while let Some((here, next)) = path.last_mut() {
            let here = *here;
            let wait = waits.get(&here).and_then(|waits| waits.get(*next));
            *next += 1;
            match wait {
                None => {
                    done.insert(here);
                    on_path.remove(&here);
                    path.pop();
                }
                Some((on, span)) => {
                    if let Some(first) = on_path.get(on) {
                        if cycles.len() == MOST {
                            return cycles;
                        }
                        cycles.push(Cycle {
                            names: names_of(&path[*first..]),
                            span: *span,
                        });
                    } else if !done.contains(on) {
                        on_path.insert(*on, path.len());
                        path.push((*on, 0));
                    }
                }
            }
        }
    }
    cycles
}

/// The names on a path, each once in a row.
fn names_of<'a>(path: &[(Moment<'a>, usize)]) -> Vec<&'a str> {
    let mut names: Vec<&str> = path.iter().map(|(moment, _)| moment.name()).collect();
    names.dedup();
    while names.len() > 1 && names.first() == names.last() {
        names.pop();
    }
    names
}
