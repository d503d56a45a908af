//! The kernel's memory of recent attempts, which makes a retransmit recognisable.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Attempts remembered at once (an LRU table: the oldest make room).
///
/// A retransmit is recognised while its attempt is remembered. 65,536 attempts last over one
/// second, the first retransmit, up to 65,000 new connections per second; about 10 MiB.
pub const ATTEMPTS_MAX: u32 = 65_536;

/// SYNs between the lookup and IPVS's verdict at one moment.
///
/// Bounded by CPUs times the nesting depth of the hooks (two); 4,096 is far above any machine.
pub const PENDING_MAX: u32 = 4_096;

/// One client's try to open a connection: its first SYN and the retransmits of that SYN.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Attempt {
    /// When the first SYN was seen on this node.
    pub first_seen_ns: u64,
    /// When a SYN of this attempt was first dropped here; 0 if never.
    pub first_drop_ns: u64,
    /// Initial sequence number, host order; tells a new attempt on the same tuple from a retransmit.
    pub isn: u32,
    /// SYNs of this attempt dropped on this node.
    pub drops: u16,
    /// SYNs seen after the first.
    pub retransmits: u16,
    /// [`crate::verdict::Decision`] already counted for this attempt; 0 if none yet.
    pub decision: u8,
    /// [`crate::verdict::DropCause`] of the first drop; 0 if never dropped.
    pub first_drop_cause: u8,
    /// 1 once a SYN got through after a drop and the delay was reported.
    pub delay_reported: u8,
    /// Always 0.
    pub pad: [u8; 5],
}

const _: () = assert!(size_of::<Attempt>() == 32);

#[cfg(feature = "user")]
mod user {
    // SAFETY: `#[repr(C)]`, `Copy`, and `zerocopy::IntoBytes` proves there is no padding.
    unsafe impl aya::Pod for super::Attempt {}
}
