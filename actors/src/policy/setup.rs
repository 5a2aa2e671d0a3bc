//! What is set up in a process before its program runs: limits, identity, priority.
//!
//! A [`Setup`] says what is asked for, [`Means`] what can be done here and now. [`examine`] brings both together: the
//! [`Action`]s, in the one order in which none takes away what the next one needs, and what cannot be done.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is set up in a process before its program runs. Nothing of it, and the process is as its supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// What it may use at most.
    pub limits: ResourceLimits,
    /// The permissions that its files do not get.
    pub umask: Option<u32>,
    /// How much it gives way to others, from −20 to 19.
    pub nice: Option<i8>,
    /// How soon it is killed when memory is short, from −1000 to 1000.
    pub oom_score_adj: Option<i16>,
    /// Whom it runs as.
    pub identity: Option<Identity>,
    /// Whether it and what it starts can never gain privileges.
    pub no_new_privs: bool,
    /// Whether the kernel kills it at the death of the supervisor. What it starts itself is not killed with it, and a program
    /// that gains privileges by being executed is not either (`PR_SET_PDEATHSIG` in prctl(2)).
    pub die_with_parent: bool,
    /// Whether it starts although a limit, `nice` or `oom_score_adj` cannot be enforced.
    pub best_effort: bool,
}

/// What a process, with all that it starts, may use at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimits {
    /// Open descriptors of each process.
    pub nofile: Option<u64>,
    /// The size of a core dump, in bytes.
    pub core: Option<u64>,
    /// Memory, in bytes.
    pub memory: Option<u64>,
    /// Processors.
    pub cpu: Option<Processors>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// A number of processors, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processors(pub u32);

impl Processors {
    /// Half a processor is 0.5. Rounded to thousandths, and at least ten of them: the kernel takes no less.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a conversion of a number that is out of range takes the nearest"
    )]
    pub fn new(number: f64) -> Self {
        Self(((number * 1000.0).round() as u32).max(10))
    }
}

/// Whom a process runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The user as asked for, for messages; none: the supervisor's.
    pub user: Option<String>,
    /// The group as asked for; none: that of the user.
    pub group: Option<String>,
    /// The number of the user.
    pub uid: u32,
    /// The number of the group.
    pub gid: u32,
    /// The supplementary groups, that of `gid` included.
    pub groups: Vec<u32>,
}

/// What can be done for a process here and now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Means {
    /// The controllers of the control groups that runs get.
    pub controllers: Controllers,
    /// The supervisor's user, if its real, effective and saved one are the same.
    pub uid: Option<u32>,
    /// The same of its group.
    pub gid: Option<u32>,
    /// Whether it may become anybody.
    pub becomes_anybody: bool,
    /// Whether it may raise hard limits and lower `oom_score_adj`.
    pub raises_limits: bool,
    /// The lowest nice value that it may give.
    pub least_nice: i8,
    /// Its own `oom_score_adj`.
    pub oom_score_adj: i16,
    /// Its hard limits; none: without limit.
    pub hard: HardLimits,
}

/// Hard limits of a process; none: without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardLimits {
    /// `RLIMIT_NOFILE`.
    pub nofile: Option<u64>,
    /// `RLIMIT_CORE`.
    pub core: Option<u64>,
    /// `RLIMIT_AS`.
    pub memory: Option<u64>,
    /// `RLIMIT_NPROC`.
    pub pids: Option<u64>,
}

/// Which controllers the control group of a run has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Controllers {
    /// `memory`.
    pub memory: bool,
    /// `pids`.
    pub pids: bool,
    /// `cpu`.
    pub cpu: bool,
}

/// Something that is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Resource {
    /// Open descriptors.
    Nofile,
    /// The size of core dumps.
    Core,
    /// Memory.
    Memory,
    /// Processors.
    Cpu,
    /// Processes and threads.
    Pids,
}

/// What sees to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Enforcement {
    /// A controller of its control group.
    Controller,
    /// A limit that the process itself has.
    Rlimit,
    /// Nothing can.
    None,
}

