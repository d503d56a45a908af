//! A real server was removed from its service.
//!
//! **Measures** when it was removed: by its own command, or with its service.
//! **Hook** `__ip_vs_del_dest` at return: both ways end there, and the real server still exists,
//! because its entries may outlive it.
//! **Cannot see** who removed it.
//! **Cost** once per `ipvsadm -d`, and once per real server of a service that goes; never per
//! packet.

use agent_common::{record::CHANGE_REMOVED, stat::Stat};
use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{fexit, kprobe, kretprobe},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};

use crate::{
    attempt,
    call::{Call, Entry, Fexit, Kretprobe, finish},
    emit, proof,
    read::{field, offset},
};

// match-proto 5.10: void __ip_vs_del_dest(struct netns_ipvs *ipvs, struct ip_vs_dest *dest, bool cleanup)
// match-proto 7.2: void __ip_vs_del_dest(struct netns_ipvs *ipvs, struct ip_vs_dest *dest, bool cleanup)
#[fexit(function = "__ip_vs_del_dest")]
pub fn il_removal(ctx: FExitContext) -> i32 {
    finish(removed(&Fexit::<3>(ctx)))
}

#[kprobe]
pub fn il_removal_k(ctx: ProbeContext) -> u32 {
    let _ = finish(Entry(&ctx).keep());
    0
}

#[kretprobe]
pub fn il_removal_r(ctx: RetProbeContext) -> u32 {
    if let Some(call) = Kretprobe::returned(ctx) {
        let _ = finish(removed(&call));
    }
    0
}

#[inline(always)]
fn removed(call: &impl Call) -> Result<(), Stat> {
    if !attempt::is_armed() {
        return Ok(());
    }
    let dest = call.arg(1);
    let svc: u64 = proof::readable(field(dest, offset!(dest_svc)))?;
    let member = proof::member(svc, dest)?;
    // SAFETY: the helper only reads a clock.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    emit::real_server(call, now_ns, &member, CHANGE_REMOVED);
    Ok(())
}
