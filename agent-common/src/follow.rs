//! Stale attempts whose outcome is awaited.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::key::{RealServerKey, ServiceKey};

/// Stale attempts followed at once.
///
/// 16,384 within the default deadline of 16 s are 1,000 stale attempts per second, far above an
/// incident anybody would leave alone; about 3 MiB. An attempt beyond it is counted in
/// [`crate::stat::Stat::FollowedFull`], and so its outcome stays unknown.
pub const FOLLOWED_MAX: u32 = 16_384;

/// One stale attempt on its way, kept by the tuple of its SYN.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Followed {
    /// Address of IPVS's entry; read again only after it has proven to be the same entry.
    pub conn: u64,
    /// When IPVS had decided about the first SYN.
    pub since_ns: u64,
    /// When the latest SYN of the attempt was seen.
    pub last_syn_ns: u64,
    /// Service the attempt belongs to.
    pub service: ServiceKey,
    /// The stale real server.
    pub real_server: RealServerKey,
    /// Its weight at the decision.
    pub weight: i32,
    /// Initial sequence number, host order.
    pub isn: u32,
    /// SYNs seen after the first.
    pub retransmits: u16,
    /// [`crate::verdict::StaleCause`].
    pub cause: u8,
    /// 1: the client itself reset the old connection, so a closed entry is no refusal.
    pub client_reset: u8,
    /// Always 0.
    pub pad: [u8; 4],
}

const _: () = assert!(size_of::<Followed>() == 88);

#[cfg(feature = "user")]
mod user {
    // SAFETY: `#[repr(C)]`, `Copy`, and `zerocopy::IntoBytes` proves there is no padding.
    unsafe impl aya::Pod for super::Followed {}
}
