//! Records leave through a perf buffer per CPU.

use aya_ebpf::{
    EbpfContext, bindings::BPF_F_CURRENT_CPU, helpers::bpf_perf_event_output, macros::map,
    maps::PerfEventArray,
};

/// The evidence stream; full, records are counted in [`agent_common::stat::Stat::RingFull`].
#[map]
static EVENTS: PerfEventArray<u8> = PerfEventArray::new(0);

/// Sends a record; `false` when there is no room.
#[inline(always)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "the ring buffer's twin of this function takes the record over"
)]
pub fn send<T: 'static>(context: &impl EbpfContext, record: T) -> bool {
    // SAFETY: context, map and record are valid for the call; the helper copies the record. It is
    // called directly because the map's own method drops its answer.
    let answer = unsafe {
        bpf_perf_event_output(
            context.as_ptr(),
            (&raw const EVENTS).cast_mut().cast(),
            BPF_F_CURRENT_CPU,
            (&raw const record).cast_mut().cast(),
            size_of::<T>() as u64,
        )
    };
    answer == 0
}

/// The log of the programs needs a ring buffer, so here it says nothing.
macro_rules! debug {
    ($context:expr, $($words:tt)*) => {
        let _ = $context;
    };
}
pub(crate) use debug;
