//! What a SYN means: a new attempt or a retransmit, and which decision is counted for it.
//!
//! An attempt is counted once, with the decision about the first of its SYNs that IPVS saw. Every
//! SYN that dies is counted, because the client waits again for each.

use agent_common::{
    attempt::Attempt,
    config::{Config, decision_bit},
    count::{CountKey, TALLY_ATTEMPT, TALLY_RETRANSMIT, TALLY_SYN_DROP},
    key::{RealServerKey, ServiceKey},
    stat::Stat,
    verdict::{Decision, DropCause, Lost, StaleCause},
};
use aya_ebpf::{EbpfContext, bindings::BPF_NOEXIST, helpers::bpf_ktime_get_ns};

use crate::{
    count, emit, follow,
    ipvs::Target,
    maps::{ARMED, ATTEMPTS, CONFIG, IN_FLIGHT, PENDING},
    packet::Syn,
};

/// [`Pending::phase`]: the SYN met an entry; IPVS has not decided yet.
const PHASE_MET_ENTRY: u32 = 1;
/// [`Pending::phase`]: IPVS's drop of this packet is counted; it only has to be freed.
const PHASE_DROP_COUNTED: u32 = 2;
/// [`Pending::phase`]: IPVS dropped this packet for a reason no probe explains.
const PHASE_DROP_UNEXPLAINED: u32 = 3;

/// A packet between two hooks.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Pending {
    /// The SYN, in [`PHASE_MET_ENTRY`].
    pub syn: Syn,
    /// Where its old entry leads, in [`PHASE_MET_ENTRY`].
    pub target: Target,
    /// `PHASE_*`.
    pub phase: u32,
    /// [`DropCause`] if the kernel freed the packet while IPVS was still handling it (no route to
    /// the real server, say), else 0.
    pub freed_cause: u32,
    /// [`agent_common::verdict::Outcome`] if an ICMP error about the packet was sent meanwhile,
    /// else 0.
    pub outcome: u32,
    /// Always 0; the compiler would put it there.
    pub pad: u32,
}

/// What IPVS decided, as it is counted and recorded.
#[derive(Clone, Copy)]
pub struct Verdict {
    /// The decision.
    pub decision: Decision,
    /// Cause of a stale connection or a drop, 0 otherwise.
    pub cause: u8,
    /// As [`Pending::freed_cause`].
    pub freed_cause: u8,
    /// As [`Pending::outcome`].
    pub outcome: u8,
}

impl Verdict {
    /// A decision that needs no cause.
    #[inline(always)]
    pub const fn plain(decision: Decision) -> Self {
        Self::because(decision, 0)
    }

    /// A SYN sent to a stale real server.
    #[inline(always)]
    pub const fn stale(cause: StaleCause) -> Self {
        Self::because(Decision::ReusedStale, cause as u8)
    }

    /// A SYN IPVS dropped.
    #[inline(always)]
    pub const fn dropped(cause: DropCause) -> Self {
        Self::because(Decision::Dropped, cause as u8)
    }

    #[inline(always)]
    const fn because(decision: Decision, cause: u8) -> Self {
        Self {
            decision,
            cause,
            freed_cause: 0,
            outcome: 0,
        }
    }

