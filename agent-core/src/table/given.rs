//! What each real server was given between two readings of the kernel's counters.
//!
//! PURE. The increments of the counters say who got new connections, and how.

use std::collections::BTreeMap;

use agent_common::count::{CountKey, TALLY_ATTEMPT, TALLY_STALE_DATAGRAM};
use agent_common::verdict::StaleCause;

use crate::decode;
use crate::event::{RealServer, Service, Verdict};

/// A real server under its service.
pub type Place = (Service, RealServer);

/// New connections of one real server, by the way they came there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Chosen by the scheduler.
    pub scheduled: u64,
    /// By an old entry, while the real server had a weight.
    pub reused: u64,
    /// By an old entry, while it was stale.
    pub stale_by_port_reuse: u64,
    /// By a persistence template, while it was stale.
    pub stale_by_persistence: u64,
    /// Bound there by an old entry, and dropped by IPVS.
    pub dropped: u64,
    /// Datagrams, no connections, that came while it was stale; each renewed its entry.
    pub stale_datagrams: u64,
}

impl Given {
    /// Connections that got there, without those dropped on the way.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.scheduled + self.old_entries() + self.stale_by_persistence
    }

    /// Connections that followed an old entry of the same client port.
    #[must_use]
    pub const fn old_entries(&self) -> u64 {
        self.reused + self.stale_by_port_reuse
    }

    /// Connections that came while it was stale.
    #[must_use]
    pub const fn stale(&self) -> u64 {
        self.stale_by_port_reuse + self.stale_by_persistence
    }

    /// Both together.
    pub const fn add(&mut self, other: &Self) {
        self.scheduled += other.scheduled;
        self.reused += other.reused;
        self.stale_by_port_reuse += other.stale_by_port_reuse;
        self.stale_by_persistence += other.stale_by_persistence;
        self.dropped += other.dropped;
        self.stale_datagrams += other.stale_datagrams;
    }

    const fn count(&mut self, verdict: Verdict, count: u64) {
        let place = match verdict {
            Verdict::Scheduled | Verdict::Rescheduled => &mut self.scheduled,
            Verdict::Reused => &mut self.reused,
            Verdict::ReusedStale(StaleCause::PortReuse) => &mut self.stale_by_port_reuse,
            Verdict::ReusedStale(StaleCause::Persistence) => &mut self.stale_by_persistence,
            Verdict::Dropped(_) => &mut self.dropped,
        };
        *place += count;
    }
}

/// What increments of the kernel's counters mean, for every real server that was given anything.
///
/// Keys that cannot be read are left out: the exposition counts those.
#[must_use]
pub fn by_real_server(increments: &[(CountKey, u64)]) -> BTreeMap<Place, Given> {
    let mut given: BTreeMap<Place, Given> = BTreeMap::new();
    for (key, new) in increments {
        if ![TALLY_ATTEMPT, TALLY_STALE_DATAGRAM].contains(&key.tally) {
            continue;
        }
        if let (1.., Some(place)) = (*new, place(key)) {
            note(given.entry(place).or_default(), key, *new);
        }
    }
    given
}

fn place(key: &CountKey) -> Option<Place> {
    let service = decode::service(&key.service).ok()?;
    let server = decode::real_server(&key.real_server).ok()??;
    service.is_known().then_some((service, server))
}

fn note(given: &mut Given, key: &CountKey, new: u64) {
    if key.tally == TALLY_STALE_DATAGRAM {
        given.stale_datagrams += new;
    } else if let Ok(verdict) = decode::verdict(key.decision, key.cause) {
        given.count(verdict, new);
    }
}

#[cfg(test)]
mod tests {
    use agent_common::count::TALLY_SYN_DROP;
    use agent_common::verdict::DropCause;

    use super::*;
    use crate::decode::wire;
    use crate::testing::sample_service;

    fn key(verdict: Verdict) -> CountKey {
        CountKey {
            service: wire::service(&sample_service()),
            real_server: wire::real_server(Some(server())),
            tally: TALLY_ATTEMPT,
            decision: verdict.decision() as u8,
            cause: wire::cause(verdict),
            pad: 0,
        }
    }

    fn server() -> RealServer {
        RealServer("10.1.1.2:8080".parse().unwrap())
    }

    #[test]
    fn every_way_is_told_apart() {
        let ways = [
            Verdict::Rescheduled,
            Verdict::ReusedStale(StaleCause::PortReuse),
            Verdict::ReusedStale(StaleCause::Persistence),
            Verdict::Dropped(DropCause::IpvsRemoved),
        ];
        let counts: Vec<_> = ways
            .iter()
            .zip(1..)
            .map(|(way, n)| (key(*way), n))
            .collect();
        let given = by_real_server(&counts);
        let only = given.values().next().copied().unwrap();
        let expected = Given {
            scheduled: 1,
            reused: 0,
            stale_by_port_reuse: 2,
            stale_by_persistence: 3,
            dropped: 4,
            stale_datagrams: 0,
        };
        assert_eq!((given.len(), only), (1, expected));
        assert_eq!((only.total(), only.old_entries(), only.stale()), (6, 2, 5));
    }

    #[test]
    fn datagrams_are_no_connections() {
        let datagrams = CountKey {
            tally: TALLY_STALE_DATAGRAM,
            decision: 0,
            cause: 0,
            ..key(Verdict::Scheduled)
        };
        let given = by_real_server(&[(datagrams, 9)]);
        let only = given[&(sample_service(), server())];
        assert_eq!(
            (only.stale_datagrams, only.total(), only.stale()),
            (9, 0, 0)
        );
    }

    #[test]
    fn what_has_no_real_server_is_nobodys() {
        let mut unassigned = key(Verdict::Dropped(DropCause::IpvsNoDestination));
        unassigned.real_server = wire::real_server(None);
        let mut packet = key(Verdict::Scheduled);
        packet.tally = TALLY_SYN_DROP;
        assert!(by_real_server(&[(unassigned, 5), (packet, 5)]).is_empty());
    }
}
