//! Keys of the kernel's counters.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::key::{RealServerKey, ServiceKey};

/// Label sets the kernel counts apart in one bank, which is as long as the agent does not empty it.
///
/// 16,384 keys of 56 bytes and one `u64` per CPU: about 1.7 MiB plus 128 KiB per CPU, for each of
/// [`BANKS`]. The agent empties a bank long before it is full; what does not fit all the same is
/// counted without its names, see [`rest_index`] and [`crate::stat::Stat::CountsFull`].
pub const COUNTS_MAX: u32 = 16_384;

/// Banks of counters: the kernel programs count in one while the agent empties the other.
pub const BANKS: u32 = 2;

/// Counters without names, one for each kind of count: see [`rest_index`].
pub const REST_MAX: u32 = 1 << 11;

/// Where a count of this kind is added when no key of its own can be made.
///
/// Tallies and decisions are below 8 and causes below 32; a number out of range shares the counter
/// of another kind, and is inside the array all the same.
#[must_use]
pub const fn rest_index(tally: u8, decision: u8, cause: u8) -> u32 {
    ((tally as u32 & 7) << 8) | ((decision as u32 & 7) << 5) | (cause as u32 & 31)
}

/// The kind of count a member of the array of counters without names holds; see [`rest_index`].
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "three bits or five each")]
pub const fn rest_key(index: u32) -> CountKey {
    CountKey {
        service: ServiceKey::REST,
        real_server: RealServerKey::NONE,
        tally: (index >> 8) as u8 & 7,
        decision: (index >> 5) as u8 & 7,
        cause: index as u8 & 31,
        pad: 0,
    }
}

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
