//! The only writer of records.
//!
//! Waking the agent costs more than writing a record, so a record wakes nobody: the agent looks
//! on its own timer, and is woken early only when the ring is half full.

use agent_common::{
    attempt::Attempt,
    record::{AttemptRecord, KIND_ATTEMPT, KIND_SYN_DROP, RING_BYTES, RecordHeader, SynDropRecord},
    stat::Stat,
};
use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::bpf_get_smp_processor_id,
};

use crate::{attempt::Verdict, count, ipvs::Target, maps::EVENTS, packet::Syn};

/// Fill of the ring at which the agent is woken before its timer.
const WAKE_AT_BYTES: u64 = RING_BYTES as u64 / 2;

const ATTEMPT_BYTES: u16 = record_bytes(size_of::<AttemptRecord>());
const SYN_DROP_BYTES: u16 = record_bytes(size_of::<SynDropRecord>());

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
pub fn attempt(now_ns: u64, syn: &Syn, target: &Target, verdict: Verdict, attempt: &Attempt) {
    write(AttemptRecord {
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
    });
}

/// Writes a [`SynDropRecord`].
#[inline(always)]
pub fn syn_drop(now_ns: u64, syn: &Syn, cause: u8, reason: u32, location: u64) {
    write(SynDropRecord {
        header: header(now_ns, KIND_SYN_DROP, SYN_DROP_BYTES),
        location,
        tuple: syn.tuple,
        isn: syn.isn,
        reason,
        cause,
        pad: [0; 3],
    });
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
fn write<T: 'static>(record: T) {
    count::stat(Stat::Emitted);
    let Some(mut entry) = EVENTS.reserve::<T>(0) else {
        return count::stat(Stat::RingFull);
    };
    entry.write(record);
    let wake = if EVENTS.query(BPF_RB_AVAIL_DATA.into()) < WAKE_AT_BYTES {
        BPF_RB_NO_WAKEUP
    } else {
        BPF_RB_FORCE_WAKEUP
    };
    entry.submit(wake.into());
}
