//! Resource limits of a process (`getrlimit(2)`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// So many.
    Of(u64),
    /// None.
    Infinite,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(limit) => limit.fmt(f),
            Self::Infinite => f.write_str("unlimited"),
        }
    }
}

/// The limits that matter, after they were raised as far as the process may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// `RLIMIT_NOFILE`: open files.
    pub open_files: Limit,
    /// `RLIMIT_MEMLOCK`, bytes: BPF maps are charged against it before 5.11.
    pub locked_bytes: Limit,
    /// Whether this kernel was seen to charge maps against it; not looked for where it is
    /// unlimited.
    #[serde(default)]
    pub maps_are_charged: bool,
    /// `RLIMIT_AS`, bytes: address space.
    pub address_bytes: Limit,
}
