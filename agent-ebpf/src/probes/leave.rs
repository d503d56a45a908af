//! IPVS found no real server for a SYN.
//!
//! **Measures** SYNs dropped because the service has no server left to choose; the client gets an
//! ICMP port unreachable ("connection refused").
//! **Hook** `ip_vs_leave` at return: its verdict distinguishes a drop from a bypass.
//! **Cannot see** the real server: there is none.
//! **Cost** once per packet without a server, never on a healthy service.

use agent_common::{attempt::SynVerdict, key::ServiceKey, stat::Stat, verdict::DropCause};
use aya_ebpf::{
    macros::{fexit, kprobe, kretprobe},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};

use super::{schedule, verdict::is_drop};
use crate::{
    attempt,
    call::{Call, Entry, Fexit, Kretprobe, finish},
    follow,
    ipvs::{self, Target},
    packet::{Syn, UDP},
    proof,
};

// match-proto 5.10: int ip_vs_leave(struct ip_vs_service *svc, struct sk_buff *skb, struct ip_vs_proto_data *pd, struct ip_vs_iphdr *iph)
// match-proto 7.2: int ip_vs_leave(struct ip_vs_service *svc, struct sk_buff *skb, struct ip_vs_proto_data *pd, struct ip_vs_iphdr *iph)
#[fexit(function = "ip_vs_leave")]
pub fn il_leave(ctx: FExitContext) -> i32 {
    finish(no_destination(&Fexit::<4>(ctx)))
}

#[kprobe]
pub fn il_leave_k(ctx: ProbeContext) -> u32 {
    let _ = finish(Entry(&ctx).keep());
    0
}

#[kretprobe]
pub fn il_leave_r(ctx: RetProbeContext) -> u32 {
    if let Some(call) = Kretprobe::returned(ctx) {
        let _ = finish(no_destination(&call));
    }
    0
}

#[inline(always)]
fn no_destination(call: &impl Call) -> Result<(), Stat> {
    if !is_drop(call.ret()) {
        return Ok(());
    }
    let (svc, skb, iph) = (call.arg(0), call.arg(1), call.arg(3));
    let mut syn = Syn::NONE;
    if !schedule::syn_of(call, svc, skb, iph, &mut syn)? {
        return Ok(());
    }
    attempt::end(skb);
    let mut target = Target::NONE;
    if service_of(svc, &syn, &mut target.service) == 0 {
        return Err(Stat::LayoutContradicted);
    }
    let verdict = SynVerdict::dropped(DropCause::IpvsNoDestination);
    if syn.tuple.proto == UDP {
        attempt::count_decision(&target, verdict);
    } else {
        follow::superseded(call, &syn, 0);
        attempt::settle(call, &syn, &target, verdict);
    }
    attempt::mark_dropped(skb, true);
    Ok(())
}

/// The service that was asked for a real server, into `service`; 0 when it contradicts the packet.
///
/// Not inlined: keeps this frame out of the caller's 512-byte BPF stack, also where a verifier does
/// not track read-only data and walks every branch (5.4).
#[inline(never)]
fn service_of(svc: u64, syn: &Syn, service: &mut ServiceKey) -> u32 {
    let found = proof::readable(ipvs::service(svc, syn.tuple.netns));
    match found.and_then(|found| proof::service(syn, found)) {
        Ok(found) => {
            *service = found;
            1
        }
        Err(_) => 0,
    }
}
