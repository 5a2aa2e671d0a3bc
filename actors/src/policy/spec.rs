//! What the user asks for, checked: names, commands, children, supervisors, the tree.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::admission::Limits;
use crate::policy::backoff::Backoff;
use crate::policy::exit::SuccessCodes;
use crate::policy::intensity::Intensity;
use crate::policy::restart::{AutoShutdown, Restart, Strategy};
use crate::policy::setup::Setup;
use crate::policy::signal::Signal;

/// The name of a child or supervisor: a letter or digit, then up to 62 letters, digits, `_` or `-`.
///
/// `NAME.N` is kept for replicas, see [`ChildName::replica`]. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChildName(Arc<str>);

/// A text that is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a name; expected a letter or digit, then up to 62 letters, digits, `_` or `-`"
)]
pub struct InvalidName {
    /// What was given.
    pub text: String,
}

impl ChildName {
    /// Checks a name.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let (base, index) = text
            .split_once('.')
            .map_or((text, None), |(base, index)| (base, Some(index)));
        let is_index = |index: &str| {
            index
                .parse::<u32>()
                .is_ok_and(|n| n > 0 && n.to_string() == index)
        };
        if is_base(base) && index.is_none_or(is_index) {
            Ok(Self(Arc::from(text)))
        } else {
            Err(InvalidName {
                text: text.to_owned(),
            })
        }
    }

    /// The name of one of several replicas: `worker.1`, `worker.2` …
    #[must_use]
    pub fn replica(&self, ordinal: u32) -> Self {
        Self(Arc::from(format!("{}.{}", self.0, ordinal.max(1))))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_base(base: &str) -> bool {
    let bytes = base.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

impl fmt::Display for ChildName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChildName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ChildName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

impl From<ChildName> for String {
    fn from(name: ChildName) -> Self {
        name.0.as_ref().to_owned()
    }
}

/// The place of a child or supervisor in its tree; the root supervisor is 0.
///
/// A place is used again after a one-shot command has ended, so what names a process is the [`RunId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The root supervisor.
    pub const ROOT: Self = Self(0);

    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One run of a child, or one life of a supervisor, from start to end. Never repeats within a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A program to execute.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandSpec {
    /// A path, or a name to be looked up in the `PATH` of the child's environment.
    pub program: OsString,
    /// Its arguments, without the program's name.
    pub args: Vec<OsString>,
    /// The working directory; the supervisor's own if absent.
    pub cwd: Option<PathBuf>,
    /// What the environment starts from.
    pub base_env: BaseEnv,
    /// Set on top of that.
    pub env: Vec<(OsString, OsString)>,
    /// What is set up in its process before the program runs; nothing costs nothing.
    #[serde(default)]
    pub setup: Option<Box<Setup>>,
}

/// What a child's environment starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BaseEnv {
    /// A copy of the supervisor's environment.
    #[default]
    Inherited,
    /// What any program may need of that, and nothing that could be a secret: see [`BaseEnv::MINIMAL`].
    Minimal,
    /// Nothing.
    Empty,
}

impl BaseEnv {
    /// The variables of the minimal environment, as far as the supervisor has them.
    pub const MINIMAL: [&'static str; 11] = [
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TERM", "TMPDIR",
        "TZ",
    ];

    /// Whether a variable of the supervisor's environment is in it.
    pub fn contains(self, name: &OsStr) -> bool {
        match self {
            Self::Inherited => true,
            Self::Minimal => Self::MINIMAL.iter().any(|known| name == *known),
            Self::Empty => false,
        }
    }
}

impl CommandSpec {
    /// The command with these arguments, in the supervisor's directory and environment.
    pub fn new<A: Into<OsString>>(
        program: impl Into<OsString>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        Self {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            cwd: None,
            base_env: BaseEnv::Inherited,
            env: Vec::new(),
            setup: None,
        }
    }

    /// The command that gives this line to `/bin/sh -c`.
    pub fn shell(line: impl Into<OsString>) -> Self {
        Self::new("/bin/sh", [OsString::from("-c"), line.into()])
    }
}

impl fmt::Debug for CommandSpec {
    /// Leaves out the arguments and the environment: both may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandSpec")
            .field("program", &self.program)
            .field("cwd", &self.cwd)
            .finish_non_exhaustive()
    }
}

/// How a child is stopped: the signal, then after the grace the kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopSpec {
    /// What it is asked with.
    pub signal: Signal,
    /// How long it may take; [`StopSpec::DEFAULT_GRACE`] if absent. Set by hand, it lengthens the deadline of a shutdown.
    pub grace: Option<Duration>,
}

impl StopSpec {
    /// The grace of a child that names none.
    pub const DEFAULT_GRACE: Duration = Duration::from_secs(5);

    /// How long it may take.
    pub fn grace(&self) -> Duration {
        self.grace.unwrap_or(Self::DEFAULT_GRACE)
    }
}

