//! Persistence (`ipvsadm -p`): a draining server goes on getting new connections of its clients.

use std::net::{SocketAddr, SocketAddrV4};
use std::ops::Range;

use anyhow::{Result, ensure};

use crate::agent::Agent;
use crate::director;
use crate::expect::Expected;
use crate::lab::Lab;
use crate::service::{Key, ORDINARY, Service};
use crate::topology::{REAL_SERVER_PORT, REAL_SERVERS, VIP};

/// Ports before the server drains.
const FIRST_PORTS: Range<u16> = 40_000..40_005;
/// Ports never used before it drains.
const NEW_PORTS: Range<u16> = 41_000..41_007;

/// Plays the story on an ordinary service.
pub fn run(lab: &mut Lab) -> Result<()> {
    play(lab, ORDINARY.key, VIP)
}

/// Plays the story on a service of every port, whose real servers have none of their own.
pub fn every_port(lab: &mut Lab) -> Result<()> {
    let key = Key::Tcp(SocketAddr::new((*VIP.ip()).into(), 0));
    play(lab, key, SocketAddrV4::new(*VIP.ip(), REAL_SERVER_PORT))
}

fn play(lab: &Lab, key: Key, target: SocketAddrV4) -> Result<()> {
    director::load(&[
        ("conn_reuse_mode", "1"),
        ("expire_nodest_conn", "0"),
        ("expire_quiescent_template", "0"),
    ])?;
    let service = Service {
        key,
        options: "-p 300",
        ..ORDINARY
    };
    service.create(&REAL_SERVERS)?;
    let agent = Agent::start()?;
    let plan = |ports: Range<u16>| {
        let mut plan = Lab::plan(ports.collect());
        plan.target = target.into();
        plan
    };
    let mut one_by_one = plan(FIRST_PORTS);
    // One after the other: two first connections at the same time may make a template each.
    one_by_one.workers = 1;
    let first = lab.run_all_answered(&one_by_one)?;
    let bound = REAL_SERVERS
        .into_iter()
        .filter(|rs| first.answered_by(rs.name) > 0);
    let [server] = bound.collect::<Vec<_>>()[..] else {
        anyhow::bail!("a persistent client was answered by {:?}", first.answers());
    };

    service.set_weight(server, 0)?;
    let new = lab.run_all_answered(&plan(NEW_PORTS))?;
    // The entry of a port that comes back belongs to the template, and so is never rescheduled.
    let again = lab.run_all_answered(&plan(FIRST_PORTS))?;
    let stale = new.attempts() + again.attempts();
    ensure!(
        new.answered_by(server.name) + again.answered_by(server.name) == stale,
        "answers of {:?} and {:?}, want all from {}, whose weight is 0",
        new.answers(),
        again.answers(),
        server.name
    );
    agent.expect(
        &Expected::of(service)
            .decision("scheduled", first.attempts())
            .decision("reused_stale", stale)
            .stale(server, "persistence", stale)
            .outcome("answered", stale)
            .new_connections(server, first.attempts() + stale),
    )?;
    agent.terminate()
}
