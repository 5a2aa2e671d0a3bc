//! What holds of every tree, whatever happens to it: random trees, random events, a simulated operating system that answers
//! in any order.
//!
//! The model in here is not the machine's: it knows what was ordered, what was answered and what an operator has asked for, and
//! nothing of how decisions are made. Each invariant is a function, run on each effect or after each step.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "an invariant is about some effects, and about no others that may come"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{FileFailurePersistence, RngSeed};

use kimi_actors::policy::admission::{ClientId, Limits, RequestId};
use kimi_actors::policy::backoff::Backoff;
use kimi_actors::policy::event::{Bound, EndedBy, Fact, ShutdownReason};
use kimi_actors::policy::exit::{Exit, StartFailure, SuccessCodes};
use kimi_actors::policy::intensity::Intensity;
use kimi_actors::policy::restart::{AutoShutdown, Restart, Strategy as RestartStrategy};
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{
    ChildName, ChildRules, Condition, Dependency, Dialect, Governor, Kind, Lifetime, NodeId,
    NodeRules, OnLimit, OnLost, OnRestart, Order, Readiness, RunId, StopSpec, SupervisorRules,
    TreeRules,
};
use kimi_actors::policy::time::Moment;
use kimi_actors::policy::tree::{
    Effect, Event, Input, Listing, Reach, ShutdownMode, State, Timer, Tree,
};

/// How often the whole is tried; `PROPTEST_CASES` overrides it.
const CASES: u32 = 384;
const MAX_NODES: usize = 50;
const MAX_DEPTH: usize = 4;
const MAX_STEPS: usize = 250;
/// More answers than any tree of that size can need to come to rest.
const PATIENCE: usize = 20_000;

fn config() -> ProptestConfig {
    let standard = ProptestConfig::default();
    let is_set = |variable: &str| std::env::var_os(variable).is_some();
    ProptestConfig {
        cases: if is_set("PROPTEST_CASES") {
            standard.cases
        } else {
            CASES
        },
        rng_seed: if is_set("PROPTEST_RNG_SEED") {
            standard.rng_seed
        } else {
            RngSeed::Fixed(0x5eed)
        },
        max_shrink_iters: 20_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource(
            "proptest-regressions",
        ))),
        ..standard
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_happens_the_invariants_hold(
        sketch in sketch(),
        steps in prop::collection::vec(step(), 1..MAX_STEPS),
        ending in shutdown(),
    ) {
        let rules = sketch.rules();
        let mut world = World::new(&rules);
        world.live(&steps, ending).map_err(|error| world.explain(&error))?;
        world.the_same_inputs_give_the_same_effects(&rules)?;
    }

    /// Small trees full of edges that live long, since what becomes of who follows another is seen only in those.
    #[test]
    fn whatever_happens_to_dependencies_the_invariants_hold(
        sketch in patient_sketch(),
        steps in prop::collection::vec(patient_step(), 1..MAX_STEPS),
        ending in shutdown(),
    ) {
        let rules = sketch.rules();
        let mut world = World::new(&rules);
        world.feed(Event::StartAll)?;
        world.live(&steps, ending).map_err(|error| world.explain(&error))?;
    }
}

// Random trees.

#[derive(Clone, Debug)]
struct Sketch {
    root: SupervisorSketch,
    nodes: Vec<NodeSketch>,
    limits: Limits,
    lifetime: Lifetime,
    shutdown_budget: Option<Duration>,
}

#[derive(Clone, Debug)]
struct NodeSketch {
    below: Index,
    restart: Restart,
    significant: bool,
    governor: Governor,
    body: BodySketch,
}

#[derive(Clone, Debug)]
enum BodySketch {
    Child {
        kind: Kind,
        readiness: Readiness,
        start_timeout: Option<Duration>,
        grace: Option<Duration>,
        /// Each on one that stands before it.
        depends_on: Vec<(Index, EdgeSketch)>,
    },
    Supervisor(SupervisorSketch),
}

#[derive(Clone, Copy, Debug)]
struct EdgeSketch {
    condition: Condition,
    on_restart: OnRestart,
    on_lost: OnLost,
}

#[derive(Clone, Debug)]
struct SupervisorSketch {
    strategy: RestartStrategy,
    intensity: Option<Intensity>,
    on_limit: OnLimit,
    order: Order,
    auto_shutdown: AutoShutdown,
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let budget = prop_oneof![
        Just(None),
        (0_u64..10_000).prop_map(|ms| Some(Duration::from_millis(ms)))
    ];
    (
        supervisor(),
        prop::collection::vec(node(), 0..=MAX_NODES),
        (1_u32..4, 0_u32..4),
        prop_oneof![3 => Just(Lifetime::UntilShutdown), 1 => Just(Lifetime::UntilAllEnded)],
        budget,
    )
        .prop_map(
            |(root, nodes, (max_concurrent, queue), lifetime, shutdown_budget)| Sketch {
                root,
                nodes,
                limits: Limits {
                    max_concurrent,
                    queue,
                    queue_timeout: Duration::from_secs(2),
                },
                lifetime,
                shutdown_budget,
            },
        )
}

fn patient_sketch() -> impl Strategy<Value = Sketch> {
    let patient = |sketch: SupervisorSketch| SupervisorSketch {
        on_limit: OnLimit::GiveUp,
        auto_shutdown: AutoShutdown::Never,
        ..sketch
    };
    let node = (
        any::<Index>(),
        prop_oneof![5 => Just(Restart::Always), 1 => restart()],
        prop_oneof![3 => Just(None), 1 => Just(Some(Intensity::default()))],
        prop_oneof![
            6 => follower(),
            1 => supervisor().prop_map(move |sketch| BodySketch::Supervisor(patient(sketch))),
        ],
    )
        .prop_map(|(below, restart, limit, body)| NodeSketch {
            below,
            restart,
            significant: false,
            governor: Governor {
                limit,
                ..Governor::standard()
            },
            body,
        });
    let nodes = prop::collection::vec(node, 2..12);
    (supervisor(), nodes).prop_map(move |(root, nodes)| Sketch {
        root: SupervisorSketch {
            intensity: None,
            ..patient(root)
        },
        nodes,
        limits: Limits::default(),
        lifetime: Lifetime::UntilShutdown,
        shutdown_budget: None,
    })
}

/// A child that most often depends on others, and those on others in turn.
fn follower() -> impl Strategy<Value = BodySketch> {
    let edge = (edge(), any::<bool>()).prop_map(|(edge, is_ready)| EdgeSketch {
        condition: if is_ready {
            Condition::Ready
        } else {
            edge.condition
        },
        ..edge
    });
    (
        prop_oneof![8 => Just(Kind::Service), 1 => Just(Kind::Task)],
        prop_oneof![Just(Readiness::Running), Just(Readiness::Reported)],
        prop::collection::vec((any::<Index>(), edge), 0..3),
    )
        .prop_map(|(kind, readiness, depends_on)| BodySketch::Child {
            kind,
            readiness,
            start_timeout: None,
            grace: None,
            depends_on,
        })
}

fn node() -> impl Strategy<Value = NodeSketch> {
    let body = prop_oneof![
        4 => child(),
        1 => supervisor().prop_map(BodySketch::Supervisor),
    ];
    (any::<Index>(), restart(), any::<bool>(), governor(), body).prop_map(
        |(below, restart, significant, governor, body)| NodeSketch {
            below,
            restart,
            significant,
            governor,
            body,
        },
    )
}

