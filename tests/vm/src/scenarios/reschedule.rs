//! `conn_reuse_mode=1`: IPVS expires the old entry of a reused port and reschedules.

use anyhow::{Result, ensure};

use crate::agent::Agent;
use crate::director::{self, Transport};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::topology::{REAL_SERVERS, RS1};

/// Ports that are used twice.
const PORTS: std::ops::Range<u16> = 40_000..40_030;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "1"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    let agent = Agent::start()?;

    let first = lab.run_all_answered(&Lab::plan(PORTS.collect()))?;
    director::set_weight(RS1, 0)?;
    let again = lab.run_all_answered(&Lab::plan(PORTS.collect()))?;

    let old = first.answered_by(RS1.name);
    ensure!(
        old == 10,
        "round robin gave {} {old} of 30 connections, want 10",
        RS1.name
    );
    ensure!(
        again.answered_by(RS1.name) == 0,
        "{} connections reached {}, whose weight is 0; want none",
        again.answered_by(RS1.name),
        RS1.name
    );
    ensure!(
        again.syn_retransmits() == 0,
        "{} SYNs were sent again, want none",
        again.syn_retransmits()
    );
    agent.expect(
        &Expected::none()
            .decision("scheduled", first.attempts())
            .decision("rescheduled", again.attempts()),
    )?;
    agent.terminate()
}
