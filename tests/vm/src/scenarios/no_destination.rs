//! A service without a server to choose: every SYN is dropped, and the client gets an ICMP
//! error at once.

use anyhow::{Result, ensure};

use crate::agent::Agent;
use crate::director::{self, Transport};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::report::Report;
use crate::topology::{RS1, RS2};

/// Ports while every server drains.
const DRAINED_PORTS: std::ops::Range<u16> = 40_000..40_005;
/// Ports when no server is left.
const REMOVED_PORTS: std::ops::Range<u16> = 41_000..41_003;
/// One connection before, from a port that does not come back.
const FIRST_PORT: u16 = 42_000;
/// "Connection refused".
const ECONNREFUSED: i32 = 111;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "1"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Tcp, &[RS1, RS2])?;
    let agent = Agent::start()?;
    let first = lab.run_all_answered(&Lab::plan(vec![FIRST_PORT]))?;

    for rs in [RS1, RS2] {
        director::set_weight(rs, 0)?;
    }
    let drained = all_refused(lab, DRAINED_PORTS.collect())?;
    for rs in [RS1, RS2] {
        director::delete_real_server(rs)?;
    }
    let removed = all_refused(lab, REMOVED_PORTS.collect())?;

    let dropped = drained.attempts() + removed.attempts();
    agent.expect(
        &Expected::none()
            .decision("scheduled", first.attempts())
            .decision("dropped", dropped)
            .syn_drops("ipvs_no_destination", dropped),
    )?;
    agent.terminate()
}

/// Each port is refused by its first SYN.
fn all_refused(lab: &Lab, ports: Vec<u16>) -> Result<Report> {
    let report = lab.run(&Lab::plan(ports))?;
    report.ensure_all_failed(ECONNREFUSED)?;
    ensure!(
        report.syn_retransmits() == 0,
        "want every first SYN to be refused, got {report:?}"
    );
    Ok(report)
}
