//! Bytes of the event stream to [`Event`]s.
//!
//! PURE. Never panics and never guesses: every byte is either part of the event or checked, so
//! encoding what was decoded gives back the same bytes, and everything else is [`Malformed`].

mod error;
mod key;
mod node;
pub mod proc;
#[cfg(test)]
mod tests;
pub mod wire;

use agent_common::netfilter::HookPoint;
use agent_common::record::{
    AttemptRecord, DatagramRecord, KIND_ATTEMPT, KIND_DATAGRAM, KIND_OUTCOME, KIND_REAL_SERVER,
    KIND_SYN_DROP, OutcomeRecord, RealServerRecord, RecordHeader, SynDropRecord,
};
use agent_common::verdict::{Decision, DropCause, Outcome, StaleCause, UnknownNumber};
use zerocopy::{FromBytes, IntoBytes as _};

pub use error::{Malformed, Reason};
pub use key::{real_server, service, tuple};
pub use node::{NodeCount, node_count};

use crate::clock::MonoNs;
use crate::event::{
    AttemptDecided, AttemptId, Change, ConfigEvent, EntryState, Event, FirstDrop, NetnsId,
    OutcomeSeen, PacketEvent, Proto, RealServerChanged, SentOn, StaleDatagrams, SynDropped,
    Verdict,
};

/// The event a record holds.
///
/// # Errors
/// [`Malformed`] names what was found and what was wanted; count it under its
/// [`Malformed::reason`].
pub fn decode(bytes: &[u8]) -> Result<Event, Malformed> {
    let Ok((header, _)) = RecordHeader::read_from_prefix(bytes) else {
        return Err(Malformed::Short {
            object: "record header",
            found: bytes.len(),
            wanted: size_of::<RecordHeader>(),
        });
    };
    let packet = match header.kind {
        KIND_ATTEMPT => {
            PacketEvent::AttemptDecided(attempt(&payload("attempt record", &header, bytes)?)?)
        }
        KIND_SYN_DROP => {
            PacketEvent::SynDropped(syn_drop(&payload("SYN drop record", &header, bytes)?)?)
        }
        KIND_OUTCOME => {
            PacketEvent::OutcomeSeen(outcome(&payload("outcome record", &header, bytes)?)?)
        }
        KIND_DATAGRAM => {
            PacketEvent::StaleDatagrams(datagrams(&payload("datagram record", &header, bytes)?)?)
        }
        KIND_REAL_SERVER => {
            let changed = real_server_changed(&payload("real server record", &header, bytes)?)?;
            return Ok(ConfigEvent::RealServerChanged(changed).into());
        }
        found => return Err(Malformed::UnknownKind { found }),
    };
    Ok(packet.into())
}

/// The whole record, once its length is what its kind says, in the header and in fact.
fn payload<T: FromBytes>(
    object: &'static str,
    header: &RecordHeader,
    bytes: &[u8],
) -> Result<T, Malformed> {
    let wanted = size_of::<T>();
    let said = usize::from(header.len);
    if said != wanted || bytes.len() > wanted {
        let found = if said == wanted { bytes.len() } else { said };
        return Err(Malformed::WrongLength {
            object,
            found,
            wanted,
        });
    }
    T::read_from_bytes(bytes).map_err(|_| Malformed::Short {
        object,
        found: bytes.len(),
        wanted,
    })
}

fn attempt(record: &AttemptRecord) -> Result<AttemptDecided, Malformed> {
    zeros("padding of the attempt record", &record.pad)?;
    let tuple = tuple(&record.tuple)?;
    Ok(AttemptDecided {
        at: MonoNs(record.header.ktime_ns),
        attempt: AttemptId {
            tuple,
            isn: record.isn,
        },
        verdict: verdict(record.decision, record.cause)?,
        service: service(&record.service)?,
        real_server: real_server(&record.real_server)?,
        weight: record.weight,
        first_seen: MonoNs(record.first_seen_ns),
        first_drop: first_drop(record)?,
        retransmits: record.retransmits,
        drops: record.drops,
        old_state: old_state(tuple.proto, record.old_state)?,
        cpu: record.header.cpu,
    })
}

fn syn_drop(record: &SynDropRecord) -> Result<SynDropped, Malformed> {
    Ok(SynDropped {
        at: MonoNs(record.header.ktime_ns),
        attempt: AttemptId {
            tuple: tuple(&record.tuple)?,
            isn: record.isn,
        },
        sent_on: sent_on(record)?,
        netns: NetnsId(record.netns),
        client_informed: flag("ICMP error to the client", record.client_informed)?,
        cause: drop_cause("cause of the SYN drop", record.cause)?,
        hook: hook(record.hook)?,
        reason: record.reason,
        location: record.location,
        cpu: record.header.cpu,
    })
}

fn sent_on(record: &SynDropRecord) -> Result<Option<SentOn>, Malformed> {
    let Some(named) = real_server(&record.real_server)? else {
        zeros(
            "service of a SYN that IPVS did not send on",
            record.service.as_bytes(),
        )?;
        zeros("weight of no real server", &record.weight.to_ne_bytes())?;
        zeros(
            "decision about a SYN that IPVS did not send on",
            &[record.decision],
        )?;
        return Ok(None);
    };
    Ok(Some(SentOn {
        service: service(&record.service)?,
        real_server: named,
        weight: record.weight,
        decision: Decision::try_from(record.decision).map_err(|n| unknown("decision", n))?,
    }))
}

