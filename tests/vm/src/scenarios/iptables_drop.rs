//! The same pain with another cause: a firewall rule drops the SYNs before IPVS sees them.
//!
//! The kernel frees both kinds of dropped SYN at the same place; only who decided differs.

use anyhow::{Result, ensure};

use crate::agent::Agent;
use crate::director::{self, SynDrop};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::wait;

/// Connections whose first SYN is dropped.
const PORTS: std::ops::Range<u16> = 42_000..42_006;
/// One connection before: only then the agent has seen the service.
const FIRST_PORT: u16 = 43_000;
/// Until every first SYN has met the rule.
const DROP_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::up_to_drop_reused_syns()?;
    let agent = Agent::start()?;
    lab.run_all_answered(&Lab::plan(vec![FIRST_PORT]))?;

    let rule = SynDrop::install()?;
    let mut plan = Lab::plan(PORTS.collect());
    plan.workers = PORTS.len();
    let connecting = lab.start(plan);
    let wanted = u64::try_from(PORTS.len())?;
    wait::until("the rule to drop every first SYN", DROP_LIMIT, || {
        let dropped = director::dropped_packets()?;
        ensure!(dropped >= wanted, "{dropped} SYNs dropped, want {wanted}");
        Ok(())
    })?;
    rule.remove()?;
    let report = connecting.finish()?;
    report.ensure_all_answered()?;

    // Under emulation a retransmit may still meet the rule; the client counted every SYN.
    let dropped = usize::try_from(report.syn_retransmits())?;
    ensure!(
        dropped >= PORTS.len(),
        "{dropped} SYNs were sent again, want {} or more",
        PORTS.len()
    );
    agent.expect(
        &Expected::none()
            .decision("scheduled", 1 + report.attempts())
            .syn_drops("netfilter", dropped)
            .delays("netfilter", report.attempts()),
    )?;
    agent.terminate()
}