fn child() -> impl Strategy<Value = BodySketch> {
    let span = |most: u64| {
        prop_oneof![
            Just(None),
            (0..most).prop_map(|ms| Some(Duration::from_millis(ms)))
        ]
    };
    (
        prop_oneof![3 => Just(Kind::Service), 1 => Just(Kind::Task)],
        prop_oneof![2 => Just(Readiness::Running), 1 => Just(Readiness::Reported)],
        span(3000),
        span(3000),
        prop_oneof![
            2 => Just(Vec::new()),
            1 => prop::collection::vec((any::<Index>(), edge()), 1..3),
        ],
    )
        .prop_map(
            |(kind, readiness, start_timeout, grace, depends_on)| BodySketch::Child {
                kind,
                readiness,
                start_timeout,
                grace,
                depends_on,
            },
        )
}

fn edge() -> impl Strategy<Value = EdgeSketch> {
    let condition = prop_oneof![
        1 => Just(Condition::Started),
        3 => Just(Condition::Ready),
        1 => Just(Condition::Completed),
        1 => Just(Condition::Succeeded),
    ];
    let on_restart = prop_oneof![Just(OnRestart::Ignore), Just(OnRestart::Restart)];
    let on_lost = prop_oneof![Just(OnLost::Ignore), Just(OnLost::Stop)];
    (condition, on_restart, on_lost).prop_map(|(condition, on_restart, on_lost)| EdgeSketch {
        condition,
        on_restart,
        on_lost,
    })
}

fn supervisor() -> impl Strategy<Value = SupervisorSketch> {
    (
        prop_oneof![
            Just(RestartStrategy::OneForOne),
            Just(RestartStrategy::OneForAll),
            Just(RestartStrategy::RestForOne)
        ],
        prop::option::of(intensity()),
        on_limit(),
        prop_oneof![Just(Order::Listed), Just(Order::AsReady)],
        prop_oneof![
            3 => Just(AutoShutdown::Never),
            1 => Just(AutoShutdown::AnySignificant),
            1 => Just(AutoShutdown::AllSignificant)
        ],
    )
        .prop_map(
            |(strategy, intensity, on_limit, order, auto_shutdown)| SupervisorSketch {
                strategy,
                intensity,
                on_limit,
                order,
                auto_shutdown,
            },
        )
}

fn governor() -> impl Strategy<Value = Governor> {
    let backoff = prop_oneof![
        Just(Backoff::NONE),
        Just(Backoff::default()),
        (0_u64..2000, 0_u64..2000).prop_map(|(initial, reset_after)| Backoff {
            initial: Duration::from_millis(initial),
            reset_after: Duration::from_millis(reset_after),
            ..Backoff::default()
        }),
    ];
    (prop::option::of(intensity()), backoff, on_limit()).prop_map(|(limit, backoff, on_limit)| {
        Governor {
            limit,
            backoff,
            on_limit,
        }
    })
}

fn intensity() -> impl Strategy<Value = Intensity> {
    (0_u32..6, 0_u64..30).prop_map(|(max_restarts, seconds)| Intensity {
        max_restarts,
        window: Duration::from_secs(seconds),
    })
}

fn on_limit() -> impl Strategy<Value = OnLimit> {
    prop_oneof![
        4 => Just(OnLimit::GiveUp),
        2 => Just(OnLimit::SlowRetry),
        2 => Just(OnLimit::Escalate),
        1 => Just(OnLimit::Shutdown),
    ]
}

fn restart() -> impl Strategy<Value = Restart> {
    prop_oneof![
        3 => Just(Restart::Always),
        2 => Just(Restart::OnFailure),
        1 => Just(Restart::Never)
    ]
}

impl Sketch {
    /// Lays the nodes below supervisors that came before them, and lets each depend on what stands before it in the tree.
    fn rules(&self) -> TreeRules {
        let mut supervisors = vec![(None, 0)];
        let mut members: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let (supervisor, depth) = *node.below.get(&supervisors);
            members.entry(supervisor).or_default().push(index);
            if matches!(node.body, BodySketch::Supervisor(_)) && depth < MAX_DEPTH {
                supervisors.push((Some(index), depth + 1));
            }
        }
        let root = SupervisorRules::root(self.members(None, &members, &mut Vec::new()));
        TreeRules {
            root: self.root.apply(root),
            limits: self.limits,
            lifetime: self.lifetime,
            shutdown_budget: self.shutdown_budget,
            dialect: Dialect::Own,
        }
    }

    fn members(
        &self,
        supervisor: Option<usize>,
        members: &BTreeMap<Option<usize>, Vec<usize>>,
        before: &mut Vec<ChildName>,
    ) -> Vec<NodeRules> {
        let indices = members.get(&supervisor).map_or(&[][..], Vec::as_slice);
        let mut rules = Vec::new();
        for index in indices {
            let node = &self.nodes[*index];
            let rule = match &node.body {
                BodySketch::Child { .. } => NodeRules::Child(node.child(*index, before)),
                BodySketch::Supervisor(sketch) => {
                    let below = self.members(Some(*index), members, before);
                    let rules =
                        SupervisorRules::new(name('s', *index), RestartStrategy::OneForOne, below);
                    NodeRules::Supervisor(SupervisorRules {
                        restart: node.restart,
                        governor: node.governor,
                        significant: node.significant,
                        ..sketch.apply(rules)
                    })
                }
            };
            before.push(match &rule {
                NodeRules::Child(child) => child.name.clone(),
                NodeRules::Supervisor(supervisor) => supervisor.name.clone(),
            });
            rules.push(rule);
        }
        rules
    }
}

impl NodeSketch {
    fn child(&self, index: usize, before: &[ChildName]) -> ChildRules {
        let BodySketch::Child {
            kind,
            readiness,
            start_timeout,
            grace,
            depends_on,
        } = &self.body
        else {
            panic!("a supervisor is no child");
        };
        let depends_on = depends_on
            .iter()
            .filter(|_| !before.is_empty())
            .map(|(on, edge)| Dependency {
                on: on.get(before).clone(),
                condition: edge.condition,
                on_restart: edge.on_restart,
                on_lost: edge.on_lost,
            })
            .collect();
        ChildRules {
            kind: *kind,
            restart: self.restart,
            governor: self.governor,
            success: SuccessCodes::new([143], []),
            stop: StopSpec {
                signal: Signal::TERM,
                grace: *grace,
            },
            readiness: *readiness,
            start_timeout: *start_timeout,
            depends_on,
            significant: self.significant,
            ..ChildRules::service(name('c', index))
        }
    }
}

impl SupervisorSketch {
    fn apply(&self, rules: SupervisorRules) -> SupervisorRules {
        SupervisorRules {
            strategy: self.strategy,
            intensity: self.intensity,
            on_limit: self.on_limit,
            order: self.order,
            auto_shutdown: self.auto_shutdown,
            ..rules
        }
    }
}

fn name(kind: char, index: usize) -> ChildName {
    ChildName::new(&format!("{kind}{index}")).unwrap()
}

// Random events.

#[derive(Clone, Debug)]
struct Step {
    after: Duration,
    random: u64,
    act: Act,
}

#[derive(Clone, Debug)]
enum Act {
    StartAll,
    /// A run that was ordered starts, or does not.
    AnswerStart(Index, Option<StartFailure>),
    /// A run that was asked to stop, or was killed, ends.
    AnswerStop(Index, Exit),
    /// A run ends by itself.
    End(Index, Exit),
    Ready(Index),
    Unready(Index),
    Unhealthy(Index),
    Overrun(Index, Bound),
    ExtendStart(Index, Duration),
    Due(Index),
    /// A timer that has gone off goes off again.
    DueAgain(Index),
    /// A run that has ended, or never was, is told of.
    Stale(Index, Stale),
    Start(Vec<Index>, Reach),
    Stop(Vec<Index>, Reach),
    Restart(Vec<Index>),
    Delete(Index),
    Request(Duration),
    Cancel(Index),
    LoseSupervisor(Index),
    Shutdown(Shutdown),
}

