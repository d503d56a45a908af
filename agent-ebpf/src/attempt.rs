//! What a SYN means: a new attempt or a retransmit, and which decision is counted for it.
//!
//! An attempt is counted once, with the decision about the first of its SYNs that IPVS saw. Every
//! SYN that dies is counted, because the client waits again for each.

use agent_common::{
    attempt::{Attempt, SynStep, SynVerdict},
    config::decision_bit,
    count::{CountKey, TALLY_ATTEMPT, TALLY_RETRANSMIT, TALLY_SYN_DROP},
    forwarded::Forwarded,
    key::{RealServerKey, ServiceKey},
    stat::Stat,
    verdict::{Decision, Lost},
};
use aya_ebpf::{EbpfContext, bindings::BPF_NOEXIST, helpers::bpf_ktime_get_ns};

use crate::{
    call::BareContext,
    count, emit, follow,
    ipvs::Target,
    maps::{self, ARMED, ATTEMPTS, FORWARDED, IN_FLIGHT, PENDING},
    packet::Syn,
    types::Pending,
};

/// [`Pending::phase`]: the SYN met an entry; IPVS has not decided yet.
const PHASE_MET_ENTRY: u32 = 1;
/// [`Pending::phase`]: IPVS's drop of this packet is counted; it only has to be freed.
const PHASE_DROP_COUNTED: u32 = 2;
/// [`Pending::phase`]: IPVS dropped this packet for a reason no probe explains.
const PHASE_DROP_UNEXPLAINED: u32 = 3;

/// Keeps a SYN that met an entry until IPVS has decided.
///
/// # Errors
/// [`Stat::VerdictMissed`] or [`Stat::PendingFull`].
#[inline(always)]
pub fn begin(skb: u64, syn: &Syn, target: &Target) -> Result<(), Stat> {
    match hold(skb, syn, target) {
        0 => Ok(()),
        HELD_ANEW => Err(Stat::VerdictMissed),
        _ => Err(Stat::PendingFull),
    }
}

/// [`hold`]: the address was in the table already.
const HELD_ANEW: u32 = 1;
/// [`hold`]: the table is full.
const HELD_NOT: u32 = 2;

/// A function of its own, for a stack of its own.
#[inline(never)]
fn hold(skb: u64, syn: &Syn, target: &Target) -> u32 {
    let pending = Pending {
        syn: *syn,
        target: *target,
        phase: PHASE_MET_ENTRY,
        freed_cause: 0,
        outcome: 0,
        pad: 0,
    };
    if PENDING.insert(&skb, &pending, BPF_NOEXIST.into()).is_ok() {
        IN_FLIGHT.add(1);
        return 0;
    }
    // The address is in the table already: the verdict on the packet that had it before was
    // missed, so that packet's decision is lost.
    if PENDING.get_ptr(&skb).is_some() && PENDING.insert(&skb, &pending, 0).is_ok() {
        return HELD_ANEW;
    }
    HELD_NOT
}

/// Whether every probe is attached.
#[inline(always)]
pub fn is_armed() -> bool {
    ARMED.get(0).is_some_and(|armed| *armed != 0)
}

/// Stops all counting at once: the layout has been proven wrong.
#[inline(always)]
pub fn disarm() {
    if let Some(armed) = ARMED.get_ptr_mut(0) {
        // SAFETY: an aligned `u32` of a map; every writer writes the same 0, the agent a 1 before.
        unsafe { *armed = 0 };
    }
}

/// Whether any packet waits between two hooks: one load, cheap enough for every packet.
#[inline(always)]
pub fn any_in_flight() -> bool {
    IN_FLIGHT.get() != 0
}

/// The SYN that waits at this packet address, if any.
#[inline(always)]
pub fn waiting(skb: u64) -> Option<&'static Pending> {
    // SAFETY: an entry is removed only by the program that handles the same packet.
    let pending = unsafe { PENDING.get(&skb) }?;
    (pending.phase == PHASE_MET_ENTRY).then_some(pending)
}

/// Forgets a packet address; after this nothing waits there.
#[inline(always)]
pub fn end(skb: u64) {
    if PENDING.remove(&skb).is_ok() {
        IN_FLIGHT.add(-1);
    }
}

/// Notes that IPVS dropped this packet, so that the kernel's freeing of it is not blamed on
/// netfilter. A function of its own, for a stack of its own.
#[inline(never)]
pub fn mark_dropped(skb: u64, explained: bool) {
    let mark = Pending {
        syn: Syn::NONE,
        target: Target::NONE,
        phase: if explained {
            PHASE_DROP_COUNTED
        } else {
            PHASE_DROP_UNEXPLAINED
        },
        freed_cause: 0,
        outcome: 0,
        pad: 0,
    };
    if PENDING.insert(&skb, &mark, BPF_NOEXIST.into()).is_ok() {
        IN_FLIGHT.add(1);
    }
}

