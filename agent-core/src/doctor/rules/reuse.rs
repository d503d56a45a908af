//! What becomes of a source port that comes back while its old entry lives.

use super::super::facts::{Facts, Guess, Netns};
use super::ipvs::{Director, times};
use super::remedy::{self, Change};
use super::verdict::{Advice, Judged, Remedy, Risk, Verdict, not_applicable};

const MODE: &str = "net.ipv4.vs.conn_reuse_mode";
const NODEST: &str = "net.ipv4.vs.expire_nodest_conn";
const CONNTRACK: &str = "net.ipv4.vs.conntrack";

/// Goes on where a service may carry connections: UDP has none that could be reused.
pub(super) fn has_connections(here: Director<'_>) -> Result<(), Verdict> {
    let table = here.table()?;
    if table.of("UDP") == table.service_count() {
        return Err(not_applicable("every service is UDP"));
    }
    Ok(())
}

pub(super) fn uneven_reuse(facts: &Facts, netns: &Netns) -> Verdict {
    Director::judge(facts, netns, judge_uneven_reuse)
}

fn judge_uneven_reuse(here: Director<'_>) -> Judged {
    has_connections(here)?;
    if here.sysctl("conn_reuse_mode")? != 0 {
        return Ok(Verdict::Ok);
    }
    let seen = here.seen().decided("reused");
    let nodest = here.sysctl("expire_nodest_conn")?;
    let why = format!(
        "a source port that comes back follows its old entry past the scheduler: busy clients stay \
         on the real servers they know, and one that was added gets next to nothing until they \
         pause for two minutes.{}",
        here.who_sets_reuse_mode()
    );
    let finding = (Risk::Low, Director::sure(seen, Guess::Yes));
    let found = format!("conn_reuse_mode=0{}", times(seen));
    if blocks_reuse(here)? {
        let want = "a kernel that reschedules in spite of conntrack (5.9), then conn_reuse_mode=1";
        return Ok(Advice::new((Risk::Note, finding.1), found, want, why).into());
    }
    let (want, remedy) = remedy(here, nodest)?;
    Ok(Advice::new(finding, found, want, why).by(remedy).into())
}

/// Whether `conn_reuse_mode=1` would make this kernel drop every reused SYN.
pub(super) fn blocks_reuse(here: Director<'_>) -> Result<bool, Verdict> {
    if here.facts.kernel.reuses_with_conntrack() == Guess::Yes || here.sysctl("conntrack")? == 0 {
        return Ok(false);
    }
    here.tracks_connections()
}

/// The cure of `conn_reuse_mode=0`: what is wanted, and how it is done.
pub(super) fn remedy(here: Director<'_>, nodest: i64) -> Result<(&'static str, Remedy), Verdict> {
    let change = |changes: &[Change]| remedy::sysctls(here.facts, here.netns, changes);
    if !blocks_reuse(here)? {
        return Ok(("conn_reuse_mode=1", change(&[Change::number(MODE, 0, 1)])));
    }
    if nodest == 0 && here.facts.kernel.nodest_without_reuse() == Guess::Yes {
        let changes = [Change::number(NODEST, 0, 1)];
        return Ok(("expire_nodest_conn=1", change(&changes)));
    }
    if here.needs_conntrack().is_some() {
        let want = "kernel 5.9 or later; until then there is a price to either setting: with \
                    conn_reuse_mode=1 this kernel drops the SYN, and the client waits 1 s";
        return Ok((want, Remedy::default()));
    }
    let changes = [Change::number(CONNTRACK, 1, 0), Change::number(MODE, 0, 1)];
    let want = "conntrack=0 and conn_reuse_mode=1, where no rule needs the state of this traffic";
    Ok((want, change(&changes)))
}
