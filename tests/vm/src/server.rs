//! A real server of the lab: answers on TCP and UDP with its name.
//!
//! One thread per server. It never closes a connection first: how a connection ends is the
//! client's choice, and the tests rest on it.

use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage,
};

use crate::netns;
use crate::socket::{MAX_NAME_BYTES, send_name};

/// Connections kept open at once; clients that vanish never close theirs. The oldest makes room.
const MAX_OPEN: usize = 4_096;
/// Longest time until the thread sees that it shall stop.
const STOP_POLL_MS: u16 = 100;
/// Longest time a server may take to bind its sockets.
const START_LIMIT: Duration = Duration::from_secs(10);

/// A running server; stops when dropped.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Server {
    /// Serves `name` on TCP and UDP `address` in network namespace `netns`; returns once bound.
    ///
    /// # Errors
    /// The namespace or the address does not exist, or the port is taken.
    pub fn start(netns: Option<&str>, name: &str, address: SocketAddr) -> Result<Self> {
        Self::start_on(netns, name, address, bind_tcp)
    }

    /// As [`Self::start`], on SCTP in place of TCP, and on no UDP port anybody knows.
    ///
    /// # Errors
    /// As [`Self::start`]; or the kernel does not speak SCTP.
    pub fn start_sctp(netns: Option<&str>, name: &str, address: SocketAddr) -> Result<Self> {
        Self::start_on(netns, name, address, bind_sctp)
    }

    fn start_on(netns: Option<&str>, name: &str, address: SocketAddr, bind: Bind) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (bound, is_bound) = channel();
        let thread = {
            let (stop, name) = (Arc::clone(&stop), name.to_owned());
            netns::spawn_within(netns.map(str::to_owned), move || {
                let (listener, datagrams) =
                    bind(address).with_context(|| format!("server {name}: listen on {address}"))?;
                serve(&name, &listener, &datagrams, &stop, &bound)
            })
        };
        let mut server = Self {
            stop,
            thread: Some(thread),
        };
        if is_bound.recv_timeout(START_LIMIT).is_err() {
            server.finish()?;
            return Err(anyhow!("server {name} at {address} did not start"));
        }
        Ok(server)
    }

    /// Stops serving; open connections are closed.
    ///
    /// # Errors
    /// The server had failed.
    pub fn stop(mut self) -> Result<()> {
        self.finish()
    }

    fn finish(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take() {
            Some(thread) => thread
                .join()
                .map_err(|_| anyhow!("a server thread panicked"))?,
            None => Ok(()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            eprintln!("lab: {error:#}");
        }
    }
}

/// Opens the sockets of a server: one that accepts connections, one for datagrams.
type Bind = fn(SocketAddr) -> Result<(TcpListener, UdpSocket)>;

fn bind_tcp(address: SocketAddr) -> Result<(TcpListener, UdpSocket)> {
    Ok((TcpListener::bind(address)?, UdpSocket::bind(address)?))
}

/// A socket of one SCTP association reads and writes as one of TCP does (RFC 6458, section 4).
fn bind_sctp(address: SocketAddr) -> Result<(TcpListener, UdpSocket)> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket::socket(family, SockType::Stream, flags, SockProtocol::Sctp)?;
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    socket::listen(&fd, Backlog::MAXCONN)?;
    let datagrams = UdpSocket::bind(SocketAddr::new(address.ip(), 0))?;
    Ok((TcpListener::from(fd), datagrams))
}

fn serve(
    name: &str,
    listener: &TcpListener,
    datagrams: &UdpSocket,
    stop: &AtomicBool,
    bound: &Sender<()>,
) -> Result<()> {
    listener.set_nonblocking(true)?;
    datagrams.set_nonblocking(true)?;
    // The starter may have given up waiting; then `stop` is set.
    let _ = bound.send(());
    let mut open = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        wait_readable(listener, datagrams, &open)?;
        drop_finished(&mut open);
        accept_all(listener, name, &mut open)?;
        answer_all(datagrams, name);
    }
    Ok(())
}

fn wait_readable(listener: &TcpListener, datagrams: &UdpSocket, open: &[TcpStream]) -> Result<()> {
    let mut fds = vec![
        PollFd::new(listener.as_fd(), PollFlags::POLLIN),
        PollFd::new(datagrams.as_fd(), PollFlags::POLLIN),
    ];
    fds.extend(
        open.iter()
            .map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLIN)),
    );
    poll(&mut fds, PollTimeout::from(STOP_POLL_MS)).context("poll the server's sockets")?;
    Ok(())
}

/// Drops every connection whose client has closed or reset it.
fn drop_finished(open: &mut Vec<TcpStream>) {
    open.retain_mut(|stream| {
        let mut ignored = [0; MAX_NAME_BYTES];
        match stream.read(&mut ignored) {
            Ok(0) => false,
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    });
}

fn accept_all(listener: &TcpListener, name: &str, open: &mut Vec<TcpStream>) -> Result<()> {
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                stream.set_nonblocking(true)?;
                if send_name(&mut stream, name).is_ok() {
                    if open.len() == MAX_OPEN {
                        open.remove(0);
                    }
                    open.push(stream);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // The client gave up between its SYN and our accept.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error).context("accept a connection"),
        }
    }
}

fn answer_all(datagrams: &UdpSocket, name: &str) {
    let mut question = [0; MAX_NAME_BYTES];
    // An error here is an ICMP answer to an earlier datagram or "no more": the client reports it.
    while let Ok((_, client)) = datagrams.recv_from(&mut question) {
        let _ = datagrams.send_to(name.as_bytes(), client);
    }
}
