//! The last packet of a handshake met a listener whose accept queue is full.
//!
//! **Measures** handshakes the kernel forgets, by listener; with SYN cookies too. Their clients
//! believe to be connected and wait for an answer to what they send.
//! **Hook** `tcp_v4_syn_recv_sock` and `tcp_v6_syn_recv_sock` at entry, where the kernel's own first
//! step is the same comparison.
//! **Cannot see** the client: the packet is no SYN, and each is counted, also one sent again.
//! **Cost** once per connection a listener is to accept: three reads.

use agent_common::{node::NodeEvent, stat::Stat};
use aya_ebpf::{macros::kprobe, programs::ProbeContext};

use crate::{
    attempt,
    call::{Entry, finish},
    node,
    packet::{self, ETH_P_IP, ETH_P_IPV6},
    socket,
};

// match-proto 5.10: struct sock *tcp_v4_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req)
// match-proto 6.1.170: struct sock *tcp_v4_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req)
// match-proto 6.1: struct sock *tcp_v4_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req, void (*opt_child_init)(struct sock *, const struct sock *))
// match-proto 6.12.94: struct sock *tcp_v4_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req)
// match-proto 6.12: struct sock *tcp_v4_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req, void (*opt_child_init)(struct sock *, const struct sock *))
// match-proto 7.2: struct sock *tcp_v4_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req, void (*opt_child_init)(struct sock *, const struct sock *))
#[kprobe]
pub fn il_shake4_k(ctx: ProbeContext) -> u32 {
    let _ = finish(completed(&Entry(&ctx), ETH_P_IP));
    0
}

// match-proto 5.10: struct sock *tcp_v6_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req)
// match-proto 6.1.170: struct sock *tcp_v6_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req)
// match-proto 6.1: struct sock *tcp_v6_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req, void (*opt_child_init)(struct sock *, const struct sock *))
// match-proto 6.12.94: struct sock *tcp_v6_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req)
// match-proto 6.12: struct sock *tcp_v6_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req, void (*opt_child_init)(struct sock *, const struct sock *))
// match-proto 7.2: struct sock *tcp_v6_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req, void (*opt_child_init)(struct sock *, const struct sock *))
#[kprobe]
pub fn il_shake6_k(ctx: ProbeContext) -> u32 {
    let _ = finish(completed(&Entry(&ctx), ETH_P_IPV6));
    0
}

/// `protocol` is the one the function checks for itself: the IPv6 function hands IPv4 on.
#[inline(always)]
fn completed(entry: &Entry<'_>, protocol: u16) -> Result<(), Stat> {
    let sk = entry.arg(0);
    if !socket::accept_queue_is_full(sk)?
        || packet::ethernet_protocol(entry.arg(1))? != protocol
        || !attempt::is_armed()
    {
        return Ok(());
    }
    node::one(&socket::local(sk, NodeEvent::HandshakeRefused)?);
    Ok(())
}
