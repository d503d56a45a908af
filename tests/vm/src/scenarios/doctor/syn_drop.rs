//! The one-second delay that kernels still have, and its end with `conntrack=0`.

use anyhow::{Context as _, Result, ensure};

use super::clinic::cure;
use super::ensure_hazard;
use crate::agent::Agent;
use crate::director::{self};
use crate::lab::Lab;
use crate::socket::Close;
use crate::topology::{RS1, RS2, RealServer};

/// Clients that vanish before the cure: three for each real server.
const PORTS: std::ops::Range<u16> = 40_000..40_009;
/// And after it, between the two servers that are left: entries made before keep their conntrack.
const LATER_PORTS: std::ops::Range<u16> = 41_000..41_006;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::up_to_drop_reused_syns()?;
    let agent = Agent::start()?;
    delays(lab, PORTS, RS1, 3).context("conntrack=1")?;
    ensure_hazard(&agent, "syn_drop", 1, 1)?;
    cure("syn_drop", "observed")?;
    delays(lab, LATER_PORTS, RS2, 0).context("conntrack=0")?;
    ensure_hazard(&agent, "syn_drop", 0, 0)?;
    agent.terminate()
}

/// Clients vanish, `rs` drains, and those it had served come back: as many SYNs are sent again.
fn delays(lab: &Lab, ports: std::ops::Range<u16>, rs: RealServer, want: u64) -> Result<()> {
    let mut vanish = Lab::plan(ports.collect());
    vanish.close = Close::Vanish;
    vanish.workers = 1;
    let first = lab.run_all_answered(&vanish)?;
    let ports = first.ports_answered_by(rs.name);
    ensure!(ports.len() == 3, "round robin gave {} {ports:?}", rs.name);
    director::set_weight(rs, 0)?;
    let mut again = Lab::plan(ports);
    again.workers = again.ports.len();
    let again = lab.run_all_answered(&again)?;
    ensure!(
        again.syn_retransmits() == want,
        "{} SYNs were sent again, want {want}: {again:?}",
        again.syn_retransmits()
    );
    Ok(())
}
