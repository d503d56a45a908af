//! New connections that reach a real server which should get none.

use super::super::facts::{Facts, Guess, Netns};
use super::ipvs::{Director, times};
use super::remedy::{self, Change};
use super::reuse;
use super::verdict::{Advice, Judged, Risk, Sure, Verdict, not_applicable};

const WHY_REUSE: &str = "IPVS keeps an entry for two minutes after a connection was closed; a \
    client whose source port comes back in that time is sent to the real server of the old entry, \
    also when its weight is 0 or it is gone: errors during every rollout.";

pub(super) fn reuse(facts: &Facts, netns: &Netns) -> Verdict {
    Director::judge(facts, netns, judge_reuse)
}

fn judge_reuse(here: Director<'_>) -> Judged {
    reuse::has_connections(here)?;
    let mode = here.sysctl("conn_reuse_mode")?;
    let nodest = here.sysctl("expire_nodest_conn")?;
    let seen = here.seen().stale_by("port_reuse");
    if mode != 0 {
        return Ok(reuse_of_vanished(here, mode, nodest, seen));
    }
    let (risk, sure) = match (nodest, here.facts.kernel.nodest_without_reuse()) {
        (0, _) => (Risk::High, Director::sure(seen, Guess::Yes)),
        (_, _) if seen > 0 => (Risk::High, Sure::Observed),
        (_, Guess::Yes) => return Ok(Verdict::Ok),
        (_, Guess::No) => (Risk::High, Sure::Configured),
        // Only this fix reschedules anything while conn_reuse_mode is 0.
        (_, Guess::Unsure) if here.seen().decided("rescheduled") > 0 => return Ok(Verdict::Ok),
        (_, Guess::Unsure) => (Risk::Medium, Sure::Unknown),
    };
    let found = format!(
        "conn_reuse_mode=0 and expire_nodest_conn={nodest}{}{}",
        kernel_says(here, nodest),
        times(seen)
    );
    let (want, remedy) = reuse::remedy(here, nodest)?;
    let why = format!("{WHY_REUSE}{}", here.who_sets_reuse_mode());
    Ok(Advice::new((risk, sure), found, want, why)
        .by(remedy)
        .into())
}

/// What the kernel makes of `expire_nodest_conn=1` with `conn_reuse_mode=0`.
fn kernel_says(here: Director<'_>, nodest: i64) -> String {
    if nodest == 0 {
        return String::new();
    }
    let release = here.facts.kernel.release.known();
    let release = release.map_or("this kernel", String::as_str);
    match here.facts.kernel.nodest_without_reuse() {
        Guess::No => format!(", which is not enough on {release}"),
        Guess::Unsure => format!(", and whether that is enough cannot be derived from {release}"),
        Guess::Yes => String::new(),
    }
}

/// With `conn_reuse_mode` set, what is left are clients that vanished without closing.
fn reuse_of_vanished(here: Director<'_>, mode: i64, nodest: i64, seen: u64) -> Verdict {
    if nodest != 0 || seen == 0 {
        return Verdict::Ok;
    }
    let change = Change::number("net.ipv4.vs.expire_nodest_conn", nodest, 1);
    Advice::new(
        (Risk::Low, Sure::Observed),
        format!(
            "conn_reuse_mode={mode} and expire_nodest_conn=0{}",
            times(seen)
        ),
        "expire_nodest_conn=1",
        "a client that vanished without closing left an entry that counts as established, and \
         those conn_reuse_mode does not touch: its source port leads to the old real server, also \
         when its weight is 0",
    )
    .by(remedy::sysctls(here.facts, here.netns, &[change]))
    .into()
}

pub(super) fn persistence(facts: &Facts, netns: &Netns) -> Verdict {
    Director::judge(facts, netns, judge_persistence)
}

fn judge_persistence(here: Director<'_>) -> Judged {
    let persistent = here.table()?.persistent;
    if persistent == 0 {
        return Err(not_applicable("no service is persistent"));
    }
    if here.sysctl("expire_quiescent_template")? != 0 {
        return Ok(Verdict::Ok);
    }
    let seen = here.seen().stale_by("persistence");
    let change = Change::number("net.ipv4.vs.expire_quiescent_template", 0, 1);
    Ok(Advice::new(
        (Risk::Medium, Director::sure(seen, Guess::Yes)),
        format!(
            "expire_quiescent_template=0, services with persistence: {persistent}{}",
            times(seen)
        ),
        "expire_quiescent_template=1",
        "a persistence template ties a client to its real server for every new connection, and \
         each renews it: a real server of weight 0 never drains. With 1, the next new source port \
         is rescheduled; a reused source port still follows its own entry.",
    )
    .by(remedy::sysctls(here.facts, here.netns, &[change]))
    .into())
}
