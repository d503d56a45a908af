//! The IPVS table: what services and real servers there are, and what becomes of them.
//!
//! PURE. Bytes of generic netlink become an immutable [`Snapshot`]; two of them become changes.
//! The socket is `source::table`'s business, and so is the clock.
//!
//! Nothing here rests on IPVS's statistics (operators switch their estimation off), and nothing
//! walks the connection hash: `active` and `inactive` are counters the kernel keeps anyway.

pub mod changes;
pub mod draining;
mod error;
pub mod given;
pub mod listings;
pub mod near;
pub mod pace;
mod request;
pub mod skew;
#[cfg(test)]
mod tests;
mod uapi;

pub mod tables;
pub mod wire;

use std::fmt;
use std::time::Duration;

pub use error::TableError;

use crate::clock::MonoNs;
use crate::event::{NetnsId, RealServer, Service};

/// Everything IPVS had in one network namespace at one time.
///
/// The kernel hands the table out in pieces: a change in mid-reading may show a service without
/// its newest real server, or miss one service once. Nothing is concluded from one absence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// When the reading was complete.
    pub taken_at: MonoNs,
    /// How long it took.
    pub took: Duration,
    /// Where.
    pub netns: NetnsId,
    /// Every service, in order.
    pub services: Vec<ServiceRow>,
}

impl Snapshot {
    /// A snapshot with its services in order.
    #[must_use]
    pub fn new(
        taken_at: MonoNs,
        took: Duration,
        netns: NetnsId,
        mut services: Vec<ServiceRow>,
    ) -> Self {
        services.sort_unstable_by_key(|row| row.service);
        services.dedup_by_key(|row| row.service);
        services.shrink_to_fit();
        Self {
            taken_at,
            took,
            netns,
            services,
        }
    }

    /// The row of a service.
    #[must_use]
    pub fn service(&self, service: &Service) -> Option<&ServiceRow> {
        let index = self
            .services
            .binary_search_by_key(service, |row| row.service);
        index.ok().and_then(|index| self.services.get(index))
    }

    /// The row of a real server.
    #[must_use]
    pub fn real_server(&self, service: &Service, server: &RealServer) -> Option<&RealServerRow> {
        self.service(service)?.real_server(server)
    }

    /// Every real server with its service.
    pub fn real_servers(&self) -> impl Iterator<Item = (&ServiceRow, &RealServerRow)> {
        self.services
            .iter()
            .flat_map(|service| service.real_servers.iter().map(move |row| (service, row)))
    }
}

/// A virtual service as `ipvsadm -Ln` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRow {
    /// Which.
    pub service: Service,
    /// Name of the scheduler: `rr`, `wrr`, `sh`, ….
    pub scheduler: Box<str>,
    /// `IP_VS_SVC_F_*`.
    pub flags: ServiceFlags,
    /// How long a client stays with its real server; 0 when the service is not persistent.
    pub persistence: Duration,
    /// Which clients count as one: a mask of IPv4 in host order, or a prefix length of IPv6.
    pub netmask: u32,
    /// Its real servers, in order.
    pub real_servers: Vec<RealServerRow>,
}

impl ServiceRow {
    /// The row of a real server.
    #[must_use]
    pub fn real_server(&self, server: &RealServer) -> Option<&RealServerRow> {
        let index = self
            .real_servers
            .binary_search_by_key(server, |row| row.real_server);
        index.ok().and_then(|index| self.real_servers.get(index))
    }

    /// Sum of the weights of its real servers.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.real_servers
            .iter()
            .map(|row| u64::from(row.weight))
            .sum()
    }

    /// Puts its real servers in order, and keeps no more memory than they need.
    #[must_use]
    pub fn with_real_servers(mut self, mut rows: Vec<RealServerRow>) -> Self {
        rows.sort_unstable_by_key(|row| row.real_server);
        rows.dedup_by_key(|row| row.real_server);
        rows.shrink_to_fit();
        self.real_servers = rows;
        self
    }
}

/// `IP_VS_SVC_F_*` (`include/uapi/linux/ip_vs.h`); unknown bits are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceFlags(pub u32);

impl ServiceFlags {
    /// `IP_VS_SVC_F_PERSISTENT`.
    const PERSISTENT: u32 = 1;
    /// `IP_VS_SVC_F_ONEPACKET`.
    const ONE_PACKET: u32 = 4;

    /// Whether a client stays with its real server (`ipvsadm -p`).
    #[must_use]
    pub const fn is_persistent(self) -> bool {
        self.0 & Self::PERSISTENT != 0
    }

    /// Whether every datagram is scheduled for itself (`ipvsadm -o`).
    #[must_use]
    pub const fn is_one_packet(self) -> bool {
        self.0 & Self::ONE_PACKET != 0
    }
}

/// How packets get to a real server (`IP_VS_CONN_F_FWD_MASK`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// Addresses and port are rewritten (`ipvsadm -m`).
    Masquerade,
    /// The real server is this node.
    Local,
    /// The packet is wrapped in another (`ipvsadm -i`).
    Tunnel,
    /// Only the Ethernet address changes (`ipvsadm -g`).
    DirectRouting,
    /// To its original destination, past IPVS.
    Bypass,
}

impl Forwarding {
    /// Every member with the kernel's number.
    pub const ALL: &'static [(Self, u32)] = &[
        (Self::Masquerade, 0),
        (Self::Local, 1),
        (Self::Tunnel, 2),
        (Self::DirectRouting, 3),
        (Self::Bypass, 4),
    ];

    /// The word, as `ipvsadm -Ln` has it, in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Masquerade => "masq",
            Self::Local => "local",
            Self::Tunnel => "tunnel",
            Self::DirectRouting => "route",
            Self::Bypass => "bypass",
        }
    }
}

impl fmt::Display for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

crate::words::json!(Forwarding: Self::ALL.iter().map(|(member, _)| member.as_str()));

/// A real server as `ipvsadm -Ln` lists it under its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealServerRow {
    /// Which; of a family of its own when tunnelled.
    pub real_server: RealServer,
    /// How packets get there.
    pub forwarding: Forwarding,
    /// Share of new connections; 0: it gets none.
    pub weight: u32,
    /// Entries in state ESTABLISHED (TCP), or of protocols with such a state.
    pub active: u32,
    /// All other entries: TIME_WAIT and its like, and every entry of UDP.
    pub inactive: u32,
    /// Persistence templates.
    pub persistent: u32,
    /// Connections above which it gets no new ones; 0: no limit.
    pub upper_threshold: u32,
    /// Connections below which it gets new ones again; 0: three quarters of the upper limit.
    pub lower_threshold: u32,
}

impl RealServerRow {
    /// Whether it is listed but gets no new connections from the scheduler.
    #[must_use]
    pub const fn is_draining(&self) -> bool {
        self.weight == 0
    }

    /// Entries of connections, whatever their state.
    #[must_use]
    pub const fn connections(&self) -> u64 {
        self.active as u64 + self.inactive as u64
    }
}
