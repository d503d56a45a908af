//! What becomes of stale connections: every outcome in turn, counted once each.

use anyhow::{Result, ensure};

use crate::agent::Agent;
use crate::director::{self, Transport};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::paths;
use crate::report::Report;
use crate::topology::{REAL_SERVERS, RS1};
use crate::traffic::GIVE_UP;

/// Source ports of the client: four for each real server by round robin.
const PORTS: std::ops::Range<u16> = 40_000..40_012;
/// What the agent calls silence here.
const TIMEOUT_MS: &str = "3000";
/// "Connection refused".
const ECONNREFUSED: i32 = 111;
/// "Connection timed out".
const ETIMEDOUT: i32 = 110;
/// "No route to host".
const EHOSTUNREACH: i32 = 113;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    let mut agent = Agent::spawn_with(&["--outcome-timeout-ms", TIMEOUT_MS])?;
    agent.wait_ready()?;
    let first = lab.run_all_answered(&Lab::plan(PORTS.collect()))?;
    let ports = first.ports_answered_by(RS1.name);
    ensure!(
        ports.len() == 4,
        "round robin gave {} {ports:?}, want 4 ports",
        RS1.name
    );
    director::set_weight(RS1, 0)?;

    let answered = lab.run_all_answered(&Lab::plan(ports.clone()))?;
    lab.topology.stop_server(RS1)?;
    let refused = all_failed(lab, &ports, ECONNREFUSED)?;
    let rejection = paths::reject_by_icmp(RS1)?;
    let rejected = all_failed(lab, &ports, EHOSTUNREACH)?;
    rejection.remove()?;
    let _outage = paths::swallow(RS1)?;
    let silent = all_failed(lab, &ports, ETIMEDOUT)?;

    let stale = 4 * ports.len();
    agent.expect(
        &Expected::none()
            .decision("scheduled", first.attempts())
            .decision("reused_stale", stale)
            .stale(RS1, "port_reuse", stale)
            .outcome("answered", answered.attempts())
            .outcome("refused", refused.attempts())
            .outcome("unreachable", rejected.attempts())
            .outcome("timed_out", silent.attempts())
            // The rejecting host is on the same kernel here, which frees the SYN as its
            // firewall's drop.
            .syn_drops("netfilter", rejected.syns()?)
            .retransmits(
                "stale_real_server",
                usize::try_from(silent.syn_retransmits())?,
            )
            .retransmits("here", usize::try_from(rejected.syn_retransmits())?),
    )?;
    agent.terminate()
}

fn all_failed(lab: &Lab, ports: &[u16], errno: i32) -> Result<Report> {
    let mut plan = Lab::plan(ports.to_vec());
    plan.workers = ports.len();
    plan.timeout = GIVE_UP;
    let report = lab.run(&plan)?;
    report.ensure_all_failed(errno)?;
    Ok(report)
}
