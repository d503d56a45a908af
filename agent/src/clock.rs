//! Time: the kernel's monotonic clock as a number, and the wall clock beside it.
//!
//! The only file that reads a clock. Everything else is handed a [`MonoNs`] or a [`WallAnchor`].

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
pub struct MonoNs(pub u64);

impl MonoNs {
    /// The clock now.
    #[must_use]
    pub fn now() -> Self {
        Self(read(libc::CLOCK_MONOTONIC))
    }

    /// Time since `earlier`; zero when `earlier` is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Time the calling thread has had a CPU so far, in the kernel too.
#[must_use]
pub fn thread_time() -> Duration {
    Duration::from_nanos(read(libc::CLOCK_THREAD_CPUTIME_ID))
}

/// A clock of this kernel in nanoseconds.
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live, writable `timespec`, and both clocks asked for exist on
    // every Linux, so the call cannot fail and writes both fields.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * NS_PER_SECOND + nanoseconds
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
    /// Both clocks now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    pub fn now() -> Self {
        Self {
            mono: MonoNs::now(),
            wall: SystemTime::now(),
        }
    }

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
    fn the_clock_runs_forward() {
        let first = MonoNs::now();
        assert!(MonoNs::now() >= first);
        assert!(first > MonoNs(0));
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(MonoNs(u64::MAX) + Duration::from_nanos(1), MonoNs(u64::MAX));
        assert_eq!(MonoNs(5) - Duration::from_nanos(6), MonoNs(0));
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
