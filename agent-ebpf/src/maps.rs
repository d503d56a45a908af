//! Every map and setting of the kernel programs: size, reason, and what happens at the limit.

use agent_common::{
    attempt::{ATTEMPTS_MAX, Attempt, PENDING_MAX},
    config::{Config, DROP_LOCATIONS_MAX, DropLocation, HOOK_CALLERS_MAX, HookCaller},
    count::{BANKS, COUNTS_MAX, CountKey, REST_MAX},
    flow::{FLOWS_MAX, StaleFlow},
    follow::{FOLLOWED_MAX, Followed},
    forwarded::{FORWARDED_MAX, Forwarded},
    key::{ServiceKey, TupleKey},
    node::{LATEST_MAX, NODE_COUNTS_MAX, NODE_REST_MAX, NodeCountKey},
    stat::Stat,
};
use aya_ebpf::{
    Global,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap},
};

use crate::{
    atomic::Shared,
    types::{ARGS_KEPT, Pending, Trouble},
};

// The settings below start as all ones: the linker may merge constants of equal content, and a
// setting that starts as zeros would lend its later value to every constant zero of the programs.

/// Settings; set by the agent before loading, constant for the verifier.
#[unsafe(no_mangle)]
pub static CONFIG: Global<Config> = Global::new(Config {
    emit_decisions: u32::MAX,
    emit_syn_drops: u32::MAX,
    connect_args: u32::MAX,
    pad: u32::MAX,
    outcome_timeout_ns: u64::MAX,
});

/// The settings, as loaded.
#[inline(always)]
pub fn config() -> Config {
    CONFIG.load()
}

/// SYNs in [`PENDING`]. Lets the verdict program leave at once for every packet while no SYN is
/// between lookup and verdict. Global and not per CPU, because a locally sent SYN may migrate.
pub static IN_FLIGHT: Shared = Shared::zero();

/// The counters users see, while [`BANK`] is 0. At the limit: [`REST`] and [`Stat::CountsFull`].
#[map]
pub static COUNTS_0: PerCpuHashMap<CountKey, u64> = PerCpuHashMap::with_max_entries(COUNTS_MAX, 0);

/// As [`COUNTS_0`], while [`BANK`] is 1.
#[map]
pub static COUNTS_1: PerCpuHashMap<CountKey, u64> = PerCpuHashMap::with_max_entries(COUNTS_MAX, 0);

/// The bank to count in. The agent switches it, waits until no program runs that may have read the
/// number before, and then empties the other bank, which nothing writes any more.
#[map]
pub static BANK: Array<u32> = Array::with_max_entries(1, 0);

/// Keys made in each bank of counters since it was empty, those of the node's counters by their
/// share of a bank; the agent sets it back.
#[map]
pub static BANK_KEYS: Array<u64> = Array::with_max_entries(BANKS, 0);

/// Counts that found no room in their bank, by kind ([`agent_common::count::rest_index`]). Never
/// full.
#[map]
pub static REST: PerCpuArray<u64> = PerCpuArray::with_max_entries(REST_MAX, 0);

/// Address services that saw a connection, so that a SYN that dies before IPVS sees it can be put
/// to its service. The agent removes services that are gone. At the limit such a SYN is counted
/// without its service.
#[map]
pub static SERVICES: HashMap<ServiceKey, u8> = HashMap::with_max_entries(COUNTS_MAX, 0);

/// What is counted about the node outside IPVS, while [`BANK`] is 0. At the limit: [`NODE_REST`]
/// and [`Stat::CountsFull`].
#[map]
pub static NODE_COUNTS_0: PerCpuHashMap<NodeCountKey, u64> =
    PerCpuHashMap::with_max_entries(NODE_COUNTS_MAX, 0);

/// As [`NODE_COUNTS_0`], while [`BANK`] is 1.
#[map]
pub static NODE_COUNTS_1: PerCpuHashMap<NodeCountKey, u64> =
    PerCpuHashMap::with_max_entries(NODE_COUNTS_MAX, 0);

