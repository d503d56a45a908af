//! What the kernel counts about the node itself: the classic causes of lost connections that look
//! like IPVS's to a client.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::verdict::{UnknownNumber, wire_enum};

/// Label sets the kernel counts apart.
///
/// 4,096 keys of 24 bytes and one `u64` per CPU: about 400 KiB plus 32 KiB per CPU. A key is one
/// listener that refused, or one destination that could not be reached from here: a node in bad
/// trouble has dozens. As [`crate::count::COUNTS_MAX`], this is for each of
/// [`crate::count::BANKS`], and what does not fit is counted under its event alone.
pub const NODE_COUNTS_MAX: u32 = 4_096;

/// Counters of events without an address, indexed by [`NodeEvent`].
pub const NODE_REST_MAX: u32 = 8;

/// Events that are counted without an address, of which the latest address is kept.
pub const LATEST_MAX: u32 = 16;

wire_enum! {
    /// What happened on this node to a connection that need not be IPVS's.
    NodeEvent {
        /// A SYN met a listener whose accept queue is full. Keyed by listener.
        AcceptQueueFull = 1, "accept_queue_full";
        /// The last packet of a handshake met a listener whose accept queue is full; its client
        /// believes to be connected. Keyed by listener.
        HandshakeRefused = 2, "handshake_refused";
        /// A SYN met a listener whose queue of half-open connections is full. Keyed by listener.
        SynQueueFull = 3, "syn_queue_full";
        /// A local client found no free source port. Keyed by destination.
        SourcePortsExhausted = 4, "source_ports_exhausted";
        /// This node sent an ICMP error: the packet is too big to be forwarded.
        FragNeededSent = 5, "frag_needed_sent";
        /// The same ICMP error from another host, received or forwarded by this node.
        FragNeededReceived = 6, "frag_needed_received";
        /// A socket of this node sends a full segment again and again.
        BlackHoleSuspected = 7, "black_hole_suspected";
    }
}

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
pub struct NodeCountKey {
    /// Address of the listener or destination, see the crate's byte-order rule.
    pub addr: [u8; 16],
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Port, host order.
    pub port: u16,
    /// [`crate::key::FAMILY_IPV4`] or [`crate::key::FAMILY_IPV6`]; 0 for an event of no address.
    pub family: u8,
    /// [`NodeEvent`].
    pub event: u8,
}

const _: () = assert!(size_of::<NodeCountKey>() == 24);

#[cfg(feature = "user")]
mod user {
    // SAFETY: `#[repr(C)]`, `Copy`, and `zerocopy::IntoBytes` proves there is no padding.
    unsafe impl aya::Pod for super::NodeCountKey {}
}
