//! Datagrams: a flow stays with its draining real server, and dies in silence with a removed one.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::agent::Agent;
use crate::director;
use crate::expect::Expected;
use crate::lab::Lab;
use crate::report::Report;
use crate::service::{Key, ORDINARY, Service};
use crate::topology::{REAL_SERVERS, RS1, VIP};
use crate::traffic::{Plan, Protocol};

/// Source ports of the client: four for each real server by round robin.
const PORTS: std::ops::Range<u16> = 40_000..40_012;
/// How often each port asks again.
const ROUNDS: u32 = 3;
/// A resolver would wait seconds; the answer of a living server comes at once.
const NO_ANSWER: Duration = Duration::from_millis(500);

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "1"), ("expire_nodest_conn", "0")])?;
    let service = Service {
        key: Key::Udp(VIP.into()),
        ..ORDINARY
    };
    service.create(&REAL_SERVERS)?;
    let agent = Agent::start()?;
    let first = lab.run_all_answered(&plan(PORTS.collect()))?;
    let ports = first.ports_answered_by(RS1.name);
    ensure!(
        ports.len() == 4,
        "round robin gave {} {ports:?}, want 4 ports",
        RS1.name
    );

    service.set_weight(RS1, 0)?;
    let mut more = plan(PORTS.collect());
    more.rounds = ROUNDS;
    let drained = lab.run_all_answered(&more)?;
    let to_drained = drained.answered_by(RS1.name);
    ensure!(
        to_drained == ports.len() * usize::try_from(ROUNDS)?,
        "{} answered {to_drained} datagrams, want all of {ports:?}",
        RS1.name
    );

    service.delete(RS1)?;
    let mut hopeless = plan(ports.clone());
    hopeless.workers = ports.len();
    hopeless.timeout = NO_ANSWER;
    let dropped = lab.run(&hopeless)?;
    ensure!(
        dropped.failed().count() == ports.len(),
        "want no answer on {ports:?}, got {dropped:?}"
    );

    director::set("expire_nodest_conn", "1")?;
    let moved = lab.run_all_answered(&plan(ports.clone()))?;
    ensure!(
        moved.answered_by(RS1.name) == 0,
        "{} was removed, and answered: {moved:?}",
        RS1.name
    );

    let mut expected = Expected::of(service)
        .decision("scheduled", first.attempts())
        .decision("rescheduled", moved.attempts())
        .stale_datagrams(RS1, ports.len(), to_drained + dropped.attempts());
    for rs in REAL_SERVERS {
        expected = expected.new_connections(rs, given(rs.name, &[&first, &moved]));
    }
    agent.expect(&expected)?;
    agent.terminate()
}

fn given(name: &str, reports: &[&Report]) -> usize {
    reports.iter().map(|report| report.answered_by(name)).sum()
}

fn plan(ports: Vec<u16>) -> Plan {
    Plan {
        protocol: Protocol::Udp,
        ..Lab::plan(ports)
    }
}
