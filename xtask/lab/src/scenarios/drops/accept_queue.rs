//! A listener's accept queue is full: new SYNs go unanswered, and handshakes are forgotten at
//! their last packet, whose clients believe to be connected.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

use super::{LISTENER, director_up, syns_in_vain, with_parameters};
use crate::agent::Agent;
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
const OVERFLOWS: &str = "ListenOverflows";
/// Until the last packet of a handshake has been refused a few times.
const REFUSAL_LIMIT: Duration = Duration::from_secs(20);

/// SYNs to a full listener, IPv4.
pub fn by_syn(lab: &mut Lab) -> Result<()> {
    syns_to(lab, LISTENER.into())
}

/// The same over IPv6.
pub fn by_syn_v6(lab: &mut Lab) -> Result<()> {
    paths::add_ipv6(&mut lab.topology)?;
    syns_to(
        lab,
        SocketAddr::new(CLIENT_GATEWAY_V6.into(), LISTENER.port()),
    )
}

fn syns_to(lab: &Lab, address: SocketAddr) -> Result<()> {
    director_up()?;
    let listener = Listener::start(address, BACKLOG)?;
    let agent = Agent::start()?;
    let waiting = listener.fill(CLIENT_NETNS)?;

    let before = netstat::tcp_ext(OVERFLOWS)?;
    let mut plan = Lab::plan(PORTS.collect());
    plan.target = address;
    if address.is_ipv6() {
        plan.source = CLIENT_V6.into();
    }
    let syns = syns_in_vain(lab, plan)?;
    let by_kernel = netstat::tcp_ext(OVERFLOWS)? - before;
    ensure!(
        u64::try_from(syns)? == by_kernel,
        "the clients sent {syns} SYNs, the kernel refused {by_kernel}"
    );
    agent.expect(
        &Expected::none()
            .syn_drops_elsewhere("accept_queue_full", syns)
            .listen_drops(address, "accept_queue_full", "syn", syns),
    )?;
    drop(waiting);
    agent.terminate()
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
    agent.terminate()
}

/// A connection whose last packet the client has not sent: its SYN came while there was room.
fn connect_without_ack(address: SocketAddr) -> Result<TcpStream> {
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

/// Sends data until the listener has refused it twice, then resets, which nobody refuses.
fn send_and_forget(mut connection: TcpStream, before: u64) -> Result<()> {
    connection.write_all(b"hello").context("send")?;
    wait::until("the listener to refuse twice", REFUSAL_LIMIT, || {
        let refused = netstat::tcp_ext(OVERFLOWS)? - before;
        ensure!(refused >= 2, "{refused} refused");
        Ok(())
    })?;
    let now = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&connection, sockopt::Linger, &now)?;
    Ok(())
}
