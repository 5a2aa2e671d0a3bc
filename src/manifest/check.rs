//! What is wrong, or hardly meant, between the parts of a manifest.

use std::collections::{BTreeSet, HashMap, HashSet};

use kimi_actors::policy::order;
use kimi_actors::policy::restart::Restart;
use kimi_actors::policy::spec::{Condition, Kind, NodeRules, OnLost, OnRestart, TreeRules};

use crate::document::Span;
use crate::document::decode::Report;
use crate::document::problem::{Place, Problem};
use crate::manifest::cycle::cycles;
use crate::manifest::probe::{Probe, timeout_span};
use crate::manifest::profile;
use crate::manifest::wire::{self, At, Dependency, Service};
use crate::quantity::duration_text;
use crate::settings::{Inputs, Origins, Settings};
use crate::words::Words;

/// No manifest has more replicas: beyond that a machine holds no more processes.
const MOST_REPLICAS: u32 = 10_000;

/// What the checks look at.
#[derive(Clone, Copy)]
pub(super) struct Check<'c, 'a> {
    pub(super) report: &'c Report,
    /// Takes what is allowed, but hardly meant.
    pub(super) warned: &'c Report,
    pub(super) wire: &'c wire::Manifest<'a>,
    pub(super) settings: &'c Settings,
    /// The services that count.
    pub(super) active: &'c HashSet<&'a str>,
}

/// What a name belongs to.
#[derive(Clone, Copy)]
enum Named<'c, 'a> {
    Service(&'c Service<'a>),
    Supervisor,
}

/// When a service or task restarts.
pub(super) fn restart_of(service: &Service<'_>, settings: &Settings) -> Restart {
    service.shared.restart.policy.unwrap_or(match service.kind {
        Kind::Service => settings.restart.services,
        Kind::Task => settings.restart.tasks,
    })
}

