//! A SYN met a listener of this node, and one of its queues is full.
//!
//! **Measures** SYNs the kernel throws away without an answer, by listener and queue. No drop
//! event reports them: the kernel frees the packet as consumed.
//! **Hook** `tcp_conn_request` at entry for the accept queue, decided as the kernel does; at return
//! for the queue of half-open connections, because kernels differ in what they call full: a SYN
//! was refused when the queue is no longer than before.
//! **Cannot see** which queue refused when both are full; a SYN that another CPU's handshake hides
//! by leaving the queue at the same moment is counted as refused.
//! **Cost** once per SYN to a listener: seven reads.

use agent_common::{node::NodeEvent, stat::Stat, verdict::DropCause};
use aya_ebpf::{
    EbpfContext,
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};

use super::syn_drop;
use crate::{
    attempt,
    call::{BareContext, Call, Entry, Kretprobe, finish},
    emit::Death,
    node, packet,
    read::{Probe, field, offset},
    socket,
};

// match-proto 5.10: int tcp_conn_request(struct request_sock_ops *rsk_ops, const struct tcp_request_sock_ops *af_ops, struct sock *sk, struct sk_buff *skb)
// match-proto 7.2: int tcp_conn_request(struct request_sock_ops *rsk_ops, const struct tcp_request_sock_ops *af_ops, struct sock *sk, struct sk_buff *skb)
#[kprobe]
pub fn il_listen_k(ctx: ProbeContext) -> u32 {
    let _ = finish(asked(&Entry(&ctx)));
    0
}

#[kretprobe]
pub fn il_listen_r(ctx: RetProbeContext) -> u32 {
    if let Some(call) = Kretprobe::returned(ctx) {
        let _ = finish(answered(&call));
    }
    0
}

#[inline(always)]
fn asked(entry: &Entry<'_>) -> Result<(), Stat> {
    let sk = entry.arg(2);
    let half_open = socket::half_open(sk)?;
    let limits = Limits::read(sk)?;
    if limits.may_be_over(half_open) {
        return entry.keep_with(u64::from(half_open));
    }
    if socket::accept_queue_is_full(sk)? {
        return refused(
            entry,
            sk,
            entry.arg(3),
            NodeEvent::AcceptQueueFull,
            DropCause::AcceptQueueFull,
        );
    }
    if limits.is_last_quarter(half_open) {
        return entry.keep_with(u64::from(half_open));
    }
    Ok(())
}

/// How many half-open connections a listener may have.
struct Limits {
    /// Whether SYN cookies make room for any number.
    cookies: bool,
    /// The listener's own limit.
    of_listener: u32,
    /// `net.ipv4.tcp_max_syn_backlog`.
    of_netns: u32,
}

impl Limits {
    #[inline(always)]
    fn read(sk: u64) -> Probe<Self> {
        let net = socket::net(sk)?;
        let cookies: u8 = field(net, offset!(net_syncookies))?;
        Ok(Self {
            cookies: cookies != 0,
            of_listener: field(sk, offset!(sock_max_ack_backlog))?,
            of_netns: field(net, offset!(net_max_syn_backlog))?,
        })
    }

    /// At the limit some kernels refuse and some do not.
    #[inline(always)]
    const fn may_be_over(&self, half_open: u32) -> bool {
        !self.cookies && half_open >= self.of_listener
    }

    /// The last quarter is kept for clients the kernel remembers; signed, as its own comparison.
    #[inline(always)]
    const fn is_last_quarter(&self, half_open: u32) -> bool {
        let left = self.of_netns.wrapping_sub(half_open).cast_signed();
        !self.cookies && left < (self.of_netns >> 2).cast_signed()
    }
}

#[inline(always)]
fn answered(call: &Kretprobe) -> Result<(), Stat> {
    let sk = call.arg(2);
    #[expect(clippy::cast_possible_truncation, reason = "kept from a `u32`")]
    let before = call.arg(4) as u32;
    if socket::half_open(sk)? > before {
        return Ok(());
    }
    refused(
        call,
        sk,
        call.arg(3),
        NodeEvent::SynQueueFull,
        DropCause::SynQueueFull,
    )
}

#[inline(always)]
fn refused(
    context: &impl EbpfContext,
    sk: u64,
    skb: u64,
    event: NodeEvent,
    cause: DropCause,
) -> Result<(), Stat> {
    if !attempt::is_armed() {
        return Ok(());
    }
    node::one(&socket::local(sk, event)?);
    let Some(mut syn) = packet::syn_of_skb(skb)? else {
        return Ok(());
    };
    // The packet has left its device by now.
    syn.tuple.netns = socket::netns(sk)?;
    let death = Death {
        cause: cause as u8,
        hook: 0,
        reason: 0,
        location: 0,
    };
    syn_drop::died(BareContext::of(context), &syn, &death);
    Ok(())
}
