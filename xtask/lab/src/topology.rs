//! The network of the lab: one client, the director, three real servers.
//!
//! ```text
//!  netns client            root netns = director             netns rs1, rs2, rs3
//!  10.0.0.2/24 ─ veth ─ 10.0.0.1   VIP 10.96.0.10 on ipvs0
//!                                  10.1.N.1 ───── veth ───── 10.1.N.2/24
//! ```
//!
//! Real servers answer through the director (their default route), as NAT forwarding needs.
//! Knows nothing of IPVS: see [`crate::director`].

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, Result, ensure};

use crate::server::Server;
use crate::{command, netns, sysctl};

/// Virtual address, on a dummy device as kube-proxy does it.
pub const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 80);
/// The dummy device that holds [`VIP`].
const VIP_DEVICE: &str = "ipvs0";
/// Client's address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// Client's network namespace.
pub const CLIENT_NETNS: &str = "client";
/// Port the real servers listen on; differs from the service's, so that a mix-up shows.
pub const REAL_SERVER_PORT: u16 = 8_080;

/// One of the lab's real servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealServer {
    /// Its name: what it answers with, and its network namespace.
    pub name: &'static str,
    /// Third octet of its network.
    index: u8,
}

/// First real server.
pub const RS1: RealServer = RealServer {
    name: "rs1",
    index: 1,
};
/// Second real server.
pub const RS2: RealServer = RealServer {
    name: "rs2",
    index: 2,
};
/// Third real server.
pub const RS3: RealServer = RealServer {
    name: "rs3",
    index: 3,
};
/// All real servers.
pub const REAL_SERVERS: [RealServer; 3] = [RS1, RS2, RS3];

impl RealServer {
    /// Where it listens.
    pub fn address(self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(10, 1, self.index, 2), REAL_SERVER_PORT)
    }

    fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 1, self.index, 1)
    }

    /// The director's end of the cable.
    fn cable(self) -> String {
        format!("to-{}", self.name)
    }
}

/// The network with its servers running; taken down when dropped.
#[derive(Debug)]
pub struct Topology {
    servers: Vec<(RealServer, Server)>,
}

impl Topology {
    /// Builds the network and starts the servers.
    ///
    /// # Errors
    /// Something of the lab's names exists already, or a command failed.
    pub fn up() -> Result<Self> {
        build().context("build the lab's network")?;
        let mut topology = Self {
            servers: Vec::new(),
        };
        for rs in REAL_SERVERS {
            let server = Server::start(Some(rs.name), rs.name, rs.address())?;
            topology.servers.push((rs, server));
        }
        Ok(topology)
    }

    /// Removes a real server with its network: the director has no route to it any more.
    ///
    /// # Errors
    /// The command failed, or the server had failed before.
    pub fn remove_netns(&mut self, rs: RealServer) -> Result<()> {
        if let Some(at) = self.servers.iter().position(|(known, _)| *known == rs) {
            self.servers.remove(at).1.stop()?;
        }
        command::line(&format!("ip link del {}", rs.cable()))?;
        command::line(&format!("ip netns del {}", rs.name)).map(drop)
    }

    /// Stops the servers and removes the network.
    ///
    /// # Errors
    /// A server had failed, or something is left.
    pub fn down(self) -> Result<()> {
        for (rs, server) in self.servers {
            server.stop().with_context(|| format!("stop {}", rs.name))?;
        }
        remove();
        let left = left_over()?;
        ensure!(
            left.is_empty(),
            "the lab's network was removed, but {left:?} is left"
        );
        Ok(())
    }
}

/// Takes the address away from a real server; its cable stays plugged in, so that the
/// director asks for it by ARP in vain, as after a deleted pod.
///
/// # Errors
/// The command failed.
pub fn remove_address(rs: RealServer) -> Result<()> {
    let address = rs.address().ip().to_string();
    command::run(
        "ip",
        &[
            "-n",
            rs.name,
            "addr",
            "del",
            &format!("{address}/24"),
            "dev",
            "eth0",
        ],
    )?;
    // Without this the director still knows the Ethernet address for a while.
    command::line(&format!("ip neigh flush dev {}", rs.cable())).map(drop)
}

