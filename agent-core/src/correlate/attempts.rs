//! Attempts whose SYN died here and whose outcome is not known yet.
//!
//! PURE. Bounded: at the cap the attempt nearest its deadline makes room.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use agent_common::verdict::DropCause;

use super::OUTCOME_DEADLINE;
use crate::clock::MonoNs;
use crate::event::{AttemptDecided, AttemptId, FirstDrop, SynDropped};
use crate::finding::{Attempt, Behind, ConnectBlocked, Finding, SynDrop};

/// Attempts held at once.
///
/// 16,384 dropped attempts within the outcome deadline are 1,000 per second for 16 s, far above
/// an incident people could read; about 6 MiB. What makes room is counted, and an attempt that
/// gets through later is still reported, because its record carries the first drop.
pub const ATTEMPTS_HELD_MAX: usize = 16_384;

/// How long a SYN that IPVS sent on may take to die: less than until the next one (1 s).
const PROOF: Duration = Duration::from_millis(500);

/// The same of one that waits for a neighbour: the kernel asks three times, 1 s apart
/// (`mcast_solicit`, `retrans_time_ms`; net/ipv4/arp.c).
const NEIGHBOUR_PROOF: Duration = Duration::from_secs(4);

/// How long to wait for another SYN of a client that an ICMP error was sent to. Linux ignores the
/// error while the application is inside `connect` (`tcp_v4_err`, net/ipv4/tcp_ipv4.c), and sends
/// again after 1 s.
const INFORMED_DEADLINE: Duration = Duration::from_millis(1_500);

fn proof_of(cause: DropCause) -> Duration {
    match cause {
        DropCause::Neighbour => NEIGHBOUR_PROOF,
        _ => PROOF,
    }
}

/// One attempt with at least one dead SYN.
#[derive(Debug)]
pub struct Held {
    /// The earliest dead SYN known.
    pub first_drop: FirstDrop,
    /// Dead SYNs known.
    pub drops: u32,
    /// Events this stands for.
    pub events: u64,
    /// Events lost before it was held.
    pub lost_before: u64,
    /// When the latest dead SYN known is filed; the deadline counts from here.
    pub last_drop: MonoNs,
    /// A SYN that IPVS sent on after the latest drop: it got through unless it dies behind IPVS.
    pub sent_on: Option<AttemptDecided>,
    /// An ICMP error went to the client, which need not send again.
    client_informed: bool,
    evidence: Evidence,
}

/// The drop that says most.
#[derive(Clone, Copy, Debug)]
enum Evidence {
    /// IPVS dropped a SYN: the record names service and real server.
    Ipvs(Attempt),
    /// The kernel freed a SYN.
    Kernel(SynDropped),
}

impl Held {
    /// IPVS dropped a SYN; `at` is the time it is filed under.
    pub fn by_ipvs(
        at: MonoNs,
        decided: &AttemptDecided,
        cause: DropCause,
        lost_before: u64,
    ) -> Self {
        let seen = FirstDrop {
            at: decided.at,
            cause,
        };
        Self {
            first_drop: decided.first_drop.map_or(seen, |first| first.min(seen)),
            drops: u32::from(decided.drops).max(1),
            events: 1,
            lost_before,
            last_drop: at,
            sent_on: None,
            client_informed: false,
            evidence: Evidence::Ipvs(Attempt::of(decided)),
        }
    }

    /// The kernel freed a SYN; `at` is the time it is filed under.
    pub fn by_kernel(at: MonoNs, dropped: &SynDropped, lost_before: u64) -> Self {
        let seen = FirstDrop {
            at: dropped.at,
            cause: dropped.cause,
        };
        Self {
            first_drop: seen,
            drops: 1,
            events: 1,
            lost_before,
            last_drop: at,
            sent_on: None,
            client_informed: dropped.client_informed,
            evidence: Evidence::Kernel(*dropped),
        }
    }

    /// IPVS sent a SYN on after one that died, which is known from the decision alone.
    pub fn by_decision(decided: &AttemptDecided, first_drop: FirstDrop, lost_before: u64) -> Self {
        Self {
            first_drop,
            drops: u32::from(decided.drops).max(1),
            events: 1,
            lost_before,
            last_drop: first_drop.at,
            sent_on: Some(*decided),
            client_informed: false,
            evidence: Evidence::Ipvs(Attempt::of(decided)),
        }
    }