/// The SYN that is being freed while IPVS is still handling it; its verdict comes after this.
#[inline(always)]
pub fn handled_now(skb: u64) -> Option<&'static mut Pending> {
    if !any_in_flight() {
        return None;
    }
    let pending = PENDING.get_ptr_mut(&skb)?;
    // SAFETY: as in `waiting`.
    let pending = unsafe { &mut *pending };
    (pending.phase == PHASE_MET_ENTRY).then_some(pending)
}

/// Who dropped the packet that is being freed.
pub enum DroppedBy {
    /// IPVS, and it is counted.
    IpvsCounted,
    /// IPVS, for a reason no probe explains.
    IpvsUnexplained,
    /// Somebody else.
    Other,
}

/// Takes the mark of [`mark_dropped`] off a packet.
#[inline(always)]
pub fn take_mark(skb: u64) -> DroppedBy {
    if !any_in_flight() {
        return DroppedBy::Other;
    }
    // SAFETY: as in `waiting`.
    let Some(pending) = (unsafe { PENDING.get(&skb) }) else {
        return DroppedBy::Other;
    };
    let dropped_by = match pending.phase {
        PHASE_DROP_COUNTED => DroppedBy::IpvsCounted,
        PHASE_DROP_UNEXPLAINED => DroppedBy::IpvsUnexplained,
        _ => return DroppedBy::Other,
    };
    end(skb);
    dropped_by
}

/// Counts a verdict of IPVS on a SYN and writes the evidence; follows it if it is stale.
///
/// A packet freed meanwhile was on its way to the real server: IPVS followed the entry, but
/// nothing got through.
#[inline(always)]
pub fn settle(context: &impl EbpfContext, syn: &Syn, target: &Target, verdict: SynVerdict) {
    // SAFETY: the helper only reads the clock.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let context = BareContext::of(context);
    let settled = settle_attempt(context, syn, target, verdict, now_ns);
    if !matches!(verdict.decision, Decision::ReusedStale) {
        return;
    }
    if settled == SETTLED_DECISION {
        await_outcome(context, syn, target, verdict, now_ns);
    } else {
        follow::again(syn, now_ns);
    }
}

/// [`settle_attempt`]: this SYN decided its attempt.
const SETTLED_DECISION: u32 = 1;
/// [`settle_attempt`]: the attempt had been decided before.
const SETTLED_RETRANSMIT: u32 = 2;

/// Not inlined: keeps this frame out of the caller's 512-byte BPF stack.
#[inline(never)]
fn settle_attempt(
    context: BareContext,
    syn: &Syn,
    target: &Target,
    verdict: SynVerdict,
    now_ns: u64,
) -> u32 {
    let asked_for = is_asked_for(verdict);
    let Some(attempt) = known_attempt(syn) else {
        let (mut attempt, step) = Attempt::on_first_syn(syn.isn, now_ns, verdict, asked_for);
        tally(target, verdict, step);
        if step.record {
            emit::attempt(&context, now_ns, syn, target, verdict, &attempt);
        }
        attempt.on_freed(now_ns, verdict);
        remember(syn, &attempt);
        if !step.dropped {
            remember_forwarded(syn, target);
        }
        return SETTLED_DECISION;
    };
    let step = attempt.on_retransmit(now_ns, verdict, asked_for);
    if let Some(lost) = step.retransmit {
        count_retransmit(target, lost);
    }
    tally(target, verdict, step);
    if step.record {
        emit::attempt(&context, now_ns, syn, target, verdict, attempt);
    }
    if !step.dropped {
        remember_forwarded(syn, target);
    }
    if step.decides {
        SETTLED_DECISION
    } else {
        SETTLED_RETRANSMIT
    }
}

#[inline(always)]
fn await_outcome(
    context: BareContext,
    syn: &Syn,
    target: &Target,
    verdict: SynVerdict,
    now_ns: u64,
) {
    if verdict.outcome == 0 {
        follow::begin(syn, target, verdict.cause, now_ns);
    } else {
        follow::settled(context, syn, target, verdict, now_ns);
    }
}

#[inline(always)]
fn count_retransmit(target: &Target, lost: Lost) {
    count::one(&CountKey {
        service: target.service,
        real_server: RealServerKey::NONE,
        tally: TALLY_RETRANSMIT,
        decision: 0,
        cause: lost as u8,
        pad: 0,
    });
}

