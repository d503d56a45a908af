//! Health as data: what `/status` and `/readyz` say, and the probe metric shows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use agent_core::doctor::facts::Seen;
use agent_core::output::pulse::Pulse;
use serde::Serialize;

use crate::clock::MonoNs;
use crate::kernel::limitation::Limitation;

/// What the agent as a whole is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not attached yet: see [`Status::reason`].
    #[default]
    Waiting,
    /// Attached and observing.
    Armed,
    /// Not observing, because what was observed contradicts what is known of this kernel.
    Refused,
    /// Asked to stop: draining what is in flight.
    Stopping,
}

impl State {
    /// The word in JSON and text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Armed => "armed",
            Self::Refused => "refused",
            Self::Stopping => "stopping",
        }
    }
}

/// What one probe is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ProbeState {
    /// Attached.
    Active,
    /// Not attached, and nothing is wrong with that.
    #[default]
    Disabled,
    /// Could not be attached: see [`ProbeStatus::reason`].
    Failed,
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProbeStatus {
    /// Its name, as in the metric's `probe` label.
    pub name: String,
    /// How it is attached: `fexit`, `fentry`, `kprobe` or `tracepoint`.
    pub via: String,
    /// What it is doing.
    pub state: ProbeState,
    /// Why it is not active.
    pub reason: Option<String>,
}

/// Events so far, by fate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EventsStatus {
    /// Records the kernel programs tried to write.
    pub emitted: u64,
    /// Records read.
    pub received: u64,
    /// Attempts whose outcome is awaited.
    pub attempts_held: u64,
    /// Events read out of order, handled all the same.
    pub late: u64,
    /// Losses by reason; only those above 0.
    pub lost: BTreeMap<String, u64>,
}

/// The IPVS table of one network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TableStatus {
    /// Services at the last reading.
    pub services: usize,
    /// Real servers at the last reading.
    pub real_servers: usize,
    /// How long the last reading took, in milliseconds.
    pub read_ms: u64,
    /// Why the table could not be read the last time.
    pub error: Option<String>,
}

/// The web configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WebStatus {
    /// Its path.
    pub file: String,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Whether users must name themselves.
    pub basic_auth: bool,
    /// Why the file as it is now is not in force; what was loaded before is.
    pub error: Option<String>,
}

/// Everything `/status` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// What it is doing.
    pub state: State,
    /// Why it is not armed.
    pub reason: Option<String>,
    /// Milliseconds since the observer last ran, when this was asked for; `null` before its first run.
    pub observer_last_run_ms_ago: Option<u64>,
    /// Release of the running kernel.
    pub kernel: String,
    /// Where the types of the ip_vs module came from.
    pub types: String,
    /// The way programs hang on functions of the module, and why it was taken.
    pub attachment: String,
    /// Times observation was interrupted, because the module was unloaded or no longer used.
    pub gaps: u64,
    /// Where the kernel keeps what is read: offset by field, absent fields left out.
    pub layout: BTreeMap<String, u16>,
    /// Fields this kernel does not have, and what is not reported for it.
    pub absent: BTreeMap<String, String>,
    /// What is not reported on this node, and why.
    pub limitations: Vec<Limitation>,
    /// Every probe.
    pub probes: Vec<ProbeStatus>,
    /// Events so far.
    pub events: EventsStatus,
    /// The IPVS tables, by inode number of their network namespace.
    pub tables: BTreeMap<String, TableStatus>,
    /// What IPVS was seen to do, by inode of the network namespace, since the parameters of that
    /// namespace were last seen to change.
    pub observed: BTreeMap<u32, Seen>,
    /// The bounds of every table, by name.
    pub limits: BTreeMap<String, u64>,
    /// The web configuration, where there is a file.
    pub web: Option<WebStatus>,
}

/// The status as several tasks see it: cheap to clone, one value behind it.
#[derive(Clone, Debug, Default)]
pub struct SharedStatus(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    status: RwLock<Status>,
    /// When the observer last ran, in nanoseconds; 0 before its first run. Kept outside the lock:
    /// it changes ten times a second.
    observer_ran_ns: AtomicU64,
}

impl SharedStatus {
    /// Starts with `status`.
    #[must_use]
    pub fn new(status: Status) -> Self {
        Self(Arc::new(Shared {
            status: RwLock::new(status),
            ..Shared::default()
        }))
    }

    /// A copy of the status now.
    #[must_use]
    pub fn get(&self) -> Status {
        self.0
            .status
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes the status.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        let status = self.0.status.write();
        change(&mut status.unwrap_or_else(PoisonError::into_inner));
    }

    /// The observer runs at `now`.
    pub fn observer_runs(&self, now: MonoNs) {
        self.0.observer_ran_ns.store(now.0, Ordering::Relaxed);
    }

    /// When the observer last ran, seen from `now`.
    #[must_use]
    pub fn pulse(&self, now: MonoNs) -> Pulse {
        let ran = self.0.observer_ran_ns.load(Ordering::Relaxed);
        Pulse::new((ran != 0).then_some(MonoNs(ran)), now)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_json_is_stable() {
        let shared = SharedStatus::default();
        shared.update(|status| {
            status.version = "0.1.0".to_owned();
            status.reason = Some("ip_vs is not loaded".to_owned());
            status.probes.push(ProbeStatus {
                name: "lookup".to_owned(),
                via: "fexit".to_owned(),
                state: ProbeState::Failed,
                reason: Some("no such function".to_owned()),
            });
            status.events.lost.insert("ring_full".to_owned(), 2);
        });
        expect![[r#"
            {
              "version": "0.1.0",
              "state": "waiting",
              "reason": "ip_vs is not loaded",
              "observer_last_run_ms_ago": null,
              "kernel": "",
              "types": "",
              "attachment": "",
              "gaps": 0,
              "layout": {},
              "absent": {},
              "limitations": [],
              "probes": [
                {
                  "name": "lookup",
                  "via": "fexit",
                  "state": "failed",
                  "reason": "no such function"
                }
              ],
              "events": {
                "emitted": 0,
                "received": 0,
                "attempts_held": 0,
                "late": 0,
                "lost": {
                  "ring_full": 2
                }
              },
              "tables": {},
              "observed": {},
              "limits": {},
              "web": null
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&shared.get()).unwrap());
    }
}
