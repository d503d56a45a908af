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
    /// When the bucket is full again: each allowed request moves it by an interval, to a burst of
    /// intervals after the present at most. In the past for a full bucket, whatever the uptime.
    full_at: MonoNs,
}

impl Bucket {
    /// Full.
    #[must_use]
    pub const fn new(rate: Rate) -> Self {
        Self {
            rate,
            full_at: MonoNs(0),
        }
    }

    /// Whether a request at `now` is allowed; it is then counted.
    pub fn take(&mut self, now: MonoNs) -> bool {
        let full_at = self.full_at.max(now) + self.rate.interval;
        let allowed = full_at.since(now) <= self.window();
        if allowed {
            self.full_at = full_at;
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
    fn a_burst_then_one_per_interval_at_any_uptime() {
        for uptime_ns in [0, 1, 1_000_000_000_000, 1 << 62] {
            let mut bucket = Bucket::new(Rate {
                interval: Duration::from_secs(1),
                burst: 3,
            });
            let at = |ms: u64| MonoNs(uptime_ns + ms * 1_000_000);
            let allowed = |bucket: &mut Bucket, ms| (0..5).filter(|_| bucket.take(at(ms))).count();
            assert_eq!(allowed(&mut bucket, 0), 3, "booted {uptime_ns} ns ago");
            assert_eq!(allowed(&mut bucket, 999), 0);
            assert_eq!(allowed(&mut bucket, 1_000), 1);
            assert_eq!(allowed(&mut bucket, 3_500), 2);
            assert_eq!(allowed(&mut bucket, 4_000), 1);
            assert_eq!(allowed(&mut bucket, 60_000), 3);
        }
    }
}
