//! What people meet at night: a rollout drains a server, its ports come back, the server is gone.

use std::ops::RangeInclusive;

use anyhow::{Result, ensure};

use crate::agent::{self, Agent};
use crate::director::{self, Transport};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::report::Report;
use crate::topology::{self, REAL_SERVERS, RS1};

/// Source ports of the client: four for each real server by round robin.
const PORTS: std::ops::Range<u16> = 40_000..40_012;
/// "No route to host".
const EHOSTUNREACH: i32 = 113;
/// The director asks three times, once per second, for the Ethernet address. A SYN sent again in
/// the moment it gives up makes it ask again, and what still waits then waits 3 s more.
const UNREACHABLE_MS: RangeInclusive<u64> = 2_000..=9_500;
/// Without a route it knows at once.
const NO_ROUTE_MS: RangeInclusive<u64> = 0..=900;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    let agent = Agent::start()?;
    let first = lab.run_all_answered(&Lab::plan(PORTS.collect()))?;
    let ports = first.ports_answered_by(RS1.name);
    let stale = ports.len();
    ensure!(
        stale == 4,
        "round robin gave {} {stale} of 12 connections, want 4",
        RS1.name
    );

    director::set_weight(RS1, 0)?;
    let drained = lab.run_all_answered(&Lab::plan(ports.clone()))?;
    ensure!(
        drained.answered_by(RS1.name) == stale,
        "not all reached {}: {drained:?}",
        RS1.name
    );

    topology::remove_address(RS1)?;
    let unreachable = all_unreachable(lab, &ports, &UNREACHABLE_MS)?;
    lab.topology.remove_netns(RS1)?;
    let no_route = all_unreachable(lab, &ports, &NO_ROUTE_MS)?;

    let stale = drained.attempts() + unreachable.attempts() + no_route.attempts();
    agent.expect(
        &Expected::none()
            .decision("scheduled", first.attempts())
            .decision("reused_stale", stale)
            .stale(RS1, "port_reuse", stale)
            .outcome("answered", drained.attempts())
            .outcome("unreachable", unreachable.attempts() + no_route.attempts())
            .syn_drops("neighbour", unreachable.syns()?)
            .syn_drops("no_route", no_route.syns()?),
    )?;
    agent.terminate()?;
    // Where they were sent is reported as the cause; the drops themselves are not reported again.
    agent::ensure_not_logged(&["SYN dropped", "connect delayed", "connect blocked"])
}

/// Connects from `ports` at the same time; each must fail with "no route to host" in this time.
fn all_unreachable(lab: &Lab, ports: &[u16], limits_ms: &RangeInclusive<u64>) -> Result<Report> {
    let mut plan = Lab::plan(ports.to_vec());
    plan.workers = ports.len();
    let report = lab.run(&plan)?;
    report.ensure_all_failed(EHOSTUNREACH)?;
    for connection in &report.connections {
        ensure!(
            limits_ms.contains(&connection.elapsed_ms),
            "want it after {limits_ms:?} ms, got {connection:?}"
        );
    }
    Ok(report)
}
