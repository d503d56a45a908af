//! Nothing happens: the agent sleeps. Something happens: it is there at once.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::agent::Agent;
use crate::director::{self, Transport};
use crate::lab::Lab;
use crate::process;
use crate::topology::{REAL_SERVERS, RS1};
use crate::wait;

/// How long wake-ups are counted: several readings of the table.
const WATCHED: Duration = Duration::from_secs(30);
/// Start-up work settles, and idle threads of the runtime end (tokio keeps them for 10 s).
const SETTLE: Duration = Duration::from_secs(15);
/// Wake-ups per second of all threads together.
const WAKE_UPS_PER_SECOND_MAX: f64 = 1.0;
/// From the end of a connection to its event being received: what a drain period was.
const REACTION_LIMIT: Duration = Duration::from_millis(100);
/// Emulation and the scrapes that measure it cost time too: the best of these counts.
const TRIES: u16 = 10;
/// Port of the first try.
const PORT: u16 = 40_000;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    let ports: Vec<u16> = (PORT..).take(3 * usize::from(TRIES)).collect();
    let bound = lab.run_all_answered(&Lab::plan(ports))?;
    let stale = bound.ports_answered_by(RS1.name);
    director::set_weight(RS1, 0)?;
    let agent = Agent::start()?;
    std::thread::sleep(SETTLE);
    let before = process::wake_ups(agent.id())?;
    std::thread::sleep(WATCHED);
    let after = process::wake_ups(agent.id())?;
    let by_thread: Vec<_> = after
        .iter()
        .map(|(thread, count)| (thread, count - before.get(thread).unwrap_or(&0)))
        .collect();
    let total: u64 = by_thread.iter().map(|(_, count)| count).sum();
    let per_second = f64::from(u32::try_from(total)?) / WATCHED.as_secs_f64();
    println!("idle: {total} wake-ups in {WATCHED:?}, {per_second:.2} per second: {by_thread:?}");
    ensure!(
        per_second < WAKE_UPS_PER_SECOND_MAX,
        "{per_second:.2} wake-ups per second, want less than {WAKE_UPS_PER_SECOND_MAX}: {by_thread:?}"
    );
    let fastest = stale.iter().map(|port| reaction(lab, &agent, *port));
    let fastest = fastest.collect::<Result<Vec<_>>>()?.into_iter().min();
    let fastest = fastest.context("no port was bound to the draining server")?;
    println!("reaction to a stale connection: {fastest:.0?} at best");
    ensure!(
        fastest < REACTION_LIMIT,
        "the event of a connection is received {fastest:.0?} later at best, want {REACTION_LIMIT:?}"
    );
    agent.terminate()
}

/// From the end of a stale connection to the received count that has its event.
fn reaction(lab: &Lab, agent: &Agent, port: u16) -> Result<Duration> {
    let received = || {
        agent
            .scrape()?
            .count("ipvs_lens_events_received_total", &[])
    };
    // Asleep again: nothing is on its way.
    wait::until("the agent to have read everything", WATCHED, || {
        let before = received()?;
        std::thread::sleep(Duration::from_secs(1));
        ensure!(received()? == before, "events still come");
        Ok(())
    })?;
    let before = received()?;
    lab.run_all_answered(&Lab::plan(vec![port]))?;
    let ended = std::time::Instant::now();
    wait::until("the event", WATCHED, || {
        ensure!(received()? > before, "no event yet");
        Ok(())
    })?;
    Ok(ended.elapsed())
}