fn real_server_changed(record: &RealServerRecord) -> Result<RealServerChanged, Malformed> {
    zeros("padding of the real server record", &record.pad)?;
    let named = real_server(&record.real_server)?;
    let change = Change::ALL
        .iter()
        .find(|change| change.number() == record.change);
    Ok(RealServerChanged {
        at: MonoNs(record.header.ktime_ns),
        service: service(&record.service)?,
        real_server: named.ok_or(Malformed::Contradiction {
            object: "family of a configured real server",
            found: 0,
            wanted: "4 or 6",
        })?,
        weight: record.weight,
        change: *change.ok_or(Malformed::UnknownNumber {
            object: "change of a real server",
            found: record.change,
        })?,
        cpu: record.header.cpu,
    })
}

/// Decision and cause as one value.
///
/// # Errors
/// [`Malformed::UnknownNumber`], or [`Malformed::Contradiction`] for a cause where none belongs.
pub fn verdict(decision: u8, cause: u8) -> Result<Verdict, Malformed> {
    let named = Decision::try_from(decision).map_err(|n| unknown("decision", n))?;
    let plain = match named {
        Decision::ReusedStale => {
            let cause = StaleCause::try_from(cause).map_err(|n| unknown("stale cause", n))?;
            return Ok(Verdict::ReusedStale(cause));
        }
        Decision::Dropped => return Ok(Verdict::Dropped(drop_cause("drop cause", cause)?)),
        Decision::Scheduled => Verdict::Scheduled,
        Decision::Reused => Verdict::Reused,
        Decision::Rescheduled => Verdict::Rescheduled,
    };
    if cause != 0 {
        return Err(Malformed::Contradiction {
            object: "cause of a decision that has none",
            found: cause.into(),
            wanted: "0",
        });
    }
    Ok(plain)
}

fn first_drop(record: &AttemptRecord) -> Result<Option<FirstDrop>, Malformed> {
    if record.first_drop_ns == 0 {
        if record.first_drop_cause != 0 {
            return Err(Malformed::Contradiction {
                object: "cause of a first drop that has no time",
                found: record.first_drop_cause.into(),
                wanted: "0",
            });
        }
        return Ok(None);
    }
    Ok(Some(FirstDrop {
        at: MonoNs(record.first_drop_ns),
        cause: drop_cause("cause of the first drop", record.first_drop_cause)?,
    }))
}

fn old_state(proto: Proto, number: u8) -> Result<Option<EntryState>, Malformed> {
    if number == 0 {
        return Ok(None);
    }
    EntryState::of(proto, number)
        .map(Some)
        .ok_or_else(|| unknown("state of the old entry", UnknownNumber(number)))
}

fn outcome(record: &OutcomeRecord) -> Result<OutcomeSeen, Malformed> {
    Ok(OutcomeSeen {
        at: MonoNs(record.header.ktime_ns),
        attempt: AttemptId {
            tuple: tuple(&record.tuple)?,
            isn: record.isn,
        },
        since: MonoNs(record.since_ns),
        service: service(&record.service)?,
        real_server: real_server(&record.real_server)?,
        weight: record.weight,
        retransmits: record.retransmits,
        outcome: Outcome::try_from(record.outcome).map_err(|n| unknown("outcome", n))?,
        cause: StaleCause::try_from(record.cause).map_err(|n| unknown("stale cause", n))?,
        cpu: record.header.cpu,
    })
}

fn datagrams(record: &DatagramRecord) -> Result<StaleDatagrams, Malformed> {
    zeros("padding of the datagram record", &record.pad)?;
    Ok(StaleDatagrams {
        at: MonoNs(record.header.ktime_ns),
        tuple: tuple(&record.tuple)?,
        since: MonoNs(record.since_ns),
        datagrams: record.datagrams,
        service: service(&record.service)?,
        real_server: real_server(&record.real_server)?,
        weight: record.weight,
        removed: flag("removal of the real server", record.removed)?,
        cpu: record.header.cpu,
    })
}

fn flag(object: &'static str, number: u8) -> Result<bool, Malformed> {
    match number {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(unknown(object, UnknownNumber(found))),
    }
}

/// The cause of a SYN's death.
///
/// # Errors
/// [`Malformed::UnknownNumber`] naming `object`.
pub fn drop_cause(object: &'static str, number: u8) -> Result<DropCause, Malformed> {
    DropCause::try_from(number).map_err(|n| unknown(object, n))
}

fn hook(number: u8) -> Result<Option<HookPoint>, Malformed> {
    if number == 0 {
        return Ok(None);
    }
    let hook = HookPoint::try_from(number).map_err(|n| unknown("hook of netfilter", n))?;
    Ok(Some(hook))
}

fn unknown(object: &'static str, number: UnknownNumber) -> Malformed {
    Malformed::UnknownNumber {
        object,
        found: number.0,
    }
}

fn zeros(object: &'static str, bytes: &[u8]) -> Result<(), Malformed> {
    match bytes.iter().find(|&&byte| byte != 0) {
        None => Ok(()),
        Some(&found) => Err(Malformed::Padding { object, found }),
    }
}
