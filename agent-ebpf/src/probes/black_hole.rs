//! A big segment is sent again and again, and nothing says that it is too big.
//!
//! **Measures** sockets of this node, in any network namespace, that send a full segment for the
//! third time in a row: what a path does that loses big packets and keeps quiet about it.
//! **Hook** raw tracepoint `tcp:tcp_retransmit_skb`.
//! **Cannot see** connections whose both ends are elsewhere; and any loss of three full segments in
//! a row, as of a peer that has vanished, looks the same. It is a suspicion.
//! **Cost** once per segment sent again: one read; three more at the third timeout, eight more on a
//! suspicion.

use agent_common::{node::NodeEvent, stat::Stat};
use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{
    attempt,
    call::finish,
    node,
    read::{field, offset},
    socket,
};

/// Timeouts in a row; each full segment that is acknowledged resets it. The kernel's own search
/// for such paths (`net.ipv4.tcp_mtu_probing`) starts at three too (`tcp_retries1`).
const TIMEOUTS: u8 = 3;

/// No timer is pending: the one for retransmits has gone off and is being served.
const TIMER_IS_DUE: u8 = 0;

// match-proto 5.10: tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb)
// match-proto 7.2: tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb, int err)
#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn il_black_hole(ctx: RawTracePointContext) -> i32 {
    finish(sent_again(&ctx))
}

#[inline(always)]
fn sent_again(ctx: &RawTracePointContext) -> Result<(), Stat> {
    let (sk, skb): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let timeouts: u8 = field(sk, offset!(icsk_retransmits))?;
    if timeouts != TIMEOUTS {
        return Ok(());
    }
    // Until the next timeout, acknowledgements of other bytes may ask for the segment again.
    let timer: u8 = field(sk, offset!(icsk_pending))?;
    if timer != TIMER_IS_DUE {
        return Ok(());
    }
    let payload_bytes: u32 = field(skb, offset!(skb_len))?;
    let segment_bytes: u32 = field(sk, offset!(tcp_mss_cache))?;
    if payload_bytes >= segment_bytes && attempt::is_armed() {
        node::one(&node::anywhere(NodeEvent::BlackHoleSuspected));
        node::keep_latest(&socket::remote(sk, NodeEvent::BlackHoleSuspected)?);
    }
    Ok(())
}
