//! How many decisions a second?
//!
//! One decision: a child exits and its restart is ordered, then it runs. A cost that grows with the number of children that it
//! does not concern would worry us. Registering a cleanup handler must be cheap as well.

use std::collections::{HashMap, VecDeque};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Mutex;

use kimi_actors::Runtime;
use kimi_actors::policy::exit::Exit;
use kimi_actors::policy::signal::Signal;
use kimi_actors::policy::spec::{
    ChildName, ChildRules, Governor, NodeId, NodeRules, RunId, TreeRules,
};
use kimi_actors::policy::time::Moment;
use kimi_actors::policy::tree::{Effect, Event, Input, ShutdownMode, Tree};

use crate::support::report::Report;
use crate::support::sample::Pairs;
use crate::support::{is_asked_for, ms_since, now_ns};

#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

/// How many decisions make one sample.
const DECISIONS: u32 = 20_000;
/// How many handlers make one sample.
const HANDLERS: u32 = 100_000;

fn main() -> ExitCode {
    if !is_asked_for() {
        return ExitCode::SUCCESS;
    }
    let mut report = Report::begin(
        "How many restart decisions, against a lookup and an insertion in a map of the same size? (thousands a second; more is better)",
    );
    for children in [10, 1000, 10_000] {
        let mut life = Life::new(children);
        let mut map = Map::new(children);
        let pairs = Pairs::measure(
            || rate(DECISIONS, |n| life.decide(n)),
            || rate(DECISIONS, |n| map.touch(n)),
        );
        report.compare(&format!("decisions among {children}"), "1/ms", &pairs);
    }
    cleanups(&mut report);
    report.end()
}

/// How often a millisecond it can be done.
fn rate(times: u32, mut act: impl FnMut(u32)) -> f64 {
    let begin_ns = now_ns();
    (0..times).for_each(&mut act);
    f64::from(times) / ms_since(begin_ns)
}

/// A tree whose children exit one after another.
struct Life {
    tree: Tree,
    runs: Vec<(NodeId, RunId)>,
    clock_ms: u64,
}

impl Life {
    fn new(children: u32) -> Self {
        let child = |name| {
            NodeRules::Child(ChildRules {
                governor: Governor::NONE,
                ..ChildRules::service(name)
            })
        };
        let rules = TreeRules::new(names(children).map(child).collect());
        let tree = Tree::new(&rules, RunId(1)).expect("the rules do not contradict each other");
        let mut life = Self {
            tree,
            runs: Vec::new(),
            clock_ms: 0,
        };
        life.runs = life.feed(Event::StartAll);
        assert_eq!(life.runs.len(), children as usize, "all start at once");
        for (child, run) in life.runs.clone() {
            life.feed(Event::Started {
                child,
                run,
                pid: Some(1),
            });
        }
        life
    }

    fn decide(&mut self, number: u32) {
        let place = number as usize % self.runs.len();
        let (child, run) = self.runs[place];
        let exit = Exit::Signal {
            signal: Signal::KILL,
            core: false,
        };
        let started = self.feed(Event::Exited { child, run, exit });
        let [(child, run)] = started[..] else {
            panic!("one exit leads to one start")
        };
        self.feed(Event::Started {
            child,
            run,
            pid: Some(1),
        });
        self.runs[place] = (child, run);
    }

    /// Returns what is to start.
    fn feed(&mut self, event: Event) -> Vec<(NodeId, RunId)> {
        self.clock_ms += 1;
        let now = Moment::after_begin(std::time::Duration::from_millis(self.clock_ms));
        let effects = self.tree.next(&Input {
            event,
            now,
            random: 0,
        });
        let starts = effects.into_iter().filter_map(|effect| {
            if let Effect::Start { child, run } = effect {
                Some((child, run))
            } else {
                None
            }
        });
        starts.collect()
    }
}

fn names(children: u32) -> impl Iterator<Item = ChildName> {
    (0..children).map(|number| {
        ChildName::new(&format!("child-{number}")).expect("the name keeps to the grammar")
    })
}

/// What one would need at least to find a child and to note its new run.
struct Map {
    names: Vec<ChildName>,
    runs: HashMap<ChildName, RunId>,
}

impl Map {
    fn new(children: u32) -> Self {
        let names: Vec<ChildName> = names(children).collect();
        Self {
            runs: names.iter().map(|name| (name.clone(), RunId(0))).collect(),
            names,
        }
    }

    fn touch(&mut self, number: u32) {
        let name = &self.names[number as usize % self.names.len()];
        let RunId(run) = *black_box(&self.runs).get(name).expect("it was put there");
        self.runs.insert(name.clone(), RunId(run + 1));
    }
}

fn cleanups(report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("there is room for a runtime");
    let handle = runtime
        .block_on(Runtime::builder().start_idle())
        .expect("an empty tree starts");
    let queue: Mutex<VecDeque<Box<dyn FnOnce() + Send>>> = Mutex::default();
    let registered = Pairs::measure(
        || {
            rate(HANDLERS, |n| {
                handle.on_shutdown("bench", move || async move {
                    black_box(n);
                });
            })
        },
        || {
            rate(HANDLERS, |n| {
                queue
                    .lock()
                    .expect("nobody panics")
                    .push_back(Box::new(move || {
                        black_box(n);
                    }));
            })
        },
    );
    report.compare("cleanup handlers registered", "1/ms", &registered);
    let counted = Pairs::measure(
        || {
            rate(HANDLERS, |_| {
                black_box(handle.cleanup_count());
            })
        },
        || {
            rate(HANDLERS, |_| {
                black_box(queue.lock().expect("nobody panics").len());
            })
        },
    );
    report.compare("cleanup handlers counted", "1/ms", &counted);
    // A forced end runs none of them.
    handle.ask_shutdown(ShutdownMode::Forced);
    runtime.block_on(handle.wait());
}
