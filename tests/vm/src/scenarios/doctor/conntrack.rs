//! A full connection tracking table: new connections die, and the larger limit lets them in.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::clinic::{Visit, cure};
use crate::director::{self};
use crate::lab::Lab;
use crate::socket::Close;
use crate::sysctl;
use crate::traffic::GIVE_UP;

/// Clients that vanish, so that their entries stay.
const PORTS: std::ops::Range<u16> = 40_000..40_040;
/// Clients that find no room.
const LATE_PORTS: std::ops::Range<u16> = 41_000..41_004;
/// Below `/proc/sys`.
const MAX: &str = "net/netfilter/nf_conntrack_max";
const COUNT: &str = "net/netfilter/nf_conntrack_count";

/// Plays the story, and puts the limit back: it outlives a scenario on kernels that keep the module.
pub fn full(lab: &mut Lab) -> Result<()> {
    director::up_to_drop_reused_syns()?;
    let limit = read(MAX)?;
    let played = play(lab);
    sysctl::write(MAX, &limit.to_string())?;
    played
}

fn play(lab: &Lab) -> Result<()> {
    let mut vanish = Lab::plan(PORTS.collect());
    vanish.close = Close::Vanish;
    lab.run_all_answered(&vanish)?;
    Visit::pay()?
        .ensure_content("conntrack_full")
        .context("with room")?;
    sysctl::write(MAX, &read(COUNT)?.to_string())?;
    let mut late = Lab::plan(LATE_PORTS.collect());
    late.workers = late.ports.len();
    late.timeout = GIVE_UP;
    let refused = lab.run(&late)?.failed().count();
    ensure!(
        refused == LATE_PORTS.len(),
        "{refused} of {} clients found no room",
        LATE_PORTS.len()
    );
    // Dropped packets were counted by the kernel itself.
    cure("conntrack_full", "observed")?;
    late.timeout = vanish.timeout;
    lab.run_all_answered(&late).map(drop)
}

fn read(name: &str) -> Result<u64> {
    let path = format!("/proc/sys/{name}");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    text.trim()
        .parse()
        .with_context(|| format!("{path} is {text:?}"))
}