#[derive(Clone, Copy, Debug)]
enum Stale {
    Started,
    Ready,
    Unready,
    Unhealthy,
    Overran,
    StartExtended,
    Exited(Exit),
    SupervisorLost,
    Due(u64),
}

#[derive(Clone, Copy, Debug)]
struct Shutdown {
    mode: ShutdownMode,
    budget: Option<Duration>,
}

fn step() -> impl Strategy<Value = Step> {
    let after = prop_oneof![
        4 => Just(0),
        3 => 0_u64..500,
        1 => 0_u64..20_000
    ];
    (after, any::<u64>(), act()).prop_map(|(after, random, act)| Step {
        after: Duration::from_millis(after),
        random,
        act,
    })
}

fn act() -> impl Strategy<Value = Act> {
    let nodes = || prop::collection::vec(any::<Index>(), 1..4);
    let reach = || prop_oneof![Just(Reach::Connected), Just(Reach::Alone)];
    prop_oneof![
        3 => Just(Act::StartAll),
        40 => (any::<Index>(), prop::option::weighted(0.15, start_failure()))
            .prop_map(|(run, failure)| Act::AnswerStart(run, failure)),
        30 => (any::<Index>(), exit()).prop_map(|(run, exit)| Act::AnswerStop(run, exit)),
        20 => (any::<Index>(), exit()).prop_map(|(run, exit)| Act::End(run, exit)),
        15 => any::<Index>().prop_map(Act::Ready),
        8 => any::<Index>().prop_map(Act::Unready),
        6 => any::<Index>().prop_map(Act::Unhealthy),
        6 => (any::<Index>(), bound()).prop_map(|(run, bound)| Act::Overrun(run, bound)),
        3 => (any::<Index>(), 0_u64..5000)
            .prop_map(|(run, ms)| Act::ExtendStart(run, Duration::from_millis(ms))),
        15 => any::<Index>().prop_map(Act::Due),
        3 => any::<Index>().prop_map(Act::DueAgain),
        6 => (any::<Index>(), stale()).prop_map(|(run, stale)| Act::Stale(run, stale)),
        5 => (nodes(), reach()).prop_map(|(nodes, reach)| Act::Start(nodes, reach)),
        5 => (nodes(), reach()).prop_map(|(nodes, reach)| Act::Stop(nodes, reach)),
        4 => nodes().prop_map(Act::Restart),
        2 => any::<Index>().prop_map(Act::Delete),
        6 => (0_u64..3000).prop_map(|ms| Act::Request(Duration::from_millis(ms))),
        3 => any::<Index>().prop_map(Act::Cancel),
        2 => any::<Index>().prop_map(Act::LoseSupervisor),
        1 => shutdown().prop_map(Act::Shutdown),
    ]
}

fn patient_step() -> impl Strategy<Value = Step> {
    let nodes = || prop::collection::vec(any::<Index>(), 1..2);
    let act = prop_oneof![
        40 => any::<Index>().prop_map(|run| Act::AnswerStart(run, None)),
        30 => (any::<Index>(), exit()).prop_map(|(run, exit)| Act::AnswerStop(run, exit)),
        8 => (any::<Index>(), exit()).prop_map(|(run, exit)| Act::End(run, exit)),
        40 => any::<Index>().prop_map(Act::Ready),
        6 => any::<Index>().prop_map(Act::Unready),
        2 => any::<Index>().prop_map(Act::Unhealthy),
        2 => (any::<Index>(), bound()).prop_map(|(run, bound)| Act::Overrun(run, bound)),
        30 => any::<Index>().prop_map(Act::Due),
        3 => nodes().prop_map(|nodes| Act::Start(nodes, Reach::Connected)),
        1 => nodes().prop_map(|nodes| Act::Start(nodes, Reach::Alone)),
        3 => nodes().prop_map(|nodes| Act::Stop(nodes, Reach::Alone)),
        1 => nodes().prop_map(|nodes| Act::Stop(nodes, Reach::Connected)),
        3 => nodes().prop_map(Act::Restart),
    ];
    (0_u64..5000, any::<u64>(), act).prop_map(|(after, random, act)| Step {
        after: Duration::from_millis(after),
        random,
        act,
    })
}

fn bound() -> impl Strategy<Value = Bound> {
    prop_oneof![Just(Bound::MaxRuntime), Just(Bound::IdleTimeout)]
}

fn exit() -> impl Strategy<Value = Exit> {
    prop_oneof![
        Just(Exit::Code(0)),
        Just(Exit::Code(1)),
        Just(Exit::Code(143)),
        Just(killed_by(Signal::TERM)),
        Just(killed_by(Signal::KILL)),
        Just(Exit::Lost),
        Just(Exit::NotStarted(StartFailure::NotReady)),
    ]
}

fn overran((child, run): (NodeId, RunId), bound: Bound) -> Event {
    Event::Overran {
        child,
        run,
        bound,
        limit: Duration::from_secs(1),
        waits_for_input: false,
    }
}

fn killed_by(signal: Signal) -> Exit {
    Exit::Signal {
        signal,
        core: false,
    }
}

fn start_failure() -> impl Strategy<Value = StartFailure> {
    prop_oneof![
        1 => Just(StartFailure::NotFound),
        1 => Just(StartFailure::NotExecutable),
        1 => Just(StartFailure::BadFormat),
        3 => Just(StartFailure::Exhausted),
        3 => Just(StartFailure::Other),
    ]
}

fn stale() -> impl Strategy<Value = Stale> {
    prop_oneof![
        Just(Stale::Started),
        Just(Stale::Ready),
        Just(Stale::Unready),
        Just(Stale::Unhealthy),
        Just(Stale::Overran),
        Just(Stale::StartExtended),
        exit().prop_map(Stale::Exited),
        Just(Stale::SupervisorLost),
        any::<u64>().prop_map(Stale::Due),
    ]
}

fn shutdown() -> impl Strategy<Value = Shutdown> {
    (
        prop_oneof![3 => Just(ShutdownMode::Graceful), 1 => Just(ShutdownMode::Forced)],
        prop::option::of((0_u64..10_000).prop_map(Duration::from_millis)),
    )
        .prop_map(|(mode, budget)| Shutdown { mode, budget })
}

// The simulated operating system, and what is known of the tree from outside.

struct World {
    tree: Tree,
    rules: BTreeMap<NodeId, ChildRules>,
    restarts: BTreeMap<NodeId, Restart>,
    max_concurrent: usize,
    now: Moment,
    random: u64,
    runs: BTreeMap<(NodeId, RunId), Run>,
    /// Nested supervisors that run.
    open: BTreeMap<NodeId, RunId>,
    used: BTreeSet<RunId>,
    was_open: BTreeSet<NodeId>,
    /// The first run of a child, or life of a supervisor.
    first: BTreeMap<NodeId, RunId>,
    requests: BTreeMap<RequestId, Request>,
    timers: Vec<(Moment, Timer)>,
    gone_off: Vec<Timer>,
    operator: Operator,
    /// Who wanted the end of each child's last run.
    ended_by: BTreeMap<ChildName, EndedBy>,
    facts: u64,
    is_shutting_down: bool,
    /// When a shutdown with a budget kills what is left.
    kill_by: Option<Moment>,
    is_forced: bool,
    is_finished: bool,
    history: Vec<(Input, Vec<Effect>)>,
}

