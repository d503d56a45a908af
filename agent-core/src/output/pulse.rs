//! Whether the observer still runs, judged by when it last did.
//!
//! PURE.

use std::time::Duration;

use crate::clock::MonoNs;

/// Without a run of the observer for this long, `/readyz` answers 503: it runs at least every four
/// seconds ([`crate::schedule::IDLE_MAX`]), so two runs are missing.
pub const READY_SILENCE_MAX: Duration = Duration::from_secs(10);

/// Without a run of the observer for this long, `/healthz` answers 503, so that a liveness probe
/// restarts the agent. Longer than loading the kernel programs takes on any machine that was
/// measured, because the observer does not run meanwhile.
pub const HEALTH_SILENCE_MAX: Duration = Duration::from_secs(60);

/// When the observer last ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse(Option<Duration>);

impl Pulse {
    /// As of `now`; `last` is `None` before the first run.
    #[must_use]
    pub fn new(last: Option<MonoNs>, now: MonoNs) -> Self {
        Self(last.map(|last| now.since(last)))
    }

    /// Time since the last run; `None` before the first.
    #[must_use]
    pub const fn silence(self) -> Option<Duration> {
        self.0
    }

    /// One line that says when it last ran, and the limit where that is exceeded.
    ///
    /// # Errors
    /// The same line, where `limit` is exceeded.
    pub fn check(self, limit: Duration) -> Result<String, String> {
        let Some(silence) = self.0 else {
            return Ok("observer has not run yet".to_owned());
        };
        let seconds = silence.as_secs_f64();
        if silence <= limit {
            return Ok(format!("observer last ran {seconds:.1} s ago"));
        }
        let limit = limit.as_secs();
        Err(format!(
            "observer stalled: last ran {seconds:.1} s ago, limit {limit} s"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(silence: Duration) -> Pulse {
        Pulse::new(Some(MonoNs(5)), MonoNs(5) + silence)
    }

    #[test]
    fn the_limit_itself_is_no_stall() {
        assert_eq!(
            after(READY_SILENCE_MAX).check(READY_SILENCE_MAX),
            Ok("observer last ran 10.0 s ago".to_owned())
        );
        let beyond = after(READY_SILENCE_MAX + Duration::from_millis(100));
        assert_eq!(
            beyond.check(READY_SILENCE_MAX),
            Err("observer stalled: last ran 10.1 s ago, limit 10 s".to_owned())
        );
        assert!(beyond.check(HEALTH_SILENCE_MAX).is_ok());
    }

    #[test]
    fn before_the_first_run_nothing_is_stalled() {
        let pulse = Pulse::new(None, MonoNs(u64::MAX));
        assert_eq!(pulse.silence(), None);
        assert_eq!(
            pulse.check(READY_SILENCE_MAX),
            Ok("observer has not run yet".to_owned())
        );
    }
}
