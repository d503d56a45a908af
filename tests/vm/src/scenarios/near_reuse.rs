//! A client opens connections so fast that its source ports will come back: one more than is
//! ordinary counts.

use std::net::SocketAddrV4;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::agent::Agent;
use crate::bench::segment::{SYN, Segment, Sender};
use crate::director::{self, Transport};
use crate::lab::Lab;
use crate::topology::{CLIENT, CLIENT_NETNS, REAL_SERVERS, VIP};
use crate::{netns, wait};

/// Connections in half a minute that bring a client near: four fifths of 14,116 ports in 120 s.
const NEAR_FROM: u16 = 2_824;
/// The first port of a client.
const FIRST_PORT: u16 = 20_000;
/// A few readings, under emulation.
const READ_LIMIT: Duration = Duration::from_secs(20);

/// Plays the story.
pub fn run(_: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    let mut agent = Agent::spawn_with(&["--table-interval-s", "1"])?;
    agent.wait_ready()?;
    let last = FIRST_PORT + NEAR_FROM - 1;
    connect(FIRST_PORT..last)?;
    ensure_near(&agent, NEAR_FROM - 1, 0).context("one attempt too few")?;
    connect(last..last + 1)?;
    ensure_near(&agent, NEAR_FROM, 1).context("enough attempts")?;
    agent.terminate()
}

/// A SYN from each port, sent by hand: a busy emulator makes connections more slowly than a client
/// near reuse does.
fn connect(ports: Range<u16>) -> Result<()> {
    netns::within(Some(CLIENT_NETNS), || {
        let sender = Sender::new()?;
        for port in ports {
            sender.send(&Segment {
                source: SocketAddrV4::new(CLIENT, port),
                target: VIP,
                sequence: port.into(),
                acknowledgement: 0,
                flags: SYN,
            })?;
        }
        Ok(())
    })
}

fn ensure_near(agent: &Agent, attempts: u16, clients: u64) -> Result<()> {
    wait::until("the clients near reuse", READ_LIMIT, || {
        let scrape = agent.scrape()?;
        let scheduled = [("decision", "scheduled")];
        let counted = scrape.count("ipvs_lens_connections_total", &scheduled)?;
        ensure!(
            counted == u64::from(attempts),
            "{counted} attempts were scheduled, want {attempts}"
        );
        let shown = scrape.select(NEAR, &[]).len();
        let found = scrape.count(NEAR, &[])?;
        ensure!(
            (shown, found) == (1, clients),
            "{shown} series say {found} clients, want one that says {clients}"
        );
        Ok(())
    })
}

const NEAR: &str = "ipvs_lens_clients_near_port_reuse";
