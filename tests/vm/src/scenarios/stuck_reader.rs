//! No process reads what the agent writes: observation goes on, the loss is counted and said, and
//! SIGTERM is answered in time.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::modes::FOLLOW;
use crate::agent::{Agent, BINARY, LOG};
use crate::director::{self, Transport};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::process::Process;
use crate::topology::{RS1, RS2};
use crate::wait;

/// Ports bound to the draining server.
const PORTS: std::ops::Range<u16> = 40_000..40_040;
/// From SIGTERM to the exit, without the time the kernel needs to detach the programs: seconds under
/// emulation, milliseconds on a real machine.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// Until the log has more lines than may wait, and until its reader has them.
const LOG_LIMIT: Duration = Duration::from_secs(60);
/// What the log says at the place of a loss.
const NOTICE: &str = " log lines lost here: stderr was not read in time";

/// Plays the story with stderr.
pub fn stderr(lab: &mut Lab) -> Result<()> {
    director::load(&FOLLOW)?;
    let before = detaching()?;
    let stale = prepare(lab)?;
    let (reader, pipe) = full_pipe()?;
    let agent = Agent::spawn_logging_to(pipe.into(), &[])?;
    let hindered = observe(lab, agent, stale)?;
    ensure_in_time(before.max(detaching()?), hindered)?;
    drop(reader);

    let (reader, pipe) = full_pipe()?;
    let mut agent = Agent::spawn_logging_to(pipe.into(), &["--log-level", "trace"])?;
    agent.wait_ready()?;
    let lost = wait::until("a lost log line", LOG_LIMIT, || {
        let lost = [("reason", "log_queue_full")];
        let lost = agent
            .scrape()?
            .count("ipvs_lens_events_lost_total", &lost)?;
        ensure!(lost > 0, "no log line is lost yet");
        Ok(lost)
    })?;
    let log = read_on(reader);
    wait::until("the log to say what it lost", LOG_LIMIT, || {
        let text = std::fs::read_to_string(LOG)?;
        let line = text.lines().find(|line| line.contains(NOTICE));
        let line = line.context("no such line yet")?;
        let said = line
            .split(NOTICE)
            .next()
            .and_then(|l| l.split(' ').next_back());
        let said: u64 = said.context("no number")?.parse()?;
        ensure!(
            said >= lost,
            "the log says {said} lost lines, want {lost} or more"
        );
        Ok(())
    })?;
    stop(agent)?;
    log.join().ok().context("reading the log panicked")?
}

/// Plays the story with the stdout of `trace`.
pub fn stdout(lab: &mut Lab) -> Result<()> {
    director::load(&FOLLOW)?;
    let before = detaching()?;
    let stale = prepare(lab)?;
    let (reader, pipe) = full_pipe()?;
    let mut command = Command::new(BINARY);
    let trace = Process::start_with(
        command.args(["trace", "--format", "json"]),
        pipe.into(),
        File::create(LOG)?.into(),
    )?;
    wait::until("the trace to be attached", LOG_LIMIT, || {
        let log = std::fs::read_to_string(LOG)?;
        ensure!(log.contains("probes attached"), "not yet: {log}");
        Ok(())
    })?;
    let again = lab.run_all_answered(&Lab::plan(PORTS.collect()))?;
    ensure!(
        again.answered_by(RS1.name) == stale,
        "not every port was stale"
    );
    let began = Instant::now();
    trace.terminate()?;
    let hindered = began.elapsed();
    ensure_in_time(before.max(detaching()?), hindered)?;
    drop(reader);
    Ok(())
}

/// Binds ports to a server and drains it.
fn prepare(lab: &Lab) -> Result<usize> {
    director::add_service(Transport::Tcp, &[RS1])?;
    let first = lab.run_all_answered(&Lab::plan(PORTS.collect()))?;
    director::add_real_server(RS2)?;
    director::set_weight(RS1, 0)?;
    Ok(first.attempts())
}

/// Findings go on and are counted, readiness is fresh, and the end comes; returns after how long.
fn observe(lab: &Lab, mut agent: Agent, stale: usize) -> Result<Duration> {
    agent.wait_ready()?;
    let again = lab.run_all_answered(&Lab::plan(PORTS.collect()))?;
    ensure!(
        again.attempts() == stale,
        "{stale} ports, {}",
        again.attempts()
    );
    agent.expect(
        &Expected::none()
            .decision("reused_stale", stale)
            .stale(RS1, "port_reuse", stale)
            .outcome("answered", stale),
    )?;
    let scrape = agent.scrape()?;
    let received = scrape.count("ipvs_lens_events_received_total", &[])?;
    ensure!(
        received >= 40,
        "{received} events received, want 40 or more"
    );
    let ready = agent.get("/readyz")?;
    ensure!(
        ready.status == 200 && ready.body.starts_with("ready\nobserver last ran "),
        "/readyz: {} {:?}",
        ready.status,
        ready.body
    );
    let ran = agent.status()?["observer_last_run_ms_ago"].as_u64();
    ensure!(
        ran.is_some_and(|ms| ms < 10_000),
        "observer last ran {ran:?} ms ago"
    );
    stop(agent)
}

/// From SIGTERM to the exit.
fn stop(agent: Agent) -> Result<Duration> {
    let began = Instant::now();
    agent.terminate()?;
    Ok(began.elapsed())
}

/// How long the kernel needs to detach the programs: it does so before a killed agent is gone. Taken
/// before and after, because another guest may need the processor in between.
fn detaching() -> Result<Duration> {
    let agent = Agent::start()?;
    let began = Instant::now();
    agent.kill()?;
    Ok(began.elapsed())
}

fn ensure_in_time(detaching: Duration, stopping: Duration) -> Result<()> {
    println!(
        "SIGTERM to exit with a stuck reader: {stopping:.1?}; SIGKILL to exit: {detaching:.1?}"
    );
    let own = stopping.saturating_sub(detaching);
    ensure!(
        own < STOP_LIMIT,
        "the agent itself takes {own:.1?} from SIGTERM to the exit, want less than {STOP_LIMIT:?}"
    );
    Ok(())
}

/// A full pipe that no process reads.
fn full_pipe() -> Result<(PipeReader, PipeWriter)> {
    let (reader, mut pipe) = io::pipe()?;
    fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    for piece in [4096, 1] {
        while pipe.write(&vec![b'\n'; piece]).is_ok() {}
    }
    fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok((reader, pipe))
}

/// Reads to the end, into the file that is shown when a scenario fails.
fn read_on(mut reader: PipeReader) -> std::thread::JoinHandle<Result<()>> {
    std::thread::spawn(move || {
        let mut log = File::create(LOG)?;
        let mut bytes = [0; 4096];
        loop {
            match reader.read(&mut bytes)? {
                0 => return Ok(()),
                read => log.write_all(bytes.get(..read).unwrap_or_default())?,
            }
        }
    })
}
