//! SYNs lost behind the director, with nothing wrong on it: the delays are not its fault.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::agent::{self, Agent};
use crate::command;
use crate::director::{self, Transport};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::paths;
use crate::topology::REAL_SERVERS;

/// Source ports of the client: two for each real server by round robin.
const PORTS: std::ops::Range<u16> = 40_000..40_006;
/// Until every first SYN is lost, and well before the first is sent again (1 s).
const OUTAGE: Duration = Duration::from_millis(500);

/// Source ports where the wire is bad: so many that one answer at least is lost, but for one run
/// in a million.
const LOSSY_PORTS: std::ops::Range<u16> = 40_000..40_048;
/// One connection to each real server while the wire is good.
const KNOWING_PORTS: std::ops::Range<u16> = 41_000..41_003;
/// Share of what the real servers send that is lost.
const LOSS: &str = "25%";
/// Long enough for the kernel to send what is lost nine times.
const LOSSY_TIMEOUT: Duration = Duration::from_mins(1);
/// Findings that must not be reported here.
const KINDS: [&str; 5] = [
    "stale connection",
    "stale flow",
    "connect delayed",
    "connect blocked",
    "SYN dropped",
];

/// A wire that loses much of what comes back, and nothing wrong with IPVS.
pub fn lossy_wire(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "1"), ("expire_nodest_conn", "1")])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    let agent = Agent::start()?;
    // ARP has no second try for long: the Ethernet addresses are to be known before.
    let known = lab.run_all_answered(&Lab::plan(KNOWING_PORTS.collect()))?;
    for rs in REAL_SERVERS {
        let netns = rs.name;
        command::line(&format!(
            "tc -n {netns} qdisc add dev eth0 root netem loss {LOSS}"
        ))?;
    }
    let mut plan = Lab::plan(LOSSY_PORTS.collect());
    plan.workers = plan.ports.len();
    plan.timeout = LOSSY_TIMEOUT;
    let report = lab.run_all_answered(&plan)?;
    let again = usize::try_from(report.syn_retransmits())?;
    ensure!(again > 0, "no SYN was sent again: {report:?}");
    let mut expected = Expected::none()
        .decision("scheduled", known.attempts() + report.attempts())
        .retransmits("unknown", again);
    for rs in REAL_SERVERS {
        let given = known.answered_by(rs.name) + report.answered_by(rs.name);
        expected = expected.new_connections(rs, given);
    }
    agent.expect(&expected)?;
    agent.terminate()?;
    agent::ensure_not_logged(&KINDS)
}

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
        .retransmits("unknown", again);
    for rs in REAL_SERVERS {
        expected = expected.new_connections(rs, report.answered_by(rs.name));
    }
    agent.expect(&expected)?;
    agent.terminate()
}
