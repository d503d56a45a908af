//! Lines that wait for a reader, and how many were left out because it was too slow.
//!
//! PURE. Bounded by lines and by bytes. At the bound new lines are left out and counted; the queue
//! remembers where, so that the reader finds the number at the place of the gap.

use std::collections::VecDeque;

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Lines.
    pub lines: usize,
    /// Bytes of all lines together.
    pub bytes: usize,
}

/// What the reader gets next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A line.
    Line(Vec<u8>),
    /// The number of lines left out at this place.
    LeftOut(u64),
}

/// The queue.
///
/// `pushed == popped + waiting + left_out`, at any time.
#[derive(Debug)]
pub struct OutputQueue {
    limits: QueueLimits,
    waiting: VecDeque<Output>,
    bytes: usize,
    /// Left out behind the last waiting line.
    gap: u64,
    left_out: u64,
}

impl OutputQueue {
    /// An empty queue.
    #[must_use]
    pub const fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            waiting: VecDeque::new(),
            bytes: 0,
            gap: 0,
            left_out: 0,
        }
    }

    /// Takes a line; `false` when there is no room, which is counted.
    pub fn push(&mut self, line: Vec<u8>) -> bool {
        // A gap that ends here takes a place too.
        let places = 1 + usize::from(self.gap > 0);
        let full = self.waiting.len().saturating_add(places) > self.limits.lines
            || self.bytes.saturating_add(line.len()) > self.limits.bytes;
        if full {
            self.gap += 1;
            self.left_out += 1;
            return false;
        }
        if self.gap > 0 {
            self.waiting.push_back(Output::LeftOut(self.gap));
            self.gap = 0;
        }
        self.bytes += line.len();
        self.waiting.push_back(Output::Line(line));
        true
    }

    /// The next line, or the number of those left out here.
    pub fn pop(&mut self) -> Option<Output> {
        let next = self.waiting.pop_front();
        if let Some(Output::Line(line)) = &next {
            self.bytes -= line.len();
        }
        next.or_else(|| (self.gap > 0).then(|| Output::LeftOut(std::mem::take(&mut self.gap))))
    }

    /// Whether [`Self::pop`] has nothing to return.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.gap == 0
    }

    /// Lines left out so far.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: QueueLimits = QueueLimits {
        lines: 3,
        bytes: 10,
    };

    fn line(text: &str) -> Output {
        Output::Line(text.as_bytes().to_vec())
    }

    fn rest(queue: &mut OutputQueue) -> Vec<Output> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn the_number_left_out_stands_at_its_place() {
        let mut queue = OutputQueue::new(LIMITS);
        for text in ["a", "b", "c", "d", "e"] {
            queue.push(text.as_bytes().to_vec());
        }
        assert_eq!(queue.left_out(), 2);
        assert_eq!(queue.pop(), Some(line("a")));
        // One place is free: the gap and a line need two.
        assert!(!queue.push(b"f".to_vec()));
        assert_eq!(queue.pop(), Some(line("b")));
        assert!(queue.push(b"g".to_vec()));
        assert_eq!(rest(&mut queue), [line("c"), Output::LeftOut(3), line("g")]);
        assert!(queue.is_empty());
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut queue = OutputQueue::new(LIMITS);
        assert!(!queue.push(vec![0; 11]));
        assert!(queue.push(vec![0; 10]));
        assert!(!queue.push(vec![0]));
        assert_eq!(
            rest(&mut queue),
            [
                Output::LeftOut(1),
                Output::Line(vec![0; 10]),
                Output::LeftOut(1)
            ]
        );
    }

    proptest! {
        #[test]
        fn every_line_is_read_or_counted(steps in prop::collection::vec(0_usize..8, 0..200)) {
            let mut queue = OutputQueue::new(LIMITS);
            let (mut pushed, mut read, mut said) = (0_u64, 0_u64, 0_u64);
            let mut take = |output| match output {
                Output::Line(_) => read += 1,
                Output::LeftOut(count) => said += count,
            };
            for step in steps {
                if step == 0 {
                    queue.pop().into_iter().for_each(&mut take);
                } else {
                    pushed += 1;
                    queue.push(vec![0; step]);
                    prop_assert!(queue.waiting.len() <= LIMITS.lines);
                    prop_assert!(queue.bytes <= LIMITS.bytes);
                }
            }
            std::iter::from_fn(|| queue.pop()).for_each(&mut take);
            prop_assert_eq!(pushed, read + said);
            prop_assert_eq!(said, queue.left_out());
        }
    }
}
