//! Real servers that drain, each held by something else: the agent names what.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::agent::Agent;
use crate::director::{self, Transport};
use crate::lab::Lab;
use crate::service::{Key, ORDINARY, Service};
use crate::socket::Close;
use crate::topology::{RS1, RS2, RS3, RealServer, VIP};
use crate::traffic::Protocol;
use crate::wait;

/// Ports of connections that are closed: three for each real server by round robin.
const CLOSED_PORTS: std::ops::Range<u16> = 40_000..40_006;
/// Ports of connections that stay open, as far as IPVS knows.
const OPEN_PORTS: std::ops::Range<u16> = 41_000..41_006;
/// A port of datagrams.
const UDP_PORT: u16 = 42_000;
/// A few readings, under emulation.
const READ_LIMIT: Duration = Duration::from_secs(20);

/// The VIP over UDP.
const OVER_UDP: Service = Service {
    key: Key::Udp(std::net::SocketAddr::V4(VIP)),
    ..ORDINARY
};

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Tcp, &[RS1, RS2])?;
    OVER_UDP.create(&[RS3])?;
    let mut agent = Agent::spawn_with(&["--table-interval-s", "1"])?;
    agent.wait_ready()?;

    let mut closed = Lab::plan(CLOSED_PORTS.collect());
    closed.workers = 1;
    let closed = lab.run_all_answered(&closed)?.ports_answered_by(RS1.name);
    ensure!(
        closed.len() == 3,
        "round robin gave {} {closed:?}",
        RS1.name
    );
    let mut vanish = Lab::plan(OPEN_PORTS.collect());
    vanish.close = Close::Vanish;
    vanish.workers = 1;
    lab.run_all_answered(&vanish)?;
    let mut datagram = Lab::plan(vec![UDP_PORT]);
    datagram.protocol = Protocol::Udp;
    lab.run_all_answered(&datagram)?;

    // Open connections hold a real server, whatever else is closed.
    director::set_weight(RS2, 0)?;
    ensure_held(&agent, ORDINARY, RS2, "long_lived")?;
    // Clients that come back are named before what is open.
    director::set_weight(RS1, 0)?;
    ensure_held(&agent, ORDINARY, RS1, "long_lived")?;
    lab.run_all_answered(&Lab::plan(closed))?;
    ensure_held(&agent, ORDINARY, RS1, "port_reuse")?;
    // An entry of UDP only waits for its end, until a datagram renews it.
    OVER_UDP.set_weight(RS3, 0)?;
    ensure_held(&agent, OVER_UDP, RS3, "nobody")?;
    lab.run_all_answered(&datagram)?;
    ensure_held(&agent, OVER_UDP, RS3, "udp")?;
    // A new real server, drained before anybody came.
    director::add_real_server(RS3)?;
    director::set_weight(RS3, 0)?;
    ensure_held(&agent, ORDINARY, RS3, "nobody")?;

    // With a weight again nothing is held.
    director::set_weight(RS2, 1)?;
    wait::until("the weight to end the draining", READ_LIMIT, || {
        let scrape = agent.scrape()?;
        let labels = ORDINARY.labels_of(RS2);
        let labels: Vec<_> = labels.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let held = scrape.select(HOLDER, &labels);
        ensure!(held.is_empty(), "still held: {held:?}");
        Ok(())
    })?;
    agent.terminate()
}

const HOLDER: &str = "ipvs_lens_draining_holder";

fn ensure_held(agent: &Agent, service: Service, rs: RealServer, holder: &str) -> Result<()> {
    let what = format!("{} to be held by {holder}", rs.name);
    wait::until(&what, READ_LIMIT, || {
        let labels = service.labels_of(rs);
        let labels: Vec<_> = labels.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let scrape = agent.scrape()?;
        let held = scrape.select(HOLDER, &labels);
        let [only] = held[..] else {
            anyhow::bail!("held by {held:?}, want one holder");
        };
        ensure!(
            only.labels["holder"] == holder && only.value > 0.5,
            "{only}, want {holder}"
        );
        let since = scrape.sum("ipvs_lens_draining_since_timestamp_seconds", &labels);
        ensure!(since > 0.0, "draining since {since}");
        Ok(())
    })
}
