//! Datagrams (UDP) to a stale real server.
//!
//! IPVS moves a flow only when a packet opens a connection, and a datagram opens none: a flow
//! stays with a real server of weight 0 while its datagrams renew the entry (300 s), and is
//! dropped in silence while its real server is removed.

use agent_common::{
    attempt::SynVerdict,
    count::{CountKey, TALLY_STALE_DATAGRAM, TALLY_STALE_FLOW},
    flow::{EVIDENCE_EVERY_NS, FLOW_IDLE_NS, StaleFlow},
    key::TupleKey,
};
use aya_ebpf::{EbpfContext, helpers::bpf_ktime_get_ns};

use crate::{
    attempt, call::BareContext, count, emit, ipvs::Target, maps::FLOWS, packet::Syn, read::Probe,
};

/// A datagram met an entry that leads to a stale real server.
#[inline(always)]
pub fn met_entry(
    context: &impl EbpfContext,
    skb: u64,
    datagram: &Syn,
    target: &Target,
) -> Probe<()> {
    if target.removed != 0 {
        // IPVS drops it, or with `expire_nodest_conn` lets the scheduler choose again.
        return attempt::begin(skb, datagram, target);
    }
    stale(BareContext::of(context), &datagram.tuple, target);
    Ok(())
}

/// The scheduler chose a real server for a datagram without an entry.
///
/// A function of its own, for a stack of its own.
#[inline(never)]
pub fn scheduled(context: BareContext, datagram: &Syn, target: &Target, met_entry: u32) {
    let verdict = SynVerdict::on_choice(target.entry(), met_entry != 0);
    attempt::count_decision(target, verdict);
    if target.is_stale() {
        stale(context, &datagram.tuple, target);
    }
}

/// Counts a datagram that went to a stale real server, or died because that one was removed.
///
/// A function of its own, for a stack of its own.
#[inline(never)]
pub fn stale(context: BareContext, tuple: &TupleKey, target: &Target) {
    let mut key = CountKey {
        service: target.service,
        real_server: target.real_server,
        tally: TALLY_STALE_DATAGRAM,
        decision: 0,
        cause: 0,
        pad: 0,
    };
    count::one(&key);
    // SAFETY: the helper only reads the clock.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let mut flow = match flow_of(tuple) {
        Some(flow) if now_ns.wrapping_sub(flow.last_ns) < FLOW_IDLE_NS => *flow,
        _ => {
            key.tally = TALLY_STALE_FLOW;
            count::one(&key);
            StaleFlow {
                since_ns: now_ns,
                last_ns: now_ns,
                last_reported_ns: 0,
                datagrams: 0,
            }
        }
    };
    flow.last_ns = now_ns;
    flow.datagrams += 1;
    let report = now_ns.wrapping_sub(flow.last_reported_ns) >= EVIDENCE_EVERY_NS;
    if report {
        flow.last_reported_ns = now_ns;
    }
    // The oldest flow makes room: this one cannot be refused for want of it.
    let _ = FLOWS.insert(tuple, &flow, 0);
    if report {
        emit::datagram(&context, now_ns, tuple, target, &flow);
    }
}

#[inline(always)]
fn flow_of(tuple: &TupleKey) -> Option<&'static StaleFlow> {
    // SAFETY: the map's memory outlives the program; two datagrams of one flow at the same moment
    // could at worst lose one increment of evidence.
    unsafe { FLOWS.get(tuple) }
}