/// One thing that is done in the process, in the order in which they are listed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sets how soon it is killed when memory is short.
    OomScoreAdj(i16),
    /// Sets a soft and a hard limit.
    Limit(Resource, u64),
    /// Sets the permissions that its files do not get.
    Umask(u32),
    /// Sets how much it gives way.
    Nice(i8),
    /// Sets the supplementary groups.
    Groups,
    /// Sets the real, effective and saved group.
    Group(u32),
    /// The same for the user.
    User(u32),
    /// Looks whether it is who it should be, and cannot go back.
    Verify {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
    },
    /// Gives up gaining privileges.
    NoNewPrivs,
    /// Dies with the supervisor. After the change of user, which undoes it.
    DieWithParent,
}

/// A part of what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Demand {
    /// A limit.
    Limit(Resource),
    /// How much it gives way.
    Nice,
    /// How soon it is killed when memory is short.
    OomScoreAdj,
    /// The user.
    User,
    /// The group.
    Group,
}

/// Why something cannot be enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// Only a controller could, and there is none.
    NoController,
    /// Root is not bound by the limit, and there is no controller.
    RootIsFree,
    /// The supervisor's own hard limit is lower, and it may not raise it.
    HardLimit(u64),
    /// Only root may give a nice value this low.
    LeastNice(i8),
    /// Only root may give protection that the supervisor does not have.
    LeastOomScoreAdj(i16),
    /// Only root may become somebody else.
    NotRoot,
}

/// Something that is asked for and cannot be enforced here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{demand}` cannot be enforced here: {}", .because.text(*.demand))]
pub struct Unmet {
    /// What.
    pub demand: Demand,
    /// Why not.
    pub because: Because,
}

/// What becomes of a [`Setup`] here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examined {
    /// What is done in the process.
    pub actions: Vec<Action>,
    /// What cannot be done, so that it must not start.
    pub unmet: Vec<Unmet>,
    /// What cannot be done, and is done without.
    pub given_up: Vec<Unmet>,
    /// Limits of the whole service that are kept for each process instead.
    pub instead: Vec<Resource>,
}

impl Resource {
    /// Its key in a manifest, without `limits.`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Nofile => "nofile",
            Self::Core => "core",
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
        }
    }

    /// What sees to its limit for a process of this kind of user.
    pub fn enforcement(self, controllers: Controllers, is_root: bool) -> Enforcement {
        match self {
            Self::Memory if controllers.memory => Enforcement::Controller,
            Self::Cpu if controllers.cpu => Enforcement::Controller,
            Self::Pids if controllers.pids => Enforcement::Controller,
            Self::Nofile | Self::Core | Self::Memory => Enforcement::Rlimit,
            Self::Pids if !is_root => Enforcement::Rlimit,
            // Root may have as many processes as it likes (setrlimit(2)).
            Self::Pids | Self::Cpu => Enforcement::None,
        }
    }

    /// What is limited for each process where the limit of the whole service cannot be kept.
    pub fn instead(self) -> Option<&'static str> {
        match self {
            Self::Memory => Some("RLIMIT_AS, the addresses of each of its processes"),
            Self::Pids => Some("RLIMIT_NPROC, all processes of its user together"),
            Self::Nofile | Self::Core | Self::Cpu => None,
        }
    }
}

impl ResourceLimits {
    fn each(&self) -> [(Resource, Option<u64>); 5] {
        [
            (Resource::Nofile, self.nofile),
            (Resource::Core, self.core),
            (Resource::Memory, self.memory),
            (Resource::Cpu, self.cpu.map(|cpu| cpu.0.into())),
            (Resource::Pids, self.pids),
        ]
    }
}

impl HardLimits {
    fn of(self, resource: Resource) -> Option<u64> {
        match resource {
            Resource::Nofile => self.nofile,
            Resource::Core => self.core,
            Resource::Memory => self.memory,
            Resource::Pids => self.pids,
            Resource::Cpu => None,
        }
    }
}

impl Identity {
    /// As it was asked for, or by its number.
    pub fn user_text(&self) -> String {
        self.user.clone().unwrap_or_else(|| self.uid.to_string())
    }

    /// The same of its group.
    pub fn group_text(&self) -> String {
        self.group.clone().unwrap_or_else(|| self.gid.to_string())
    }
}

