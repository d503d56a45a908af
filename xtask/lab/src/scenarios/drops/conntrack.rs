//! Conntrack drops SYNs: its table is full, or two packets made the same entry.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nfq::{Message, Queue, Verdict};

use super::netfilter::under;
use super::{LISTENER, director_up, syns_in_vain, with_parameters};
use crate::agent::Agent;
use crate::command;
use crate::director;
use crate::expect::Expected;
use crate::lab::Lab;
use crate::listener::Listener;
use crate::topology::CLIENT_NETNS;

/// Clients that find no room.
const PORTS: std::ops::Range<u16> = 43_000..43_004;
/// The connection before, by which the agent learns of the service.
const FIRST_PORT: u16 = 43_100;
/// Connections that fill the table, one more than this.
const BACKLOG: i32 = 15;
/// Fewer entries than those connections.
const LIMIT: &str = "8";
/// Limit of the table, for all namespaces.
const LIMIT_PARAMETER: &str = "net/netfilter/nf_conntrack_max";

/// The table is full of connections that are in use.
pub fn full(lab: &mut Lab) -> Result<()> {
    director_up()?;
    director::enable_conntrack()?;
    let listener = Listener::start(LISTENER.into(), BACKLOG)?;
    let agent = Agent::start()?;
    lab.run_all_answered(&Lab::plan(vec![FIRST_PORT]))?;
    let in_use = listener.fill(CLIENT_NETNS)?;

    let ordinary = fs::read_to_string(format!("/proc/sys/{LIMIT_PARAMETER}"))?;
    let syns = with_parameters(&[(LIMIT_PARAMETER, LIMIT, ordinary.trim())], || {
        syns_in_vain(lab, Lab::plan(PORTS.collect()))
    })?;
    agent.expect(
        &Expected::none()
            .decision("scheduled", 1)
            .syn_drops("conntrack_full", syns),
    )?;
    drop(in_use);
    agent.terminate()
}

/// Number of the queue of packets that wait.
const QUEUE: u16 = 0;
/// The client whose SYN waits until it is sent again.
const CLASH_PORT: u16 = 43_000;
/// Until the SYN is sent again (1 s).
const WAIT_LIMIT: Duration = Duration::from_secs(10);

/// A SYN waits on its way in until the client has sent it again: each makes an entry, and only the
/// first gets it into the table.
pub fn clash(lab: &mut Lab) -> Result<()> {
    director_up()?;
    director::enable_conntrack()?;
    command::line("modprobe nfnetlink_queue")?;
    let listener = Listener::start(LISTENER.into(), BACKLOG)?;
    let agent = Agent::start()?;
    let before = insert_failed()?;

    let rule = format!(
        "INPUT -p tcp --syn --dport {} -j NFQUEUE --queue-num {QUEUE}",
        LISTENER.port()
    );
    let mut plan = Lab::plan(vec![CLASH_PORT]);
    plan.target = listener.address;
    plan.timeout = WAIT_LIMIT;
    let mut queue = Queue::open().context("open the packet queue")?;
    queue.bind(QUEUE).context("bind the packet queue")?;
    queue.set_nonblocking(true);
    let connecting = under("filter", &rule, || {
        let connecting = lab.start(plan);
        let waiting = [next(&mut queue)?, next(&mut queue)?];
        for mut packet in waiting {
            packet.set_verdict(Verdict::Accept);
            queue.verdict(packet).context("let a packet go on")?;
        }
        Ok(connecting)
    })?;
    drop(queue);
    let report = connecting.finish()?;
    let sent_again = report.syn_retransmits();
    ensure!(
        sent_again == 1,
        "the SYN was sent again {sent_again} times, want 1: {report:?}"
    );
    let failed = usize::try_from(insert_failed()? - before)?;
    ensure!(failed == 1, "conntrack failed to insert {failed}, want 1");
    agent.expect(&Expected::none().syn_drops_elsewhere("conntrack_insert", failed))?;
    agent.terminate()
}

fn next(queue: &mut Queue) -> Result<Message> {
    let start = Instant::now();
    loop {
        match queue.recv() {
            Ok(packet) => return Ok(packet),
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                return Err(error).context("read the packet queue");
            }
            Err(_) if start.elapsed() > WAIT_LIMIT => bail!("no SYN came to the packet queue"),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// The kernel's own count, summed over CPUs.
fn insert_failed() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/stat/nf_conntrack")?;
    let mut lines = text.lines();
    let mut names = lines.next().unwrap_or_default().split_whitespace();
    let column = names
        .position(|name| name == "insert_failed")
        .context("no column insert_failed")?;
    lines
        .map(|line| {
            let word = line.split_whitespace().nth(column);
            u64::from_str_radix(word.context("a short line")?, 16).context("no number")
        })
        .sum()
}
