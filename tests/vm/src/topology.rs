//! The network of the lab: one client, the director, three real servers.
//!
//! ```text
//!  netns client            root netns = director             netns rs1, rs2, rs3
//!  10.0.0.2/24 ─ veth ─ 10.0.0.1   VIP 10.96.0.10 on ipvs0
//!                                  10.1.N.1 ───── veth ───── 10.1.N.2/24
//! ```
//!
//! Real servers answer through the director (their default route), as NAT forwarding needs.
//! A second copy with the same addresses can run next to it, its director in a network namespace.
//! Knows nothing of IPVS: see [`crate::director`]; what only some forwarding needs is in
//! [`crate::paths`].

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use anyhow::{Context as _, Result, ensure};

use crate::server::Server;
use crate::{command, netns, sysctl};

/// Virtual address, on a dummy device as kube-proxy does it.
pub const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 80);
/// The dummy device that holds [`VIP`].
pub const VIP_DEVICE: &str = "ipvs0";
/// Client's address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The director's address towards the client.
pub const CLIENT_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
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

    /// Where it listens once the network speaks IPv6.
    pub fn address_v6(self) -> SocketAddr {
        SocketAddrV6::new(self.network_v6(2), REAL_SERVER_PORT, 0, 0).into()
    }

    /// Its gateway's address.
    pub fn gateway_v6(self) -> Ipv6Addr {
        self.network_v6(1)
    }

    fn network_v6(self, host: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd01, 0, 0, self.index.into(), 0, 0, 0, host)
    }

    fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 1, self.index, 1)
    }

    /// The director's end of the cable.
    pub fn cable(self) -> String {
        format!("to-{}", self.name)
    }
}

/// One of the two copies of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// Its director is the root network namespace.
    Main,
    /// Its director is a network namespace, as that of an overlay network is.
    Second,
}

impl Site {
    /// Network namespace of the director; `None` for the root namespace.
    pub const fn director(self) -> Option<&'static str> {
        match self {
            Self::Main => None,
            Self::Second => Some("director-2"),
        }
    }

    /// Network namespace of what the main site calls `name`.
    pub fn netns(self, name: &str) -> String {
        match self {
            Self::Main => name.to_owned(),
            Self::Second => format!("{name}-2"),
        }
    }

    /// All its network namespaces.
    fn netns_names(self) -> Vec<String> {
        let names = REAL_SERVERS.map(|rs| rs.name);
        let mut all: Vec<_> = std::iter::once(CLIENT_NETNS)
            .chain(names)
            .map(|name| self.netns(name))
            .collect();
        all.extend(self.director().map(str::to_owned));
        all
    }
}

/// Ports of the client's connections that choose none: scenarios choose below these.
const UNCHOSEN_PORTS: &str = "50000 60999";

/// The network with its servers running.
#[derive(Debug)]
pub struct Topology {
    site: Site,
    servers: Vec<(RealServer, Server)>,
}

impl Topology {
    /// Builds the network of `site` and starts the servers.
    ///
    /// # Errors
    /// Something of the lab's names exists already, or a command failed.
    pub fn up(site: Site) -> Result<Self> {
        build(site).with_context(|| format!("build the lab's network, {site:?}"))?;
        let mut topology = Self {
            site,
            servers: Vec::new(),
        };
        for rs in REAL_SERVERS {
            topology.serve(rs, rs.address().into())?;
        }
        Ok(topology)
    }

    /// Lets a real server listen on an address it has, in addition to the others.
    ///
    /// # Errors
    /// It does not have the address.
    pub fn serve(&mut self, rs: RealServer, address: SocketAddr) -> Result<()> {
        let netns = self.site.netns(rs.name);
        let server = Server::start(Some(&netns), rs.name, address)?;
        self.servers.push((rs, server));
        Ok(())
    }

    /// Lets a real server answer over SCTP too, where it answers over TCP.
    ///
    /// # Errors
    /// The kernel does not speak SCTP.
    pub fn serve_sctp(&mut self, rs: RealServer) -> Result<()> {
        let netns = self.site.netns(rs.name);
        let server = Server::start_sctp(Some(&netns), rs.name, rs.address().into())?;
        self.servers.push((rs, server));
        Ok(())
    }

    /// Stops what answers on a real server; its host stays, and refuses.
    ///
    /// # Errors
    /// The server had failed before.
    pub fn stop_server(&mut self, rs: RealServer) -> Result<()> {
        let (gone, kept) = std::mem::take(&mut self.servers)
            .into_iter()
            .partition(|(known, _)| *known == rs);
        self.servers = kept;
        stop_all(gone)
    }

    /// Removes a real server with its network: the director has no route to it any more.
    ///
    /// # Errors
    /// The command failed, or the server had failed before.
    pub fn remove_netns(&mut self, rs: RealServer) -> Result<()> {
        self.stop_server(rs)?;
        command::line(&format!("ip link del {}", rs.cable()))?;
        command::line(&format!("ip netns del {}", rs.name)).map(drop)
    }