impl Action {
    /// Whether it makes the process another's than the supervisor.
    pub fn changes_identity(self) -> bool {
        match self {
            Self::Groups | Self::Group(_) | Self::User(_) | Self::Verify { .. } => true,
            Self::OomScoreAdj(_)
            | Self::Limit(..)
            | Self::Umask(_)
            | Self::Nice(_)
            | Self::NoNewPrivs
            | Self::DieWithParent => false,
        }
    }

    /// What it does, as a verb and an object.
    pub fn describe(self, identity: Option<&Identity>) -> String {
        let user = || identity.map(Identity::user_text).unwrap_or_default();
        let group = || identity.map(Identity::group_text).unwrap_or_default();
        match self {
            Self::OomScoreAdj(value) => format!("set its oom_score_adj to {value}"),
            Self::Limit(Resource::Nofile, most) => format!("limit its open files to {most}"),
            Self::Limit(Resource::Core, most) => format!("limit its core dumps to {most} bytes"),
            Self::Limit(Resource::Memory, most) => format!("limit its memory to {most} bytes"),
            Self::Limit(Resource::Cpu, most) => {
                format!("limit its processors to {most} thousandths")
            }
            Self::Limit(Resource::Pids, most) => format!("limit its processes to {most}"),
            Self::Umask(mask) => format!("set its umask to {mask:03o}"),
            Self::Nice(value) => format!("set its nice value to {value}"),
            Self::Groups => format!("set its groups to those of `{}`", user()),
            Self::Group(_) => format!("set its group to `{}`", group()),
            Self::User(_) => format!("set its user to `{}`", user()),
            Self::Verify { .. } => format!("verify that it runs as `{}`", user()),
            Self::NoNewPrivs => "set its no_new_privs".to_owned(),
            Self::DieWithParent => "let it die with its supervisor".to_owned(),
        }
    }
}

impl Demand {
    /// Whether it is there for a fair share, so that one can do without; otherwise it is there for safety.
    pub fn is_share(self) -> bool {
        match self {
            Self::Limit(_) | Self::Nice | Self::OomScoreAdj => true,
            Self::User | Self::Group => false,
        }
    }
}

/// Its key in a manifest.
impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(resource) => write!(f, "limits.{}", resource.key()),
            Self::Nice => f.write_str("nice"),
            Self::OomScoreAdj => f.write_str("oom_score_adj"),
            Self::User => f.write_str("user"),
            Self::Group => f.write_str("group"),
        }
    }
}

impl Because {
    fn text(self, demand: Demand) -> String {
        let controller = || match demand {
            Demand::Limit(resource) => resource.key(),
            Demand::Nice | Demand::OomScoreAdj | Demand::User | Demand::Group => "",
        };
        match self {
            Self::NoController => format!(
                "no control group with the controller `{}` can be had",
                controller()
            ),
            Self::RootIsFree => format!(
                "root may have any number, and no control group with the controller `{}` can be had",
                controller()
            ),
            Self::HardLimit(hard) => {
                format!("only root may raise the hard limit, which is {hard}")
            }
            Self::LeastNice(least) => format!("only root may give less than {least}"),
            Self::LeastOomScoreAdj(least) => format!("only root may give less than {least}"),
            Self::NotRoot => "only root may become somebody else".to_owned(),
        }
    }
}

impl Unmet {
    /// Whether root could do it.
    pub fn is_for_root(&self) -> bool {
        match self.because {
            Because::HardLimit(_)
            | Because::LeastNice(_)
            | Because::LeastOomScoreAdj(_)
            | Because::NotRoot => true,
            Because::NoController | Because::RootIsFree => false,
        }
    }
}

impl Examined {
    fn demand(
        &mut self,
        demand: Demand,
        because: Option<Because>,
        best_effort: bool,
        action: Action,
    ) {
        match because {
            None => self.actions.push(action),
            Some(because) if best_effort && demand.is_share() => {
                self.given_up.push(Unmet { demand, because });
            }
            Some(because) => self.unmet.push(Unmet { demand, because }),
        }
    }

    /// Whether the process becomes somebody else, for which it needs memory of its own.
    pub fn changes_identity(&self) -> bool {
        self.actions.iter().any(|action| action.changes_identity())
    }
}

