//! An IPv6 service whose real servers have IPv4 only: IPv6 packets in IPv4 packets.

use std::net::SocketAddr;

use anyhow::Result;

use super::{PORTS, play_and_expect};
use crate::lab::Lab;
use crate::paths::{self, CLIENT_V6, VIP_V6};
use crate::service::{Forwarding, Key, ORDINARY, Service};

/// Port of the service.
const PORT: u16 = 80;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    paths::add_ipv6(&mut lab.topology)?;
    paths::share_vip_v6(&mut lab.topology, PORT)?;
    let target = SocketAddr::new(VIP_V6.into(), PORT);
    let service = Service {
        key: Key::Tcp(target),
        forwarding: Forwarding::TunnelToV4,
        ..ORDINARY
    };
    let mut plan = Lab::plan(PORTS.collect());
    plan.source = CLIENT_V6.into();
    plan.target = target;
    play_and_expect(service, &plan, |plan| lab.run(plan))
}