impl Default for StopSpec {
    fn default() -> Self {
        Self {
            signal: Signal::TERM,
            grace: None,
        }
    }
}

/// The restart governor of one child or supervisor: when it restarts, and when that was too often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Governor {
    /// The limit; none for OTP's way, in which only the supervisor counts.
    pub limit: Option<Intensity>,
    /// The delays.
    pub backoff: Backoff,
    /// What happens at the limit.
    pub on_limit: OnLimit,
}

impl Governor {
    /// Restarts at once and without limit, as in OTP.
    pub const NONE: Self = Self {
        limit: None,
        backoff: Backoff::NONE,
        on_limit: OnLimit::Escalate,
    };

    /// The limits and delays that a service has when it names none.
    pub fn standard() -> Self {
        Self {
            limit: Some(Intensity::default()),
            ..Self::default()
        }
    }
}

/// What happens when restarts were too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OnLimit {
    /// It stays down as `failed`; its siblings live.
    #[default]
    GiveUp,
    /// It is tried again for ever, at the longest delay.
    SlowRetry,
    /// Its supervisor ends and leaves the decision to the supervisor above; at the root the whole tree ends.
    Escalate,
    /// The whole tree shuts down.
    Shutdown,
}

/// What kind of work a child is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Meant to run on; running satisfies those who wait for it to be ready.
    #[default]
    Service,
    /// Meant to end; succeeding satisfies those who wait for it.
    Task,
}

/// How a child comes to be ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Readiness {
    /// By running.
    #[default]
    Running,
    /// By a report from outside ([`Event::Ready`](crate::policy::tree::Event::Ready)).
    Reported,
}

/// What a child waits for in another before its first start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// The child or supervisor waited for.
    pub on: ChildName,
    /// What must be true of it.
    pub condition: Condition,
    /// What its restart means for the dependent.
    #[serde(default)]
    pub on_restart: OnRestart,
    /// What its loss means for the dependent.
    #[serde(default)]
    pub on_lost: OnLost,
}

impl Dependency {
    /// Waits for another to be ready, and lives on whatever becomes of it.
    pub fn on(on: ChildName) -> Self {
        Self {
            on,
            condition: Condition::default(),
            on_restart: OnRestart::default(),
            on_lost: OnLost::default(),
        }
    }
}

/// What becomes of a dependent whose dependency restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OnRestart {
    /// Nothing.
    #[default]
    Ignore,
    /// It is stopped, and starts again when the dependency meets the condition again.
    Restart,
}

/// What becomes of a dependent whose dependency is lost: it stays down, or is no longer ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OnLost {
    /// Nothing.
    #[default]
    Ignore,
    /// It is stopped, and starts again when the dependency meets the condition again.
    Stop,
}

/// What must be true of a dependency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Condition {
    /// It runs, or has run.
    Started,
    /// It is ready; a task has succeeded.
    #[default]
    Ready,
    /// It has ended by itself, in any way.
    Completed,
    /// It has ended by itself and succeeded.
    Succeeded,
}

/// The rules for one child: all that decisions need, and nothing of what it executes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChildRules {
    /// Unique in its tree.
    pub name: ChildName,
    /// Service or task.
    pub kind: Kind,
    /// Whether it restarts.
    pub restart: Restart,
    /// How often, and when.
    pub governor: Governor,
    /// What counts as success.
    pub success: SuccessCodes,
    /// How it is stopped.
    pub stop: StopSpec,
    /// How it comes to be ready.
    pub readiness: Readiness,
    /// How long a run whose readiness is reported may take to become ready; none: as long as it takes.
    #[serde(default)]
    pub start_timeout: Option<Duration>,
    /// How long a run may take from its order to its end before it is stopped as one that failed; none: for ever.
    #[serde(default)]
    pub max_runtime: Option<Duration>,
    /// How long a run may write nothing before it is stopped as one that failed; none: for ever. Only for what is read.
    #[serde(default)]
    pub idle_timeout: Option<Duration>,
    /// What its first start, and a start together with its group, waits for.
    pub depends_on: Vec<Dependency>,
    /// Whether its end can end its supervisor, see [`AutoShutdown`].
    pub significant: bool,
}

impl ChildRules {
    /// A service with the standard governor: always restarted.
    pub fn service(name: ChildName) -> Self {
        Self {
            name,
            kind: Kind::Service,
            restart: Restart::Always,
            governor: Governor::standard(),
            success: SuccessCodes::default(),
            stop: StopSpec::default(),
            readiness: Readiness::Running,
            start_timeout: None,
            max_runtime: None,
            idle_timeout: None,
            depends_on: Vec::new(),
            significant: false,
        }
    }

    /// A task: runs once.
    pub fn task(name: ChildName) -> Self {
        Self {
            kind: Kind::Task,
            restart: Restart::Never,
            ..Self::service(name)
        }
    }
}

