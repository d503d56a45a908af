//! What is judged about a node, one row per rule.
//!
//! PURE. A rule never calls "wrong" what could not be read. Each has its section, named by its
//! id, in `docs/doctor.md`.

use std::fmt;

use serde::Serialize;

use crate::kernel::builtin;

use super::facts::{CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN, Facts, IpVs};

/// What a rule says about a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Something to do.
    Advise {
        /// How it is.
        found: String,
        /// How it should be.
        want: String,
    },
    /// The rule does not concern this node.
    NotApplicable {
        /// Why.
        why: String,
    },
    /// A fact is missing.
    Unknown {
        /// Which.
        missing: String,
    },
}

/// One rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name, and its section in the document.
    pub id: &'static str,
    /// What is as it should be when the verdict is Ok.
    pub title: &'static str,
    /// Whether nothing can be observed without it.
    pub prerequisite: bool,
    /// The judgement.
    pub check: fn(&Facts) -> Verdict,
    /// Why it matters.
    pub why: &'static str,
    /// What to do about it.
    pub fix: &'static str,
    /// How to take that back.
    pub undo: &'static str,
}

/// Every rule: what observing needs, then what IPVS may do wrong.
pub const RULES: &[Rule] = &[
    Rule {
        id: "kernel",
        title: "the kernel is new enough",
        prerequisite: true,
        check: kernel,
        why: "the kernel publishes its own types since 5.4, and without them no offset is known",
        fix: "boot a kernel of 5.4 or later",
        undo: "boot the former kernel",
    },
    Rule {
        id: "btf",
        title: "the kernel describes its own types (BTF)",
        prerequisite: true,
        check: btf,
        why: "where the kernel keeps what is read differs between kernels, even within a stable series; BTF says where",
        fix: "boot a kernel built with CONFIG_DEBUG_INFO_BTF, as those of the large distributions are",
        undo: "boot the former kernel",
    },
    Rule {
        id: "kprobes",
        title: "the kernel can be probed",
        prerequisite: true,
        check: kprobes,
        why: "without kprobes a kernel also lacks BPF tracing, so nothing can be attached",
        fix: "boot a kernel built with CONFIG_KPROBES and CONFIG_BPF_EVENTS; some virtual machine monitors ship one without",
        undo: "boot the former kernel",
    },
    Rule {
        id: "rights",
        title: "this process may attach to the kernel",
        prerequisite: true,
        check: rights,
        why: "the kernel hands out the types of a module, and lets programs attach to it, only to CAP_SYS_ADMIN",
        fix: "run as root, or give the service CAP_SYS_ADMIN",
        undo: "take the capability from the service",
    },
    Rule {
        id: "ip-vs",
        title: "ip_vs is loaded",
        prerequisite: false,
        check: ip_vs,
        why: "there is nothing to observe without it; `ipvs-lens run` waits for it",
        fix: "modprobe ip_vs, or start what uses it (kube-proxy, keepalived, ipvsadm)",
        undo: "modprobe -r ip_vs, once no service is configured",
    },
    Rule {
        id: "ip-vs-btf",
        title: "the structures of ip_vs are known",
        prerequisite: false,
        check: ip_vs_btf,
        why: "the structures of IPVS are described by the module's own BTF; without it only kernels whose layout is built in can be observed, by kprobes, which cost more",
        fix: "boot a kernel built with CONFIG_DEBUG_INFO_BTF_MODULES (Debian's are from 6.1 on), or give the types with --btf FILE",
        undo: "boot the former kernel",
    },
    Rule {
        id: "stale-reuse",
        title: "a reused source port does not follow its old entry to a stale real server",
        prerequisite: false,
        check: stale_reuse,
        why: "a new connection from a source port that comes back within two minutes is sent to the real server of the old entry, also when its weight is 0 or it is gone",
        fix: "sysctl -w net.ipv4.vs.conn_reuse_mode=1 (or net.ipv4.vs.expire_nodest_conn=1), in the network namespace of the director; kube-router, and kube-proxy on kernels before 5.9, set it back to 0",
        undo: "sysctl -w net.ipv4.vs.conn_reuse_mode=0",
    },
    Rule {
        id: "syn-drop",
        title: "IPVS does not drop the SYN of a reused source port",
        prerequisite: false,
        check: syn_drop,
        why: "when IPVS wants to expire the old entry but netfilter holds a confirmed conntrack for it, it drops the SYN, and the client waits 1 s for its retransmit",
        fix: "sysctl -w net.ipv4.vs.conntrack=0 where no rule needs to match IPVS traffic by state (kube-proxy's masquerading does); else watch ipvs_lens_syn_drops_total{cause=\"ipvs_reuse\"}",
        undo: "sysctl -w net.ipv4.vs.conntrack=1",
    },
];

