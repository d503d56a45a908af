//! The reorder window: events leave it in the order the kernel saw them.
//!
//! PURE. Several CPUs write into one stream and hooks nest, so records may arrive a little out of
//! order. The rule for late events is here and nowhere else: an event older than what has left
//! the window is late, is not held, and is counted.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::MonoNs;
use crate::event::PacketEvent;

/// Events held at once: more than one full ring (about 7,000 records), so that a drain fits.
///
/// At the cap the oldest leaves early and is counted. 8,192 events are about 2 MiB.
pub const WINDOW_EVENTS_MAX: usize = 8_192;

/// An event under the time it is filed at, its own time and its contents breaking ties.
type Filed = (MonoNs, MonoNs, PacketEvent);

/// Held events, oldest first.
#[derive(Debug, Default)]
pub struct Window {
    held: BinaryHeap<Reverse<Filed>>,
}

impl Window {
    /// Holds an event until its time comes; a time ahead of `now` is taken as `now`.
    ///
    /// Equal times leave in the order of their contents, so the order of arrival never matters.
    pub fn push(&mut self, now: MonoNs, event: PacketEvent) {
        let at = event.at();
        self.held.push(Reverse((at.min(now), at, event)));
    }

    /// Whether the next event has no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.held.len() >= WINDOW_EVENTS_MAX
    }

    /// The time of the oldest held event.
    #[must_use]
    pub fn next_at(&self) -> Option<MonoNs> {
        self.held.peek().map(|Reverse((at, _, _))| *at)
    }

    /// The oldest held event with the time it is filed under.
    pub fn pop(&mut self) -> Option<(MonoNs, PacketEvent)> {
        self.held.pop().map(|Reverse((at, _, event))| (at, event))
    }

    /// Events held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }
}