/// What is to be done for a process that inherits this `oom_score_adj` and is asked for nothing else: protection from the
/// kernel's choice is the supervisor's own, and goes to a child only if that is asked for.
pub fn unasked(oom_score_adj: i16) -> Option<Action> {
    (oom_score_adj < 0).then_some(Action::OomScoreAdj(0))
}

/// What becomes of a setup here.
pub fn examine(setup: &Setup, means: &Means) -> Examined {
    let mut examined = Examined::default();
    let best_effort = setup.best_effort;
    match setup.oom_score_adj {
        Some(value) => {
            let is_lower = value < means.oom_score_adj && !means.raises_limits;
            let because = is_lower.then_some(Because::LeastOomScoreAdj(means.oom_score_adj));
            let action = Action::OomScoreAdj(value);
            examined.demand(Demand::OomScoreAdj, because, best_effort, action);
        }
        None => examined.actions.extend(unasked(means.oom_score_adj)),
    }
    let uid = match &setup.identity {
        Some(identity) => Some(identity.uid),
        None => means.uid,
    };
    for (resource, most) in setup.limits.each() {
        let Some(most) = most else { continue };
        let enforcement = resource.enforcement(means.controllers, uid == Some(0));
        let hard = means.hard.of(resource);
        let is_above = !means.raises_limits && hard.is_some_and(|hard| most > hard);
        let because = match enforcement {
            Enforcement::Controller => continue,
            Enforcement::Rlimit => hard.filter(|_| is_above).map(Because::HardLimit),
            Enforcement::None if resource == Resource::Pids => Some(Because::RootIsFree),
            Enforcement::None => Some(Because::NoController),
        };
        if because.is_none() && resource.instead().is_some() {
            examined.instead.push(resource);
        }
        let action = Action::Limit(resource, most);
        examined.demand(Demand::Limit(resource), because, best_effort, action);
    }
    examined.actions.extend(setup.umask.map(Action::Umask));
    if let Some(nice) = setup.nice {
        let is_lower = nice < means.least_nice;
        let because = is_lower.then_some(Because::LeastNice(means.least_nice));
        examined.demand(Demand::Nice, because, best_effort, Action::Nice(nice));
    }
    if let Some(identity) = &setup.identity {
        become_somebody(identity, means, &mut examined);
    }
    if setup.no_new_privs {
        examined.actions.push(Action::NoNewPrivs);
    }
    if setup.die_with_parent {
        examined.actions.push(Action::DieWithParent);
    }
    examined
}

/// Who one is already one need not become.
fn become_somebody(identity: &Identity, means: &Means, examined: &mut Examined) {
    let is_user = means.uid == Some(identity.uid);
    let is_group = means.gid == Some(identity.gid);
    if is_user && is_group {
        return;
    }
    if !means.becomes_anybody {
        let demand = if is_user || identity.user.is_none() {
            Demand::Group
        } else {
            Demand::User
        };
        let because = Because::NotRoot;
        examined.unmet.push(Unmet { demand, because });
        return;
    }
    let (uid, gid) = (identity.uid, identity.gid);
    examined.actions.extend([
        Action::Groups,
        Action::Group(gid),
        Action::User(uid),
        Action::Verify { uid, gid },
    ]);
}

/// How long the quota of `cpu.max` counts, in microseconds.
const CPU_PERIOD: u64 = 100_000;

/// What is written into which files of a control group that has these controllers.
pub fn controller_files(
    limits: &ResourceLimits,
    controllers: Controllers,
) -> Vec<(&'static str, String)> {
    let mut files = Vec::new();
    if let Some(memory) = limits.memory.filter(|_| controllers.memory) {
        files.push(("memory.max", memory.to_string()));
        // All of it or nothing: a service that lost one of its processes is in no state that its author knows.
        files.push(("memory.oom.group", "1".to_owned()));
    }
    if let Some(pids) = limits.pids.filter(|_| controllers.pids) {
        files.push(("pids.max", pids.to_string()));
    }
    if let Some(Processors(thousandths)) = limits.cpu.filter(|_| controllers.cpu) {
        let quota = u64::from(thousandths) * CPU_PERIOD / 1000;
        files.push(("cpu.max", format!("{quota} {CPU_PERIOD}")));
    }
    files
}

