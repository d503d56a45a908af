//! What is judged about a node, one row per rule.
//!
//! PURE. A rule never calls "wrong" what could not be read. Each has its section, named by its
//! id, in `docs/doctor.md`.

mod conntrack;
mod estimation;
mod growth;
mod idle;
mod ipvs;
mod kube_proxy;
mod ports;
mod prerequisites;
mod queues;
mod remedy;
mod removed;
mod reuse;
mod stale;
mod syn_drop;
#[cfg(test)]
mod tests;
mod verdict;

use std::fmt;

use super::facts::{Facts, Netns, Seen};

pub use prerequisites::{ADDRESS_BYTES_NEEDED, LOCKED_BYTES_NEEDED, OPEN_FILES_NEEDED};
pub use verdict::{Advice, Lasting, Risk, Sure, Verdict};

/// What a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing can be observed without it.
    Prerequisite,
    /// Observing is poorer, dearer or pointless without it.
    Setup,
    /// Something that can go wrong for clients, published as a `hazard`.
    Hazard,
    /// As a hazard, but from facts that many nodes do not offer: not knowing is no failure.
    Hint,
    /// Never more than a note, and from such facts too.
    Notice,
}

/// How a rule looks at a node.
#[derive(Clone, Copy, Debug)]
pub enum Check {
    /// Once.
    Node(fn(&Facts) -> Verdict),
    /// Once per network namespace.
    Netns(fn(&Facts, &Netns) -> Verdict),
}

/// One rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name, its section in the document, and its `hazard` in metrics.
    pub id: &'static str,
    /// What is as it should be when the verdict is Ok.
    pub title: &'static str,
    /// What it is for.
    pub kind: Kind,
    /// The judgement.
    pub check: Check,
    /// How many times a running agent has seen it happen; `None` for what it cannot see.
    pub seen: Option<fn(&Seen) -> u64>,
}

const fn rule(id: &'static str, title: &'static str, kind: Kind, check: Check) -> Rule {
    Rule {
        id,
        title,
        kind,
        check,
        seen: None,
    }
}

impl Rule {
    const fn seen_as(self, seen: fn(&Seen) -> u64) -> Self {
        Self {
            seen: Some(seen),
            ..self
        }
    }

    /// Judges a node: one verdict, or one per namespace.
    #[must_use]
    pub fn judge<'a>(&self, facts: &'a Facts) -> Vec<(Option<&'a Netns>, Verdict)> {
        match self.check {
            Check::Node(check) => vec![(None, check(facts))],
            Check::Netns(check) => {
                let netns = facts.netns.iter();
                netns
                    .map(|netns| (Some(netns), check(facts, netns)))
                    .collect()
            }
        }
    }

    /// Whether it is published as a hazard.
    #[must_use]
    pub const fn is_hazard(&self) -> bool {
        matches!(self.kind, Kind::Hazard | Kind::Hint)
    }
}

