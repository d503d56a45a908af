//! Every hook, one row each. Adding a probe: its file in `agent-ebpf/src/probes`, a row here.

/// Where a program hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Return of a function of the `ip_vs` module. Kernels split the work differently, so there
    /// are alternatives; the first of which a kernel has every function is hooked, all of it.
    IpvsReturn(&'static [&'static [&'static str]]),
    /// A tracepoint, with its raw arguments.
    RawTracepoint(&'static str),
    /// A function by kprobes. Not needed to observe IPVS: where it cannot be attached, only its
    /// own finding is missing.
    Function(Moment, &'static str),
}

/// When a kprobe on a function sees a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// At its begin: program `_k`.
    Entry,
    /// At both ends: programs `_k` and `_r`.
    Both,
}

impl Moment {
    /// Suffixes of the programs, in the order of attachment: the return first, because an entry
    /// whose return is not watched would be kept.
    pub const fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Entry => &["_k"],
            Self::Both => &["_r", "_k"],
        }
    }
}

/// The way a probe hangs on a function of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A trampoline at the function's return: arguments and result at once. Needs module BTF.
    Fexit,
    /// A kprobe that keeps the arguments and a kretprobe that sees the result.
    Kprobe,
}

impl Way {
    /// The word for it, as `via` labels it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
        }
    }
}

/// One kernel program, or the pair of them that a kprobe needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Name in metrics, status and logs.
    pub name: &'static str,
    /// Name of the program in the object file and in `bpftool prog`; the entry program of the
    /// kprobe way adds `_k`, its return program `_r`.
    pub program: &'static str,
    /// Where it hangs.
    pub hook: Hook,
    /// What is lost without it.
    pub finds: &'static str,
}

impl Probe {
    /// Whether IPVS cannot be observed without it.
    pub const fn is_required(&self) -> bool {
        matches!(self.hook, Hook::IpvsReturn(_) | Hook::RawTracepoint(_))
    }

    /// The functions it can hang on, for people.
    pub fn wanted(&self) -> String {
        match self.hook {
            Hook::IpvsReturn(alternatives) => {
                let each: Vec<String> = alternatives.iter().map(|all| all.join(" and ")).collect();
                each.join(", or ")
            }
            Hook::RawTracepoint(name) | Hook::Function(_, name) => name.to_owned(),
        }
    }

    /// The functions this kernel has for it; empty for a tracepoint, `None` when it has none.
    pub fn functions(&self, has: impl Fn(&str) -> bool) -> Option<&'static [&'static str]> {
        match self.hook {
            Hook::IpvsReturn(alternatives) => alternatives
                .iter()
                .find(|functions| functions.iter().all(|function| has(function)))
                .copied(),
            Hook::RawTracepoint(_) => Some(&[]),
            Hook::Function(_, function) => has(function).then_some(&[]),
        }
    }

    /// The word for how it hangs, as `via` labels it.
    pub const fn via(&self, way: Way) -> &'static str {
        match self.hook {
            Hook::IpvsReturn(_) => way.word(),
            Hook::RawTracepoint(_) => "tracepoint",
            Hook::Function(..) => "kprobe",
        }
    }
}

/// The module whose functions are traced.
pub const IPVS_MODULE: &str = "ip_vs";

/// Every function any kernel may have for any probe.
pub fn all_functions() -> impl Iterator<Item = &'static str> {
    PROBES.iter().flat_map(|probe| match probe.hook {
        Hook::IpvsReturn(alternatives) => alternatives.concat(),
        Hook::RawTracepoint(_) => Vec::new(),
        Hook::Function(_, function) => vec![function],
    })
}

/// In the order of attachment: what ends a SYN's way before what begins it.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "verdict",
        program: "il_verdict",
        hook: Hook::IpvsReturn(&[
            &["ip_vs_in_hook"],
            // Before 5.16, with the same arguments.
            &[
                "ip_vs_remote_request4",
                "ip_vs_local_request4",
                "ip_vs_remote_request6",
                "ip_vs_local_request6",
            ],
        ]),
        finds: "SYNs that followed an old entry or that IPVS dropped",
    },
    Probe {
        name: "leave",
        program: "il_leave",
        hook: Hook::IpvsReturn(&[&["ip_vs_leave"]]),
        finds: "SYNs dropped because a service has no real server",
    },
    Probe {
        name: "syn_drop",
        program: "il_syn_drop",
        hook: Hook::RawTracepoint("kfree_skb"),
        finds: "SYNs that died on this node outside IPVS",
    },
    Probe {
        name: "schedule",
        program: "il_schedule",
        hook: Hook::IpvsReturn(&[&["ip_vs_schedule"]]),
        finds: "SYNs the scheduler chose a real server for",
    },
    Probe {
        name: "lookup",
        program: "il_lookup",
        hook: Hook::IpvsReturn(&[&["ip_vs_conn_in_get_proto"]]),
        finds: "SYNs that met an old entry",
    },
    Probe {
        name: "weight",
        program: "il_weight",
        hook: Hook::IpvsReturn(&[&["__ip_vs_update_dest"]]),
        finds: "when the weight of a real server was set",
    },
    Probe {
        name: "removal",
        program: "il_removal",
        hook: Hook::IpvsReturn(&[&["__ip_vs_del_dest"]]),
        finds: "when a real server was removed",
    },
    Probe {
        name: "icmp_v4",
        program: "il_icmp",
        hook: Hook::Function(Moment::Entry, "__icmp_send"),
        finds: "stale connections to real servers this node cannot reach",
    },
    Probe {
        name: "icmp_v6",
        program: "il_icmp6",
        hook: Hook::Function(Moment::Entry, "icmp6_send"),
        finds: "stale connections to real servers this node cannot reach, IPv6",
    },
    Probe {
        name: "icmp_relay_v4",
        program: "il_relay",
        hook: Hook::Function(Moment::Entry, "ip_vs_nat_icmp"),
        finds: "stale connections another host called unreachable",
    },
    Probe {
        name: "icmp_relay_v6",
        program: "il_relay6",
        hook: Hook::Function(Moment::Entry, "ip_vs_nat_icmp_v6"),
        finds: "stale connections another host called unreachable, IPv6",
    },
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{PROBES, Probe};

    #[test]
    fn the_first_alternative_a_kernel_has_is_hooked() {
        let verdict: &Probe = &PROBES[0];
        assert_eq!(verdict.functions(|_| true), Some(&["ip_vs_in_hook"][..]));
        let old = verdict.functions(|function| function != "ip_vs_in_hook");
        assert_eq!(old.map(<[_]>::len), Some(4));
        assert_eq!(verdict.functions(|function| function.ends_with('4')), None);
    }

    #[test]
    fn names_and_programs_are_unique_and_fit_the_kernel() {
        let names: HashSet<_> = PROBES.iter().map(|probe| probe.name).collect();
        let programs: HashSet<_> = PROBES.iter().map(|probe| probe.program).collect();
        assert_eq!((names.len(), programs.len()), (PROBES.len(), PROBES.len()));
        // BPF_OBJ_NAME_LEN is 16 with its final NUL; a longer name would be cut in bpftool.
        assert_eq!(
            PROBES
                .iter()
                .find(|probe| probe.program.len() > 15 - "_k".len()),
            None
        );
    }
}
