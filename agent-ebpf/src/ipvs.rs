//! Views of IPVS's structures: connection entry, real server (`ip_vs_dest`), service.

use agent_common::{
    attempt::EntryTarget,
    key::{RealServerKey, ServiceKey, TupleKey},
    layout::ABSENT,
    stat::Stat,
};

use crate::{
    packet,
    read::{Load, Probe, field, offset},
};

/// Bit 0 of `ip_vs_dest.flags`, or of `cflags` where it exists: the real server is part of its
/// service (`IP_VS_DEST_F_AVAILABLE`, `include/net/ip_vs.h`).
const AVAILABLE: u64 = 1;

/// Where an entry or the scheduler sends a connection.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Target {
    /// Service the real server belongs to.
    pub service: ServiceKey,
    /// The real server.
    pub real_server: RealServerKey,
    /// Address of the entry (`struct ip_vs_conn *`); 0 without one.
    pub conn: u64,
    /// Weight of the real server now.
    pub weight: i32,
    /// IPVS state of the entry (`IP_VS_TCP_S_*`).
    pub state: u8,
    /// 1: the real server was removed from its service.
    pub removed: u8,
    /// 1: the entry belongs to a persistence template.
    pub controlled: u8,
    /// 1: the entry is bound to a real server; 0: it names an address only.
    pub bound: u8,
}

impl Target {
    /// Nothing known.
    pub const NONE: Self = Self::nowhere(ServiceKey::NONE);

    /// A service without a real server to send to.
    #[inline(always)]
    pub const fn nowhere(service: ServiceKey) -> Self {
        Self {
            service,
            real_server: RealServerKey::NONE,
            conn: 0,
            weight: 0,
            state: 0,
            removed: 0,
            controlled: 0,
            bound: 0,
        }
    }

    /// What a decision depends on.
    #[inline(always)]
    pub const fn entry(&self) -> EntryTarget {
        EntryTarget {
            weight: self.weight,
            removed: self.removed != 0,
            controlled: self.controlled != 0,
        }
    }

    /// Whether no new connection should go there.
    #[inline(always)]
    pub const fn is_stale(&self) -> bool {
        self.entry().is_stale()
    }
}

/// Inode number of the network namespace of an IPVS instance (`struct netns_ipvs *`).
#[inline(always)]
pub fn netns(ipvs: u64) -> Probe<u32> {
    let net: u64 = field(ipvs, offset!(ipvs_net))?;
    field(net, offset!(net_inum))
}

/// Where the entry `conn` sends its packets.
#[inline(always)]
pub fn target(conn: u64, family: u8, netns: u32) -> Probe<Target> {
    let dest: u64 = field(conn, offset!(conn_dest))?;
    let control: u64 = field(conn, offset!(conn_control))?;
    let mut target = if dest == 0 {
        unbound(conn, family, netns)?
    } else {
        bound(dest, family, netns)?
    };
    target.conn = conn;
    target.state = state(conn)?;
    target.controlled = u8::from(control != 0);
    Ok(target)
}

/// State of an entry.
#[inline(always)]
pub fn state(conn: u64) -> Probe<u8> {
    let state: u16 = field(conn, offset!(conn_state))?;
    Ok(u8::try_from(state).unwrap_or(u8::MAX))
}

/// Whether the entry at `conn` carries exactly these addresses; memory that was freed and used
/// again does not.
#[inline(always)]
pub fn is_entry_of(conn: u64, tuple: &TupleKey) -> Probe<bool> {
    let client_port = u16::from_be(field(conn, offset!(conn_cport))?);
    let virtual_port = u16::from_be(field(conn, offset!(conn_vport))?);
    let protocol: u16 = field(conn, offset!(conn_protocol))?;
    Ok(client_port == tuple.client_port
        && virtual_port == tuple.dest_port
        && protocol == u16::from(tuple.proto)
        && packet::address(conn, offset!(conn_caddr), tuple.family)? == tuple.client_addr
        && packet::address(conn, offset!(conn_vaddr), tuple.family)? == tuple.dest_addr)
}

/// Whether the real server of an entry takes no new connections: the cheapest look there is, for
/// every datagram. An entry without a real server says nothing of the kind.
#[inline(always)]
pub fn leads_nowhere(load: &impl Load, conn: u64) -> Probe<bool> {
    let dest: u64 = load.load(conn, offset!(conn_dest))?;
    if dest == 0 {
        return Ok(false);
    }
    let weight: i32 = load.load(dest, offset!(dest_weight))?;
    if weight <= 0 {
        return Ok(true);
    }
    let cflags = offset!(dest_cflags);
    let flags = if cflags == ABSENT {
        u64::from(load.load::<u32>(dest, offset!(dest_flags))?)
    } else {
        load.load::<u64>(dest, cflags)?
    };
    Ok(flags & AVAILABLE == 0)
}

