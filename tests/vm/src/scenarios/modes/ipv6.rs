//! The client, the service and the real servers speak IPv6 (NAT).

use std::net::SocketAddr;

use anyhow::Result;

use super::{PORTS, play_and_expect};
use crate::lab::Lab;
use crate::paths::{self, CLIENT_V6, VIP_V6};
use crate::service::{Key, ORDINARY, Service};

/// Port of the service.
const PORT: u16 = 80;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    paths::add_ipv6(&mut lab.topology)?;
    let target = SocketAddr::new(VIP_V6.into(), PORT);
    let service = Service {
        key: Key::Tcp(target),
        ..ORDINARY
    };
    let mut plan = Lab::plan(PORTS.collect());
    plan.source = CLIENT_V6.into();
    plan.target = target;
    play_and_expect(service, &plan, |plan| lab.run(plan))
}
