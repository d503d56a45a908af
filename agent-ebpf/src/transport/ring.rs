//! Records leave through one ring buffer shared by all CPUs.
//!
//! Waking the agent costs more than writing a record, so a record does not wake it: the agent
//! polls on its own timer, and is woken early only when the ring is half full.

use agent_common::record::RING_BYTES;
use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    macros::map,
    maps::RingBuf,
};
pub use aya_log_ebpf::debug;

/// Fill of the ring at which the agent is woken before its timer.
const WAKE_AT_BYTES: u64 = RING_BYTES as u64 / 2;

/// The evidence stream; full, records are counted in [`agent_common::stat::Stat::RingFull`].
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Sends a record; `false` when there is no room.
#[inline(always)]
pub fn send<T: 'static>(_context: &impl EbpfContext, record: T) -> bool {
    let Some(mut entry) = EVENTS.reserve::<T>(0) else {
        return false;
    };
    entry.write(record);
    let wake = if EVENTS.query(BPF_RB_AVAIL_DATA.into()) < WAKE_AT_BYTES {
        BPF_RB_NO_WAKEUP
    } else {
        BPF_RB_FORCE_WAKEUP
    };
    entry.submit(wake.into());
    true
}
