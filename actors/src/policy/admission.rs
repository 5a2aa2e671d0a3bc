//! How many one-shot commands run at once, and how many may wait.

use std::collections::VecDeque;
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

/// The places and the queue before them, first come, first served.
#[derive(Clone, Debug)]
pub struct Admission {
    limits: Limits,
    running: u32,
    waiting: VecDeque<RequestId>,
}

impl Admission {
    /// All places free.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            running: 0,
            waiting: VecDeque::new(),
        }
    }

    /// A request comes.
    #[must_use]
    pub fn request(&mut self, request: RequestId) -> Admitted {
        if self.running < self.limits.max_concurrent {
            self.running += 1;
            Admitted::Now
        } else if self.waiting.len() < self.limits.queue as usize {
            self.waiting.push_back(request);
            Admitted::Queued
        } else {
            Admitted::Rejected(Rejection::QueueFull)
        }
    }

    /// A place becomes free; the one that takes it.
    #[must_use]
    pub fn leave(&mut self) -> Option<RequestId> {
        let next = self.waiting.pop_front();
        if next.is_none() {
            self.running = self.running.saturating_sub(1);
        }
        next
    }

    /// One that waits leaves the queue; whether it was still there.
    #[must_use]
    pub fn withdraw(&mut self, request: RequestId) -> bool {
        let position = self.waiting.iter().position(|waiting| *waiting == request);
        position.is_some_and(|position| self.waiting.remove(position).is_some())
    }

    /// All that wait leave the queue.
    #[must_use]
    pub fn withdraw_all(&mut self) -> Vec<RequestId> {
        self.waiting.drain(..).collect()
    }

    /// How long one may wait.
    pub fn queue_timeout(&self) -> Duration {
        self.limits.queue_timeout
    }

    /// How many run, how many wait.
    pub fn load(&self) -> (u32, usize) {
        (self.running, self.waiting.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_then_queue_then_refusal_in_the_order_of_coming() {
        let mut admission = Admission::new(Limits {
            max_concurrent: 1,
            queue: 2,
            queue_timeout: Duration::ZERO,
        });
        let answers: Vec<Admitted> = (0..4).map(|n| admission.request(RequestId(n))).collect();
        assert_eq!(
            answers,
            [
                Admitted::Now,
                Admitted::Queued,
                Admitted::Queued,
                Admitted::Rejected(Rejection::QueueFull)
            ]
        );
        assert!(admission.withdraw(RequestId(1)));
        assert!(!admission.withdraw(RequestId(1)));
        assert_eq!(admission.leave(), Some(RequestId(2)));
        assert_eq!(admission.leave(), None);
        assert_eq!(admission.load(), (0, 0));
    }
}
