//! IPVS before 5.9: with `conn_reuse_mode=1` and conntrack in use, every reused port costs 1 s.
//!
//! IPVS expires the old entry and wants to reschedule, finds a conntrack on the packet and drops
//! it; the client's retransmit meets nothing and is scheduled. Nobody drains, nothing is stale:
//! this is what ordinary port reuse did to busy clients.

use anyhow::{Result, ensure};

use super::reuse_drop::ensure_delays_of_one_second;
use crate::agent::Agent;
use crate::director::{self, Transport};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::topology::REAL_SERVERS;

/// Ports that come back while `net.ipv4.vs.conntrack` is on, one connection at a time each.
const PORTS: std::ops::Range<u16> = 40_000..40_012;
/// Ports that come back while it is off.
const CONTROL_PORTS: std::ops::Range<u16> = 41_000..41_012;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "1"), ("conntrack", "1")])?;
    director::enable_conntrack()?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    let agent = Agent::start()?;

    let mut plan = Lab::plan(PORTS.collect());
    plan.workers = PORTS.len();
    let first = lab.run_all_answered(&plan)?;
    let again = lab.run_all_answered(&plan)?;
    ensure!(
        first.syn_retransmits() == 0 && again.syn_retransmits() == u64::try_from(PORTS.len())?,
        "want one SYN retransmit for each reused port and none before, got {} and {}",
        again.syn_retransmits(),
        first.syn_retransmits()
    );

    director::set("conntrack", "0")?;
    plan.ports = CONTROL_PORTS.collect();
    let control = lab.run_all_answered(&plan)?;
    let control_again = lab.run_all_answered(&plan)?;
    ensure!(
        control.syn_retransmits() + control_again.syn_retransmits() == 0,
        "without conntrack no SYN may be sent again, got {control:?} and {control_again:?}"
    );

    agent.expect(
        &Expected::none()
            .decision("scheduled", first.attempts() + control.attempts())
            .decision("rescheduled", control_again.attempts())
            .decision("dropped", again.attempts())
            .syn_drops("ipvs_reuse", again.attempts())
            .delays("ipvs_reuse", again.attempts()),
    )?;
    ensure_delays_of_one_second(&agent.scrape()?, again.attempts())?;
    agent.terminate()
}
