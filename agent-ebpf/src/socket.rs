//! Views of the kernel's sockets (`struct sock`, include/net/sock.h).

use agent_common::{
    key::FAMILY_IPV4,
    node::{NodeCountKey, NodeEvent},
};

use crate::{
    packet,
    read::{Probe, field, offset},
};

/// The namespace of a socket (`struct net *`).
#[inline(always)]
pub fn net(sk: u64) -> Probe<u64> {
    field(sk, offset!(sock_net))
}

/// Inode number of a socket's network namespace.
#[inline(always)]
pub fn netns(sk: u64) -> Probe<u32> {
    field(net(sk)?, offset!(net_inum))
}

/// The counter of an event at a socket, by its own address.
#[inline(always)]
pub fn local(sk: u64, event: NodeEvent) -> Probe<NodeCountKey> {
    let family = family(sk)?;
    let addr = if family == FAMILY_IPV4 {
        packet::address(sk, offset!(sock_rcv_saddr), family)?
    } else {
        packet::address(sk, offset!(sock_v6_rcv_saddr), family)?
    };
    Ok(NodeCountKey {
        addr,
        netns: netns(sk)?,
        port: field(sk, offset!(sock_num))?,
        family,
        event: event as u8,
    })
}

/// The counter of an event at a socket, by the address it talks to.
#[inline(always)]
pub fn remote(sk: u64, event: NodeEvent) -> Probe<NodeCountKey> {
    let family = family(sk)?;
    let addr = if family == FAMILY_IPV4 {
        packet::address(sk, offset!(sock_daddr), family)?
    } else {
        packet::address(sk, offset!(sock_v6_daddr), family)?
    };
    Ok(NodeCountKey {
        addr,
        netns: netns(sk)?,
        port: u16::from_be(field(sk, offset!(sock_dport))?),
        family,
        event: event as u8,
    })
}

#[inline(always)]
fn family(sk: u64) -> Probe<u8> {
    let family: u16 = field(sk, offset!(sock_family))?;
    Ok(packet::family(u64::from(family)))
}

/// Whether more connections wait for `accept` than a listener allows (`sk_acceptq_is_full`).
#[inline(always)]
pub fn accept_queue_is_full(sk: u64) -> Probe<bool> {
    let waiting: u32 = field(sk, offset!(sock_ack_backlog))?;
    let limit: u32 = field(sk, offset!(sock_max_ack_backlog))?;
    Ok(waiting > limit)
}

/// Half-open connections of a listener (`inet_csk_reqsk_queue_len`).
#[inline(always)]
pub fn half_open(sk: u64) -> Probe<u32> {
    field(sk, offset!(icsk_qlen))
}
