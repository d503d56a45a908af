//! Running code inside a network namespace made by `ip netns add`.
//!
//! A namespace belongs to a thread: code runs on a thread of its own which ends there, so that no
//! other code of this process ever finds itself in the wrong namespace.

use std::fs::{self, File};
use std::path::Path;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};

/// Where `ip netns` keeps its names.
const NETNS_DIR: &str = "/run/netns";

/// The devices of the reading thread's namespace. Asking for a device by its name would make the
/// kernel look for a module of that name.
const DEVICES: &str = "/proc/thread-self/net/dev";

/// Whether there is a namespace of this name.
pub fn exists(name: &str) -> bool {
    Path::new(NETNS_DIR).join(name).exists()
}

/// Names of the network devices where the caller is.
///
/// # Errors
/// The kernel's list cannot be read.
pub fn devices() -> Result<Vec<String>> {
    let list = fs::read_to_string(DEVICES).with_context(|| format!("read {DEVICES}"))?;
    let names = list.lines().filter_map(|line| line.split_once(':'));
    Ok(names.map(|(name, _)| name.trim().to_owned()).collect())
}

/// Runs `work` in namespace `name` (`None`: where the caller is) and returns its result.
///
/// Threads that `work` starts are in the same namespace.
///
/// # Errors
/// The namespace does not exist or may not be entered, or `work` failed or panicked.
pub fn within<T: Send>(name: Option<&str>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        scope
            .spawn(|| enter(name).and_then(|()| work()))
            .join()
            .map_err(|_| anyhow!("a thread in network namespace {name:?} panicked"))?
    })
}

/// Starts `work` in namespace `name` and returns at once.
pub fn spawn_within<T: Send + 'static>(
    name: Option<String>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> JoinHandle<Result<T>> {
    thread::spawn(move || enter(name.as_deref()).and_then(|()| work()))
}

fn enter(name: Option<&str>) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    let path = format!("{NETNS_DIR}/{name}");
    let file = File::open(&path).with_context(|| format!("open network namespace {path}"))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter network namespace {path}"))
}
