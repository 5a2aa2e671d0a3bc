//! Limits, identity and priority of a service: what stands in the manifest, and what of it can be enforced here.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::rc::Rc;

use kimi_actors::os::account::{Account, account};
use kimi_actors::os::{controllers, means};
use kimi_actors::policy::setup::{
    Demand, Identity, Means, Processors, Resource, ResourceLimits, Setup, examine,
};

use crate::document::Span;
use crate::document::record::{At, Record};
use crate::manifest::convert::Conversion;
use crate::manifest::wire::Service;

/// What stands in a manifest, each with its place.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SetupRule<'a> {
    nofile: Option<At<u64>>,
    core: Option<At<u64>>,
    memory: Option<At<u64>>,
    cpu: Option<At<Processors>>,
    pids: Option<At<u64>>,
    umask: Option<At<u32>>,
    nice: Option<At<i8>>,
    oom_score_adj: Option<At<i16>>,
    user: Option<At<&'a str>>,
    group: Option<At<&'a str>>,
    no_new_privs: Option<bool>,
    best_effort: Option<bool>,
}

/// What that means here.
#[derive(Clone, Debug, Default)]
pub(super) struct Prepared {
    pub(super) setup: Option<Box<Setup>>,
    /// What the environment says of its user.
    pub(super) variables: Vec<(OsString, OsString)>,
    pub(super) refused: Vec<Refused>,
    /// What is not kept as it was asked for.
    pub(super) notes: Vec<String>,
}

/// Something that cannot be done.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) span: Span,
    pub(super) message: String,
    /// Root could.
    pub(super) is_for_root: bool,
}

/// What was looked up on this machine, each thing once.
#[derive(Default)]
pub(super) struct Machine {
    means: OnceCell<Means>,
    accounts: HashMap<(String, String), Rc<Result<Account, String>>>,
}

impl Machine {
    fn means(&self, given: Option<&Means>) -> &Means {
        let look = || given.map_or_else(|| means(controllers()), Means::clone);
        self.means.get_or_init(look)
    }

    fn account(&mut self, user: Option<&str>, group: Option<&str>) -> Rc<Result<Account, String>> {
        let text = |name: Option<&str>| name.unwrap_or_default().to_owned();
        let known = self.accounts.entry((text(user), text(group)));
        let look = || Rc::new(account(user, group).map_err(|error| error.to_string()));
        Rc::clone(known.or_insert_with(look))
    }
}

impl<'a> SetupRule<'a> {
    pub(super) fn of(record: &Record<'a>) -> Self {
        let none = Record::default();
        let limits = record.record("limits").unwrap_or(&none);
        let octal = |text: &str| {
            let digits = text.strip_prefix("0o").unwrap_or(text);
            u32::from_str_radix(digits, 8).ok()
        };
        Self {
            nofile: at(limits, "nofile", limits.whole("nofile")),
            core: at(limits, "core", limits.size("core")),
            memory: at(limits, "memory", limits.size("memory")),
            cpu: at(limits, "cpu", limits.number("cpu").map(Processors::new)),
            pids: at(limits, "pids", limits.whole("pids")),
            umask: at(record, "umask", record.text("umask").and_then(octal)),
            nice: at(record, "nice", record.whole("nice")),
            oom_score_adj: at(record, "oom_score_adj", record.whole("oom_score_adj")),
            user: at(record, "user", record.text("user")),
            group: at(record, "group", record.text("group")),
            no_new_privs: record.truth("no_new_privs"),
            best_effort: limits.truth("best_effort"),
        }
    }

    /// What it says, and where it says nothing what the defaults say. A user brings its own group.
    pub(super) fn over(self, defaults: Self) -> Self {
        Self {
            nofile: self.nofile.or(defaults.nofile),
            core: self.core.or(defaults.core),
            memory: self.memory.or(defaults.memory),
            cpu: self.cpu.or(defaults.cpu),
            pids: self.pids.or(defaults.pids),
            umask: self.umask.or(defaults.umask),
            nice: self.nice.or(defaults.nice),
            oom_score_adj: self.oom_score_adj.or(defaults.oom_score_adj),
            user: self.user.or(defaults.user),
            group: match (self.user, self.group) {
                (Some(_), own) => own,
                (None, own) => own.or(defaults.group),
            },
            no_new_privs: self.no_new_privs.or(defaults.no_new_privs),
            best_effort: self.best_effort.or(defaults.best_effort),
        }
    }