    /// With what happened to the packet while IPVS was still handling it.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "written from a `u8`")]
    pub const fn with_fate_of(self, pending: &Pending) -> Self {
        Self {
            freed_cause: pending.freed_cause as u8,
            outcome: pending.outcome as u8,
            ..self
        }
    }
}

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
pub fn settle(context: &impl EbpfContext, syn: &Syn, target: &Target, verdict: Verdict) {
    // SAFETY: the helper only reads the clock.
    let now_ns = unsafe { bpf_ktime_get_ns() };
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

/// A function of its own, for a stack of its own.
#[inline(never)]
fn settle_attempt(
    context: &impl EbpfContext,
    syn: &Syn,
    target: &Target,
    verdict: Verdict,
    now_ns: u64,
) -> u32 {
    let dropped = matches!(verdict.decision, Decision::Dropped);
    let Some(attempt) = known_attempt(syn) else {
        let mut attempt = first_syn(syn, now_ns, verdict, dropped);
        tally(target, verdict, dropped, true);
        emit_first(context, now_ns, syn, target, verdict, &attempt);
        if verdict.freed_cause != 0 {
            note_drop(&mut attempt, now_ns, verdict.freed_cause);
        }
        remember(syn, &attempt);
        return SETTLED_DECISION;
    };
    attempt.retransmits = attempt.retransmits.saturating_add(1);
    let lost = lost(attempt);
    count_retransmit(target, lost);
    let first_decision = attempt.decision == 0;
    if first_decision {
        attempt.decision = verdict.decision as u8;
    }
    tally(target, verdict, dropped, first_decision);
    let wanted = is_wanted(verdict);
    let mut tell = false;
    if verdict.freed_cause != 0 {
        note_drop(attempt, now_ns, verdict.freed_cause);
    } else if dropped {
        note_drop(attempt, now_ns, verdict.cause);
        tell = wanted;
    } else if attempt.first_drop_ns != 0 && attempt.delay_reported == 0 {
        attempt.delay_reported = 1;
        tell = true;
    } else if first_decision {
        tell = wanted;
    } else if matches!(lost, Lost::Elsewhere) {
        tell = attempt.retransmits == 1;
    }
    if tell {
        emit::attempt(context, now_ns, syn, target, verdict, attempt);
    }
    if first_decision {
        SETTLED_DECISION
    } else {
        SETTLED_RETRANSMIT
    }
}

#[inline(always)]
fn await_outcome(
    context: &impl EbpfContext,
    syn: &Syn,
    target: &Target,
    verdict: Verdict,
    now_ns: u64,
) {
    if verdict.outcome == 0 {
        follow::begin(syn, target, verdict.cause, now_ns);
    } else {
        follow::settled(context, syn, target, verdict, now_ns);
    }
}

/// Where the SYN before this retransmit was lost, as far as this node can tell.
#[inline(always)]
fn lost(attempt: &Attempt) -> Lost {
    if attempt.first_drop_ns != 0 {
        Lost::Here
    } else if attempt.decision == Decision::ReusedStale as u8 {
        Lost::StaleRealServer
    } else {
        Lost::Elsewhere
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
/// datagrams have nothing that tells a repetition from a new one.
///
/// A function of its own, for a stack of its own.
#[inline(never)]
pub fn count_decision(target: &Target, verdict: Verdict) {
    tally(target, verdict, false, true);
}

/// Counts a SYN that died outside IPVS's own verdict and remembers its attempt.
#[inline(always)]
pub fn settle_drop(syn: &Syn, service: &ServiceKey, cause: u8) {
    count_drop(service, cause);
    // SAFETY: the helper only reads the clock.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if let Some(attempt) = known_attempt(syn) {
        note_drop(attempt, now_ns, cause);
    } else if service.family != 0 {
        let mut attempt = first_syn(syn, now_ns, Verdict::plain(Decision::Dropped), false);
        attempt.decision = 0;
        note_drop(&mut attempt, now_ns, cause);
        remember(syn, &attempt);
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
    (attempt.isn == syn.isn).then_some(attempt)
}

#[inline(always)]
fn first_syn(syn: &Syn, now_ns: u64, verdict: Verdict, dropped: bool) -> Attempt {
    Attempt {
        first_seen_ns: now_ns,
        first_drop_ns: if dropped { now_ns } else { 0 },
        isn: syn.isn,
        drops: u16::from(dropped),
        retransmits: 0,
        decision: verdict.decision as u8,
        first_drop_cause: if dropped { verdict.cause } else { 0 },
        delay_reported: 0,
        pad: [0; 5],
    }
}

#[inline(always)]
fn remember(syn: &Syn, attempt: &Attempt) {
    if ATTEMPTS.insert(&syn.tuple, attempt, 0).is_err() {
        count::stat(Stat::AttemptsFull);
    }
}

#[inline(always)]
fn note_drop(attempt: &mut Attempt, now_ns: u64, cause: u8) {
    attempt.drops = attempt.drops.saturating_add(1);
    if attempt.first_drop_ns == 0 {
        attempt.first_drop_ns = now_ns;
        attempt.first_drop_cause = cause;
    }
}

/// Counts the attempt if this SYN decided it, and the SYN's death if it died.
#[inline(always)]
fn tally(target: &Target, verdict: Verdict, dropped: bool, first_decision: bool) {
    let mut key = CountKey {
        service: target.service,
        real_server: target.real_server,
        tally: TALLY_ATTEMPT,
        decision: verdict.decision as u8,
        cause: verdict.cause,
        pad: 0,
    };
    if first_decision {
        count::one(&key);
    }
    if dropped {
        key.tally = TALLY_SYN_DROP;
        key.decision = 0;
        count::one(&key);
    }
}

/// Writes the record of a decision the agent asked to see.
#[inline(always)]
fn emit_first(
    context: &impl EbpfContext,
    now_ns: u64,
    syn: &Syn,
    target: &Target,
    verdict: Verdict,
    attempt: &Attempt,
) {
    if is_wanted(verdict) {
        emit::attempt(context, now_ns, syn, target, verdict, attempt);
    }
}

/// Whether the agent asked to see this decision.
#[inline(always)]
fn is_wanted(verdict: Verdict) -> bool {
    config().emit_decisions & decision_bit(verdict.decision) != 0
}

/// The agent's settings.
#[inline(always)]
pub fn config() -> Config {
    CONFIG.load()
}
