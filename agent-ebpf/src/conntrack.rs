//! Which trouble of conntrack a netfilter drop stands for.
//!
//! Conntrack drops a packet as any rule does, by its hook's verdict. Two rare functions of it know
//! better, a moment before: what they say is kept per CPU until the packet is freed. The way from
//! there to the drop does not sleep, so it stays on its CPU but for a preempted local sender,
//! whose SYN is then called a rule's.

use agent_common::{layout::ABSENT, verdict::DropCause};
use aya_ebpf::helpers::bpf_ktime_get_ns;

use crate::{
    maps::CONNTRACK_TROUBLE,
    read::{field, offset},
    types::Trouble,
};

/// How long what was said holds: a packet is freed within microseconds; under emulation, or when a
/// virtual CPU is taken away, within tens of milliseconds.
const HOLDS_NS: u64 = 100_000_000;

/// Notes that a packet is about to be dropped for `cause`; `skb` is 0 where it is not known.
#[inline(always)]
pub fn note(skb: u64, cause: DropCause) {
    if let Some(slot) = CONNTRACK_TROUBLE.get_ptr_mut(0) {
        let trouble = Trouble {
            // SAFETY: the helper only reads the clock.
            at_ns: unsafe { bpf_ktime_get_ns() },
            skb,
            cause: cause as u64,
        };
        // SAFETY: the map hands out this CPU's slot.
        unsafe { *slot = trouble };
    }
}

/// The [`DropCause`] of a packet that is being dropped, where conntrack reported it. A report
/// without a packet applies to the next packet that netfilter drops, or to none.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "written from a `u8`")]
pub fn take(skb: u64, by_netfilter: bool) -> Option<u8> {
    let slot = CONNTRACK_TROUBLE.get_ptr_mut(0)?;
    // SAFETY: the map hands out this CPU's slot.
    let slot = unsafe { &mut *slot };
    if slot.at_ns == 0 {
        return None;
    }
    let trouble = *slot;
    // A packet that was queued to a program is not freed by netfilter's own loop.
    if trouble.skb != skb && !by_netfilter {
        return None;
    }
    slot.at_ns = 0;
    // SAFETY: the helper only reads the clock.
    let age_ns = unsafe { bpf_ktime_get_ns() }.wrapping_sub(trouble.at_ns);
    let is_it = if trouble.skb == 0 {
        is_untracked(skb)
    } else {
        trouble.skb == skb
    };
    (is_it && age_ns < HOLDS_NS).then_some(trouble.cause as u8)
}

/// A packet that found no room in the table has no entry; one that a later rule drops has.
#[inline(always)]
fn is_untracked(skb: u64) -> bool {
    let entry = offset!(skb_nfct);
    entry != ABSENT && matches!(field::<u64>(skb, entry), Ok(0))
}
