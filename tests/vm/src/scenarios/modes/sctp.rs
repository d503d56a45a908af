//! The same over SCTP, whose INIT opens what a SYN opens over TCP.

use anyhow::Result;

use super::{FOLLOW, PORTS, play};
use crate::agent::Agent;
use crate::expect::Expected;
use crate::lab::Lab;
use crate::service::{Key, ORDINARY, Service};
use crate::topology::{REAL_SERVERS, VIP};
use crate::traffic::{Plan, Protocol};
use crate::{command, director};

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    command::line("modprobe sctp")?;
    for rs in REAL_SERVERS {
        lab.topology.serve_sctp(rs)?;
    }
    director::load(&FOLLOW)?;
    let service = Service {
        key: Key::Sctp(VIP.into()),
        ..ORDINARY
    };
    service.create(&REAL_SERVERS)?;
    let agent = Agent::start()?;
    let plan = Plan {
        protocol: Protocol::Sctp,
        ..Lab::plan(PORTS.collect())
    };
    let played = play(&service, &plan, |plan| lab.run(plan))?;
    agent.expect(&played.add_to(Expected::of(service)))?;
    agent.terminate()
}
