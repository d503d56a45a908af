//! The module comes after the agent, goes while it runs, and comes again.
//!
//! Nothing of the agent may keep the module, and nothing that was counted may be forgotten.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::drops::{LISTENER, accept_queue};
use super::modes::{FOLLOW, Played, play};
use crate::agent::Agent;
use crate::expect::Expected;
use crate::lab::Lab;
use crate::service::ORDINARY;
use crate::topology::REAL_SERVERS;
use crate::{command, director, wait};

/// Ports before the module goes: four for each real server by round robin.
pub(super) const FIRST_PORTS: std::ops::Range<u16> = 40_000..40_012;
/// Ports after it has come again; half of them were used before.
pub(super) const LATER_PORTS: std::ops::Range<u16> = 40_006..40_018;
/// From `modprobe` to ready. Attaching is a matter of a second; the rest is for the emulation.
pub(super) const ARMED_LIMIT: Duration = Duration::from_secs(30);

/// How long the module stays, in milliseconds. The kernel announces it to the agent at once, and
/// reading its types takes a part of a second.
const STAYS_MS: [u64; 7] = [20, 50, 100, 200, 400, 800, 1_500];
/// Fewer show nothing.
const STAYS_MIN: usize = 2;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    let mut agent = Agent::spawn()?;
    comes_and_goes(lab, &mut agent)?;
    agent.terminate()
}

/// The module comes, goes and comes again while `agent` runs.
pub(super) fn comes_and_goes(lab: &Lab, agent: &mut Agent) -> Result<()> {
    ensure_waiting(agent).context("before the module")?;
    load_until_armed(agent)?;
    let first = play_once(lab, FIRST_PORTS)?;
    agent.expect(&first.add_to(Expected::none()))?;

    let unloading = director::unload()?;
    println!("ip_vs was unloaded after {unloading:.1?}");
    ensure_waiting(agent).context("after the module")?;
    agent
        .expect(&first.add_to(Expected::none()))
        .context("without the module")?;

    load_until_armed(agent)?;
    ensure_gaps(agent, 1)?;
    let later = play_once(lab, LATER_PORTS)?;
    agent.expect(&first.and(later).add_to(Expected::none()))?;
    ensure_gaps(agent, 1)
}

/// The module goes again before the probes hang: sooner, and later in the agent's attaching.
pub fn flicker(lab: &mut Lab) -> Result<()> {
    let mut agent = Agent::spawn()?;
    ensure_waiting(&mut agent)?;
    let mut gone = 0;
    for stay in STAYS_MS.map(Duration::from_millis) {
        command::line("modprobe ip_vs")?;
        sleep(stay);
        // Once probes hold it that is in vain, and what follows is another scenario.
        if command::line("rmmod ip_vs").is_err() {
            break;
        }
        gone += 1;
        ensure_waiting(&mut agent).with_context(|| format!("after a stay of {stay:?}"))?;
    }
    ensure!(
        gone >= STAYS_MIN,
        "the module was held after {gone} stays, want {STAYS_MIN}"
    );
    load_until_armed(&mut agent)?;
    let played = play_once(lab, FIRST_PORTS)?;
    agent.expect(&played.add_to(Expected::none()))?;
    agent.terminate()
}

/// What has nothing to do with IPVS is seen also while the module is gone.
pub fn outside_ipvs(lab: &mut Lab) -> Result<()> {
    director::load(&FOLLOW)?;
    let mut agent = Agent::start()?;
    let first = play_once(lab, FIRST_PORTS)?;
    director::unload()?;
    ensure_waiting(&mut agent)?;
    let syns = accept_queue::refuse_syns(LISTENER.into())?;
    let expected = first.add_to(Expected::none());
    agent.expect(&accept_queue::refused_syns(expected, LISTENER.into(), syns))?;
    agent.terminate()
}

/// The module is not there, and the agent says so soon: `/readyz` answers 503 also while it starts
/// or attaches.
pub(super) fn ensure_waiting(agent: &mut Agent) -> Result<()> {
    agent.wait_readyz(503)?;
    wait::until("the agent to wait", ARMED_LIMIT, || is_waiting(agent))
}

fn is_waiting(agent: &Agent) -> Result<()> {
    let status = agent.status()?;
    let reason = status["reason"].as_str().unwrap_or_default();
    ensure!(
        status["state"] == "waiting" && reason.contains("ip_vs"),
        "/status: want state \"waiting\" and a reason that names ip_vs, got {status}"
    );
    Ok(())
}

fn load_until_armed(agent: &mut Agent) -> Result<()> {
    director::load(&FOLLOW)?;
    let start = Instant::now();
    agent.wait_ready()?;
    let armed = start.elapsed();
    ensure!(
        armed <= ARMED_LIMIT,
        "ready {armed:.1?} after modprobe, want {ARMED_LIMIT:?} at most"
    );
    let status = agent.status()?;
    println!(
        "the agent was ready {armed:.1?} after modprobe, by {}",
        status["probes"][0]["via"]
    );
    ensure!(
        status["state"] == "armed" && status["reason"].is_null(),
        "/status: want state \"armed\" without a reason, got {status}"
    );
    Ok(())
}

pub(super) fn play_once(lab: &Lab, ports: std::ops::Range<u16>) -> Result<Played> {
    ORDINARY.create(&REAL_SERVERS)?;
    play(&ORDINARY, &Lab::plan(ports.collect()), |plan| lab.run(plan))
}

fn ensure_gaps(agent: &Agent, want: u64) -> Result<()> {
    let gaps = &agent.status()?["gaps"];
    ensure!(*gaps == want, "/status has gaps {gaps}, want {want}");
    Ok(())
}
