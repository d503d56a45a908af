//! A client has used up its source ports: connecting fails before a packet leaves. And a listener
//! has a port that a client may be given.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::socket::SockProtocol;

use super::{LISTENER, director_up};
use crate::agent::{self, Agent};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::listener::Listener;
use crate::paths::{self, CLIENT_GATEWAY_V6, CLIENT_V6};
use crate::socket::Client;
use crate::topology::{CLIENT, CLIENT_NETNS};
use crate::{netns, sysctl};

/// The client's source ports, all there are.
const RANGE: &str = "50000 50003";
/// One of them, which the client chooses itself.
const CHOSEN: u16 = 50_000;
/// How many others there are.
const OTHERS: usize = 3;
/// Connects that find none left.
pub(in crate::scenarios) const IN_VAIN: usize = 5;
/// A port of the director's own range.
const IN_RANGE: u16 = 40_000;
/// Room for all of them at the listener.
pub(in crate::scenarios) const BACKLOG: i32 = 16;
/// Time for a handshake under emulation.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// `EADDRNOTAVAIL`.
const NOT_AVAILABLE: i32 = 99;

/// IPv4.
pub fn run(_lab: &mut Lab) -> Result<()> {
    play(LISTENER.into(), SocketAddr::new(CLIENT.into(), 0))
}

/// IPv6.
pub fn run_v6(lab: &mut Lab) -> Result<()> {
    paths::add_ipv6(&mut lab.topology)?;
    play(
        SocketAddr::new(CLIENT_GATEWAY_V6.into(), LISTENER.port()),
        SocketAddr::new(CLIENT_V6.into(), 0),
    )
}

fn play(target: SocketAddr, client: SocketAddr) -> Result<()> {
    director_up()?;
    let listener = Listener::start(target, BACKLOG)?;
    let in_range = Listener::start(SocketAddr::new(target.ip(), IN_RANGE), BACKLOG)?;
    let agent = Agent::start()?;
    exhaust(CLIENT_NETNS, client, listener.address)?;
    agent.expect(&Expected::none().connect_failures(target, "source_ports_exhausted", IN_VAIN))?;
    let found = agent
        .scrape()?
        .count("ipvs_lens_listeners_in_port_range", &[])?;
    ensure!(
        found == 1,
        "{found} listeners in the range of ports, want 1"
    );
    agent.terminate()?;
    let failed = format!("connect to {target} failed ");
    agent::ensure_logged(&failed, "source_ports_exhausted", IN_VAIN)?;
    let in_range = format!(
        "listener {} listens on a port inside ip_local_port_range",
        in_range.address
    );
    let log = std::fs::read_to_string(agent::LOG)?;
    let logged = log.matches(&in_range).count();
    ensure!(
        logged == 1,
        "the log reports {in_range:?} {logged} times, want once:\n{log}"
    );
    Ok(())
}

/// Uses up the source ports of a namespace towards a listener, and finds none [`IN_VAIN`] times.
pub(in crate::scenarios) fn exhaust(
    netns: &str,
    client: SocketAddr,
    target: SocketAddr,
) -> Result<()> {
    netns::within(Some(netns), || {
        sysctl::write("net/ipv4/ip_local_port_range", RANGE)?;
        let chosen = SocketAddr::new(client.ip(), CHOSEN);
        let first = connect_from(chosen, target)?;
        ensure!(first.is_ok(), "connecting from {chosen} failed: {first:?}");
        let open = use_every_port(target)?;
        for _ in 0..IN_VAIN {
            fails(TcpStream::connect_timeout(&target, CONNECT_LIMIT))?;
        }
        // A port the client chose itself is taken; that says nothing about the others.
        let errno = connect_from(chosen, target)?.err();
        ensure!(
            errno == Some(NOT_AVAILABLE),
            "a connect from a port in use ended with errno {errno:?}, want {NOT_AVAILABLE}"
        );
        drop((first, open));
        Ok(())
    })
}

/// A connection from a chosen port, or the number of its error.
fn connect_from(source: SocketAddr, target: SocketAddr) -> Result<Result<TcpStream, i32>> {
    let client = Client::bind(source, SockProtocol::Tcp)?;
    let connected = client.connect(target, CONNECT_LIMIT).stream;
    Ok(connected.map_err(|failure| failure.errno))
}

fn use_every_port(target: SocketAddr) -> Result<Vec<TcpStream>> {
    let open: std::io::Result<Vec<_>> = (0..OTHERS)
        .map(|_| TcpStream::connect_timeout(&target, CONNECT_LIMIT))
        .collect();
    Ok(open?)
}

fn fails(connected: std::io::Result<TcpStream>) -> Result<()> {
    let errno = connected.err().and_then(|error| error.raw_os_error());
    ensure!(
        errno == Some(NOT_AVAILABLE),
        "connecting ended with errno {errno:?}, want {NOT_AVAILABLE}"
    );
    Ok(())
}
