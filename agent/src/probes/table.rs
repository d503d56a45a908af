//! Every hook, one row each. Adding a probe: its file in `agent-ebpf/src/probes`, a row here.

use crate::kernel::symbols::Existence;

/// Where a program hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Return of a function of the `ip_vs` module. Kernels split the work differently, so there
    /// are alternatives; the first of which a kernel has every function is hooked, all of it.
    IpvsReturn(&'static [&'static [&'static str]]),
    /// The same of one function that changes the table. Not needed to observe connections: without
    /// it, the next reading of the table shows it, later and less exactly.
    TableReturn(&'static [&'static [&'static str]]),
    /// The tracepoint of dropped packets, with its raw arguments. Kernels with drop reasons pass
    /// one argument more; for those without, the program's name has [`WITHOUT_REASON`] behind it.
    DropTracepoint(&'static str),
    /// A function by kprobes. Not needed to observe IPVS: where it cannot be
    /// attached, only its own finding is missing.
    Function(Moment, &'static str),
    /// Return of a function outside ip_vs, by fexit (5.5); as little needed.
    KernelReturn(&'static str),
    /// A tracepoint as little needed.
    OptionalTracepoint(&'static str),
}

/// Ends the name of the program that reads no drop reason.
pub const WITHOUT_REASON: &str = "_loc";

/// When a kprobe on a function sees a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// At its begin: program `_k`.
    Entry,
    /// At its end, with nothing but its result: program `_r`.
    Return,
    /// At both ends: programs `_k` and `_r`.
    Both,
}

impl Moment {
    /// Suffixes of the programs, in the order of attachment: the return first, because an entry
    /// whose return is not watched would be kept.
    pub const fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Entry => &["_k"],
            Self::Return => &["_r"],
            Self::Both => &["_r", "_k"],
        }
    }
}

pub use agent_core::kernel::features::AttachMode as Way;

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
    /// Fields of the layout that are optional, but not for this probe.
    pub needs: &'static [&'static str],
}

impl Probe {
    /// Whether IPVS cannot be observed without it.
    pub const fn is_required(&self) -> bool {
        matches!(self.hook, Hook::IpvsReturn(_) | Hook::DropTracepoint(_))
    }

    /// Whether it is on a tracepoint, which needs no function.
    pub const fn is_tracepoint(&self) -> bool {
        matches!(
            self.hook,
            Hook::DropTracepoint(_) | Hook::OptionalTracepoint(_)
        )
    }

    /// Whether it hangs on a function of the module, and is gone without it.
    pub fn is_of_module(&self) -> bool {
        match self.hook {
            Hook::IpvsReturn(_) | Hook::TableReturn(_) => true,
            Hook::Function(_, function) => function.starts_with("ip_vs_"),
            Hook::DropTracepoint(_) | Hook::KernelReturn(_) | Hook::OptionalTracepoint(_) => false,
        }
    }

    /// The functions it can hang on, for people.
    pub fn wanted(&self) -> String {
        match self.hook {
            Hook::IpvsReturn(alternatives) | Hook::TableReturn(alternatives) => {
                let each: Vec<String> = alternatives.iter().map(|all| all.join(" and ")).collect();
                each.join(", or ")
            }
            Hook::DropTracepoint(name)
            | Hook::Function(_, name)
            | Hook::KernelReturn(name)
            | Hook::OptionalTracepoint(name) => name.to_owned(),
        }
    }

    /// The functions to attach to, best first: every alternative this kernel may have, up to the
    /// first it is known to have. An alternative without functions is a tracepoint or has its
    /// function in its hook.
    pub fn candidates(
        &self,
        existence: impl Fn(&str) -> Existence,
    ) -> Vec<&'static [&'static str]> {
        let whole = |functions: &[&str]| {
            let each = || functions.iter().map(|function| existence(function));
            if each().any(|found| found == Existence::Absent) {
                Existence::Absent
            } else if each().all(|found| found == Existence::Present) {
                Existence::Present
            } else {
                Existence::Unknown
            }
        };
        let mut candidates: Vec<&'static [&'static str]> = Vec::new();
        match self.hook {
            Hook::IpvsReturn(alternatives) | Hook::TableReturn(alternatives) => {
                for functions in alternatives {
                    match whole(functions) {
                        Existence::Absent => {}
                        Existence::Unknown => candidates.push(functions),
                        Existence::Present => {
                            candidates.push(functions);
                            break;
                        }
                    }
                }
            }
            Hook::DropTracepoint(_) | Hook::OptionalTracepoint(_) => candidates.push(&[]),
            Hook::Function(_, function) | Hook::KernelReturn(function) => {
                if existence(function) != Existence::Absent {
                    candidates.push(&[]);
                }
            }
        }
        candidates
    }

    /// The word for how it hangs, as `via` labels it.
    pub const fn via(&self, way: Way) -> &'static str {
        match self.hook {
            Hook::IpvsReturn(_) | Hook::TableReturn(_) => way.as_str(),
            Hook::DropTracepoint(_) | Hook::OptionalTracepoint(_) => "tracepoint",
            Hook::Function(..) => "kprobe",
            Hook::KernelReturn(_) => Way::Fexit.as_str(),
        }
    }
}

