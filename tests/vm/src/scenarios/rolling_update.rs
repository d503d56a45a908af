//! A real server is drained and removed while its clients come back: the agent's timeline must be
//! the scenario's own, to the resolution it states.

use std::ops::RangeInclusive;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::time::ClockId;
use serde_json::Value;

use crate::agent;
use crate::director::{self, Transport};
use crate::lab::Lab;
use crate::process::Process;
use crate::service::{Key, ORDINARY, Service};
use crate::topology::{REAL_SERVERS, RS1, RS2, RS3, VIP};
use crate::wait;

/// Ports that come back: ten for each real server by round robin.
const PORTS: std::ops::Range<u16> = 40_000..40_030;
/// Between two readings of the counters, which show when a server last got a connection.
const INTERVAL: Duration = Duration::from_secs(1);
/// How much later a reading may be: it takes 1 % of a CPU at most, and a CPU is slow under emulation.
const LATE: Duration = Duration::from_secs(10);
/// Long enough for a reading most of the time.
const PAUSE: Duration = Duration::from_secs(3);
/// Attaching takes seconds under emulation.
const ATTACH_LIMIT: Duration = Duration::from_secs(120);
/// A removal is reported once the counters were read again.
const LINE_LIMIT: Duration = Duration::from_secs(30);
/// When weight 0 without a connection becomes a finding here; five minutes are no test.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(2);

/// The VIP over UDP.
const OVER_UDP: Service = Service {
    key: Key::Udp(std::net::SocketAddr::V4(VIP)),
    ..ORDINARY
};

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    let trace = start()?;

    let scheduled = during(|| lab.run_all_answered(&Lab::plan(PORTS.collect())))?;
    let stale = scheduled.brought.ports_answered_by(RS1.name);
    ensure!(stale.len() == 10, "{} ports of rs1, want 10", stale.len());
    // So that a reading may lie between what was scheduled and what is reused.
    sleep(PAUSE);
    let again = Lab::plan(stale);
    let reused = during(|| lab.run_all_answered(&again))?;
    let drained = during(|| director::set_weight(RS1, 0))?;
    let refreshed = during(|| lab.run_all_answered(&again))?;
    let removed = during(|| director::delete_real_server(RS1))?;

    let line = only_line(&trace, "draining_ended")?;
    ensure_is(&line, "remote_address", &RS1.address().ip().to_string())?;
    ensure_is(&line, "local_address", &VIP.ip().to_string())?;
    ensure_is(&line, "held_by", "port_reuse")?;
    ensure_is(&line, "removed_told", "live")?;
    ensure_in(&line, "removed_ns", &removed.time)?;
    let timeline = &line["timeline"];
    ensure_is(timeline, "weight_0_told", "live")?;
    ensure_in(timeline, "weight_0_ns", &drained.time)?;
    ensure!(
        timeline["stale_connections"] == 10 && timeline["stale_datagrams"] == 0,
        "stale connections and datagrams in {timeline}, want 10 and 0"
    );
    // Shown by readings: late by up to an interval, but never after what ended it.
    ensure_in(timeline, "last_scheduled_ns", &read_later(&scheduled.time))?;
    ensure_in(
        timeline,
        "last_reused_ns",
        &(*reused.time.start()..=*drained.time.end()),
    )?;
    ensure_in(
        timeline,
        "last_stale_ns",
        &(*refreshed.time.start()..=*removed.time.end()),
    )?;
    forgotten_and_vacant(&trace)?;
    trace.terminate()
}