/// Counts a decision about a datagram without an entry: each is an attempt of its own, because
/// nothing in a datagram distinguishes a repetition from a new one.
///
/// A function of its own, for a stack of its own.
#[inline(never)]
pub fn count_decision(target: &Target, verdict: SynVerdict) {
    let step = SynStep {
        decides: true,
        retransmit: None,
        dropped: false,
        record: false,
    };
    tally(target, verdict, step);
}

/// Remembers that IPVS sends this SYN on to its real server.
#[inline(always)]
fn remember_forwarded(syn: &Syn, target: &Target) {
    if let Some(slot) = FORWARDED.get_ptr_mut(Forwarded::slot(syn.isn)) {
        // SAFETY: the map's memory outlives the program. Two SYNs that share a slot may be written
        // at the same moment; `Forwarded::is_of` and the attempt's own number refuse a mixture.
        let slot = unsafe { &mut *slot };
        slot.tuple = syn.tuple;
        slot.isn = syn.isn;
        slot.service = target.service;
        slot.real_server = target.real_server;
        slot.weight = target.weight;
    }
}

/// The SYN that IPVS sent on, and its attempt, as which this packet is known behind IPVS.
#[inline(always)]
pub fn forwarded(syn: &Syn) -> Option<(&'static Forwarded, &'static mut Attempt)> {
    let slot = FORWARDED.get_ptr(Forwarded::slot(syn.isn))?;
    // SAFETY: the map's memory outlives the program; for writes meanwhile see above.
    let sent = unsafe { &*slot };
    if !sent.is_of(&syn.tuple, syn.isn) {
        return None;
    }
    let attempt = ATTEMPTS.get_ptr_mut(&sent.tuple)?;
    // SAFETY: as in `known_attempt`.
    let attempt = unsafe { &mut *attempt };
    attempt.is_of(syn.isn).then_some((sent, attempt))
}

/// An ICMP error about a SYN that IPVS sent on goes to its client.
#[inline(always)]
pub fn client_informed(syn: &Syn) {
    if let Some((_, attempt)) = forwarded(syn) {
        attempt.on_icmp_error();
    }
}

/// Counts a SYN that died without IPVS having sent it on, and remembers its attempt.
#[inline(always)]
pub fn settle_drop(syn: &Syn, service: &ServiceKey, cause: u8, now_ns: u64) {
    count_drop(service, cause);
    if let Some(attempt) = known_attempt(syn) {
        attempt.on_drop(now_ns, cause);
    } else if service.family != 0 {
        remember(syn, &Attempt::on_first_drop(syn.isn, now_ns, cause));
    }
}

/// Counts a SYN that died outside IPVS's own verdict.
#[inline(always)]
pub fn count_drop(service: &ServiceKey, cause: u8) {
    count::one(&CountKey {
        service: *service,
        real_server: RealServerKey::NONE,
        tally: TALLY_SYN_DROP,
        decision: 0,
        cause,
        pad: 0,
    });
}

/// The attempt this SYN is a retransmit of.
#[inline(always)]
fn known_attempt(syn: &Syn) -> Option<&'static mut Attempt> {
    let attempt = ATTEMPTS.get_ptr_mut(&syn.tuple)?;
    // SAFETY: the map's memory outlives the program; two SYNs of one tuple at the same moment on
    // two CPUs could at worst lose one increment of `retransmits` or `drops`, which are evidence.
    let attempt = unsafe { &mut *attempt };
    attempt.is_of(syn.isn).then_some(attempt)
}

#[inline(always)]
fn remember(syn: &Syn, attempt: &Attempt) {
    if ATTEMPTS.insert(&syn.tuple, attempt, 0).is_err() {
        count::stat(Stat::AttemptsFull);
    }
}

/// Counts the attempt if this SYN decided it, and the SYN's death if it died.
#[inline(always)]
fn tally(target: &Target, verdict: SynVerdict, step: SynStep) {
    let mut key = CountKey {
        service: target.service,
        real_server: target.real_server,
        tally: TALLY_ATTEMPT,
        decision: verdict.decision as u8,
        cause: verdict.cause,
        pad: 0,
    };
    if step.decides {
        count::one(&key);
    }
    if step.dropped {
        key.tally = TALLY_SYN_DROP;
        key.decision = 0;
        count::one(&key);
    }
}

/// Whether the agent asked to see this decision.
#[inline(always)]
fn is_asked_for(verdict: SynVerdict) -> bool {
    maps::config().emit_decisions & decision_bit(verdict.decision) != 0
}
