//! A second address and port for the same real servers, as a NodePort is: counted apart.

use std::net::{SocketAddr, SocketAddrV4};

use anyhow::Result;

use super::{FOLLOW, PORTS, play};
use crate::agent::Agent;
use crate::director;
use crate::expect::Expected;
use crate::lab::Lab;
use crate::service::{Key, ORDINARY, Service};
use crate::topology::{CLIENT_GATEWAY, REAL_SERVERS};

/// The director's own address, and a port as Kubernetes gives them.
const NODE_PORT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(CLIENT_GATEWAY, 30_080));
/// Ports that reach the second address; the real servers see the same client from both.
const OTHER_PORTS: std::ops::Range<u16> = 41_000..41_006;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    let second = Service {
        key: Key::Tcp(NODE_PORT),
        ..ORDINARY
    };
    director::load(&FOLLOW)?;
    ORDINARY.create(&REAL_SERVERS)?;
    second.create(&REAL_SERVERS)?;
    let agent = Agent::start()?;
    let by_vip = play(&ORDINARY, &Lab::plan(PORTS.collect()), |plan| lab.run(plan))?;
    let mut plan = Lab::plan(OTHER_PORTS.collect());
    plan.target = NODE_PORT;
    let by_node_port = play(&second, &plan, |plan| lab.run(plan))?;
    agent.expect(
        &by_vip
            .add_to(Expected::none())
            .and(by_node_port.add_to(Expected::of(second))),
    )?;
    agent.terminate()
}