impl<'a> Check<'_, 'a> {
    /// Everything that can be seen before the rules are made.
    pub(super) fn all(self) {
        self.names();
        self.parents();
        let named = self.named();
        for service in &self.wire.services {
            self.dependencies(service, &named);
            self.probes(service);
            self.bounds_on_time(service);
            self.port(service);
        }
        self.ports_of_all();
        self.replicas_of_all();
        self.cycles();
    }

    fn is_active(self, name: &str) -> bool {
        self.active.contains(name)
    }

    fn names(self) {
        let services: HashSet<&str> = self.wire.services.iter().map(|it| it.name.value).collect();
        for At { value, span } in self.wire.supervisors.iter().map(|it| it.name) {
            if services.contains(value) {
                self.report.wrong(
                    span,
                    format!("`{value}` is the name of a service and of a supervisor"),
                );
            }
        }
    }

    fn unknown_name(self, name: &str, what: &str) -> String {
        let hint = self.report.did_you_mean(name, self.wire.names());
        format!("{what} names `{name}`, which does not exist{hint}")
    }

    /// Each is listed by one supervisor, once, and exists.
    fn parents(self) {
        let known: HashSet<&str> = self.wire.names().collect();
        let mut parents: HashMap<&str, &str> = HashMap::new();
        for supervisor in &self.wire.supervisors {
            let parent = supervisor.name.value;
            for At { value, span } in &supervisor.children {
                if !known.contains(value) {
                    let what = format!("`children` of the supervisor `{parent}`");
                    self.report.wrong(*span, self.unknown_name(value, &what));
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
    }

    fn named(&self) -> HashMap<&'a str, Named<'_, 'a>> {
        let supervisors = self.wire.supervisors.iter();
        let supervisors = supervisors.map(|it| (it.name.value, Named::Supervisor));
        let services = self.wire.services.iter();
        let services = services.map(|it| (it.name.value, Named::Service(it)));
        supervisors.chain(services).collect()
    }

    fn dependencies(self, service: &Service<'a>, named: &HashMap<&'a str, Named<'_, 'a>>) {
        let name = service.name.value;
        let mut seen = HashSet::new();
        for dependency in &service.depends_on {
            let At { value: on, span } = dependency.on;
            if !seen.insert(on) {
                let message =
                    format!("`{on}` stands twice in `depends_on` of the service `{name}`");
                self.report.wrong(span, message);
            }
            match named.get(on) {
                Some(Named::Service(on)) => self.dependency(service, dependency, on),
                Some(Named::Supervisor) => self.dependency_on_supervisor(name, dependency),
                None => {
                    let what = format!("`depends_on` of `{name}`");
                    self.report.wrong(span, self.unknown_name(on, &what));
                }
            }
        }
    }

    fn dependency(self, service: &Service<'a>, dependency: &Dependency<'a>, on: &Service<'a>) {
        let (name, on_name, span) = (service.name.value, on.name.value, dependency.on.span);
        if self.is_active(name) && !self.is_active(on_name) {
            let profiles = on.profiles.join("` or `");
            let example = on.profiles.first().copied().unwrap_or_default();
            self.report.wrong(
                span,
                format!(
                    "`{name}` depends on `{on_name}`, which counts only in the profile `{profiles}`; \
                     add `--profile {example}`, or give both the same profiles"
                ),
            );
        }
        let ends = matches!(
            dependency.condition,
            Condition::Completed | Condition::Succeeded
        );
        let restart = restart_of(on, self.settings);
        if ends && restart == Restart::Always {
            self.warned.wrong(
                span,
                format!(
                    "`{name}` waits for `{on_name}` to end, but `{on_name}` is always restarted"
                ),
            );
        }
        let is_task = on.kind == Kind::Task;
        if let Some(At { span, .. }) = dependency
            .on_lost
            .filter(|at| at.value != OnLost::Ignore && (ends || is_task))
        {
            self.warned.wrong(
                span,
                format!("`{on_name}` is meant to end, so that `on_lost` does nothing for `{name}`"),
            );
        }
        if let Some(At { span, .. }) = dependency
            .on_restart
            .filter(|at| at.value != OnRestart::Ignore && restart == Restart::Never)
        {
            self.warned.wrong(
                span,
                format!(
                    "`{on_name}` never restarts by itself: `on_restart` acts only when somebody starts it again"
                ),
            );
        }
    }

    fn dependency_on_supervisor(self, name: &str, dependency: &Dependency<'_>) {
        if matches!(
            dependency.condition,
            Condition::Completed | Condition::Succeeded
        ) {
            let (on, condition) = (dependency.on.value, dependency.condition.word());
            self.report.wrong(
                dependency.on.span,
                format!(
                    "`{name}` waits for `{on}` to be {condition}, but a supervisor never is; \
                     expected `started` or `ready`"
                ),
            );
        }
    }

    fn probes(self, service: &Service<'a>) {
        let name = service.name.value;
        if let Some(readiness) = &service.readiness {
            if service.kind == Kind::Task {
                self.report.wrong(
                    readiness.ask.span,
                    format!("`{name}` is a task, which is ready when it has succeeded; expected no `readiness`"),
                );
            }
            self.readiness(service, readiness);
        } else if let Some(span) = service.own_start_timeout {
            self.warned.wrong(
                span,
                format!("`{name}` has no `readiness`, so that `start_timeout` does nothing"),
            );
        }
        if let Some(liveness) = &service.liveness {
            if restart_of(service, self.settings) == Restart::Never {
                self.warned.wrong(
                    liveness.ask.span,
                    format!(
                        "`{name}` never restarts: a failure of its `liveness` ends it for good"
                    ),
                );
            }
            self.address(service, liveness, "liveness");
        }
    }

    fn bounds_on_time(self, service: &Service<'a>) {
        let shared = &service.shared;
        if let (Some(whole), Some(idle)) = (shared.max_runtime, shared.idle_timeout)
            && idle.value >= whole.value
        {
            self.warned.wrong(
                idle.span,
                format!(
                    "`{}` may not run for longer than {}, so that `idle_timeout` does nothing",
                    service.name.value,
                    duration_text(whole.value)
                ),
            );
        }
    }

    fn readiness(self, service: &Service<'a>, readiness: &Probe<'a>) {
        let name = service.name.value;
        if let Some(told_by) = readiness.ask.value.told_by() {
            for At { value: key, span } in &readiness.rhythm_keys {
                self.warned.wrong(
                    *span,
                    format!("`{key}` does nothing in the `readiness` of `{name}`: `{told_by}` waits to be told, and asks nothing"),
                );
            }
        } else if let Some(span) = timeout_span(readiness) {
            let timeout = readiness.rules(self.settings.readiness.rules()).timeout;
            let start_timeout = start_timeout_of(service, self.settings);
            if timeout >= start_timeout {
                self.warned.wrong(
                    span,
                    format!(
                        "one try may take {}, but `{name}` must be ready after {}",
                        duration_text(timeout),
                        duration_text(start_timeout)
                    ),
                );
            }
        }
        self.address(service, readiness, "readiness");
    }

    /// Replicas that are all asked at one address cannot be told apart.
    fn address(self, service: &Service<'a>, probe: &Probe<'a>, key: &str) {
        let several = service.replicas.is_some_and(|replicas| replicas.value > 1);
        let own = service.port.map(|port| port.value);
        if let Some(address) = probe.ask.value.address()
            && several
            && own != Some(address.port)
        {
            self.warned.wrong(
                probe.ask.span,
                format!(
                    "the `{key}` of every replica of `{}` asks the same address; one with its `port` goes on with the replicas",
                    service.name.value
                ),
            );
        }
    }

    fn port(self, service: &Service<'a>) {
        let Some(At { value: port, span }) = service.port else {
            return;
        };
        let name = service.name.value;
        let most = count(service) - 1;
        if u32::from(port) + u32::from(most) > u32::from(u16::MAX) {
            self.report.wrong(
                span,
                format!(
                    "the ports of the {} replicas of `{name}` would go beyond {}",
                    count(service),
                    u16::MAX
                ),
            );
        }
        let set = service
            .shared
            .env
            .iter()
            .find(|(key, _)| key.value == "PORT");
        if let Some((key, _)) = set {
            self.warned.wrong(
                key.span,
                format!("`{name}` finds its `port` in `PORT`, so that this value does nothing"),
            );
        }
    }

    fn ports_of_all(self) {
        let mut ranges: Vec<(u32, u32, &Service<'a>, Span)> = self
            .wire
            .services
            .iter()
            .filter(|service| self.is_active(service.name.value))
            .filter_map(|service| {
                let At { value, span } = service.port?;
                let first = u32::from(value);
                Some((first, first + u32::from(count(service)), service, span))
            })
            .collect();
        ranges.sort_by_key(|(first, _, _, span)| (*first, span.start));
        let mut widest: Option<(u32, &str)> = None;
        for (first, end, service, span) in ranges {
            let name = service.name.value;
            if let Some((before, other)) = widest.filter(|(before, _)| first < *before) {
                let last = before.min(end) - 1;
                let ports = if first == last {
                    format!("port {first}")
                } else {
                    format!("ports {first} to {last}")
                };
                self.warned
                    .wrong(span, format!("`{name}` and `{other}` both have {ports}"));
            }
            if widest.is_none_or(|(before, _)| end > before) {
                widest = Some((end, name));
            }
        }
    }

    fn replicas_of_all(self) {
        let mut total: u32 = 0;
        for service in &self.wire.services {
            let Some(At { value, span }) = service.replicas else {
                continue;
            };
            let before = total;
            total = total.saturating_add(u32::from(value));
            if total > MOST_REPLICAS && before <= MOST_REPLICAS {
                self.report.wrong(
                    span,
                    format!(
                        "too many replicas: all services together have at most {MOST_REPLICAS}"
                    ),
                );
            }
        }
    }

    fn cycles(self) {
        let mut reported: HashSet<BTreeSet<&str>> = HashSet::new();
        for cycle in cycles(self.wire) {
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

    /// What counts cannot wait for a supervisor below which nothing does.
    pub(super) fn in_tree(self, rules: &TreeRules) {
        let mut present: HashSet<&str> = HashSet::new();
        let mut stack = vec![&rules.root];
        while let Some(supervisor) = stack.pop() {
            for member in &supervisor.members {
                match member {
                    NodeRules::Child(child) => {
                        present.insert(child.name.as_str());
                    }
                    NodeRules::Supervisor(nested) => {
                        present.insert(nested.name.as_str());
                        stack.push(nested);
                    }
                }
            }
        }
        let services = self.wire.services.iter();
        for service in services.filter(|service| self.is_active(service.name.value)) {
            for At { value: on, span } in service.depends_on.iter().map(|it| it.on) {
                if !present.contains(on) {
                    let name = service.name.value;
                    self.report.wrong(
                        span,
                        format!("`{name}` depends on `{on}`, below which nothing counts in the active profiles"),
                    );
                }
            }
        }
    }

    /// Warns when the stop timeouts along a chain of dependencies are longer than a shutdown may take.
    pub(super) fn stop_chain(self, rules: &TreeRules, origins: &Origins) {
        let signals = &self.settings.signals;
        let budget = signals.graceful_shutdown_timeout;
        if !signals.force_exit_after_timeout
            || !origins.is_explicit("signals.graceful_shutdown_timeout")
        {
            // Otherwise it grows with the chain.
            return;
        }
        let chain = order::arrange(rules)
            .ok()
            .and_then(|arrangement| arrangement.explicit_stop_chain());
        let longest = self
            .wire
            .services
            .iter()
            .filter(|service| self.is_active(service.name.value))
            .filter_map(|service| service.shared.stop.timeout)
            .max_by_key(|timeout| timeout.value);
        if let (Some(chain), Some(At { span, .. })) = (chain, longest)
            && chain > budget
        {
            self.warned.wrong(
                span,
                format!(
                    "the stop timeouts one after another may take {}, but a shutdown ends after {} \
                     (`signals.graceful_shutdown_timeout`): each gets less",
                    duration_text(chain),
                    duration_text(budget)
                ),
            );
        }
    }
}

/// Profiles that are asked for and belong to no service.
pub(super) fn unknown_profiles(wire: &wire::Manifest<'_>, inputs: &Inputs) -> Vec<Problem> {
    profile::unknown(wire, inputs)
        .into_iter()
        .map(|(profile, message)| {
            Problem::new(Place::Flag(format!("--profile {profile}")), message)
        })
        .collect()
}

/// How many of it run.
pub(super) fn count(service: &Service<'_>) -> u16 {
    service.replicas.map_or(1, |replicas| replicas.value)
}

/// By when it must be ready.
pub(super) fn start_timeout_of(service: &Service<'_>, settings: &Settings) -> std::time::Duration {
    let own = service.shared.start_timeout;
    own.map_or(settings.start_timeout, |timeout| timeout.value)
}
