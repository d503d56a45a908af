//! The only writer of counters.

use agent_common::{
    count::{CountKey, rest_index},
    key::ServiceKey,
    stat::Stat,
};
use aya_ebpf::{bindings::BPF_NOEXIST, maps::PerCpuHashMap};

use crate::{
    atomic,
    maps::{BANK, BANK_KEYS, COUNTS_0, COUNTS_1, REST, SERVICES, STATS},
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

/// The bank to count in; read once per count, so that one count is in one bank.
#[inline(always)]
pub fn bank() -> u32 {
    BANK.get(0).map_or(0, |bank| *bank)
}

/// Adds one to a counter users see.
///
/// The slot is per CPU, and the add is atomic all the same: a softirq may run a program of ours
/// in the middle of one that serves a local sender on the same CPU.
///
/// Not inlined: the two banks would double every caller.
#[inline(never)]
pub fn one(key: &CountKey) {
    if bank() == 0 {
        add_to(&COUNTS_0, 0, key);
    } else {
        add_to(&COUNTS_1, 1, key);
    }
}

#[inline(always)]
fn add_to(counts: &PerCpuHashMap<CountKey, u64>, bank: u32, key: &CountKey) {
    if let Some(value) = counts.get_ptr_mut(key) {
        return add_one(value);
    }
    // Another CPU may have made the key meanwhile; `BPF_NOEXIST` then fails and the second lookup
    // finds it.
    let zero = core::hint::black_box(0);
    if counts.insert(key, &zero, BPF_NOEXIST.into()).is_ok() {
        key_made(bank, 1);
    }
    match counts.get_ptr_mut(key) {
        Some(value) => {
            add_one(value);
            remember(&key.service);
        }
        None => without_names(key),
    }
}

/// A bank is fuller by so many keys.
#[inline(always)]
pub fn key_made(bank: u32, keys: i64) {
    if let Some(made) = BANK_KEYS.get_ptr_mut(bank) {
        // SAFETY: `made` points to an aligned `u64` of a map, alive for the whole program.
        unsafe { atomic::add(made, keys) };
    }
}

/// Counts what has no key of its own by its kind.
#[inline(always)]
fn without_names(key: &CountKey) {
    if let Some(value) = REST.get_ptr_mut(rest_index(key.tally, key.decision, key.cause)) {
        add_one(value);
    }
    // Last: the agent reads the array whenever this has risen.
    stat(Stat::CountsFull);
}

/// Adds one to a number in a map, atomically.
#[inline(always)]
pub fn add_one(value: *mut u64) {
    // SAFETY: `value` points to an aligned `u64` of a map, alive for the whole program.
    unsafe { atomic::add(value, 1) };
}

/// Remembers an address service for SYNs that die before IPVS sees them.
#[inline(always)]
fn remember(service: &ServiceKey) {
    if service.fwmark == 0 && service.family != 0 {
        // Full: the next SYN that dies before IPVS sees it is counted without its service.
        let _ = SERVICES.insert(service, &1, 0);
    }
}
