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
    // A packet that comes in, or a task that preempts, in the middle of a probe's program on the
    // same CPU is not seen by that program: a loss with a name (`program_recursion`,
    // `verdict_missed`), but no exact count. One connection at a time has none.
    plan.workers = 1;
    play_and_expect(ORDINARY, &plan, |plan| traffic::run(None, plan))
}
