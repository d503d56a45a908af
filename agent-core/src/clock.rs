//! Types of time: the kernel's monotonic clock as a number, and the wall clock that belongs to it.
//!
//! No clock is read here. Functions of this crate take the time as an argument.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime};

use serde::Serialize;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock of `bpf_ktime_get_ns`.
///
/// Arithmetic saturates: a time made of hostile bytes must not panic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MonoNs(pub u64);

impl MonoNs {
    /// Time since `earlier`; zero when `earlier` is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl MonoNs {
    /// The time `span` earlier; `None` where that is before the machine was booted.
    #[must_use]
    pub fn checked_sub(self, span: Duration) -> Option<Self> {
        self.0.checked_sub(nanoseconds(span)).map(Self)
    }
}

impl Add<Duration> for MonoNs {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(span)))
    }
}

impl Sub<Duration> for MonoNs {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanoseconds(span)))
    }
}

impl fmt::Display for MonoNs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, rest) = (self.0 / NS_PER_SECOND, self.0 % NS_PER_SECOND);
        write!(f, "{seconds}.{rest:09}")
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// One moment read on both clocks, which turns monotonic times into wall times.
#[derive(Clone, Copy, Debug)]
pub struct WallAnchor {
    mono: MonoNs,
    wall: SystemTime,
}

impl WallAnchor {
    /// Both clocks as given.
    #[must_use]
    pub const fn new(mono: MonoNs, wall: SystemTime) -> Self {
        Self { mono, wall }
    }

    /// The wall time of a monotonic one, as far as the wall clock was not set in between.
    #[must_use]
    pub fn wall(&self, at: MonoNs) -> SystemTime {
        let moved = if at >= self.mono {
            self.wall.checked_add(at.since(self.mono))
        } else {
            self.wall.checked_sub(self.mono.since(at))
        };
        moved.unwrap_or(self.wall)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(MonoNs(u64::MAX) + Duration::from_nanos(1), MonoNs(u64::MAX));
        assert_eq!(MonoNs(5) - Duration::from_nanos(6), MonoNs(0));
        assert_eq!(MonoNs(5).checked_sub(Duration::from_nanos(6)), None);
        assert_eq!(
            MonoNs(5).checked_sub(Duration::from_nanos(5)),
            Some(MonoNs(0))
        );
        assert_eq!(MonoNs(5).since(MonoNs(6)), Duration::ZERO);
        assert_eq!(MonoNs(0) + Duration::MAX, MonoNs(u64::MAX));
    }

    #[test]
    fn an_anchor_reads_both_ways() {
        let anchor = WallAnchor::new(MonoNs(10), UNIX_EPOCH + Duration::from_nanos(100));
        assert_eq!(
            anchor.wall(MonoNs(15)),
            UNIX_EPOCH + Duration::from_nanos(105)
        );
        assert_eq!(
            anchor.wall(MonoNs(0)),
            UNIX_EPOCH + Duration::from_nanos(90)
        );
    }

    #[test]
    fn seconds_are_readable() {
        assert_eq!(MonoNs(1_033_000_000).to_string(), "1.033000000");
    }
}
