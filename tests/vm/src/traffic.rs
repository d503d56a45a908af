//! The traffic generator: connections from chosen source ports, every one of them reported.
//!
//! It runs inside a network namespace and knows nothing of IPVS or of the agent.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use nix::sys::socket::SockProtocol;
use serde::{Deserialize, Serialize};

use crate::netns;
use crate::report::{Connection, Failure, Report};
use crate::socket::{self, Client, Close};

/// A client that gives up after this does so between two SYNs: they follow the first after 1 and
/// 3 s, and every second from 6.5 on (`net.ipv4.tcp_syn_linear_timeouts`).
pub const GIVE_UP: Duration = Duration::from_millis(2_500);

/// Shortest limit to wait for a server's name and for its FIN: software emulation is slow, and
/// a loss that this hides shows in the counts.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Transport of the attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Connect, read the server's name, close.
    Tcp,
    /// Send one datagram, wait for the server's name.
    Udp,
    /// As [`Self::Tcp`], over SCTP; [`Plan::close`] is always clean.
    Sctp,
}

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Client's address.
    pub source: IpAddr,
    /// Where to.
    pub target: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Source ports, each used once per round.
    pub ports: Vec<u16>,
    /// How often each port is used.
    pub rounds: u32,
    /// Connections at the same time; a port is never used by two workers.
    pub workers: usize,
    /// How the client closes.
    pub close: Close,
    /// When to give up connecting.
    pub timeout: Duration,
}

/// Plays `plan` in network namespace `netns` and waits for its end.
///
/// # Errors
/// The namespace cannot be entered. What happens to connections is in the report.
pub fn run(netns: Option<&str>, plan: &Plan) -> Result<Report> {
    netns::within(netns, || Ok(play(plan, &AtomicBool::new(false))))
}

/// Plays one plan after the other, as [`run`].
///
/// # Errors
/// As [`run`].
pub fn run_all(netns: Option<&str>, plans: &[Plan]) -> Result<Report> {
    netns::within(netns, || {
        let stop = AtomicBool::new(false);
        let reports = plans.iter().map(|plan| play(plan, &stop));
        Ok(Report {
            connections: reports.flat_map(|report| report.connections).collect(),
        })
    })
}

/// A plan that is played while the caller does something else.
#[derive(Debug)]
pub struct Background {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Report>>,
}

impl Background {
    /// Starts playing `plan`; it ends with the plan or with [`Self::stop`].
    pub fn start(netns: Option<&str>, plan: Plan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread =
            netns::spawn_within(netns.map(str::to_owned), move || Ok(play(&plan, &stopped)));
        Self { stop, thread }
    }

    /// Lets the connections in flight end and returns the report.
    ///
    /// # Errors
    /// As [`run`].
    pub fn stop(self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits for the end of the plan and returns the report.
    ///
    /// # Errors
    /// As [`run`].
    pub fn finish(self) -> Result<Report> {
        self.thread
            .join()
            .map_err(|_| anyhow!("the traffic generator panicked"))?
    }
}

fn play(plan: &Plan, stop: &AtomicBool) -> Report {
    let share = plan.ports.len().div_ceil(plan.workers.max(1)).max(1);
    let connections = thread::scope(|scope| {
        let workers: Vec<_> = plan
            .ports
            .chunks(share)
            .map(|ports| scope.spawn(move || play_share(plan, ports, stop)))
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_default())
            .collect()
    });
    Report { connections }
}

fn play_share(plan: &Plan, ports: &[u16], stop: &AtomicBool) -> Vec<Connection> {
    let mut connections = Vec::new();
    for _ in 0..plan.rounds {
        for &port in ports {
            if stop.load(Ordering::Relaxed) {
                return connections;
            }
            connections.push(match plan.protocol {
                Protocol::Tcp => connect_once(plan, port, SockProtocol::Tcp),
                Protocol::Sctp => connect_once(plan, port, SockProtocol::Sctp),
                Protocol::Udp => ask_once(plan, port),
            });
        }
    }
    connections
}

fn connect_once(plan: &Plan, source_port: u16, protocol: SockProtocol) -> Connection {
    let client = match Client::bind(SocketAddr::new(plan.source, source_port), protocol) {
        Ok(client) => client,
        Err(failure) => return failed(source_port, failure),
    };
    let connected = client.connect(plan.target, plan.timeout);
    let mut connection = Connection {
        source_port,
        answered_by: None,
        elapsed_ms: millis(connected.elapsed),
        syn_retransmits: connected.syn_retransmits,
        failure: None,
    };
    let rest = connected.stream.and_then(|mut stream| {
        let limit = plan.timeout.max(ANSWER_LIMIT);
        connection.answered_by = Some(socket::read_name(&mut stream, limit)?);
        if protocol == SockProtocol::Sctp {
            // Closing says goodbye; an association that said it cannot be read any more.
            return Ok(());
        }
        socket::close(stream, plan.close, limit)
    });
    connection.failure = rest.err();
    connection
}

fn ask_once(plan: &Plan, source_port: u16) -> Connection {
    let start = Instant::now();
    let source = SocketAddr::new(plan.source, source_port);
    let answer = socket::ask_udp(source, plan.target, plan.timeout);
    let elapsed_ms = millis(start.elapsed());
    let (answered_by, failure) = match answer {
        Ok(name) => (Some(name), None),
        Err(failure) => (None, Some(failure)),
    };
    Connection {
        source_port,
        answered_by,
        elapsed_ms,
        syn_retransmits: 0,
        failure,
    }
}

fn failed(source_port: u16, failure: Failure) -> Connection {
    Connection {
        source_port,
        answered_by: None,
        elapsed_ms: 0,
        syn_retransmits: 0,
        failure: Some(failure),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Stage;
    use crate::server::Server;

    /// A server and a plan on addresses of the loopback network that only this test uses.
    fn server_and_plan(last_octet: u8, protocol: Protocol) -> (Server, Plan) {
        let target = SocketAddr::from(([127, 7, 0, last_octet], 18_080));
        let server = Server::start(None, "rs1", target).unwrap();
        let plan = Plan {
            source: IpAddr::from([127, 7, 1, last_octet]),
            target,
            protocol,
            ports: (41_000..41_007).collect(),
            rounds: 1,
            workers: 3,
            close: Close::Rst,
            timeout: ANSWER_LIMIT,
        };
        (server, plan)
    }

    #[test]
    fn tcp_ports_come_back_at_once_after_rst() {
        let (server, mut plan) = server_and_plan(1, Protocol::Tcp);
        plan.rounds = 3;
        let report = run(None, &plan).unwrap();
        report.ensure_all_answered().unwrap();
        assert_eq!(report.answered_by("rs1"), 21);
        assert_eq!(report.syn_retransmits(), 0);
        server.stop().unwrap();
    }

    #[test]
    fn udp_is_answered() {
        let (server, plan) = server_and_plan(2, Protocol::Udp);
        assert_eq!(run(None, &plan).unwrap().answered_by("rs1"), 7);
        server.stop().unwrap();
    }

    #[test]
    fn nobody_listening_is_econnrefused() {
        let (server, mut plan) = server_and_plan(3, Protocol::Tcp);
        server.stop().unwrap();
        plan.ports.truncate(1);
        let report = run(None, &plan).unwrap();
        let failure = report.connections[0].failure.clone().unwrap();
        assert_eq!((failure.stage, failure.errno), (Stage::Connect, 111));
    }
}
