//! A program does not read its datagrams, and its buffer is full.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use super::{LISTENER, director_up};
use crate::agent::Agent;
use crate::lab::Lab;
use crate::netns;
use crate::scrape::Scrape;
use crate::topology::CLIENT_NETNS;

/// Datagrams sent.
const SENT: u64 = 200;
/// Bytes of each; a few fill the smallest buffer the kernel gives.
const BYTES: usize = 512;
/// Family of the drops.
const DROPS: &str = "ipvs_lens_socket_drops_total";

/// Plays the story.
pub fn run(_lab: &mut Lab) -> Result<()> {
    director_up()?;
    let agent = Agent::start()?;
    let before = agent.scrape()?;
    let lazy = UdpSocket::bind(SocketAddr::V4(LISTENER))?;
    setsockopt(&lazy, sockopt::RcvBuf, &0)?;
    netns::within(Some(CLIENT_NETNS), || {
        let client = UdpSocket::bind("0.0.0.0:0")?;
        for _ in 0..SENT {
            client.send_to(&[0; BYTES], SocketAddr::V4(LISTENER))?;
        }
        Ok(())
    })?;
    let kept = read_all(&lazy)?;
    ensure!(
        kept > 0 && kept < SENT,
        "{kept} of {SENT} datagrams were kept, want a few"
    );
    let after = agent.scrape()?;
    let dropped = count(&after, "udp_receive_buffer")? - count(&before, "udp_receive_buffer")?;
    ensure!(
        dropped == SENT - kept,
        "{dropped} drops told, want {}",
        SENT - kept
    );
    let memory = count(&after, "tcp_memory")? - count(&before, "tcp_memory")?;
    ensure!(memory == 0, "{memory} drops of TCP told, want none");
    agent.terminate()
}

/// Datagrams that wait; every one sent has been handled, because a virtual cable has no queue.
fn read_all(socket: &UdpSocket) -> Result<u64> {
    socket.set_nonblocking(true)?;
    let mut waiting = 0;
    let mut bytes = [0; BYTES];
    while socket.recv(&mut bytes).is_ok() {
        waiting += 1;
    }
    Ok(waiting)
}

fn count(scrape: &Scrape, cause: &str) -> Result<u64> {
    scrape.count(DROPS, &[("cause", cause)])
}
