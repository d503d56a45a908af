//! Keys of the kernel's counters.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::key::{RealServerKey, ServiceKey};

/// Label sets the kernel counts apart.
///
/// 16,384 keys of 56 bytes and one `u64` per CPU: about 1.7 MiB plus 128 KiB per CPU. A node
/// programs up to 10,000 services, but only pairs that saw a connection take a key. What does not
/// fit is counted in [`crate::stat::Stat::CountsFull`].
pub const COUNTS_MAX: u32 = 16_384;

/// [`CountKey::tally`]: one attempt, with its decision.
pub const TALLY_ATTEMPT: u8 = 1;
/// [`CountKey::tally`]: one SYN packet that died on this node, with its cause.
pub const TALLY_SYN_DROP: u8 = 2;
/// [`CountKey::tally`]: what became of one stale attempt.
pub const TALLY_OUTCOME: u8 = 3;
/// [`CountKey::tally`]: one retransmitted SYN.
pub const TALLY_RETRANSMIT: u8 = 4;
/// [`CountKey::tally`]: one datagram to a stale real server.
pub const TALLY_STALE_DATAGRAM: u8 = 5;
/// [`CountKey::tally`]: one flow of datagrams that was seen to go to a stale real server.
pub const TALLY_STALE_FLOW: u8 = 6;

/// What is counted, for whom. The value is a `u64` per CPU.
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
pub struct CountKey {
    /// Service; all zeros when the dying SYN belongs to no service seen so far.
    pub service: ServiceKey,
    /// Real server the SYN was sent to or was bound to; [`RealServerKey::NONE`] if none.
    pub real_server: RealServerKey,
    /// `TALLY_*`.
    pub tally: u8,
    /// [`crate::verdict::Decision`] of an attempt; else 0.
    pub decision: u8,
    /// [`crate::verdict::StaleCause`] when `decision` is `ReusedStale`,
    /// [`crate::verdict::DropCause`] when it is `Dropped` or for a SYN drop,
    /// [`crate::verdict::Outcome`] of a stale attempt, [`crate::verdict::Lost`] of a retransmit,
    /// else 0.
    pub cause: u8,
    /// Always 0.
    pub pad: u8,
}

const _: () = assert!(size_of::<CountKey>() == 52);

#[cfg(feature = "user")]
mod user {
    // SAFETY: `#[repr(C)]`, `Copy`, and `zerocopy::IntoBytes` proves there is no padding.
    unsafe impl aya::Pod for super::CountKey {}
}