/// The real server an entry is bound to names its own service, also after its removal.
#[inline(always)]
fn bound(dest: u64, family: u8, netns: u32) -> Probe<Target> {
    let fwmark: u32 = field(dest, offset!(dest_vfwmark))?;
    let mut service = ServiceKey {
        addr: [0; 16],
        fwmark,
        netns,
        port: 0,
        family,
        proto: 0,
    };
    if fwmark == 0 {
        service.addr = packet::address(dest, offset!(dest_vaddr), family)?;
        let protocol: u16 = field(dest, offset!(dest_protocol))?;
        service.port = u16::from_be(field(dest, offset!(dest_vport))?);
        service.proto = u8::try_from(protocol).unwrap_or(u8::MAX);
    }
    Ok(Target {
        service,
        real_server: real_server(dest)?,
        conn: 0,
        weight: field(dest, offset!(dest_weight))?,
        state: 0,
        removed: u8::from(!available(dest)?),
        controlled: 0,
        bound: 1,
    })
}

/// An entry without a real server (synchronised from a peer, or bypass): its own addresses are
/// all there is, and nothing says it is stale.
#[inline(always)]
fn unbound(conn: u64, family: u8, netns: u32) -> Probe<Target> {
    let vport: u16 = field(conn, offset!(conn_vport))?;
    let dport: u16 = field(conn, offset!(conn_dport))?;
    let protocol: u16 = field(conn, offset!(conn_protocol))?;
    Ok(Target {
        service: ServiceKey {
            addr: packet::address(conn, offset!(conn_vaddr), family)?,
            fwmark: 0,
            netns,
            port: u16::from_be(vport),
            family,
            proto: u8::try_from(protocol).unwrap_or(u8::MAX),
        },
        real_server: RealServerKey {
            addr: packet::address(conn, offset!(conn_daddr), family)?,
            port: u16::from_be(dport),
            family,
            pad: 0,
        },
        conn: 0,
        weight: 1,
        state: 0,
        removed: 0,
        controlled: 0,
        bound: 0,
    })
}

/// A service by its own structure (`struct ip_vs_service *`).
#[inline(always)]
pub fn service(svc: u64, netns: u32) -> Probe<ServiceKey> {
    let af: u16 = field(svc, offset!(svc_af))?;
    let family = packet::family(u64::from(af));
    let fwmark: u32 = field(svc, offset!(svc_fwmark))?;
    if fwmark != 0 {
        return Ok(ServiceKey {
            addr: [0; 16],
            fwmark,
            netns,
            port: 0,
            family,
            proto: 0,
        });
    }
    let port: u16 = field(svc, offset!(svc_port))?;
    let protocol: u16 = field(svc, offset!(svc_protocol))?;
    Ok(ServiceKey {
        addr: packet::address(svc, offset!(svc_addr), family)?,
        fwmark,
        netns,
        port: u16::from_be(port),
        family,
        proto: u8::try_from(protocol).unwrap_or(u8::MAX),
    })
}

/// A real server as it is configured.
pub struct Member {
    /// Its service.
    pub service: ServiceKey,
    /// The real server.
    pub real_server: RealServerKey,
    /// Its weight now.
    pub weight: i32,
}

/// What is configured in a `struct ip_vs_dest *`, once it agrees with its service
/// (`struct ip_vs_service *`): the real server names the service's address, port and mark too.
///
/// # Errors
/// [`Stat::LayoutContradicted`] when they differ.
#[inline(always)]
pub fn member(svc: u64, dest: u64) -> Probe<Member> {
    let ipvs: u64 = field(svc, offset!(svc_ipvs))?;
    let mut service = service(svc, netns(ipvs)?)?;
    let fwmark: u32 = field(dest, offset!(dest_vfwmark))?;
    let mut agrees = fwmark == service.fwmark;
    if fwmark == 0 {
        let protocol: u16 = field(dest, offset!(dest_protocol))?;
        let of_service: u16 = field(svc, offset!(svc_protocol))?;
        let port = u16::from_be(field(dest, offset!(dest_vport))?);
        let addr = packet::address(dest, offset!(dest_vaddr), service.family)?;
        agrees &= protocol == of_service && port == service.port && addr == service.addr;
        service.proto = u8::try_from(protocol).unwrap_or(u8::MAX);
    }
    if !agrees {
        return Err(Stat::LayoutContradicted);
    }
    Ok(Member {
        service,
        real_server: real_server(dest)?,
        weight: field(dest, offset!(dest_weight))?,
    })
}

#[inline(always)]
fn real_server(dest: u64) -> Probe<RealServerKey> {
    let af: u16 = field(dest, offset!(dest_af))?;
    let family = packet::family(u64::from(af));
    let port: u16 = field(dest, offset!(dest_port))?;
    Ok(RealServerKey {
        addr: packet::address(dest, offset!(dest_addr), family)?,
        port: u16::from_be(port),
        family,
        pad: 0,
    })
}

#[inline(always)]
fn available(dest: u64) -> Probe<bool> {
    let cflags = offset!(dest_cflags);
    let flags = if cflags == ABSENT {
        u64::from(field::<u32>(dest, offset!(dest_flags))?)
    } else {
        field::<u64>(dest, cflags)?
    };
    Ok(flags & AVAILABLE != 0)
}