/// A supervisor: a strategy, an intensity and its members in start order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SupervisorRules {
    /// Unique in its tree.
    pub name: ChildName,
    /// Who restarts together.
    pub strategy: Strategy,
    /// How many restarts of its members are too many; none: never.
    pub intensity: Option<Intensity>,
    /// What happens then.
    pub on_limit: OnLimit,
    /// Whether its own supervisor starts it again after it ended.
    pub restart: Restart,
    /// How often, and when.
    pub governor: Governor,
    /// Whether its members start one after another or as their dependencies allow.
    pub order: Order,
    /// Whether its end can end its own supervisor.
    pub significant: bool,
    /// Whether the end of significant members ends it.
    pub auto_shutdown: AutoShutdown,
    /// Children and supervisors, in start order.
    pub members: Vec<NodeRules>,
}

impl SupervisorRules {
    /// A supervisor that is itself always restarted, with the standard limits, whose members start one after another.
    pub fn new(name: ChildName, strategy: Strategy, members: Vec<NodeRules>) -> Self {
        Self {
            name,
            strategy,
            intensity: Some(Intensity::default()),
            on_limit: OnLimit::GiveUp,
            restart: Restart::Always,
            governor: Governor::standard(),
            order: Order::Listed,
            significant: false,
            auto_shutdown: AutoShutdown::Never,
            members,
        }
    }

    /// The root: restarts its members one for one, has no intensity of its own and starts them as their dependencies allow.
    pub fn root(members: Vec<NodeRules>) -> Self {
        Self {
            intensity: None,
            on_limit: OnLimit::Escalate,
            order: Order::AsReady,
            ..Self::new(ChildName(Arc::from("root")), Strategy::OneForOne, members)
        }
    }
}

/// In which order the members of a supervisor start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Order {
    /// As listed, each when the one before it is ready (OTP).
    #[default]
    Listed,
    /// Each as soon as its own dependencies allow.
    AsReady,
}

/// A member of a supervisor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NodeRules {
    /// A child.
    Child(ChildRules),
    /// A supervisor.
    Supervisor(SupervisorRules),
}

/// The whole tree, as decisions need it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TreeRules {
    /// The root supervisor.
    pub root: SupervisorRules,
    /// Bounds of one-shot commands.
    pub limits: Limits,
    /// When the tree ends unasked.
    pub lifetime: Lifetime,
    /// How long a shutdown may take that nobody asked for; none: as long as it takes.
    pub shutdown_budget: Option<Duration>,
    /// Whose way where ours differs from OTP's.
    pub dialect: Dialect,
}

impl TreeRules {
    /// A tree with these members below the root, which lives until it is shut down.
    pub fn new(members: Vec<NodeRules>) -> Self {
        Self {
            root: SupervisorRules::root(members),
            limits: Limits::default(),
            lifetime: Lifetime::UntilShutdown,
            shutdown_budget: Some(Duration::from_secs(5)),
            dialect: Dialect::Own,
        }
    }
}

/// When a tree ends unasked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lifetime {
    /// It does not.
    #[default]
    UntilShutdown,
    /// When every child has ended by itself.
    UntilAllEnded,
}

/// The four points in which our decisions differ from those of OTP's `supervisor`.
///
/// | | `Own` | `Otp` |
/// |---|---|---|
/// | a group restart | leaves down what an operator stopped | starts it |
/// | a failed start while a supervisor starts | is an exit like any other | ends that supervisor, its parent retries |
/// | a failed restart | is counted when it fails | is counted when it is retried |
/// | a failed start that an operator asked for | is an exit like any other | leaves the child down |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dialect {
    /// Ours.
    #[default]
    Own,
    /// OTP's, in which recorded lives of its supervisors replay.
    Otp,
}

/// What holds the processes of a run together, so that none of them outlives it; the best comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Containment {
    /// A control group for each run: nothing gets out of it, and the kernel kills all of it at once.
    Cgroup,
    /// The parent of the runtime adopts what a run leaves behind, so that it is found, whatever it has done.
    Subreaper,
    /// The session of each run. A process that makes a session of its own is found only when the runtime ends.
    Group,
}

impl Containment {
    /// Every one of them, the best first.
    pub const ALL: [Self; 3] = [Self::Cgroup, Self::Subreaper, Self::Group];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Subreaper => "subreaper",
            Self::Group => "group",
        }
    }
}

impl fmt::Display for Containment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_grammar() {
        for good in [
            "a",
            "A9",
            "web-1",
            "web_1",
            "0",
            "worker.1",
            "worker.12",
            &"x".repeat(63),
        ] {
            assert!(ChildName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-rf",
            "_a",
            "a/b",
            "..",
            ".",
            "a.",
            "a.0",
            "a.01",
            "a.b",
            "a.1.2",
            "ä",
            "a b",
            "a\n",
            &"x".repeat(64),
        ] {
            assert!(ChildName::new(bad).is_err(), "{bad}");
        }
    }
}
