//! What the agent needs to start: memory, most of all for the kernel's types, and time.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::drops::director_up;
use crate::agent::Agent;
use crate::lab::Lab;
use crate::process;

/// Resident memory from the first instruction until every program is attached.
const PEAK_MAX_KIB: u64 = 25 << 10;

/// Plays the story.
pub fn run(_: &mut Lab) -> Result<()> {
    director_up()?;
    let start = Instant::now();
    let agent = Agent::start()?;
    let ready = start.elapsed();
    let memory = process::memory(agent.id())?;
    println!("ready {ready:.2?} after exec: {memory:?}");
    ensure!(
        memory.peak_kib <= PEAK_MAX_KIB,
        "{memory:?}, want a peak of {PEAK_MAX_KIB} KiB at most"
    );
    agent.terminate()
}
