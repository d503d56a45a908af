//! `ipvs-lens trace --format json`: one line for each stale connection, for what became of it, and
//! for each delayed one.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::agent;
use crate::director::{self, Transport};
use crate::lab::Lab;
use crate::process::Process;
use crate::socket::Close;
use crate::topology::{CLIENT, RS1, RS2, RS3, VIP};
use crate::wait;

/// Ports that come back while their server drains: four for each real server by round robin.
const STALE_PORTS: std::ops::Range<u16> = 40_000..40_012;
/// Ports whose client vanishes, to be dropped by IPVS: two for each real server.
const DROPPED_PORTS: std::ops::Range<u16> = 41_000..41_006;
/// Port of the first stale connection: once its line is there, the trace is attached.
const CANARY_PORT: u16 = 42_000;
/// Until a line is there.
const LINE_LIMIT: Duration = Duration::from_secs(120);
/// The client's first retransmit, give or take a slow emulation.
const DELAY_NS: std::ops::RangeInclusive<u64> = 900_000_000..=2_900_000_000;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    let (stale, dropped) = prepare(lab)?;
    let mut trace = agent::start_with(&["trace", "--format", "json"])?;
    wait_attached(lab, &mut trace)?;
    lab.run_all_answered(&Lab::plan(stale.clone()))?;
    director::set("expire_nodest_conn", "1")?;
    lab.run_all_answered(&Lab::plan(dropped.clone()))?;

    let lines = wait::until("a line for each finding", LINE_LIMIT, || {
        let lines = lines_but_canary(&trace)?;
        let want = 2 * stale.len() + dropped.len();
        ensure!(
            lines.len() == want,
            "{} lines, want {want}: {lines:#?}",
            lines.len()
        );
        Ok(lines)
    })?;
    ensure_lines(&lines, "stale_connection", &stale, &stale_fields())?;
    ensure_lines(&lines, "stale_outcome", &stale, &outcome_fields())?;
    ensure_lines(&lines, "connect_delayed", &dropped, &delayed_fields())?;
    for line in lines.iter().filter(|l| l["kind"] == "connect_delayed") {
        let delay = line["delay_ns"].as_u64().unwrap_or(0);
        ensure!(
            DELAY_NS.contains(&delay),
            "delay of {delay} ns, want {DELAY_NS:?}"
        );
    }
    trace.terminate()
}

/// Binds ports to the first real server and drains it; returns the ports whose connections were
/// closed and those whose client vanished.
fn prepare(lab: &Lab) -> Result<(Vec<u16>, Vec<u16>)> {
    director::load(&[
        ("conn_reuse_mode", "0"),
        ("conntrack", "1"),
        ("expire_nodest_conn", "0"),
    ])?;
    director::enable_conntrack()?;
    director::add_service(Transport::Tcp, &[RS1])?;
    lab.run_all_answered(&Lab::plan(vec![CANARY_PORT]))?;
    director::add_real_server(RS2)?;
    director::add_real_server(RS3)?;
    let closed = lab.run_all_answered(&Lab::plan(STALE_PORTS.collect()))?;
    let mut vanish = Lab::plan(DROPPED_PORTS.collect());
    vanish.close = Close::Vanish;
    let vanished = lab.run_all_answered(&vanish)?;
    director::set_weight(RS1, 0)?;
    let (stale, dropped) = (
        closed.ports_answered_by(RS1.name),
        vanished.ports_answered_by(RS1.name),
    );
    ensure!(
        stale.len() == 4 && dropped.len() == 2,
        "round robin gave {} {stale:?} and {dropped:?}, want 4 and 2 ports",
        RS1.name
    );
    Ok((stale, dropped))
}

/// Plays the canary until the trace shows it.
fn wait_attached(lab: &Lab, trace: &mut Process) -> Result<()> {
    wait::until("the trace to show a finding", LINE_LIMIT, || {
        lab.run_all_answered(&Lab::plan(vec![CANARY_PORT]))?;
        if let Err(ended) = trace.ensure_running() {
            return Ok(Err(ended));
        }
        ensure!(!trace.stdout()?.is_empty(), "no line yet");
        Ok(Ok(()))
    })?
}

fn lines_but_canary(trace: &Process) -> Result<Vec<Value>> {
    let canary = client(CANARY_PORT);
    let text = trace.stdout()?;
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
        .collect::<Result<_>>()?;
    Ok(lines
        .into_iter()
        .filter(|line| line["client"] != canary)
        .collect())
}

fn client(port: u16) -> String {
    format!("{CLIENT}:{port}")
}

fn stale_fields() -> Value {
    json!({
        "destination": VIP.to_string(), "proto": "TCP",
        "local_address": VIP.ip().to_string(), "local_port": VIP.port(),
        "remote_address": RS1.address().ip().to_string(), "remote_port": RS1.address().port(),
        "weight": 0, "decision": "reused_stale", "cause": "port_reuse", "old_state": "time_wait",
        "drops": 0, "retransmits": 0,
    })
}

fn outcome_fields() -> Value {
    json!({
        "destination": VIP.to_string(), "proto": "TCP",
        "remote_address": RS1.address().ip().to_string(), "remote_port": RS1.address().port(),
        "weight": 0, "decision": "reused_stale", "cause": "port_reuse", "outcome": "answered",
        "retransmits": 0,
    })
}

fn delayed_fields() -> Value {
    json!({
        "destination": VIP.to_string(), "proto": "TCP",
        "local_address": VIP.ip().to_string(), "local_port": VIP.port(),
        "cause": "ipvs_reuse", "drops": 1, "retransmits": 1, "events_lost": 0,
    })
}

/// Exactly one line of `kind` per port, each with these fields.
fn ensure_lines(lines: &[Value], kind: &str, ports: &[u16], fields: &Value) -> Result<()> {
    let of_kind: Vec<_> = lines.iter().filter(|line| line["kind"] == kind).collect();
    let clients: BTreeSet<_> = of_kind
        .iter()
        .filter_map(|line| line["client"].as_str())
        .collect();
    let want: BTreeSet<_> = ports.iter().map(|port| client(*port)).collect();
    ensure!(
        of_kind.len() == ports.len() && clients.iter().copied().eq(want.iter().map(String::as_str)),
        "{kind}: clients {clients:?}, want {want:?} once each"
    );
    let fields = fields.as_object().context("fields are an object")?;
    for line in of_kind {
        for (name, value) in fields {
            ensure!(
                line[name] == *value,
                "{kind}: {name} is {}, want {value}: {line}",
                line[name]
            );
        }
    }
    Ok(())
}
