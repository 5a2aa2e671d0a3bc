//! Replays recorded lives of OTP supervisors: the same tree and the same events must give the same trace.
//!
//! The format of the lives is told in `data/README.md`. The harness is the operating system, the mailbox and the clock: every
//! order is answered at once, one after another, before the next message; time stands still but for `sleep_ms`.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::io::Read;
use std::time::Duration;

use flate2::read::GzDecoder;
use serde::Deserialize;

use kimi_actors::policy::admission::Limits;
use kimi_actors::policy::event::{Fact, ShutdownReason};
use kimi_actors::policy::exit::{Exit, StartFailure};
use kimi_actors::policy::intensity::Intensity;
use kimi_actors::policy::restart::{AutoShutdown, Restart, Strategy};
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{
    ChildName, ChildRules, Dialect, Governor, Lifetime, NodeId, NodeRules, OnLimit, Order, RunId,
    SupervisorRules, TreeRules,
};
use kimi_actors::policy::time::Moment;
use kimi_actors::policy::tree::{Effect, Event, Input, Listing, Reach, ShutdownMode, Timer, Tree};

/// Lives that may differ, each with the clause of the contract that says so.
const ALLOWED: &[(u32, &str)] = &[];

const LIVES: &[u8] = include_bytes!("data/lives.jsonl.gz");
const HOW_MANY: usize = 2000;

#[test]
fn every_recorded_life_of_otp_replays_to_the_same_decisions() {
    let mut text = String::new();
    GzDecoder::new(LIVES).read_to_string(&mut text).unwrap();
    let mut agreed = 0;
    let mut complaints = Vec::new();
    for line in text.lines() {
        let life: Life = serde_json::from_str(line).unwrap();
        match replay(&life) {
            Ok(()) => agreed += 1,
            Err(_) if ALLOWED.iter().any(|(id, _)| *id == life.id) => {}
            Err(complaint) => complaints.push(complaint),
        }
    }
    assert!(
        complaints.is_empty(),
        "{agreed} lives agree, {} do not; the first of them:\n{}",
        complaints.len(),
        complaints[..complaints.len().min(5)].join("\n")
    );
    assert_eq!(agreed + ALLOWED.len(), HOW_MANY);
}

