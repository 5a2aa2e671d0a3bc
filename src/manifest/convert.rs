//! From what stands in a manifest to its meaning: the only place where text becomes rules.
//!
//! Here *service* and *task* become *child*, replicas become a supervisor, and defaults are filled in from the settings.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use kimi_actors::policy::exit::SuccessCodes;
use kimi_actors::policy::order::MAX_DEPTH;
use kimi_actors::policy::probe::{self, Probes};
use kimi_actors::policy::restart::Strategy;
use kimi_actors::policy::spec::{
    ChildName, ChildRules, CommandSpec, Condition, Dependency, Governor, NodeRules, Order,
    Readiness, StopSpec, SupervisorRules, TreeRules,
};

use crate::document::Span;
use crate::document::decode::Report;
use crate::document::problem::Problem;
use crate::manifest::budget::{Budget, CHILD_BYTES, DEPENDENCY_BYTES, MOST_BYTES};
use crate::manifest::check::{self, Check, restart_of, start_timeout_of};
use crate::manifest::environment::{Environment, ReadVariables, Replica};
use crate::manifest::probe::{Ask, Probe};
use crate::manifest::setup::{Machine, Prepared};
use crate::manifest::wire::{self, At, RestartRule, Service};
use crate::manifest::{LogRules, Refusal, profile};
use crate::quantity;
use crate::settings::{Inputs, Origins, Settings};

/// What the conversion needs besides the manifest.
pub(super) struct Conversion<'a> {
    pub(super) report: &'a Report,
    /// Takes what is allowed, but hardly meant.
    pub(super) warned: &'a Report,
    pub(super) settings: &'a Settings,
    pub(super) origins: &'a Origins,
    pub(super) inputs: &'a Inputs,
    pub(super) directory: &'a Path,
    /// The files of variables that were read, each once.
    pub(super) env_files: RefCell<HashMap<PathBuf, ReadVariables>>,
    /// What this machine was asked.
    pub(super) machine: RefCell<Machine>,
    pub(super) budget: Budget,
}

/// What a manifest means; if anything was reported, it is not to be used.
pub(super) struct Converted {
    pub(super) rules: TreeRules,
    pub(super) commands: Vec<(ChildName, CommandSpec)>,
    pub(super) probes: Vec<(ChildName, Probes)>,
    pub(super) stop_commands: Vec<(ChildName, CommandSpec)>,
    pub(super) logs: Vec<(ChildName, LogRules)>,
    pub(super) on_request: Vec<ChildName>,
    pub(super) refusals: Vec<Refusal>,
    pub(super) notes: Vec<(ChildName, String)>,
    /// What is wrong in other files.
    pub(super) elsewhere: Vec<Problem>,
    /// What is hardly meant outside of the file.
    pub(super) warnings: Vec<Problem>,
}

/// The members of the tree while it is put together.
struct Parts {
    services: HashMap<String, NodeRules>,
    supervisors: HashMap<String, SupervisorRules>,
}

