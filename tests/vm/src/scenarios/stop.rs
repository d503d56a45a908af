//! The agent ends while traffic flows: the traffic must not notice, and the kernel must be clean.

use anyhow::{Result, ensure};

use crate::agent::Agent;
use crate::bpf::Inventory;
use crate::director::{self, Transport};
use crate::lab::Lab;
use crate::topology::REAL_SERVERS;
use crate::wait;

/// Ports of the traffic, used over and over: every connection after the first round is a reuse.
const PORTS: std::ops::Range<u16> = 40_000..40_040;
/// Rounds if the traffic is not stopped: far more than the scenario lasts.
const ENDLESS: u32 = 10_000;
/// Attempts the agent must have seen before it is stopped.
const SEEN_FIRST: u64 = 60;
/// Until it has seen them.
const SEEN_LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

/// Plays the story with SIGTERM.
pub fn by_sigterm(lab: &mut Lab) -> Result<()> {
    stop_in_traffic(lab, Agent::terminate)
}

/// Plays the story with SIGKILL.
pub fn by_sigkill(lab: &mut Lab) -> Result<()> {
    stop_in_traffic(lab, Agent::kill)
}

fn stop_in_traffic(lab: &mut Lab, stop: fn(Agent) -> Result<()>) -> Result<()> {
    director::load(&[("conn_reuse_mode", "0")])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    let agent = Agent::start()?;
    let attached = Inventory::take()?.since(&lab.bpf_before);
    ensure!(
        !attached.is_empty(),
        "the agent is ready, but nothing of it is in the kernel"
    );

    let mut plan = Lab::plan(PORTS.collect());
    plan.rounds = ENDLESS;
    let traffic = lab.start(plan);
    let seen = wait::until("the agent to see the traffic", SEEN_LIMIT, || {
        let seen = agent.scrape()?.count("ipvs_lens_connections_total", &[])?;
        ensure!(
            seen >= SEEN_FIRST,
            "{seen} attempts seen, want {SEEN_FIRST}"
        );
        Ok(seen)
    })?;
    stop(agent)?;
    lab.bpf_before.ensure_nothing_new()?;
    let report = traffic.stop()?;
    ensure!(
        report.attempts() > usize::try_from(seen)?,
        "{} attempts in all, want more than the {seen} before the stop",
        report.attempts()
    );
    report.ensure_all_answered()?;
    ensure!(
        report.syn_retransmits() == 0,
        "{} SYNs were sent again, want none",
        report.syn_retransmits()
    );
    Ok(())
}
