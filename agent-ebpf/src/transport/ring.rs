//! Records leave through one ring buffer shared by all CPUs.
//!
//! Waking the agent costs more than writing a record, so only the first record after the agent has
//! emptied the ring wakes it (the kernel's own rule, `bpf_ringbuf_commit`): the agent lets those that
//! follow collect for a drain period. It is woken again when the ring is half full.

use agent_common::{record::RING_BYTES, stat::Stat};
use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP},
    macros::map,
    maps::RingBuf,
};
pub use aya_log_ebpf::debug;

/// Fill of the ring at which the agent is woken before its drain period is over.
const WAKE_AT_BYTES: u64 = RING_BYTES as u64 / 2;

/// No flag: the reader is woken when the record is the next one it has to read.
const WAKE_IF_READ_UP: u32 = 0;

/// The evidence stream; full, records are counted in [`agent_common::stat::Stat::RingFull`].
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Sends a record, or returns how it was lost.
#[inline(always)]
pub fn send<T: 'static>(_context: &impl EbpfContext, record: T) -> Option<Stat> {
    let Some(mut entry) = EVENTS.reserve::<T>(0) else {
        return Some(Stat::RingFull);
    };
    entry.write(record);
    let wake = if EVENTS.query(BPF_RB_AVAIL_DATA.into()) < WAKE_AT_BYTES {
        WAKE_IF_READ_UP
    } else {
        BPF_RB_FORCE_WAKEUP
    };
    entry.submit(wake.into());
    None
}

/// Wakes the agent for what has no record, unless a record has woken it or will.
#[inline(always)]
pub fn wake() {
    if EVENTS.query(BPF_RB_AVAIL_DATA.into()) > 0 {
        return;
    }
    if let Some(entry) = EVENTS.reserve::<u64>(0) {
        entry.discard(WAKE_IF_READ_UP.into());
    }
}
