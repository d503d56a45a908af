//! The real server is taken out of the service while its entries live: IPVS drops every SYN that
//! follows one, without a word to the client.

use anyhow::{Result, ensure};

use crate::agent::Agent;
use crate::director::{self, Transport};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::topology::{REAL_SERVERS, RS1};
use crate::traffic::GIVE_UP;

/// Source ports of the client: two for each real server by round robin.
const PORTS: std::ops::Range<u16> = 40_000..40_006;
/// "Connection timed out".
const ETIMEDOUT: i32 = 110;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    let agent = Agent::start()?;
    let first = lab.run_all_answered(&Lab::plan(PORTS.collect()))?;
    let ports = first.ports_answered_by(RS1.name);
    ensure!(
        ports.len() == 2,
        "round robin gave {} {ports:?}, want 2 ports",
        RS1.name
    );

    director::delete_real_server(RS1)?;
    let mut plan = Lab::plan(ports);
    plan.workers = plan.ports.len();
    plan.timeout = GIVE_UP;
    let gone = lab.run(&plan)?;
    let errnos: Vec<_> = gone
        .failed()
        .filter_map(|c| Some(c.failure.as_ref()?.errno))
        .collect();
    ensure!(
        errnos == [ETIMEDOUT, ETIMEDOUT],
        "want errno {ETIMEDOUT} twice, got {gone:?}"
    );

    let syns = gone.syns()?;
    ensure!(syns > gone.attempts(), "no SYN was sent again: {gone:?}");
    agent.expect(
        &Expected::none()
            .decision("scheduled", first.attempts())
            .decision("dropped", gone.attempts())
            .syn_drops("ipvs_removed", syns),
    )?;
    agent.terminate()
}