#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that are true or not, each by itself"
)]
struct Run {
    has_started: bool,
    is_ready: bool,
    /// At some time.
    has_lost_readiness: bool,
    was_asked: bool,
    was_killed: bool,
    ended_with: Option<Exit>,
    releases: u32,
}

/// Whether what is no longer ready is ready again in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recovery {
    Never,
    Soon,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Asked,
    Queued,
    Cancelled,
    Admitted,
    Rejected,
}

/// What an operator has asked for.
#[derive(Default)]
struct Operator {
    /// Stopped by name, and not asked for since.
    stopped: BTreeSet<NodeId>,
    deleted: BTreeSet<NodeId>,
    /// Deleted, or below one that is, whether or not it was down.
    perhaps_deleted: BTreeSet<NodeId>,
    /// Started by name or with all, and certainly not stopped since.
    wanted: BTreeSet<NodeId>,
    /// To be started whatever they depend on.
    ungated: BTreeSet<NodeId>,
    /// Runs that began so, without the dependencies that they follow.
    alone: BTreeSet<RunId>,
}

type Verdict = Result<(), TestCaseError>;
type OnEffect = fn(&World, &Effect) -> bool;
type AfterStep = fn(&World) -> bool;

/// Pairs functions with their names.
macro_rules! named {
    ($($function:ident),* $(,)?) => {
        &[$((stringify!($function), $function)),*]
    };
}

const ON_EACH_EFFECT: &[(&str, OnEffect)] = named![
    no_two_runs_of_a_child_are_live,
    run_ids_never_repeat,
    orders_name_runs_that_live,
    nobody_is_asked_to_stop_twice,
    nothing_starts_after_shutdown_began,
    a_later_wave_is_down_before_an_earlier_one_is_asked,
    every_grace_in_a_shutdown_fits_its_budget,
    a_stopped_child_is_never_started_unasked,
    a_deleted_child_is_never_started,
    dependencies_gate_first_starts,
    a_child_starts_only_below_a_supervisor_that_runs,
    a_supervisor_closes_only_above_nothing_that_lives,
    nothing_follows_the_finish,
    facts_are_counted_without_gaps,
    a_request_is_answered_once,
    nobody_is_stopped_by_an_edge_that_says_ignore,
    who_yields_to_a_dependency_spends_no_budget,
    what_was_condemned_has_failed,
];

const AFTER_EACH_STEP: &[(&str, AfterStep)] = named![
    live_never_exceeds_the_limits,
    every_run_that_ended_is_released_exactly_once,
    every_request_has_an_answer_or_waits,
    the_tree_knows_what_runs,
    what_lives_after_force_is_killed,
    at_the_finish_nothing_lives,
];

fn no_two_runs_of_a_child_are_live(world: &World, effect: &Effect) -> bool {
    match effect {
        Effect::Start { child, .. } => world.live_run(*child).is_none(),
        Effect::Open { supervisor, .. } => !world.open.contains_key(supervisor),
        _ => true,
    }
}

fn run_ids_never_repeat(world: &World, effect: &Effect) -> bool {
    match effect {
        Effect::Start { run, .. } | Effect::Open { run, .. } => !world.used.contains(run),
        _ => true,
    }
}

fn orders_name_runs_that_live(world: &World, effect: &Effect) -> bool {
    match effect {
        Effect::Stop { child, run, .. } | Effect::Kill { child, run } => {
            world.live_run(*child) == Some(*run)
        }
        Effect::Close { supervisor, run } => world.open.get(supervisor) == Some(run),
        _ => true,
    }
}

fn nobody_is_asked_to_stop_twice(world: &World, effect: &Effect) -> bool {
    match effect {
        Effect::Stop { child, run, .. } => !world.runs[&(*child, *run)].was_asked,
        _ => true,
    }
}

fn nothing_starts_after_shutdown_began(world: &World, effect: &Effect) -> bool {
    let starts = matches!(
        effect,
        Effect::Start { .. }
            | Effect::Open { .. }
            | Effect::Admitted { .. }
            | Effect::Queued { .. }
    );
    !(starts && world.is_shutting_down)
}

fn a_later_wave_is_down_before_an_earlier_one_is_asked(world: &World, effect: &Effect) -> bool {
    match effect {
        Effect::Stop { child, .. } if world.is_shutting_down && !world.is_forced => {
            let wave = world.tree.wave(*child);
            world
                .live_runs()
                .all(|(other, _)| world.tree.wave(other) <= wave)
        }
        _ => true,
    }
}

fn every_grace_in_a_shutdown_fits_its_budget(world: &World, effect: &Effect) -> bool {
    match (effect, world.kill_by) {
        (Effect::Stop { grace, .. }, Some(kill_by)) => *grace <= kill_by.since(world.now),
        _ => true,
    }
}

fn a_stopped_child_is_never_started_unasked(world: &World, effect: &Effect) -> bool {
    match effect {
        Effect::Start { child: node, .. }
        | Effect::Open {
            supervisor: node, ..
        } => !world
            .chain(*node)
            .any(|node| world.operator.stopped.contains(&node)),
        _ => true,
    }
}

fn a_deleted_child_is_never_started(world: &World, effect: &Effect) -> bool {
    match effect {
        Effect::Start { child: node, .. }
        | Effect::Open {
            supervisor: node, ..
        } => !world
            .chain(*node)
            .any(|node| world.operator.deleted.contains(&node)),
        _ => true,
    }
}

fn dependencies_gate_first_starts(world: &World, effect: &Effect) -> bool {
    match effect {
        Effect::Start { child, .. } => {
            let is_first = world.runs_of(*child).next().is_none();
            let is_gated =
                is_first && world.is_fixed(*child) && !world.operator.ungated.contains(child);
            !is_gated
                || world
                    .tree
                    .dependencies(*child)
                    .into_iter()
                    .all(|(on, condition)| world.may_hold(on, condition))
        }
        _ => true,
    }
}

fn a_child_starts_only_below_a_supervisor_that_runs(world: &World, effect: &Effect) -> bool {
    match effect {
        Effect::Start { child: node, .. }
        | Effect::Open {
            supervisor: node, ..
        } => {
            let parent = world.tree.parent(*node);
            parent == NodeId::ROOT || world.open.contains_key(&parent)
        }
        _ => true,
    }
}

fn a_supervisor_closes_only_above_nothing_that_lives(world: &World, effect: &Effect) -> bool {
    match effect {
        Effect::Close { supervisor, .. } => {
            let live = world.live_runs().map(|(child, _)| child);
            let running = world.open.keys().copied();
            live.chain(running)
                .all(|node| node == *supervisor || !world.chain(node).any(|up| up == *supervisor))
        }
        _ => true,
    }
}

/// But that a one-shot command is refused.
fn nothing_follows_the_finish(world: &World, effect: &Effect) -> bool {
    !world.is_finished || matches!(effect, Effect::Rejected { .. })
}

fn facts_are_counted_without_gaps(world: &World, effect: &Effect) -> bool {
    match effect {
        Effect::Announce(event) => event.seq == world.facts + 1 && event.at == world.now,
        _ => true,
    }
}

fn a_request_is_answered_once(world: &World, effect: &Effect) -> bool {
    match effect {
        Effect::Admitted { request, .. } | Effect::Rejected { request, .. } => {
            matches!(world.requests[request], Request::Asked | Request::Queued)
        }
        Effect::Queued { request } => world.requests[request] == Request::Asked,
        _ => true,
    }
}

