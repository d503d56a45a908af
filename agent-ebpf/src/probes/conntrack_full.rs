//! Conntrack's table is full and no old entry could be thrown out.
//!
//! **Measures** SYNs that die because they cannot be tracked.
//! **Hook** `early_drop` of nf_conntrack at return: called only while there are more entries than
//! `nf_conntrack_max`, and a 0 means that the packet gets none and is dropped.
//! **Cannot see** the packet: it is the next one netfilter drops here that has no entry.
//! **Cost** nothing while the table has room; a clock and a store per new connection while not.

use agent_common::verdict::DropCause;
use aya_ebpf::{macros::kretprobe, programs::RetProbeContext};

use crate::conntrack;

// match-proto 5.10: none, its modules carry no types; the function is there
// match-proto 6.1.170: int early_drop(struct net *net, unsigned int hash)
// match-proto 7.2: int early_drop(struct net *net, unsigned int hash)
#[kretprobe]
pub fn il_ct_full_r(ctx: RetProbeContext) -> u32 {
    if ctx.ret::<u32>() == 0 {
        conntrack::note(0, DropCause::ConntrackFull);
    }
    0
}
