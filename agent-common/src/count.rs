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
    /// [`TALLY_ATTEMPT`] or [`TALLY_SYN_DROP`].
    pub tally: u8,
    /// [`crate::verdict::Decision`] of an attempt; 0 for a SYN drop.
    pub decision: u8,
    /// [`crate::verdict::StaleCause`] when `decision` is `ReusedStale`,
    /// [`crate::verdict::DropCause`] when it is `Dropped` or for a SYN drop, else 0.
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