// The words of the recording.

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Life {
    id: u32,
    family: String,
    tree: RecordedRoot,
    events: Vec<RecordedEvent>,
    trace: Vec<Entry>,
    end: Option<End>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordedRoot {
    name: String,
    strategy: RecordedStrategy,
    intensity: u32,
    period: u64,
    auto_shutdown: RecordedAutoShutdown,
    children: Vec<RecordedChild>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordedChild {
    name: String,
    restart: RecordedRestart,
    significant: bool,
    supervisor: Option<RecordedSupervisor>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordedSupervisor {
    strategy: RecordedStrategy,
    intensity: u32,
    period: u64,
    auto_shutdown: RecordedAutoShutdown,
    children: Vec<RecordedChild>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RecordedStrategy {
    OneForOne,
    OneForAll,
    RestForOne,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RecordedRestart {
    Permanent,
    Transient,
    Temporary,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RecordedAutoShutdown {
    Never,
    AnySignificant,
    AllSignificant,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum RecordedEvent {
    Message(Message),
    FailStarts {
        fail_starts: String,
        times: u32,
    },
    Sleep {
        sleep_ms: u64,
    },
    KillSupervisor {
        kill_supervisor: String,
    },
    Together {
        together: Vec<Message>,
        supervisor: String,
    },
    Stop {
        stop: String,
    },
}

/// What a supervisor can find in its mailbox.
#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Message {
    Exit { exit: String, how: How },
    TerminateChild { terminate_child: String },
    RestartChild { restart_child: String },
    DeleteChild { delete_child: String },
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum How {
    Normal,
    Shutdown,
    Crash,
    Kill,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    log: Vec<(Line, String)>,
    alive: Vec<String>,
    sups: Vec<String>,
    down: Vec<String>,
    #[serde(default)]
    sup_starts: Vec<String>,
    #[serde(default)]
    orphans: Vec<String>,
    result: Option<Answer>,
    results: Option<Vec<Answer>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Start,
    StartFailed,
    Stop,
    Exit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Ok,
    NotFound,
    NoSupervisor,
    NotRunning,
    Running,
    Restarting,
    StartFailed,
    SupervisorEnded,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    after: usize,
    reason: String,
}

// The recording in the policy's words.

fn rules(root: &RecordedRoot) -> TreeRules {
    TreeRules {
        root: SupervisorRules {
            strategy: strategy(root.strategy),
            intensity: intensity(root.intensity, root.period),
            auto_shutdown: auto_shutdown(root.auto_shutdown),
            on_limit: OnLimit::Escalate,
            order: Order::Listed,
            governor: Governor::NONE,
            ..SupervisorRules::root(members(&root.children))
        },
        limits: Limits::default(),
        lifetime: Lifetime::UntilShutdown,
        shutdown_budget: None,
        dialect: Dialect::Otp,
    }
}

fn members(children: &[RecordedChild]) -> Vec<NodeRules> {
    children.iter().map(member).collect()
}

fn member(child: &RecordedChild) -> NodeRules {
    let name = ChildName::new(&child.name).unwrap();
    let restart = match child.restart {
        RecordedRestart::Permanent => Restart::Always,
        RecordedRestart::Transient => Restart::OnFailure,
        RecordedRestart::Temporary => Restart::Never,
    };
    match &child.supervisor {
        None => NodeRules::Child(ChildRules {
            restart,
            significant: child.significant,
            governor: Governor::NONE,
            ..ChildRules::service(name)
        }),
        Some(supervisor) => NodeRules::Supervisor(SupervisorRules {
            intensity: intensity(supervisor.intensity, supervisor.period),
            auto_shutdown: auto_shutdown(supervisor.auto_shutdown),
            on_limit: OnLimit::Escalate,
            restart,
            significant: child.significant,
            governor: Governor::NONE,
            ..SupervisorRules::new(
                name,
                strategy(supervisor.strategy),
                members(&supervisor.children),
            )
        }),
    }
}

fn strategy(recorded: RecordedStrategy) -> Strategy {
    match recorded {
        RecordedStrategy::OneForOne => Strategy::OneForOne,
        RecordedStrategy::OneForAll => Strategy::OneForAll,
        RecordedStrategy::RestForOne => Strategy::RestForOne,
    }
}

fn auto_shutdown(recorded: RecordedAutoShutdown) -> AutoShutdown {
    match recorded {
        RecordedAutoShutdown::Never => AutoShutdown::Never,
        RecordedAutoShutdown::AnySignificant => AutoShutdown::AnySignificant,
        RecordedAutoShutdown::AllSignificant => AutoShutdown::AllSignificant,
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the rules take one that may be absent"
)]
fn intensity(max_restarts: u32, seconds: u64) -> Option<Intensity> {
    Some(Intensity {
        max_restarts,
        window: Duration::from_secs(seconds),
    })
}

fn exit(how: How) -> Exit {
    match how {
        How::Normal | How::Shutdown => Exit::Code(0),
        How::Crash => Exit::Code(1),
        How::Kill => KILLED,
    }
}

const KILLED: Exit = Exit::Signal {
    signal: Signal::KILL,
    core: false,
};
const STOPPED: Exit = Exit::Signal {
    signal: Signal::TERM,
    core: false,
};

// The replay.

fn replay(life: &Life) -> Result<(), String> {
    let mut world = World::new(life);
    for (index, expected) in life.trace.iter().enumerate() {
        let event = index.checked_sub(1).map(|index| &life.events[index]);
        let got = match event {
            None => world.begin(),
            Some(event) => world.live_through(event),
        };
        let ended = life.end.as_ref().is_some_and(|end| end.after <= index);
        let complaint = if got != *expected {
            Some(format!("expected {expected:?}\n     got {got:?}"))
        } else if world.tree.is_finished() != ended || world.ended_as.is_some() != ended {
            Some(format!("expected the root to have ended: {ended}"))
        } else {
            world.inconsistency()
        };
        if let Some(complaint) = complaint {
            return Err(format!(
                "life {} ({}), entry {index}, event {event:?}:\n{complaint}",
                life.id, life.family
            ));
        }
    }
    let was_asked = matches!(life.events.last(), Some(RecordedEvent::Stop { .. }));
    match &life.end {
        Some(end) if end.reason != "shutdown" => Err(format!("life {}: {}", life.id, end.reason)),
        Some(_) if (world.ended_as == Some(ShutdownReason::Asked)) != was_asked => {
            Err(format!("life {}: ended as {:?}", life.id, world.ended_as))
        }
        Some(_) | None => Ok(()),
    }
}

/// The operating system, the mailbox and the clock around a tree.
struct World {
    tree: Tree,
    now: Moment,
    /// In the order of the tree.
    nodes: Vec<NodeId>,
    processes: BTreeMap<NodeId, Process>,
    open: BTreeMap<NodeId, RunId>,
    fail_starts: BTreeMap<NodeId, u32>,
    mailbox: VecDeque<Mail>,
    /// What OTP's way does not need: delays that are not zero.
    timers: Vec<(Moment, Timer)>,
    ended_as: Option<ShutdownReason>,
    entry: Entry,
}

/// A worker's process.
#[derive(Clone, Copy)]
struct Process {
    run: RunId,
    /// How it has ended; its exit message waits in the mailbox.
    ended: Option<Exit>,
}

/// A message in the mailbox.
enum Mail {
    Exited(NodeId, RunId),
    Call(Call, NodeId, Caller),
    Due(Timer),
}

#[derive(Clone, Copy)]
enum Call {
    Terminate,
    Restart,
    Delete,
}

/// Where the answer to a call goes.
#[derive(Clone, Copy)]
struct Caller {
    index: usize,
    /// The supervisor that the call was sent to, and its life.
    sent_to: Option<(NodeId, RunId)>,
}

impl World {
    fn new(life: &Life) -> Self {
        assert_eq!(life.tree.name, "root");
        let tree = Tree::new(&rules(&life.tree), RunId(1)).unwrap();
        Self {
            nodes: tree.nodes().skip(1).collect(),
            tree,
            now: Moment::ZERO,
            processes: BTreeMap::new(),
            open: BTreeMap::new(),
            fail_starts: BTreeMap::new(),
            mailbox: VecDeque::new(),
            timers: Vec::new(),
            ended_as: None,
            entry: Entry::default(),
        }
    }

    fn find(&self, name: &str) -> NodeId {
        self.tree
            .find(name)
            .expect("recorded events name what is in their tree")
    }

    fn begin(&mut self) -> Entry {
        self.feed(Event::StartAll);
        self.entry()
    }

    fn live_through(&mut self, event: &RecordedEvent) -> Entry {
        match event {
            RecordedEvent::Message(message) => {
                let answers = self.handle(std::slice::from_ref(message), None);
                self.entry.result = Some(answers[0]);
            }
            RecordedEvent::Together {
                together,
                supervisor,
            } => {
                let supervisor = self.find(supervisor);
                let life = self
                    .tree
                    .live_run(supervisor)
                    .expect("recorded supervisors that get several messages run");
                self.entry.results = Some(self.handle(together, Some((supervisor, life))));
            }
            RecordedEvent::FailStarts { fail_starts, times } => {
                let worker = self.find(fail_starts);
                self.fail_starts.insert(worker, *times);
            }
            RecordedEvent::Sleep { sleep_ms } => self.sleep(Duration::from_millis(*sleep_ms)),
            RecordedEvent::KillSupervisor { kill_supervisor } => {
                self.entry.result = Some(self.kill_supervisor(kill_supervisor));
            }
            RecordedEvent::Stop { stop } => {
                assert_eq!(stop, "root");
                self.feed(Event::ShutdownRequested {
                    mode: ShutdownMode::Graceful,
                    reason: ShutdownReason::Asked,
                    budget: None,
                });
            }
        }
        self.work_off_the_mailbox(&mut Vec::new());
        self.entry()
    }

    /// Puts messages into the mailbox at once and works it off; the answers to them.
    fn handle(&mut self, messages: &[Message], sent_to: Option<(NodeId, RunId)>) -> Vec<Answer> {
        let mut answers = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            let caller = Caller { index, sent_to };
            let answer = match message {
                Message::Exit { exit: worker, how } => self.end_worker(worker, exit(*how)),
                Message::TerminateChild { terminate_child } => {
                    self.send_call(Call::Terminate, terminate_child, caller)
                }
                Message::RestartChild { restart_child } => {
                    self.send_call(Call::Restart, restart_child, caller)
                }
                Message::DeleteChild { delete_child } => {
                    self.send_call(Call::Delete, delete_child, caller)
                }
            };
            answers.push(answer);
        }
        self.work_off_the_mailbox(&mut answers);
        answers
    }

    fn end_worker(&mut self, worker: &str, exit: Exit) -> Answer {
        let child = self.find(worker);
        match self.processes.get_mut(&child) {
            Some(process) if process.ended.is_none() => {
                process.ended = Some(exit);
                self.mailbox.push_back(Mail::Exited(child, process.run));
                self.entry.log.push((Line::Exit, worker.to_owned()));
                Answer::Ok
            }
            Some(_) | None => Answer::NotRunning,
        }
    }

    /// The answer is replaced when the call is handled.
    fn send_call(&mut self, call: Call, node: &str, caller: Caller) -> Answer {
        let node = self.find(node);
        self.mailbox.push_back(Mail::Call(call, node, caller));
        Answer::SupervisorEnded
    }

    fn work_off_the_mailbox(&mut self, answers: &mut [Answer]) {
        while let Some(mail) = self.mailbox.pop_front() {
            match mail {
                Mail::Exited(child, run) => self.collect(child, run),
                Mail::Due(timer) => self.feed(Event::Due { timer }),
                Mail::Call(call, node, caller) => {
                    let still_lives = |(supervisor, life): (NodeId, RunId)| {
                        self.tree.live_run(supervisor) == Some(life)
                    };
                    if caller.sent_to.is_none_or(still_lives) {
                        answers[caller.index] = self.call(call, node);
                    }
                }
            }
        }
    }

    /// Tells the tree of a worker that has ended, unless its end was consumed by an order to stop it.
    fn collect(&mut self, child: NodeId, run: RunId) {
        let Some(process) = self.processes.get(&child).copied() else {
            return;
        };
        if let (true, Some(exit)) = (process.run == run, process.ended) {
            self.processes.remove(&child);
            self.feed(Event::Exited { child, run, exit });
        }
    }

    /// Answers as OTP does, and lets the tree do what was asked for if that is anything.
    fn call(&mut self, call: Call, node: NodeId) -> Answer {
        match (call, self.tree.listing(node)) {
            (_, Listing::NoSupervisor) => Answer::NoSupervisor,
            (_, Listing::NotFound) => Answer::NotFound,
            (Call::Terminate, Listing::Down | Listing::Restarting | Listing::Running) => {
                self.feed(Event::Stop {
                    nodes: vec![node],
                    reach: Reach::Alone,
                });
                Answer::Ok
            }
            (Call::Restart | Call::Delete, Listing::Restarting) => Answer::Restarting,
            (Call::Restart | Call::Delete, Listing::Running) => Answer::Running,
            (Call::Restart, Listing::Down) => {
                self.feed(Event::Start {
                    nodes: vec![node],
                    reach: Reach::Alone,
                });
                match self.tree.listing(node) {
                    Listing::Running => Answer::Ok,
                    Listing::NoSupervisor
                    | Listing::NotFound
                    | Listing::Down
                    | Listing::Restarting => Answer::StartFailed,
                }
            }
            (Call::Delete, Listing::Down) => {
                self.feed(Event::Delete { node });
                Answer::Ok
            }
        }
    }

    fn kill_supervisor(&mut self, name: &str) -> Answer {
        let supervisor = self.find(name);
        let Some(run) = self.tree.live_run(supervisor) else {
            return Answer::NotRunning;
        };
        self.entry.log.push((Line::Exit, name.to_owned()));
        let expected: BTreeSet<String> = self
            .processes
            .keys()
            .filter(|child| self.is_below(**child, supervisor))
            .map(|child| self.tree.name(*child).to_string())
            .collect();
        self.feed(Event::SupervisorLost { supervisor, run });
        self.entry.orphans.sort_unstable();
        assert!(self.entry.orphans.iter().eq(&expected), "{name}");
        Answer::Ok
    }

    fn is_below(&self, node: NodeId, supervisor: NodeId) -> bool {
        std::iter::successors(Some(node), |node| {
            (*node != NodeId::ROOT).then(|| self.tree.parent(*node))
        })
        .skip(1)
        .any(|above| above == supervisor)
    }

    fn sleep(&mut self, span: Duration) {
        self.now = self.now + span;
        let now = self.now;
        self.timers.sort_by_key(|(due, _)| *due);
        let is_due = |(due, _): &(Moment, Timer)| *due <= now;
        let due: Vec<_> = self.timers.extract_if(.., |timer| is_due(timer)).collect();
        for (_, timer) in due {
            self.feed(Event::Due { timer });
        }
    }

    /// Feeds an event, and the answers to what it leads to, one after another.
    fn feed(&mut self, event: Event) {
        let mut answers = VecDeque::from([event]);
        while let Some(event) = answers.pop_front() {
            let input = Input {
                event,
                now: self.now,
                random: 0,
            };
            for effect in self.tree.next(&input) {
                answers.extend(self.perform(effect));
            }
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Start { child, run } => Some(self.start(child, run)),
            Effect::Stop { child, run, .. } => self.end(child, run, STOPPED),
            Effect::Kill { child, run } => {
                self.entry.orphans.push(self.tree.name(child).to_string());
                self.end(child, run, KILLED)
            }
            Effect::Open { supervisor, run } => {
                assert_eq!(self.open.insert(supervisor, run), None);
                self.entry
                    .sup_starts
                    .push(self.tree.name(supervisor).to_string());
                None
            }
            Effect::Close { supervisor, run } => {
                assert_eq!(self.open.remove(&supervisor), Some(run));
                None
            }
            Effect::WakeAfter { timer, delay } => {
                if delay.is_zero() {
                    self.mailbox.push_back(Mail::Due(timer));
                } else {
                    self.timers.push((self.now + delay, timer));
                }
                None
            }
            Effect::Finished(finish) => {
                self.ended_as = Some(finish.reason);
                None
            }
            Effect::Announce(event) => {
                assert!(!matches!(event.fact, Fact::ShutdownForced));
                None
            }
            Effect::Release { .. }
            | Effect::Admitted { .. }
            | Effect::Queued { .. }
            | Effect::Rejected { .. } => None,
        }
    }

    fn start(&mut self, child: NodeId, run: RunId) -> Event {
        let name = self.tree.name(child).to_string();
        if let Some(times) = self.fail_starts.get_mut(&child).filter(|times| **times > 0) {
            *times -= 1;
            self.entry.log.push((Line::StartFailed, name));
            let exit = Exit::NotStarted(StartFailure::Other);
            return Event::Exited { child, run, exit };
        }
        self.entry.log.push((Line::Start, name));
        let process = Process { run, ended: None };
        assert!(self.processes.insert(child, process).is_none());
        Event::Started {
            child,
            run,
            pid: None,
        }
    }

    /// Ends a process by an order. One that has ended already is only taken note of, without a line.
    fn end(&mut self, child: NodeId, run: RunId, by_order: Exit) -> Option<Event> {
        let process = self.processes.remove(&child)?;
        assert_eq!(process.run, run);
        if process.ended.is_none() && by_order == STOPPED {
            let name = self.tree.name(child).to_string();
            self.entry.log.push((Line::Stop, name));
        }
        let exit = process.ended.unwrap_or(by_order);
        Some(Event::Exited { child, run, exit })
    }

    /// What there is to say of the tree at rest.
    fn entry(&mut self) -> Entry {
        let named = |nodes: Vec<NodeId>| -> Vec<String> {
            let names = nodes.into_iter().map(|node| self.tree.name(node));
            names.map(ToString::to_string).collect()
        };
        let down = self.nodes.iter().copied();
        let down = down.filter(|node| self.tree.listing(*node) == Listing::Down);
        let alive = named(self.processes.keys().copied().collect());
        let sups = named(self.open.keys().copied().collect());
        let down = named(down.collect());
        Entry {
            alive,
            sups,
            down,
            ..std::mem::take(&mut self.entry)
        }
    }

    /// What the tree believes of the world that is not so.
    fn inconsistency(&self) -> Option<String> {
        let believed = self.nodes.iter().copied().filter_map(|node| {
            let run = self.tree.live_run(node)?;
            Some((node, run))
        });
        let processes = self
            .processes
            .iter()
            .map(|(node, process)| (*node, process.run));
        let open = self.open.iter().map(|(node, run)| (*node, *run));
        let real: BTreeMap<NodeId, RunId> = processes.chain(open).collect();
        let believed: BTreeMap<NodeId, RunId> = believed.collect();
        (real != believed).then(|| format!("what runs is {real:?}, the tree has {believed:?}"))
    }
}
