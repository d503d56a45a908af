//! The scheduler chose a real server for a SYN.
//!
//! **Measures** new entries: `scheduled` when the SYN met no entry, `rescheduled` when it met one
//! that IPVS expired, `reused_stale` when a persistence template led to a stale real server.
//! **Hook** `ip_vs_schedule` at return rather than `ip_vs_conn_new`: it knows the packet.
//! **Cannot see** bypass entries (`cache_bypass`), which `ip_vs_leave` makes.
//! **Cost** once per new entry, never per packet.

use agent_common::{attempt::SynVerdict, stat::Stat};
use aya_ebpf::{
    macros::{fexit, kprobe, kretprobe},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};

use crate::{
    attempt,
    call::{BareContext, Call, Entry, Fexit, Kretprobe, finish},
    datagram, follow,
    ipvs::{self, Target},
    packet::{self, Place, Syn, UDP},
    proof::{self, Origin},
    read::{Probe, field, offset},
    transport::debug,
};

// match-proto 5.10: struct ip_vs_conn *ip_vs_schedule(struct ip_vs_service *svc, struct sk_buff *skb, struct ip_vs_proto_data *pd, int *ignored, struct ip_vs_iphdr *iph)
// match-proto 7.2: struct ip_vs_conn *ip_vs_schedule(struct ip_vs_service *svc, struct sk_buff *skb, struct ip_vs_proto_data *pd, int *ignored, struct ip_vs_iphdr *iph)
#[fexit(function = "ip_vs_schedule")]
pub fn il_schedule(ctx: FExitContext) -> i32 {
    finish(chosen(&Fexit::<5>(ctx)))
}

#[kprobe]
pub fn il_schedule_k(ctx: ProbeContext) -> u32 {
    let _ = finish(Entry(&ctx).keep());
    0
}

#[kretprobe]
pub fn il_schedule_r(ctx: RetProbeContext) -> u32 {
    if let Some(call) = Kretprobe::returned(ctx) {
        let _ = finish(chosen(&call));
    }
    0
}

#[inline(always)]
fn chosen(call: &impl Call) -> Result<(), Stat> {
    let conn = call.ret();
    if conn == 0 {
        return Ok(());
    }
    let (svc, skb, iph) = (call.arg(0), call.arg(1), call.arg(4));
    let mut syn = Syn::NONE;
    if !syn_of(call, svc, skb, iph, &mut syn)? {
        return Ok(());
    }
    let mut target = Target::NONE;
    proof::target(conn, skb, &syn, Origin::Scheduler, &mut target)?;
    let met_entry = attempt::waiting(skb).is_some();
    if met_entry {
        attempt::end(skb);
    }
    if syn.tuple.proto == UDP {
        datagram::scheduled(BareContext::of(call), &syn, &target, u32::from(met_entry));
        return Ok(());
    }
    follow::superseded(call, &syn, 0);
    let verdict = SynVerdict::on_choice(target.entry(), met_entry);
    debug!(
        call,
        "SYN from port {}: decision {}", syn.tuple.client_port, verdict.decision as u8
    );
    attempt::settle(call, &syn, &target, verdict);
    Ok(())
}

/// The SYN or datagram that made IPVS look for a server of `svc`, into `syn`; `false` for any other
/// packet.
///
/// # Errors
/// What could not be read.
#[inline(always)]
pub fn syn_of(call: &impl Call, svc: u64, skb: u64, iph: u64, syn: &mut Syn) -> Probe<bool> {
    let protocol = packet::protocol(call, iph)?;
    let header = if protocol == u16::from(UDP) {
        packet::datagram(call, skb, iph)?
    } else {
        packet::opening(call, skb, iph, protocol)?
    };
    let Some(header) = header else {
        return Ok(false);
    };
    if !attempt::is_armed() {
        return Ok(false);
    }
    let ipvs: u64 = proof::readable(field(svc, offset!(svc_ipvs)))?;
    let netns = proof::readable(ipvs::netns(ipvs))?;
    let af: u16 = proof::readable(field(svc, offset!(svc_af)))?;
    let place = Place {
        iph,
        header,
        protocol,
        family: packet::family(u64::from(af)),
        netns,
    };
    packet::syn(&place, syn)?;
    Ok(true)
}
