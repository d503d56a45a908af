//! `net.core.somaxconn` keeps a listener's queue shorter than its program has asked for.

use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, Result, ensure};
use nix::libc;
use nix::sys::socket::SockProtocol;

use super::super::drops::LISTENER;
use super::clinic::cure;
use crate::lab::Lab;
use crate::listener::Listener;
use crate::netns;
use crate::socket::Client;
use crate::sysctl;
use crate::topology::{CLIENT, CLIENT_NETNS};
use crate::traffic::GIVE_UP;

/// Below `/proc/sys`.
const SOMAXCONN_NAME: &str = "net/core/somaxconn";
/// A bound so low that few connections reach it.
const LOW: &str = "2";
/// What the kernel starts with.
const DEFAULT: &str = "4096";
/// Room the program asks for; one more waits in it.
const ASKED: i32 = 8;
/// A client for each place that was asked for.
const PORTS: std::ops::RangeInclusive<u16> = 43_000..=43_008;

/// Plays the story, and puts the parameter back, which belongs to the guest's own namespace.
pub fn run(_: &mut Lab) -> Result<()> {
    sysctl::write(SOMAXCONN_NAME, LOW)?;
    let played = play();
    sysctl::write(SOMAXCONN_NAME, DEFAULT)?;
    played
}

fn play() -> Result<()> {
    let let_in = clients_let_in()?;
    ensure!(
        let_in == 3,
        "{let_in} connections wait in a queue of {LOW}, want one more than that"
    );
    cure("accept_queue", "observed")?;
    let (let_in, want) = (clients_let_in()?, PORTS.count());
    ensure!(
        let_in == want,
        "{let_in} connections wait after the cure, want {want}"
    );
    Ok(())
}

/// How many clients get into the queue of a new listener, until the first does not.
fn clients_let_in() -> Result<usize> {
    let listener = Listener::start(LISTENER.into(), ASKED)?;
    netns::within(Some(CLIENT_NETNS), || {
        let mut waiting = Vec::new();
        for port in PORTS {
            match connect(port, listener.address)? {
                Some(stream) => waiting.push(stream),
                None => break,
            }
        }
        Ok(waiting.len())
    })
}

/// A connection, or nothing where the client gives up.
fn connect(port: u16, target: SocketAddr) -> Result<Option<TcpStream>> {
    let source = SocketAddr::new(CLIENT.into(), port);
    let client = Client::bind(source, SockProtocol::Tcp)?;
    match client.connect(target, GIVE_UP).stream {
        Ok(stream) => Ok(Some(stream)),
        Err(failure) if failure.errno == libc::ETIMEDOUT => Ok(None),
        Err(failure) => Err(failure).with_context(|| format!("connect from {source}")),
    }
}
