//! Which hook of netfilter dropped a packet, by who called the function that runs its rules.
//!
//! Looked at on the drop of a SYN only: nothing runs while rules let packets pass. The rule itself
//! is gone by then, and with it the table and the chain.

use agent_common::config::{HOOK_CALLERS_MAX, HOOK_LOOPS, HookCaller};
use aya_ebpf::{EbpfContext, helpers::bpf_get_stack};

use crate::maps::HOOK_CALLERS;

/// Calls looked at: of the tracing itself and the freeing, of the rules, the loop over them and
/// its caller, which is the eighth with nftables.
const FRAMES: usize = 12;

/// The [`agent_common::netfilter::HookPoint`] whose rules dropped the packet that is being freed;
/// 0 when the caller is none the agent knows.
///
/// A function of its own, for a stack of its own.
#[inline(never)]
pub fn hook(context: &impl EbpfContext) -> u8 {
    let mut stack = [0_u64; FRAMES];
    #[expect(clippy::cast_possible_truncation, reason = "less than a hundred")]
    let bytes = size_of::<[u64; FRAMES]>() as u32;
    // SAFETY: the helper writes at most `bytes` to the array.
    let found = unsafe { bpf_get_stack(context.as_ptr(), stack.as_mut_ptr().cast(), bytes, 0) };
    let (Some(whole), Some(cold)) = (HOOK_CALLERS.get(0), HOOK_CALLERS.get(1)) else {
        return 0;
    };
    if found <= 0 {
        return 0;
    }
    // The innermost: IPVS sends packets through one hook from within another.
    let mut caller = 0;
    let mut is_next = false;
    for frame in stack {
        if is_next && caller == 0 {
            caller = frame;
        }
        is_next = is_in(whole, frame) || is_in(cold, frame);
    }
    hook_of(caller)
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "written from a `u8`")]
fn hook_of(caller: u64) -> u8 {
    for index in HOOK_LOOPS..HOOK_CALLERS_MAX {
        if let Some(function) = HOOK_CALLERS.get(index)
            && is_in(function, caller)
        {
            return function.hook as u8;
        }
    }
    0
}

#[inline(always)]
const fn is_in(function: &HookCaller, address: u64) -> bool {
    address >= function.start && address < function.end
}
