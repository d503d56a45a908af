//! Packets that exceed the path MTU: the ICMP error comes from the director, from a router behind
//! it, or from no host at all.

use std::io::Write as _;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::SockProtocol;

use crate::agent::{self, Agent};
use crate::director::{self, Transport};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::service::{Key, ORDINARY, Service};
use crate::socket::{self, Client};
use crate::topology::{CLIENT, CLIENT_NETNS, RS1, VIP};
use crate::{command, netns, netstat, sysctl, wait};

/// Bytes of a datagram that fits an ordinary cable and not a small one.
const BIG_BYTES: usize = 1_400;
/// Bytes of a full segment on an ordinary cable: 1,500 less the headers and the timestamps.
const SEGMENT_BYTES: usize = 1_448;
/// What a small cable takes.
const SMALL_MTU: u16 = 1_280;
/// What it takes otherwise.
const ORDINARY_MTU: u16 = 1_500;
/// A network behind the first real server.
const BEHIND: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 9);
/// A port that needs no listener.
const PORT: u16 = 9_999;
/// Until an ICMP error has come.
const ERROR_LIMIT: Duration = Duration::from_secs(5);
/// Until a segment was sent three times in vain.
const BLACK_HOLE_LIMIT: Duration = Duration::from_secs(20);
/// Source port of the connection through the black hole.
const CLIENT_PORT: u16 = 43_000;

/// The director sends ICMP about a forwarded packet, and about one IPVS sends on; it passes on
/// what a router behind it sends.
pub fn icmp_errors(_lab: &mut Lab) -> Result<()> {
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
    agent.terminate()?;
    let what = "path MTU exceeded: ";
    agent::ensure_logged(what, "frag_needed_sent", 3)?;
    let received = format!("latest destination {BEHIND}: frag_needed_received");
    agent::ensure_logged(what, &received, 1)
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
            let errors = netstat::icmp_in_unreachable()? - before;
            ensure!(errors == 1, "{errors} errors about {target}, want 1");
            Ok(())
        })
    })
}

/// A real server's cable became small after the handshake, and no ICMP error is sent.
pub fn black_hole(_lab: &mut Lab) -> Result<()> {
    director::load(&[])?;
    director::add_service(Transport::Tcp, &[RS1])?;
    let agent = Agent::start()?;
    let stream = netns::within(Some(CLIENT_NETNS), || {
        let source = SocketAddr::new(CLIENT.into(), CLIENT_PORT);
        let client = Client::bind(source, SockProtocol::Tcp)?;
        let mut stream = client.connect(VIP.into(), ERROR_LIMIT).stream?;
        socket::read_name(&mut stream, ERROR_LIMIT)?;
        set_mtu(Some(RS1.name), "eth0", SMALL_MTU)?;
        stream.write_all(&[0; SEGMENT_BYTES]).context("send")?;
        Ok(stream)
    })?;
    let expected = Expected::none()
        .decision("scheduled", 1)
        .path_mtu("black_hole_suspected", 1);
    wait::until("the suspicion", BLACK_HOLE_LIMIT, || {
        expected.check(&agent.scrape()?)
    })?;
    // The end of the stream is small and gets through: its acknowledgement makes the kernel send
    // the big segment again, before the next timeout.
    stream.shutdown(Shutdown::Write)?;
    agent.expect(&expected)?;
    set_mtu(Some(RS1.name), "eth0", ORDINARY_MTU)?;
    drop(stream);
    agent.terminate()?;
    agent::ensure_logged("path MTU exceeded: ", "black_hole_suspected", 1)
}

fn set_mtu(netns: Option<&str>, device: &str, mtu: u16) -> Result<()> {
    let netns = netns.map_or_else(String::new, |name| format!("-n {name} "));
    command::line(&format!("ip {netns}link set {device} mtu {mtu}")).map(drop)
}
