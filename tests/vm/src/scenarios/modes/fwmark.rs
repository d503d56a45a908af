//! A service by firewall mark: it has no address, and its series say so.

use anyhow::Result;

use super::{PORTS, play_and_expect};
use crate::director;
use crate::lab::Lab;
use crate::service::{Key, ORDINARY, Service};
use crate::topology::VIP;

/// The mark; its two bytes differ, so that a wrong order shows.
const MARK: u32 = 0x0102;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::mark(VIP, MARK)?;
    let service = Service {
        key: Key::Mark(MARK),
        ..ORDINARY
    };
    play_and_expect(service, &Lab::plan(PORTS.collect()), |plan| lab.run(plan))
}
