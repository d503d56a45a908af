//! What the kernel holds of BPF: taken before the agent starts and compared after it has ended.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{command, wait};

/// The kernel frees programs and maps a moment after their last user is gone.
const FREE_LIMIT: Duration = Duration::from_secs(15);
/// `bpftool` loads an iterator of its own to list processes, and systemd filters of devices and
/// addresses for its units; they are not ours to count.
const OF_OTHERS: [&str; 3] = ["dump_bpf_", "pid_iter", "sd_"];

/// Every BPF program, link and map, and every kprobe, by a text that identifies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory(BTreeMap<String, String>);

impl Inventory {
    /// Asks `bpftool` and tracefs.
    ///
    /// # Errors
    /// `bpftool` failed or printed something else than a list.
    pub fn take() -> Result<Self> {
        let mut found = BTreeMap::new();
        for kind in ["prog", "link", "map"] {
            for object in list(kind)? {
                if !is_of_others(&object) {
                    found.insert(format!("{kind} {}", object["id"]), object.to_string());
                }
            }
        }
        let kprobes = fs::read_to_string("/sys/kernel/tracing/kprobe_events").unwrap_or_default();
        found.extend(kprobes.lines().map(|line| (line.to_owned(), String::new())));
        Ok(Self(found))
    }

    /// Objects that are here and not in `before`.
    pub fn since(&self, before: &Self) -> Vec<String> {
        self.0
            .iter()
            .filter(|(id, _)| !before.0.contains_key(*id))
            .map(|(id, shown)| format!("{id}: {shown}"))
            .collect()
    }

    /// Waits until nothing is left that was not there at this inventory.
    ///
    /// # Errors
    /// Names what is left.
    pub fn ensure_nothing_new(&self) -> Result<()> {
        wait::until(
            "the kernel to free the agent's BPF objects",
            FREE_LIMIT,
            || {
                let left = Self::take()?.since(self);
                ensure!(left.is_empty(), "left in the kernel: {left:#?}");
                Ok(())
            },
        )
    }
}

fn list(kind: &str) -> Result<Vec<Value>> {
    let text = command::run("bpftool", &["-j", kind, "show"])?;
    // Without any object some versions print nothing at all.
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&text)
        .with_context(|| format!("`bpftool -j {kind} show` printed {text:?}"))
}

fn is_of_others(object: &Value) -> bool {
    let name = object["name"].as_str().unwrap_or_default();
    OF_OTHERS.iter().any(|own| name.starts_with(own)) || object["type"] == "iter"
}
