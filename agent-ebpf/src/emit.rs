//! The only writer of records; how they leave is `transport`'s business.

use agent_common::{
    attempt::{Attempt, SynVerdict},
    flow::StaleFlow,
    follow::Followed,
    forwarded::Forwarded,
    key::{RealServerKey, ServiceKey, TupleKey},
    record::{
        AttemptRecord, DatagramRecord, KIND_ATTEMPT, KIND_DATAGRAM, KIND_OUTCOME, KIND_REAL_SERVER,
        KIND_SYN_DROP, OutcomeRecord, RealServerRecord, RecordHeader, SynDropRecord,
    },
    stat::Stat,
};
use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
};

use crate::{
    call::BareContext,
    count,
    ipvs::{Member, Target},
    packet::Syn,
    transport,
};

const ATTEMPT_BYTES: u16 = record_bytes(size_of::<AttemptRecord>());
const SYN_DROP_BYTES: u16 = record_bytes(size_of::<SynDropRecord>());
const REAL_SERVER_BYTES: u16 = record_bytes(size_of::<RealServerRecord>());
const OUTCOME_BYTES: u16 = record_bytes(size_of::<OutcomeRecord>());
const DATAGRAM_BYTES: u16 = record_bytes(size_of::<DatagramRecord>());

/// The length a header states.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the assertion before it, at compile time"
)]
const fn record_bytes(bytes: usize) -> u16 {
    assert!(
        bytes <= u16::MAX as usize,
        "a record must state its own length"
    );
    bytes as u16
}

/// Writes an [`AttemptRecord`].
#[inline(always)]
pub fn attempt(
    context: &impl EbpfContext,
    now_ns: u64,
    syn: &Syn,
    target: &Target,
    verdict: SynVerdict,
    attempt: &Attempt,
) {
    let record = AttemptRecord {
        header: header(now_ns, KIND_ATTEMPT, ATTEMPT_BYTES),
        first_seen_ns: attempt.first_seen_ns,
        first_drop_ns: attempt.first_drop_ns,
        tuple: syn.tuple,
        isn: syn.isn,
        service: target.service,
        real_server: target.real_server,
        weight: target.weight,
        retransmits: attempt.retransmits,
        drops: attempt.drops,
        decision: verdict.decision as u8,
        cause: verdict.cause,
        first_drop_cause: attempt.first_drop_cause,
        old_state: target.state,
        pad: [0; 4],
    };
    write(context, record);
}

/// How a SYN died, as it is recorded.
#[derive(Clone, Copy)]
pub struct Death {
    /// [`agent_common::verdict::DropCause`].
    pub cause: u8,
    /// [`agent_common::netfilter::HookPoint`], 0 for none.
    pub hook: u8,
    /// The kernel's drop reason, 0 where there is none.
    pub reason: u32,
    /// Return address of the code that freed it, 0 where it was not freed as a drop.
    pub location: u64,
}

/// Writes a [`SynDropRecord`] of a SYN that IPVS did not send on.
#[inline(always)]
pub fn syn_drop(context: &impl EbpfContext, now_ns: u64, syn: &Syn, death: &Death) {
    let record = SynDropRecord {
        header: header(now_ns, KIND_SYN_DROP, SYN_DROP_BYTES),
        location: death.location,
        tuple: syn.tuple,
        isn: syn.isn,
        service: ServiceKey::NONE,
        real_server: RealServerKey::NONE,
        weight: 0,
        netns: syn.tuple.netns,
        reason: death.reason,
        cause: death.cause,
        hook: death.hook,
        client_informed: 0,
        decision: 0,
    };
    write(context, record);
}

/// Writes a [`SynDropRecord`] of a SYN that IPVS sent on; `netns` is where it died, 0 for a packet
/// without a device: one that never left the namespace of its service.
#[inline(always)]
pub fn forwarded_syn_drop(
    context: &impl EbpfContext,
    now_ns: u64,
    sent: &Forwarded,
    netns: u32,
    death: &Death,
    attempt: &Attempt,
) {
    let record = SynDropRecord {
        header: header(now_ns, KIND_SYN_DROP, SYN_DROP_BYTES),
        location: death.location,
        tuple: sent.tuple,
        isn: sent.isn,
        service: sent.service,
        real_server: sent.real_server,
        weight: sent.weight,
        netns: if netns == 0 { sent.tuple.netns } else { netns },
        reason: death.reason,
        cause: death.cause,
        hook: death.hook,
        client_informed: attempt.client_informed,
        decision: attempt.decision,
    };
    write(context, record);
}

/// Writes a [`RealServerRecord`].
#[inline(always)]
pub fn real_server(context: &impl EbpfContext, now_ns: u64, member: &Member, change: u8) {
    let record = RealServerRecord {
        header: header(now_ns, KIND_REAL_SERVER, REAL_SERVER_BYTES),
        service: member.service,
        real_server: member.real_server,
        weight: member.weight,
        change,
        pad: [0; 3],
    };
    write(context, record);
}

/// Writes an [`OutcomeRecord`]. A function of its own, for a stack of its own.
#[inline(never)]
pub fn outcome(context: BareContext, tuple: &TupleKey, followed: &Followed, outcome: u8) {
    // SAFETY: the helper only reads the clock.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let record = OutcomeRecord {
        header: header(now_ns, KIND_OUTCOME, OUTCOME_BYTES),
        since_ns: followed.since_ns,
        tuple: *tuple,
        isn: followed.isn,
        service: followed.service,
        real_server: followed.real_server,
        weight: followed.weight,
        retransmits: followed.retransmits,
        outcome,
        cause: followed.cause,
    };
    write(&context, record);
}

/// Writes a [`DatagramRecord`].
#[inline(always)]
pub fn datagram(
    context: &impl EbpfContext,
    now_ns: u64,
    tuple: &TupleKey,
    target: &Target,
    flow: &StaleFlow,
) {
    let record = DatagramRecord {
        header: header(now_ns, KIND_DATAGRAM, DATAGRAM_BYTES),
        since_ns: flow.since_ns,
        datagrams: flow.datagrams,
        tuple: *tuple,
        service: target.service,
        real_server: target.real_server,
        weight: target.weight,
        removed: target.removed,
        pad: [0; 7],
    };
    write(context, record);
}

#[inline(always)]
fn header(now_ns: u64, kind: u16, len: u16) -> RecordHeader {
    RecordHeader {
        ktime_ns: now_ns,
        kind,
        len,
        // SAFETY: the helper only reads the number of this CPU.
        cpu: unsafe { bpf_get_smp_processor_id() },
    }
}

#[inline(always)]
fn write<T: 'static>(context: &impl EbpfContext, record: T) {
    count::stat(Stat::Emitted);
    if let Some(lost) = transport::send(context, record) {
        count::stat(lost);
    }
}
