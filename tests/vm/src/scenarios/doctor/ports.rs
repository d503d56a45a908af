//! A port that is served lies in the range of outgoing connections: while its server restarts, one
//! of these takes it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context as _, Result, ensure};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

use super::clinic::cure;
use crate::lab::Lab;
use crate::sysctl;
use crate::topology::RS1;

/// The port that is served.
const SERVED: u16 = 40_001;
/// A range so small that every port of it is taken; the kernel prefers one parity.
const RANGE: &str = "40000\t40003";
/// Ports in it.
const RANGE_PORTS: usize = 4;
/// Below `/proc/sys`.
const RANGE_NAME: &str = "net/ipv4/ip_local_port_range";
const RESERVED_NAME: &str = "net/ipv4/ip_local_reserved_ports";
/// What the kernel starts with.
const DEFAULT_RANGE: &str = "32768\t60999";

/// Plays the story, and puts the parameters back, which belong to the guest's own namespace.
pub fn run(_: &mut Lab) -> Result<()> {
    sysctl::write(RANGE_NAME, RANGE)?;
    let played = play();
    sysctl::write(RANGE_NAME, DEFAULT_RANGE)?;
    sysctl::write(RESERVED_NAME, "\n")?;
    played
}

fn play() -> Result<()> {
    ensure!(
        restart_fails()?,
        "an outgoing connection left port {SERVED} alone"
    );
    let server = listen().context("before")?;
    cure("ports_taken", "configured")?;
    drop(server);
    ensure!(!restart_fails()?, "a reserved port was taken");
    listen().context("after the cure").map(drop)
}

/// Whether the server cannot listen again once outgoing connections took what they could.
fn restart_fails() -> Result<bool> {
    let target = RS1.address();
    // The real server keeps its side open, which keeps the ports taken.
    let taken: Vec<TcpStream> = (0..RANGE_PORTS)
        .map_while(|_| TcpStream::connect(target).ok())
        .collect();
    ensure!(!taken.is_empty(), "no connection to {target}");
    let fails = listen().is_err();
    taken.iter().try_for_each(reset_on_close)?;
    Ok(fails)
}

/// A port whose connection was closed in order stays taken for a minute more.
fn reset_on_close(connection: &TcpStream) -> Result<()> {
    let at_once = linger {
        l_onoff: 1,
        l_linger: 0,
    };
    Ok(setsockopt(connection, sockopt::Linger, &at_once)?)
}

fn listen() -> std::io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, SERVED)))
}
