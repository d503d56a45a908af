//! A host behind IPVS sends a client an ICMP error: its packet cannot be delivered.
//!
//! **Measures** the end of a stale attempt by an ICMP error from a router or from the real
//! server's host (a firewall that rejects, a host without the address).
//! **Hook** `ip_vs_nat_icmp` and `ip_vs_nat_icmp_v6` at entry: they are given the entry.
//! **Cannot see** errors that do not pass this node (direct routing, tunnel).
//! **Cost** once per ICMP error about a connection of IPVS; one load while none is followed.

use agent_common::{
    key::{FAMILY_IPV4, FAMILY_IPV6, TupleKey},
    stat::Stat,
};
use aya_ebpf::{macros::kprobe, programs::ProbeContext};

use super::icmp::{outcome_v4, outcome_v6};
use crate::{
    call::finish,
    follow,
    packet::{self, TCP},
    read::{Probe, field, offset},
};

// match-proto 5.10: void ip_vs_nat_icmp(struct sk_buff *skb, struct ip_vs_protocol *pp, struct ip_vs_conn *cp, int inout)
// match-proto 6.1.170: void ip_vs_nat_icmp(struct sk_buff *skb, struct ip_vs_protocol *pp, struct ip_vs_conn *cp, int inout)
// match-proto 6.1: bool ip_vs_nat_icmp(struct sk_buff *skb, struct ip_vs_protocol *pp, struct ip_vs_conn *cp, int inout, unsigned int toff, bool has_ports, struct ip_vs_iphdr *ciph)
// match-proto 6.12.94: void ip_vs_nat_icmp(struct sk_buff *skb, struct ip_vs_protocol *pp, struct ip_vs_conn *cp, int inout)
// match-proto 6.12: bool ip_vs_nat_icmp(struct sk_buff *skb, struct ip_vs_protocol *pp, struct ip_vs_conn *cp, int inout, unsigned int toff, bool has_ports, struct ip_vs_iphdr *ciph)
// match-proto 7.2: bool ip_vs_nat_icmp(struct sk_buff *skb, struct ip_vs_protocol *pp, struct ip_vs_conn *cp, int inout, unsigned int toff, bool has_ports, struct ip_vs_iphdr *ciph)
#[kprobe]
pub fn il_relay_k(ctx: ProbeContext) -> u32 {
    let _ = finish(relayed(&ctx, FAMILY_IPV4));
    0
}

// match-proto 5.10: void ip_vs_nat_icmp_v6(struct sk_buff *skb, struct ip_vs_protocol *pp, struct ip_vs_conn *cp, int inout)
// match-proto 6.1.170: void ip_vs_nat_icmp_v6(struct sk_buff *skb, struct ip_vs_protocol *pp, struct ip_vs_conn *cp, int inout)
// match-proto 6.1: void ip_vs_nat_icmp_v6(struct sk_buff *skb, struct ip_vs_protocol *pp, struct ip_vs_conn *cp, int inout, unsigned int toff, bool has_ports, struct ip_vs_iphdr *ciph)
// match-proto 6.12.94: void ip_vs_nat_icmp_v6(struct sk_buff *skb, struct ip_vs_protocol *pp, struct ip_vs_conn *cp, int inout)
// match-proto 6.12: void ip_vs_nat_icmp_v6(struct sk_buff *skb, struct ip_vs_protocol *pp, struct ip_vs_conn *cp, int inout, unsigned int toff, bool has_ports, struct ip_vs_iphdr *ciph)
// match-proto 7.2: void ip_vs_nat_icmp_v6(struct sk_buff *skb, struct ip_vs_protocol *pp, struct ip_vs_conn *cp, int inout, unsigned int toff, bool has_ports, struct ip_vs_iphdr *ciph)
#[kprobe]
pub fn il_relay6_k(ctx: ProbeContext) -> u32 {
    let _ = finish(relayed(&ctx, FAMILY_IPV6));
    0
}

#[inline(always)]
fn relayed(ctx: &ProbeContext, family: u8) -> Result<(), Stat> {
    if !follow::any() {
        return Ok(());
    }
    let (skb, conn): (u64, u64) = (ctx.arg(0).unwrap_or(0), ctx.arg(2).unwrap_or(0));
    let icmp = packet::icmp(skb, family)?;
    let [kind, code]: [u8; 2] = field(icmp, 0)?;
    let outcome = if family == FAMILY_IPV4 {
        outcome_v4(kind, code)
    } else {
        outcome_v6(kind, code)
    };
    if let Some(outcome) = outcome {
        follow::icmp_error(ctx, &front(skb, conn, family)?, outcome);
    }
    Ok(())
}

/// The addresses the client used.
#[inline(always)]
fn front(skb: u64, conn: u64, family: u8) -> Probe<TupleKey> {
    Ok(TupleKey {
        client_addr: packet::address(conn, offset!(conn_caddr), family)?,
        dest_addr: packet::address(conn, offset!(conn_vaddr), family)?,
        client_port: u16::from_be(field(conn, offset!(conn_cport))?),
        dest_port: u16::from_be(field(conn, offset!(conn_vport))?),
        netns: packet::netns(skb)?,
        family,
        proto: TCP,
        pad: [0; 2],
    })
}
