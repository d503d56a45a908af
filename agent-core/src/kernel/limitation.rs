//! What this node keeps the agent from reporting while everything else stays exact. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something that is not reported on this node, why, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Limitation {
    /// What is missing from the output.
    pub missing: String,
    /// Why.
    pub because: String,
    /// What makes it complete.
    pub remedy: String,
}

impl fmt::Display for Limitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            missing,
            because,
            remedy,
        } = self;
        write!(f, "{because}, so {missing}; {remedy}")
    }
}

/// What hides the addresses of kernel functions from this process (kernel/ksyms_common.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressesHiddenBy {
    /// `/proc/kallsyms` cannot be read or is empty, as under `ProtectKernelTunables=` of systemd.
    Mask,
    /// `kernel.kptr_restrict` is 2: no process sees them.
    KptrRestrict,
    /// This process lacks `CAP_SYSLOG`.
    NoSyslog,
}

impl AddressesHiddenBy {
    /// Why the addresses are hidden, given that the symbol table has names.
    #[must_use]
    pub const fn of_named_table(kptr_restrict: Option<u64>) -> Self {
        match kptr_restrict {
            Some(2..) => Self::KptrRestrict,
            _ => Self::NoSyslog,
        }
    }

    const fn because(self) -> &'static str {
        match self {
            Self::Mask => "/proc/kallsyms cannot be read",
            Self::KptrRestrict => "kernel.kptr_restrict=2 hides addresses of kernel functions",
            Self::NoSyslog => {
                "addresses of kernel functions are hidden from a process without CAP_SYSLOG"
            }
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::Mask => {
                "show /proc/kallsyms to the agent (ProtectKernelTunables= of a systemd unit masks \
                 it), with CAP_SYSLOG"
            }
            Self::KptrRestrict => "set kernel.kptr_restrict to 1 or 0, and keep CAP_SYSLOG",
            Self::NoSyslog => "run with CAP_SYSLOG",
        }
    }

    /// What is not reported without addresses. A kernel with drop reasons (5.17 or newer) states
    /// most causes itself.
    #[must_use]
    pub fn limitation(self, has_drop_reasons: bool) -> Limitation {
        let missing = if has_drop_reasons {
            "SYN drops by netfilter are reported without their hook, and SYN drops without a reason \
             from the kernel are not counted (cause other)"
        } else {
            "SYN drops outside IPVS are not counted (causes netfilter, conntrack_full, \
             conntrack_insert, rp_filter, other)"
        };
        Limitation {
            missing: missing.to_owned(),
            because: self.because().to_owned(),
            remedy: self.remedy().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_and_the_remedy_are_named() {
        let hidden = AddressesHiddenBy::of_named_table(Some(2));
        assert_eq!(
            hidden.limitation(false).to_string(),
            "kernel.kptr_restrict=2 hides addresses of kernel functions, so SYN drops outside IPVS \
             are not counted (causes netfilter, conntrack_full, conntrack_insert, rp_filter, \
             other); set kernel.kptr_restrict to 1 or 0, and keep CAP_SYSLOG"
        );
        for readable in [None, Some(0), Some(1)] {
            let hidden = AddressesHiddenBy::of_named_table(readable);
            assert_eq!(hidden, AddressesHiddenBy::NoSyslog);
            let limitation = hidden.limitation(true).to_string();
            assert!(limitation.ends_with("run with CAP_SYSLOG"), "{limitation}");
            assert!(limitation.contains("hook"), "{limitation}");
        }
    }
}
