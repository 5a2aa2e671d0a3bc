//! How many one-shot commands run at once, and how many may wait.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bounds of one-shot commands; services do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// So many run at once.
    pub max_concurrent: u32,
    /// So many may wait for a place; one more is rejected.
    pub queue: u32,
    /// How long one may wait.
    pub queue_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_concurrent: 100,
            queue: 1000,
            queue_timeout: Duration::from_secs(30),
        }
    }
}

/// Names a request for a one-shot command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// On whose behalf one-shot commands are asked for: clients take turns at the places that become free.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ClientId(pub u64);

/// Why a one-shot command does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    /// As many as allowed run, and as many as allowed wait.
    #[error("the queue is full")]
    QueueFull,
    /// No place became free in time.
    #[error("no place became free in time")]
    QueueTimeout,
    /// The runtime is shutting down.
    #[error("the runtime is shutting down")]
    ShuttingDown,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It runs now.
    Now,
    /// It waits.
    Queued,
    /// It does not run.
    Rejected(Rejection),
}

/// The places and the queue before them: the clients that wait take turns, each first come, first served.
#[derive(Clone, Debug)]
pub struct Admission {
    limits: Limits,
    running: u32,
    waiting: HashMap<ClientId, VecDeque<RequestId>>,
    /// Each client that waits, once; the first is served next.
    turns: VecDeque<ClientId>,
    /// How many requests wait in all.
    queued: usize,
}

