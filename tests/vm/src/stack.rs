//! The incident, played at the host's word while Prometheus on the host scrapes the agent in here.
//!
//! The host says what happens next, one word per connection to [`CONTROL_PORT`], and gets one line
//! back. Once they have begun, the clients go on as clients do.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::agent::{Agent, LISTEN};
use crate::command;
use crate::director::{self, Transport};
use crate::lab::Lab;
use crate::results::Results;
use crate::service::{Key, ORDINARY, Service};
use crate::socket::Close;
use crate::topology::{self, CLIENT_NETNS, REAL_SERVERS, RS1, VIP};
use crate::traffic::{self, Plan, Protocol};

/// This guest's address on the host's user network, as the host's emulator hands it out.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 15);
/// Where the host's words arrive.
const CONTROL_PORT: u16 = 9_743;
/// Tells the host that everything runs.
const READY: &str = "READY";
/// Source ports of the TCP client: four for each real server by round robin.
const TCP_PORTS: Range<u16> = 40_000..40_012;
/// Those of the client that vanishes.
const VANISHING_PORTS: Range<u16> = 41_000..41_012;
/// Those of the UDP client.
const UDP_PORTS: Range<u16> = 42_000..42_006;
/// Between two rounds: a few connections per second, so that a scrape finds the emulated CPUs free.
const PAUSE: Duration = Duration::from_millis(500);
/// A datagram is answered at once or never.
const UDP_LIMIT: Duration = Duration::from_secs(1);
/// The agent's patience with an outcome. The host watches in time-lapse, where the agent's own 16 s
/// would make time-outs the last news of an incident that is over; the kernel gives up an address
/// that no host has after 3 s in any case.
const OUTCOME_TIMEOUT_MS: &str = "6000";
/// Longest wait for the rest of a word.
const WORD_LIMIT: Duration = Duration::from_secs(10);

/// The UDP service in addition to the ordinary one.
const UDP: Service = Service {
    key: Key::Udp(SocketAddr::V4(VIP)),
    ..ORDINARY
};

/// What the host may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// Clients vanish without closing and come back: their SYNs are dropped by IPVS.
    Delay,
    /// Clients connect again and again from the same ports, until the end.
    Begin,
    /// A real server gets weight 0.
    Drain,
    /// It goes away.
    Remove,
    /// The sysctl that the doctor names.
    Cure,
    /// The guest powers off.
    End,
}

impl Word {
    fn parse(word: &str) -> Result<Self> {
        Ok(match word {
            "delay" => Self::Delay,
            "begin" => Self::Begin,
            "drain" => Self::Drain,
            "remove" => Self::Remove,
            "cure" => Self::Cure,
            "end" => Self::End,
            other => {
                bail!("unknown word {other:?}; known are delay, begin, drain, remove, cure, end")
            }
        })
    }
}

/// Serves until the host says that it is over.
///
/// # Errors
/// The network, IPVS or the agent cannot be set up.
pub fn run() -> Result<()> {
    Lab::play(|lab| {
        join_host()?;
        director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
        for transport in [Transport::Tcp, Transport::Udp] {
            director::add_service(transport, &REAL_SERVERS)?;
        }
        director::enable_conntrack()?;
        let listen = format!("0.0.0.0:{}", LISTEN.port());
        let mut agent = Agent::spawn_with(&[
            "--listen",
            &listen,
            "--outcome-timeout-ms",
            OUTCOME_TIMEOUT_MS,
        ])?;
        agent.wait_ready()?;
        let control = TcpListener::bind((ADDRESS, CONTROL_PORT))?;
        Results::open().line(READY);
        let clients = Clients::default();
        thread::scope(|scope| {
            for plan in [tcp_plan(), udp_plan()] {
                let clients = &clients;
                scope.spawn(move || clients.keep_coming(&plan));
            }
            let served = serve(lab, &clients, &control);
            clients.gone.store(true, Ordering::Relaxed);
            served
        })?;
        agent.terminate()
    })
}

