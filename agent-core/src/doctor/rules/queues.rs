//! Queues of connections that wait to be accepted.

use super::super::facts::{Facts, Netns};
use super::remedy::{self, Change};
use super::verdict::{Advice, Judged, Risk, Sure, Verdict, need};

/// The kernel's own bound since 5.4.
const SOMAXCONN: u64 = 4096;

pub(super) fn accept_queue(facts: &Facts, netns: &Netns) -> Verdict {
    judge(facts, netns).unwrap_or_else(|early| early)
}

fn judge(facts: &Facts, netns: &Netns) -> Judged {
    let somaxconn = *need(&netns.queues.somaxconn, "net.core.somaxconn")?;
    let overflows = netns.queues.overflows.known().copied().unwrap_or(0);
    if somaxconn >= SOMAXCONN {
        return Ok(app_backlog(overflows));
    }
    let sure = if overflows > 0 {
        Sure::Observed
    } else {
        Sure::Configured
    };
    let change = Change::text(
        "net.core.somaxconn",
        somaxconn.to_string(),
        SOMAXCONN.to_string(),
    );
    Ok(Advice::new(
        (Risk::Low, sure),
        format!("somaxconn={somaxconn}, accept queues were full {overflows} times since boot"),
        format!("somaxconn={SOMAXCONN}"),
        "no accept queue may be longer, whatever its program asks for; a SYN that meets a full one \
         is dropped, and the client waits 1 s. Programs take up the new value when they listen \
         again.",
    )
    .by(remedy::sysctls(facts, netns, &[change]))
    .into())
}

/// The bound is high enough: a queue that was full all the same is as long as its program asked.
fn app_backlog(overflows: u64) -> Verdict {
    if overflows == 0 {
        return Verdict::Ok;
    }
    Advice::new(
        (Risk::Note, Sure::Observed),
        format!("accept queues were full {overflows} times since boot"),
        "a longer backlog in the program that listens, or one that accepts faster (ss -ltn shows \
         Recv-Q against Send-Q)",
        "a SYN that meets a full accept queue is dropped, and the client waits 1 s",
    )
    .into()
}
