//! One connection of the traffic generator: chosen source port, measured, closed in a chosen way.
//!
//! Must send no packet that the caller did not ask for: the tests count packets.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, getsockopt,
    setsockopt, socket, sockopt,
};
use serde::{Deserialize, Serialize};

use crate::report::{Failure, Stage};

/// Longest name a server may send, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// How the client ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Close {
    /// FIN from the client, then from the server: IPVS's entry goes to `TIME_WAIT`.
    Clean,
    /// RST from the client: IPVS's entry goes to CLOSE.
    Rst,
    /// The client forgets the connection without a packet, as a host that loses power does:
    /// IPVS's entry stays ESTABLISHED.
    Vanish,
}

/// The first fields of `struct tcp_info`, which every supported kernel has.
///
/// The kernel copies as much as it is asked for, so a prefix reads the same on all of them.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct TcpInfoPrefix {
    /// The one-byte fields.
    bytes: [u8; 8],
    /// The `u32` fields up to `tcpi_total_retrans`.
    words: [u32; 24],
}

/// Index of `tcpi_unacked` among [`TcpInfoPrefix::words`].
const UNACKED: usize = 4;
/// Index of `tcpi_total_retrans` among [`TcpInfoPrefix::words`].
const TOTAL_RETRANS: usize = 23;

/// The shortest user timeout; 0 is none.
const AT_ONCE_MS: u32 = 1;

mod option {
    //! The socket option `nix` does not have.
    #![allow(missing_docs, reason = "the macro writes the items")]
    use nix::{getsockopt_impl, libc, sockopt_impl};
    sockopt_impl!(
        TcpInfo,
        GetOnly,
        libc::IPPROTO_TCP,
        libc::TCP_INFO,
        super::TcpInfoPrefix
    );
}

/// A TCP socket on its source port.
pub struct Client {
    fd: OwnedFd,
}

/// The end of [`Client::connect`].
pub struct Connected {
    /// From `connect()` until the connection was made, refused or given up.
    pub elapsed: Duration,
    /// SYNs sent again.
    pub syn_retransmits: u32,
    /// The connection, blocking again.
    pub stream: Result<TcpStream, Failure>,
}

impl Client {
    /// # Errors
    /// The source port is in use, or the address is not ours.
    pub fn bind(source: SocketAddr, protocol: SockProtocol) -> Result<Self, Failure> {
        let at = |errno| failure(Stage::Bind, errno);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let family = match source {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let fd = socket(family, SockType::Stream, flags, protocol).map_err(at)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true).map_err(at)?;
        bind(fd.as_raw_fd(), &SockaddrStorage::from(source)).map_err(at)?;
        Ok(Self { fd })
    }

    /// Connects; gives up after `timeout` with `ETIMEDOUT`.
    pub fn connect(self, target: SocketAddr, timeout: Duration) -> Connected {
        let start = Instant::now();
        let outcome = self.connect_and_wait(target, timeout);
        let elapsed = start.elapsed();
        if outcome.is_err() {
            // No SYN may follow behind the count: from here on the timer ends an attempt that was
            // sent again. Other protocols do not know the option.
            let _ = setsockopt(&self.fd, sockopt::TcpUserTimeout, &AT_ONCE_MS);
        }
        let syn_retransmits = getsockopt(&self.fd, option::TcpInfo)
            .map_or(0, |info: TcpInfoPrefix| info.words[TOTAL_RETRANS]);
        let stream = outcome
            .and_then(|()| into_blocking(self.fd))
            .map_err(|errno| failure(Stage::Connect, errno));
        Connected {
            elapsed,
            syn_retransmits,
            stream,
        }
    }

    fn connect_and_wait(&self, target: SocketAddr, timeout: Duration) -> Result<(), Errno> {
        match connect(self.fd.as_raw_fd(), &SockaddrStorage::from(target)) {
            Ok(()) => return Ok(()),
            Err(Errno::EINPROGRESS) => {}
            Err(errno) => return Err(errno),
        }
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLOUT)];
        let timeout = PollTimeout::try_from(timeout).map_err(|_| Errno::EINVAL)?;
        if poll(&mut fds, timeout)? == 0 {
            return Err(Errno::ETIMEDOUT);
        }
        match getsockopt(&self.fd, sockopt::SocketError)? {
            0 => Ok(()),
            errno => Err(Errno::from_raw(errno)),
        }
    }
}

