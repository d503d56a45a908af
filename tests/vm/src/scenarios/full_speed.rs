//! As fast as the guest can: the kernel's counters stay exact, and every event is received or
//! counted as lost.

use anyhow::{Result, ensure};

use super::modes::FOLLOW;
use crate::agent::Agent;
use crate::director::{self, Transport};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::scrape::Scrape;
use crate::topology::{RS1, RS2};
use crate::wait;

/// Ports bound to the draining server.
const PORTS: std::ops::Range<u16> = 30_000..30_100;
/// How often each comes back.
const ROUNDS: u32 = 20;
/// Connections at the same time.
const WORKERS: usize = 10;
/// Until every event is accounted for.
const DRAIN_LIMIT: std::time::Duration = std::time::Duration::from_secs(15);

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load_with_growing_table(&FOLLOW)?;
    director::add_service(Transport::Tcp, &[RS1])?;
    let agent = Agent::start()?;
    let first = lab.run_all_answered(&Lab::plan(PORTS.collect()))?;
    director::add_real_server(RS2)?;
    director::set_weight(RS1, 0)?;

    let mut plan = Lab::plan(PORTS.collect());
    plan.rounds = ROUNDS;
    plan.workers = WORKERS;
    let report = lab.run_all_answered(&plan)?;
    ensure!(
        report.attempts() == 2_000 && report.answered_by(RS1.name) == 2_000,
        "{} attempts, answered by {:?}; want 2,000, all by {}",
        report.attempts(),
        report.answers(),
        RS1.name
    );
    let expected = Expected::none()
        .decision("scheduled", first.attempts())
        .decision("reused_stale", report.attempts())
        .stale(RS1, "port_reuse", report.attempts())
        .outcome("answered", report.attempts());
    wait::until("every event to be accounted for", DRAIN_LIMIT, || {
        let scrape = agent.scrape()?;
        ensure_accounted_for(&scrape)?;
        expected.check_but_lost(&scrape)
    })?;
    agent.terminate()
}

/// Received and lost records are together what the kernel programs tried to write.
fn ensure_accounted_for(scrape: &Scrape) -> Result<()> {
    let emitted = scrape.count("ipvs_lens_events_emitted_total", &[])?;
    let received = scrape.count("ipvs_lens_events_received_total", &[])?;
    let lost = scrape.count("ipvs_lens_events_lost_total", &[("reason", "ring_full")])?;
    ensure!(
        received + lost == emitted && emitted >= 2_000,
        "{received} events received + {lost} lost, {emitted} emitted; want the sum equal and 2,000 or more"
    );
    Ok(())
}
