//! What was read about this node: a value that can be saved, sent and judged elsewhere.
//!
//! PURE. What could not be read says why; it never passes for "no".

mod kernel;
mod limits;
mod netns;
mod observed;
mod site;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use kernel::{Guess, IpVs, Kernel, Lockdown, Unmounted, Version};
pub use limits::{Limit, Limits};
pub use netns::{Conntrack, Listener, Netns, PortRange, Ports, Queues, Rules, Table, Timeouts};
pub use observed::{Observed, Seen};
pub use site::{Controller, ControllerKind, KubeProxy, Tool};

/// Version of the saved form; another one is refused, never guessed at.
pub const FACTS_VERSION: u32 = 1;

/// Number of `CAP_SYS_ADMIN`.
pub const CAP_SYS_ADMIN: u32 = 21;
/// Number of `CAP_PERFMON`.
pub const CAP_PERFMON: u32 = 38;
/// Number of `CAP_BPF`.
pub const CAP_BPF: u32 = 39;

/// One thing looked at: its value, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Fact<T> {
    /// As it was read.
    Known(T),
    /// Why it was not.
    Unknown(String),
}

impl<T> Default for Fact<T> {
    fn default() -> Self {
        Self::Unknown("not looked at".to_owned())
    }
}

impl<T> Fact<T> {
    /// The value, where there is one.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }

    /// The value, or the reason why there is none.
    ///
    /// # Errors
    /// That reason.
    pub fn get(&self) -> Result<&T, &str> {
        match self {
            Self::Known(value) => Ok(value),
            Self::Unknown(because) => Err(because),
        }
    }
}

impl<T, E: std::fmt::Display> From<Result<T, E>> for Fact<T> {
    fn from(read: Result<T, E>) -> Self {
        match read {
            Ok(value) => Self::Known(value),
            Err(error) => Self::Unknown(error.to_string()),
        }
    }
}

/// Facts about one node, as one process saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// [`FACTS_VERSION`] of the build that wrote them.
    pub version: u32,
    /// When they were read, RFC 3339.
    pub taken_at: Fact<String>,
    /// Name of the node.
    pub host: Fact<String>,
    /// The kernel.
    pub kernel: Kernel,
    /// Effective capabilities of the process that looked, one bit each.
    pub capabilities: Fact<u64>,
    /// Resource limits of that process. Not in bundles of the first builds.
    #[serde(default)]
    pub limits: Fact<Limits>,
    /// How ip_vs is present.
    pub ip_vs: Fact<IpVs>,
    /// Rows of IPVS's table of connections, at most: a power of 2 (`ip_vs.conn_tab_bits`). Not in
    /// bundles of the first builds.
    #[serde(default)]
    pub conn_tab_bits: Fact<u64>,
    /// Whether netfilter's connection tracking is loaded.
    pub nf_conntrack: Fact<bool>,
    /// Who seems to program IPVS here.
    pub controllers: Fact<Vec<Controller>>,
    /// What is known of kube-proxy, where it runs.
    pub kube_proxy: Option<KubeProxy>,
    /// The network namespace of the process that looked, then others in which IPVS has services.
    pub netns: Vec<Netns>,
    /// Namespaces that exist besides these and were not looked into.
    pub netns_skipped: u32,
    /// What a running agent has seen.
    pub observed: Fact<Observed>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            version: FACTS_VERSION,
            taken_at: Fact::default(),
            host: Fact::default(),
            kernel: Kernel::default(),
            capabilities: Fact::default(),
            limits: Fact::default(),
            ip_vs: Fact::default(),
            conn_tab_bits: Fact::default(),
            nf_conntrack: Fact::default(),
            controllers: Fact::default(),
            kube_proxy: None,
            netns: Vec::new(),
            netns_skipped: 0,
            observed: Fact::default(),
        }
    }
}

/// Why a text is no bundle of facts.
#[derive(Debug, Error)]
pub enum BadBundle {
    /// It is no JSON, or not of this shape.
    #[error(
        "not a bundle of facts: {0}; expected a file written by `ipvs-lens doctor --save-facts`"
    )]
    Shape(#[from] serde_json::Error),
    /// Another version wrote it.
    #[error("version is {found}, expected {FACTS_VERSION}; check it with the build that saved it")]
    Version {
        /// Of the file.
        found: u32,
    },
}

impl Facts {
    /// Reads a saved bundle.
    ///
    /// # Errors
    /// [`BadBundle`].
    pub fn parse(text: &str) -> Result<Self, BadBundle> {
        /// Any version has at least this.
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let Head { version: found } = serde_json::from_str(text)?;
        if found != FACTS_VERSION {
            return Err(BadBundle::Version { found });
        }
        Ok(serde_json::from_str(text)?)
    }

    /// Whether the process that looked has a capability.
    #[must_use]
    pub fn has(&self, capability: u32) -> Option<bool> {
        let bits = self.capabilities.known()?;
        Some(bits.checked_shr(capability).unwrap_or(0) & 1 == 1)
    }

    /// Whether this controller was found here.
    #[must_use]
    pub fn has_controller(&self, kind: ControllerKind) -> bool {
        let found = self.controllers.known();
        found.is_some_and(|all| all.iter().any(|controller| controller.kind == kind))
    }

    /// What the agent has seen in a namespace since the parameters there were last changed.
    #[must_use]
    pub fn seen(&self, netns: &Netns) -> Option<&Seen> {
        self.observed.known()?.by_netns.get(&netns.id)
    }
}

/// The sum, which stays at its limit: a bundle may hold any numbers.
pub fn total(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests;
