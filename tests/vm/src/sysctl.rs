//! Kernel parameters under `/proc/sys`, in the network namespace of the calling thread.

use std::fs;

use anyhow::{Context as _, Result};

/// Writes parameter `name`, a path below `/proc/sys`.
///
/// # Errors
/// The kernel has no such parameter (a module may be missing) or refuses the value.
pub fn write(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{name}");
    fs::write(&path, value).with_context(|| format!("write {value:?} to {path}"))
}