/// A real server that never had a connection is drained and never removed, although another
/// service uses it; then that service has no real server with weight > 0.
fn forgotten_and_vacant(trace: &Process) -> Result<()> {
    OVER_UDP.create(&[RS2, RS3])?;
    let drained = during(|| OVER_UDP.set_weight(RS2, 0))?;
    let forgotten = only_line(trace, "draining_forgotten")?;
    ensure_is(
        &forgotten,
        "remote_address",
        &RS2.address().ip().to_string(),
    )?;
    ensure_is(&forgotten, "proto", "UDP")?;
    ensure!(forgotten["wanted_by_services"] == 1, "{forgotten}");
    // A reading saw it empty within an interval, another one once it had been so for long enough.
    let empty_since = read_later(&drained.time);
    ensure_in(&forgotten, "empty_since_ns", &empty_since)?;
    let after = nanoseconds(FORGOTTEN_AFTER)?;
    let told_at = *drained.time.start() + after..=empty_since.end() + after + late()?;
    ensure_in(&forgotten, "mono_ns", &told_at)?;

    let vacated = during(|| {
        director::set_weight(RS2, 0)?;
        director::set_weight(RS3, 0)
    })?;
    let vacant = only_line(trace, "no_real_server")?;
    ensure!(vacant["draining"] == 2, "{vacant}");
    ensure_is(&vacant, "proto", "TCP")?;
    // Two readings in a row have to show it.
    let twice = *vacated.time.start()..=vacated.time.end() + 2 * late()?;
    ensure_in(&vacant, "mono_ns", &twice)
}

fn start() -> Result<Process> {
    let interval = INTERVAL.as_secs().to_string();
    let after = FORGOTTEN_AFTER.as_secs().to_string();
    let mut words = vec!["trace", "--format", "json", "--table-interval-s", &interval];
    words.extend(["--forgotten-after-s", &after]);
    let mut trace = agent::start_with(&words)?;
    wait::until("the trace to be attached", ATTACH_LIMIT, || {
        if let Err(ended) = trace.ensure_running() {
            return Ok(Err(ended));
        }
        let log = std::fs::read_to_string(agent::LOG)?;
        ensure!(log.contains("probes attached"), "not yet: {log}");
        Ok(Ok(()))
    })??;
    Ok(trace)
}

/// The one line of this kind.
fn only_line(trace: &Process, kind: &str) -> Result<Value> {
    wait::until(&format!("{kind} to be reported"), LINE_LIMIT, || {
        let text = trace.stdout()?;
        let lines = text
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
            .collect::<Result<Vec<Value>>>()?;
        let of_kind: Vec<_> = lines
            .into_iter()
            .filter(|line| line["kind"] == kind)
            .collect();
        let [only] = &of_kind[..] else {
            anyhow::bail!("{} lines of {kind}: {of_kind:?}", of_kind.len());
        };
        Ok(only.clone())
    })
}

/// When something was done (`CLOCK_MONOTONIC`, which the agent's times are of), and what it brought.
struct Done<T> {
    time: RangeInclusive<u64>,
    brought: T,
}

fn during<T>(work: impl FnOnce() -> Result<T>) -> Result<Done<T>> {
    let began = now()?;
    let brought = work()?;
    Ok(Done {
        time: began..=now()?,
        brought,
    })
}

fn now() -> Result<u64> {
    nanoseconds(Duration::from(ClockId::CLOCK_MONOTONIC.now()?))
}

fn nanoseconds(span: Duration) -> Result<u64> {
    Ok(u64::try_from(span.as_nanos())?)
}

fn late() -> Result<u64> {
    nanoseconds(INTERVAL + LATE)
}

/// Until the next reading at the latest.
fn read_later(time: &RangeInclusive<u64>) -> RangeInclusive<u64> {
    *time.start()..=time.end() + late().unwrap_or(0)
}

fn ensure_is(object: &Value, field: &str, wanted: &str) -> Result<()> {
    let found = &object[field];
    ensure!(
        found == wanted,
        "{field} is {found}, want {wanted}: {object}"
    );
    Ok(())
}

fn ensure_in(object: &Value, field: &str, wanted: &RangeInclusive<u64>) -> Result<()> {
    let found = object[field].as_u64();
    let found = found.with_context(|| format!("no {field} in {object}"))?;
    ensure!(
        wanted.contains(&found),
        "{field} is {found}, want {wanted:?}: {object}"
    );
    Ok(())
}
