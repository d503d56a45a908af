//! What a running agent has seen IPVS do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::total;

/// As one agent answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// Which agent was asked, for people.
    pub source: String,
    /// By inode of the network namespace.
    pub by_netns: BTreeMap<u32, Seen>,
}

/// Counts since the parameters of the namespace were last seen to change; what they did before says
/// nothing about them now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Seen {
    /// Attempts by decision.
    pub decisions: BTreeMap<String, u64>,
    /// Attempts sent to stale real servers, by cause.
    pub stale: BTreeMap<String, u64>,
    /// SYNs that died here, by cause.
    pub syn_drops: BTreeMap<String, u64>,
}

impl Seen {
    /// What was counted since `before`; a count that fell started again at 0.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let since = |now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>| {
            let counts = now.iter().map(|(word, now)| {
                let before = before.get(word).copied().unwrap_or(0);
                (word.clone(), now.checked_sub(before).unwrap_or(*now))
            });
            counts.filter(|(_, count)| *count > 0).collect()
        };
        Self {
            decisions: since(&self.decisions, &before.decisions),
            stale: since(&self.stale, &before.stale),
            syn_drops: since(&self.syn_drops, &before.syn_drops),
        }
    }

    /// Attempts with this decision.
    #[must_use]
    pub fn decided(&self, decision: &str) -> u64 {
        self.decisions.get(decision).copied().unwrap_or(0)
    }

    /// Attempts sent to a stale real server for this cause.
    #[must_use]
    pub fn stale_by(&self, cause: &str) -> u64 {
        self.stale.get(cause).copied().unwrap_or(0)
    }

    /// SYNs that died of this cause.
    #[must_use]
    pub fn dropped_by(&self, cause: &str) -> u64 {
        self.syn_drops.get(cause).copied().unwrap_or(0)
    }

    /// SYNs that IPVS itself dropped.
    #[must_use]
    pub fn syn_drops_by_ipvs(&self) -> u64 {
        let by_ipvs = self.syn_drops.iter();
        total(
            by_ipvs
                .filter(|(cause, _)| cause.starts_with("ipvs_"))
                .map(|(_, count)| *count),
        )
    }

    /// Attempts sent to stale real servers.
    #[must_use]
    pub fn stale_connections(&self) -> u64 {
        total(self.stale.values().copied())
    }
}
