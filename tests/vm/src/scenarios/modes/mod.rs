//! One story for every way of forwarding: scheduled, reused, and reused though its server drains.

mod direct_routing;
mod fwmark;
mod ipv6;
mod ipv6_tunnel;
mod local_client;
mod other_netns;
mod sctp;
mod second_vip;
mod tunnel;

use std::ops::Range;

use anyhow::{Result, ensure};

pub use direct_routing::run as direct_routing;
pub use fwmark::run as fwmark;
pub use ipv6::run as ipv6;
pub use ipv6_tunnel::run as ipv6_tunnel;
pub use local_client::run as local_client;
pub use other_netns::run as other_netns;
pub use sctp::run as sctp;
pub use second_vip::run as second_vip;
pub use tunnel::run as tunnel;

use crate::agent::Agent;
use crate::director;
use crate::expect::Expected;
use crate::report::Report;
use crate::service::Service;
use crate::topology::{REAL_SERVERS, RS1};
use crate::traffic::Plan;

/// Source ports of the client: four for each real server by round robin.
pub const PORTS: Range<u16> = 40_000..40_012;
/// The parameters with which every reused port follows its old entry.
pub const FOLLOW: [(&str, &str); 2] = [("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")];

/// What the traffic generator saw of one service, by what IPVS must have decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Played {
    /// Attempts from ports never used before.
    pub scheduled: usize,
    /// Attempts that followed their entry to a server in service.
    pub reused: usize,
    /// Attempts that followed their entry to the draining server.
    pub stale: usize,
    /// Answers of each real server.
    answers: [usize; 3],
}

impl Played {
    /// What the agent must have counted on `expected`'s service, and nothing else.
    pub fn add_to(&self, mut expected: Expected) -> Expected {
        for (rs, count) in REAL_SERVERS.into_iter().zip(self.answers) {
            expected = expected.new_connections(rs, count);
        }
        expected
            .decision("scheduled", self.scheduled)
            .came_back(self.reused, self.stale, RS1)
    }

    /// Both together.
    pub fn and(self, other: Self) -> Self {
        let mut answers = self.answers;
        for (sum, more) in answers.iter_mut().zip(other.answers) {
            *sum += more;
        }
        Self {
            scheduled: self.scheduled + other.scheduled,
            reused: self.reused + other.reused,
            stale: self.stale + other.stale,
            answers,
        }
    }
}

/// Uses every port of `plan` once, drains the first real server, and uses every port again.
///
/// # Errors
/// The traffic did not go where IPVS must send it; the agent is not asked here.
pub fn play(
    service: &Service,
    plan: &Plan,
    run: impl Fn(&Plan) -> Result<Report>,
) -> Result<Played> {
    let first = run(plan)?;
    first.ensure_all_answered()?;
    service.set_weight(RS1, 0)?;
    let again = run(plan)?;
    again.ensure_all_answered()?;
    let retransmits = first.syn_retransmits() + again.syn_retransmits();
    ensure!(
        retransmits == 0,
        "{retransmits} SYNs were sent again, want none: {first:?}"
    );
    let share = plan.ports.len() / REAL_SERVERS.len();
    for rs in REAL_SERVERS {
        ensure!(
            first.answered_by(rs.name) == share,
            "round robin gave {} {} connections, want {share}",
            rs.name,
            first.answered_by(rs.name)
        );
    }
    ensure!(
        again.answers() == first.answers(),
        "reused ports were answered by {:?}, want the same as at first: {:?}",
        again.answers(),
        first.answers()
    );
    Ok(Played {
        scheduled: first.attempts(),
        reused: again.attempts() - share,
        stale: share,
        answers: REAL_SERVERS.map(|rs| first.answered_by(rs.name) + again.answered_by(rs.name)),
    })
}

/// Plays the story on one service and holds the agent against it.
///
/// # Errors
/// As [`play`], or the agent's counts differ.
pub fn play_and_expect(
    service: Service,
    plan: &Plan,
    run: impl Fn(&Plan) -> Result<Report>,
) -> Result<()> {
    director::load(&FOLLOW)?;
    service.create(&REAL_SERVERS)?;
    let agent = Agent::start()?;
    let played = play(&service, plan, run)?;
    agent.expect(&played.add_to(Expected::of(service)))?;
    agent.terminate()
}
