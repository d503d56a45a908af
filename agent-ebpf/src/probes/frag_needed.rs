//! A packet was too big for the way to its destination.
//!
//! **Measures** ICMP "fragmentation needed" and ICMPv6 "packet too big": sent by this node about
//! packets it was to forward, and received by it or passing through.
//! **Hook** `__icmp_send` and `icmp6_send` at entry; `ip_vs_in_icmp` and `ip_vs_in_icmp_v6`, which
//! see every ICMP packet that comes in or is forwarded, and no other packet.
//! **Cannot see** whether the sender heeds the error.
//! **Cost** once per ICMP error sent, once per ICMP packet received: up to six reads.

use agent_common::{
    key::{FAMILY_IPV4, FAMILY_IPV6},
    node::NodeEvent,
    stat::Stat,
};
use aya_ebpf::{macros::kprobe, programs::ProbeContext};

use crate::{
    attempt,
    call::{Entry, finish},
    node, packet,
    read::field,
};

/// `ICMP_DEST_UNREACH` and its code `ICMP_FRAG_NEEDED` (RFC 792, RFC 1191).
const FRAG_NEEDED: [u8; 2] = [3, 4];
/// `ICMPV6_PKT_TOOBIG` (RFC 4443, section 3.2).
const PACKET_TOO_BIG: u8 = 2;
/// `NF_INET_LOCAL_OUT`: what this node sends itself passes there.
const LOCAL_OUT: u32 = 3;
/// Bytes of an ICMP error before the packet it is about.
const ICMP_BYTES: u64 = 8;
/// `IPPROTO_ICMPV6`.
const ICMPV6: u8 = 58;

// match-proto 5.10: void __icmp_send(struct sk_buff *skb_in, int type, int code, __be32 info, const struct ip_options *opt)
// match-proto 7.2: void __icmp_send(struct sk_buff *skb_in, int type, int code, __be32 info, const struct inet_skb_parm *parm)
#[kprobe]
pub fn il_frag4_out_k(ctx: ProbeContext) -> u32 {
    let entry = Entry(&ctx);
    if [low_byte(entry.arg(1)), low_byte(entry.arg(2))] == FRAG_NEEDED {
        sent(entry.arg(0), FAMILY_IPV4);
    }
    0
}

// match-proto 5.10: void icmp6_send(struct sk_buff *skb, u8 type, u8 code, __u32 info, const struct in6_addr *force_saddr, const struct inet6_skb_parm *parm)
// match-proto 7.2: void icmp6_send(struct sk_buff *skb, u8 type, u8 code, __u32 info, const struct in6_addr *force_saddr, const struct inet6_skb_parm *parm)
#[kprobe]
pub fn il_frag6_out_k(ctx: ProbeContext) -> u32 {
    let entry = Entry(&ctx);
    if low_byte(entry.arg(1)) == PACKET_TOO_BIG {
        sent(entry.arg(0), FAMILY_IPV6);
    }
    0
}

// match-proto 5.10: int ip_vs_in_icmp(struct netns_ipvs *ipvs, struct sk_buff *skb, int *related, unsigned int hooknum)
// match-proto 6.1.170: int ip_vs_in_icmp(struct netns_ipvs *ipvs, struct sk_buff *skb, int *related, unsigned int hooknum)
// match-proto 6.1: int ip_vs_in_icmp(struct netns_ipvs *ipvs, struct sk_buff *skb, int *related, unsigned int hooknum, struct ip_vs_iphdr *iph)
// match-proto 6.12.94: int ip_vs_in_icmp(struct netns_ipvs *ipvs, struct sk_buff *skb, int *related, unsigned int hooknum)
// match-proto 6.12: int ip_vs_in_icmp(struct netns_ipvs *ipvs, struct sk_buff *skb, int *related, unsigned int hooknum, struct ip_vs_iphdr *iph)
// match-proto 7.2: int ip_vs_in_icmp(struct netns_ipvs *ipvs, struct sk_buff *skb, int *related, unsigned int hooknum, struct ip_vs_iphdr *iph)
#[kprobe]
pub fn il_frag4_in_k(ctx: ProbeContext) -> u32 {
    let _ = finish(received_v4(&Entry(&ctx)));
    0
}

// match-proto 5.10: int ip_vs_in_icmp_v6(struct netns_ipvs *ipvs, struct sk_buff *skb, int *related, unsigned int hooknum, struct ip_vs_iphdr *iph)
// match-proto 7.2: int ip_vs_in_icmp_v6(struct netns_ipvs *ipvs, struct sk_buff *skb, int *related, unsigned int hooknum, struct ip_vs_iphdr *iph)
#[kprobe]
pub fn il_frag6_in_k(ctx: ProbeContext) -> u32 {
    let _ = finish(received_v6(&Entry(&ctx)));
    0
}

/// ICMP came in, or is passed on.
#[inline(always)]
fn received_v4(entry: &Entry<'_>) -> Result<(), Stat> {
    if is_own(entry) {
        return Ok(());
    }
    // Type and code of ICMP stand behind the IP header.
    let ip = packet::network_header(entry.arg(1))?;
    let version_and_length: u8 = field(ip, 0)?;
    let icmp = ip + u64::from(version_and_length & 0x0f) * 4;
    let type_and_code: [u8; 2] = field(icmp, 0)?;
    if type_and_code == FRAG_NEEDED {
        count(
            NodeEvent::FragNeededReceived,
            icmp + ICMP_BYTES,
            FAMILY_IPV4,
        );
    }
    Ok(())
}

/// Extension headers in front of ICMPv6 are not followed.
#[inline(always)]
fn received_v6(entry: &Entry<'_>) -> Result<(), Stat> {
    if is_own(entry) {
        return Ok(());
    }
    let ip = packet::network_header(entry.arg(1))?;
    let next_header: u8 = field(ip, 6)?;
    let kind: u8 = field(ip, 40)?;
    if next_header == ICMPV6 && kind == PACKET_TOO_BIG {
        count(
            NodeEvent::FragNeededReceived,
            ip + 40 + ICMP_BYTES,
            FAMILY_IPV6,
        );
    }
    Ok(())
}

/// What this node sends itself is counted where it is made.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "an `unsigned int`")]
fn is_own(entry: &Entry<'_>) -> bool {
    entry.arg(3) as u32 == LOCAL_OUT
}

/// An error about this packet is sent.
#[inline(always)]
fn sent(skb: u64, family: u8) {
    // Where the packet cannot be read, neither can its destination.
    let ip = packet::network_header(skb).unwrap_or(0);
    count(NodeEvent::FragNeededSent, ip, family);
}

/// Counts, and keeps the destination of the packet with this IP header.
#[inline(always)]
fn count(event: NodeEvent, ip: u64, family: u8) {
    if !attempt::is_armed() {
        return;
    }
    let mut key = node::anywhere(event);
    node::one(&key);
    let at = if family == FAMILY_IPV6 { 24 } else { 16 };
    if let Ok(destination) = packet::address(ip, at, family) {
        key.addr = destination;
        key.family = family;
        node::keep_latest(&key);
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "that is what is asked for")]
const fn low_byte(arg: u64) -> u8 {
    arg as u8
}