    /// Stops the servers and removes the network.
    ///
    /// # Errors
    /// A server had failed, or something is left.
    pub fn down(self) -> Result<()> {
        stop_all(self.servers)?;
        remove_site(self.site);
        let left = left_over(self.site)?;
        ensure!(
            left.is_empty(),
            "the lab's network was removed, but {left:?} is left"
        );
        Ok(())
    }
}

fn stop_all(servers: Vec<(RealServer, Server)>) -> Result<()> {
    for (rs, server) in servers {
        server.stop().with_context(|| format!("stop {}", rs.name))?;
    }
    Ok(())
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

/// Removes whatever exists of the lab's networks; what is missing is no error.
pub fn remove() {
    for site in [Site::Second, Site::Main] {
        remove_site(site);
    }
}

/// One program for all of it: under emulation, starting one takes as long as what it does.
fn remove_site(site: Site) {
    // Deleting a cable is immediate, deleting a namespace is not: cables first.
    let _ = netns::within(site.director(), || {
        let cables = cables_here()?;
        let lines = cables.iter().map(|cable| format!("link del {cable}\n"));
        remove_all(&lines.collect::<String>());
        Ok(())
    });
    let lines = namespaces_of(site).map(|name| format!("netns del {name}\n"));
    remove_all(&lines.collect::<String>());
}

fn remove_all(lines: &str) {
    if !lines.is_empty() {
        let _ = command::run_with_input("ip", &["-force", "-batch", "-"], lines);
    }
}

/// What exists of a site; the devices of a director that is no more are gone with it.
fn left_over(site: Site) -> Result<Vec<String>> {
    let mut left = match site {
        Site::Main => cables_here()?,
        Site::Second => Vec::new(),
    };
    left.extend(namespaces_of(site).map(|name| format!("netns {name}")));
    Ok(left)
}

/// The lab's cables that are where the caller is.
fn cables_here() -> Result<Vec<String>> {
    let devices = netns::devices()?;
    Ok(cables().filter(|cable| devices.contains(cable)).collect())
}

/// The network namespaces of a site that there are.
fn namespaces_of(site: Site) -> impl Iterator<Item = String> {
    let names = site.netns_names().into_iter();
    names.filter(|name| netns::exists(name))
}

fn cables() -> impl Iterator<Item = String> {
    [VIP_DEVICE.to_owned(), format!("to-{CLIENT_NETNS}")]
        .into_iter()
        .chain(REAL_SERVERS.into_iter().map(RealServer::cable))
}

/// One `ip -batch` per namespace: starting a program is slow under emulation.
fn build(site: Site) -> Result<()> {
    let mut namespaces = String::new();
    for name in site.netns_names() {
        let _ = writeln!(namespaces, "netns add {name}");
    }
    command::run_with_input("ip", &["-batch", "-"], &namespaces)?;
    netns::within(site.director(), || build_director(site))?;
    let client = site.netns(CLIENT_NETNS);
    configure(&client, CLIENT, CLIENT_GATEWAY)?;
    for rs in REAL_SERVERS {
        configure(&site.netns(rs.name), *rs.address().ip(), rs.gateway())?;
    }
    netns::within(Some(&client), || {
        sysctl::write("net/ipv4/ip_local_port_range", UNCHOSEN_PORTS)?;
        forget_closed_connections()
    })
}

fn build_director(site: Site) -> Result<()> {
    let mut batch = format!(
        "link set lo up\n\
         link add {VIP_DEVICE} type dummy\n\
         link set {VIP_DEVICE} up\n\
         addr add {}/32 dev {VIP_DEVICE}\n",
        VIP.ip()
    );
    let client = format!("to-{CLIENT_NETNS}");
    plug(
        &mut batch,
        &client,
        &site.netns(CLIENT_NETNS),
        CLIENT_GATEWAY,
    );
    for rs in REAL_SERVERS {
        plug(&mut batch, &rs.cable(), &site.netns(rs.name), rs.gateway());
    }
    command::run_with_input("ip", &["-batch", "-"], &batch)?;
    sysctl::write("net/ipv4/ip_forward", "1")?;
    // Every SYN that cannot be forwarded is answered: by default a client gets a burst of six
    // ICMP errors and then one per second, and the time a connect fails after would be chance.
    sysctl::write("net/ipv4/icmp_ratelimit", "0")?;
    // The director can be a client too.
    forget_closed_connections()
}

/// A client of short connections: its own TIME_WAIT would keep it from using a port again at
/// once. IPVS's entry of the same connection lives on; that is what the scenarios are about.
fn forget_closed_connections() -> Result<()> {
    sysctl::write("net/ipv4/tcp_max_tw_buckets", "0")
}

fn plug(batch: &mut String, cable: &str, netns: &str, gateway: Ipv4Addr) {
    let _ = write!(
        batch,
        "link add {cable} type veth peer name eth0 netns {netns}\n\
         addr add {gateway}/24 dev {cable}\n\
         link set {cable} up\n"
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
