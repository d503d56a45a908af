//! kube-proxy: what it needs, what it is in, and how long it stays.

use super::super::facts::{Facts, KubeProxy, Seen, Tool, Version, total};
use super::verdict::{Advice, Judged, Lasting, Remedy, Risk, Sure, Verdict, need, not_applicable};

/// First kernel that kube-proxy's nftables mode accepts.
const NFTABLES_MODE: Version = Version(5, 13, 0);

/// What IPVS mode cannot do without.
const MODULES: &str = "ip_vs ip_vs_rr ip_vs_wrr ip_vs_sh nf_conntrack";

fn running(facts: &Facts) -> Result<&KubeProxy, Verdict> {
    need(&facts.controllers, "who programs IPVS here")?;
    let found = facts.kube_proxy.as_ref();
    found.ok_or_else(|| not_applicable("kube-proxy was not found here"))
}

pub(super) fn tools(facts: &Facts) -> Verdict {
    judge_tools(facts).unwrap_or_else(|early| early)
}

fn judge_tools(facts: &Facts) -> Judged {
    let kube_proxy = running(facts)?;
    let tools = need(
        &kube_proxy.tools,
        "the programs in kube-proxy's file system",
    )?;
    let missing: Vec<&str> = tools
        .iter()
        .filter(|(_, tool)| **tool == Tool::Missing)
        .map(|(name, _)| name.as_str())
        .collect();
    if missing.is_empty() {
        return Ok(Verdict::Ok);
    }
    let names = missing.join(" and ");
    Ok(Advice::new(
        (Risk::Medium, Sure::Configured),
        format!("{names} not found where kube-proxy runs"),
        format!("{names} in its image, or on the node where it runs without one"),
        "without ipset it cannot be in IPVS mode at all; without conntrack it cannot clear the \
         entries of UDP clients (before Kubernetes 1.32), which stay tied to endpoints that are \
         gone",
    )
    .into())
}

pub(super) fn mode(facts: &Facts) -> Verdict {
    judge_mode(facts).unwrap_or_else(|early| early)
}

fn judge_mode(facts: &Facts) -> Judged {
    let kube_proxy = running(facts)?;
    let asked = need(&kube_proxy.asked_mode, "the mode kube-proxy was asked for")?;
    if asked != "ipvs" {
        return Err(not_applicable(format!(
            "kube-proxy was asked for {}",
            if asked.is_empty() { "no mode" } else { asked }
        )));
    }
    let actual = need(&kube_proxy.actual_mode, "the mode kube-proxy is in")?;
    if actual == "ipvs" {
        return Ok(Verdict::Ok);
    }
    let node = facts.host.known().map_or("NODE", String::as_str);
    Ok(Advice::new(
        (Risk::High, Sure::Observed),
        format!("asked for ipvs, kube-proxy is in {actual} mode"),
        "ipvs mode, or a configuration that asks for what there is",
        "kube-proxy falls back without failing when a module or ipset is missing; schedulers, \
         session affinity and every tuned sysctl are without effect then, and ipvs-lens has \
         nothing to observe",
    )
    .by(Remedy {
        commands: vec![
            format!("modprobe -a {MODULES}"),
            format!(
                "kubectl -n kube-system delete pod -l k8s-app=kube-proxy --field-selector \
                 spec.nodeName={node}"
            ),
        ],
        undo: Vec::new(),
        lasting: vec![Lasting {
            place: "/etc/modules-load.d/ipvs.conf".to_owned(),
            text: MODULES.replace(' ', "\n"),
        }],
    })
    .into())
}

pub(super) fn end(facts: &Facts) -> Verdict {
    judge_end(facts).unwrap_or_else(|early| early)
}

fn judge_end(facts: &Facts) -> Judged {
    let kube_proxy = running(facts)?;
    let mode = kube_proxy.actual_mode.known();
    let mode = mode.or_else(|| kube_proxy.asked_mode.known());
    let mode = mode.ok_or_else(|| Verdict::Unknown {
        because: "kube-proxy's mode, asked or actual".to_owned(),
    })?;
    if mode != "ipvs" {
        return Err(not_applicable("kube-proxy is not in IPVS mode"));
    }
    Ok(Advice::new(
        (Risk::Note, Sure::Configured),
        format!("kube-proxy in IPVS mode; of this node: {}", evidence(facts)),
        "a date for the move to nftables mode",
        "Kubernetes ends IPVS mode (KEP-5495): deprecated in 1.35, off by default in 1.40, removed \
         in 1.43. LVS by keepalived, kube-router and Docker Swarm are not concerned.",
    )
    .into())
}

/// What speaks for and against moving, by this node's own facts.
fn evidence(facts: &Facts) -> String {
    let kernel = match facts.kernel.version() {
        Some(version) if version >= NFTABLES_MODE => "kernel fit for nftables mode",
        Some(_) => "kernel too old for nftables mode, which needs 5.13",
        None => "kernel unknown",
    };
    let tables = || facts.netns.iter().filter_map(|netns| netns.table.known());
    let others: Vec<&str> = tables()
        .flat_map(|table| table.schedulers.keys())
        .map(String::as_str)
        .filter(|scheduler| *scheduler != "rr")
        .collect();
    let schedulers = match (tables().next(), others.is_empty()) {
        (None, _) => "schedulers unknown".to_owned(),
        (Some(_), true) => "no scheduler but rr in use, so none would be missed".to_owned(),
        (Some(_), false) => format!(
            "schedulers in use that nftables mode does not have: {}",
            others.join(", ")
        ),
    };
    let faults = match facts.observed.known() {
        None => "reuse faults not measured (no agent asked)".to_owned(),
        Some(observed) => {
            let count = |of: fn(&Seen) -> u64| total(observed.by_netns.values().map(of));
            format!(
                "measured: {} connections to stale real servers, {} SYNs dropped by IPVS",
                count(Seen::stale_connections),
                count(Seen::syn_drops_by_ipvs)
            )
        }
    };
    format!("{kernel}; {schedulers}; {faults}")
}