/// Removes whatever exists of the lab's network; what is missing is no error.
pub fn remove() {
    // Deleting a cable is immediate, deleting a namespace is not: cables first.
    for cable in cables() {
        let _ = command::run("ip", &["link", "del", &cable]);
    }
    for name in netns_names() {
        let _ = command::run("ip", &["netns", "del", name]);
    }
}

/// What exists of the lab's network.
///
/// # Errors
/// `ip` cannot list devices or namespaces.
pub fn left_over() -> Result<Vec<String>> {
    let devices = command::line("ip -o link show")?;
    let namespaces = command::line("ip netns list")?;
    let mut left: Vec<String> = cables()
        .filter(|name| devices.contains(&format!(": {name}")))
        .collect();
    let named = |name: &&str| {
        namespaces
            .lines()
            .any(|line| line.split(' ').next() == Some(*name))
    };
    left.extend(
        netns_names()
            .filter(named)
            .map(|name| format!("netns {name}")),
    );
    Ok(left)
}

fn cables() -> impl Iterator<Item = String> {
    [VIP_DEVICE.to_owned(), format!("to-{CLIENT_NETNS}")]
        .into_iter()
        .chain(REAL_SERVERS.into_iter().map(RealServer::cable))
}

fn netns_names() -> impl Iterator<Item = &'static str> {
    std::iter::once(CLIENT_NETNS).chain(REAL_SERVERS.into_iter().map(|rs| rs.name))
}

/// One `ip -batch` per namespace: starting a program is slow under emulation.
fn build() -> Result<()> {
    let mut director = format!(
        "link add {VIP_DEVICE} type dummy\n\
         link set {VIP_DEVICE} up\n\
         addr add {}/32 dev {VIP_DEVICE}\n",
        VIP.ip()
    );
    for name in netns_names() {
        let _ = writeln!(director, "netns add {name}");
    }
    plug(&mut director, CLIENT_NETNS, Ipv4Addr::new(10, 0, 0, 1));
    for rs in REAL_SERVERS {
        plug(&mut director, rs.name, rs.gateway());
    }
    command::run_with_input("ip", &["-batch", "-"], &director)?;
    configure(CLIENT_NETNS, CLIENT, Ipv4Addr::new(10, 0, 0, 1))?;
    for rs in REAL_SERVERS {
        configure(rs.name, *rs.address().ip(), rs.gateway())?;
    }
    sysctl::write("net/ipv4/ip_forward", "1")?;
    // Every SYN that cannot be forwarded is answered: by default a client gets a burst of six
    // ICMP errors and then one per second, and the time a connect fails after would be chance.
    sysctl::write("net/ipv4/icmp_ratelimit", "0")?;
    // A client of short connections: its own TIME_WAIT would keep it from using a port again
    // at once. IPVS's entry of the same connection lives on; that is what the scenarios are about.
    netns::within(Some(CLIENT_NETNS), || {
        sysctl::write("net/ipv4/tcp_max_tw_buckets", "0")
    })
}

fn plug(batch: &mut String, netns: &str, gateway: Ipv4Addr) {
    let _ = write!(
        batch,
        "link add to-{netns} type veth peer name eth0 netns {netns}\n\
         addr add {gateway}/24 dev to-{netns}\n\
         link set to-{netns} up\n"
    );
}

fn configure(netns: &str, address: Ipv4Addr, gateway: Ipv4Addr) -> Result<()> {
    let batch = format!(
        "link set lo up\n\
         addr add {address}/24 dev eth0\n\
         link set eth0 up\n\
         route add default via {gateway}\n"
    );
    command::run_with_input("ip", &["-n", netns, "-batch", "-"], &batch).map(drop)
}
