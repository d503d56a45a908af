//! Before 5.9 every reused port costs 1 s. The release of the rebuilt kernel says 5.10: only what
//! was observed shows it, and the doctor relies on that.

use anyhow::{Context as _, Result, ensure};

use super::clinic::{Visit, cure};
use super::ensure_hazard;
use crate::agent::Agent;
use crate::director::{self, Transport};
use crate::lab::Lab;
use crate::topology::REAL_SERVERS;

/// Ports that come back before the cure.
const PORTS: std::ops::Range<u16> = 40_000..40_006;
/// And after it: entries made before keep their conntrack.
const LATER_PORTS: std::ops::Range<u16> = 41_000..41_006;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[
        ("conn_reuse_mode", "1"),
        ("conntrack", "1"),
        ("expire_nodest_conn", "0"),
    ])?;
    director::enable_conntrack()?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    let agent = Agent::start()?;
    Visit::pay()?
        .ensure_content("syn_drop")
        .context("by its release alone")?;
    delays(lab, PORTS, 6).context("conntrack=1")?;
    ensure_hazard(&agent, "syn_drop", 1, 1)?;
    cure("syn_drop", "observed")?;
    delays(lab, LATER_PORTS, 0).context("conntrack=0")?;
    ensure_hazard(&agent, "syn_drop", 0, 0)?;
    agent.terminate()
}

/// Every port is used twice: the second time, as many SYNs are sent again.
fn delays(lab: &Lab, ports: std::ops::Range<u16>, want: u64) -> Result<()> {
    let mut plan = Lab::plan(ports.collect());
    plan.workers = plan.ports.len();
    lab.run_all_answered(&plan)?;
    let again = lab.run_all_answered(&plan)?;
    ensure!(
        again.syn_retransmits() == want,
        "{} SYNs were sent again, want {want}: {again:?}",
        again.syn_retransmits()
    );
    Ok(())
}