/// The tracepoint of dropped packets.
pub const DROP_TRACEPOINT: &str = "kfree_skb";

/// Every function any kernel may have for any probe.
pub fn all_functions() -> impl Iterator<Item = &'static str> {
    PROBES.iter().flat_map(|probe| match probe.hook {
        Hook::IpvsReturn(alternatives) | Hook::TableReturn(alternatives) => alternatives.concat(),
        Hook::DropTracepoint(_) | Hook::OptionalTracepoint(_) => Vec::new(),
        Hook::Function(_, function) | Hook::KernelReturn(function) => vec![function],
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
        needs: &[],
    },
    Probe {
        name: "leave",
        program: "il_leave",
        hook: Hook::IpvsReturn(&[&["ip_vs_leave"]]),
        finds: "SYNs dropped because a service has no real server",
        needs: &[],
    },
    Probe {
        name: "syn_drop",
        program: "il_syn_drop",
        hook: Hook::DropTracepoint(DROP_TRACEPOINT),
        finds: "SYNs that died on this node outside IPVS",
        needs: &[],
    },
    Probe {
        name: "schedule",
        program: "il_schedule",
        hook: Hook::IpvsReturn(&[&["ip_vs_schedule"]]),
        finds: "SYNs the scheduler chose a real server for",
        needs: &[],
    },
    Probe {
        name: "lookup",
        program: "il_lookup",
        hook: Hook::IpvsReturn(&[&["ip_vs_conn_in_get_proto"]]),
        finds: "SYNs that met an old entry",
        needs: &[],
    },
    Probe {
        name: "weight",
        program: "il_weight",
        hook: Hook::TableReturn(&[&["__ip_vs_update_dest"]]),
        finds: "exactly when the weight of a real server was set",
        needs: &[],
    },
    Probe {
        name: "removal",
        program: "il_removal",
        hook: Hook::TableReturn(&[&["__ip_vs_del_dest"]]),
        finds: "exactly when a real server was removed",
        needs: &[],
    },
    Probe {
        name: "icmp_v4",
        program: "il_icmp",
        hook: Hook::Function(Moment::Entry, "__icmp_send"),
        finds: "stale connections to real servers this node cannot reach",
        needs: &[],
    },
    Probe {
        name: "icmp_v6",
        program: "il_icmp6",
        hook: Hook::Function(Moment::Entry, "icmp6_send"),
        finds: "stale connections to real servers this node cannot reach, IPv6",
        needs: &[],
    },
    Probe {
        name: "icmp_relay_v4",
        program: "il_relay",
        hook: Hook::Function(Moment::Entry, "ip_vs_nat_icmp"),
        finds: "stale connections another host called unreachable",
        needs: &[],
    },
    Probe {
        name: "icmp_relay_v6",
        program: "il_relay6",
        hook: Hook::Function(Moment::Entry, "ip_vs_nat_icmp_v6"),
        finds: "stale connections another host called unreachable, IPv6",
        needs: &[],
    },
    Probe {
        name: "listen",
        program: "il_listen",
        hook: Hook::Function(Moment::Both, "tcp_conn_request"),
        finds: "SYNs refused by a listener with a full queue",
        needs: LISTENER_FIELDS,
    },
    Probe {
        name: "handshake_v4",
        program: "il_shake4",
        hook: Hook::Function(Moment::Entry, "tcp_v4_syn_recv_sock"),
        finds: "handshakes forgotten by a listener with a full queue",
        needs: LISTENER_FIELDS,
    },
    Probe {
        name: "handshake_v6",
        program: "il_shake6",
        hook: Hook::Function(Moment::Entry, "tcp_v6_syn_recv_sock"),
        finds: "handshakes forgotten by a listener with a full queue, IPv6",
        needs: LISTENER_FIELDS,
    },
    Probe {
        name: "conntrack_full",
        program: "il_ct_full",
        hook: Hook::Function(Moment::Return, "early_drop"),
        finds: "SYNs that die because conntrack's table is full",
        needs: &["skb_nfct"],
    },
    Probe {
        name: "conntrack_clash",
        program: "il_ct_clash",
        hook: Hook::Function(Moment::Both, "nf_ct_resolve_clash"),
        finds: "SYNs that die because conntrack cannot insert their entry",
        needs: &[],
    },
    Probe {
        name: "connect",
        program: "il_connect",
        hook: Hook::KernelReturn("__inet_hash_connect"),
        finds: "connects that fail because no source port is free",
        needs: &[
            "sock_net",
            "sock_family",
            "sock_num",
            "sock_dport",
            "sock_daddr",
            "sock_v6_daddr",
        ],
    },
    Probe {
        name: "frag_needed_sent_v4",
        program: "il_frag4_out",
        hook: Hook::Function(Moment::Entry, "__icmp_send"),
        finds: "packets too big to be forwarded",
        needs: &[],
    },
    Probe {
        name: "frag_needed_sent_v6",
        program: "il_frag6_out",
        hook: Hook::Function(Moment::Entry, "icmp6_send"),
        finds: "packets too big to be forwarded, IPv6",
        needs: &[],
    },
    Probe {
        name: "frag_needed_received_v4",
        program: "il_frag4_in",
        hook: Hook::Function(Moment::Entry, "ip_vs_in_icmp"),
        finds: "packets that exceed the path MTU behind this node",
        needs: &[],
    },
    Probe {
        name: "frag_needed_received_v6",
        program: "il_frag6_in",
        hook: Hook::Function(Moment::Entry, "ip_vs_in_icmp_v6"),
        finds: "packets that exceed the path MTU behind this node, IPv6",
        needs: &[],
    },
    Probe {
        name: "black_hole",
        program: "il_black_hole",
        hook: Hook::OptionalTracepoint("tcp_retransmit_skb"),
        finds: "full segments sent again and again",
        needs: &[
            "icsk_retransmits",
            "icsk_pending",
            "tcp_mss_cache",
            "sock_net",
            "sock_family",
            "sock_dport",
            "sock_daddr",
            "sock_v6_daddr",
        ],
    },
];