/// Brings up the network card that leads to the host.
fn join_host() -> Result<()> {
    command::line("modprobe virtio_net")?;
    command::line(&format!("ip addr replace {ADDRESS}/24 dev eth0"))?;
    command::line("ip link set eth0 up").map(drop)
}

fn tcp_plan() -> Plan {
    let mut plan = Lab::plan(TCP_PORTS.collect());
    // A client that waits for a server that is gone must not keep the others waiting.
    plan.workers = plan.ports.len();
    plan
}

fn udp_plan() -> Plan {
    let mut plan = Lab::plan(UDP_PORTS.collect());
    plan.protocol = Protocol::Udp;
    plan.workers = plan.ports.len();
    plan.timeout = UDP_LIMIT;
    plan
}

/// Whether the clients have begun, and whether they have gone.
#[derive(Debug, Default)]
struct Clients {
    begun: AtomicBool,
    gone: AtomicBool,
}

impl Clients {
    fn keep_coming(&self, plan: &Plan) {
        while !self.gone.load(Ordering::Relaxed) {
            if self.begun.load(Ordering::Relaxed)
                && let Err(error) = traffic::run(Some(CLIENT_NETNS), plan)
            {
                eprintln!("lab: the client: {error:#}");
            }
            thread::sleep(PAUSE);
        }
    }
}

fn serve(lab: &Lab, clients: &Clients, control: &TcpListener) -> Result<()> {
    loop {
        let (stream, _) = control.accept()?;
        let word = hear(&stream);
        let done = match word {
            Ok(Word::End) => return answer(&stream, "ok"),
            Ok(word) => obey(lab, clients, word),
            Err(error) => Err(error),
        };
        let said = match done {
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        // The host may have gone away; it can come again.
        if let Err(error) = answer(&stream, &said) {
            eprintln!("lab: answer the host: {error:#}");
        }
    }
}

fn hear(stream: &TcpStream) -> Result<Word> {
    stream.set_read_timeout(Some(WORD_LIMIT))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Word::parse(line.trim())
}

fn answer(mut stream: &TcpStream, text: &str) -> Result<()> {
    // One line, whatever an error says.
    Ok(writeln!(stream, "{}", text.replace('\n', "; "))?)
}

fn obey(lab: &Lab, clients: &Clients, word: Word) -> Result<()> {
    match word {
        Word::Delay => delay(lab),
        Word::Begin => {
            clients.begun.store(true, Ordering::Relaxed);
            Ok(())
        }
        Word::Drain => {
            director::set_weight(RS1, 0)?;
            UDP.set_weight(RS1, 0)
        }
        Word::Remove => topology::remove_address(RS1),
        Word::Cure => {
            director::set("conn_reuse_mode", "1")?;
            director::set("expire_nodest_conn", "1")?;
            // A UDP flow leaves a real server only when that is removed.
            UDP.delete(RS1)
        }
        Word::End => Ok(()),
    }
}

/// One rollout with other settings, before the clients of the other begin: everybody connects,
/// vanishes, and comes back when the real server has weight 0.
fn delay(lab: &Lab) -> Result<()> {
    let settings = |values: [&str; 3]| {
        let names = ["conn_reuse_mode", "conntrack", "expire_nodest_conn"];
        names
            .iter()
            .zip(values)
            .try_for_each(|(name, value)| director::set(name, value))
    };
    settings(["1", "1", "1"])?;
    let mut plan = Lab::plan(VANISHING_PORTS.collect());
    plan.close = Close::Vanish;
    let first = lab.run_all_answered(&plan)?;
    director::set_weight(RS1, 0)?;
    let mut again = Lab::plan(first.ports_answered_by(RS1.name));
    again.workers = again.ports.len();
    let again = lab.run_all_answered(&again)?;
    director::set_weight(RS1, 1)?;
    settings(["0", "0", "0"])?;
    ensure!(
        again.syn_retransmits() > 0,
        "no SYN was sent again: {again:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_word_is_named() {
        assert_eq!(Word::parse("cure").unwrap(), Word::Cure);
        let error = Word::parse("party").unwrap_err().to_string();
        assert!(
            error.contains("\"party\"") && error.contains("drain"),
            "{error}"
        );
    }
}
