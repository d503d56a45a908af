//! The only writer of counters.

use agent_common::{count::CountKey, key::ServiceKey, stat::Stat};
use aya_ebpf::bindings::BPF_NOEXIST;

use crate::{
    atomic,
    maps::{COUNTS, SERVICES, STATS},
};

/// Adds one to a statistic of the programs themselves.
#[inline(always)]
pub fn stat(stat: Stat) {
    if let Some(value) = STATS.get_ptr_mut(stat as u32) {
        // SAFETY: the map hands out this CPU's slot; a program of ours that interrupts this one on
        // the same CPU could lose one increment of a self-statistic, never of a user's counter.
        unsafe { *value += 1 };
    }
}

/// Adds one to a counter users see.
///
/// The slot is per CPU, and the add is atomic all the same: a softirq may run a program of ours
/// in the middle of one that serves a local sender on the same CPU.
#[inline(always)]
pub fn one(key: &CountKey) {
    if let Some(value) = COUNTS.get_ptr_mut(key) {
        return add_one(value);
    }
    // Another CPU may have made the key meanwhile; `BPF_NOEXIST` then fails and the second lookup
    // finds it.
    let zero = core::hint::black_box(0);
    let _ = COUNTS.insert(key, &zero, BPF_NOEXIST.into());
    match COUNTS.get_ptr_mut(key) {
        Some(value) => {
            add_one(value);
            remember(&key.service);
        }
        None => stat(Stat::CountsFull),
    }
}

#[inline(always)]
fn add_one(value: *mut u64) {
    // SAFETY: `value` points to an aligned `u64` of a map, alive for the whole program.
    unsafe { atomic::add(value, 1) };
}

/// Remembers an address service for SYNs that die before IPVS sees them.
#[inline(always)]
fn remember(service: &ServiceKey) {
    if service.fwmark == 0 && service.family != 0 {
        // Full exactly when `COUNTS` is, which has been counted there.
        let _ = SERVICES.insert(service, &1, 0);
    }
}
