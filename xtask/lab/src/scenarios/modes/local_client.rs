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
    // By fexit, a task that preempts another in the middle of a probe's program is not seen by that
    // program: a loss with a name (`program_recursion`), but no exact count. Left alone the agent
    // takes kprobes where that can happen; forced, only one connection at a time has no loss.
    if std::env::var("IPVS_LENS_ATTACH").as_deref() == Ok("fexit") {
        plan.workers = 1;
    }
    play_and_expect(ORDINARY, &plan, |plan| traffic::run(None, plan))
}
