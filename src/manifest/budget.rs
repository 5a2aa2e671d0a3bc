//! How much a manifest may stand for.

use std::cell::Cell;

/// How large all that a manifest stands for may be: replicas, defaults and files of variables make much out of little.
pub(super) const MOST_BYTES: usize = 16 * 1024 * 1024;
/// About what the rules of a child take, without its dependencies.
pub(super) const CHILD_BYTES: usize = 512;
/// About what a dependency takes.
pub(super) const DEPENDENCY_BYTES: usize = 64;

/// What is left of that.
pub(super) struct Budget {
    left: Cell<usize>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            left: Cell::new(MOST_BYTES),
        }
    }
}

impl Budget {
    /// Whether so much more may be; once it may not, nothing more may.
    pub(super) fn spend(&self, bytes: usize) -> bool {
        let left = self.left.get().checked_sub(bytes);
        self.left.set(left.unwrap_or(0));
        left.is_some()
    }

    pub(super) fn is_spent(&self) -> bool {
        self.left.get() == 0
    }
}
