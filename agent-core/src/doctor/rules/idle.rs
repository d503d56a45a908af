//! Connections that are silent for longer than IPVS remembers them.

use super::super::facts::{Facts, Guess, Netns};
use super::ipvs::Director;
use super::remedy::entering;
use super::reuse::has_connections;
use super::verdict::{Advice, Judged, Lasting, Remedy, Risk, Verdict, need};

/// The probe has to arrive before the entry expires.
const MARGIN_SECONDS: u64 = 60;

pub(super) fn idle_timeout(facts: &Facts, netns: &Netns) -> Verdict {
    Director::judge(facts, netns, judge_idle_timeout)
}

fn judge_idle_timeout(here: Director<'_>) -> Judged {
    has_connections(here)?;
    let timeouts = need(&here.netns.timeouts, "IPVS's timeouts")?;
    let keepalive = *need(
        &here.netns.tcp_keepalive_seconds,
        "net.ipv4.tcp_keepalive_time",
    )?;
    let forgotten_after = timeouts.tcp_seconds;
    if keepalive < u64::from(forgotten_after) {
        return Ok(Verdict::Ok);
    }
    let wanted = keepalive.saturating_add(MARGIN_SECONDS);
    let set = |seconds: u64| format!("{}ipvsadm --set {seconds} 0 0", entering(here.netns));
    Ok(Advice::new(
        (Risk::Note, Director::sure(0, Guess::Unsure)),
        format!(
            "IPVS forgets a TCP connection after {forgotten_after} s without a packet; \
             net.ipv4.tcp_keepalive_time is {keepalive} s"
        ),
        format!(
            "keepalives of clients or servers at intervals below {forgotten_after} s (their own \
             setting, or net.ipv4.tcp_keepalive_time where they run), or a TCP timeout of IPVS \
             above {keepalive} s"
        ),
        "the next packet of a connection that was idle for longer meets no entry: this node \
         answers it with a RST or it is lost, and the client reads \"connection reset by peer\" or \
         waits. Pools of database connections, gRPC and message queues meet this first. A longer \
         timeout keeps more entries.",
    )
    .by(Remedy {
        commands: vec![set(wanted)],
        undo: vec![set(forgotten_after.into())],
        lasting: vec![Lasting {
            place: "the unit of what manages the services, as ExecStartPost=; kube-proxy: \
                    --ipvs-tcp-timeout"
                .to_owned(),
            text: set(wanted),
        }],
    })
    .into())
}
