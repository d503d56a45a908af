//! Identities shared by counters, records and tables.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `family` of an IPv4 address (the number of the protocol's version, not `AF_INET`).
pub const FAMILY_IPV4: u8 = 4;
/// `family` of an IPv6 address.
pub const FAMILY_IPV6: u8 = 6;

/// A virtual service as `ipvsadm -L` lists it, in one network namespace.
///
/// A fwmark service has `fwmark` set and zeros in `addr`, `port` and `proto`.
/// All zeros but `netns`: the service is not known.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct ServiceKey {
    /// Virtual address, see the crate's byte-order rule.
    pub addr: [u8; 16],
    /// Firewall mark, 0 for an address service.
    pub fwmark: u32,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Virtual port, host order; 0 means every port.
    pub port: u16,
    /// [`FAMILY_IPV4`] or [`FAMILY_IPV6`]; 0 when the service is not known.
    pub family: u8,
    /// IP protocol number (6 TCP, 17 UDP, 132 SCTP).
    pub proto: u8,
}

impl ServiceKey {
    /// "No service."
    pub const NONE: Self = Self {
        addr: [0; 16],
        fwmark: 0,
        netns: 0,
        port: 0,
        family: 0,
        proto: 0,
    };

    /// "Services without a key of their own": what was counted for them. The kernel makes no such
    /// key; its family and protocol cannot be a service's.
    pub const REST: Self = Self {
        proto: u8::MAX,
        ..Self::NONE
    };
}

/// A real server as `ipvsadm -L` lists it under its service.
///
/// All zeros: no real server (the SYN was dropped before one was chosen).
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct RealServerKey {
    /// Address, see the crate's byte-order rule.
    pub addr: [u8; 16],
    /// Port, host order.
    pub port: u16,
    /// Own family: a tunnelled IPv6 service may have IPv4 real servers.
    pub family: u8,
    /// Always 0.
    pub pad: u8,
}

impl RealServerKey {
    /// "No real server."
    pub const NONE: Self = Self {
        addr: [0; 16],
        port: 0,
        family: 0,
        pad: 0,
    };

    /// "Real servers without a key of their own": what was counted for them. The kernel makes no
    /// such key.
    pub const REST: Self = Self {
        pad: 1,
        ..Self::NONE
    };
}

/// The addresses and ports of one SYN as it reached IPVS.
///
/// Key of the kernel's attempt table together with nothing else: a new attempt on the same tuple
/// replaces the old one and is distinguished by its initial sequence number.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct TupleKey {
    /// Client address.
    pub client_addr: [u8; 16],
    /// Destination the client asked for (the VIP).
    pub dest_addr: [u8; 16],
    /// Client port, host order.
    pub client_port: u16,
    /// Destination port, host order.
    pub dest_port: u16,
    /// Inode number of the network namespace, 0 when it could not be read.
    pub netns: u32,
    /// [`FAMILY_IPV4`] or [`FAMILY_IPV6`].
    pub family: u8,
    /// IP protocol number.
    pub proto: u8,
    /// Always 0.
    pub pad: [u8; 2],
}

const _: () = assert!(size_of::<ServiceKey>() == 28);
const _: () = assert!(size_of::<RealServerKey>() == 20);
const _: () = assert!(size_of::<TupleKey>() == 44);

#[cfg(feature = "user")]
mod user {
    // SAFETY: `#[repr(C)]`, `Copy`, and `zerocopy::IntoBytes` proves there is no padding.
    unsafe impl aya::Pod for super::ServiceKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::RealServerKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::TupleKey {}
}
