//! This node sends an ICMP error: a packet cannot be delivered.
//!
//! **Measures** the end of a stale attempt whose real server is unreachable: at once and with the
//! packet still addressed to the virtual service where there is no route, seconds later and with
//! the packet translated where the neighbour does not answer.
//! **Hook** `__icmp_send` and `icmp6_send` at entry; `icmp_send` is inline.
//! **Cannot see** whether the error reached the client, nor errors about tunnelled packets.
//! **Cost** once per ICMP error this node makes.

use agent_common::{stat::Stat, verdict::Outcome};
use aya_ebpf::{macros::kprobe, programs::ProbeContext};

use crate::{attempt, call::finish, follow, packet};

/// `ICMP_DEST_UNREACH` (RFC 792).
const DEST_UNREACH: u8 = 3;
/// `ICMP_PROT_UNREACH`.
const PROT_UNREACH: u8 = 2;
/// `ICMP_PORT_UNREACH`.
const PORT_UNREACH: u8 = 3;
/// `ICMP_FRAG_NEEDED`: the packet was too big, which ends nothing.
const FRAG_NEEDED: u8 = 4;
/// `ICMPV6_DEST_UNREACH` (RFC 4443).
const DEST_UNREACH_V6: u8 = 1;
/// `ICMPV6_PORT_UNREACH`.
const PORT_UNREACH_V6: u8 = 4;

// match-proto 5.10: void __icmp_send(struct sk_buff *skb_in, int type, int code, __be32 info, const struct ip_options *opt)
// match-proto 7.2: void __icmp_send(struct sk_buff *skb_in, int type, int code, __be32 info, const struct inet_skb_parm *parm)
#[kprobe]
pub fn il_icmp_k(ctx: ProbeContext) -> u32 {
    let _ = finish(sent(&ctx, outcome_v4));
    0
}

// match-proto 5.10: void icmp6_send(struct sk_buff *skb, u8 type, u8 code, __u32 info, const struct in6_addr *force_saddr, const struct inet6_skb_parm *parm)
// match-proto 7.2: void icmp6_send(struct sk_buff *skb, u8 type, u8 code, __u32 info, const struct in6_addr *force_saddr, const struct inet6_skb_parm *parm)
#[kprobe]
pub fn il_icmp6_k(ctx: ProbeContext) -> u32 {
    let _ = finish(sent(&ctx, outcome_v6));
    0
}

#[inline(always)]
fn sent(ctx: &ProbeContext, outcome: fn(u8, u8) -> Option<Outcome>) -> Result<(), Stat> {
    let number = |n: usize| ctx.arg::<u8>(n).unwrap_or(0);
    let Some(outcome) = outcome(number(1), number(2)) else {
        return Ok(());
    };
    let skb: u64 = ctx.arg(0).unwrap_or(0);
    if let Some(pending) = attempt::handled_now(skb) {
        // The decision about this SYN follows, and with it the attempt to put this to.
        pending.outcome = outcome as u32;
        return Ok(());
    }
    if let Some(syn) = packet::syn_of_skb(skb)? {
        attempt::client_informed(&syn);
        follow::icmp_error(ctx, &syn.tuple, outcome);
    }
    Ok(())
}

/// What an ICMP error means to a client that connects.
#[inline(always)]
pub fn outcome_v4(kind: u8, code: u8) -> Option<Outcome> {
    match (kind, code) {
        (DEST_UNREACH, PROT_UNREACH | PORT_UNREACH) => Some(Outcome::Refused),
        (DEST_UNREACH, FRAG_NEEDED) => None,
        (DEST_UNREACH, _) => Some(Outcome::Unreachable),
        _ => None,
    }
}

/// As [`outcome_v4`], for ICMPv6.
#[inline(always)]
pub fn outcome_v6(kind: u8, code: u8) -> Option<Outcome> {
    match (kind, code) {
        (DEST_UNREACH_V6, PORT_UNREACH_V6) => Some(Outcome::Refused),
        (DEST_UNREACH_V6, _) => Some(Outcome::Unreachable),
        _ => None,
    }
}