/// Every rule: what observing needs, then what may go wrong.
pub const RULES: &[Rule] = &[
    rule(
        "mounts",
        "procfs and sysfs are mounted",
        Kind::Prerequisite,
        Check::Node(prerequisites::mounts),
    ),
    rule(
        "kernel",
        "the kernel has what the programs need",
        Kind::Prerequisite,
        Check::Node(prerequisites::kernel),
    ),
    rule(
        "btf",
        "the kernel describes its own types (BTF)",
        Kind::Prerequisite,
        Check::Node(prerequisites::btf),
    ),
    rule(
        "kprobes",
        "the kernel can be probed",
        Kind::Prerequisite,
        Check::Node(prerequisites::kprobes),
    ),
    rule(
        "rights",
        "this process may attach to the kernel",
        Kind::Prerequisite,
        Check::Node(prerequisites::rights),
    ),
    rule(
        "lockdown",
        "the kernel lets BPF programs read its memory",
        Kind::Prerequisite,
        Check::Node(prerequisites::lockdown),
    ),
    rule(
        "limits",
        "the resource limits of this process are high enough",
        Kind::Prerequisite,
        Check::Node(prerequisites::limits),
    ),
    rule(
        "ip_vs",
        "ip_vs is loaded",
        Kind::Setup,
        Check::Node(prerequisites::ip_vs),
    ),
    rule(
        "ip_vs_btf",
        "the structures of ip_vs are known",
        Kind::Prerequisite,
        Check::Node(prerequisites::ip_vs_btf),
    ),
    rule(
        "stale_reuse",
        "a reused source port does not follow its old entry to a stale real server",
        Kind::Hazard,
        Check::Netns(stale::reuse),
    )
    .seen_as(|seen| seen.stale_by("port_reuse")),
    rule(
        "stale_persistence",
        "a persistent client leaves a real server of weight 0",
        Kind::Hazard,
        Check::Netns(stale::persistence),
    )
    .seen_as(|seen| seen.stale_by("persistence")),
    rule(
        "syn_drop",
        "IPVS does not drop the SYN of a reused source port",
        Kind::Hazard,
        Check::Netns(syn_drop::syn_drop),
    )
    .seen_as(|seen| seen.dropped_by("ipvs_reuse")),
    rule(
        "removed_server",
        "clients of a removed real server get another one",
        Kind::Hazard,
        Check::Netns(removed::removed_server),
    )
    .seen_as(|seen| seen.dropped_by("ipvs_removed")),
    rule(
        "udp_timeout",
        "UDP clients leave a draining real server",
        Kind::Hazard,
        Check::Netns(removed::udp_timeout),
    ),
    rule(
        "idle_timeout",
        "idle TCP connections send keepalives before IPVS forgets them",
        Kind::Notice,
        Check::Netns(idle::idle_timeout),
    ),
    rule(
        "uneven_reuse",
        "reused source ports are scheduled like new ones",
        Kind::Hazard,
        Check::Netns(reuse::uneven_reuse),
    )
    .seen_as(|seen| seen.decided("reused")),
    rule(
        "growing_table",
        "the table of connections keeps its size while reused source ports are rescheduled",
        Kind::Notice,
        Check::Netns(growth::growing_table),
    ),
    rule(
        "conntrack_full",
        "there is room in the connection tracking table",
        Kind::Hazard,
        Check::Netns(conntrack::full),
    ),
    rule(
        "conntrack_insert",
        "no connection was lost to a clash of translated addresses",
        Kind::Notice,
        Check::Netns(conntrack::insert),
    ),
    rule(
        "ports_taken",
        "no port that is served can be taken by an outgoing connection",
        Kind::Hint,
        Check::Netns(ports::taken),
    ),
    rule(
        "ports_few",
        "clients on this node have ports enough",
        Kind::Hint,
        Check::Netns(ports::few),
    ),
    rule(
        "shared_address",
        "clients keep their own addresses",
        Kind::Notice,
        Check::Netns(ports::shared_address),
    ),
    rule(
        "accept_queue",
        "accept queues may be long enough",
        Kind::Hint,
        Check::Netns(queues::accept_queue),
    ),
    rule(
        "estimation",
        "counting statistics does not stall the node",
        Kind::Hint,
        Check::Netns(estimation::estimation),
    ),
    rule(
        "kube_proxy_tools",
        "kube-proxy has the programs it calls",
        Kind::Hint,
        Check::Node(kube_proxy::tools),
    ),
    rule(
        "kube_proxy_mode",
        "kube-proxy is in the mode it was asked for",
        Kind::Hint,
        Check::Node(kube_proxy::mode),
    ),
    rule(
        "ipvs_mode_end",
        "kube-proxy's mode has a future",
        Kind::Notice,
        Check::Node(kube_proxy::end),
    ),
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
/// [`CannotObserve`] names what is missing. What could not be read is no hindrance: an attempt will show.
pub fn prerequisites(facts: &Facts) -> Result<(), CannotObserve> {
    let required = RULES
        .iter()
        .filter(|rule| rule.kind == Kind::Prerequisite)
        .flat_map(|rule| rule.judge(facts));
    let unmet: Vec<String> = required
        .filter_map(|(_, verdict)| {
            let advice = verdict.advice()?;
            Some(format!("{}, expected {}", advice.found, advice.want))
        })
        .collect();
    if unmet.is_empty() {
        return Ok(());
    }
    Err(CannotObserve(unmet))
}
