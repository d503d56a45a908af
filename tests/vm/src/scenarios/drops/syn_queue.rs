//! A listener's queue of half-open connections is full, and there are no SYN cookies.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{LISTENER, director_up, syns_in_vain, with_parameters};
use crate::agent::{self, Agent};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::listener::Listener;
use crate::topology::CLIENT_NETNS;
use crate::{command, netns, netstat};

/// Limit of the listener. Kernels let as many or one more be half-open.
const BACKLOG: i32 = 2;
/// A limit that is never met, where the limit of the namespace is.
const LARGE_BACKLOG: i32 = 128;
/// Limit of the namespace: its last quarter is kept for clients the kernel remembers.
const NETNS_LIMIT: &str = "8";
/// Clients that come when there is no room any more.
const PORTS: std::ops::Range<u16> = 43_000..43_008;
/// Longest time for a SYN to be answered, shorter than until it is sent again (1 s).
const ANSWER_LIMIT: Duration = Duration::from_millis(800);

/// At the listener's own limit.
pub fn of_listener(_lab: &mut Lab) -> Result<()> {
    play(BACKLOG, &[("net/ipv4/tcp_syncookies", "0", "1")])
}

/// In the last quarter of the namespace's limit.
pub fn of_netns(_lab: &mut Lab) -> Result<()> {
    let ordinary = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_max_syn_backlog")?;
    play(
        LARGE_BACKLOG,
        &[
            ("net/ipv4/tcp_syncookies", "0", "1"),
            ("net/ipv4/tcp_max_syn_backlog", NETNS_LIMIT, ordinary.trim()),
        ],
    )
}

fn play(backlog: i32, parameters: &[(&str, &str, &str)]) -> Result<()> {
    director_up()?;
    with_parameters(parameters, || half_open(backlog))
}

fn half_open(backlog: i32) -> Result<()> {
    let listener = Listener::start(LISTENER.into(), backlog)?;
    let agent = Agent::start()?;
    let before = netstat::tcp_ext("ListenDrops")?;
    never_finish_handshakes(listener.address)?;
    let waiting = fill(&listener)?;
    let mut plan = Lab::plan(PORTS.collect());
    plan.target = listener.address;
    // And the one that found the queue full while it was filled.
    let syns = 1 + syns_in_vain(plan)?;
    let by_kernel = netstat::tcp_ext("ListenDrops")? - before;
    ensure!(
        u64::try_from(syns)? == by_kernel,
        "the clients sent {syns} SYNs in vain, the kernel refused {by_kernel}"
    );
    agent.expect(
        &Expected::none()
            .syn_drops_elsewhere("syn_queue_full", syns)
            .listen_drops(listener.address, "syn_queue_full", "syn", syns),
    )?;
    drop(waiting);
    agent.terminate()?;
    let refused = format!("listener {} refused ", listener.address);
    agent::ensure_logged(&refused, "syn_queue_full", syns)
}

/// Half-open connections until one is not answered; kernels differ in how many there are.
pub(in crate::scenarios) fn fill(listener: &Listener) -> Result<Vec<TcpStream>> {
    netns::within(Some(CLIENT_NETNS), || {
        let connect = || TcpStream::connect_timeout(&listener.address, ANSWER_LIMIT).ok();
        Ok(std::iter::from_fn(connect).collect())
    })
}

/// The client's last packet of every handshake is lost, as after a SYN flood.
pub(in crate::scenarios) fn never_finish_handshakes(address: SocketAddr) -> Result<()> {
    let rule = format!(
        "iptables -I OUTPUT -d {} -p tcp --dport {} --tcp-flags SYN,ACK ACK -j DROP",
        address.ip(),
        address.port()
    );
    netns::within(Some(CLIENT_NETNS), || command::line(&rule).map(drop))
}
