//! IPVS's own verdict on a packet.
//!
//! **Measures** the end of a SYN that met an entry and was not rescheduled: followed to its real
//! server, or dropped. Only this verdict distinguishes IPVS's drop from an
//! iptables drop.
//! **Hook** `ip_vs_in_hook` at return. It nests: the packet IPVS sends to the real server passes
//! LOCAL_OUT inside the first call, where the same packet is accepted; either end says "followed".
//! **Cannot see** why IPVS dropped a packet for which no other probe ran; that is counted as other.
//! **Cost** every packet of LOCAL_IN and LOCAL_OUT runs this: two loads and two branches while no
//! SYN is in flight, one hash lookup more while one is.

use agent_common::stat::Stat;
use aya_ebpf::{
    macros::{fexit, kprobe, kretprobe},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};

use crate::{
    attempt,
    call::{BareContext, Call, Entry, Fexit, Kretprobe, finish},
    datagram,
    packet::{self, UDP},
    transport::debug,
};

/// `NF_DROP` (include/uapi/linux/netfilter.h).
const NF_DROP: u32 = 0;

// match-proto 5.10: unsigned int ip_vs_remote_request4(void *priv, struct sk_buff *skb, const struct nf_hook_state *state)
// match-proto 5.10: unsigned int ip_vs_local_request4(void *priv, struct sk_buff *skb, const struct nf_hook_state *state)
// match-proto 5.10: unsigned int ip_vs_remote_request6(void *priv, struct sk_buff *skb, const struct nf_hook_state *state)
// match-proto 5.10: unsigned int ip_vs_local_request6(void *priv, struct sk_buff *skb, const struct nf_hook_state *state)
// match-proto 6.1: unsigned int ip_vs_in_hook(void *priv, struct sk_buff *skb, const struct nf_hook_state *state)
// match-proto 7.2: unsigned int ip_vs_in_hook(void *priv, struct sk_buff *skb, const struct nf_hook_state *state)
#[fexit(function = "ip_vs_in_hook")]
pub fn il_verdict(ctx: FExitContext) -> i32 {
    let call = Fexit::<3>(ctx);
    if may_be_decided(&call) {
        decided_by(call);
    }
    0
}

/// A function of its own, so that a packet that is nothing to us saves no registers for it.
#[inline(never)]
fn decided_by(call: Fexit<3>) {
    decided(&call);
}

#[kprobe]
pub fn il_verdict_k(ctx: ProbeContext) -> u32 {
    let entry = Entry(&ctx);
    let _ = finish(keep_syn(&entry));
    0
}

#[kretprobe]
pub fn il_verdict_r(ctx: RetProbeContext) -> u32 {
    if let Some(call) = Kretprobe::returned(ctx)
        && may_be_decided(&call)
    {
        decided(&call);
    }
    0
}

/// Whether a hook's result drops the packet; the result is 32 bits wide, the register is not.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the upper half is undefined"
)]
pub fn is_drop(result: u64) -> bool {
    result as u32 == NF_DROP
}

/// Keeps a call only for a SYN, so that other packets cost the return probe nothing.
#[inline(always)]
fn keep_syn(entry: &Entry<'_>) -> Result<(), Stat> {
    if packet::may_open(entry.arg(1)) {
        return entry.keep();
    }
    Ok(())
}

/// Whether a SYN waits for a verdict, or this packet dies of one.
#[inline(always)]
fn may_be_decided(call: &impl Call) -> bool {
    is_drop(call.ret()) || attempt::any_in_flight()
}

#[inline(always)]
fn decided(call: &impl Call) {
    let drop = is_drop(call.ret());
    let skb = call.arg(1);
    let Some(pending) = attempt::waiting(skb) else {
        if drop {
            attempt::mark_dropped(skb, false);
        }
        return;
    };
    if pending.syn.tuple.proto == UDP {
        datagram::stale(BareContext::of(call), &pending.syn.tuple, &pending.target);
        attempt::end(skb);
        if drop {
            attempt::mark_dropped(skb, true);
        }
        return;
    }
    let verdict = pending.verdict(drop);
    debug!(
        call,
        "SYN from port {}: dropped {}",
        pending.syn.tuple.client_port,
        u8::from(drop)
    );
    attempt::settle(call, &pending.syn, &pending.target, verdict);
    attempt::end(skb);
    if drop {
        attempt::mark_dropped(skb, true);
    }
}
