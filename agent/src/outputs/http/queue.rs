//! A bounded number of those who wait.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Lets so many wait and no more.
#[derive(Debug)]
pub struct Queue {
    waiting: AtomicUsize,
    max: usize,
}

/// A place in the queue until it is dropped.
#[derive(Debug)]
pub struct Waiting<'a>(&'a Queue);

impl Queue {
    /// Empty.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            max,
        }
    }

    /// `None` where too many wait already.
    pub fn enter(&self) -> Option<Waiting<'_>> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        // Dropped at once, and the place with it, where there was none.
        let entered = Waiting(self);
        (before < self.max).then_some(entered)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back() {
        let queue = Queue::new(2);
        let first = queue.enter().unwrap();
        let _second = queue.enter().unwrap();
        assert!(queue.enter().is_none());
        assert!(queue.enter().is_none());
        drop(first);
        assert!(queue.enter().is_some());
    }
}
