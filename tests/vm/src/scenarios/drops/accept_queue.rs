//! A listener's accept queue is full: new SYNs go unanswered, and handshakes are forgotten at
//! their last packet, whose clients believe to be connected.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

use super::{LISTENER, director_up, syns_in_vain, with_parameters};
use crate::agent::{self, Agent};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::listener::{self, Listener};
use crate::paths::{self, CLIENT_GATEWAY_V6, CLIENT_V6};
use crate::topology::CLIENT_NETNS;
use crate::{command, netns, netstat, wait};

/// Limit of the listener: three connections wait, the fourth is refused.
const BACKLOG: i32 = 2;
/// Clients whose SYNs are refused.
const PORTS: std::ops::Range<u16> = 43_000..43_004;
/// The kernel's own count of what a full accept queue refused, SYN or not.
pub(in crate::scenarios) const OVERFLOWS: &str = "ListenOverflows";
/// Until the last packet of a handshake has been refused a few times.
const REFUSAL_LIMIT: Duration = Duration::from_secs(20);

/// SYNs to a full listener, IPv4.
pub fn by_syn(_lab: &mut Lab) -> Result<()> {
    syns_to(LISTENER.into())
}

/// The same over IPv6.
pub fn by_syn_v6(lab: &mut Lab) -> Result<()> {
    paths::add_ipv6(&mut lab.topology)?;
    syns_to(SocketAddr::new(CLIENT_GATEWAY_V6.into(), LISTENER.port()))
}

fn syns_to(address: SocketAddr) -> Result<()> {
    director_up()?;
    let agent = Agent::start()?;
    let before = netstat::tcp_ext(OVERFLOWS)?;
    let syns = refuse_syns(address)?;
    let by_kernel = netstat::tcp_ext(OVERFLOWS)? - before;
    ensure!(
        u64::try_from(syns)? == by_kernel,
        "the clients sent {syns} SYNs, the kernel refused {by_kernel}"
    );
    agent.expect(&refused_syns(Expected::none(), address, syns))?;
    agent.terminate()?;
    let refused = format!("listener {address} refused ");
    agent::ensure_logged(&refused, "accept_queue_full", syns)
}

/// Clients of a full listener at this address, all in vain; returns how many SYNs they sent.
pub(in crate::scenarios) fn refuse_syns(address: SocketAddr) -> Result<usize> {
    let listener = Listener::start(address, BACKLOG)?;
    let waiting = listener.fill(CLIENT_NETNS)?;
    let mut plan = Lab::plan(PORTS.collect());
    plan.target = address;
    if address.is_ipv6() {
        plan.source = CLIENT_V6.into();
    }
    let syns = syns_in_vain(plan)?;
    drop(waiting);
    Ok(syns)
}

/// What [`refuse_syns`] leaves in the metrics.
pub(in crate::scenarios) fn refused_syns(
    expected: Expected,
    address: SocketAddr,
    syns: usize,
) -> Expected {
    expected
        .syn_drops_elsewhere("accept_queue_full", syns)
        .listen_drops(address, "accept_queue_full", "syn", syns)
}

/// Last packets of handshakes, of which the listener keeps the half.
pub fn by_ack(_lab: &mut Lab) -> Result<()> {
    acks_to("0", LISTENER.into())
}

/// The same with SYN cookies: the listener remembers nothing before the last packet.
pub fn by_ack_with_cookies(_lab: &mut Lab) -> Result<()> {
    acks_to("2", LISTENER.into())
}

fn acks_to(cookies: &str, address: SocketAddr) -> Result<()> {
    director_up()?;
    with_parameters(&[("net/ipv4/tcp_syncookies", cookies, "1")], || {
        play_acks(address)
    })
}

fn play_acks(address: SocketAddr) -> Result<()> {
    let listener = Listener::start(address, BACKLOG)?;
    let agent = Agent::start()?;
    let before = netstat::tcp_ext(OVERFLOWS)?;
    let late = connect_without_ack(address)?;
    let waiting = listener.fill(CLIENT_NETNS)?;
    send_and_forget(late, before)?;
    let by_kernel = usize::try_from(netstat::tcp_ext(OVERFLOWS)? - before)?;
    agent.expect(&Expected::none().listen_drops(address, "accept_queue_full", "ack", by_kernel))?;
    drop(waiting);
    agent.terminate()?;
    let forgot = format!("listener {address} dropped ");
    agent::ensure_logged(&forgot, "accept_queue_full", by_kernel)
}

/// A connection whose last packet the client has not sent: its SYN came while there was room.
pub(in crate::scenarios) fn connect_without_ack(address: SocketAddr) -> Result<TcpStream> {
    let rule = format!(
        "OUTPUT -d {} -p tcp --dport {} --tcp-flags SYN,ACK,RST,PSH ACK -j DROP",
        address.ip(),
        address.port()
    );
    let in_client = |action: &str| {
        netns::within(Some(CLIENT_NETNS), || {
            command::line(&format!("iptables {action} {rule}"))
        })
    };
    in_client("-I")?;
    let connection = listener::connect(CLIENT_NETNS, address);
    in_client("-D")?;
    connection
}

/// Sends data until the listener has refused it twice, then resets, which is never refused.
fn send_and_forget(mut connection: TcpStream, before: u64) -> Result<()> {
    connection.write_all(b"hello").context("send")?;
    wait::until("the listener to refuse twice", REFUSAL_LIMIT, || {
        let refused = netstat::tcp_ext(OVERFLOWS)? - before;
        ensure!(refused >= 2, "{refused} refused");
        Ok(())
    })?;
    reset(&connection)
}

/// Closing the connection resets it.
pub(in crate::scenarios) fn reset(connection: &TcpStream) -> Result<()> {
    let now = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    Ok(setsockopt(connection, sockopt::Linger, &now)?)
}
