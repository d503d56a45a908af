//! A listener that never accepts: its queues fill, and the kernel throws away what comes next.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};

use crate::netns;

/// Time for a handshake under emulation.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The listener; closed when dropped.
#[derive(Debug)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    backlog: i32,
    _fd: OwnedFd,
}

impl Listener {
    /// Listens where the caller is; at most `backlog` and one more connections wait in its queue.
    ///
    /// # Errors
    /// The address is not here, or the port is taken.
    pub fn start(address: SocketAddr, backlog: i32) -> Result<Self> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        bind(fd.as_raw_fd(), &SockaddrStorage::from(address))
            .with_context(|| format!("bind {address}"))?;
        listen(&fd, Backlog::new(backlog)?).with_context(|| format!("listen on {address}"))?;
        Ok(Self {
            address,
            backlog,
            _fd: fd,
        })
    }

    /// Fills the accept queue with connections from namespace `netns`, which stay open as long as
    /// what is returned.
    ///
    /// # Errors
    /// A connection is not made.
    pub fn fill(&self, netns: &str) -> Result<Vec<TcpStream>> {
        let connections = 0..=self.backlog;
        connections.map(|_| connect(netns, self.address)).collect()
    }
}

/// Connects from namespace `netns`, from any port.
///
/// # Errors
/// The connection is not made.
pub fn connect(netns: &str, target: SocketAddr) -> Result<TcpStream> {
    netns::within(Some(netns), || {
        TcpStream::connect_timeout(&target, CONNECT_LIMIT)
            .with_context(|| format!("connect to {target}"))
    })
}
