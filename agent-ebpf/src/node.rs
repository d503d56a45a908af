//! The only writer of the counters about the node.

use agent_common::{
    node::{NodeCountKey, NodeEvent},
    stat::Stat,
};
use aya_ebpf::bindings::BPF_NOEXIST;

use crate::{
    atomic, count,
    maps::{NODE_COUNTS, NODE_LATEST},
    transport,
};

/// The counter of an event of no address.
#[inline(always)]
pub const fn anywhere(event: NodeEvent) -> NodeCountKey {
    NodeCountKey {
        addr: [0; 16],
        netns: 0,
        port: 0,
        family: 0,
        event: event as u8,
    }
}

/// Keeps an address of an event that is counted without one, as an example.
#[inline(always)]
pub fn keep_latest(at: &NodeCountKey) {
    let event = u32::from(at.event);
    // A whole element replaces the one before: no reader finds half of each.
    let _ = NODE_LATEST.insert(&event, at, 0);
}

/// Adds one, and wakes the agent, which makes a finding of it; atomically, as `count::one` does and for the same reason.
#[inline(always)]
pub fn one(key: &NodeCountKey) {
    transport::wake();
    if let Some(value) = NODE_COUNTS.get_ptr_mut(key) {
        return add_one(value);
    }
    let zero = core::hint::black_box(0);
    let _ = NODE_COUNTS.insert(key, &zero, BPF_NOEXIST.into());
    match NODE_COUNTS.get_ptr_mut(key) {
        Some(value) => add_one(value),
        None => count::stat(Stat::CountsFull),
    }
}

#[inline(always)]
fn add_one(value: *mut u64) {
    // SAFETY: `value` points to an aligned `u64` of a map, alive for the whole program.
    unsafe { atomic::add(value, 1) };
}
