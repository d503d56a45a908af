//! A SYN met an existing entry.
//!
//! **Measures** which entry, real server, weight and state a SYN found, before IPVS decides.
//! **Hook** `ip_vs_conn_in_get_proto` at return: later the old state and weight are overwritten.
//! **Cannot see** SYNs that find no entry (they go to `schedule`), nor entries of other
//! protocols than TCP.
//! **Cost** every packet of the IPVS hook runs this: a miss leaves after one load and a branch, a
//! packet that is no SYN after six loads and one helper call.

use agent_common::stat::Stat;
use aya_ebpf::{
    macros::{fexit, kprobe, kretprobe},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};

use crate::{
    attempt,
    call::{Call, Entry, Fexit, Kretprobe, finish},
    ipvs, packet,
    proof::{self, Origin},
    transport::debug,
};

// match-proto 5.10: struct ip_vs_conn *ip_vs_conn_in_get_proto(struct netns_ipvs *ipvs, int af, const struct sk_buff *skb, const struct ip_vs_iphdr *iph)
// match-proto 7.2: struct ip_vs_conn *ip_vs_conn_in_get_proto(struct netns_ipvs *ipvs, int af, const struct sk_buff *skb, const struct ip_vs_iphdr *iph)
#[fexit(function = "ip_vs_conn_in_get_proto")]
pub fn il_lookup(ctx: FExitContext) -> i32 {
    finish(met_entry(&Fexit::<4>(ctx)))
}

#[kprobe]
pub fn il_lookup_k(ctx: ProbeContext) -> u32 {
    let entry = Entry(&ctx);
    let _ = finish(keep_syn(&entry));
    0
}

#[kretprobe]
pub fn il_lookup_r(ctx: RetProbeContext) -> u32 {
    if let Some(call) = Kretprobe::returned(ctx) {
        let _ = finish(met_entry(&call));
    }
    0
}

/// Keeps a call only for a SYN, so that other packets cost the return probe nothing.
#[inline(always)]
fn keep_syn(entry: &Entry<'_>) -> Result<(), Stat> {
    match packet::opening(entry, entry.arg(2), entry.arg(3))? {
        Some(_) => entry.keep(),
        None => Ok(()),
    }
}

#[inline(always)]
fn met_entry(call: &impl Call) -> Result<(), Stat> {
    let conn = call.ret();
    if conn == 0 {
        return Ok(());
    }
    let (skb, iph) = (call.arg(2), call.arg(3));
    let Some(tcp) = packet::opening(call, skb, iph)? else {
        return Ok(());
    };
    if !attempt::is_armed() {
        return Ok(());
    }
    let netns = proof::readable(ipvs::netns(call.arg(0)))?;
    let family = packet::family(call.arg(1));
    let syn = packet::syn(iph, tcp, family, netns)?;
    let target = proof::target(conn, skb, &syn, Origin::Table)?;
    debug!(
        call,
        "SYN from port {} met an entry in state {}", syn.tuple.client_port, target.state
    );
    attempt::begin(skb, syn, target)
}
