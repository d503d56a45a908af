//! `conn_reuse_mode=0`, both ways out of it, and the way back.

use anyhow::{Context as _, Result, ensure};

use super::clinic::{Visit, cure};
use super::ensure_hazard;
use crate::agent::Agent;
use crate::director::{self, Transport};
use crate::lab::Lab;
use crate::topology::{REAL_SERVERS, RS1, RS2, RealServer};

/// Ports that come back: four for each real server by round robin.
const PORTS: std::ops::Range<u16> = 40_000..40_012;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    let agent = Agent::start()?;
    let visit = Visit::pay()?;
    visit
        .advice("stale_reuse", "configured")
        .context("unseen")?;
    answered(lab, RS1, 4).context("at first")?;
    director::set_weight(RS1, 0)?;
    answered(lab, RS1, 4).context("mode 0")?;
    ensure_hazard(&agent, "stale_reuse", 1, 1)?;

    let (prescription, cured) = cure("stale_reuse", "observed")?;
    cured.ensure_content("uneven_reuse")?;
    answered(lab, RS1, 0).context("mode 1")?;
    ensure_hazard(&agent, "stale_reuse", 0, 0)?;

    prescription.undo()?;
    let undone = Visit::pay()?;
    undone
        .advice("stale_reuse", "configured")
        .context("undone")?;
    director::set("expire_nodest_conn", "1")?;
    let busy = answered_by(lab, RS2)?;
    ensure!(busy > 0, "{} answers no client", RS2.name);
    director::set_weight(RS2, 0)?;
    // The agent sees at the next scrape that a parameter has changed, and starts counting again.
    ensure_hazard(&agent, "stale_reuse", 0, 0)?;
    answered(lab, RS2, 0).context("nodest")?;
    let visit = Visit::pay()?;
    visit
        .ensure_content("stale_reuse")
        .context("nodest, seen")?;
    visit.advice("uneven_reuse", "observed").context("nodest")?;
    agent.terminate()
}

fn answered(lab: &Lab, rs: RealServer, want: usize) -> Result<()> {
    let found = answered_by(lab, rs)?;
    ensure!(
        found == want,
        "{} answered {found} connections, want {want}",
        rs.name
    );
    Ok(())
}

fn answered_by(lab: &Lab, rs: RealServer) -> Result<usize> {
    let mut plan = Lab::plan(PORTS.collect());
    // One after the other: round robin decides who answers which port.
    plan.workers = 1;
    Ok(lab.run_all_answered(&plan)?.answered_by(rs.name))
}
