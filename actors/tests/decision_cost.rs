//! What a decision costs: it must not grow with the number of those whom it does not concern.
//!
//! Counts the nodes that a decision looks at and the allocations that it makes, in trees of 10 to 10,000 children. One more
//! child that is looked at for each child there is would show as ten thousand.

#![expect(
    unsafe_code,
    reason = "a global allocator cannot be written without it"
)]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use kimi_actors::policy::backoff::Backoff;
use kimi_actors::policy::exit::Exit;
use kimi_actors::policy::restart::Strategy;
use kimi_actors::policy::spec::{
    ChildName, ChildRules, Dependency, Governor, NodeId, NodeRules, OnLost, OnRestart, Readiness,
    RunId, SupervisorRules, TreeRules,
};
use kimi_actors::policy::time::Moment;
use kimi_actors::policy::tree::{Effect, Event, Input, Reach, Timer, Tree};

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
/// A decision about one child looks at so many nodes at most, the same one counted each time.
const MOST_VISITED: u64 = 100;
/// … and allocates so often at most.
const MOST_ALLOCATIONS: u64 = 60;

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // Not while a thread ends and its counter is gone already.
    let _ended = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system's allocator unchanged; the counter is a thread's own and needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What one decision cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    visited: u64,
    allocations: u64,
}

/// A tree all of whose children run.
struct Running {
    tree: Tree,
    now: Moment,
    timers: Vec<Timer>,
}

impl Running {
    fn new(rules: &TreeRules) -> Self {
        let mut running = Self {
            tree: Tree::new(rules, RunId(1)).unwrap(),
            now: Moment::ZERO,
            timers: Vec::new(),
        };
        running.settle(Event::StartAll);
        let nodes = running.tree.nodes();
        assert!(
            nodes
                .skip(1)
                .all(|node| running.tree.live_run(node).is_some())
        );
        running
    }

    fn feed(&mut self, event: Event) -> (Vec<Effect>, Cost) {
        let input = Input {
            event,
            now: self.now,
            random: 1 << 63,
        };
        let before = ALLOCATIONS.get();
        let effects = self.tree.next(&input);
        let cost = Cost {
            visited: self.tree.visited(),
            allocations: ALLOCATIONS.get() - before,
        };
        (effects, cost)
    }

    /// Feeds an event and the starts that it leads to; the cost of the event itself.
    fn settle(&mut self, event: Event) -> Cost {
        let (mut effects, cost) = self.feed(event);
        while !effects.is_empty() {
            let mut next = Vec::new();
            for effect in effects {
                if let Effect::Start { child, run } = effect {
                    let pid = Some(1);
                    next.extend(self.feed(Event::Started { child, run, pid }).0);
                    next.extend(self.feed(Event::Ready { child, run }).0);
                } else if let Effect::WakeAfter { timer, .. } = effect {
                    self.timers.push(timer);
                }
            }
            effects = next;
        }
        cost
    }

    fn run_of(&self, child: NodeId) -> RunId {
        self.tree.live_run(child).unwrap()
    }

    fn crash(&mut self, child: NodeId) -> Cost {
        self.now = self.now + Duration::from_secs(60);
        let run = self.run_of(child);
        let exit = Exit::Code(1);
        self.settle(Event::Exited { child, run, exit })
    }
}

/// How the children stand in the tree; all are one for one.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// Directly below the root, free of each other.
    Free,
    /// Below a supervisor that starts one after another.
    Listed,
    /// Each but the first depends on the first.
    Star,
    /// … and is stopped when that restarts or is lost; all report their readiness.
    Edges,
}

const SHAPES: [Shape; 4] = [Shape::Free, Shape::Listed, Shape::Star, Shape::Edges];

fn rules(shape: Shape, size: usize) -> TreeRules {
    let child = |index: usize| {
        let mut rules = ChildRules::service(ChildName::new(&format!("c{index}")).unwrap());
        rules.governor = Governor {
            backoff: Backoff {
                reset_after: Duration::MAX,
                ..Backoff::default()
            },
            ..Governor::NONE
        };
        let on_first = Dependency::on(ChildName::new("c0").unwrap());
        match (shape, index) {
            (Shape::Free | Shape::Listed, _) | (_, 0) => {}
            (Shape::Star, _) => rules.depends_on.push(on_first),
            (Shape::Edges, _) => rules.depends_on.push(Dependency {
                on_restart: OnRestart::Restart,
                on_lost: OnLost::Stop,
                ..on_first
            }),
        }
        if let Shape::Edges = shape {
            rules.readiness = Readiness::Reported;
        }
        NodeRules::Child(rules)
    };
    let children: Vec<NodeRules> = (0..size).map(child).collect();
    TreeRules::new(match shape {
        Shape::Free | Shape::Star | Shape::Edges => children,
        Shape::Listed => {
            let name = ChildName::new("list").unwrap();
            let list = SupervisorRules {
                intensity: None,
                ..SupervisorRules::new(name, Strategy::OneForOne, children)
            };
            vec![NodeRules::Supervisor(list)]
        }
    })
}

