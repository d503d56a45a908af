//! The kernel freed a TCP SYN.
//!
//! **Measures** SYNs that die on this node outside IPVS's own verdict, before IPVS or behind it, by
//! the kernel's reason, or by location where the kernel has no reasons.
//! **Hook** raw tracepoint `skb:kfree_skb`: drops only, normal frees pass elsewhere. Two programs,
//! of which the agent attaches one: a kernel refuses to attach a program whose farthest context
//! read lies beyond the tracepoint's arguments (`bpf_probe_register`, kernel/trace/bpf_trace.c),
//! and a verifier that does not track read-only data as constants (5.4) also counts reads in
//! branches that a setting rules out. What a program must not read, it must not contain.
//! **Cannot see** SYNs refused by a full accept or SYN queue (the kernel frees those as consumed).
//! **Cost** once per dropped packet of any kind; packets that are no SYN leave after three reads.

use agent_common::{
    attempt::transmit_cause,
    config::{DROP_LOCATIONS_MAX, UNSAID},
    key::{ServiceKey, TupleKey},
    stat::Stat,
    verdict::DropCause,
};
use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{
    attempt::{self, DroppedBy},
    call::{BareContext, finish},
    conntrack, datagram,
    emit::{self, Death},
    maps::{self, DROP_CAUSES, DROP_LOCATIONS, SERVICES},
    netfilter,
    packet::{self, Syn, UDP},
    types::Pending,
};

// match-proto 5.10: kfree_skb(struct sk_buff *skb, void *location)
// match-proto 6.1: kfree_skb(struct sk_buff *skb, void *location, enum skb_drop_reason reason)
// match-proto 6.12: kfree_skb(struct sk_buff *skb, void *location, enum skb_drop_reason reason, struct sock *rx_sk)
// match-proto 7.2: kfree_skb(struct sk_buff *skb, void *location, enum skb_drop_reason reason, const struct sock *rx_sk)
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn il_syn_drop(ctx: RawTracePointContext) -> i32 {
    let reason: u32 = ctx.arg(2);
    finish(freed(&ctx, Some(reason)))
}

#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn il_syn_drop_loc(ctx: RawTracePointContext) -> i32 {
    finish(freed(&ctx, None))
}

#[inline(always)]
fn freed(ctx: &RawTracePointContext, reason: Option<u32>) -> Result<(), Stat> {
    let skb: u64 = ctx.arg(0);
    let dropped_by = attempt::take_mark(skb);
    if matches!(dropped_by, DroppedBy::IpvsCounted) {
        return Ok(());
    }
    // By kprobe no verdict is seen on a datagram: here is where it died.
    if let Some(pending) = attempt::handled_now(skb)
        && pending.syn.tuple.proto == UDP
    {
        datagram::stale(BareContext::of(ctx), &pending.syn.tuple, &pending.target);
        attempt::end(skb);
        return Ok(());
    }
    let cause = match (dropped_by, reason) {
        (DroppedBy::IpvsUnexplained, _) => DropCause::Other as u8,
        (_, Some(reason)) => cause_of_reason(reason, ctx.arg(1)),
        (_, None) => cause_of_location(ctx.arg(1)),
    };
    if cause == 0 || !attempt::is_armed() {
        return Ok(());
    }
    let by_netfilter = cause == DropCause::Netfilter as u8;
    let cause = conntrack::take(skb, by_netfilter).unwrap_or(cause);
    let Some(syn) = packet::syn_of_skb(skb)? else {
        return Ok(());
    };
    let death = Death {
        cause,
        // Whatever the cause, and the agent looks at it where netfilter dropped the packet: behind
        // a condition on the cause, the verifier of 5.10 removes the call as dead code.
        hook: netfilter::hook(ctx),
        reason: reason.unwrap_or(0),
        location: ctx.arg(1),
    };
    if let Some(pending) = attempt::handled_now(skb) {
        died_in_transmit(BareContext::of(ctx), pending, &death);
    } else {
        died(BareContext::of(ctx), &syn, &death);
    }
    Ok(())
}

/// Counts a SYN that IPVS itself frees while it sends it on, before its verdict is seen; the
/// verdict then settles the attempt.
///
/// Not inlined: see [`died`].
#[inline(never)]
fn died_in_transmit(context: BareContext, pending: &mut Pending, death: &Death) {
    let cause = transmit_cause(death.cause, pending.outcome != 0);
    pending.freed_cause = u32::from(cause);
    attempt::count_drop(&pending.target.service, cause);
    // Of a first SYN that met an entry, the decision that follows is the evidence.
    if let Some((sent, attempt)) = attempt::forwarded(&pending.syn)
        && maps::config().emit_syn_drops != 0
    {
        // SAFETY: the helper only reads the clock.
        let now_ns = unsafe { bpf_ktime_get_ns() };
        let death = Death { cause, ..*death };
        if pending.outcome != 0 {
            attempt.on_icmp_error();
        }
        emit::forwarded_syn_drop(&context, now_ns, sent, 0, &death, attempt);
    }
}

/// Counts a SYN that died outside IPVS's own verdict and writes the evidence.
///
/// Not inlined: keeps this frame out of the caller's 512-byte BPF stack, also where a verifier does
/// not track read-only data and walks every branch (5.4).
#[inline(never)]
pub fn died(context: BareContext, syn: &Syn, death: &Death) {
    // SAFETY: the helper only reads the clock.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let Some((sent, attempt)) = attempt::forwarded(syn) else {
        attempt::settle_drop(syn, &service(&syn.tuple), death.cause, now_ns);
        if maps::config().emit_syn_drops != 0 {
            emit::syn_drop(&context, now_ns, syn, death);
        }
        return;
    };
    let cause = attempt.drop_cause(death.cause);
    attempt::count_drop(&sent.service, cause);
    if maps::config().emit_syn_drops != 0 {
        let death = Death { cause, ..*death };
        emit::forwarded_syn_drop(&context, now_ns, sent, syn.tuple.netns, &death, attempt);
    }
    attempt.on_drop(now_ns, cause);
}

/// The cause the agent assigned to this reason; a reason beyond the table is other.
///
/// Where a reason says nothing the location does: IPVS gives none, and TCP answers a SYN that came
/// again and frees it without a reason.
#[inline(always)]
fn cause_of_reason(reason: u32, location: u64) -> u8 {
    let cause = DROP_CAUSES.get(reason).copied();
    match cause.unwrap_or(DropCause::Other as u8) {
        UNSAID => cause_of_location(location),
        cause => cause,
    }
}

/// The cause the agent assigned to the function that freed the packet; any other is other.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "written from a `u8`")]
fn cause_of_location(location: u64) -> u8 {
    for index in 0..DROP_LOCATIONS_MAX {
        if let Some(function) = DROP_LOCATIONS.get(index)
            && location >= function.start
            && location < function.end
        {
            return function.cause as u8;
        }
    }
    DropCause::Other as u8
}

/// The service a SYN was meant for, if IPVS has handled a connection to it before.
#[inline(always)]
fn service(tuple: &TupleKey) -> ServiceKey {
    let service = ServiceKey {
        addr: tuple.dest_addr,
        fwmark: 0,
        netns: tuple.netns,
        port: tuple.dest_port,
        family: tuple.family,
        proto: tuple.proto,
    };
    if SERVICES.get_ptr(&service).is_some() {
        return service;
    }
    ServiceKey::NONE
}