fn nobody_is_stopped_by_an_edge_that_says_ignore(world: &World, effect: &Effect) -> bool {
    let Effect::Announce(event) = effect else {
        return true;
    };
    let has_edge = |child: &ChildName, says: &dyn Fn(&Dependency) -> bool| {
        let child = world.tree.find(child.as_str()).unwrap();
        let rules = world.rules.get(&child);
        rules.is_some_and(|rules| rules.depends_on.iter().any(says))
    };
    match &event.fact {
        Fact::DependencyRestarted { child, dependency } => has_edge(child, &|edge| {
            edge.on == *dependency && edge.on_restart == OnRestart::Restart
        }),
        Fact::DependencyLost { child, dependency } => has_edge(child, &|edge| {
            edge.on == *dependency && edge.on_lost == OnLost::Stop
        }),
        Fact::Exited {
            child,
            by: EndedBy::Dependency,
            ..
        } => has_edge(child, &|edge| {
            edge.on_restart == OnRestart::Restart || edge.on_lost == OnLost::Stop
        }),
        _ => true,
    }
}

fn who_yields_to_a_dependency_spends_no_budget(world: &World, effect: &Effect) -> bool {
    match effect {
        Effect::Announce(event) => match &event.fact {
            Fact::RestartScheduled { child, .. } | Fact::Failed { child, .. } => {
                world.ended_by.get(child) != Some(&EndedBy::Dependency)
            }
            _ => true,
        },
        _ => true,
    }
}

fn what_was_condemned_has_failed(world: &World, effect: &Effect) -> bool {
    let was_condemned = |child: &ChildName| {
        let by = world.ended_by.get(child);
        matches!(
            by,
            Some(EndedBy::Liveness | EndedBy::StartTimeout | EndedBy::Bound(_))
        )
    };
    match effect {
        Effect::Announce(event) => match &event.fact {
            Fact::Completed { child } => !was_condemned(child),
            _ => true,
        },
        _ => true,
    }
}

fn live_never_exceeds_the_limits(world: &World) -> bool {
    let one_shots = world
        .live_runs()
        .filter(|(child, _)| !world.is_fixed(*child))
        .count();
    let waiting = world.requests_that_are(Request::Queued);
    one_shots <= world.max_concurrent
        && world.tree.load() == (u32::try_from(one_shots).unwrap(), waiting)
}

fn every_run_that_ended_is_released_exactly_once(world: &World) -> bool {
    world
        .runs
        .values()
        .all(|run| run.releases == u32::from(run.ended_with.is_some()))
}

fn every_request_has_an_answer_or_waits(world: &World) -> bool {
    world.requests_that_are(Request::Asked) == 0
}

fn the_tree_knows_what_runs(world: &World) -> bool {
    world.fixed().skip(1).all(|node| {
        let runs = world.open.get(&node).copied().or(world.live_run(node));
        world.tree.live_run(node) == runs
    })
}

fn what_lives_after_force_is_killed(world: &World) -> bool {
    !world.is_forced || world.live_runs().all(|key| world.runs[&key].was_killed)
}

fn at_the_finish_nothing_lives(world: &World) -> bool {
    let is_at_rest = || {
        world.live_runs().next().is_none()
            && world.open.is_empty()
            && world.requests_that_are(Request::Queued) == 0
    };
    world.tree.is_finished() == world.is_finished && (!world.is_finished || is_at_rest())
}

impl World {
    fn new(rules: &TreeRules) -> Self {
        let tree = Tree::new(rules, RunId(1)).unwrap();
        let (mut children, mut restarts) = (BTreeMap::new(), BTreeMap::new());
        index_members(&tree, &rules.root.members, &mut children, &mut restarts);
        Self {
            tree,
            rules: children,
            restarts,
            max_concurrent: rules.limits.max_concurrent as usize,
            now: Moment::ZERO,
            random: 0,
            runs: BTreeMap::new(),
            open: BTreeMap::new(),
            used: BTreeSet::new(),
            was_open: BTreeSet::new(),
            first: BTreeMap::new(),
            requests: BTreeMap::new(),
            timers: Vec::new(),
            gone_off: Vec::new(),
            operator: Operator::default(),
            ended_by: BTreeMap::new(),
            facts: 0,
            is_shutting_down: false,
            kill_by: None,
            is_forced: false,
            is_finished: false,
            history: Vec::new(),
        }
    }

    // What is known.

    fn fixed(&self) -> impl Iterator<Item = NodeId> + use<> {
        self.tree.nodes()
    }

    /// Whether a node is one of the tree's own, not the place of a one-shot command.
    fn is_fixed(&self, node: NodeId) -> bool {
        node.index() < self.fixed().count()
    }

    /// A node and the supervisors above it, without the root.
    fn chain(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        std::iter::successors(Some(node), |node| Some(self.tree.parent(*node)))
            .take_while(|node| *node != NodeId::ROOT)
    }

    fn live_runs(&self) -> impl Iterator<Item = (NodeId, RunId)> {
        let live = self.runs.iter().filter(|(_, run)| run.ended_with.is_none());
        live.map(|(key, _)| *key)
    }

    fn runs_of(&self, child: NodeId) -> impl DoubleEndedIterator<Item = (RunId, &Run)> {
        self.runs
            .range((child, RunId(0))..=(child, RunId(u64::MAX)))
            .map(|((_, id), run)| (*id, run))
    }

    fn live_run(&self, child: NodeId) -> Option<RunId> {
        let (id, _) = self
            .runs_of(child)
            .rfind(|(_, run)| run.ended_with.is_none())?;
        Some(id)
    }

    fn requests_that_are(&self, state: Request) -> usize {
        self.requests.values().filter(|is| **is == state).count()
    }

    /// Whether a condition can hold by what was seen from outside. Never false when it holds.
    fn may_hold(&self, on: NodeId, condition: Condition) -> bool {
        let Some(rules) = self.rules.get(&on) else {
            return match condition {
                Condition::Started | Condition::Ready => {
                    self.open.contains_key(&on) && self.is_ready_below(on)
                }
                Condition::Completed | Condition::Succeeded => self.was_open.contains(&on),
            };
        };
        let mut exits = self.runs_of(on).filter_map(|(_, run)| run.ended_with);
        let mut runs = self.runs_of(on);
        match condition {
            Condition::Started => runs.any(|(_, run)| run.has_started),
            Condition::Ready if rules.kind == Kind::Task => {
                runs.any(|(_, run)| run.is_ready) || exits.any(|exit| rules.success.contains(exit))
            }
            Condition::Ready => runs.any(|(_, run)| run.is_ready && run.ended_with.is_none()),
            Condition::Completed => exits.next().is_some(),
            Condition::Succeeded => exits.any(|exit| rules.success.contains(exit)),
        }
    }

    /// Whether nothing that lives below a supervisor is still to become ready.
    fn is_ready_below(&self, supervisor: NodeId) -> bool {
        self.live_runs().all(|(child, run)| {
            let is_below = self.chain(child).any(|node| node == supervisor);
            !is_below || self.runs[&(child, run)].is_ready
        })
    }

    // What happens.

    fn live(&mut self, steps: &[Step], ending: Shutdown) -> Verdict {
        for step in steps {
            self.take(step)?;
        }
        // Once with those that are no longer ready, and once with them ready again.
        self.come_to_rest(Recovery::Never)?;
        self.come_to_rest(Recovery::Soon)?;
        self.end(ending)
    }

    /// A failure with the tree and what happened in it.
    fn explain(&self, error: &TestCaseError) -> TestCaseError {
        let happened = self.history.iter().map(|(input, effects)| {
            let orders = effects
                .iter()
                .filter(|effect| !matches!(effect, Effect::Announce(_)));
            let orders: Vec<_> = orders.collect();
            format!("{:?}: {:?} -> {orders:?}", input.now, input.event)
        });
        let lines: Vec<String> = std::iter::once(error.to_string()).chain(happened).collect();
        TestCaseError::fail(lines.join("\n"))
    }