/// The same that found no room, by event. Never full.
#[map]
pub static NODE_REST: PerCpuArray<u64> = PerCpuArray::with_max_entries(NODE_REST_MAX, 0);

/// The latest destination of an event that is counted without one, by number of the event: an
/// example for people. One element per event.
#[map]
pub static NODE_LATEST: HashMap<u32, NodeCountKey> = HashMap::with_max_entries(LATEST_MAX, 0);

/// What conntrack said last on this CPU about a packet it makes netfilter drop.
#[map]
pub static CONNTRACK_TROUBLE: PerCpuArray<Trouble> = PerCpuArray::with_max_entries(1, 0);

/// What the programs count about themselves, indexed by [`Stat`].
#[map]
pub static STATS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Stat::COUNT, 0);

/// Recent attempts by tuple; the least recently used make room (see [`ATTEMPTS_MAX`]).
#[map]
pub static ATTEMPTS: LruHashMap<TupleKey, Attempt> = LruHashMap::with_max_entries(ATTEMPTS_MAX, 0);

/// SYNs that IPVS sent on, by [`Forwarded::slot`]; the younger takes the place.
#[map]
pub static FORWARDED: Array<Forwarded> = Array::with_max_entries(FORWARDED_MAX, 0);

/// SYNs that met an entry and wait for IPVS's verdict, and packets IPVS has just dropped; keyed
/// by the packet's address, because the hooks nest and may migrate. At the limit:
/// [`Stat::PendingFull`].
#[map]
pub static PENDING: HashMap<u64, Pending> = HashMap::with_max_entries(PENDING_MAX, 0);

/// Arguments of calls that a kprobe saw begin, by the stack pointer at their first instruction,
/// which is theirs alone until they return. At the limit: [`Stat::CallsFull`].
#[map]
pub static CALLS: HashMap<u64, [u64; ARGS_KEPT]> = HashMap::with_max_entries(PENDING_MAX, 0);

/// Calls in [`CALLS`]. Lets a return probe leave at once while none is worth a look.
pub static CALLS_OPEN: Shared = Shared::zero();

/// One number: not 0 once every probe is attached. Until then nothing is counted, because a half
/// attached set would see only half of a decision. Read on the path of a SYN only.
#[map]
pub static ARMED: Array<u32> = Array::with_max_entries(1, 0);

/// Drop reason number → [`agent_common::verdict::DropCause`], 0 for a reason that is no loss.
/// Filled by the agent from the names in the kernel's BTF; numbers beyond it count as other.
#[map]
pub static DROP_CAUSES: Array<u8> = Array::with_max_entries(256, 0);

/// Kernel functions by location, for kernels without drop reasons. Filled by the agent.
#[map]
pub static DROP_LOCATIONS: Array<DropLocation> = Array::with_max_entries(DROP_LOCATIONS_MAX, 0);

/// Stale attempts whose outcome is awaited, by the tuple of their SYN. At the limit:
/// [`Stat::FollowedFull`].
#[map]
pub static FOLLOWED: HashMap<TupleKey, Followed> = HashMap::with_max_entries(FOLLOWED_MAX, 0);

/// The same attempts by the addresses behind NAT (client to real server), which is how an ICMP
/// error about a translated packet names them.
#[map]
pub static FOLLOWED_BEHIND: HashMap<TupleKey, TupleKey> =
    HashMap::with_max_entries(FOLLOWED_MAX, 0);

/// Entries of [`FOLLOWED`]. While it is 0, packets of open connections are not looked at.
pub static FOLLOWING: Shared = Shared::zero();

/// Flows of datagrams to stale real servers; the least recently used make room.
#[map]
pub static FLOWS: LruHashMap<TupleKey, StaleFlow> = LruHashMap::with_max_entries(FLOWS_MAX, 0);

/// Kernel functions that pass packets to netfilter's hooks. Filled by the agent.
#[map]
pub static HOOK_CALLERS: Array<HookCaller> = Array::with_max_entries(HOOK_CALLERS_MAX, 0);
