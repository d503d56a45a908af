//! Packets of three kinds, one after the other, each timed by itself.

use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use nix::sys::socket::{SockProtocol, setsockopt, sockopt};

use super::segment::{ACK, SYN, Segment, Sender};
use crate::director::{self, Transport};
use crate::netns;
use crate::socket::Client;
use crate::topology::{CLIENT, CLIENT_NETNS, RS1, VIP};

/// Packets of the established connection.
const PACKETS: u16 = 1_000;
/// SYNs of each kind.
pub const SYNS: u16 = 200;
/// Source port of the established connection.
const LONG_PORT: u16 = 20_000;
/// First source port of the SYNs; every measurement takes the next ones, so that none meets an
/// entry it did not make.
const FIRST_PORT: u16 = 21_000;
/// Sequence numbers of a port's two SYNs: with the same one the second would be a retransmit.
const FIRST_SEQUENCE: u32 = 1_000;
const SECOND_SEQUENCE: u32 = 1_000_000;
const TIMEOUT: Duration = Duration::from_secs(20);

mod option {
    //! The socket options `nix` does not have.
    #![allow(missing_docs, reason = "the macro writes the items")]
    use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};
    sockopt_impl!(
        RepairQueue,
        SetOnly,
        libc::IPPROTO_TCP,
        libc::TCP_REPAIR_QUEUE,
        libc::c_int
    );
    sockopt_impl!(
        QueueSequence,
        GetOnly,
        libc::IPPROTO_TCP,
        libc::TCP_QUEUE_SEQ,
        u32
    );
}

/// `TCP_RECV_QUEUE`, `TCP_SEND_QUEUE` and `TCP_REPAIR_OFF_NO_WP` (include/uapi/linux/tcp.h).
const RECEIVE_QUEUE: i32 = 1;
const SEND_QUEUE: i32 = 2;
const REPAIR_OFF_QUIETLY: u32 = u32::MAX;

/// Nanoseconds of guest time, which are instructions: of the middle one of many, which no timer
/// came between. Sending, forwarding and receiving are all in it.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// An acknowledgement on an established connection, which gets no answer.
    pub established: u64,
    /// A SYN from a port never used before, its SYN-ACK, and the RST the client answers with.
    pub scheduled: u64,
    /// The same from the same port again, to a real server of weight 0.
    pub reused: u64,
}

/// The service and the established connection.
pub struct Traffic {
    acknowledgement: Segment,
    _long: TcpStream,
    next_port: u16,
}

impl Traffic {
    /// Sets everything up.
    ///
    /// # Errors
    /// A tool or a connection failed.
    pub fn up() -> Result<Self> {
        director::add_service(Transport::Tcp, &[RS1])?;
        let long = netns::within(Some(CLIENT_NETNS), || connect(LONG_PORT))?;
        Ok(Self {
            acknowledgement: acknowledgement(&long)?,
            _long: long,
            next_port: FIRST_PORT,
        })
    }

    /// Measures all three kinds.
    ///
    /// # Errors
    /// A packet could not be sent.
    pub fn measure(&mut self) -> Result<Measured> {
        let ports = self.next_port..self.next_port + SYNS;
        self.next_port = ports.end;
        let acknowledgement = self.acknowledgement;
        let established = middle(PACKETS, |_| acknowledgement)?;
        let scheduled = middle(SYNS, |turn| syn(&ports, turn, FIRST_SEQUENCE))?;
        director::set_weight(RS1, 0)?;
        let reused = middle(SYNS, |turn| syn(&ports, turn, SECOND_SEQUENCE))?;
        director::set_weight(RS1, 1)?;
        Ok(Measured {
            established,
            scheduled,
            reused,
        })
    }
}

/// The time of the middle one of `count` segments, sent by the client.
fn middle(count: u16, segment: impl Fn(u16) -> Segment + Send + Sync) -> Result<u64> {
    netns::within(Some(CLIENT_NETNS), || {
        let sender = Sender::new()?;
        let mut times = Vec::with_capacity(count.into());
        for turn in 0..count {
            let segment = segment(turn);
            let start = Instant::now();
            sender.send(&segment)?;
            times.push(u64::try_from(start.elapsed().as_nanos())?);
        }
        times.sort_unstable();
        let middle = times.get(times.len() / 2).copied();
        middle.context("nothing was measured")
    })
}

fn syn(ports: &Range<u16>, turn: u16, sequence: u32) -> Segment {
    Segment {
        source: SocketAddrV4::new(CLIENT, ports.start + turn),
        target: VIP,
        sequence,
        acknowledgement: 0,
        flags: SYN,
    }
}

/// An acknowledgement of what the connection has received already.
fn acknowledgement(stream: &TcpStream) -> Result<Segment> {
    setsockopt(stream, sockopt::TcpRepair, &1)?;
    let sequence = |queue: i32| -> Result<u32> {
        setsockopt(stream, option::RepairQueue, &queue)?;
        Ok(nix::sys::socket::getsockopt(stream, option::QueueSequence)?)
    };
    let (sent, received) = (sequence(SEND_QUEUE)?, sequence(RECEIVE_QUEUE)?);
    setsockopt(stream, sockopt::TcpRepair, &REPAIR_OFF_QUIETLY)?;
    Ok(Segment {
        source: SocketAddrV4::new(CLIENT, LONG_PORT),
        target: VIP,
        sequence: sent,
        acknowledgement: received,
        flags: ACK,
    })
}

fn connect(port: u16) -> Result<TcpStream> {
    let failed = |failure| anyhow!("port {port}: {failure:?}");
    let source = SocketAddr::new(CLIENT.into(), port);
    let client = Client::bind(source, SockProtocol::Tcp).map_err(failed)?;
    let mut stream = client.connect(VIP.into(), TIMEOUT).stream.map_err(failed)?;
    // The server speaks first and then says no more.
    crate::socket::read_name(&mut stream, TIMEOUT).map_err(failed)?;
    Ok(stream)
}
