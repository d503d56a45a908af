//! How often the table is read.
//!
//! PURE. A reading of 10,000 services costs tens of milliseconds of one CPU; it must not come so
//! often that the table of a large node is read all the time.

use std::time::Duration;

/// Of one CPU, reading may take at most one part in this many: 1 %.
const SHARE: u32 = 100;

/// After a change the table is read again, but changes come in bursts (a rollout, `ipvsadm -R`):
/// not before this has passed, so that one reading sees many of them.
const BURST: Duration = Duration::from_millis(500);

/// Readings whose cheapest is believed. A hypervisor that takes the CPU away makes one reading look
/// a hundred times as expensive, and the table would not be read for minutes. The first readings come at
/// the interval whatever they cost, because a rate needs two of them.
const REMEMBERED: usize = 3;

/// Waiting times between readings.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    interval: Duration,
    /// Of the last readings, the newest first.
    costs: [Duration; REMEMBERED],
}

impl Pace {
    /// Every `interval`, as far as the cost allows.
    #[must_use]
    pub const fn new(interval: Duration) -> Self {
        Self {
            interval,
            costs: [Duration::ZERO; REMEMBERED],
        }
    }

    /// The last reading took a CPU for so long.
    pub const fn took(&mut self, cost: Duration) {
        let [newest, older, _] = self.costs;
        self.costs = [cost, newest, older];
    }

    /// How long to wait for the next reading.
    #[must_use]
    pub fn next(&self) -> Duration {
        self.interval.max(self.rest())
    }

    /// How long to wait when something has changed.
    #[must_use]
    pub fn soon(&self) -> Duration {
        BURST.min(self.interval).max(self.rest())
    }

    /// What keeps the cost at its share.
    fn rest(&self) -> Duration {
        let cost = self.costs.iter().min().copied().unwrap_or_default();
        cost.saturating_mul(SHARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cheap_table_is_read_every_interval() {
        let mut pace = Pace::new(Duration::from_secs(5));
        assert_eq!(pace.next(), Duration::from_secs(5));
        pace.took(Duration::from_millis(2));
        assert_eq!(pace.next(), Duration::from_secs(5));
        assert_eq!(pace.soon(), Duration::from_millis(500));
    }

    #[test]
    fn a_dear_one_less_often_whatever_happens() {
        let mut pace = Pace::new(Duration::from_secs(5));
        for milliseconds in [210, 200, 220] {
            pace.took(Duration::from_millis(milliseconds));
        }
        assert_eq!(pace.next(), Duration::from_secs(20));
        assert_eq!(pace.soon(), Duration::from_secs(20));
    }

    #[test]
    fn one_reading_that_was_held_up_changes_nothing() {
        let mut pace = Pace::new(Duration::from_secs(5));
        for milliseconds in [2, 1_200, 2] {
            pace.took(Duration::from_millis(milliseconds));
            assert_eq!(pace.next(), Duration::from_secs(5));
        }
    }

    #[test]
    fn a_change_never_makes_readings_rarer() {
        let pace = Pace::new(Duration::from_millis(200));
        assert_eq!(pace.soon(), Duration::from_millis(200));
    }
}