    fn setup(&self, identity: Option<Identity>) -> Setup {
        Setup {
            limits: ResourceLimits {
                nofile: value(self.nofile),
                core: value(self.core),
                memory: value(self.memory),
                cpu: value(self.cpu),
                pids: value(self.pids),
            },
            umask: value(self.umask),
            nice: value(self.nice),
            oom_score_adj: value(self.oom_score_adj),
            identity,
            no_new_privs: self.no_new_privs.unwrap_or(false),
            die_with_parent: false,
            best_effort: self.best_effort.unwrap_or(false),
        }
    }

    fn span(&self, demand: Demand) -> Span {
        let found = match demand {
            Demand::Limit(Resource::Nofile) => span(self.nofile),
            Demand::Limit(Resource::Core) => span(self.core),
            Demand::Limit(Resource::Memory) => span(self.memory),
            Demand::Limit(Resource::Cpu) => span(self.cpu),
            Demand::Limit(Resource::Pids) => span(self.pids),
            Demand::Nice => span(self.nice),
            Demand::OomScoreAdj => span(self.oom_score_adj),
            Demand::User => span(self.user).or_else(|| span(self.group)),
            Demand::Group => span(self.group).or_else(|| span(self.user)),
        };
        found.unwrap_or_default()
    }
}

fn at<T>(record: &Record<'_>, key: &str, value: Option<T>) -> Option<At<T>> {
    let span = record.key_span(key)?;
    value.map(|value| At { value, span })
}

fn value<T>(at: Option<At<T>>) -> Option<T> {
    at.map(|at| at.value)
}

fn span<T>(at: Option<At<T>>) -> Option<Span> {
    at.map(|at| at.span)
}

impl Conversion<'_> {
    /// What is to be set up in the processes of a service. What it does without is warned about.
    pub(super) fn setup(&self, service: &Service<'_>) -> Prepared {
        let rule = &service.shared.setup;
        let mut prepared = Prepared::default();
        let identity = self.identity(service, &mut prepared);
        let setup = rule.setup(identity);
        let unasked = Setup {
            best_effort: setup.best_effort,
            ..Setup::default()
        };
        if setup == unasked {
            return prepared;
        }
        let machine = self.machine.borrow();
        let examined = examine(&setup, machine.means(self.inputs.means.as_ref()));
        for unmet in &examined.given_up {
            let message = format!("{unmet}; it is done without");
            self.warned.wrong(rule.span(unmet.demand), message);
        }
        for unmet in &examined.unmet {
            let advice = if unmet.demand.is_share() {
                "leave it out, or accept that with `limits: { best_effort: true }`"
            } else {
                "leave it out, or start kimi-shell as root"
            };
            prepared.refused.push(Refused {
                span: rule.span(unmet.demand),
                message: format!("{unmet}; {advice}"),
                is_for_root: unmet.is_for_root(),
            });
        }
        prepared.refused.sort_by_key(|refused| refused.span.start);
        prepared.notes = examined
            .instead
            .iter()
            .filter_map(|resource| Some((resource.key(), resource.instead()?)))
            .map(|(key, instead)| {
                let name = service.name.value;
                format!("{name}: `limits.{key}` is kept by {instead}")
            })
            .collect();
        prepared.setup = Some(Box::new(setup));
        prepared
    }

    /// Whom its processes run as; who is not known here is refused.
    fn identity(&self, service: &Service<'_>, prepared: &mut Prepared) -> Option<Identity> {
        let SetupRule { user, group, .. } = service.shared.setup;
        let span = span(user).or_else(|| span(group))?;
        let found = self.machine.borrow_mut().account(value(user), value(group));
        match &*found {
            Ok(account) => {
                prepared.variables.clone_from(&account.variables);
                Some(account.identity.clone())
            }
            Err(error) => {
                prepared.refused.push(Refused {
                    span,
                    message: format!("{error}; correct the manifest, or make the account"),
                    is_for_root: false,
                });
                None
            }
        }
    }
}
