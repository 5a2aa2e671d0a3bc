//! One-shot commands: children that never restart, admitted to a bounded number of places.

use std::collections::HashMap;

use crate::policy::admission::{Admitted, ClientId, Rejection, RequestId};
use crate::policy::spec::{ChildName, NodeId, StopSpec};
use crate::policy::tree::node::{Life, Node, Origin, Why};
use crate::policy::tree::plan::{PlanId, Then};
use crate::policy::tree::{Effect, Tree};

/// The requests that wait or run, and the places that are free to be used again.
#[derive(Debug, Default)]
pub(super) struct Requests {
    waiting: HashMap<RequestId, Waiting>,
    /// Timers of those that wait.
    timers: HashMap<u64, RequestId>,
    running: HashMap<RequestId, NodeId>,
    free: Vec<NodeId>,
}

#[derive(Debug)]
struct Waiting {
    stop: StopSpec,
    client: ClientId,
    key: u64,
}

impl Tree {
    pub(super) fn request(&mut self, request: RequestId, stop: StopSpec, client: ClientId) {
        if !self.may_start() {
            self.effects.push(Effect::Rejected {
                request,
                why: Rejection::ShuttingDown,
            });
            return;
        }
        match self.admission.request(client, request) {
            Admitted::Now => self.begin_one_shot(request, stop),
            Admitted::Queued => {
                let key = self.wake_after(NodeId::ROOT, self.admission.queue_timeout());
                self.requests
                    .waiting
                    .insert(request, Waiting { stop, client, key });
                self.requests.timers.insert(key, request);
                self.effects.push(Effect::Queued { request });
            }
            Admitted::Rejected(why) => self.effects.push(Effect::Rejected { request, why }),
        }
    }

    fn begin_one_shot(&mut self, request: RequestId, stop: StopSpec) {
        let name =
            ChildName::new(&format!("exec-{}", request.0)).expect("`exec-` and digits are a name");
        let node = Node::one_shot(name, request, stop);
        let id = if let Some(id) = self.requests.free.pop() {
            self.nodes[id.index()] = node;
            id
        } else {
            self.nodes.push(node);
            NodeId(u32::try_from(self.nodes.len() - 1).expect("a tree has fewer than 2^32 nodes"))
        };
        self.requests.running.insert(request, id);
        let run = crate::policy::spec::RunId(self.next_run);
        self.effects.push(Effect::Admitted {
            request,
            child: id,
            run,
        });
        self.begin(id, Origin::Operator);
    }

    /// A one-shot command ended; its place goes to the client whose turn it is.
    pub(super) fn one_shot_ended(&mut self, id: NodeId, asked_by: Option<PlanId>) {
        self.set_life(id, Life::Down(Why::Deleted));
        if let Some(request) = self.node(id).request() {
            self.requests.running.remove(&request);
        }
        self.requests.free.push(id);
        if let Some(plan) = asked_by {
            self.one_less(plan);
        }
        if let Some(next) = self.admission.leave()
            && let Some(waiting) = self.forget_waiting(next)
        {
            self.begin_one_shot(next, waiting.stop);
        }
    }

    fn forget_waiting(&mut self, request: RequestId) -> Option<Waiting> {
        let waiting = self.requests.waiting.remove(&request)?;
        self.requests.timers.remove(&waiting.key);
        Some(waiting)
    }

    /// Whether the timer was one of the queue's.
    pub(super) fn queue_timer_is_due(&mut self, key: u64) -> bool {
        let Some(request) = self.requests.timers.get(&key).copied() else {
            return false;
        };
        let waiting = self.forget_waiting(request);
        if waiting.is_some_and(|waiting| self.admission.withdraw(waiting.client, request)) {
            self.effects.push(Effect::Rejected {
                request,
                why: Rejection::QueueTimeout,
            });
        }
        true
    }

    pub(super) fn cancel(&mut self, request: RequestId) {
        if let Some(waiting) = self.forget_waiting(request) {
            // Who cancels does not wait for an answer; the place in the queue is all that there was.
            let _was_waiting = self.admission.withdraw(waiting.client, request);
        } else if let Some(id) = self.requests.running.get(&request).copied()
            && self.node(id).is_up()
            && self.node(id).plan.is_none()
        {
            self.stop_these(
                vec![id],
                Then::Rest {
                    supervisors: Vec::new(),
                },
            );
        }
    }

    pub(super) fn withdraw_requests(&mut self) -> Vec<RequestId> {
        self.requests.waiting.clear();
        self.requests.timers.clear();
        self.admission.withdraw_all()
    }

    pub(super) fn live_one_shots(&self) -> Vec<NodeId> {
        let mut live: Vec<NodeId> = self.requests.running.values().copied().collect();
        live.sort_unstable();
        live
    }

    /// How many one-shot commands run, how many wait.
    pub fn load(&self) -> (u32, usize) {
        self.admission.load()
    }
}
