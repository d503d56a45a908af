//! What becomes of an attempt that went to a stale real server.
//!
//! An outcome is seen without looking at replies: the client's own next packet says the server
//! answered, an ICMP error says it cannot be reached, IPVS's entry says it was closed, and time
//! says nothing came. So the reply path carries no program, and the client's path looks further
//! only while an attempt is followed.

use agent_common::{
    attempt::SynVerdict,
    count::{CountKey, TALLY_OUTCOME},
    follow::{ClientPacket, Followed},
    key::TupleKey,
    stat::Stat,
    verdict::Outcome,
};
use aya_ebpf::{EbpfContext, bindings::BPF_NOEXIST, helpers::bpf_ktime_get_ns};

use crate::{
    call::BareContext,
    count, emit,
    ipvs::{self, Target},
    maps::{self, FOLLOWED, FOLLOWED_BEHIND, FOLLOWING},
    packet::Syn,
    read::Probe,
};

/// Whether any attempt is followed: one load.
#[inline(always)]
pub fn any() -> bool {
    FOLLOWING.get() != 0
}

/// Follows a stale attempt from the decision about its first SYN.
///
/// A function of its own, for a stack of its own.
#[inline(never)]
pub fn begin(syn: &Syn, target: &Target, cause: u8, now_ns: u64) {
    let followed = Followed {
        conn: target.conn,
        since_ns: now_ns,
        last_syn_ns: now_ns,
        service: target.service,
        real_server: target.real_server,
        weight: target.weight,
        isn: syn.isn,
        retransmits: 0,
        cause,
        client_reset: 0,
        pad: [0; 4],
    };
    let behind = behind(&syn.tuple, &followed);
    if FOLLOWED
        .insert(&syn.tuple, &followed, BPF_NOEXIST.into())
        .is_err()
    {
        return count::stat(Stat::FollowedFull);
    }
    FOLLOWING.add(1);
    // Without this entry an ICMP error behind NAT is missed, and the attempt times out instead.
    if FOLLOWED_BEHIND.insert(&behind, &syn.tuple, 0).is_err() {
        count::stat(Stat::FollowedFull);
    }
}

/// A SYN of a followed attempt was sent again: the wait for its outcome starts again.
#[inline(always)]
pub fn again(syn: &Syn, now_ns: u64) {
    if let Some(followed) = of(&syn.tuple) {
        followed.on_retransmit(syn.isn, now_ns);
    }
}

/// A SYN came: another attempt on the same ports ends the one that was followed.
///
/// `state` is the one of the entry the SYN met, before IPVS changes it.
#[inline(always)]
pub fn superseded(context: &impl EbpfContext, syn: &Syn, state: u8) {
    if !any() {
        return;
    }
    let Some(followed) = of(&syn.tuple) else {
        return;
    };
    if let Some(outcome) = followed.on_syn(syn.isn, syn.tuple.proto, state) {
        end(BareContext::of(context), &syn.tuple, outcome);
    }
}

/// The client sent a packet that opens nothing.
#[inline(always)]
pub fn client_packet(context: &impl EbpfContext, tuple: &TupleKey, packet: ClientPacket) {
    if let Some(followed) = of(tuple)
        && let Some(outcome) = followed.on_client_packet(packet)
    {
        end(BareContext::of(context), tuple, outcome);
    }
}

/// An ICMP error about a packet with these addresses, translated or not.
#[inline(always)]
pub fn icmp_error(context: &impl EbpfContext, tuple: &TupleKey, outcome: Outcome) {
    if FOLLOWED.get_ptr(tuple).is_some() {
        return end(BareContext::of(context), tuple, outcome);
    }
    // SAFETY: the value is copied at once.
    if let Some(front) = unsafe { FOLLOWED_BEHIND.get(tuple) } {
        let front = *front;
        end(BareContext::of(context), &front, outcome);
    }
}

/// What IPVS's entry and the clock say about an attempt.
///
/// # Errors
/// [`Stat::ReadFailed`]; the attempt is looked at again later.
#[inline(always)]
pub fn look(context: &impl EbpfContext, tuple: &TupleKey) -> Probe<()> {
    let Some(followed) = of(tuple) else {
        return Ok(());
    };
    // SAFETY: the helper only reads the clock.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let state = if ipvs::is_entry_of(followed.conn, tuple).unwrap_or(false) {
        Some(ipvs::state(followed.conn)?)
    } else {
        None
    };
    let timeout_ns = maps::config().outcome_timeout_ns;
    if let Some(outcome) = followed.on_look(tuple.proto, state, now_ns, timeout_ns) {
        end(BareContext::of(context), tuple, outcome);
    }
    Ok(())
}

/// Counts an outcome known at once, of an attempt that was never followed.
///
/// A function of its own, for a stack of its own.
#[inline(never)]
pub fn settled(context: BareContext, syn: &Syn, target: &Target, verdict: SynVerdict, now_ns: u64) {
    let followed = Followed {
        conn: target.conn,
        since_ns: now_ns,
        last_syn_ns: now_ns,
        service: target.service,
        real_server: target.real_server,
        weight: target.weight,
        isn: syn.isn,
        retransmits: 0,
        cause: verdict.cause,
        client_reset: 0,
        pad: [0; 4],
    };
    report(context, &syn.tuple, &followed, verdict.outcome);
}

/// Ends an attempt with its outcome; whoever takes it out of the table counts it, once.
///
/// This and what it calls are functions of their own, for stacks of their own: one stack of 512
/// bytes is shared by a program and everything it has called at one moment.
#[inline(never)]
fn end(context: BareContext, tuple: &TupleKey, outcome: Outcome) {
    let Some(followed) = of(tuple) else {
        return;
    };
    let followed = *followed;
    if FOLLOWED.remove(tuple).is_err() {
        return;
    }
    FOLLOWING.add(-1);
    forget_behind(tuple, &followed);
    report(context, tuple, &followed, outcome as u8);
}

#[inline(never)]
fn forget_behind(tuple: &TupleKey, followed: &Followed) {
    let _ = FOLLOWED_BEHIND.remove(&behind(tuple, followed));
}

#[inline(always)]
fn report(context: BareContext, tuple: &TupleKey, followed: &Followed, outcome: u8) {
    count_outcome(followed, outcome);
    emit::outcome(context, tuple, followed, outcome);
}

#[inline(never)]
fn count_outcome(followed: &Followed, outcome: u8) {
    count::one(&CountKey {
        service: followed.service,
        real_server: followed.real_server,
        tally: TALLY_OUTCOME,
        decision: 0,
        cause: outcome,
        pad: 0,
    });
}

#[inline(always)]
fn of(tuple: &TupleKey) -> Option<&'static mut Followed> {
    let followed = FOLLOWED.get_ptr_mut(tuple)?;
    // SAFETY: the map's memory outlives the program; two packets of one tuple at the same moment
    // could at worst lose one update of evidence.
    Some(unsafe { &mut *followed })
}

/// The addresses of the same packets behind NAT.
#[inline(always)]
fn behind(tuple: &TupleKey, followed: &Followed) -> TupleKey {
    let mut behind = *tuple;
    behind.dest_addr = followed.real_server.addr;
    if followed.real_server.port != 0 {
        behind.dest_port = followed.real_server.port;
    }
    behind
}