impl Admission {
    /// All places free.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            running: 0,
            waiting: HashMap::new(),
            turns: VecDeque::new(),
            queued: 0,
        }
    }

    /// A request of a client comes.
    #[must_use]
    pub fn request(&mut self, client: ClientId, request: RequestId) -> Admitted {
        if self.running < self.limits.max_concurrent {
            self.running += 1;
            Admitted::Now
        } else if self.queued < self.limits.queue as usize {
            self.enqueue(client, request);
            Admitted::Queued
        } else {
            Admitted::Rejected(Rejection::QueueFull)
        }
    }

    fn enqueue(&mut self, client: ClientId, request: RequestId) {
        let queue = self.waiting.entry(client).or_default();
        if queue.is_empty() {
            self.turns.push_back(client);
        }
        queue.push_back(request);
        self.queued += 1;
    }

    /// A place becomes free; the one that takes it.
    #[must_use]
    pub fn leave(&mut self) -> Option<RequestId> {
        let next = self.next();
        if next.is_none() {
            self.running = self.running.saturating_sub(1);
        }
        next
    }

    /// The first of the client whose turn it is, which then is the last to be served again.
    fn next(&mut self) -> Option<RequestId> {
        let client = self.turns.pop_front()?;
        let queue = self.waiting.get_mut(&client)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        self.queued -= 1;
        next
    }

    /// One that waits leaves the queue; whether it was still there.
    #[must_use]
    pub fn withdraw(&mut self, client: ClientId, request: RequestId) -> bool {
        let Some(queue) = self.waiting.get_mut(&client) else {
            return false;
        };
        let Some(position) = queue.iter().position(|waiting| *waiting == request) else {
            return false;
        };
        queue.remove(position);
        self.queued -= 1;
        if queue.is_empty() {
            self.waiting.remove(&client);
            self.turns.retain(|waiting| *waiting != client);
        }
        true
    }

    /// All that wait leave the queue, in the order in which they would have been served.
    #[must_use]
    pub fn withdraw_all(&mut self) -> Vec<RequestId> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// How long one may wait.
    pub fn queue_timeout(&self) -> Duration {
        self.limits.queue_timeout
    }

    /// How many run, how many wait.
    pub fn load(&self) -> (u32, usize) {
        (self.running, self.queued)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLIENTS: u64 = 4;

    fn admission(max_concurrent: u32, queue: u32) -> Admission {
        Admission::new(Limits {
            max_concurrent,
            queue,
            queue_timeout: Duration::ZERO,
        })
    }

    #[test]
    fn places_then_queue_then_refusal_in_the_order_of_coming() {
        let mut admission = admission(1, 2);
        let mut ask = |n| admission.request(ClientId::default(), RequestId(n));
        let answers: Vec<Admitted> = (0..4).map(&mut ask).collect();
        assert_eq!(
            answers,
            [
                Admitted::Now,
                Admitted::Queued,
                Admitted::Queued,
                Admitted::Rejected(Rejection::QueueFull)
            ]
        );
        assert!(admission.withdraw(ClientId::default(), RequestId(1)));
        assert!(!admission.withdraw(ClientId::default(), RequestId(1)));
        assert_eq!(admission.leave(), Some(RequestId(2)));
        assert_eq!(admission.leave(), None);
        assert_eq!(admission.load(), (0, 0));
    }

    #[test]
    fn clients_take_turns_whoever_asked_for_more() {
        let mut admission = admission(1, 100);
        assert_eq!(admission.request(ClientId(0), RequestId(0)), Admitted::Now);
        for (client, request) in [(1, 10), (1, 11), (1, 12), (2, 20), (3, 30), (3, 31)] {
            let answer = admission.request(ClientId(client), RequestId(request));
            assert_eq!(answer, Admitted::Queued);
        }
        let served: Vec<u64> = std::iter::from_fn(|| admission.leave().map(|it| it.0)).collect();
        assert_eq!(served, [10, 20, 30, 11, 31, 12]);
    }

    #[derive(Clone, Debug)]
    enum Act {
        Request(u64),
        Leave,
        Withdraw(u64, prop::sample::Index),
        WithdrawAll,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            8 => (0..CLIENTS).prop_map(Act::Request),
            6 => Just(Act::Leave),
            2 => (0..CLIENTS, any::<prop::sample::Index>())
                .prop_map(|(client, which)| Act::Withdraw(client, which)),
            1 => Just(Act::WithdrawAll),
        ]
    }

    /// What waits, as a client sees it: its own requests, and how many turns of others it has waited for.
    #[derive(Clone, Debug, Default)]
    struct Seen {
        requests: VecDeque<RequestId>,
        /// How often each other client was served since this one came or was served.
        others: HashMap<u64, u32>,
    }

    proptest! {
        #[test]
        fn between_two_turns_of_a_client_each_other_is_served_once_at_most(
            max_concurrent in 1_u32..3,
            queue in 0_u32..12,
            acts in prop::collection::vec(act(), 0..200),
        ) {
            let mut admission = admission(max_concurrent, queue);
            let mut seen: HashMap<u64, Seen> = HashMap::new();
            let mut running = 0;
            for (number, act) in (0_u64..).zip(acts) {
                let waiting: usize = seen.values().map(|seen| seen.requests.len()).sum();
                match act {
                    Act::Request(client) => {
                        let request = RequestId(number);
                        let answer = admission.request(ClientId(client), request);
                        let expected = if running < max_concurrent {
                            running += 1;
                            Admitted::Now
                        } else if waiting < queue as usize {
                            seen.entry(client).or_default().requests.push_back(request);
                            Admitted::Queued
                        } else {
                            Admitted::Rejected(Rejection::QueueFull)
                        };
                        prop_assert_eq!(answer, expected);
                    }
                    Act::Leave => {
                        let next = admission.leave();
                        prop_assert_eq!(next.is_some(), waiting > 0);
                        let Some(next) = next else {
                            running = u32::saturating_sub(running, 1);
                            continue;
                        };
                        let mut of = seen.iter().filter(|(_, it)| it.requests.contains(&next));
                        let client = *of.next().expect("who is served waits").0;
                        // First come, first served, within a client.
                        let mut own = seen.remove(&client).unwrap();
                        prop_assert_eq!(own.requests.pop_front(), Some(next));
                        own.others.clear();
                        for other in seen.values_mut() {
                            let turns = other.others.entry(client).or_default();
                            *turns += 1;
                            prop_assert_eq!(*turns, 1, "{} overtakes twice", client);
                        }
                        if !own.requests.is_empty() {
                            seen.insert(client, own);
                        }
                    }
                    Act::Withdraw(client, which) => {
                        let own = seen.get(&client).map(|seen| seen.requests.clone());
                        let own = own.unwrap_or_default();
                        let at = which.index(own.len() + 1);
                        // One that never waited, or does no longer, is withdrawn in vain.
                        let request = own.get(at).copied().unwrap_or(RequestId(u64::MAX));
                        let is_there = at < own.len();
                        prop_assert_eq!(admission.withdraw(ClientId(client), request), is_there);
                        if is_there {
                            let left = seen.get_mut(&client).unwrap();
                            left.requests.remove(at);
                            if left.requests.is_empty() {
                                seen.remove(&client);
                            }
                        }
                    }
                    Act::WithdrawAll => {
                        let mut all: Vec<_> = seen.drain().flat_map(|(_, it)| it.requests).collect();
                        let mut withdrawn = admission.withdraw_all();
                        all.sort_unstable();
                        withdrawn.sort_unstable();
                        prop_assert_eq!(withdrawn, all);
                    }
                }
                let waiting: usize = seen.values().map(|seen| seen.requests.len()).sum();
                prop_assert_eq!(admission.load(), (running, waiting));
                prop_assert_eq!(admission.turns.len(), admission.waiting.len());
            }
        }
    }
}