/// What identifies a listener and its queues.
const LISTENER_FIELDS: &[&str] = &[
    "sock_ack_backlog",
    "sock_max_ack_backlog",
    "sock_net",
    "sock_family",
    "sock_num",
    "sock_rcv_saddr",
    "sock_v6_rcv_saddr",
    "icsk_qlen",
    "net_syncookies",
    "net_max_syn_backlog",
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use agent_common::layout::FIELDS;

    use super::{Existence, Hook, PROBES, Probe, WITHOUT_REASON};

    #[test]
    fn the_first_alternative_a_kernel_has_is_hooked() {
        let verdict: &Probe = &PROBES[0];
        let candidates = |has: fn(&str) -> Existence| {
            let candidates = verdict.candidates(has);
            candidates.into_iter().map(<[_]>::len).collect::<Vec<_>>()
        };
        assert_eq!(candidates(|_| Existence::Present), [1], "the first will do");
        let old = |function: &str| match function {
            "ip_vs_in_hook" => Existence::Absent,
            _ => Existence::Present,
        };
        assert_eq!(candidates(old), [4]);
        let half = |function: &str| {
            if function.ends_with('4') {
                Existence::Present
            } else {
                Existence::Absent
            }
        };
        assert_eq!(candidates(half), [0; 0]);
        assert_eq!(candidates(|_| Existence::Unknown), [1, 4], "both are tried");
    }

    #[test]
    fn connections_are_observed_without_live_changes_of_the_table() {
        let optional = |name| {
            let probe = PROBES.iter().find(|probe| probe.name == name);
            probe.is_some_and(|probe| !probe.is_required())
        };
        assert!(optional("weight") && optional("removal"));
        assert!(!optional("lookup") && !optional("verdict"));
    }

    #[test]
    fn a_probe_needs_fields_there_are() {
        let needs = PROBES.iter().flat_map(|probe| probe.needs);
        let unknown: Vec<_> = needs
            .filter(|need| FIELDS.iter().all(|field| field.name != **need))
            .collect();
        assert_eq!(unknown, Vec::<&&str>::new());
    }

    fn suffix_bytes(probe: &Probe) -> usize {
        match probe.hook {
            Hook::DropTracepoint(_) => WITHOUT_REASON.len(),
            _ => "_k".len(),
        }
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
                .find(|probe| probe.program.len() > 15 - suffix_bytes(probe)),
            None
        );
    }
}
