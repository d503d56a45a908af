//! Records leave through a perf buffer per CPU.

use agent_common::stat::Stat;
use aya_ebpf::{
    EbpfContext, bindings::BPF_F_CURRENT_CPU, helpers::bpf_perf_event_output, macros::map,
    maps::PerfEventArray,
};

/// The evidence stream; full, records are counted in [`agent_common::stat::Stat::RingFull`].
#[map]
static EVENTS: PerfEventArray<u8> = PerfEventArray::new(0);

/// The helper's answer when this CPU has no buffer: it came online a moment ago (`-ENOENT`), or went
/// and came again (`-EOPNOTSUPP`, `__bpf_perf_event_output` in kernel/trace/bpf_trace.c).
const NO_BUFFER: [i64; 2] = [-2, -95];

/// Sends a record, or returns how it was lost.
#[inline(always)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "the ring buffer's twin of this function takes the record over"
)]
pub fn send<T: 'static>(context: &impl EbpfContext, record: T) -> Option<Stat> {
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
    if answer == 0 {
        None
    } else if answer == NO_BUFFER[0] || answer == NO_BUFFER[1] {
        Some(Stat::CpuWithoutBuffer)
    } else {
        Some(Stat::RingFull)
    }
}

/// Nothing: perf buffers wake the agent only by records, so what has none waits for its timer.
#[inline(always)]
pub const fn wake() {}

/// The log of the programs needs a ring buffer, so here it says nothing.
macro_rules! debug {
    ($context:expr, $($words:tt)*) => {
        let _ = $context;
    };
}
pub(crate) use debug;
