//! TCP segments made by hand: what is measured must be one packet, not what a socket makes of it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use anyhow::Result;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

const IP_BYTES: usize = 20;
const TCP_BYTES: usize = 20;
const TCP: u8 = 6;
const TTL: u8 = 64;
const WINDOW: u16 = 64_240;

/// Flags of a segment (RFC 9293).
pub const SYN: u8 = 0x02;
/// See [`SYN`].
pub const ACK: u8 = 0x10;

/// A segment without data.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Sender.
    pub source: SocketAddrV4,
    /// Receiver.
    pub target: SocketAddrV4,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// [`SYN`], [`ACK`].
    pub flags: u8,
}

impl Segment {
    /// The packet; the kernel fills in its total length and the checksum of its header.
    fn bytes(&self) -> [u8; IP_BYTES + TCP_BYTES] {
        let mut packet = [0; IP_BYTES + TCP_BYTES];
        packet[0] = 0x45;
        packet[8] = TTL;
        packet[9] = TCP;
        packet[12..16].copy_from_slice(&self.source.ip().octets());
        packet[16..20].copy_from_slice(&self.target.ip().octets());
        let tcp = &mut packet[IP_BYTES..];
        tcp[0..2].copy_from_slice(&self.source.port().to_be_bytes());
        tcp[2..4].copy_from_slice(&self.target.port().to_be_bytes());
        tcp[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.acknowledgement.to_be_bytes());
        tcp[12] = 0x50;
        tcp[13] = self.flags;
        tcp[14..16].copy_from_slice(&WINDOW.to_be_bytes());
        let sum = checksum(*self.source.ip(), *self.target.ip(), tcp);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        packet
    }
}

/// Of a segment whose own checksum is still 0, with its pseudo-header (RFC 9293, 3.1).
fn checksum(source: Ipv4Addr, target: Ipv4Addr, tcp: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        let pairs = bytes.chunks(2);
        pairs
            .map(|pair| (u32::from(pair[0]) << 8) | pair.get(1).copied().map_or(0, u32::from))
            .sum()
    };
    let length = u32::try_from(tcp.len()).unwrap_or(0);
    let mut sum =
        words(&source.octets()) + words(&target.octets()) + u32::from(TCP) + length + words(tcp);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// Sends segments from the namespace it was made in.
pub struct Sender(OwnedFd);

impl Sender {
    /// # Errors
    /// Not root.
    pub fn new() -> Result<Self> {
        // A raw socket of this protocol is handed whole packets (raw(7)).
        let fd = socket(
            AddressFamily::Inet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Raw,
        )?;
        Ok(Self(fd))
    }

    /// Returns when the segment, and what it made others send, has been dealt with: on one CPU the
    /// network's work is done before the system call ends.
    ///
    /// # Errors
    /// There is no way to the target.
    pub fn send(&self, segment: &Segment) -> Result<()> {
        let target = SockaddrIn::from(segment.target);
        sendto(
            self.0.as_fd().as_raw_fd(),
            &segment.bytes(),
            &target,
            MsgFlags::empty(),
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{ACK, Segment, checksum};

    #[test]
    fn a_segment_with_its_checksum_sums_to_nothing() {
        let segment = Segment {
            source: "10.0.0.2:20000".parse().unwrap(),
            target: "10.96.0.10:81".parse().unwrap(),
            sequence: 0x0102_0304,
            acknowledgement: 0xfffe_fdfc,
            flags: ACK,
        };
        let bytes = segment.bytes();
        assert_eq!(bytes[20..24], [0x4e, 0x20, 0, 81]);
        assert_eq!(bytes[33], ACK);
        let (source, target) = (*segment.source.ip(), *segment.target.ip());
        assert_eq!(checksum(source, target, &bytes[20..]), 0);
        let mut torn = bytes;
        torn[25] ^= 1;
        assert_ne!(checksum(source, target, &torn[20..]), 0);
    }
}
