//! Conntrack drops SYNs: its table is full, or an entry like theirs is in it.

use std::fs;
use std::net::SocketAddrV4;

use anyhow::{Context as _, Result, ensure};

use super::{LISTENER, director_up, syns_in_vain, under_chain, with_parameters};
use crate::agent::{self, Agent};
use crate::director;
use crate::expect::Expected;
use crate::lab::Lab;
use crate::listener::{self, Listener};
use crate::topology::{CLIENT, CLIENT_NETNS};

/// Clients that find no room.
const PORTS: std::ops::Range<u16> = 43_000..43_004;
/// The connection before, by which the agent learns of the service.
const FIRST_PORT: u16 = 43_100;
/// Connections that fill the table, one more than this.
pub(in crate::scenarios) const BACKLOG: i32 = 15;
/// Fewer entries than those connections.
const LIMIT: &str = "8";
/// Limit of the table, for all namespaces.
const LIMIT_PARAMETER: &str = "net/netfilter/nf_conntrack_max";

/// The table is full of connections that are in use.
pub fn full(lab: &mut Lab) -> Result<()> {
    director_up()?;
    director::enable_conntrack()?;
    let listener = Listener::start(LISTENER.into(), BACKLOG)?;
    let agent = Agent::start()?;
    lab.run_all_answered(&Lab::plan(vec![FIRST_PORT]))?;
    let in_use = listener.fill(CLIENT_NETNS)?;

    let syns = without_room(|| syns_in_vain(Lab::plan(PORTS.collect())))?;
    agent.expect(
        &Expected::none()
            .decision("scheduled", 1)
            .syn_drops("conntrack_full", syns),
    )?;
    drop(in_use);
    agent.terminate()
}

/// Plays while conntrack has no room for more entries than there are.
pub(in crate::scenarios) fn without_room<T>(play: impl FnOnce() -> Result<T>) -> Result<T> {
    let ordinary = fs::read_to_string(format!("/proc/sys/{LIMIT_PARAMETER}"))?;
    with_parameters(&[(LIMIT_PARAMETER, LIMIT, ordinary.trim())], play)
}

/// The one port source NAT has.
const NAT_PORT: u16 = 5_000;

/// Source NAT has one port for everybody: after the first client, each makes an entry that another
/// has already.
pub fn clash(_lab: &mut Lab) -> Result<()> {
    director_up()?;
    let listener = Listener::start(LISTENER.into(), BACKLOG)?;
    let agent = Agent::start()?;
    let before = insert_failed()?;
    let (first, syns) = under_source_nat(None, LISTENER, || {
        let first = listener::connect(CLIENT_NETNS, listener.address)?;
        let mut plan = Lab::plan(PORTS.collect());
        plan.target = listener.address;
        Ok((first, syns_in_vain(plan)?))
    })?;
    let failed = usize::try_from(insert_failed()? - before)?;
    ensure!(
        failed == syns,
        "the clients sent {syns} SYNs in vain, conntrack failed to insert {failed}"
    );
    agent.expect(&Expected::none().syn_drops_elsewhere("conntrack_insert", syns))?;
    drop(first);
    agent.terminate()?;
    agent::ensure_logged("conntrack could not insert ", "", failed)
}

/// Plays while every connection to a listener of this namespace is given the same source port.
pub(in crate::scenarios) fn under_source_nat<T>(
    netns: Option<&str>,
    listener: SocketAddrV4,
    play: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let (address, port) = (listener.ip(), listener.port());
    let chain = format!(
        "type nat hook input priority 100; \
         ip daddr {address} tcp dport {port} snat to {CLIENT}:{NAT_PORT}"
    );
    under_chain(netns, &chain, play)
}

/// The kernel's own count, summed over CPUs.
fn insert_failed() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/stat/nf_conntrack")?;
    let mut lines = text.lines();
    let mut names = lines.next().unwrap_or_default().split_whitespace();
    let column = names
        .position(|name| name == "insert_failed")
        .context("no column insert_failed")?;
    lines
        .map(|line| {
            let word = line.split_whitespace().nth(column);
            u64::from_str_radix(word.context("a short line")?, 16).context("no number")
        })
        .sum()
}
