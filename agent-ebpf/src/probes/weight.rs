//! Somebody set the weight of a real server, or added one.
//!
//! **Measures** when a weight became what it is, so that "draining since" is a time and no guess.
//! **Hook** `__ip_vs_update_dest` at return: every way to add or edit a real server ends there, and
//! by then the weight is the new one. What it was before, the agent knows from the table.
//! **Cannot see** a weight of 0 that was set before the agent came.
//! **Cost** once per `ipvsadm -a` or `-e`, never per packet.

use agent_common::{
    record::{CHANGE_ADDED, CHANGE_WEIGHT_SET},
    stat::Stat,
};
use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{fexit, kprobe, kretprobe},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};

use crate::{
    attempt,
    call::{Call, Entry, Fexit, Kretprobe, finish},
    emit, proof,
};

// match-proto 5.10: void __ip_vs_update_dest(struct ip_vs_service *svc, struct ip_vs_dest *dest, struct ip_vs_dest_user_kern *udest, int add)
// match-proto 7.2: void __ip_vs_update_dest(struct ip_vs_service *svc, struct ip_vs_dest *dest, struct ip_vs_dest_user_kern *udest, int add)
#[fexit(function = "__ip_vs_update_dest")]
pub fn il_weight(ctx: FExitContext) -> i32 {
    finish(configured(&Fexit::<4>(ctx)))
}

#[kprobe]
pub fn il_weight_k(ctx: ProbeContext) -> u32 {
    let _ = finish(Entry(&ctx).keep());
    0
}

#[kretprobe]
pub fn il_weight_r(ctx: RetProbeContext) -> u32 {
    if let Some(call) = Kretprobe::returned(ctx) {
        let _ = finish(configured(&call));
    }
    0
}

#[inline(always)]
fn configured(call: &impl Call) -> Result<(), Stat> {
    if !attempt::is_armed() {
        return Ok(());
    }
    let (svc, dest) = (call.arg(0), call.arg(1));
    // An `int`: only the lower half of the register is its own.
    let added = call.arg(3) & u64::from(u32::MAX) != 0;
    let member = proof::member(svc, dest)?;
    let change = if added {
        CHANGE_ADDED
    } else {
        CHANGE_WEIGHT_SET
    };
    // SAFETY: the helper only reads a clock.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    emit::real_server(call, now_ns, &member, change);
    Ok(())
}
