//! Attempts that went to a stale real server: a SYN of theirs that then dies is no news.
//!
//! PURE. Behind IPVS such a SYN dies for want of a route or a neighbour, seconds later, with other
//! addresses than the client's. Bounded: at the cap the oldest is forgotten, and a SYN of it that
//! dies is reported as any other.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use agent_common::verdict::DropCause;

use super::OUTCOME_DEADLINE;
use crate::clock::MonoNs;
use crate::event::{AttemptDecided, AttemptId, RealServer, SynDropped, Tuple};

/// Entries at once, up to two for an attempt (in front of NAT and behind it): as many as attempts
/// may be held.
pub const STALE_REMEMBERED_MAX: usize = super::ATTEMPTS_HELD_MAX;

/// How long an attempt is remembered: until its last retransmit (15 s after the first SYN) has
/// waited for a neighbour.
const REMEMBERED: Duration = OUTCOME_DEADLINE.saturating_mul(2);

/// The table.
#[derive(Debug, Default)]
pub struct Stale {
    until: HashMap<AttemptId, MonoNs>,
    oldest: BTreeSet<(MonoNs, AttemptId)>,
}

impl Stale {
    /// An attempt was sent to a stale real server.
    pub fn note(&mut self, decided: &AttemptDecided) {
        self.forget_until(decided.at);
        // With direct routing a SYN keeps its destination, with NAT it does not.
        self.remember(decided.attempt, decided.at);
        if let Some(RealServer(server)) = decided.real_server {
            self.remember(behind(decided.attempt, server), decided.at);
        }
    }

    /// Whether a SYN died of having been sent to a stale real server.
    ///
    /// Whatever has a name of its own is news: a rule behind IPVS, a full queue of the director's.
    pub fn explains(&self, dropped: &SynDropped) -> bool {
        is_of_the_way(dropped.cause)
            && self
                .until
                .get(&dropped.attempt)
                .is_some_and(|until| dropped.at <= *until)
    }

    fn remember(&mut self, id: AttemptId, at: MonoNs) {
        let until = at + REMEMBERED;
        if let Some(before) = self.until.insert(id, until) {
            self.oldest.remove(&(before, id));
        }
        self.oldest.insert((until, id));
        if self.until.len() > STALE_REMEMBERED_MAX {
            self.forget_first();
        }
    }

    fn forget_until(&mut self, now: MonoNs) {
        while self.oldest.first().is_some_and(|(until, _)| *until < now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, id)) = self.oldest.pop_first() {
            self.until.remove(&id);
        }
    }
}

/// Whether a SYN that was sent to a stale real server may die of this because of that.
pub const fn is_of_the_way(cause: DropCause) -> bool {
    matches!(
        cause,
        DropCause::Other | DropCause::NoRoute | DropCause::Neighbour | DropCause::IpvsTransmit
    )
}

/// The same attempt as it is seen behind NAT.
const fn behind(attempt: AttemptId, server: SocketAddr) -> AttemptId {
    AttemptId {
        tuple: Tuple {
            destination: server,
            ..attempt.tuple
        },
        ..attempt
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{sample_attempt, sample_syn_drop};

    fn behind_nat(cause: DropCause) -> SynDropped {
        let decided = sample_attempt();
        let RealServer(server) = decided.real_server.unwrap();
        SynDropped {
            attempt: behind(decided.attempt, server),
            cause,
            at: decided.at,
            ..sample_syn_drop()
        }
    }

    #[test]
    fn a_syn_that_dies_behind_a_stale_decision_is_explained() {
        let mut stale = Stale::default();
        let dead = behind_nat(DropCause::Other);
        assert!(!stale.explains(&dead));
        stale.note(&sample_attempt());
        assert!(stale.explains(&dead));
        let mut untranslated = dead;
        untranslated.attempt = sample_attempt().attempt;
        assert!(stale.explains(&untranslated));
    }

    #[test]
    fn other_causes_attempts_and_times_are_not() {
        let mut stale = Stale::default();
        stale.note(&sample_attempt());
        assert!(!stale.explains(&behind_nat(DropCause::Netfilter)));
        let dead = behind_nat(DropCause::Other);
        let mut another = dead;
        another.attempt.isn += 1;
        assert!(!stale.explains(&another));
        let mut late = dead;
        late.at = dead.at + REMEMBERED + Duration::from_nanos(1);
        assert!(!stale.explains(&late));
    }

    #[test]
    fn the_oldest_makes_room_and_the_old_is_forgotten() {
        let mut stale = Stale::default();
        let mut decided = sample_attempt();
        decided.real_server = None;
        for isn in 0..=u32::try_from(STALE_REMEMBERED_MAX).unwrap() {
            decided.attempt.isn = isn;
            decided.at = decided.at + Duration::from_nanos(1);
            stale.note(&decided);
        }
        assert_eq!(stale.until.len(), STALE_REMEMBERED_MAX);
        let dead = |isn| {
            let mut dropped = behind_nat(DropCause::Other);
            dropped.attempt = decided.attempt;
            dropped.attempt.isn = isn;
            dropped.at = decided.at;
            dropped
        };
        assert!(!stale.explains(&dead(0)));
        assert!(stale.explains(&dead(1)));
        decided.at = decided.at + REMEMBERED + REMEMBERED;
        stale.note(&decided);
        assert_eq!((stale.until.len(), stale.oldest.len()), (1, 1));
    }
}
