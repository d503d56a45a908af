//! The kernel, and what its version says about the two fixes that decide what IPVS does.
//!
//! A version is a guess: distributors number and patch their kernels as they like. What the agent
//! has seen a kernel do always wins over it.

use serde::{Deserialize, Serialize};

use super::Fact;
use crate::kernel::features::Features;

/// How ip_vs is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum IpVs {
    /// Not loaded.
    Absent,
    /// A loaded module.
    Module,
    /// Part of the kernel's image.
    BuiltIn,
}

/// What is known of the running kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// As `uname -r`.
    pub release: Fact<String>,
    /// The version it was made from, as its distributor states it (`/proc/version`,
    /// `/proc/version_signature`).
    pub upstream: Fact<String>,
    /// Whether it describes its own types.
    pub btf: Fact<bool>,
    /// Whether it describes those of the ip_vs module.
    pub btf_ip_vs: Fact<bool>,
    /// Whether it can be probed.
    pub kprobes: Fact<bool>,
    /// Of its file systems, those not mounted where they belong. Not in bundles of the first
    /// builds.
    #[serde(default)]
    pub unmounted: Fact<Vec<Unmounted>>,
    /// What it locks down, root included. Not in bundles of the first builds.
    #[serde(default)]
    pub lockdown: Fact<Lockdown>,
    /// What it offers to programs. Not in bundles of the first builds.
    #[serde(default)]
    pub features: Fact<Features>,
}

/// A file system of the kernel that is needed and not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Unmounted {
    /// procfs, or its `/proc/sys` (mounted with `subset=pid`).
    Proc,
    /// sysfs.
    Sys,
}

/// Modes of the kernel's lockdown (security/lockdown/lockdown.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Lockdown {
    /// Securityfs, which shows it, is not mounted, and the command line sets none.
    NotShown,
    /// Nothing.
    None,
    /// What would change the running kernel; BPF programs still read its memory.
    Integrity,
    /// Also what would read its memory: no BPF program that does is loaded.
    Confidentiality,
}

impl Lockdown {
    /// The mode named by the kernel's own text, such as `none [integrity] confidentiality`, or by
    /// the parameter of its command line.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let chosen = text
            .split_once('[')
            .and_then(|(_, rest)| rest.split_once(']'));
        match chosen.map_or(text.trim(), |(mode, _)| mode) {
            "none" => Some(Self::None),
            "integrity" => Some(Self::Integrity),
            "confidentiality" => Some(Self::Confidentiality),
            _ => None,
        }
    }
}

/// Major, minor and patch of a kernel; a missing patch is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// The version a text begins with.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
        let mut numbers = text.get(..end.unwrap_or(text.len()))?.split('.');
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        let patch = numbers.next().and_then(|text| text.parse().ok());
        Some(Self(major, minor, patch.unwrap_or(0)))
    }
}

/// What a version lets one say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guess {
    /// It has it.
    Yes,
    /// It does not.
    No,
    /// It may have been patched either way.
    Unsure,
}

/// First upstream version with a fix, and the stable updates that brought it to older series.
struct Fix {
    since: Version,
    backports: &'static [Version],
}

/// `f0a5e4d7a594` "ipvs: allow connection reuse for unconfirmed conntrack". Without it every reuse
/// that IPVS would reschedule is dropped where netfilter tracks connections.
const REUSE_WITH_CONNTRACK: Fix = Fix {
    since: Version(5, 9, 0),
    backports: &[Version(4, 14, 194), Version(4, 19, 141), Version(5, 4, 60)],
};

/// `c95c07836fa4` "netfilter: ipvs: Fix reuse connection if RS weight is 0": `expire_nodest_conn`
/// reschedules a SYN whose real server has weight 0 also with `conn_reuse_mode=0`.
const NODEST_WITHOUT_REUSE: Fix = Fix {
    since: Version(5, 16, 0),
    backports: &[
        Version(4, 19, 219),
        Version(5, 4, 163),
        Version(5, 10, 83),
        Version(5, 15, 6),
    ],
};

/// Parts of a release that name distributors who carry their own patches.
const VENDOR_MARKS: &[&str] = &[
    ".el", ".amzn", ".al7", ".al8", ".an7", ".an8", ".tl", "tlinux", "euler", ".hce", "uek", "cos",
    ".lt", ".ky",
];

impl Kernel {
    /// Major and minor of the release.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        Version::of(self.release.known()?)
    }

    /// Whether a reuse is rescheduled in spite of netfilter's own entry for the old connection.
    #[must_use]
    pub fn reuses_with_conntrack(&self) -> Guess {
        self.has(&REUSE_WITH_CONNTRACK)
    }

    /// Whether `expire_nodest_conn=1` is enough with `conn_reuse_mode=0`.
    #[must_use]
    pub fn nodest_without_reuse(&self) -> Guess {
        self.has(&NODEST_WITHOUT_REUSE)
    }

    /// Whether the distributor's own patches make the version a poor witness.
    #[must_use]
    pub fn is_vendor(&self) -> bool {
        let release = self.release.known().map_or("", String::as_str);
        VENDOR_MARKS.iter().any(|mark| release.contains(mark))
    }

    fn has(&self, fix: &Fix) -> Guess {
        let Some(version) = self.version() else {
            return Guess::Unsure;
        };
        if version >= fix.since {
            return Guess::Yes;
        }
        if self.is_vendor() {
            return Guess::Unsure;
        }
        let stated = self.upstream.known().and_then(|text| Version::of(text));
        let exact = stated.or((version.2 > 0).then_some(version));
        let Some(Version(major, minor, patch)) = exact else {
            return Guess::Unsure;
        };
        let mut backports = fix.backports.iter();
        let backport = backports.find(|backport| (backport.0, backport.1) == (major, minor));
        match backport {
            Some(backport) if patch >= backport.2 => Guess::Yes,
            _ => Guess::No,
        }
    }
}