/// The cost of a decision in each shape and size; that of the largest must be near that of the smallest.
fn costs_the_same_at_every_size(decide: impl Fn(&mut Running, NodeId) -> Cost) {
    for shape in SHAPES {
        let costs = SIZES.map(|size| {
            let mut running = Running::new(&rules(shape, size));
            let middle = running.tree.find(&format!("c{}", size / 2)).unwrap();
            // Once to fill what grows by need, then to count.
            decide(&mut running, middle);
            decide(&mut running, middle)
        });
        for (size, cost) in SIZES.iter().zip(costs) {
            let is_flat = cost.visited <= costs[0].visited
                && cost.allocations <= costs[0].allocations
                && cost.visited <= MOST_VISITED
                && cost.allocations <= MOST_ALLOCATIONS;
            assert!(is_flat, "{shape:?}, {size} children: {costs:?}");
        }
    }
}

#[test]
fn a_crash_is_decided_without_a_look_at_the_others() {
    costs_the_same_at_every_size(|running, child| {
        let cost = running.crash(child);
        go_off(running);
        cost
    });
}

#[test]
fn a_restart_is_decided_without_a_look_at_the_others() {
    costs_the_same_at_every_size(|running, child| {
        running.crash(child);
        go_off(running)
    });
}

#[test]
fn a_start_is_noted_without_a_look_at_the_others() {
    costs_the_same_at_every_size(|running, child| {
        running.crash(child);
        let timer = running.timers.pop().unwrap();
        let (_, _) = running.feed(Event::Due { timer });
        let run = running.run_of(child);
        let pid = Some(2);
        running.feed(Event::Started { child, run, pid }).1
    });
}

#[test]
fn a_stale_event_is_dropped_without_a_look_at_the_others() {
    costs_the_same_at_every_size(|running, child| {
        let (run, exit) = (RunId(0), Exit::Code(1));
        running.feed(Event::Exited { child, run, exit }).1
    });
}

#[test]
fn a_stop_of_a_child_that_nobody_needs_is_decided_without_a_look_at_the_others() {
    costs_the_same_at_every_size(|running, child| {
        let nodes = vec![child];
        let reach = Reach::Connected;
        let (_, cost) = running.feed(Event::Stop { nodes, reach });
        let run = running.run_of(child);
        let exit = Exit::Code(0);
        running.settle(Event::Exited { child, run, exit });
        let nodes = vec![child];
        running.settle(Event::Start { nodes, reach });
        cost
    });
}

#[test]
fn a_start_by_an_operator_is_decided_without_a_look_at_the_others() {
    costs_the_same_at_every_size(|running, child| {
        let nodes = vec![child];
        let reach = Reach::Connected;
        running.settle(Event::Stop { nodes, reach });
        let run = running.run_of(child);
        let exit = Exit::Code(0);
        running.settle(Event::Exited { child, run, exit });
        let nodes = vec![child];
        running.settle(Event::Start { nodes, reach })
    });
}

#[test]
fn a_verdict_is_decided_without_a_look_at_the_others() {
    costs_the_same_at_every_size(|running, child| {
        let run = running.run_of(child);
        let (_, cost) = running.feed(Event::Unhealthy { child, run });
        let exit = Exit::Code(0);
        running.settle(Event::Exited { child, run, exit });
        go_off(running);
        cost
    });
}

#[test]
fn a_lost_readiness_is_noted_without_a_look_at_the_others() {
    costs_the_same_at_every_size(|running, child| {
        let run = running.run_of(child);
        let (_, cost) = running.feed(Event::Unready { child, run });
        running.settle(Event::Ready { child, run });
        cost
    });
}

/// One child follows another; the rest has nothing to do with them.
#[test]
fn who_follows_another_is_stopped_without_a_look_at_the_others() {
    let costs = SIZES.map(|size| {
        let mut rules = rules(Shape::Free, size);
        if let [NodeRules::Child(first), NodeRules::Child(second), ..] = &mut rules.root.members[..]
        {
            second.depends_on.push(Dependency {
                on_restart: OnRestart::Restart,
                ..Dependency::on(first.name.clone())
            });
        }
        let mut running = Running::new(&rules);
        let first = running.tree.find("c0").unwrap();
        running.crash(first)
    });
    for cost in costs {
        assert!(cost.visited <= costs[0].visited, "{costs:?}");
        assert!(cost.allocations <= costs[0].allocations, "{costs:?}");
    }
}

/// The timers that wait go off.
fn go_off(running: &mut Running) -> Cost {
    let timer = running.timers.pop().unwrap();
    assert!(running.timers.is_empty());
    running.settle(Event::Due { timer })
}