impl Conversion<'_> {
    /// The rules and the commands.
    pub(super) fn convert(&self, wire: &wire::Manifest<'_>) -> Converted {
        let active = profile::active(wire, self.inputs);
        let check = Check {
            report: self.report,
            warned: self.warned,
            wire,
            settings: self.settings,
            active: &active,
        };
        check.all();
        let mut converted = Converted {
            rules: TreeRules {
                limits: self.settings.children.limits(),
                ..TreeRules::new(Vec::new())
            },
            commands: Vec::new(),
            probes: Vec::new(),
            stop_commands: Vec::new(),
            logs: Vec::new(),
            on_request: Vec::new(),
            refusals: Vec::new(),
            notes: Vec::new(),
            elsewhere: Vec::new(),
            warnings: check::unknown_profiles(wire, self.inputs),
        };
        let replicated: HashMap<&str, u16> = wire
            .services
            .iter()
            .filter_map(|service| Some((service.name.value, service.replicas?.value)))
            .collect();
        let mut parts = Parts {
            services: HashMap::new(),
            supervisors: HashMap::new(),
        };
        for service in &wire.services {
            let counts = active.contains(service.name.value) && !self.budget.is_spent();
            if let (true, Some(name)) = (counts, checked(service.name)) {
                let node = self.service(&name, service, &replicated, &mut converted);
                parts.services.insert(service.name.value.to_owned(), node);
            }
        }
        for supervisor in &wire.supervisors {
            if let Some(name) = checked(supervisor.name) {
                let rules = self.supervisor(name, supervisor);
                parts
                    .supervisors
                    .insert(supervisor.name.value.to_owned(), rules);
            }
        }
        if self.budget.is_spent() {
            let message = format!(
                "too large: all commands, environments and dependencies together are more than {}",
                quantity::size_text(MOST_BYTES as u64)
            );
            self.report.wrong(Span::default(), message);
            return converted;
        }
        converted.rules.root.members = self.arrange(wire, parts);
        if self.report.is_clean() {
            check.in_tree(&converted.rules);
            check.stop_chain(&converted.rules, self.origins);
        }
        converted
    }

    /// The members of the root, each with all below it.
    fn arrange(&self, wire: &wire::Manifest<'_>, mut parts: Parts) -> Vec<NodeRules> {
        let lists: HashMap<&str, &wire::Supervisor<'_>> = wire
            .supervisors
            .iter()
            .map(|supervisor| (supervisor.name.value, supervisor))
            .collect();
        let listed: HashSet<&str> = wire
            .supervisors
            .iter()
            .flat_map(|supervisor| supervisor.children.iter().map(|child| child.value))
            .collect();
        wire.names()
            .filter(|name| !listed.contains(name))
            .filter_map(|name| self.take(name, &mut parts, &lists, 1))
            .collect()
    }

    /// Takes a member out, with all below it; none if it was taken before, does not count or has nothing below it that does.
    fn take(
        &self,
        name: &str,
        parts: &mut Parts,
        lists: &HashMap<&str, &wire::Supervisor<'_>>,
        depth: usize,
    ) -> Option<NodeRules> {
        if let Some(node) = parts.services.remove(name) {
            return Some(node);
        }
        let mut supervisor = parts.supervisors.remove(name)?;
        let list = lists.get(name)?;
        if depth > MAX_DEPTH {
            let message = format!("`{name}` stands more than {MAX_DEPTH} supervisors deep");
            self.report.wrong(list.name.span, message);
            return None;
        }
        supervisor.members = list
            .children
            .iter()
            .filter_map(|child| self.take(child.value, parts, lists, depth + 1))
            .collect();
        (!supervisor.members.is_empty()).then_some(NodeRules::Supervisor(supervisor))
    }

    /// A service or task with all that belongs to it; one with replicas is a supervisor of them.
    fn service(
        &self,
        name: &ChildName,
        service: &Service<'_>,
        replicated: &HashMap<&str, u16>,
        converted: &mut Converted,
    ) -> NodeRules {
        let rules = self.child(name.clone(), service, replicated);
        let setup = self.setup(service);
        let environment = self.environment(service, &setup.variables, &mut converted.elsewhere);
        if let Some(logs) = &service.shared.logs {
            self.warned.wrong(
                logs.span,
                "this version writes no log files, so that `logs` does nothing yet",
            );
        }
        if !service.starts_with_all {
            converted.on_request.push(name.clone());
        }
        let mut add = |name: &ChildName, replica: Option<Replica>| {
            self.belongings(name, service, (&environment, &setup), replica, converted);
        };
        let Some(At { value: of, .. }) = service.replicas else {
            add(name, None);
            return NodeRules::Child(rules);
        };
        let each = CHILD_BYTES + rules.depends_on.len() * DEPENDENCY_BYTES;
        if !self.budget.spend(usize::from(of) * each) {
            return NodeRules::Child(rules);
        }
        let members = (0..of).map(|index| {
            let name = name.replica(u32::from(index) + 1);
            add(&name, Some(Replica { index, of }));
            NodeRules::Child(ChildRules {
                name,
                ..rules.clone()
            })
        });
        NodeRules::Supervisor(SupervisorRules {
            // Each replica has its own governor; together they may restart as often as they like.
            intensity: None,
            governor: rules.governor,
            order: Order::AsReady,
            ..SupervisorRules::new(name.clone(), Strategy::OneForOne, members.collect())
        })
    }

    /// What one process of a service executes, how it is asked and how it is stopped.
    fn belongings(
        &self,
        name: &ChildName,
        service: &Service<'_>,
        (environment, setup): (&Environment, &Prepared),
        replica: Option<Replica>,
        converted: &mut Converted,
    ) {
        if self.budget.is_spent() {
            return;
        }
        let environment = environment.of_replica(service, replica);
        let command = |command: &wire::Command<'_>| CommandSpec {
            setup: setup.setup.clone(),
            ..self.command(service, command, &environment)
        };
        if let Some(line) = &service.command {
            converted.commands.push((name.clone(), command(line)));
        }
        if let Some(line) = &service.shared.stop.command {
            converted.stop_commands.push((name.clone(), command(line)));
        }
        if let Some(logs) = &service.shared.logs {
            converted.logs.push((name.clone(), logs.value));
        }
        self.reservations(name, setup, converted);
        let index = replica.map_or(0, |replica| replica.index);
        let probe = |probe: &Probe<'_>, settings: &crate::settings::Probe| probe::Probe {
            check: self.check(service, &probe.ask.value, index, &environment),
            rules: probe.rules(settings.rules()),
        };
        let probes = Probes {
            readiness: service
                .readiness
                .as_ref()
                .map(|own| probe(own, &self.settings.readiness)),
            liveness: service
                .liveness
                .as_ref()
                .map(|own| probe(own, &self.settings.liveness)),
        };
        if probes != Probes::default() {
            converted.probes.push((name.clone(), probes));
        }
    }

    fn check(
        &self,
        service: &Service<'_>,
        ask: &Ask<'_>,
        index: u16,
        environment: &Environment,
    ) -> probe::Check {
        let own = service.port.map(|port| port.value);
        match ask {
            Ask::Tcp(address) => {
                let address = address.of_replica(own, index);
                probe::Check::Tcp {
                    host: address.host,
                    port: address.port,
                }
            }
            Ask::Http(address, path) => {
                let address = address.of_replica(own, index);
                probe::Check::Http {
                    host: address.host,
                    port: address.port,
                    path: path.clone(),
                }
            }
            Ask::Exec(command) => probe::Check::Exec(self.command(service, command, environment)),
            Ask::Log(pattern) => probe::Check::Log {
                pattern: (*pattern).to_owned(),
            },
            Ask::NotifyFd(fd) => probe::Check::NotifyFd { fd: *fd },
            Ask::SdNotify => probe::Check::SdNotify,
        }
    }

    fn reservations(&self, name: &ChildName, setup: &Prepared, converted: &mut Converted) {
        let refusals = setup.refused.iter().map(|refused| Refusal {
            child: name.clone(),
            problem: Problem::new(self.report.place(refused.span), refused.message.clone()),
            is_for_root: refused.is_for_root,
        });
        converted.refusals.extend(refusals);
        let notes = setup.notes.iter().map(|note| (name.clone(), note.clone()));
        converted.notes.extend(notes);
    }

    fn child(
        &self,
        name: ChildName,
        service: &Service<'_>,
        replicated: &HashMap<&str, u16>,
    ) -> ChildRules {
        let shared = &service.shared;
        let reported = service.readiness.is_some();
        let success = shared.success.as_ref();
        ChildRules {
            kind: service.kind,
            restart: restart_of(service, self.settings),
            governor: self.governor(shared.restart),
            success: success.map_or_else(SuccessCodes::default, |success| {
                SuccessCodes::new(
                    success.codes.iter().copied(),
                    success.signals.iter().copied(),
                )
            }),
            stop: self.stop(service),
            readiness: if reported {
                Readiness::Reported
            } else {
                Readiness::Running
            },
            max_runtime: shared.max_runtime.map(|limit| limit.value),
            idle_timeout: shared.idle_timeout.map(|limit| limit.value),
            start_timeout: reported.then(|| start_timeout_of(service, self.settings)),
            depends_on: service
                .depends_on
                .iter()
                .flat_map(|dependency| self.dependency(dependency, replicated))
                .collect(),
            ..ChildRules::service(name)
        }
    }

    /// What is waited for. Replicas are ready when their supervisor is; that they have ended is asked of each.
    fn dependency(
        &self,
        dependency: &wire::Dependency<'_>,
        replicated: &HashMap<&str, u16>,
    ) -> Vec<Dependency> {
        let Some(on) = checked(dependency.on) else {
            return Vec::new();
        };
        let settings = &self.settings.depends_on;
        let with = |on| Dependency {
            on,
            condition: dependency.condition,
            on_restart: dependency
                .on_restart
                .map_or(settings.on_restart, |at| at.value),
            on_lost: dependency.on_lost.map_or(settings.on_lost, |at| at.value),
        };
        match (dependency.condition, replicated.get(dependency.on.value)) {
            (Condition::Completed | Condition::Succeeded, Some(replicas)) => {
                let bytes = usize::from(*replicas) * DEPENDENCY_BYTES;
                let last = if self.budget.spend(bytes) {
                    *replicas
                } else {
                    0
                };
                (1..=last)
                    .map(|ordinal| with(on.replica(u32::from(ordinal))))
                    .collect()
            }
            (Condition::Started | Condition::Ready, _) | (_, None) => vec![with(on)],
        }
    }

    /// The grace stays open unless somebody set it: only then does it lengthen the deadline of a shutdown.
    fn stop(&self, service: &Service<'_>) -> StopSpec {
        let own = &service.shared.stop;
        let of_settings = self
            .origins
            .is_explicit("stop.timeout")
            .then_some(self.settings.stop.timeout);
        StopSpec {
            signal: own.signal.unwrap_or(self.settings.stop.signal.0),
            grace: own.timeout.map(|timeout| timeout.value).or(of_settings),
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

    fn command(
        &self,
        service: &Service<'_>,
        command: &wire::Command<'_>,
        environment: &Environment,
    ) -> CommandSpec {
        let mut spec = match command {
            wire::Command::Argv(program, arguments) => {
                CommandSpec::new(self.program(program), arguments.iter().map(OsString::from))
            }
            wire::Command::Shell(line) => CommandSpec::shell(line),
        };
        spec.cwd = Some(match service.shared.cwd {
            Some(cwd) => self.path(Path::new(cwd)),
            None => self.directory.to_owned(),
        });
        spec.base_env = environment.base;
        let arguments: usize = spec.args.iter().map(|it| it.len()).sum();
        if self.budget.spend(arguments + environment.bytes) {
            spec.env = environment.to_pairs();
        }
        spec
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
    pub(super) fn path(&self, path: &Path) -> PathBuf {
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