    fn take(&mut self, step: &Step) -> Verdict {
        self.now = self.now + step.after;
        self.random = step.random;
        let nodes: Vec<NodeId> = self.fixed().collect();
        let named = |picks: &[Index]| -> Vec<NodeId> {
            picks.iter().map(|pick| *pick.get(&nodes)).collect()
        };
        match &step.act {
            Act::StartAll => self.feed(Event::StartAll),
            Act::AnswerStart(pick, failure) => match self.pick(*pick, |run| !run.has_started) {
                Some((child, run)) => self.answer_start(child, run, *failure),
                None => Ok(()),
            },
            Act::AnswerStop(pick, exit) => match self.pick(*pick, |run| run.was_asked) {
                Some((child, run)) => self.exit(child, run, *exit),
                None => Ok(()),
            },
            Act::End(pick, exit) => match self.pick(*pick, |run| run.has_started) {
                Some((child, run)) => self.exit(child, run, *exit),
                None => Ok(()),
            },
            Act::Ready(pick) => match self.pick(*pick, |run| run.has_started) {
                Some((child, run)) => self.report_ready(child, run),
                None => Ok(()),
            },
            Act::Unready(pick) => match self.pick(*pick, |run| run.is_ready) {
                Some((child, run)) => self.report_unready(child, run),
                None => Ok(()),
            },
            Act::Unhealthy(pick) => match self.pick(*pick, |run| run.has_started) {
                Some((child, run)) if self.is_fixed(child) => {
                    self.feed(Event::Unhealthy { child, run })
                }
                _ => Ok(()),
            },
            // Also before it has started: its time counts from its order.
            Act::Overrun(pick, bound) => match self.pick(*pick, |_| true) {
                Some((child, run)) if self.is_fixed(child) => {
                    self.feed(overran((child, run), *bound))
                }
                _ => Ok(()),
            },
            Act::ExtendStart(pick, by) => match self.pick(*pick, |_| true) {
                Some((child, run)) => self.feed(Event::StartExtended {
                    child,
                    run,
                    by: *by,
                }),
                None => Ok(()),
            },
            Act::Due(pick) => self.go_off(*pick),
            Act::DueAgain(pick) => {
                if self.gone_off.is_empty() {
                    return Ok(());
                }
                let timer = *pick.get(&self.gone_off);
                self.feed_without_effect(Event::Due { timer })
            }
            Act::Stale(pick, stale) => self.tell_stale(*pick, *stale),
            Act::Start(picks, reach) => self.feed(Event::Start {
                nodes: named(picks),
                reach: *reach,
            }),
            Act::Stop(picks, reach) => self.feed(Event::Stop {
                nodes: named(picks),
                reach: *reach,
            }),
            Act::Restart(picks) => self.feed(Event::Restart {
                nodes: named(picks),
            }),
            Act::Delete(pick) => {
                let node = *pick.get(&nodes);
                self.feed(Event::Delete { node })
            }
            Act::Request(grace) => {
                let request = RequestId(u64::try_from(self.requests.len()).unwrap());
                self.feed(Event::Request {
                    request,
                    stop: StopSpec {
                        signal: Signal::TERM,
                        grace: Some(*grace),
                    },
                    // Three clients, in turn.
                    client: ClientId(request.0 % 3),
                })
            }
            Act::Cancel(pick) => {
                // Also of some that were never asked for.
                let request =
                    RequestId(u64::try_from(pick.index(self.requests.len() + 1)).unwrap());
                self.feed(Event::Cancel { request })
            }
            Act::LoseSupervisor(pick) => {
                let open: Vec<_> = self.open.iter().map(|(node, run)| (*node, *run)).collect();
                if open.is_empty() {
                    return Ok(());
                }
                let (supervisor, run) = *pick.get(&open);
                self.feed(Event::SupervisorLost { supervisor, run })
            }
            Act::Shutdown(shutdown) => self.feed(shutdown.event()),
        }
    }

    /// One of the live runs of which something is true.
    fn pick(&self, pick: Index, which: impl Fn(&Run) -> bool) -> Option<(NodeId, RunId)> {
        let runs: Vec<_> = self
            .live_runs()
            .filter(|key| which(&self.runs[key]))
            .collect();
        (!runs.is_empty()).then(|| *pick.get(&runs))
    }

    fn answer_start(
        &mut self,
        child: NodeId,
        run: RunId,
        failure: Option<StartFailure>,
    ) -> Verdict {
        match failure {
            Some(failure) => self.exit(child, run, Exit::NotStarted(failure)),
            None => self.feed(Event::Started {
                child,
                run,
                pid: Some(u32::try_from(run.0).unwrap()),
            }),
        }
    }

    fn exit(&mut self, child: NodeId, run: RunId, exit: Exit) -> Verdict {
        self.feed(Event::Exited { child, run, exit })
    }

    fn reports_readiness(&self, child: NodeId) -> bool {
        let rules = self.rules.get(&child);
        rules.is_some_and(|rules| rules.readiness == Readiness::Reported)
    }

    fn report_ready(&mut self, child: NodeId, run: RunId) -> Verdict {
        if self.reports_readiness(child) {
            self.feed(Event::Ready { child, run })
        } else {
            Ok(())
        }
    }

    fn report_unready(&mut self, child: NodeId, run: RunId) -> Verdict {
        if self.reports_readiness(child) {
            self.feed(Event::Unready { child, run })
        } else {
            Ok(())
        }
    }

    /// One of the timers goes off, on time or late.
    fn go_off(&mut self, pick: Index) -> Verdict {
        if self.timers.is_empty() {
            return Ok(());
        }
        let (due, timer) = self.timers.swap_remove(pick.index(self.timers.len()));
        self.now = self.now.max(due);
        self.gone_off.push(timer);
        self.feed(Event::Due { timer })
    }

    fn tell_stale(&mut self, pick: Index, stale: Stale) -> Verdict {
        let ended = self.runs.iter().filter(|(_, run)| run.ended_with.is_some());
        let mut runs: Vec<_> = ended.map(|(key, _)| *key).collect();
        // A run of one child is none of another, and nobody has this one.
        let mixed: Vec<_> = self
            .live_runs()
            .zip(self.live_runs().skip(1))
            .map(|((child, _), (_, run))| (child, run))
            .collect();
        runs.extend(mixed);
        runs.push((NodeId::ROOT, RunId(u64::MAX)));
        runs.push((NodeId(u32::MAX), RunId(1)));
        let (child, run) = *pick.get(&runs);
        self.feed_without_effect(match stale {
            Stale::Started => Event::Started {
                child,
                run,
                pid: None,
            },
            Stale::Ready => Event::Ready { child, run },
            Stale::Unready => Event::Unready { child, run },
            Stale::Unhealthy => Event::Unhealthy { child, run },
            Stale::Overran => overran((child, run), Bound::MaxRuntime),
            Stale::StartExtended => Event::StartExtended {
                child,
                run,
                by: Duration::from_secs(1),
            },
            Stale::Exited(exit) => Event::Exited { child, run, exit },
            Stale::SupervisorLost => Event::SupervisorLost {
                supervisor: child,
                run,
            },
            Stale::Due(key) => Event::Due {
                timer: Timer { node: child, key },
            },
        })
    }

    /// `a_stale_run_changes_nothing`: nothing is ordered, and the tree is what it was.
    fn feed_without_effect(&mut self, event: Event) -> Verdict {
        let before = format!("{:?}", self.tree);
        let told = format!("{event:?}");
        self.feed(event)?;
        let (_, effects) = self.history.last().unwrap();
        prop_assert!(
            effects.is_empty(),
            "a_stale_run_changes_nothing: {told} led to {effects:?}"
        );
        let after = format!("{:?}", self.tree);
        prop_assert_eq!(
            without_clock(&before),
            without_clock(&after),
            "a_stale_run_changes_nothing: {}",
            told
        );
        Ok(())
    }

