//! 7.2: clients that come back while the table of connections grows are sent astray; cured by the
//! doctor's command.

use std::ops::RangeFrom;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::clinic::Visit;
use crate::agent::Agent;
use crate::director::{self, Transport};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::topology::{REAL_SERVERS, RS1};

/// New clients of each round before the cure. A table of the kernel's own factor grows when the
/// connections, a power of 2, are exceeded: each round ends a few below 32, 64 and 128, and the
/// clients that come back exceed it, for IPVS takes a while to forget their old entries.
const BEFORE: [u16; 3] = [30, 30, 60];
/// And behind it: below 256.
const AFTER: [u16; 1] = [130];
/// Source port of the first client.
const FIRST_PORT: u16 = 40_000;
/// Until IPVS has made the table as large as the new factor wants it.
const RESIZED: Duration = Duration::from_secs(1);

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    let rescheduling = [("conn_reuse_mode", "1"), ("expire_nodest_conn", "0")];
    director::load_with_growing_table(&rescheduling)?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    let agent = Agent::start()?;

    let mut ports = FIRST_PORT..;
    let sick = astray(lab, &mut ports, &BEFORE).context("conn_lfactor as the kernel has it")?;
    ensure!(sick > 0, "no client was sent astray while the table grew");

    let prescription = Visit::pay()?.note("growing_table")?;
    prescription.take()?;
    Visit::pay()?.ensure_ok("growing_table")?;
    std::thread::sleep(RESIZED);
    let well = astray(lab, &mut ports, &AFTER).context("conn_lfactor=-8")?;
    ensure!(well == 0, "{well} clients were sent astray after the cure");

    // What became of the SYN is counted as it was, wherever the rest went.
    let attempts = BEFORE.iter().chain(&AFTER).copied().map(usize::from).sum();
    agent.expect(
        &Expected::none()
            .decision("scheduled", attempts)
            .decision("rescheduled", attempts),
    )?;
    agent.terminate()
}

/// In each round clients come for the first time and come back at once; how many of those that came
/// back were sent astray.
fn astray(lab: &Lab, ports: &mut RangeFrom<u16>, rounds: &[u16]) -> Result<usize> {
    let mut astray = 0;
    for clients in rounds {
        let plan = Lab::plan(ports.take(usize::from(*clients)).collect());
        director::set_weight(RS1, 1)?;
        lab.run_all_answered(&plan)?;
        director::set_weight(RS1, 0)?;
        astray += lab.run(&plan)?.failed().count();
    }
    Ok(astray)
}
