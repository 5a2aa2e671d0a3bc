//! The order in which runs that wait are started.

use std::collections::VecDeque;

use crate::os::Rank;

/// Runs that wait to be started: those of the tree before one-shot commands, each rank in the order of coming.
///
/// One-shot commands cannot be kept waiting for ever: there are only so many children, and each waits once.
#[derive(Debug)]
pub(super) struct Queue<T> {
    supervised: VecDeque<T>,
    one_shots: VecDeque<T>,
}

impl<T> Queue<T> {
    pub(super) const fn new() -> Self {
        Self {
            supervised: VecDeque::new(),
            one_shots: VecDeque::new(),
        }
    }

    pub(super) fn push(&mut self, rank: Rank, run: T) {
        match rank {
            Rank::Supervised => self.supervised.push_back(run),
            Rank::OneShot => self.one_shots.push_back(run),
        }
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let first = self.supervised.pop_front();
        first.or_else(|| self.one_shots.pop_front())
    }

    pub(super) fn len(&self) -> usize {
        self.supervised.len() + self.one_shots.len()
    }

    /// Whether one of the tree waits.
    pub(super) fn is_urgent(&self) -> bool {
        !self.supervised.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_of_the_tree_overtakes_commands_and_each_rank_keeps_its_order() {
        let mut queue = Queue::new();
        let ranks = [
            (Rank::OneShot, 1),
            (Rank::OneShot, 2),
            (Rank::Supervised, 3),
            (Rank::OneShot, 4),
            (Rank::Supervised, 5),
        ];
        for (rank, run) in ranks {
            queue.push(rank, run);
        }
        assert_eq!(queue.len(), 5);
        let order: Vec<i32> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [3, 5, 1, 2, 4]);
        assert!(queue.is_empty());
    }
}
