//! `conn_reuse_mode=0`: a reused source port follows its old entry, whatever the server's weight.

use anyhow::{Result, ensure};

use crate::agent::Agent;
use crate::director::{self, Transport};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::topology::{REAL_SERVERS, RS1};

/// Ports that are used twice: ten for each real server by round robin.
const REUSED_PORTS: std::ops::Range<u16> = 40_000..40_030;
/// Ports used for the first time when a server is draining.
const FRESH_PORTS: std::ops::Range<u16> = 41_000..41_012;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    let agent = Agent::start()?;

    let first = lab.run_all_answered(&Lab::plan(REUSED_PORTS.collect()))?;
    director::set_weight(RS1, 0)?;
    let again = lab.run_all_answered(&Lab::plan(REUSED_PORTS.collect()))?;
    let fresh = lab.run_all_answered(&Lab::plan(FRESH_PORTS.collect()))?;

    let stale = first.answered_by(RS1.name);
    ensure!(
        stale == 10,
        "round robin gave {} {stale} of 30 connections, want 10",
        RS1.name
    );
    ensure!(
        again.answers() == first.answers(),
        "reused ports were answered by {:?}, want the same as at first: {:?}",
        again.answers(),
        first.answers()
    );
    ensure!(
        fresh.answered_by(RS1.name) == 0,
        "a fresh port reached {}, whose weight is 0",
        RS1.name
    );
    let mut expected = Expected::none()
        .decision("scheduled", first.attempts() + fresh.attempts())
        .came_back(again.attempts() - stale, stale, RS1);
    for rs in REAL_SERVERS {
        let answered = [&first, &again, &fresh].map(|report| report.answered_by(rs.name));
        expected = expected.new_connections(rs, answered.iter().sum());
    }
    agent.expect(&expected)?;
    agent.terminate()
}
