//! What was read about this node: a value that can be saved, sent and judged elsewhere.
//!
//! PURE. `None` means "could not be read", never "no".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Number of `CAP_SYS_ADMIN`.
pub const CAP_SYS_ADMIN: u32 = 21;
/// Number of `CAP_PERFMON`.
pub const CAP_PERFMON: u32 = 38;
/// Number of `CAP_BPF`.
pub const CAP_BPF: u32 = 39;

/// The ip_vs sysctls the rules read, all below `net.ipv4.vs`.
pub const SYSCTLS: &[&str] = &["conn_reuse_mode", "conntrack", "expire_nodest_conn"];

/// How ip_vs is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpVs {
    /// Not loaded.
    Absent,
    /// A loaded module.
    Module,
    /// Part of the kernel's image.
    BuiltIn,
}

/// Facts about one node, as this process sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Release of the running kernel, as `uname -r`.
    pub release: Option<String>,
    /// Effective capabilities of this process, one bit each.
    pub capabilities: Option<u64>,
    /// Whether the kernel describes its own types.
    pub btf_kernel: Option<bool>,
    /// Whether it describes those of the ip_vs module.
    pub btf_ip_vs: Option<bool>,
    /// Whether the kernel can be probed.
    pub kprobes: Option<bool>,
    /// How ip_vs is present.
    pub ip_vs: Option<IpVs>,
    /// Whether netfilter's connection tracking is present.
    pub nf_conntrack: Option<bool>,
    /// Values of [`SYSCTLS`] in this process's network namespace.
    pub sysctls: BTreeMap<String, i64>,
}

impl Facts {
    /// Whether IPVS is there to be observed.
    #[must_use]
    pub fn ip_vs_loaded(&self) -> bool {
        matches!(self.ip_vs, Some(IpVs::Module | IpVs::BuiltIn))
    }

    /// Whether this process has a capability; `None` when that could not be read.
    #[must_use]
    pub fn has(&self, capability: u32) -> Option<bool> {
        self.capabilities.map(|bits| bits >> capability & 1 == 1)
    }

    /// First two numbers of the kernel's release.
    #[must_use]
    pub fn version(&self) -> Option<(u32, u32)> {
        let (major, rest) = self.release.as_deref()?.split_once('.')?;
        let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn released(release: &str) -> Facts {
        Facts {
            release: Some(release.to_owned()),
            ..Facts::default()
        }
    }

    #[test]
    fn releases_are_read_as_distributions_write_them() {
        assert_eq!(released("6.1.0-56-cloud-amd64").version(), Some((6, 1)));
        assert_eq!(released("5.10-rc1").version(), Some((5, 10)));
        assert_eq!(released("6").version(), None);
        assert_eq!(released("six.one").version(), None);
        assert_eq!(Facts::default().version(), None);
    }

    #[test]
    fn capabilities_are_bits() {
        let facts = Facts {
            capabilities: Some(1 << CAP_BPF),
            ..Facts::default()
        };
        assert_eq!(facts.has(CAP_BPF), Some(true));
        assert_eq!(facts.has(CAP_SYS_ADMIN), Some(false));
        assert_eq!(Facts::default().has(CAP_BPF), None);
    }

    #[test]
    fn facts_survive_being_saved() {
        let facts = Facts {
            ip_vs: Some(IpVs::BuiltIn),
            sysctls: BTreeMap::from([("conntrack".to_owned(), 1)]),
            ..released("6.12.1")
        };
        let saved = serde_json::to_string(&facts).unwrap();
        assert_eq!(serde_json::from_str::<Facts>(&saved).unwrap(), facts);
    }
}
