//! Proves the layout on every SYN, before anything is counted from it.
//!
//! An entry that IPVS returns for a packet carries that packet's addresses and ports; its real
//! server has the address the entry sends to and names the virtual address the packet was sent to.
//! A layout that reads anything else is wrong for this kernel, however plausible its numbers look:
//! counting stops at once.
//!
//! A packet cannot prove a weight, a flag, a state or a persistence template; those fields are
//! trusted once the fields around them are proven.

use agent_common::{key::ServiceKey, stat::Stat};

use crate::{
    attempt,
    ipvs::{self, Member, Target},
    packet::{self, Syn},
    read::{Probe, field, offset},
    transport,
};

/// Who handed out an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The table of entries: one may have come from a peer, without a real server.
    Table,
    /// The scheduler: it always chose a real server.
    Scheduler,
}

/// Where an entry leads, into `target`, once it agrees with the packet it was returned for.
///
/// # Errors
/// [`Stat::LayoutContradicted`], after which no program counts any more. An address that cannot be
/// read contradicts as well: what IPVS returns can be.
#[inline(always)]
pub fn target(conn: u64, skb: u64, syn: &Syn, origin: Origin, target: &mut Target) -> Probe<()> {
    if prove(conn, skb, syn, origin, target) == 0 {
        return contradicted();
    }
    Ok(())
}

/// 1 if the entry agrees. A function of its own, for a stack of its own.
#[inline(never)]
fn prove(conn: u64, skb: u64, syn: &Syn, origin: Origin, target: &mut Target) -> u32 {
    match agreeing(conn, skb, syn, origin) {
        Ok(Some(agreed)) => {
            *target = agreed;
            1
        }
        _ => 0,
    }
}

/// What must be readable for every SYN, because the kernel itself has just read it.
///
/// # Errors
/// As [`target`].
#[inline(always)]
pub fn readable<T>(read: Probe<T>) -> Probe<T> {
    match read {
        Ok(value) => Ok(value),
        Err(_) => contradicted(),
    }
}

/// A service that was asked for a real server for this packet is the one it was sent to.
///
/// # Errors
/// As [`target`].
#[inline(always)]
pub fn service(syn: &Syn, service: ServiceKey) -> Probe<ServiceKey> {
    let port = service.port == syn.tuple.dest_port || service.port == 0;
    let proto = service.proto == syn.tuple.proto;
    if service.fwmark != 0 || (service.addr == syn.tuple.dest_addr && port && proto) {
        return Ok(service);
    }
    contradicted()
}

/// A configured real server, once it agrees with its service.
///
/// # Errors
/// As [`target`].
#[inline(always)]
pub fn member(svc: u64, dest: u64) -> Probe<Member> {
    readable(ipvs::member(svc, dest))
}

#[inline(always)]
fn contradicted<T>() -> Probe<T> {
    attempt::disarm();
    transport::wake();
    Err(Stat::LayoutContradicted)
}

#[inline(always)]
fn agreeing(conn: u64, skb: u64, syn: &Syn, origin: Origin) -> Probe<Option<Target>> {
    let target = ipvs::target(conn, syn.tuple.family, syn.tuple.netns)?;
    let agrees = entry_agrees(conn, syn)?
        && service_agrees(syn, &target)
        && real_server_agrees(conn, &target, origin)?
        && netns_agrees(skb, syn)?;
    Ok(agrees.then_some(target))
}

/// The real server an entry is bound to has the address the entry sends to; a real server without
/// a port of its own takes the service's.
#[inline(always)]
fn real_server_agrees(conn: u64, target: &Target, origin: Origin) -> Probe<bool> {
    if target.bound == 0 {
        return Ok(matches!(origin, Origin::Table));
    }
    let real_server = &target.real_server;
    let port = u16::from_be(field(conn, offset!(conn_dport))?);
    let addr = packet::address(conn, offset!(conn_daddr), real_server.family)?;
    Ok(addr == real_server.addr && (port == real_server.port || real_server.port == 0))
}

#[inline(always)]
fn entry_agrees(conn: u64, syn: &Syn) -> Probe<bool> {
    let client_port = u16::from_be(field(conn, offset!(conn_cport))?);
    let virtual_port = u16::from_be(field(conn, offset!(conn_vport))?);
    let protocol: u16 = field(conn, offset!(conn_protocol))?;
    // FTP expects a data connection before it knows the client's port.
    let ports = (client_port == syn.tuple.client_port || client_port == 0)
        && virtual_port == syn.tuple.dest_port
        && protocol == u16::from(syn.tuple.proto);
    let family = syn.tuple.family;
    Ok(ports
        && packet::address(conn, offset!(conn_caddr), family)? == syn.tuple.client_addr
        && packet::address(conn, offset!(conn_vaddr), family)? == syn.tuple.dest_addr)
}

/// An address service is the one the packet was sent to; a firewall mark has no address, a
/// service of every port has port 0, and an entry expected by FTP leads to another port than the
/// service it belongs to.
#[inline(always)]
fn service_agrees(syn: &Syn, target: &Target) -> bool {
    let service = &target.service;
    let port = service.port == syn.tuple.dest_port || service.port == 0 || target.controlled != 0;
    let proto = service.proto == syn.tuple.proto;
    service.fwmark != 0 || (service.addr == syn.tuple.dest_addr && proto && port)
}

/// The namespace of IPVS is that of the device the packet is on, where it is on one.
#[inline(always)]
fn netns_agrees(skb: u64, syn: &Syn) -> Probe<bool> {
    let of_device = packet::netns(skb)?;
    Ok(of_device == 0 || of_device == syn.tuple.netns)
}
