//! What belongs to one network namespace.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Fact, total};

/// One network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Netns {
    /// Its inode, which names it in every metric.
    pub id: u32,
    /// A file to enter it by; `None` for the namespace of the process that looked.
    pub path: Option<String>,
    /// Everything below `net.ipv4.vs`, as text.
    pub sysctls: Fact<BTreeMap<String, String>>,
    /// How long IPVS keeps entries.
    pub timeouts: Fact<Timeouts>,
    /// `net.ipv4.tcp_keepalive_time`, seconds: when a socket that asks for it probes an idle
    /// connection first.
    #[serde(default)]
    pub tcp_keepalive_seconds: Fact<u64>,
    /// The virtual services, counted.
    pub table: Fact<Table>,
    /// netfilter's connection tracking.
    pub conntrack: Conntrack,
    /// Firewall rules that matter to IPVS.
    pub rules: Fact<Rules>,
    /// Local ports.
    pub ports: Ports,
    /// Queues of listening sockets.
    pub queues: Queues,
}

/// Timeouts of IPVS in seconds, as `ipvsadm -L --timeout` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// An established TCP connection.
    pub tcp_seconds: u32,
    /// After a FIN.
    pub tcp_fin_seconds: u32,
    /// A UDP client's last datagram.
    pub udp_seconds: u32,
}

/// The service table in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Services by protocol: `TCP`, `UDP`, `SCTP`, `FWM`.
    pub services: BTreeMap<String, u64>,
    /// Services by scheduler.
    pub schedulers: BTreeMap<String, u64>,
    /// Services with persistence (`-p`).
    pub persistent: u64,
    /// UDP services with one-packet scheduling (`-o`).
    pub one_packet: u64,
    /// Real servers.
    pub real_servers: u64,
    /// Real servers of weight 0.
    pub draining: u64,
    /// Ports of services, each once; at most [`Table::PORTS_MAX`].
    pub ports: Vec<u16>,
    /// Rows that are in the table but not in these numbers: the table is larger than what is read.
    pub truncated: bool,
}

impl Table {
    /// Ports kept: a port range is judged by far fewer.
    pub const PORTS_MAX: usize = 4096;

    /// All services.
    #[must_use]
    pub fn service_count(&self) -> u64 {
        total(self.services.values().copied())
    }

    /// Services of one protocol.
    #[must_use]
    pub fn of(&self, protocol: &str) -> u64 {
        self.services.get(protocol).copied().unwrap_or(0)
    }
}

/// netfilter's connection tracking in one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Conntrack {
    /// Entries.
    pub count: Fact<u64>,
    /// Entries there may be.
    pub max: Fact<u64>,
    /// Buckets of the hash table.
    pub buckets: Fact<u64>,
    /// Entries that could not be inserted since boot.
    pub insert_failed: Fact<u64>,
    /// Packets dropped since boot because there was no room for an entry.
    pub drop: Fact<u64>,
}

/// Firewall rules, as far as they matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Rules that need connection tracking: they match its state or translate addresses.
    pub stateful: u64,
    /// Rules that hide many clients behind one address (masquerade); at most
    /// [`Rules::MASQUERADES_MAX`].
    pub masquerades: Vec<String>,
}

impl Rules {
    /// Rules kept as text; kube-proxy and Docker have a handful.
    pub const MASQUERADES_MAX: usize = 16;
}

/// From and to, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PortRange(pub u16, pub u16);

impl PortRange {
    /// Whether a port is inside.
    #[must_use]
    pub fn has(self, port: u16) -> bool {
        (self.0..=self.1).contains(&port)
    }
}

/// A listening TCP socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Where it listens.
    pub address: String,
    /// On which port.
    pub port: u16,
}

/// Local ports of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// From where `connect` takes ports (`ip_local_port_range`).
    pub range: Fact<PortRange>,
    /// Ports it leaves alone (`ip_local_reserved_ports`).
    pub reserved: Fact<Vec<PortRange>>,
    /// Listening TCP sockets; at most [`Ports::LISTENERS_MAX`].
    pub listeners: Fact<Vec<Listener>>,
}

impl Ports {
    /// Listeners kept: a busy node has hundreds.
    pub const LISTENERS_MAX: usize = 4096;
}

/// Queues of new connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Queues {
    /// Upper bound of every accept queue (`net.core.somaxconn`).
    pub somaxconn: Fact<u64>,
    /// Times an accept queue was full since boot (`ListenOverflows`).
    pub overflows: Fact<u64>,
}