    fn feed(&mut self, event: Event) -> Verdict {
        self.note_event(&event);
        let input = Input {
            event,
            now: self.now,
            random: self.random,
        };
        let effects = self.tree.next(&input);
        for effect in &effects {
            for (name, holds) in ON_EACH_EFFECT {
                prop_assert!(
                    holds(self, effect),
                    "{name}: {effect:?} of {:?}, step {}",
                    input.event,
                    self.history.len()
                );
            }
            self.note_effect(effect);
            self.note_alone(&input.event, effect);
        }
        self.note_deletion(&input.event);
        for (name, holds) in AFTER_EACH_STEP {
            prop_assert!(
                holds(self),
                "{name}: after {:?}, step {}: {effects:?}",
                input.event,
                self.history.len()
            );
        }
        self.history.push((input, effects));
        Ok(())
    }

    fn note_event(&mut self, event: &Event) {
        match event {
            Event::Started { child, run, .. } => {
                let is_ready = self.rules.get(child).is_some_and(|rules| {
                    rules.kind == Kind::Service && rules.readiness == Readiness::Running
                });
                if let Some(run) = self.runs.get_mut(&(*child, *run)) {
                    run.has_started = true;
                    run.is_ready = is_ready;
                }
            }
            Event::Ready { child, run } => {
                if let Some(run) = self.runs.get_mut(&(*child, *run)) {
                    run.is_ready = true;
                }
            }
            Event::Exited { child, run, exit } => {
                if let Some(run) = self.runs.get_mut(&(*child, *run)) {
                    run.ended_with.get_or_insert(*exit);
                }
            }
            Event::StartAll => {
                self.operator.stopped.clear();
                self.operator.wanted = self.fixed().collect();
            }
            Event::Start { nodes, reach } => {
                self.note_asked(nodes);
                match reach {
                    Reach::Alone => self.operator.ungated.extend(nodes),
                    Reach::Connected => self.operator.wanted.extend(self.with_what_is_below(nodes)),
                }
            }
            Event::Restart { nodes } => {
                self.note_asked(nodes);
                self.operator.ungated.extend(nodes);
            }
            Event::Stop { nodes, .. } => {
                self.note_unwanted(nodes);
                let is_idle = self.tree.live_run(NodeId::ROOT).is_none();
                if !nodes.contains(&NodeId::ROOT) {
                    self.operator.stopped.extend(nodes);
                } else if !is_idle {
                    self.operator.stopped.extend(self.tree.nodes().skip(1));
                }
            }
            Event::Request { request, .. } => {
                self.requests.insert(*request, Request::Asked);
            }
            Event::Cancel { request } => {
                if let Some(state @ Request::Queued) = self.requests.get_mut(request) {
                    *state = Request::Cancelled;
                }
            }
            Event::Unready { child, run } => {
                if let Some(run) = self.runs.get_mut(&(*child, *run)) {
                    run.has_lost_readiness |= run.is_ready;
                    run.is_ready = false;
                }
            }
            Event::Unhealthy { .. }
            | Event::Overran { .. }
            // The end that follows is what moves something.
            | Event::OutOfMemory { .. }
            | Event::StartExtended { .. }
            | Event::Delete { .. }
            | Event::SupervisorLost { .. }
            | Event::Due { .. }
            | Event::ShutdownRequested { .. } => {}
        }
    }

    /// An operator asked for these: what is above and below them, and what those depend on, may start too.
    fn note_asked(&mut self, nodes: &[NodeId]) {
        let mut asked = BTreeSet::new();
        let mut stack = nodes.to_vec();
        while let Some(node) = stack.pop() {
            if !asked.insert(node) {
                continue;
            }
            stack.extend(
                self.fixed()
                    .filter(|below| self.chain(*below).any(|up| up == node)),
            );
            stack.extend(self.tree.dependencies(node).into_iter().map(|(on, _)| on));
            if node == NodeId::ROOT {
                stack.extend(self.fixed());
            }
        }
        let above: Vec<NodeId> = asked.iter().flat_map(|node| self.chain(*node)).collect();
        asked.extend(above);
        self.operator.stopped.retain(|node| !asked.contains(node));
    }

    /// These, and all that may be stopped with them: what is below them, and what depends on that.
    fn note_unwanted(&mut self, nodes: &[NodeId]) {
        let mut seen = BTreeSet::new();
        let mut stack = nodes.to_vec();
        while let Some(node) = stack.pop() {
            for node in self.with_what_is_below(&[node]) {
                if seen.insert(node) {
                    self.operator.wanted.remove(&node);
                    let depends = |other: &NodeId| {
                        let on = self.tree.dependencies(*other);
                        on.into_iter().any(|(on, _)| on == node)
                    };
                    stack.extend(self.fixed().filter(depends));
                }
            }
        }
    }

    fn with_what_is_below(&self, nodes: &[NodeId]) -> Vec<NodeId> {
        let is_below = |node: &NodeId| {
            nodes.contains(&NodeId::ROOT) || self.chain(*node).any(|up| nodes.contains(&up))
        };
        self.fixed().filter(is_below).collect()
    }

    fn note_deletion(&mut self, event: &Event) {
        if let Event::Delete { node } = event {
            let below = self.with_what_is_below(&[*node]);
            self.operator.perhaps_deleted.extend(below);
        }
        if let Event::Delete { node } = event
            && let rules = self.rules.get(node)
            && rules.is_some_and(|rules| rules.restart != Restart::Never)
            && self.tree.listing(*node) == Listing::NotFound
        {
            self.operator.deleted.insert(*node);
        }
    }

    fn note_alone(&mut self, event: &Event, effect: &Effect) {
        if let Event::Start {
            nodes,
            reach: Reach::Alone,
        } = event
            && let Effect::Start { child, run } = effect
            && nodes.contains(child)
        {
            self.operator.alone.insert(*run);
        }
    }

    fn note_effect(&mut self, effect: &Effect) {
        match effect {
            Effect::Start { child, run } => {
                self.used.insert(*run);
                self.first.entry(*child).or_insert(*run);
                self.runs.insert((*child, *run), Run::default());
                self.operator.ungated.remove(child);
            }
            Effect::Stop { child, run, .. } | Effect::Kill { child, run } => {
                if let Some(run) = self.runs.get_mut(&(*child, *run)) {
                    run.was_asked = true;
                    run.was_killed |= matches!(effect, Effect::Kill { .. });
                }
            }
            Effect::Release { child, run } => {
                if let Some(run) = self.runs.get_mut(&(*child, *run)) {
                    run.releases += 1;
                }
            }
            Effect::Open { supervisor, run } => {
                self.used.insert(*run);
                self.was_open.insert(*supervisor);
                self.first.entry(*supervisor).or_insert(*run);
                self.open.insert(*supervisor, *run);
            }
            Effect::Close { supervisor, .. } => {
                self.open.remove(supervisor);
            }
            Effect::WakeAfter { timer, delay } => self.timers.push((self.now + *delay, *timer)),
            Effect::Admitted { request, .. } => self.answer(*request, Request::Admitted),
            Effect::Queued { request } => self.answer(*request, Request::Queued),
            Effect::Rejected { request, .. } => self.answer(*request, Request::Rejected),
            Effect::Announce(event) => {
                self.facts += 1;
                if let Fact::ShutdownStarted { budget, .. } = event.fact {
                    self.is_shutting_down = true;
                    self.kill_by = budget.map(|budget| {
                        let margin = (budget / 10).max(Duration::from_millis(250));
                        self.now + budget.saturating_sub(margin)
                    });
                }
                self.is_forced |= event.fact == Fact::ShutdownForced;
                if let Fact::Exited { child, by, .. } = &event.fact {
                    self.ended_by.insert(child.clone(), *by);
                }
            }
            Effect::Finished(_) => self.is_finished = true,
        }
    }

