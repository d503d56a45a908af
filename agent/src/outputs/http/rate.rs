//! A token bucket.
//!
//! PURE: the clock is an argument.

use std::time::Duration;

use super::web_config::Rate;
use crate::clock::MonoNs;

/// Allows a burst, then one request per interval.
#[derive(Debug)]
pub struct Bucket {
    rate: Rate,
    /// When a request would be one too many: each allowed one moves it by an interval. Before the
    /// present by a burst of intervals at most.
    next: MonoNs,
}

impl Bucket {
    /// Full.
    #[must_use]
    pub const fn new(rate: Rate) -> Self {
        Self {
            rate,
            next: MonoNs(0),
        }
    }

    /// Whether a request at `now` is allowed; it is then counted.
    pub fn take(&mut self, now: MonoNs) -> bool {
        let full = now - self.window();
        let next = self.next.max(full) + self.rate.interval;
        let allowed = next <= now;
        if allowed {
            self.next = next;
        }
        allowed
    }

    fn window(&self) -> Duration {
        self.rate.interval.saturating_mul(self.rate.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_per_interval() {
        let mut bucket = Bucket::new(Rate {
            interval: Duration::from_secs(1),
            burst: 3,
        });
        let at = |ms: u64| MonoNs(1_000_000_000_000 + ms * 1_000_000);
        let allowed = |bucket: &mut Bucket, ms| (0..5).filter(|_| bucket.take(at(ms))).count();
        assert_eq!(allowed(&mut bucket, 0), 3);
        assert_eq!(allowed(&mut bucket, 999), 0);
        assert_eq!(allowed(&mut bucket, 1_000), 1);
        assert_eq!(allowed(&mut bucket, 3_500), 2);
        assert_eq!(allowed(&mut bucket, 4_000), 1);
        assert_eq!(allowed(&mut bucket, 60_000), 3);
    }
}