/// Why this node cannot be observed: every unmet prerequisite, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CannotObserve(Vec<String>);

impl fmt::Display for CannotObserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot observe this node: {}", self.0.join("; "))
    }
}

impl std::error::Error for CannotObserve {}

/// Whether this node can be observed, as far as the facts say.
///
/// # Errors
/// [`CannotObserve`] names what is missing. What could not be read is no hindrance: trying tells.
pub fn prerequisites(facts: &Facts) -> Result<(), CannotObserve> {
    let unmet: Vec<String> = RULES
        .iter()
        .filter(|rule| rule.prerequisite)
        .filter_map(|rule| match (rule.check)(facts) {
            Verdict::Advise { found, want } => Some(format!("{found}, wanted {want}")),
            Verdict::Ok | Verdict::NotApplicable { .. } | Verdict::Unknown { .. } => None,
        })
        .collect();
    if unmet.is_empty() {
        return Ok(());
    }
    Err(CannotObserve(unmet))
}

fn advise(found: impl Into<String>, want: impl Into<String>) -> Verdict {
    Verdict::Advise {
        found: found.into(),
        want: want.into(),
    }
}

fn unknown(missing: impl Into<String>) -> Verdict {
    Verdict::Unknown {
        missing: missing.into(),
    }
}

/// Ok or advice by a fact that is a plain yes or no.
fn present(fact: Option<bool>, missing: &str, found: &str, want: &str) -> Verdict {
    match fact {
        Some(true) => Verdict::Ok,
        Some(false) => advise(found, want),
        None => unknown(missing),
    }
}

fn kernel(facts: &Facts) -> Verdict {
    match (facts.version(), &facts.release) {
        (Some(version), _) if version >= (5, 4) => Verdict::Ok,
        (Some(_), Some(release)) => advise(format!("this kernel is {release}"), "5.4 or later"),
        _ => unknown("the kernel's release (/proc/sys/kernel/osrelease)"),
    }
}

fn btf(facts: &Facts) -> Verdict {
    present(
        facts.btf_kernel,
        "/sys/kernel",
        "this kernel has no BTF (/sys/kernel/btf/vmlinux)",
        "a kernel built with CONFIG_DEBUG_INFO_BTF",
    )
}

fn kprobes(facts: &Facts) -> Verdict {
    present(
        facts.kprobes,
        "/sys/bus/event_source/devices",
        "this kernel has no kprobes",
        "a kernel built with CONFIG_KPROBES and CONFIG_BPF_EVENTS",
    )
}

fn rights(facts: &Facts) -> Verdict {
    match facts.has(CAP_SYS_ADMIN) {
        None => unknown("this process's capabilities (CapEff in /proc/self/status)"),
        Some(true) => Verdict::Ok,
        Some(false) => {
            let bpf = facts.has(CAP_BPF) == Some(true) && facts.has(CAP_PERFMON) == Some(true);
            let has = if bpf {
                ", CAP_BPF and CAP_PERFMON alone do not do"
            } else {
                ""
            };
            advise(
                format!("this process lacks CAP_SYS_ADMIN{has}"),
                "root, or that capability",
            )
        }
    }
}

fn ip_vs(facts: &Facts) -> Verdict {
    match facts.ip_vs {
        None => unknown("/sys/module"),
        Some(IpVs::Absent) => advise("ip_vs is not loaded", "ip_vs loaded"),
        Some(IpVs::Module | IpVs::BuiltIn) => Verdict::Ok,
    }
}

fn ip_vs_btf(facts: &Facts) -> Verdict {
    match facts.ip_vs {
        None => unknown("/sys/module"),
        Some(IpVs::Absent) => not_loaded(),
        Some(IpVs::BuiltIn) => Verdict::NotApplicable {
            why: "ip_vs is built into the kernel, whose own BTF describes it".to_owned(),
        },
        Some(IpVs::Module) if built_in_layout(facts) => Verdict::Ok,
        Some(IpVs::Module) => present(
            facts.btf_ip_vs,
            "/sys/kernel",
            "ip_vs has no BTF (/sys/kernel/btf/ip_vs)",
            "a kernel built with CONFIG_DEBUG_INFO_BTF_MODULES",
        ),
    }
}

fn built_in_layout(facts: &Facts) -> bool {
    facts
        .release
        .as_deref()
        .and_then(builtin::of_release)
        .is_some()
}

fn not_loaded() -> Verdict {
    Verdict::NotApplicable {
        why: "ip_vs is not loaded".to_owned(),
    }
}

