//! The only file that reads a clock. Everything else takes a [`MonoNs`] or a [`WallAnchor`].

use std::time::{Duration, SystemTime};

pub use agent_core::clock::{MonoNs, WallAnchor};

const NS_PER_SECOND: u64 = 1_000_000_000;

/// `CLOCK_MONOTONIC` now.
#[must_use]
pub fn now() -> MonoNs {
    MonoNs(read(libc::CLOCK_MONOTONIC))
}

/// Both clocks now.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
pub fn wall_anchor() -> WallAnchor {
    WallAnchor::new(now(), SystemTime::now())
}

/// CPU time of the calling thread so far, user and kernel.
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

#[cfg(test)]
mod tests {
    use super::{MonoNs, now};

    #[test]
    fn the_clock_runs_forward() {
        let first = now();
        assert!(now() >= first);
        assert!(first > MonoNs(0));
    }
}
