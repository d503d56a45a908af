//! A table of connections that is resized under the connections in it (7.2).

use super::super::facts::{Facts, Guess, Netns};
use super::ipvs::Director;
use super::remedy::{self, Change};
use super::reuse::has_connections;
use super::verdict::{Advice, Judged, Risk, Verdict, need, not_applicable};

const FACTOR: &str = "net.ipv4.vs.conn_lfactor";

/// The factor with which a table is largest for its connections: Documentation/networking/
/// ipvs-sysctl.rst, 7.2.
const LARGEST_FACTOR: i64 = -8;

/// The smallest table there is, as a power of 2 (`IP_VS_CONN_TAB_MIN_BITS`, include/net/ip_vs.h).
const SMALLEST_TABLE_BITS: u64 = 8;

pub(super) fn growing_table(facts: &Facts, netns: &Netns) -> Verdict {
    Director::judge(facts, netns, judge)
}

fn judge(here: Director<'_>) -> Judged {
    has_connections(here)?;
    let Some(factor) = here.optional("conn_lfactor")? else {
        let why = "the table of connections has one size on this kernel";
        return Err(not_applicable(why));
    };
    let mode = here.sysctl("conn_reuse_mode")?;
    let nodest = here.sysctl("expire_nodest_conn")?;
    if (mode == 0 && nodest == 0) || factor <= LARGEST_FACTOR {
        return Ok(Verdict::Ok);
    }
    if *need(&here.facts.conn_tab_bits, "conn_tab_bits of ip_vs")? <= SMALLEST_TABLE_BITS {
        return Ok(Verdict::Ok);
    }
    let finding = (Risk::Note, Director::sure(0, Guess::Unsure));
    let found = format!(
        "conn_lfactor={factor}, conn_reuse_mode={mode}, expire_nodest_conn={nodest}: the table of \
         connections grows and shrinks while IPVS reschedules reused source ports"
    );
    let want = "conn_lfactor=-8: the table is large from few connections on, and stays so";
    let why = "while it is resized, 7.2 finds the old entry of a reused source port before the new \
               one: the SYN goes to one real server, what follows it to another, and the client \
               is reset or waits in vain";
    let change = [Change::number(FACTOR, factor, LARGEST_FACTOR)];
    let remedy = remedy::sysctls(here.facts, here.netns, &change);
    Ok(Advice::new(finding, found, want, why).by(remedy).into())
}