fn into_blocking(fd: OwnedFd) -> Result<TcpStream, Errno> {
    let stream = TcpStream::from(fd);
    stream
        .set_nonblocking(false)
        .map_err(|error| errno_of(&error))?;
    Ok(stream)
}

/// Segments of a connection on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Not acknowledged yet.
    pub unacknowledged: u32,
    /// Sent again so far.
    pub sent_again: u32,
}

/// What the kernel says about the segments a stream has sent.
///
/// # Errors
/// It is no TCP socket.
pub fn segments(stream: &TcpStream) -> Result<Segments, Errno> {
    let info: TcpInfoPrefix = getsockopt(stream, option::TcpInfo)?;
    Ok(Segments {
        unacknowledged: info.words[UNACKED],
        sent_again: info.words[TOTAL_RETRANS],
    })
}

/// Reads the server's name, which it sends as soon as it accepts.
///
/// # Errors
/// No name within `timeout`, or the connection was reset.
pub fn read_name(stream: &mut TcpStream, timeout: Duration) -> Result<String, Failure> {
    let mut name = [0; MAX_NAME_BYTES];
    stream
        .set_read_timeout(Some(timeout))
        .and_then(|()| stream.read(&mut name))
        .map_err(|error| failure(Stage::Answer, errno_of(&error)))
        .and_then(|length| named(&name[..length]))
}

fn named(bytes: &[u8]) -> Result<String, Failure> {
    if bytes.is_empty() {
        return Err(Failure {
            stage: Stage::Answer,
            errno: 0,
            message: "the server closed without sending its name".to_owned(),
        });
    }
    Ok(String::from_utf8_lossy(bytes).trim().to_owned())
}

/// Ends the connection as `close` says.
///
/// # Errors
/// A clean close that the server does not answer within `timeout`.
pub fn close(mut stream: TcpStream, close: Close, timeout: Duration) -> Result<(), Failure> {
    let at = |errno| failure(Stage::Close, errno);
    match close {
        Close::Clean => {
            stream
                .shutdown(Shutdown::Write)
                .map_err(|e| at(errno_of(&e)))?;
            // Reading to the end keeps the socket open until the server's FIN is acknowledged:
            // only then does no later packet of this connection follow the next SYN.
            stream
                .set_read_timeout(Some(timeout))
                .map_err(|e| at(errno_of(&e)))?;
            let mut rest = Vec::new();
            stream
                .read_to_end(&mut rest)
                .map(drop)
                .map_err(|e| at(errno_of(&e)))
        }
        Close::Rst => {
            let now = libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            setsockopt(&stream, sockopt::Linger, &now).map_err(at)
        }
        // A socket in repair mode is closed without a packet.
        Close::Vanish => setsockopt(&stream, sockopt::TcpRepair, &1).map_err(at),
    }
}

/// Sends one datagram from `source` and waits for the server's name.
///
/// # Errors
/// No answer within `timeout`, or an ICMP error.
pub fn ask_udp(
    source: SocketAddr,
    target: SocketAddr,
    timeout: Duration,
) -> Result<String, Failure> {
    let bind = |error| failure(Stage::Bind, errno_of(&error));
    let socket = UdpSocket::bind(source).map_err(bind)?;
    socket.connect(target).map_err(bind)?;
    socket.set_read_timeout(Some(timeout)).map_err(bind)?;
    let mut name = [0; MAX_NAME_BYTES];
    socket
        .send(b"who?")
        .and_then(|_| socket.recv(&mut name))
        .map_err(|error| failure(Stage::Answer, errno_of(&error)))
        .and_then(|length| named(&name[..length]))
}

/// Sends `name` on a fresh connection.
///
/// # Errors
/// The client is gone already.
pub fn send_name(stream: &mut TcpStream, name: &str) -> std::io::Result<()> {
    stream.write_all(name.as_bytes())
}

fn errno_of(error: &std::io::Error) -> Errno {
    // A read that times out reports EAGAIN; the caller waited for an answer.
    match error.raw_os_error().map_or(Errno::EIO, Errno::from_raw) {
        Errno::EAGAIN => Errno::ETIMEDOUT,
        errno => errno,
    }
}

fn failure(stage: Stage, errno: Errno) -> Failure {
    Failure {
        stage,
        errno: errno as i32,
        message: errno.desc().to_owned(),
    }
}
