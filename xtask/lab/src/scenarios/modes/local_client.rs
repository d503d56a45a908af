//! The client is the director itself: its SYNs meet IPVS where local packets leave.

use anyhow::Result;

use super::{PORTS, play_and_expect};
use crate::lab::Lab;
use crate::service::ORDINARY;
use crate::topology::CLIENT_GATEWAY;
use crate::traffic;

/// Plays the story.
pub fn run(_: &mut Lab) -> Result<()> {
    let mut plan = Lab::plan(PORTS.collect());
    plan.source = CLIENT_GATEWAY.into();
    play_and_expect(ORDINARY, &plan, |plan| traffic::run(None, plan))
}
