//! Which scenarios a kernel runs: all, or those whose outcome rests on the kernel. Pure.

use super::SCENARIOS;

/// The scenarios that rest on how a kernel lays its structures out, names its functions and drop
/// reasons, or decides; every kernel runs at least these. What the rest shows is the agent's own
/// doing and the same everywhere.
pub const CORE: &[&str] = &[
    // Ways to find a function, and what capabilities the kernel asks for.
    "rights",
    // Entry, real server and service: every address, port and weight the programs read.
    "stale-reuse",
    // What the kernel does to a reused port in mode 1.
    "reschedule",
    // Its conntrack decides.
    "reuse-drop",
    // As before 5.9.
    "old-drop",
    // The doctor's verdict on it.
    "doctor-old-drop",
    // Drop reasons are renumbered by stable updates, and found by location before 5.17.
    "iptables-drop",
    // The AVAILABLE bit moved from `flags` to `cflags`.
    "removed",
    // Trampolines, kprobes and references come and go with the module.
    "module-life",
    // Other members of the address unions, other functions before 5.16.
    "ipv6",
    // Which function forwards, and with which hooks.
    "direct-routing",
    "tunnel",
    // Family of the entry and of the real server differ; their width differs in 7.2.
    "ipv6-tunnel",
    // `vfwmark` moves with what stands before it.
    "fwmark",
    // LOCAL_OUT; and what the kernel's preemption does to programs.
    "local-client",
    // `nd_net` and `inum`.
    "other-netns",
    // `control`.
    "persistence",
    // `ip_vs_leave`.
    "no-destination",
    // The ICMP functions, and states of entries.
    "outcomes",
    // Real servers of datagrams; what the kernel does when one is removed.
    "udp",
    // Another protocol's states.
    "sctp",
];

/// The scenarios whose exact counts show that a way in and a way out lose nothing: an entry met and
/// followed, an entry expired, a packet dropped by IPVS and one dropped by another. Each is part of
/// [`CORE`].
pub const WAYS: &[&str] = &["stale-reuse", "reschedule", "reuse-drop", "iptables-drop"];

/// The scenarios that need systemd as process 1.
const SYSTEMD: &[&str] = &["shipped-unit"];

/// What a guest with systemd plays besides them: the other half of what people install.
const WITH_SYSTEMD: &[&str] = &["rights-cells"];

/// The scenarios that take hours.
const RIGHTS: &[&str] = &["rights-matrix"];

/// The scenarios that take many minutes; short ones show the same with less.
const LONG: &[&str] = &["counter-life-pods", "counter-life-services"];

/// A scenario that can hold on one kernel only.
struct Exception {
    scenario: &'static str,
    /// The kernel, by the name the host gives to it.
    kernel: &'static str,
    reason: &'static str,
}

const EXCEPTIONS: &[Exception] = &[
    Exception {
        scenario: "old-drop",
        kernel: "5.10-old-drop",
        reason: "IPVS drops ordinary port reuse only before 5.9",
    },
    Exception {
        scenario: "doctor-old-drop",
        kernel: "5.10-old-drop",
        reason: "IPVS drops ordinary port reuse only before 5.9",
    },
    Exception {
        scenario: "doctor-growing-table",
        kernel: "7.2",
        reason: "the table of connections has one size before 7.2",
    },
];

/// How much of the list a guest runs when no scenario is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// All that an ordinary guest can run in its time.
    All,
    /// [`CORE`].
    Core,
    /// [`WAYS`].
    Ways,
    /// [`SYSTEMD`] and [`WITH_SYSTEMD`].
    Systemd,
    /// [`RIGHTS`].
    Rights,
    /// [`LONG`].
    Long,
}

impl Set {
    /// The scenarios it has, in order.
    pub fn names(self) -> Vec<&'static str> {
        let all = SCENARIOS.iter().map(|scenario| scenario.name);
        all.filter(|name| self.has(name)).collect()
    }

    fn has(self, name: &str) -> bool {
        match self {
            Self::All => ![SYSTEMD, RIGHTS, LONG].concat().contains(&name),
            Self::Core => CORE.contains(&name),
            Self::Ways => WAYS.contains(&name),
            Self::Systemd => SYSTEMD.contains(&name) || WITH_SYSTEMD.contains(&name),
            Self::Rights => RIGHTS.contains(&name),
            Self::Long => LONG.contains(&name),
        }
    }
}

/// Why this scenario cannot hold on this kernel; `None` when it can.
pub fn reason_to_skip(scenario: &str, kernel: &str) -> Option<&'static str> {
    let mut exceptions = EXCEPTIONS.iter();
    let exception = exceptions.find(|exception| exception.scenario == scenario)?;
    (exception.kernel != kernel).then_some(exception.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_chosen_exists() {
        let excepted = EXCEPTIONS.iter().map(|exception| &exception.scenario);
        for name in CORE.iter().chain(excepted) {
            assert!(super::super::find(name).is_ok(), "{name}");
        }
        for (set, chosen) in [
            (Set::Core, CORE),
            (Set::Ways, WAYS),
            (Set::Systemd, &[SYSTEMD, WITH_SYSTEMD].concat()),
            (Set::Rights, RIGHTS),
            (Set::Long, LONG),
        ] {
            assert_eq!(set.names().len(), chosen.len(), "{set:?}");
        }
        assert!(WAYS.iter().all(|name| CORE.contains(name)));
        let special = SYSTEMD.len() + RIGHTS.len() + LONG.len();
        assert_eq!(Set::All.names().len() + special, SCENARIOS.len());
    }

    #[test]
    fn exceptions_hold_where_they_say() {
        assert!(reason_to_skip("old-drop", "6.12").is_some());
        assert!(reason_to_skip("old-drop", "5.10").is_some());
        assert!(reason_to_skip("old-drop", "5.10-old-drop").is_none());
        assert!(reason_to_skip("stale-reuse", "7.2").is_none());
    }
}
