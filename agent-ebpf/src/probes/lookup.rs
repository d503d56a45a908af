//! A SYN met an existing entry.
//!
//! **Measures** which entry, real server, weight and state a SYN found, before IPVS decides;
//! datagrams whose entry leads to a stale real server; while a stale attempt is followed, the
//! client's next packet, which says that it was answered.
//! **Hook** `ip_vs_conn_in_get_proto` at return: later the old state and weight are overwritten.
//! **Cannot see** SYNs that find no entry (they go to `schedule`).
//! **Cost** every packet of the IPVS hook runs this: a miss leaves after one load and a branch, a
//! packet that is no SYN after five loads and one helper call, a datagram after five loads. By
//! kprobe a datagram costs an entry in the table of kept arguments as well.

use agent_common::stat::Stat;
use aya_ebpf::{
    EbpfContext,
    macros::{fexit, kprobe, kretprobe},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};

use crate::{
    attempt,
    call::{Call, Entry, Fexit, Kretprobe, finish},
    datagram, follow,
    ipvs::{self, Target},
    packet::{self, Place, Syn, UDP},
    proof::{self, Origin},
    read::Load,
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
    let _ = finish(keep(&entry));
    0
}

#[kretprobe]
pub fn il_lookup_r(ctx: RetProbeContext) -> u32 {
    if let Some(call) = Kretprobe::returned(ctx) {
        let _ = finish(met_entry(&call));
    }
    0
}

/// Keeps a call only for a SYN or a datagram, so that other packets cost the return probe nothing.
#[inline(always)]
fn keep(entry: &Entry<'_>) -> Result<(), Stat> {
    let (skb, iph) = (entry.arg(2), entry.arg(3));
    let protocol = packet::protocol(entry, iph)?;
    if protocol == u16::from(UDP) {
        return entry.keep();
    }
    if packet::opening(entry, skb, iph, protocol)?.is_some() {
        return entry.keep();
    }
    if follow::any() {
        return goes_on(
            entry.0,
            entry,
            [entry.arg(0), entry.arg(1), skb, iph],
            protocol,
        );
    }
    Ok(())
}

#[inline(always)]
fn met_entry(call: &impl Call) -> Result<(), Stat> {
    let conn = call.ret();
    if conn == 0 {
        return Ok(());
    }
    let (ipvs, af, skb, iph) = (call.arg(0), call.arg(1), call.arg(2), call.arg(3));
    let protocol = packet::protocol(call, iph)?;
    let header = if protocol == u16::from(UDP) {
        if !ipvs::leads_nowhere(call, conn)? {
            return Ok(());
        }
        packet::datagram(call, skb, iph)?
    } else {
        packet::opening(call, skb, iph, protocol)?
    };
    let Some(header) = header else {
        if follow::any() && protocol != u16::from(UDP) {
            return goes_on(call, call, [ipvs, af, skb, iph], protocol);
        }
        return Ok(());
    };
    if !attempt::is_armed() {
        return Ok(());
    }
    let netns = proof::readable(ipvs::netns(ipvs))?;
    let place = Place {
        iph,
        header,
        netns,
        protocol,
        family: packet::family(af),
    };
    let mut syn = Syn::NONE;
    packet::syn(&place, &mut syn)?;
    let mut target = Target::NONE;
    proof::target(conn, skb, &syn, Origin::Table, &mut target)?;
    if protocol == u16::from(UDP) {
        return datagram::met_entry(call, skb, &syn, &target);
    }
    debug!(
        call,
        "SYN from port {} met an entry in state {}", syn.tuple.client_port, target.state
    );
    follow::superseded(call, &syn, target.state);
    attempt::begin(skb, &syn, &target)
}

/// A packet of an open connection, while an attempt is followed; `args` are those of the function.
#[inline(always)]
fn goes_on(
    context: &impl EbpfContext,
    load: &impl Load,
    [ipvs, af, skb, iph]: [u64; 4],
    protocol: u16,
) -> Result<(), Stat> {
    let Some(going) = packet::going(load, skb, iph, protocol)? else {
        return Ok(());
    };
    let place = Place {
        iph,
        header: packet::header(load, skb, iph)?,
        netns: ipvs::netns(ipvs)?,
        protocol,
        family: packet::family(af),
    };
    let mut syn = Syn::NONE;
    packet::syn(&place, &mut syn)?;
    follow::client_packet(context, &syn.tuple, going);
    Ok(())
}
