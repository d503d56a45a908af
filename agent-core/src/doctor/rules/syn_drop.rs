//! IPVS drops the SYN of a reused port because netfilter still knows the old connection.

use super::super::facts::{Facts, Guess, Netns, Seen};
use super::ipvs::{Director, times};
use super::remedy::{self, Change};
use super::reuse::has_connections;
use super::verdict::{Advice, Judged, Remedy, Risk, Sure, Verdict, not_applicable};

pub(super) fn syn_drop(facts: &Facts, netns: &Netns) -> Verdict {
    Director::judge(facts, netns, judge)
}

fn judge(here: Director<'_>) -> Judged {
    has_connections(here)?;
    if here.sysctl("conntrack")? == 0 {
        return Ok(Verdict::Ok);
    }
    if !here.tracks_connections()? {
        return Err(not_applicable(
            "net.ipv4.vs.conntrack=1 has no effect: netfilter tracks no connection in this namespace",
        ));
    }
    let mode = here.sysctl("conn_reuse_mode")?;
    let nodest = here.sysctl("expire_nodest_conn")?;
    if mode != 0
        && let Some(advice) = every_reuse(here, mode, nodest)
    {
        return Ok(advice);
    }
    Ok(if nodest == 0 {
        Verdict::Ok
    } else {
        of_the_vanished(here)
    })
}

/// Kernels before 5.9 drop at every reuse they would reschedule.
fn every_reuse(here: Director<'_>, mode: i64, nodest: i64) -> Option<Verdict> {
    let seen = here.seen();
    let dropped = seen.dropped_by("ipvs_reuse");
    let (risk, sure) = match here.facts.kernel.reuses_with_conntrack() {
        _ if drops_like_an_old_one(&seen, nodest) => (Risk::High, Sure::Observed),
        Guess::Yes => return None,
        Guess::No => (Risk::High, Director::sure(dropped, Guess::No)),
        Guess::Unsure if dropped > 0 => (Risk::High, Sure::Observed),
        Guess::Unsure if seen.decided("rescheduled") > 0 => return None,
        Guess::Unsure => (Risk::Medium, Sure::Unknown),
    };
    let release = here.facts.kernel.release.known();
    let release = release.map_or("this kernel", String::as_str);
    let found = format!(
        "conntrack=1 and conn_reuse_mode={mode} on {release}{}",
        times(dropped)
    );
    let (want, changes) = match here.needs_conntrack() {
        None => (
            "conntrack=0, where no rule needs the state of this traffic, or kernel 5.9 or later",
            vec![Change::number("net.ipv4.vs.conntrack", 1, 0)],
        ),
        Some(_) => (
            "conn_reuse_mode=0 with expire_nodest_conn=1, or kernel 5.9 or later",
            without_reuse(mode, nodest),
        ),
    };
    let why = format!(
        "when a source port comes back, this kernel tries to reschedule it, finds netfilter's \
         entry of the old connection, and drops the SYN: every such connect takes 1 s more. \
         Entries made before a change keep to what they were made with.{}",
        here.who_sets_reuse_mode()
    );
    let remedy = remedy::sysctls(here.facts, here.netns, &changes);
    Some(
        Advice::new((risk, sure), found, want, why)
            .by(remedy)
            .into(),
    )
}

/// Whether reuse was seen to be dropped and never to be rescheduled, whatever the version says.
///
/// With `expire_nodest_conn=1` a few drops may be those of clients that vanished.
fn drops_like_an_old_one(seen: &Seen, nodest: i64) -> bool {
    let dropped = seen.dropped_by("ipvs_reuse");
    let enough = if nodest == 0 {
        1
    } else {
        DROPS_OF_THE_VANISHED
    };
    dropped >= enough && seen.decided("rescheduled") == 0
}

/// Clients that vanish, come back with the same port and had a server that drains now are few.
const DROPS_OF_THE_VANISHED: u64 = 20;

fn without_reuse(mode: i64, nodest: i64) -> Vec<Change> {
    let mut changes = vec![Change::number("net.ipv4.vs.conn_reuse_mode", mode, 0)];
    if nodest == 0 {
        changes.push(Change::number("net.ipv4.vs.expire_nodest_conn", 0, 1));
    }
    changes
}

/// What every kernel still drops: the SYN of a client that vanished, to a server of weight 0.
fn of_the_vanished(here: Director<'_>) -> Verdict {
    let seen = here.seen().dropped_by("ipvs_reuse");
    let sure = Director::sure(seen, Guess::Yes);
    let found = format!(
        "conntrack=1 and expire_nodest_conn=1 where netfilter tracks connections{}",
        times(seen)
    );
    let why = "when the source port of a client that vanished without closing comes back, and its \
               real server has weight 0, netfilter's entry of the old connection makes IPVS drop \
               one SYN: that connect takes 1 s more. Entries made before a change keep to what \
               they were made with.";
    let Some(who) = here.needs_conntrack() else {
        let change = Change::number("net.ipv4.vs.conntrack", 1, 0);
        let want = "conntrack=0, where no firewall rule matches the traffic of virtual services by \
           its state";
        return Advice::new((Risk::Low, sure), found, want, why)
            .by(remedy::sysctls(here.facts, here.netns, &[change]))
            .into();
    };
    let want = format!(
        "as it is: {who} needs conntrack=1, and expire_nodest_conn=0 would be worse; watch \
         ipvs_lens_syn_drops_total{{cause=\"ipvs_reuse\"}}"
    );
    Advice::new((Risk::Note, sure), found, want, why)
        .by(Remedy::default())
        .into()
}
