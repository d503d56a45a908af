//! Local ports: taken by the wrong side, or too few.

use std::collections::BTreeSet;

use super::super::facts::{Facts, Netns, PortRange};
use super::remedy::{self, Change};
use super::verdict::{Advice, Judged, Risk, Sure, Verdict, need, not_applicable};

const RANGE: &str = "net.ipv4.ip_local_port_range";
const RESERVED: &str = "net.ipv4.ip_local_reserved_ports";
/// The kernel's own range.
const DEFAULT_RANGE: &str = "32768 60999";
/// Below half of the kernel's own 28232 a port comes back twice as soon.
const FEW: u32 = 14_116;
/// For how long IPVS remembers a closed connection.
const ENTRY_SECONDS: u32 = 120;
/// Ports named in a sentence; the command has them all.
const SHOWN_MAX: usize = 8;

pub(super) fn taken(facts: &Facts, netns: &Netns) -> Verdict {
    judge_taken(facts, netns).unwrap_or_else(|early| early)
}

fn judge_taken(facts: &Facts, netns: &Netns) -> Judged {
    let range = *need(&netns.ports.range, RANGE)?;
    let reserved = need(&netns.ports.reserved, RESERVED)?;
    let listeners = need(&netns.ports.listeners, "listening sockets")?;
    let free = |port: &u16| range.has(*port) && !reserved.iter().any(|kept| kept.has(*port));
    // What listens on loopback only was most often given its port by the kernel.
    let public = listeners
        .iter()
        .filter(|listener| !listener.address.starts_with("127.") && listener.address != "::1");
    let listening: BTreeSet<u16> = public.map(|l| l.port).filter(free).collect();
    let services = netns.table.known().map_or(&[][..], |table| &table.ports);
    let services: BTreeSet<u16> = services.iter().copied().filter(free).collect();
    let both: BTreeSet<u16> = listening.union(&services).copied().collect();
    if both.is_empty() {
        return Ok(Verdict::Ok);
    }
    let change = Change::text(RESERVED, ranges(reserved), with(reserved, &both));
    Ok(Advice::new(
        (Risk::Low, Sure::Configured),
        format!(
            "{RANGE} {} {} holds ports that are served: listening {}; virtual services {}",
            range.0,
            range.1,
            shown(&listening),
            shown(&services)
        ),
        format!("those ports in {RESERVED}"),
        "an outgoing connection may take such a port while its server restarts, which then cannot \
         listen (\"address already in use\") until that connection is gone; the answers to one \
         from a virtual service's port are taken for requests to that service",
    )
    .by(remedy::sysctls(facts, netns, &[change]))
    .into())
}

fn shown(ports: &BTreeSet<u16>) -> String {
    if ports.is_empty() {
        return "none".to_owned();
    }
    let mut words: Vec<String> = ports.iter().take(SHOWN_MAX).map(u16::to_string).collect();
    if ports.len() > SHOWN_MAX {
        words.push(format!("and {} more", ports.len() - SHOWN_MAX));
    }
    words.join(", ")
}

/// As the kernel writes them.
fn ranges(ranges: &[PortRange]) -> String {
    let words: Vec<String> = ranges
        .iter()
        .map(|PortRange(from, to)| {
            if from == to {
                from.to_string()
            } else {
                format!("{from}-{to}")
            }
        })
        .collect();
    words.join(",")
}

fn with(reserved: &[PortRange], ports: &BTreeSet<u16>) -> String {
    let mut all = reserved.to_vec();
    for port in ports {
        match all.last_mut() {
            Some(last) if last.1.checked_add(1) == Some(*port) => last.1 = *port,
            _ => all.push(PortRange(*port, *port)),
        }
    }
    ranges(&all)
}

pub(super) fn few(facts: &Facts, netns: &Netns) -> Verdict {
    judge_few(facts, netns).unwrap_or_else(|early| early)
}

fn judge_few(facts: &Facts, netns: &Netns) -> Judged {
    let range = *need(&netns.ports.range, RANGE)?;
    let reserved = need(&netns.ports.reserved, RESERVED)?;
    let usable = reserved.iter().fold(overlap(range, range), |left, kept| {
        left.saturating_sub(overlap(range, *kept))
    });
    if usable >= FEW {
        return Ok(Verdict::Ok);
    }
    let change = Change::text(
        RANGE,
        format!("{} {}", range.0, range.1),
        DEFAULT_RANGE.to_owned(),
    );
    Ok(Advice::new(
        (Risk::Low, Sure::Configured),
        format!(
            "{usable} ports for outgoing connections ({RANGE} {} {})",
            range.0, range.1
        ),
        format!("at least {FEW}, as {RANGE}=\"{DEFAULT_RANGE}\" gives"),
        format!(
            "a client on this node that opens more than {} connections per second to one address \
             and port gets a port back while IPVS still remembers it, and one that holds {usable} \
             open can open no more",
            usable / ENTRY_SECONDS
        ),
    )
    .by(remedy::sysctls(facts, netns, &[change]))
    .into())
}

/// Ports in both.
fn overlap(one: PortRange, other: PortRange) -> u32 {
    let (from, to) = (one.0.max(other.0), one.1.min(other.1));
    (u32::from(to) + 1).saturating_sub(u32::from(from))
}

pub(super) fn shared_address(_: &Facts, netns: &Netns) -> Verdict {
    judge_shared_address(netns).unwrap_or_else(|early| early)
}

fn judge_shared_address(netns: &Netns) -> Judged {
    let rules = need(&netns.rules, "firewall rules")?;
    let Some(first) = rules.masquerades.first() else {
        return Err(not_applicable("no rule masquerades"));
    };
    Ok(Advice::new(
        (Risk::Note, Sure::Configured),
        format!(
            "{} masquerading rules, first: {first}",
            rules.masquerades.len()
        ),
        "to know whom they hide: clients of virtual services should keep their own addresses",
        format!(
            "clients behind one address share its source ports: together they may open some {} \
             connections per second to one service before ports come back within the {} s IPVS \
             remembers them",
            FEW / ENTRY_SECONDS,
            ENTRY_SECONDS
        ),
    )
    .into())
}
