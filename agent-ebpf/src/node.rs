//! The only writer of the counters about the node.

use agent_common::{
    count::COUNTS_MAX,
    node::{NODE_COUNTS_MAX, NodeCountKey, NodeEvent},
    stat::Stat,
};
use aya_ebpf::{bindings::BPF_NOEXIST, maps::PerCpuHashMap};

use crate::{
    count,
    maps::{NODE_COUNTS_0, NODE_COUNTS_1, NODE_LATEST, NODE_REST},
    transport,
};

/// Keys of a bank of service counters that fill it as far as one key here fills its own bank.
const KEYS_PER_KEY: i64 = (COUNTS_MAX / NODE_COUNTS_MAX) as i64;

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

/// Adds one, and wakes the agent, which makes a finding of it; atomically, as `count::one` does and
/// for the same reason.
#[inline(never)]
pub fn one(key: &NodeCountKey) {
    transport::wake();
    if count::bank() == 0 {
        add_to(&NODE_COUNTS_0, 0, key);
    } else {
        add_to(&NODE_COUNTS_1, 1, key);
    }
}

#[inline(always)]
fn add_to(counts: &PerCpuHashMap<NodeCountKey, u64>, bank: u32, key: &NodeCountKey) {
    if let Some(value) = counts.get_ptr_mut(key) {
        return count::add_one(value);
    }
    let zero = core::hint::black_box(0);
    if counts.insert(key, &zero, BPF_NOEXIST.into()).is_ok() {
        count::key_made(bank, KEYS_PER_KEY);
    }
    if let Some(value) = counts.get_ptr_mut(key) {
        return count::add_one(value);
    }
    if let Some(value) = NODE_REST.get_ptr_mut(u32::from(key.event)) {
        count::add_one(value);
    }
    count::stat(Stat::CountsFull);
}
