//! What some ways of forwarding need of the network: IPv6, and real servers that own the VIP.
//!
//! Added to the plain network by the scenarios that need it, and gone with it.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::Result;

use crate::lab::Lab;
use crate::service::Forwarding;
use crate::topology::{CLIENT_NETNS, REAL_SERVERS, RealServer, Topology, VIP, VIP_DEVICE};
use crate::{command, netns, sysctl, traffic};

/// Client's IPv6 address.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
/// The director's IPv6 address towards the client.
pub const CLIENT_GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
/// The IPv6 address of the service.
pub const VIP_V6: Ipv6Addr = Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 0x10);

/// Port of the connections that try the network out.
const TRIAL_PORT: u16 = 39_000;

/// Gives every host an IPv6 address as well, lets the servers listen there, and returns once the
/// client reaches them: a kernel may lose packets while its addresses settle.
///
/// # Errors
/// A command failed, or a server cannot be reached.
pub fn add_ipv6(topology: &mut Topology) -> Result<()> {
    // `nodad`: an address must be usable at once.
    let mut director = format!(
        "addr add {VIP_V6}/128 dev {VIP_DEVICE} nodad\n\
         addr add {CLIENT_GATEWAY_V6}/64 dev to-{CLIENT_NETNS} nodad\n"
    );
    for rs in REAL_SERVERS {
        let (gateway, cable) = (rs.gateway_v6(), rs.cable());
        let _ = writeln!(director, "addr add {gateway}/64 dev {cable} nodad");
    }
    command::run_with_input("ip", &["-batch", "-"], &director)?;
    sysctl::write("net/ipv6/conf/all/forwarding", "1")?;
    configure_v6(CLIENT_NETNS, CLIENT_V6.into(), CLIENT_GATEWAY_V6)?;
    for rs in REAL_SERVERS {
        configure_v6(rs.name, rs.address_v6().ip(), rs.gateway_v6())?;
        topology.serve(rs, rs.address_v6())?;
    }
    for rs in REAL_SERVERS {
        let mut trial = Lab::plan(vec![TRIAL_PORT]);
        trial.source = CLIENT_V6.into();
        trial.target = rs.address_v6();
        traffic::run(Some(CLIENT_NETNS), &trial)?.ensure_all_answered()?;
    }
    Ok(())
}

fn configure_v6(netns: &str, address: IpAddr, gateway: Ipv6Addr) -> Result<()> {
    let batch = format!(
        "addr add {address}/64 dev eth0 nodad\n\
         route add default via {gateway} dev eth0\n"
    );
    command::run_with_input("ip", &["-6", "-n", netns, "-batch", "-"], &batch).map(drop)
}

/// Gives every real server the IPv6 VIP, on a device that unwraps IPv6 from packets of IPv4, and
/// lets it listen there; [`add_ipv6`] comes first, for the way back.
///
/// # Errors
/// A command failed, or this kernel has no such tunnel.
pub fn share_vip_v6(topology: &mut Topology, port: u16) -> Result<()> {
    // With the module every namespace gets a `sit0`, which unwraps what comes.
    command::line("modprobe sit")?;
    for rs in REAL_SERVERS {
        let batch = format!("addr add {VIP_V6}/128 dev sit0 nodad\nlink set sit0 up\n");
        command::run_with_input("ip", &["-n", rs.name, "-batch", "-"], &batch)?;
        topology.serve(rs, SocketAddr::new(VIP_V6.into(), port))?;
    }
    Ok(())
}

/// Gives every real server the VIP, on a device that does not announce it, and lets it
/// listen there: it answers the client itself.
///
/// # Errors
/// A command failed, or this kernel has no IPIP tunnel.
pub fn share_vip(topology: &mut Topology, forwarding: Forwarding) -> Result<()> {
    let device = match forwarding {
        Forwarding::Tunnel | Forwarding::TunnelToV4 => {
            // With the module every namespace gets a `tunl0`, which unwraps what comes.
            command::line("modprobe ipip")?;
            "tunl0"
        }
        Forwarding::DirectRouting | Forwarding::Nat => "lo",
    };
    for rs in REAL_SERVERS {
        let batch = format!(
            "addr add {}/32 dev {device}\nlink set {device} up\n",
            VIP.ip()
        );
        command::run_with_input("ip", &["-n", rs.name, "-batch", "-"], &batch)?;
        netns::within(Some(rs.name), || {
            sysctl::write("net/ipv4/conf/all/arp_ignore", "1")?;
            sysctl::write("net/ipv4/conf/all/arp_announce", "2")
        })?;
        topology.serve(rs, SocketAddr::V4(VIP))?;
        let_through(rs)?;
    }
    Ok(())
}

/// The answers come back through the director, from an address that is its own too.
fn let_through(rs: RealServer) -> Result<()> {
    sysctl::write(&format!("net/ipv4/conf/{}/accept_local", rs.cable()), "1")
}

/// Something wrong on the way to one real server.
#[derive(Debug)]
#[must_use = "it stays until it is removed or the network is"]
pub struct Obstacle {
    netns: Option<&'static str>,
    remove: String,
}

impl Obstacle {
    /// Clears the way.
    ///
    /// # Errors
    /// The command failed.
    pub fn remove(self) -> Result<()> {
        netns::within(self.netns, || command::line(&self.remove).map(drop))
    }
}

/// Packets to a real server vanish behind the director without a word.
///
/// # Errors
/// The command failed.
pub fn swallow(rs: RealServer) -> Result<Obstacle> {
    // A dummy device takes every packet and sends none.
    let route = format!("{}/32 dev {VIP_DEVICE}", rs.address().ip());
    command::line(&format!("ip route add {route}"))?;
    Ok(Obstacle {
        netns: None,
        remove: format!("ip route del {route}"),
    })
}

/// A real server's host answers every SYN with "host unreachable".
///
/// # Errors
/// The command failed.
pub fn reject_by_icmp(rs: RealServer) -> Result<Obstacle> {
    let rule = format!(
        "INPUT -p tcp --dport {} -j REJECT --reject-with icmp-host-unreachable",
        rs.address().port()
    );
    netns::within(Some(rs.name), || {
        command::line(&format!("iptables -A {rule}")).map(drop)
    })?;
    Ok(Obstacle {
        netns: Some(rs.name),
        remove: format!("iptables -D {rule}"),
    })
}
