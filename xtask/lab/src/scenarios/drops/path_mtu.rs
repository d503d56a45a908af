//! Packets too big for their way: told by the director, and by somebody behind it.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::agent::Agent;
use crate::director::{self, Transport};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::service::{Key, ORDINARY, Service};
use crate::topology::{CLIENT, CLIENT_NETNS, RS1, VIP};
use crate::{command, netns, netstat, sysctl, wait};

/// Bytes of a datagram that fits an ordinary cable and not a small one.
const BIG_BYTES: usize = 1_400;
/// What a small cable takes.
const SMALL_MTU: u16 = 1_280;
/// What it takes otherwise.
const ORDINARY_MTU: u16 = 1_500;
/// A network behind the first real server.
const BEHIND: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 9);
/// A port nobody needs to listen on.
const PORT: u16 = 9_999;
/// Until an ICMP error has come.
const ERROR_LIMIT: Duration = Duration::from_secs(5);

/// The director sends ICMP about a forwarded packet, and about one IPVS sends on; it passes on
/// what a router behind it sends.
pub fn told(_lab: &mut Lab) -> Result<()> {
    director::load(&[])?;
    director::add_service(Transport::Udp, &[RS1])?;
    route_behind_rs1()?;
    let agent = Agent::start()?;
    set_mtu(None, &RS1.cable(), SMALL_MTU)?;
    is_told_once(SocketAddr::new(RS1.address().ip().to_owned().into(), PORT))?;
    is_told_once(VIP.into())?;
    set_mtu(None, &RS1.cable(), ORDINARY_MTU)?;
    // Here the real server's own namespace sends the error, and it is on this kernel too.
    is_told_once(SocketAddr::new(BEHIND.into(), PORT))?;
    let service = Service {
        key: Key::Udp(VIP.into()),
        ..ORDINARY
    };
    agent.expect(
        &Expected::of(service)
            .decision("scheduled", 1)
            .path_mtu("frag_needed_sent", 3)
            .path_mtu("frag_needed_received", 1),
    )?;
    agent.terminate()
}

/// The first real server can be a router to a small network.
fn route_behind_rs1() -> Result<()> {
    let network = format!(
        "link add small type dummy\n\
         link set small mtu {SMALL_MTU} up\n\
         addr add {BEHIND}/24 dev small\n\
         addr del {BEHIND}/24 dev small\n\
         route add {BEHIND}/32 dev small\n"
    );
    command::run_with_input("ip", &["-n", RS1.name, "-batch", "-"], &network)?;
    netns::within(Some(RS1.name), || sysctl::write("net/ipv4/ip_forward", "1"))?;
    let gateway = RS1.address();
    command::line(&format!("ip route add {BEHIND}/32 via {}", gateway.ip())).map(drop)
}

/// Sends one datagram, which the client's kernel forbids to be cut, and waits for the error.
fn is_told_once(target: SocketAddr) -> Result<()> {
    netns::within(Some(CLIENT_NETNS), || {
        let before = netstat::icmp_in_unreachable()?;
        let client = UdpSocket::bind(SocketAddr::new(CLIENT.into(), 0))?;
        client.send_to(&[0; BIG_BYTES], target)?;
        wait::until("the ICMP error", ERROR_LIMIT, || {
            let told = netstat::icmp_in_unreachable()? - before;
            ensure!(told == 1, "{told} errors about {target}, want 1");
            Ok(())
        })
    })
}

fn set_mtu(netns: Option<&str>, device: &str, mtu: u16) -> Result<()> {
    let netns = netns.map_or_else(String::new, |name| format!("-n {name} "));
    command::line(&format!("ip {netns}link set {device} mtu {mtu}")).map(drop)
}
