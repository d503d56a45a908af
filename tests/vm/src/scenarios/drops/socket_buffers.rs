//! Sockets throw away what comes: programs do not read, and their buffers are full.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use super::{LISTENER, director_up};
use crate::agent::{self, Agent};
use crate::lab::Lab;
use crate::scrape::Scrape;
use crate::topology::CLIENT_NETNS;
use crate::{listener, netns, netstat, socket, wait};

/// Datagrams sent.
const SENT: usize = 200;
/// Bytes of each; a few fill the smallest buffer the kernel gives.
const BYTES: usize = 512;
/// Family of the drops.
const DROPS: &str = "ipvs_lens_socket_drops_total";

/// Bytes of one segment, and of those that fill the socket's buffer before: less than its window.
const SEGMENT_BYTES: usize = 1_000;
const FILL_BYTES: usize = 16 * SEGMENT_BYTES;
/// Segments sent one by one until one is thrown away; together less than the window.
const SEGMENTS_MAX: usize = 16;
/// A buffer with room for all of it again.
const ROOM_BYTES: usize = 200_000;
/// The kernel's own counts of a segment without room, and of one behind a closed window.
const NO_ROOM: &str = "TCPRcvQDrop";
const CLOSED: &str = "TCPZeroWindowDrop";
/// How often the segment is to be thrown away.
const THROWN_AWAY: u32 = 3;
/// Until it was, and until it got through.
const LIMIT: Duration = Duration::from_secs(20);

/// Plays the story.
pub fn run(_lab: &mut Lab) -> Result<()> {
    director_up()?;
    let agent = Agent::start()?;
    let before = agent.scrape()?;
    let datagrams = datagrams_in_vain()?;
    let segments = segments_in_vain()?;

    let after = agent.scrape()?;
    for (cause, want) in [
        ("udp_receive_buffer", datagrams),
        ("udp_memory", 0),
        ("tcp_memory", segments),
    ] {
        let found = count(&after, cause)? - count(&before, cause)?;
        ensure!(
            found == u64::try_from(want)?,
            "{found} drops counted as {cause}, want {want}"
        );
    }
    agent.terminate()?;
    agent::ensure_logged("sockets dropped ", "udp_receive_buffer", datagrams)?;
    agent::ensure_logged("sockets dropped ", "tcp_memory", segments)
}

/// Sends datagrams to a program that does not read; returns how many were thrown away.
fn datagrams_in_vain() -> Result<usize> {
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
    Ok(SENT - kept)
}

/// Datagrams that wait; every one sent has been handled, because a virtual cable has no queue.
fn read_all(socket: &UdpSocket) -> Result<usize> {
    socket.set_nonblocking(true)?;
    let mut waiting = 0;
    let mut bytes = [0; BYTES];
    while socket.recv(&mut bytes).is_ok() {
        waiting += 1;
    }
    Ok(waiting)
}

/// Sends a segment to a receiver that has promised room for it, and then taken the room away;
/// returns how often it was thrown away for that. Once the receiver has announced a closed
/// window, the segment is thrown away for coming all the same.
fn segments_in_vain() -> Result<usize> {
    let server = TcpListener::bind(SocketAddr::V4(LISTENER))?;
    let mut client = listener::connect(CLIENT_NETNS, SocketAddr::V4(LISTENER))?;
    let (mut lazy, _) = server.accept()?;
    client.set_nodelay(true)?;
    client.write_all(&[0; FILL_BYTES]).context("fill")?;
    is_acknowledged(&client)?;

    let before = [netstat::tcp_ext(NO_ROOM)?, netstat::tcp_ext(CLOSED)?];
    setsockopt(&lazy, sockopt::RcvBuf, &0)?;
    let start = socket::segments(&client)?.sent_again;
    let sent = send_until_thrown_away(&mut client)?;
    wait::until("the segment to be sent again", LIMIT, || {
        let sent_again = socket::segments(&client)?.sent_again - start;
        ensure!(sent_again >= THROWN_AWAY, "{sent_again} times");
        Ok(())
    })?;
    setsockopt(&lazy, sockopt::RcvBuf, &ROOM_BYTES)?;
    // Reading opens the window again.
    lazy.read_exact(&mut vec![0; FILL_BYTES + sent - SEGMENT_BYTES])?;
    is_acknowledged(&client)?;
    let no_room = netstat::tcp_ext(NO_ROOM)? - before[0];
    let closed = netstat::tcp_ext(CLOSED)? - before[1];
    let sent_again = u64::from(socket::segments(&client)?.sent_again - start);
    ensure!(
        no_room > 0 && no_room + closed == sent_again,
        "sent again {sent_again} times, thrown away {no_room} and {closed} times"
    );
    Ok(usize::try_from(no_room)?)
}

/// Sends one segment after the other: memory a socket has already is not taken away from it.
/// Returns how many bytes they are.
fn send_until_thrown_away(client: &mut TcpStream) -> Result<usize> {
    let start = socket::segments(client)?.sent_again;
    for number in 1..=SEGMENTS_MAX {
        client.write_all(&[0; SEGMENT_BYTES]).context("send")?;
        let segments = wait::until("a segment to be acknowledged or sent again", LIMIT, || {
            let segments = socket::segments(client)?;
            ensure!(
                segments.unacknowledged == 0 || segments.sent_again > start,
                "{segments:?}"
            );
            Ok(segments)
        })?;
        if segments.sent_again > start {
            return Ok(number * SEGMENT_BYTES);
        }
    }
    bail!("{SEGMENTS_MAX} segments were kept without room")
}

fn is_acknowledged(client: &TcpStream) -> Result<()> {
    wait::until("every segment to be acknowledged", LIMIT, || {
        let segments = socket::segments(client)?;
        ensure!(segments.unacknowledged == 0, "{segments:?}");
        Ok(())
    })
}

fn count(scrape: &Scrape, cause: &str) -> Result<u64> {
    scrape.count(DROPS, &[("cause", cause)])
}
