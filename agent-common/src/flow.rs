//! Flows of datagrams that go to a stale real server.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Flows remembered at once (an LRU table: the oldest make room, and would count as new again).
///
/// 16,384 flows are all source ports of one busy resolver; about 1.5 MiB.
pub const FLOWS_MAX: u32 = 16_384;

/// Least time between two records of one flow: evidence is sampled, counters are not.
pub const EVIDENCE_EVERY_NS: u64 = 10_000_000_000;

/// Idle time after which datagrams on the same ports are a new flow: IPVS's own timeout for UDP.
pub const FLOW_IDLE_NS: u64 = 300_000_000_000;

/// One flow, kept by its tuple.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct StaleFlow {
    /// When it was first seen to go to a stale real server.
    pub since_ns: u64,
    /// When it was last seen.
    pub last_ns: u64,
    /// When a record was last written.
    pub last_reported_ns: u64,
    /// Datagrams seen.
    pub datagrams: u64,
}

const _: () = assert!(size_of::<StaleFlow>() == 32);
