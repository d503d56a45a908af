//! A UDP client tied to a draining real server: for five minutes, or for one by the doctor's
//! command. No agent runs, so the advice is by configuration.

use std::fs;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::clinic::cure;
use crate::director::{self, Transport};
use crate::lab::Lab;
use crate::service::{Key, ORDINARY, Service};
use crate::topology::{REAL_SERVERS, RS1, VIP};
use crate::traffic::Protocol;

/// Clients that keep their ports: one for each real server by round robin.
const PORTS: std::ops::Range<u16> = 40_000..40_003;
/// How long IPVS keeps a UDP entry by itself, and as the doctor wants it, in seconds.
const UNCURED: RangeInclusive<u64> = 290..=300;
const CURED: RangeInclusive<u64> = 50..=60;
/// Silence after which a client of a cured director is free.
const PAUSE: Duration = Duration::from_secs(62);
/// Every entry of IPVS, a line each (`ip_vs_conn_seq_show`, net/netfilter/ipvs/ip_vs_conn.c).
const ENTRIES: &str = "/proc/net/ip_vs_conn";

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "1"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Udp, &REAL_SERVERS)?;
    let mut plan = Lab::plan(PORTS.collect());
    plan.protocol = Protocol::Udp;
    plan.ports = lab.run_all_answered(&plan)?.ports_answered_by(RS1.name);
    let &[port] = plan.ports.as_slice() else {
        bail!("round robin gave {} {:?}", RS1.name, plan.ports);
    };
    let service = Service {
        key: Key::Udp(VIP.into()),
        ..ORDINARY
    };
    service.set_weight(RS1, 0)?;
    let answered_by_rs1 =
        || Ok::<_, anyhow::Error>(lab.run_all_answered(&plan)?.answered_by(RS1.name));

    ensure!(
        answered_by_rs1()? == 1,
        "the client was not tied to {}",
        RS1.name
    );
    ensure_expires(port, &UNCURED).context("as it is")?;
    cure("udp_timeout", "configured")?;
    // The last datagram of a client before it pauses: it renews the entry by the new timeout.
    ensure!(
        answered_by_rs1()? == 1,
        "the client left {} at once",
        RS1.name
    );
    ensure_expires(port, &CURED).context("cured")?;
    std::thread::sleep(PAUSE);
    ensure!(
        answered_by_rs1()? == 0,
        "the client is tied to {} after {} s of silence",
        RS1.name,
        PAUSE.as_secs()
    );
    Ok(())
}

/// Wants the entry of this client to live for so many seconds more.
fn ensure_expires(port: u16, want: &RangeInclusive<u64>) -> Result<()> {
    let entries = fs::read_to_string(ENTRIES).with_context(|| format!("read {ENTRIES}"))?;
    let client = format!("{port:04X}");
    // Protocol, client and its port, service and its port, real server and its port, state, seconds.
    let fields = entries
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&client.as_str()))
        .with_context(|| format!("no entry of port {port}: {entries}"))?;
    let seconds: u64 = fields
        .get(8)
        .and_then(|seconds| seconds.parse().ok())
        .with_context(|| format!("no seconds in {fields:?}"))?;
    ensure!(
        want.contains(&seconds),
        "the entry lives for {seconds} s, want {want:?}: {fields:?}"
    );
    Ok(())
}
