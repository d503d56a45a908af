//! SYNs lost behind the director, with nothing wrong on it: the delays are not its fault.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::agent::Agent;
use crate::director::{self, Transport};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::paths;
use crate::topology::REAL_SERVERS;

/// Source ports of the client: two for each real server by round robin.
const PORTS: std::ops::Range<u16> = 40_000..40_006;
/// Until every first SYN is lost, and well before the first is sent again (1 s).
const OUTAGE: Duration = Duration::from_millis(500);

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "1"), ("expire_nodest_conn", "1")])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    let agent = Agent::start()?;
    let swallowed: Vec<_> = REAL_SERVERS
        .into_iter()
        .map(paths::swallow)
        .collect::<Result<_>>()?;
    let mut plan = Lab::plan(PORTS.collect());
    plan.workers = plan.ports.len();
    let connecting = lab.start(plan);
    std::thread::sleep(OUTAGE);
    for outage in swallowed {
        outage.remove()?;
    }
    let report = connecting.finish()?;
    report.ensure_all_answered()?;
    let again = usize::try_from(report.syn_retransmits())?;
    ensure!(
        again >= report.attempts(),
        "{again} SYNs of {} attempts were sent again, want one each at least",
        report.attempts()
    );
    let mut expected = Expected::none()
        .decision("scheduled", report.attempts())
        .retransmits("elsewhere", again);
    for rs in REAL_SERVERS {
        expected = expected.new_connections(rs, report.answered_by(rs.name));
    }
    agent.expect(&expected)?;
    agent.terminate()
}