    fn answer(&mut self, request: RequestId, answer: Request) {
        self.requests.insert(request, answer);
    }

    /// Answers all that is to be answered and lets every timer go off, until nothing is left; then nobody may wait for nothing.
    fn come_to_rest(&mut self, recovery: Recovery) -> Verdict {
        for _ in 0..PATIENCE {
            let unanswered = self
                .live_runs()
                .find(|key| self.runs[key].was_asked || !self.runs[key].has_started);
            let unready = self.live_runs().find(|(child, run)| {
                let run = &self.runs[&(*child, *run)];
                let is_awaited = recovery == Recovery::Soon || !run.has_lost_readiness;
                !run.is_ready && is_awaited && self.reports_readiness(*child)
            });
            if let Some((child, run)) = unanswered {
                if self.runs[&(child, run)].was_asked {
                    self.exit(child, run, killed_by(Signal::TERM))?;
                } else {
                    self.answer_start(child, run, None)?;
                }
            } else if let Some((child, run)) = unready {
                self.report_ready(child, run)?;
            } else if self.timers.is_empty() {
                self.nobody_waits_for_nothing()?;
                self.nobody_lives_on_against_an_edge()?;
                return self.what_is_wanted_is_not_left_down();
            } else {
                let (due, timer) = self.timers.remove(0);
                self.now = self.now.max(due);
                self.gone_off.push(timer);
                self.feed(Event::Due { timer })?;
            }
        }
        prop_assert!(false, "the tree does not come to rest");
        Ok(())
    }

    fn nobody_waits_for_nothing(&self) -> Verdict {
        if self.tree.is_shutting_down() {
            return Ok(());
        }
        for node in self.fixed().skip(1) {
            let status = self.tree.status(node);
            let waits_for_nobody =
                status.blocked_by.is_empty() && self.tree.listing(node) != Listing::NoSupervisor;
            prop_assert!(
                !matches!(
                    status.state,
                    State::Backoff | State::Starting | State::Stopping
                ) || self.tree.is_supervisor(node) && status.state == State::Starting,
                "nobody_waits_for_nothing: {status:?}"
            );
            prop_assert!(
                status.state != State::Pending || !waits_for_nobody,
                "nobody_waits_for_nothing: {status:?}"
            );
        }
        Ok(())
    }

    /// Over an edge that stops it, nobody is up without its dependency; over one that restarts it, nobody is up that began
    /// before the present run of its dependency, if that is not the first. But for those that an operator started alone.
    fn nobody_lives_on_against_an_edge(&self) -> Verdict {
        if self.tree.is_shutting_down() {
            return Ok(());
        }
        let gated = self
            .live_runs()
            .filter(|(_, run)| !self.operator.alone.contains(run));
        for (child, run) in gated {
            let Some(rules) = self.rules.get(&child) else {
                continue;
            };
            for edge in &rules.depends_on {
                let on = self.tree.find(edge.on.as_str()).unwrap();
                let is_unready = self.live_run(on).is_some_and(|run| {
                    let run = &self.runs[&(on, run)];
                    run.has_lost_readiness && !run.is_ready
                });
                let is_down = matches!(
                    self.tree.state(on),
                    State::Stopped | State::Completed | State::Failed
                );
                let is_lost = (is_unready || is_down) && !self.tree.holds(on, edge.condition);
                prop_assert!(
                    edge.on_lost == OnLost::Ignore || !is_lost,
                    "nobody_lives_on_against_an_edge: {} without {}",
                    rules.name,
                    edge.on
                );
                let is_older = self
                    .tree
                    .live_run(on)
                    .is_some_and(|of| run < of && self.first[&on] != of);
                prop_assert!(
                    edge.on_restart == OnRestart::Ignore || !is_older,
                    "nobody_lives_on_against_an_edge: {} is older than {}",
                    rules.name,
                    edge.on
                );
            }
        }
        Ok(())
    }

    fn what_is_wanted_is_not_left_down(&self) -> Verdict {
        if self.tree.is_shutting_down() {
            return Ok(());
        }
        let wanted = self
            .operator
            .wanted
            .difference(&self.operator.perhaps_deleted)
            .copied();
        let listed = |node: &NodeId| {
            *node != NodeId::ROOT && self.tree.listing(*node) != Listing::NoSupervisor
        };
        for node in wanted.filter(listed) {
            let status = self.tree.status(node);
            let may_be_down = match status.state {
                State::Stopped | State::Completed => self.restarts[&node] != Restart::Always,
                _ => true,
            };
            // A temporary one that was stopped with its group stays down; one that ended well, too.
            let may_be_stopped =
                status.state != State::Stopped || self.restarts[&node] == Restart::Never;
            prop_assert!(
                may_be_down && may_be_stopped,
                "what_is_wanted_is_not_left_down: {status:?}"
            );
        }
        Ok(())
    }

    /// `shutdown_always_finishes`, without a timer, once every order is answered.
    fn end(&mut self, shutdown: Shutdown) -> Verdict {
        self.feed(shutdown.event())?;
        for turn in 0..PATIENCE {
            let asked: Vec<_> = self
                .live_runs()
                .filter(|key| self.runs[key].was_asked)
                .collect();
            if asked.is_empty() {
                break;
            }
            let (child, run) = asked[turn % asked.len()];
            self.exit(child, run, killed_by(Signal::TERM))?;
        }
        prop_assert!(self.is_finished, "shutdown_always_finishes");
        // Nothing moves it any more.
        for (_, timer) in std::mem::take(&mut self.timers) {
            self.feed_without_effect(Event::Due { timer })?;
        }
        self.feed_without_effect(Event::StartAll)?;
        self.feed_without_effect(shutdown.event())
    }

    fn the_same_inputs_give_the_same_effects(&self, rules: &TreeRules) -> Verdict {
        let mut tree = Tree::new(rules, RunId(1)).unwrap();
        for (input, effects) in &self.history {
            let text = serde_json::to_string(input).unwrap();
            let read: Input = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&read, input);
            prop_assert_eq!(
                &tree.next(&read),
                effects,
                "the_same_inputs_give_the_same_effects: {}",
                text
            );
        }
        Ok(())
    }
}

impl Shutdown {
    fn event(self) -> Event {
        Event::ShutdownRequested {
            mode: self.mode,
            reason: ShutdownReason::Asked,
            budget: self.budget,
        }
    }
}

fn index_members(
    tree: &Tree,
    members: &[NodeRules],
    children: &mut BTreeMap<NodeId, ChildRules>,
    restarts: &mut BTreeMap<NodeId, Restart>,
) {
    for member in members {
        match member {
            NodeRules::Child(rules) => {
                let node = tree.find(rules.name.as_str()).unwrap();
                restarts.insert(node, rules.restart);
                children.insert(node, rules.clone());
            }
            NodeRules::Supervisor(rules) => {
                let node = tree.find(rules.name.as_str()).unwrap();
                restarts.insert(node, rules.restart);
                index_members(tree, &rules.members, children, restarts);
            }
        }
    }
}

/// A tree as text, up to what every event changes: its clock.
fn without_clock(tree: &str) -> &str {
    tree.rsplit_once(", now: ").expect("a tree has a clock").0
}