/// How many processes of a control group were killed for lack of memory, as its `memory.events` says.
pub fn oom_kills(memory_events: &str) -> Option<u64> {
    let mut lines = memory_events.lines();
    let count = lines.find_map(|line| line.strip_prefix("oom_kill "))?;
    count.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_CONTROLLERS: Controllers = Controllers {
        memory: false,
        pids: false,
        cpu: false,
    };

    fn root() -> Means {
        Means {
            uid: Some(0),
            gid: Some(0),
            becomes_anybody: true,
            raises_limits: true,
            least_nice: -20,
            ..Means::default()
        }
    }

    fn anybody() -> Means {
        Means {
            uid: Some(1000),
            gid: Some(1000),
            hard: HardLimits {
                nofile: Some(4096),
                ..HardLimits::default()
            },
            ..Means::default()
        }
    }

    fn web() -> Identity {
        Identity {
            user: Some("web".to_owned()),
            group: None,
            uid: 33,
            gid: 34,
            groups: vec![34, 50],
        }
    }

    fn everything() -> Setup {
        Setup {
            limits: ResourceLimits {
                nofile: Some(64),
                core: Some(0),
                memory: Some(1 << 20),
                cpu: Some(Processors(500)),
                pids: Some(20),
            },
            umask: Some(0o27),
            nice: Some(-5),
            oom_score_adj: Some(-100),
            identity: Some(web()),
            no_new_privs: true,
            die_with_parent: true,
            best_effort: false,
        }
    }

    #[test]
    fn each_limit_is_kept_by_the_best_that_there_is() {
        use Enforcement::{Controller, None, Rlimit};
        let all = Controllers {
            memory: true,
            pids: true,
            cpu: true,
        };
        for (resource, with, as_root, as_user) in [
            (Resource::Nofile, Rlimit, Rlimit, Rlimit),
            (Resource::Core, Rlimit, Rlimit, Rlimit),
            (Resource::Memory, Controller, Rlimit, Rlimit),
            (Resource::Cpu, Controller, None, None),
            (Resource::Pids, Controller, None, Rlimit),
        ] {
            for is_root in [false, true] {
                assert_eq!(resource.enforcement(all, is_root), with);
            }
            assert_eq!(resource.enforcement(NO_CONTROLLERS, true), as_root);
            assert_eq!(resource.enforcement(NO_CONTROLLERS, false), as_user);
        }
    }

    #[test]
    fn nothing_takes_away_what_the_next_one_needs() {
        let with_cpu = Means {
            controllers: Controllers {
                cpu: true,
                ..NO_CONTROLLERS
            },
            ..root()
        };
        let examined = examine(&everything(), &with_cpu);
        assert_eq!(
            examined.actions,
            [
                Action::OomScoreAdj(-100),
                Action::Limit(Resource::Nofile, 64),
                Action::Limit(Resource::Core, 0),
                Action::Limit(Resource::Memory, 1 << 20),
                Action::Limit(Resource::Pids, 20),
                Action::Umask(0o27),
                Action::Nice(-5),
                Action::Groups,
                Action::Group(34),
                Action::User(33),
                Action::Verify { uid: 33, gid: 34 },
                Action::NoNewPrivs,
                Action::DieWithParent,
            ]
        );
        assert_eq!(examined.instead, [Resource::Memory, Resource::Pids]);
        assert!(examined.unmet.is_empty() && examined.given_up.is_empty());
        assert!(examined.changes_identity());
    }

    #[test]
    fn what_cannot_be_enforced_is_told_with_its_reason() {
        let texts = |unmet: &[Unmet]| unmet.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut asked = everything();
        asked.limits.nofile = Some(5000);
        let expected = [
            "`oom_score_adj` cannot be enforced here: only root may give less than 0",
            "`limits.nofile` cannot be enforced here: only root may raise the hard limit, which is 4096",
            "`limits.cpu` cannot be enforced here: no control group with the controller `cpu` can be had",
            "`nice` cannot be enforced here: only root may give less than 0",
            "`user` cannot be enforced here: only root may become somebody else",
        ];
        let examined = examine(&asked, &anybody());
        assert_eq!(texts(&examined.unmet), expected);
        assert!(examined.given_up.is_empty());
        // Safety is never done without.
        asked.best_effort = true;
        let examined = examine(&asked, &anybody());
        assert_eq!(texts(&examined.unmet), expected[4..]);
        assert_eq!(texts(&examined.given_up), expected[..4]);
        let for_root = |it: &Unmet| it.is_for_root();
        assert_eq!(
            examined.given_up.iter().filter(|it| for_root(it)).count(),
            3
        );

        let mut as_root = everything();
        as_root.identity = None;
        as_root.limits.cpu = None;
        let examined = examine(&as_root, &root());
        assert_eq!(
            texts(&examined.unmet),
            [
                "`limits.pids` cannot be enforced here: root may have any number, and no control group with the \
                 controller `pids` can be had"
            ]
        );
    }

    #[test]
    fn who_one_is_already_one_need_not_become() {
        let me = Identity {
            uid: 1000,
            gid: 1000,
            ..web()
        };
        let mut setup = Setup {
            identity: Some(me.clone()),
            ..Setup::default()
        };
        assert_eq!(examine(&setup, &anybody()), Examined::default());
        setup.identity = Some(Identity { gid: 7, ..me });
        let examined = examine(&setup, &anybody());
        assert_eq!(examined.unmet[0].demand, Demand::Group);
        // One that has not made up its mind who it is.
        let mixed = Means {
            uid: None,
            ..anybody()
        };
        assert_eq!(examine(&setup, &mixed).unmet[0].demand, Demand::User);
    }

    #[test]
    fn protection_of_the_supervisor_is_not_inherited_unasked() {
        for (own, action) in [(-900, Some(Action::OomScoreAdj(0))), (0, None), (300, None)] {
            let means = Means {
                oom_score_adj: own,
                ..root()
            };
            let examined = examine(&Setup::default(), &means);
            assert_eq!(examined.actions, Vec::from_iter(action));
            assert_eq!(unasked(own), action);
        }
    }

    #[test]
    fn controllers_are_told_what_they_see_to() {
        let limits = everything().limits;
        let all = Controllers {
            memory: true,
            pids: true,
            cpu: true,
        };
        let files = |limits, controllers| {
            controller_files(limits, controllers)
                .into_iter()
                .map(|(file, text)| format!("{file}={text}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            files(&limits, all),
            [
                "memory.max=1048576",
                "memory.oom.group=1",
                "pids.max=20",
                "cpu.max=50000 100000"
            ]
        );
        assert_eq!(
            files(
                &limits,
                Controllers {
                    pids: true,
                    ..NO_CONTROLLERS
                }
            ),
            ["pids.max=20"]
        );
        let odd = ResourceLimits {
            cpu: Some(Processors::new(0.001)),
            ..ResourceLimits::default()
        };
        // The kernel takes no quota below a thousand microseconds.
        assert_eq!(files(&odd, all), ["cpu.max=1000 100000"]);
        let several = ResourceLimits {
            cpu: Some(Processors::new(2.5)),
            ..ResourceLimits::default()
        };
        assert_eq!(files(&several, all), ["cpu.max=250000 100000"]);
        assert!(files(&ResourceLimits::default(), all).is_empty());
    }

    #[test]
    fn kills_for_lack_of_memory_are_counted_by_the_kernel() {
        // In the form of the kernel's documentation; the count is not the first that begins with `oom`.
        let recorded =
            "low 0\nhigh 0\nmax 131\noom 2\noom_kill 1\noom_group_kill 0\nsock_throttled 0\n";
        assert_eq!(oom_kills(recorded), Some(1));
        assert_eq!(oom_kills("low 0\nhigh 0\nmax 0\noom 0\n"), None);
        assert_eq!(oom_kills("oom_kill x\n"), None);
        assert_eq!(oom_kills(""), None);
    }

    #[test]
    fn processors_are_counted_in_thousandths() {
        for (number, expected) in [(0.5, 500), (0.01, 10), (4096.0, 4_096_000), (-1.0, 10)] {
            assert_eq!(Processors::new(number), Processors(expected));
        }
    }
}
