//! `ipvs-lens top --once`: every column, for people and for programs.

use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::agent::{self, BINARY};
use crate::director::{self, Transport};
use crate::lab::Lab;
use crate::terminal::Terminal;
use crate::topology::{CLIENT_NETNS, REAL_SERVERS, RS1};
use crate::{command, traffic, wait};

/// A terminal as it has always been.
const COLUMNS: u16 = 80;
const ROWS: u16 = 16;
/// Attaching takes seconds under emulation.
const DRAW_LIMIT: Duration = Duration::from_secs(60);
/// Ports that come back: four for each real server by round robin.
const PORTS: std::ops::Range<u16> = 40_000..40_012;
/// Between two rounds: the CPUs are needed for what is shown.
const PAUSE: Duration = Duration::from_millis(300);
/// One more service, to be read to the last field.
const RULES: &str = "\
-A -u 10.96.0.10:53 -s wlc -p 300 -o
-a -u 10.96.0.10:53 -r 10.1.2.2:53 -i -w 7 -x 100 -y 50
";

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    command::run_with_input("ipvsadm", &["-R"], RULES)?;
    lab.run_all_answered(&Lab::plan(PORTS.collect()))?;
    director::set_weight(RS1, 0)?;
    while_clients_come_back(|| {
        ensure_rows(&finished(&["--format", "json"])?)?;
        let text = finished(&["--sort", "stale"])?;
        println!("{text}");
        ensure_text(&text)?;
        on_a_terminal()
    })?;
    refuses_without_terminal()
}

/// Does `work` while every port comes back a few times a second.
fn while_clients_come_back(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                let plan = Lab::plan(PORTS.collect());
                traffic::run(Some(CLIENT_NETNS), &plan)?.ensure_all_answered()?;
                thread::sleep(PAUSE);
            }
            Ok(())
        });
        let done = work();
        enough.store(true, Ordering::Relaxed);
        let came_back = traffic
            .join()
            .unwrap_or_else(|_| bail!("the traffic panicked"));
        done.and(came_back)
    })
}

/// On a terminal of 80 columns: keys choose, and the terminal is given back.
fn on_a_terminal() -> Result<()> {
    let mut command = Command::new(BINARY);
    let log = File::create(agent::LOG)?;
    command.args(["top", "--interval-s", "1"]).stderr(log);
    let mut top = Terminal::start(&mut command, COLUMNS, ROWS)?;
    let frame = top.wait_for("the table with its rates", DRAW_LIMIT, |shown| {
        let row = shown.lines().find(|line| line.contains("10.1.1.2:8080"));
        let row = row.context("no row of the draining server")?;
        ensure!(row.ends_with("s reuse"), "not held by reuse: {row}");
        let stale = row.split_whitespace().nth(6).context("no column STALE")?;
        ensure!(stale != ".", "no rates yet: {row}");
        ensure!(shown.contains("[name] q quit"), "no keys");
        Ok(())
    })?;
    println!("{frame}");
    top.press("sssa")?;
    top.wait_for("the keys to be obeyed", DRAW_LIMIT, |shown| {
        ensure!(shown.contains("[stale, abnormal] q quit"), "not sorted");
        ensure!(shown.contains("10.1.1.2:8080"), "the abnormal row is gone");
        ensure!(!shown.contains("10.1.2.2:8080"), "an ordinary row is left");
        Ok(())
    })?;
    top.press("q")?;
    let (status, restored) = top.finish()?;
    ensure!(status.success(), "top ended with {status}");
    ensure!(restored, "top left the terminal in its own mode");
    Ok(())
}

fn finished(options: &[&str]) -> Result<String> {
    let args = [&["top", "--once", "--interval-s", "1"], options].concat();
    let finished = agent::finish(&args)?;
    ensure!(
        finished.code == Some(0),
        "{args:?} ended with {:?}: {}",
        finished.code,
        finished.stderr
    );
    Ok(finished.stdout)
}

fn ensure_rows(text: &str) -> Result<()> {
    let rows: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
        .collect::<Result<_>>()?;
    ensure!(rows.len() == 4, "{} rows, want 4:\n{text}", rows.len());
    let draining = row(&rows, "10.1.1.2")?;
    let rate = |row: &Value, field| row[field].as_f64().unwrap_or(-1.0);
    ensure!(draining["weight"] == 0, "{draining}");
    ensure!(draining["held_by"] == "port_reuse", "{draining}");
    ensure!(rate(draining, "stale_per_s") > 0.0, "{draining}");
    ensure!(rate(draining, "scheduled_per_s") == 0.0, "{draining}");
    let healthy = row(&rows, "10.1.3.2")?;
    ensure!(healthy["weight"] == 1, "{healthy}");
    ensure!(rate(healthy, "reused_per_s") > 0.0, "{healthy}");
    ensure!(healthy["draining_since"].is_null(), "{healthy}");
    let udp = rows.iter().find(|row| row["proto"] == "UDP");
    let udp = udp.context("no row of UDP")?;
    let wanted = json!({
        "local_address": "10.96.0.10", "local_port": 53, "local_mark": "", "scheduler": "wlc",
        "persistence_s": 300, "one_packet": true, "remote_address": "10.1.2.2",
        "remote_port": 53, "forwarding": "tunnel", "weight": 7, "active": 0, "inactive": 0,
        "persistent": 0, "upper_threshold": 100, "lower_threshold": 50, "starved": false,
    });
    for (field, value) in wanted.as_object().into_iter().flatten() {
        ensure!(udp[field] == *value, "{field} is not {value} in {udp}");
    }
    Ok(())
}

fn row<'a>(rows: &'a [Value], address: &str) -> Result<&'a Value> {
    rows.iter()
        .find(|row| row["remote_address"] == address && row["proto"] == "TCP")
        .with_context(|| format!("no row of {address}"))
}

fn ensure_text(text: &str) -> Result<()> {
    let lines: Vec<&str> = text.lines().collect();
    ensure!(
        lines.first() == Some(&"2 services, 0 without real server; 4 real servers, 1 draining"),
        "title:\n{text}"
    );
    // Sorted by stale connections: the service with the draining real server is first.
    ensure!(
        lines
            .get(2)
            .is_some_and(|line| line.starts_with("TCP 10.96.0.10:80 rr"))
            && lines
                .get(3)
                .is_some_and(|line| line.starts_with("  10.1.1.2:8080")),
        "order:\n{text}"
    );
    let wide = lines.iter().find(|line| line.chars().count() > 80);
    ensure!(wide.is_none(), "wider than 80 columns: {wide:?}");
    Ok(())
}

/// Its output is a file here: it says what to do instead.
fn refuses_without_terminal() -> Result<()> {
    let refused = wait::until("top to refuse", Duration::from_secs(60), || {
        agent::finish(&["top"])
    })?;
    ensure!(
        refused.code == Some(1) && refused.stderr.contains("--once"),
        "top without a terminal: {:?} {}",
        refused.code,
        refused.stderr
    );
    Ok(())
}
