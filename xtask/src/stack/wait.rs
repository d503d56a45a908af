//! Waiting for what other programs do.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(200);

/// Looks until there is something, and returns it.
///
/// # Errors
/// What `look` fails with, at once; or nothing came within `limit`.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if start.elapsed() >= limit {
            bail!("waited {} s for {what}", limit.as_secs());
        }
        thread::sleep(PERIOD);
    }
}