/// The value of an ip_vs sysctl, or the verdict when there is none.
fn sysctl(facts: &Facts, name: &str) -> Result<i64, Verdict> {
    if facts.ip_vs == Some(IpVs::Absent) {
        return Err(not_loaded());
    }
    let value = facts.sysctls.get(name).copied();
    value.ok_or_else(|| unknown(format!("net.ipv4.vs.{name}")))
}

fn stale_reuse(facts: &Facts) -> Verdict {
    judge_stale_reuse(facts).unwrap_or_else(|verdict| verdict)
}

fn judge_stale_reuse(facts: &Facts) -> Result<Verdict, Verdict> {
    let reuse_mode = sysctl(facts, "conn_reuse_mode")?;
    let expire = sysctl(facts, "expire_nodest_conn")?;
    if reuse_mode == 0 && expire == 0 {
        return Ok(advise(
            "conn_reuse_mode=0 and expire_nodest_conn=0",
            "conn_reuse_mode=1, or expire_nodest_conn=1",
        ));
    }
    Ok(Verdict::Ok)
}

fn syn_drop(facts: &Facts) -> Verdict {
    judge_syn_drop(facts).unwrap_or_else(|verdict| verdict)
}

/// Kernels from 5.9 drop only where `expire_nodest_conn` makes them expire an entry whose
/// conntrack is confirmed; older ones drop at every reuse they would reschedule.
fn judge_syn_drop(facts: &Facts) -> Result<Verdict, Verdict> {
    if sysctl(facts, "conntrack")? == 0 {
        return Ok(Verdict::Ok);
    }
    let expire = sysctl(facts, "expire_nodest_conn")?;
    let reuse_mode = sysctl(facts, "conn_reuse_mode")?;
    let version = facts.version();
    let version = version.ok_or_else(|| unknown("the kernel's release"))?;
    match facts.nf_conntrack {
        None => return Err(unknown("/proc/sys/net")),
        Some(false) => return Ok(Verdict::Ok),
        Some(true) => {}
    }
    if expire != 0 {
        return Ok(advise(
            "conntrack=1 and expire_nodest_conn=1, with netfilter's conntrack present",
            "conntrack=0, or expire_nodest_conn=0 together with conn_reuse_mode=1",
        ));
    }
    if version < (5, 9) && reuse_mode != 0 {
        return Ok(advise(
            format!("conntrack=1 and conn_reuse_mode={reuse_mode} on a kernel before 5.9"),
            "conntrack=0, or kernel 5.9 or later",
        ));
    }
    Ok(Verdict::Ok)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;

    fn fit() -> Facts {
        Facts {
            release: Some("6.12.1".to_owned()),
            capabilities: Some(u64::MAX),
            btf_kernel: Some(true),
            btf_ip_vs: Some(true),
            kprobes: Some(true),
            ip_vs: Some(IpVs::Module),
            nf_conntrack: Some(true),
            sysctls: sysctls(1, 0, 0),
        }
    }

    fn sysctls(reuse_mode: i64, conntrack: i64, expire: i64) -> BTreeMap<String, i64> {
        [
            ("conn_reuse_mode", reuse_mode),
            ("conntrack", conntrack),
            ("expire_nodest_conn", expire),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn with(change: impl FnOnce(&mut Facts)) -> Facts {
        let mut facts = fit();
        change(&mut facts);
        facts
    }

    fn verdict(id: &str, facts: &Facts) -> Verdict {
        let rule = RULES.iter().find(|rule| rule.id == id).unwrap();
        (rule.check)(facts)
    }

    #[test]
    fn a_fit_node_needs_nothing() {
        for rule in RULES {
            assert_eq!((rule.check)(&fit()), Verdict::Ok, "{}", rule.id);
        }
        assert_eq!(prerequisites(&fit()), Ok(()));
    }

    #[test]
    fn what_could_not_be_read_is_unknown_and_no_hindrance() {
        let nothing = Facts::default();
        for rule in RULES {
            let verdict = (rule.check)(&nothing);
            assert!(matches!(verdict, Verdict::Unknown { .. }), "{}", rule.id);
        }
        assert_eq!(prerequisites(&nothing), Ok(()));
    }

    #[test]
    fn unmet_prerequisites_are_one_line() {
        let line = |facts: &Facts| prerequisites(facts).unwrap_err().to_string();
        assert_eq!(
            line(&with(|f| f.kprobes = Some(false))),
            "cannot observe this node: this kernel has no kprobes, wanted a kernel built with CONFIG_KPROBES and CONFIG_BPF_EVENTS"
        );
        assert_eq!(
            line(&with(|f| f.btf_kernel = Some(false))),
            "cannot observe this node: this kernel has no BTF (/sys/kernel/btf/vmlinux), wanted a kernel built with CONFIG_DEBUG_INFO_BTF"
        );
        assert_eq!(
            line(&with(|f| {
                f.capabilities = Some(0);
                f.release = Some("4.18.0".to_owned());
            })),
            "cannot observe this node: this kernel is 4.18.0, wanted 5.4 or later; this process lacks CAP_SYS_ADMIN, wanted root, or that capability"
        );
        let caps = 1 << CAP_BPF | 1 << CAP_PERFMON;
        assert_eq!(
            line(&with(|f| f.capabilities = Some(caps))),
            "cannot observe this node: this process lacks CAP_SYS_ADMIN, CAP_BPF and CAP_PERFMON alone do not do, wanted root, or that capability"
        );
        assert_eq!(
            verdict("ip-vs-btf", &with(|f| f.btf_ip_vs = Some(false))),
            advise(
                "ip_vs has no BTF (/sys/kernel/btf/ip_vs)",
                "a kernel built with CONFIG_DEBUG_INFO_BTF_MODULES"
            )
        );
        let old = with(|f| {
            f.btf_ip_vs = Some(false);
            f.release = Some("5.10.0-46-cloud-amd64".to_owned());
        });
        assert_eq!(verdict("ip-vs-btf", &old), Verdict::Ok);
    }

    #[test]
    fn an_absent_ip_vs_is_advice_and_no_hindrance() {
        let facts = with(|f| {
            f.ip_vs = Some(IpVs::Absent);
            f.btf_ip_vs = Some(false);
            f.sysctls.clear();
        });
        assert_eq!(prerequisites(&facts), Ok(()));
        assert_eq!(
            verdict("ip-vs", &facts),
            advise("ip_vs is not loaded", "ip_vs loaded")
        );
        for id in ["ip-vs-btf", "stale-reuse", "syn-drop"] {
            assert_eq!(verdict(id, &facts), not_loaded());
        }
    }

    #[test]
    fn built_in_ip_vs_needs_no_btf_of_its_own() {
        let facts = with(|f| {
            f.ip_vs = Some(IpVs::BuiltIn);
            f.btf_ip_vs = Some(false);
        });
        assert!(matches!(
            verdict("ip-vs-btf", &facts),
            Verdict::NotApplicable { .. }
        ));
        assert_eq!(prerequisites(&facts), Ok(()));
    }

    /// conn_reuse_mode, conntrack, expire_nodest_conn: stale-reuse advised, syn-drop advised.
    #[test]
    fn the_sysctls() {
        let table = [
            ((0, 0, 0), true, false),
            ((0, 1, 0), true, false),
            ((0, 0, 1), false, false),
            ((0, 1, 1), false, true),
            ((1, 0, 0), false, false),
            ((1, 1, 0), false, false),
            ((1, 0, 1), false, false),
            ((1, 1, 1), false, true),
        ];
        for ((reuse_mode, conntrack, expire), stale, drop) in table {
            let facts = with(|f| f.sysctls = sysctls(reuse_mode, conntrack, expire));
            let advised = |id| matches!(verdict(id, &facts), Verdict::Advise { .. });
            let found = (advised("stale-reuse"), advised("syn-drop"));
            assert_eq!(found, (stale, drop), "{:?}", facts.sysctls);
        }
    }

    #[test]
    fn kernels_before_5_9_drop_at_every_reuse() {
        let facts = with(|f| {
            f.release = Some("5.4.18".to_owned());
            f.sysctls = sysctls(1, 1, 0);
        });
        assert_eq!(
            verdict("syn-drop", &facts),
            advise(
                "conntrack=1 and conn_reuse_mode=1 on a kernel before 5.9",
                "conntrack=0, or kernel 5.9 or later"
            )
        );
    }

    #[test]
    fn without_netfilters_conntrack_nothing_is_dropped() {
        let facts = with(|f| {
            f.sysctls = sysctls(1, 1, 1);
            f.nf_conntrack = Some(false);
        });
        assert_eq!(verdict("syn-drop", &facts), Verdict::Ok);
    }

    #[test]
    fn every_rule_has_its_section() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/doctor.md");
        let document = std::fs::read_to_string(path).unwrap();
        let sections: Vec<_> = document
            .lines()
            .filter_map(|line| line.strip_prefix("## "))
            .collect();
        let ids: Vec<_> = RULES.iter().map(|rule| rule.id).collect();
        assert_eq!(sections, ids);
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    }
}
