//! The one-second delay: IPVS drops the SYN of a reused port, the client's retransmit gets through.
//!
//! It needs a connection that netfilter still takes for established, a real server of weight 0
//! and `expire_nodest_conn=1`: IPVS expires the entry, and cannot give the SYN to another server
//! because its conntrack is confirmed.

use anyhow::{Result, ensure};

use crate::agent::Agent;
use crate::director::{self};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::scrape::Scrape;
use crate::socket::Close;
use crate::topology::RS1;

/// Ports whose client vanishes: five for each real server by round robin.
const PORTS: std::ops::Range<u16> = 40_000..40_015;
/// Bucket bounds around the client's first retransmit, 1 s after its first SYN.
const ABOVE_SECONDS: &str = "0.9";
const UP_TO_SECONDS: &str = "1.5";
const BUCKETS: &str = "ipvs_lens_connect_delay_seconds_bucket";

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::up_to_drop_reused_syns()?;
    let agent = Agent::start()?;

    let mut vanish = Lab::plan(PORTS.collect());
    vanish.close = Close::Vanish;
    let first = lab.run_all_answered(&vanish)?;
    let ports = first.ports_answered_by(RS1.name);
    let dropped = ports.len();
    ensure!(
        dropped == 5,
        "round robin gave {} {dropped} of 15 connections, want 5",
        RS1.name
    );
    director::set_weight(RS1, 0)?;

    let mut again = Lab::plan(ports);
    again.workers = dropped;
    let again = lab.run_all_answered(&again)?;
    ensure!(
        again.syn_retransmits() == u64::try_from(dropped)? && again.answered_by(RS1.name) == 0,
        "want one SYN retransmit per connection and no answer of {}, got {again:?}",
        RS1.name
    );
    agent.expect(
        &Expected::none()
            .decision("scheduled", first.attempts())
            .decision("dropped", dropped)
            .syn_drops("ipvs_reuse", dropped)
            .delays("ipvs_reuse", dropped),
    )?;
    ensure_delays_of_one_second(&agent.scrape()?, dropped)?;
    agent.terminate()
}

/// Every delay lies in the buckets between the two bounds.
///
/// # Errors
/// One does not.
pub fn ensure_delays_of_one_second(scrape: &Scrape, count: usize) -> Result<()> {
    for (le, want) in [(ABOVE_SECONDS, 0), (UP_TO_SECONDS, count)] {
        let found = scrape.count(BUCKETS, &[("cause", "ipvs_reuse"), ("le", le)])?;
        ensure!(
            found == u64::try_from(want)?,
            "{found} delays of up to {le} s, want {want}"
        );
    }
    Ok(())
}
