//! Wire records: what the kernel programs put into the event stream.
//!
//! A record is a [`RecordHeader`] whose `kind` names the payload and whose `len` is the size of
//! the whole record. A reader refuses a length that does not match the kind.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::key::{RealServerKey, ServiceKey, TupleKey};

/// Bytes of the event ring: 1 MiB holds 6,000 records, at the default drain period of 100 ms
/// 60,000 findings per second; what does not fit is counted in [`crate::stat::Stat::RingFull`].
pub const RING_BYTES: u32 = 1 << 20;

/// [`RecordHeader::kind`] of an [`AttemptRecord`].
pub const KIND_ATTEMPT: u16 = 1;
/// [`RecordHeader::kind`] of a [`SynDropRecord`].
pub const KIND_SYN_DROP: u16 = 2;
/// [`RecordHeader::kind`] of a [`RealServerRecord`]. Numbers from 16 on are the table's, smaller
/// ones are those of packets.
pub const KIND_REAL_SERVER: u16 = 16;

/// [`RealServerRecord::change`]: the weight was set; it may be the same as before.
pub const CHANGE_WEIGHT_SET: u8 = 1;
/// [`RealServerRecord::change`]: added to its service, with this weight.
pub const CHANGE_ADDED: u8 = 2;
/// [`RealServerRecord::change`]: removed from its service.
pub const CHANGE_REMOVED: u8 = 3;
/// [`RecordHeader::kind`] of an [`OutcomeRecord`].
pub const KIND_OUTCOME: u16 = 3;
/// [`RecordHeader::kind`] of a [`DatagramRecord`].
pub const KIND_DATAGRAM: u16 = 4;

/// First bytes of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RecordHeader {
    /// When the kernel program ran.
    pub ktime_ns: u64,
    /// Which payload follows.
    pub kind: u16,
    /// Bytes of the whole record, header included.
    pub len: u16,
    /// CPU that wrote the record.
    pub cpu: u32,
}

/// IPVS decided about a SYN.
///
/// Written for the first SYN of an attempt when its decision is asked for
/// ([`crate::config::Config::emit_decisions`]), and for the SYN that got through after an
/// earlier SYN of the same attempt was dropped on this node (`first_drop_ns` is set).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AttemptRecord {
    /// `kind` is [`KIND_ATTEMPT`].
    pub header: RecordHeader,
    /// When this attempt's first SYN was seen on this node.
    pub first_seen_ns: u64,
    /// When a SYN of this attempt was first dropped on this node; 0 if never.
    pub first_drop_ns: u64,
    /// Who asked whom.
    pub tuple: TupleKey,
    /// Initial sequence number of the attempt, host order.
    pub isn: u32,
    /// Service the SYN belongs to.
    pub service: ServiceKey,
    /// Real server the SYN went to, or, when dropped, the one its old entry named.
    pub real_server: RealServerKey,
    /// Weight of that real server at the decision.
    pub weight: i32,
    /// SYNs of this attempt seen before this one.
    pub retransmits: u16,
    /// SYNs of this attempt dropped on this node so far.
    pub drops: u16,
    /// [`crate::verdict::Decision`] about this very SYN.
    pub decision: u8,
    /// As [`crate::count::CountKey::cause`].
    pub cause: u8,
    /// [`crate::verdict::DropCause`] of the first drop, 0 if never dropped.
    pub first_drop_cause: u8,
    /// IPVS state of the entry the SYN met (`IP_VS_TCP_S_*`); 0 when it met none.
    pub old_state: u8,
    /// Always 0.
    pub pad: [u8; 4],
}

/// The kernel freed a TCP SYN that IPVS did not drop: before it met IPVS, or after IPVS sent it on.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SynDropRecord {
    /// `kind` is [`KIND_SYN_DROP`].
    pub header: RecordHeader,
    /// Return address of the kernel code that freed the packet.
    pub location: u64,
    /// Who asked whom: in front of IPVS if IPVS sent it on, else as the packet read when it died.
    pub tuple: TupleKey,
    /// Initial sequence number, host order.
    pub isn: u32,
    /// Service under which IPVS sent it on; all zeros if it did not.
    pub service: ServiceKey,
    /// Real server to which IPVS sent it on; [`RealServerKey::NONE`] if it did not.
    pub real_server: RealServerKey,
    /// Weight of that real server at the decision.
    pub weight: i32,
    /// Inode number of the network namespace it died in.
    pub netns: u32,
    /// Number of the kernel's drop reason; 0 on kernels without reasons.
    pub reason: u32,
    /// [`crate::verdict::DropCause`].
    pub cause: u8,
    /// [`crate::netfilter::HookPoint`] whose rules dropped it; 0 when it was none, or not known.
    pub hook: u8,
    /// 1: an ICMP error about it was sent to the client.
    pub client_informed: u8,
    /// [`crate::verdict::Decision`] about its attempt; 0 if IPVS did not send it on.
    pub decision: u8,
}

/// Somebody configured a real server.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RealServerRecord {
    /// `kind` is [`KIND_REAL_SERVER`].
    pub header: RecordHeader,
    /// Its service.
    pub service: ServiceKey,
    /// Which.
    pub real_server: RealServerKey,
    /// Its weight from now on; the last one it had when it was removed.
    pub weight: i32,
    /// `CHANGE_*`.
    pub change: u8,
    /// Always 0.
    pub pad: [u8; 3],
}

/// What became of an attempt that was sent to a stale real server.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct OutcomeRecord {
    /// `kind` is [`KIND_OUTCOME`].
    pub header: RecordHeader,
    /// When IPVS had decided about the attempt's first SYN.
    pub since_ns: u64,
    /// Who asked whom.
    pub tuple: TupleKey,
    /// Initial sequence number of the attempt, host order.
    pub isn: u32,
    /// Service the attempt belongs to.
    pub service: ServiceKey,
    /// The stale real server.
    pub real_server: RealServerKey,
    /// Its weight at the decision.
    pub weight: i32,
    /// SYNs of this attempt seen after the first.
    pub retransmits: u16,
    /// [`crate::verdict::Outcome`].
    pub outcome: u8,
    /// [`crate::verdict::StaleCause`].
    pub cause: u8,
}

/// A flow of datagrams goes to a stale real server.
///
/// Written for the first such datagram of a flow, then at most once in
/// [`crate::flow::EVIDENCE_EVERY_NS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DatagramRecord {
    /// `kind` is [`KIND_DATAGRAM`].
    pub header: RecordHeader,
    /// When the flow was first seen to go there.
    pub since_ns: u64,
    /// Datagrams seen to go there.
    pub datagrams: u64,
    /// Who sends to whom.
    pub tuple: TupleKey,
    /// Service the flow belongs to.
    pub service: ServiceKey,
    /// The stale real server.
    pub real_server: RealServerKey,
    /// Its weight now.
    pub weight: i32,
    /// 1: it was removed from its service, and IPVS dropped the datagram.
    pub removed: u8,
    /// Always 0.
    pub pad: [u8; 7],
}

const _: () = assert!(size_of::<RecordHeader>() == 16);
const _: () = assert!(size_of::<OutcomeRecord>() == 128);
const _: () = assert!(size_of::<DatagramRecord>() == 136);
const _: () = assert!(size_of::<AttemptRecord>() == 144);
const _: () = assert!(size_of::<SynDropRecord>() == 136);
const _: () = assert!(size_of::<RealServerRecord>() == 72);
