//! Waiting for a condition instead of sleeping: software emulation makes every duration a guess.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Pause between two looks at a condition.
const POLL_PERIOD: Duration = Duration::from_millis(50);

/// Repeats `check` until it succeeds and returns what it found.
///
/// # Errors
/// The last error of `check`, when `limit` has passed; `what` names what was waited for.
pub fn until<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match check() {
            Ok(found) => return Ok(found),
            Err(error) if start.elapsed() >= limit => {
                return Err(error).with_context(|| {
                    format!("waited {:.1} s for {what}", start.elapsed().as_secs_f64())
                });
            }
            Err(_) => std::thread::sleep(POLL_PERIOD),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_the_first_success() {
        let mut looks = 0;
        let found = until("three", Duration::from_secs(60), || {
            looks += 1;
            anyhow::ensure!(looks == 3, "only {looks}");
            Ok(looks)
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn names_what_was_waited_for_and_why_not() {
        let error = until("the moon", Duration::ZERO, || -> Result<()> {
            anyhow::bail!("too far")
        });
        let shown = format!("{:#}", error.unwrap_err());
        assert!(
            shown.contains("for the moon") && shown.ends_with("too far"),
            "{shown}"
        );
    }
}
