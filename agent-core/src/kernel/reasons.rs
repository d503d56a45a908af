//! Puts the kernel's drop reasons to our causes, by name. Pure.
//!
//! The numbers change inside a stable series, so only the names in the kernel's own BTF count
//! (`enum skb_drop_reason`, include/net/dropreason-core.h, from 5.17 on).

use agent_common::config::UNSAID;
use agent_common::verdict::DropCause;

use super::btf::{Btf, Type};

/// Numbers the kernel's table of causes holds.
pub const REASONS_MAX: usize = 256;

/// Links followed from a typedef to the prototype it stands for.
const CHAIN_MAX: usize = 4;

const ENUM_NAME: &str = "skb_drop_reason";
const PREFIX: &str = "SKB_DROP_REASON_";

/// Cause of each drop reason by its number: 0 where a reason is no loss, [`UNSAID`] where it says
/// nothing, else [`DropCause`].
///
/// `None` on a kernel without reasons; [`LOCATIONS`] serves there.
pub fn causes(types: &Btf) -> Option<[u8; REASONS_MAX]> {
    let reasons = types.types(ENUM_NAME).find_map(|found| match found {
        Type::Enum { values, .. } => Some(values),
        _ => None,
    })?;
    let mut causes = [DropCause::Other as u8; REASONS_MAX];
    for reason in reasons {
        let index = usize::try_from(reason.value).unwrap_or(usize::MAX);
        if let Some(cause) = causes.get_mut(index) {
            *cause = cause_of(types.name(reason.name));
        }
    }
    Some(causes)
}

/// Arguments that a tracepoint passes to raw programs; `None` where the types do not say (5.5).
///
/// `typedef void (*btf_trace_NAME)(void *, ...)`, whose first argument is not passed on
/// (include/trace/bpf_probe.h).
pub fn tracepoint_args(types: &Btf, tracepoint: &str) -> Option<usize> {
    let name = format!("btf_trace_{tracepoint}");
    types.types(&name).find_map(|found| match found {
        Type::Typedef(pointer) => args_of(types, pointer),
        _ => None,
    })
}

fn args_of(types: &Btf, pointer: u32) -> Option<usize> {
    // A pointer, then what it points to.
    let mut chain = types.chain(pointer).take(CHAIN_MAX);
    chain.find_map(|link| match link {
        Type::Prototype(parameters) => (parameters as usize).checked_sub(1),
        _ => None,
    })
}

/// Functions that free SYNs on kernels without reasons, and what the SYN died of there: 0 where
/// the client gets a RST, or the SYN came again and was answered again; else [`DropCause`].
/// Any other function is other.
pub const LOCATIONS: &[(&str, u8)] = &[
    ("nf_hook_slow", DropCause::Netfilter as u8),
    // Also martian sources, which this function drops at the same place.
    ("ip_rcv_finish_core", DropCause::RpFilter as u8),
    ("tcp_v4_rcv", 0),
    ("tcp_v6_rcv", 0),
    // Before 5.1 it frees its copy of the packet that waits for the neighbour as if it were lost
    // (net/core/neighbour.c); the packet itself goes on waiting.
    ("neigh_probe", 0),
    // The last thing an error report does is to free the packet: the address is then its caller's.
    ("arp_error_report", DropCause::Neighbour as u8),
    ("ndisc_error_report", DropCause::Neighbour as u8),
    ("neigh_invalidate", DropCause::Neighbour as u8),
    ("neigh_timer_handler", DropCause::Neighbour as u8),
    ("__neigh_event_send", DropCause::Neighbour as u8),
    // A neighbour is removed, with its device or by hand, and with it what waits for it.
    ("__neigh_update", DropCause::Neighbour as u8),
    ("neigh_flush_dev", DropCause::Neighbour as u8),
    ("neigh_flush_one", DropCause::Neighbour as u8),
    ("__neigh_ifdown", DropCause::Neighbour as u8),
    ("neigh_ifdown", DropCause::Neighbour as u8),
    ("neigh_carrier_down", DropCause::Neighbour as u8),
    ("neigh_changeaddr", DropCause::Neighbour as u8),
    ("neigh_destroy", DropCause::Neighbour as u8),
    ("skb_queue_purge", DropCause::Neighbour as u8),
    ("skb_queue_purge_reason", DropCause::Neighbour as u8),
    // The functions of IPVS that send a packet on give no reason on any kernel.
    ("ip_vs_nat_xmit", DropCause::IpvsTransmit as u8),
    ("ip_vs_nat_xmit_v6", DropCause::IpvsTransmit as u8),
    ("ip_vs_dr_xmit", DropCause::IpvsTransmit as u8),
    ("ip_vs_dr_xmit_v6", DropCause::IpvsTransmit as u8),
    ("ip_vs_tunnel_xmit", DropCause::IpvsTransmit as u8),
    ("ip_vs_tunnel_xmit_v6", DropCause::IpvsTransmit as u8),
];

/// Of [`LOCATIONS`], those that count on a kernel with reasons, where a reason says nothing: the
/// causes that such a kernel gives reasons for are left out.
pub fn locations(has_reasons: bool) -> impl Iterator<Item = (&'static str, u8)> {
    let with_reason = [DropCause::Netfilter as u8, DropCause::RpFilter as u8];
    LOCATIONS
        .iter()
        .copied()
        .filter(move |(_, cause)| !(has_reasons && with_reason.contains(cause)))
}

fn cause_of(name: &str) -> u8 {
    match name.strip_prefix(PREFIX).unwrap_or(name) {
        // The first two: the packet was used up, not lost. The others were answered: by a RST where
        // no socket listens, by a challenge ACK where a connection of that port is open.
        "NOT_DROPPED_YET" | "CONSUMED" | "NO_SOCKET" | "TCP_INVALID_SYN" => 0,
        // The second: what waited for a neighbour dies so too (`neigh_invalidate`).
        "NOT_SPECIFIED" | "QUEUE_PURGE" => UNSAID,
        "NETFILTER_DROP" => DropCause::Netfilter as u8,
        "IP_RPFILTER" => DropCause::RpFilter as u8,
        "NEIGH_FAILED" | "NEIGH_QUEUEFULL" | "NEIGH_DEAD" | "NEIGH_CREATEFAIL" => {
            DropCause::Neighbour as u8
        }
        "IP_OUTNOROUTES" | "IP_INNOROUTES" => DropCause::NoRoute as u8,
        _ => DropCause::Other as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::sample;

    #[test]
    fn a_copy_freed_by_neighbour_discovery_is_no_loss() {
        let cause = LOCATIONS.iter().find(|(name, _)| *name == "neigh_probe");
        assert_eq!(cause.map(|(_, cause)| *cause), Some(0));
    }

    #[test]
    fn reasons_are_found_by_name() {
        let causes = causes(&sample::btf()).expect("the sample has reasons");
        assert_eq!(causes[0], 0, "NOT_DROPPED_YET");
        assert_eq!(causes[11], DropCause::Netfilter as u8);
        assert_eq!(causes[15], DropCause::RpFilter as u8);
        assert_eq!(causes[3], UNSAID, "NOT_SPECIFIED");
        assert_eq!(
            causes[200],
            DropCause::Other as u8,
            "a number without a name"
        );
    }
}
