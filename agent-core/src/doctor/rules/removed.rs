//! Clients of a real server that is removed or drains.

use super::super::facts::{ControllerKind, Facts, Guess, Netns};
use super::ipvs::{Director, times};
use super::remedy::{self, Change, entering};
use super::verdict::{Advice, Judged, Lasting, Remedy, Risk, Verdict, need, not_applicable};

/// How long a silent UDP client may stay tied to its real server: twice what netfilter allows a
/// one-way flow (30 s), a fifth of what IPVS does by default (300 s).
const UDP_SECONDS_MAX: u32 = 60;

pub(super) fn removed_server(facts: &Facts, netns: &Netns) -> Verdict {
    Director::judge(facts, netns, judge_removed_server)
}

fn judge_removed_server(here: Director<'_>) -> Judged {
    if here.sysctl("expire_nodest_conn")? != 0 {
        return Ok(Verdict::Ok);
    }
    let table = here.table()?;
    let seen = here.seen().dropped_by("ipvs_removed");
    let udp = match (
        table.of("UDP") > 0 || table.of("FWM") > 0,
        &here.netns.timeouts,
    ) {
        (false, _) => String::new(),
        (true, timeouts) => format!(
            " A UDP client that keeps its source port, as DNS forwarders do, stays cut off for {} \
             after its last datagram.",
            timeouts.known().map_or_else(
                || "as long as IPVS's UDP timeout".to_owned(),
                |timeouts| format!("up to {} s", timeouts.udp_seconds)
            )
        ),
    };
    let change = Change::number("net.ipv4.vs.expire_nodest_conn", 0, 1);
    Ok(Advice::new(
        (Risk::Medium, Director::sure(seen, Guess::Yes)),
        format!("expire_nodest_conn=0{}", times(seen)),
        "expire_nodest_conn=1",
        format!(
            "entries of a real server that was taken out of its service live on, and IPVS drops \
             every packet that meets one without a word to the client.{udp} With \
             conntrack=1 one packet per entry is still lost, which is the lesser evil.",
        ),
    )
    .by(remedy::sysctls(here.facts, here.netns, &[change]))
    .into())
}

pub(super) fn udp_timeout(facts: &Facts, netns: &Netns) -> Verdict {
    Director::judge(facts, netns, judge_udp_timeout)
}

fn judge_udp_timeout(here: Director<'_>) -> Judged {
    let table = here.table()?;
    let services = table.of("UDP").saturating_sub(table.one_packet);
    if services == 0 {
        return Err(not_applicable(
            "no UDP service, but for those that schedule every packet",
        ));
    }
    let drains = [
        ControllerKind::KubeRouter,
        ControllerKind::Keepalived,
        ControllerKind::DockerSwarm,
    ];
    let drains = drains.iter().any(|kind| here.facts.has_controller(*kind));
    if here.facts.has_controller(ControllerKind::KubeProxy) && !drains {
        return Err(not_applicable(
            "kube-proxy removes UDP real servers at once, it does not drain them",
        ));
    }
    let timeouts = need(&here.netns.timeouts, "IPVS's timeouts")?;
    if timeouts.udp_seconds <= UDP_SECONDS_MAX {
        return Ok(Verdict::Ok);
    }
    let set = |seconds: u32| format!("{}ipvsadm --set 0 0 {seconds}", entering(here.netns));
    Ok(Advice::new(
        (Risk::Low, Director::sure(0, Guess::Yes)),
        format!(
            "UDP entries live {} s after the last datagram; UDP services: {services}",
            timeouts.udp_seconds
        ),
        format!("{UDP_SECONDS_MAX} s"),
        "no setting moves a UDP client away from a real server of weight 0: every datagram renews \
         its entry. A shorter timeout frees those that pause; for the others remove the real \
         server instead of setting its weight to 0.",
    )
    .by(Remedy {
        commands: vec![set(UDP_SECONDS_MAX)],
        undo: vec![set(timeouts.udp_seconds)],
        lasting: vec![Lasting {
            place: "the unit of what manages the services, as ExecStartPost=".to_owned(),
            text: set(UDP_SECONDS_MAX),
        }],
    })
    .into())
}
