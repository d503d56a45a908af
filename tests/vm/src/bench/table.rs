//! What a table of 100,000 real servers costs: the agent and node_exporter's ipvs collector.
//!
//! Both run on the same table; whoever is not being scraped is stopped, and they take turns. The
//! host boots this guest with one CPU on which every instruction takes a nanosecond, so times are
//! counts of instructions, the kernel's among them, and a busy host changes nothing.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::agent::{Agent, LISTEN};
use crate::lab::Lab;
use crate::process::{self, Memory, Process};
use crate::results::{Event, Results};
use crate::{command, director, wait};

/// Services of the table.
const SERVICES: u32 = 10_000;
/// Real servers of each.
const REAL_SERVERS: u32 = 10;
/// One service in so many has a real server that drains, as in a rollout.
const DRAINING_EVERY: u32 = 100;
/// How often each is measured.
const ROUNDS: u32 = 3;
/// A reading of the table, and Go's garbage collection, take their time.
const LIMIT: Duration = Duration::from_secs(300);
/// The first three readings come at the interval, the next one minutes later.
const QUIET: Duration = Duration::from_secs(60);
/// For a reading that began before the last measurement to end.
const SETTLE: Duration = Duration::from_secs(5);

const EXPORTER: &str = "/usr/bin/prometheus-node-exporter";
const EXPORTER_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9_100);
const EXPORTER_STDOUT: &str = "/tmp/exporter.stdout";
const EXPORTER_STDERR: &str = "/tmp/exporter.stderr";
/// Nothing but the collector in question.
const EXPORTER_OPTIONS: [&str; 4] = [
    "--collector.disable-defaults",
    "--collector.ipvs",
    "--web.disable-exporter-metrics",
    "--web.listen-address=127.0.0.1:9100",
];

/// Measures and reports.
///
/// # Errors
/// A tool failed, or somebody did not see the whole table.
pub fn run() -> Result<()> {
    let mut results = Results::open();
    results.line("setting the table up");
    Lab::play(|_| {
        director::load(&[])?;
        // Neither needs IPVS's own statistics; without them the kernel is quieter.
        let _ = director::set("run_estimation", "0");
        let began = Instant::now();
        command::run_with_input("ipvsadm", &["-R"], &rules())?;
        results.line(&format!(
            "{SERVICES} services with {REAL_SERVERS} real servers each set up in {:.0} s",
            began.elapsed().as_secs_f64()
        ));
        let exporter = start_exporter()?;
        for (variant, which) in [("agent", "abnormal"), ("agent, all real servers", "all")] {
            let agent = start_agent(which)?;
            for round in 0..ROUNDS {
                exporter.pause()?;
                sleep(SETTLE);
                send(&mut results, variant, round, &of_agent(&agent)?);
                if which == "abnormal" {
                    agent.pause()?;
                    exporter.resume()?;
                    send(
                        &mut results,
                        "node_exporter",
                        round,
                        &of_exporter(&exporter)?,
                    );
                    agent.resume()?;
                }
            }
            agent.terminate()?;
        }
        exporter.resume()?;
        exporter.kill()
    })?;
    results.send(&Event::Done);
    Ok(())
}

/// The table as `ipvsadm -R` takes it.
fn rules() -> String {
    let mut rules = String::new();
    for service in 0..SERVICES {
        let (high, low) = (service / 250, service % 250 + 1);
        let address = format!("172.16.{high}.{low}:80");
        let _ = writeln!(rules, "-A -t {address} -s rr");
        for server in 0..REAL_SERVERS {
            let drains = server == 0 && service % DRAINING_EVERY == 0;
            let weight = u32::from(!drains);
            let _ = writeln!(
                rules,
                "-a -t {address} -r 10.{}.{high}.{low}:8080 -m -w {weight}",
                100 + server
            );
        }
    }
    rules
}

fn start_exporter() -> Result<Process> {
    let mut exporter = Process::start(
        Command::new(EXPORTER).args(EXPORTER_OPTIONS),
        Path::new(EXPORTER_STDOUT),
        Path::new(EXPORTER_STDERR),
    )?;
    wait::until("node_exporter to listen", LIMIT, || {
        if let Err(ended) = exporter.ensure_running() {
            return Ok(Err(ended));
        }
        TcpStream::connect(EXPORTER_ADDRESS)?;
        Ok(Ok(()))
    })??;
    Ok(exporter)
}

fn start_agent(which: &str) -> Result<Agent> {
    let mut agent = Agent::spawn_with(&["--real-servers", which])?;
    agent.wait_ready()?;
    // Its readings, while nothing scrapes it.
    sleep(QUIET);
    wait::until("the agent to read the table", LIMIT, || {
        let scrape = agent.scrape()?;
        let services = scrape.count("ipvs_lens_services", &[])?;
        let draining = scrape.count("ipvs_lens_real_servers", &[("state", "draining")])?;
        let wanted = (u64::from(SERVICES), u64::from(SERVICES / DRAINING_EVERY));
        ensure!(
            (services, draining) == wanted,
            "services and draining real servers are {:?}, want {wanted:?}",
            (services, draining)
        );
        Ok(())
    })?;
    Ok(agent)
}

/// One scrape.
struct Measured {
    scrape: Duration,
    series: usize,
    read_ms: f64,
    memory: Memory,
}

fn of_agent(agent: &Agent) -> Result<Measured> {
    let (scrape, text) = scrape(LISTEN.into())?;
    let read_s = agent.scrape()?.sum("ipvs_lens_table_read_seconds", &[]);
    Ok(Measured {
        scrape,
        series: series(&text),
        read_ms: read_s * 1000.0,
        memory: process::memory(agent.id())?,
    })
}

fn of_exporter(exporter: &Process) -> Result<Measured> {
    let (scrape, text) = scrape(EXPORTER_ADDRESS)?;
    let rows = text
        .lines()
        .filter(|line| line.starts_with("node_ipvs_backend_weight{"))
        .count();
    ensure!(
        rows == usize::try_from(SERVICES * REAL_SERVERS)?,
        "node_exporter shows {rows} real servers"
    );
    Ok(Measured {
        scrape,
        series: series(&text),
        read_ms: 0.0,
        memory: process::memory(exporter.id())?,
    })
}

/// A whole answer with the time it took; in HTTP/1.0, so that it comes in one piece.
fn scrape(address: SocketAddr) -> Result<(Duration, String)> {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let took = began.elapsed();
    let status = answer.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200 "), "{address} answered {status}");
    Ok((took, answer))
}

fn series(text: &str) -> usize {
    let body = text.split_once("\r\n\r\n").map_or(text, |(_, body)| body);
    body.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .count()
}

fn send(results: &mut Results, variant: &str, round: u32, measured: &Measured) {
    results.send(&Event::Table {
        variant,
        round,
        scrape_ms: measured.scrape.as_secs_f64() * 1000.0,
        series: measured.series,
        read_ms: measured.read_ms,
        resident_kib: measured.memory.resident_kib,
        peak_kib: measured.memory.peak_kib,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_as_large_as_it_says() {
        let rules = rules();
        let count = |word| rules.lines().filter(|line| line.contains(word)).count();
        assert_eq!(count("-A "), 10_000);
        assert_eq!(count("-a "), 100_000);
        assert_eq!(count("-w 0"), 100);
        let mut lines: Vec<&str> = rules.lines().collect();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 110_000);
    }

    #[test]
    fn series_are_lines_of_the_body_without_comments() {
        assert_eq!(
            series("HTTP/1.0 200 OK\r\nA: b\r\n\r\n# HELP x\nx 1\n\nx{a=\"b\"} 2\n"),
            2
        );
    }
}
