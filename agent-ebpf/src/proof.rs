//! Proves the layout on every SYN, before anything is counted from it.
//!
//! An entry that IPVS returns for a packet carries that packet's addresses and ports, and its real
//! server names the virtual address the packet was sent to. A layout that reads anything else is
//! wrong for this kernel, however plausible its numbers look: counting stops at once.

use agent_common::stat::Stat;

use crate::{
    attempt,
    ipvs::Target,
    packet::{self, Syn, TCP},
    read::{Probe, field, offset},
};

/// Checks an entry against the packet it was returned for.
///
/// # Errors
/// [`Stat::LayoutContradicted`], after which no program counts any more.
#[inline(always)]
pub fn check(conn: u64, skb: u64, syn: &Syn, target: &Target) -> Probe<()> {
    if entry_agrees(conn, syn)? && service_agrees(syn, target) && netns_agrees(skb, syn)? {
        return Ok(());
    }
    attempt::disarm();
    Err(Stat::LayoutContradicted)
}

#[inline(always)]
fn entry_agrees(conn: u64, syn: &Syn) -> Probe<bool> {
    let client_port = u16::from_be(field(conn, offset!(conn_cport))?);
    let virtual_port = u16::from_be(field(conn, offset!(conn_vport))?);
    let protocol: u16 = field(conn, offset!(conn_protocol))?;
    // FTP expects a data connection before it knows the client's port.
    let ports = (client_port == syn.tuple.client_port || client_port == 0)
        && virtual_port == syn.tuple.dest_port
        && protocol == u16::from(TCP);
    let family = syn.tuple.family;
    Ok(ports
        && packet::address(conn, offset!(conn_caddr), family)? == syn.tuple.client_addr
        && packet::address(conn, offset!(conn_vaddr), family)? == syn.tuple.dest_addr)
}

/// An address service is the one the packet was sent to; a firewall mark has no address.
#[inline(always)]
fn service_agrees(syn: &Syn, target: &Target) -> bool {
    target.service.fwmark != 0 || target.service.addr == syn.tuple.dest_addr
}

/// The namespace of IPVS is that of the device the packet is on, where it is on one.
#[inline(always)]
fn netns_agrees(skb: u64, syn: &Syn) -> Probe<bool> {
    let of_device = packet::netns(skb)?;
    Ok(of_device == 0 || of_device == syn.tuple.netns)
}
