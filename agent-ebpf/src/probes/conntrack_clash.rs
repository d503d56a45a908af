//! Two packets made the same conntrack entry at the same time, and the later one lost.
//!
//! **Measures** SYNs that die because their entry cannot be inserted (`insert_failed`).
//! **Hook** `nf_ct_resolve_clash` of nf_conntrack at return: called only when an entry with the
//! same addresses came first; `NF_DROP` means that the two cannot be one.
//! **Cannot see** the rarer failures to insert: an entry deleted in the meantime, a hash chain that
//! is too long. Those SYNs are called netfilter's.
//! **Cost** once per clash.

use agent_common::{stat::Stat, verdict::DropCause};
use aya_ebpf::{
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};

use super::verdict::is_drop;
use crate::{
    call::{Call, Entry, Kretprobe, finish},
    conntrack,
};

// match-proto 5.10: none, its modules carry no types; the function is there
// match-proto 6.1.170: int nf_ct_resolve_clash(struct sk_buff *skb, struct nf_conntrack_tuple_hash *h, u32 reply_hash)
// match-proto 7.2: int nf_ct_resolve_clash(struct sk_buff *skb, struct nf_conntrack_tuple_hash *h, u32 reply_hash)
#[kprobe]
pub fn il_ct_clash_k(ctx: ProbeContext) -> u32 {
    let _ = finish(Entry(&ctx).keep());
    0
}

#[kretprobe]
pub fn il_ct_clash_r(ctx: RetProbeContext) -> u32 {
    if let Some(call) = Kretprobe::returned(ctx) {
        let _ = finish(resolved(&call));
    }
    0
}

#[inline(always)]
#[expect(clippy::unnecessary_wraps, reason = "as every other probe ends")]
fn resolved(call: &Kretprobe) -> Result<(), Stat> {
    if is_drop(call.ret()) {
        conntrack::note(call.arg(0), DropCause::ConntrackInsert);
    }
    Ok(())
}
