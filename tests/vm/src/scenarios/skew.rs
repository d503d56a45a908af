//! A new real server starves while old entries are followed, and is fed once they are not; what
//! is merely open for long is no skew.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::agent::Agent;
use crate::director::{self, Transport};
use crate::lab::Lab;
use crate::socket::Close;
use crate::topology::{RS1, RS2, RS3};
use crate::wait;

/// Ports that come back, half of them of each of the first two real servers.
const PORTS: std::ops::Range<u16> = 40_000..40_060;
/// How often they come back: 120 connections, 40 for each of three real servers.
const ROUNDS: u32 = 2;
/// Ports of connections that stay open, all on the first real server.
const OPEN_PORTS: std::ops::Range<u16> = 41_000..41_030;
/// A few readings, under emulation.
const READ_LIMIT: Duration = Duration::from_secs(20);

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Tcp, &[RS1])?;
    // Long-lived connections, from before anybody else was there.
    let mut vanish = Lab::plan(OPEN_PORTS.collect());
    vanish.close = Close::Vanish;
    lab.run_all_answered(&vanish)?;
    director::add_real_server(RS2)?;
    lab.run_all_answered(&Lab::plan(PORTS.collect()))?;
    director::add_real_server(RS3)?;

    let agent = started()?;
    let starved = come_back(lab)?;
    ensure!(starved[2] == 0, "mode 0 fed a new server: {starved:?}");
    // A third of 120 connections was owed to the third real server.
    ensure_skew(&agent, 1, [0.0, 1.0 / 3.0])?;
    agent.terminate()?;

    // The same ports once more, with thirty connections still open on the first real server.
    director::set("conn_reuse_mode", "1")?;
    let agent = started()?;
    let fed = come_back(lab)?;
    ensure!(fed == [40, 40, 40], "mode 1 gave {fed:?} of 120");
    ensure_skew(&agent, 0, [0.0, 0.0])?;
    agent.terminate()
}

/// Every port again, a few times; who answered how many.
fn come_back(lab: &Lab) -> Result<[usize; 3]> {
    let mut again = Lab::plan(PORTS.collect());
    again.rounds = ROUNDS;
    let report = lab.run_all_answered(&again)?;
    Ok([RS1, RS2, RS3].map(|rs| report.answered_by(rs.name)))
}

fn started() -> Result<Agent> {
    let mut agent = Agent::spawn_with(&["--table-interval-s", "1"])?;
    agent.wait_ready()?;
    Ok(agent)
}

/// Waits for so many starved real servers, and these shares of new connections in the wrong place:
/// scheduled, reused.
fn ensure_skew(agent: &Agent, starved: u64, shares: [f64; 2]) -> Result<()> {
    wait::until("the skew to be as it should", READ_LIMIT, || {
        let scrape = agent.scrape()?;
        let found = scrape.count(STARVED, &ORDINARY_LABELS)?;
        let shown = scrape.select(STARVED, &ORDINARY_LABELS).len();
        ensure!(
            (shown, found) == (1, starved),
            "{shown} series say {found} starved, want one that says {starved}"
        );
        for (part, share) in ["scheduled", "reused"].into_iter().zip(shares) {
            let labels = [&ORDINARY_LABELS[..], &[("part", part)]].concat();
            let found = scrape.sum("ipvs_lens_skew_ratio", &labels);
            ensure!(
                (found - share).abs() < 1e-9,
                "skew of {part} is {found}, want {share}"
            );
        }
        Ok(())
    })
}

const STARVED: &str = "ipvs_lens_starved_real_servers";
const ORDINARY_LABELS: [(&str, &str); 3] = [
    ("proto", "TCP"),
    ("local_address", "10.96.0.10"),
    ("local_port", "80"),
];
