//! IP-in-IP tunnel: real servers unwrap the packet, own the VIP and answer the client themselves.

use anyhow::Result;

use super::{PORTS, play_and_expect};
use crate::lab::Lab;
use crate::paths;
use crate::service::{Forwarding, ORDINARY, Service};

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    let service = Service {
        forwarding: Forwarding::Tunnel,
        ..ORDINARY
    };
    paths::share_vip(&mut lab.topology, service.forwarding)?;
    play_and_expect(service, &Lab::plan(PORTS.collect()), |plan| lab.run(plan))
}