    /// IPVS sent a SYN on after the drops that are known.
    pub fn send_on(&mut self, decided: &AttemptDecided) {
        self.events += 1;
        let first = decided.first_drop.unwrap_or(self.first_drop);
        self.first_drop = first.min(self.first_drop);
        self.sent_on.get_or_insert(*decided);
    }

    /// Both as one: what IPVS said is the better evidence, the earlier drop names the cause.
    fn merge(self, other: &Self) -> Self {
        let evidence = match (self.evidence, other.evidence) {
            (Evidence::Kernel(_), Evidence::Ipvs(_)) => other.evidence,
            _ => self.evidence,
        };
        Self {
            first_drop: self.first_drop.min(other.first_drop),
            // A decision's record counts every drop before it, a freed SYN only itself.
            drops: (self.drops + 1).max(other.drops),
            events: self.events + other.events,
            lost_before: self.lost_before.min(other.lost_before),
            last_drop: self.last_drop.max(other.last_drop),
            sent_on: self.sent_on.filter(|sent| sent.at > other.last_drop),
            client_informed: self.client_informed || other.client_informed,
            evidence,
        }
    }

    /// When to give up.
    pub fn deadline(&self) -> MonoNs {
        if let Some(sent_on) = &self.sent_on {
            return sent_on.at + proof_of(self.first_drop.cause);
        }
        if self.client_informed {
            return self.last_drop + INFORMED_DEADLINE;
        }
        self.last_drop + OUTCOME_DEADLINE
    }

    /// The finding when nothing got through until `end`, with `lost` events lost so far.
    pub fn unresolved(&self, end: MonoNs, lost: u64) -> Finding {
        let FirstDrop { at, cause } = self.first_drop;
        let drops = self.drops;
        let waited = end.since(self.last_drop);
        let events_lost = lost.saturating_sub(self.lost_before);
        let blocked = |attempt, behind| {
            let attempt = Attempt { drops, ..attempt };
            ConnectBlocked {
                at,
                attempt,
                cause,
                behind,
                waited,
                events_lost,
            }
            .into()
        };
        let dropped = match self.evidence {
            Evidence::Ipvs(attempt) => return blocked(attempt, None),
            Evidence::Kernel(dropped) => dropped,
        };
        if let Some(sent_on) = &dropped.sent_on {
            let attempt = Attempt::of_sent_on(dropped.attempt, sent_on);
            return blocked(attempt, Some(Behind::of(&dropped)));
        }
        SynDrop {
            at,
            client: dropped.attempt.tuple.into(),
            isn: dropped.attempt.isn,
            cause,
            hook: dropped.netfilter_hook(),
            kernel_reason: dropped.reason,
            kernel_location: dropped.location,
            drops,
            waited,
            events_lost,
        }
        .into()
    }
}

/// The table.
#[derive(Debug, Default)]
pub struct Attempts {
    held: HashMap<AttemptId, Held>,
    deadlines: BTreeSet<(MonoNs, AttemptId)>,
    events: u64,
}

impl Attempts {
    /// Holds a drop until its deadline, together with what is held of the same attempt.
    ///
    /// Returns the attempt that had to make room.
    pub fn hold(&mut self, id: AttemptId, drop: Held) -> Option<Held> {
        let entry = match self.take(&id) {
            Some(known) => known.merge(&drop),
            None => drop,
        };
        let evicted = (self.held.len() >= ATTEMPTS_HELD_MAX)
            .then(|| self.pop_first())
            .flatten();
        self.events += entry.events;
        self.deadlines.insert((entry.deadline(), id));
        self.held.insert(id, entry);
        evicted
    }

    /// Takes an attempt out, its outcome being known.
    pub fn take(&mut self, id: &AttemptId) -> Option<Held> {
        let held = self.held.remove(id)?;
        self.deadlines.remove(&(held.deadline(), *id));
        self.events -= held.events;
        Some(held)
    }

    /// Takes out the attempt with the earliest deadline.
    pub fn pop_first(&mut self) -> Option<Held> {
        let (_, id) = *self.deadlines.first()?;
        self.take(&id)
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonoNs> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Attempts held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Events the held attempts stand for.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }
}
