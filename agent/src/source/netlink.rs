//! Reads the IPVS table of the calling thread's network namespace by generic netlink.
//!
//! One list of services, then one list of real servers per service: the kernel offers no other
//! way that knows IPv6 and flags. It holds IPVS's configuration lock only while it fills one
//! datagram, so a change waits for microseconds at most; packets never wait for it.

use std::io;

use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};
use thiserror::Error;

use crate::clock;
use crate::event::{Family, NetnsId, Service, ServiceName};
use crate::table::wire::{self, Frame};
use crate::table::{RealServerRow, ServiceRow, Snapshot, TableError};

/// The kernel makes its datagrams as large as the room it is offered (`netlink_dump`), from one page
/// up. With its own bookkeeping this fits in 8 KiB, and most services in one datagram of some
/// fifteen real servers; more room would be cleared in vain for each of 10,000 services.
const DATAGRAM_BYTES_MAX: usize = 7 * 1024;

/// Why there is no snapshot.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The socket.
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// What the kernel said.
    #[error(transparent)]
    Table(#[from] TableError),
    /// An answer of more bytes than the kernel may send.
    #[error("an answer about {object} has {found} bytes, expected at most {DATAGRAM_BYTES_MAX}")]
    TooLong {
        /// What was asked for.
        object: &'static str,
        /// Bytes the kernel had.
        found: usize,
    },
    /// The kernel answered without saying it.
    #[error("generic netlink family IPVS not found")]
    NoFamily,
}

/// The whole table, as of now, of the namespace this thread is in.
///
/// Blocks while the kernel answers. Asks nothing when `ip_vs` is not loaded only if the caller
/// sees to that: the question itself would load it.
///
/// # Errors
/// [`ReadError`]; without `CAP_NET_ADMIN` the kernel refuses with EPERM.
pub fn read(netns: NetnsId) -> Result<Snapshot, ReadError> {
    let began = clock::now();
    let mut kernel = Kernel::open()?;
    let mut rows = Vec::new();
    let request = wire::services(kernel.family, kernel.next());
    kernel.list("services", &request, |attributes| {
        rows.push(wire::service(attributes, netns)?);
        Ok(())
    })?;
    let services = rows
        .into_iter()
        .map(|row| kernel.with_real_servers(row))
        .collect::<Result<Vec<_>, _>>()?;
    let ended = clock::now();
    Ok(Snapshot::new(ended, ended.since(began), netns, services))
}

/// A socket that knows IPVS's family.
struct Kernel {
    socket: Socket,
    family: u16,
    sequence: u32,
    datagram: Vec<u8>,
}

impl Kernel {
    fn open() -> Result<Self, ReadError> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let mut kernel = Self {
            socket,
            family: 0,
            sequence: 0,
            datagram: Vec::with_capacity(DATAGRAM_BYTES_MAX),
        };
        let request = wire::family_request(kernel.next());
        kernel.family = kernel.ask_family(&request)?;
        Ok(kernel)
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn ask_family(&mut self, request: &[u8]) -> Result<u16, ReadError> {
        const OBJECT: &str = "the family of IPVS";
        self.socket.send(request, 0)?;
        self.receive(OBJECT)?;
        for frame in wire::frames(OBJECT, &self.datagram) {
            if let Frame::Object(attributes) = frame? {
                return Ok(wire::family_number(attributes)?);
            }
        }
        Err(ReadError::NoFamily)
    }

    fn with_real_servers(&mut self, row: ServiceRow) -> Result<ServiceRow, ReadError> {
        let sequence = self.next();
        let Some(request) = wire::real_servers(self.family, sequence, &row.service) else {
            return Ok(row);
        };
        let family = family_of(&row.service);
        let mut rows: Vec<RealServerRow> = Vec::new();
        self.list("real servers", &request, |attributes| {
            rows.push(wire::real_server(attributes, family)?);
            Ok(())
        })?;
        Ok(row.with_real_servers(rows))
    }

    /// Sends a request for a list and hands out its objects until the list is done.
    fn list(
        &mut self,
        object: &'static str,
        request: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), TableError>,
    ) -> Result<(), ReadError> {
        self.socket.send(request, 0)?;
        loop {
            self.receive(object)?;
            for frame in wire::frames(object, &self.datagram) {
                match frame? {
                    Frame::Object(attributes) => take(attributes)?,
                    Frame::Done => return Ok(()),
                }
            }
        }
    }

    /// One datagram. It waits already, or the kernel makes it inside this call: the kernel
    /// answers the sender itself, so there is no other answer to wait for.
    fn receive(&mut self, object: &'static str) -> Result<(), ReadError> {
        self.datagram.clear();
        let found = self.socket.recv(&mut self.datagram, libc::MSG_TRUNC)?;
        if found > self.datagram.len() {
            return Err(ReadError::TooLong { object, found });
        }
        log::trace!("{object}: {:02x?}", self.datagram);
        Ok(())
    }
}

const fn family_of(service: &Service) -> Family {
    match service.name {
        ServiceName::Fwmark { family, .. } => family,
        ServiceName::Address { local, .. } if local.is_ipv6() => Family::V6,
        ServiceName::Address { .. } | ServiceName::Unknown => Family::V4,
    }
}
