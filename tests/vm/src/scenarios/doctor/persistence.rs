//! A persistence template keeps a client on a draining server, until `expire_quiescent_template`.

use anyhow::{Context as _, Result, ensure};

use super::clinic::cure;
use super::ensure_hazard;
use crate::agent::Agent;
use crate::director;
use crate::lab::Lab;
use crate::report::Report;
use crate::service::{ORDINARY, Service};
use crate::topology::REAL_SERVERS;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[
        ("conn_reuse_mode", "1"),
        ("expire_nodest_conn", "1"),
        ("expire_quiescent_template", "0"),
    ])?;
    let service = Service {
        options: "-p 300",
        ..ORDINARY
    };
    service.create(&REAL_SERVERS)?;
    let agent = Agent::start()?;
    let first = connect(lab, 40_000)?;
    let bound = REAL_SERVERS
        .into_iter()
        .find(|rs| first.answered_by(rs.name) == 3)
        .with_context(|| format!("one client was answered by {:?}", first.answers()))?;
    service.set_weight(bound, 0)?;
    let kept = connect(lab, 41_000)?.answered_by(bound.name);
    ensure!(kept == 3, "{} of 3 new ports reached {}", kept, bound.name);
    ensure_hazard(&agent, "stale_persistence", 1, 1)?;

    cure("stale_persistence", "observed")?;
    let kept = connect(lab, 42_000)?.answered_by(bound.name);
    ensure!(kept == 0, "{} new ports still reached {}", kept, bound.name);
    ensure_hazard(&agent, "stale_persistence", 0, 0)?;
    agent.terminate()
}

/// Three connections from ports never used before, one after the other.
fn connect(lab: &Lab, from: u16) -> Result<Report> {
    let mut plan = Lab::plan((from..from + 3).collect());
    plan.workers = 1;
    lab.run_all_answered(&plan)
}
