//! The kernel's counters arranged by family.
//!
//! PURE: a list of counts in, families out, so that keys the kernel forgot vanish and every
//! known combination starts at 0.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use agent_common::count::{
    CountKey, TALLY_ATTEMPT, TALLY_OUTCOME, TALLY_RETRANSMIT, TALLY_STALE_DATAGRAM,
    TALLY_STALE_FLOW, TALLY_SYN_DROP,
};
use agent_common::verdict::{Decision, DropCause, Lost, Outcome, StaleCause};

use crate::decode;
use crate::event::{NetnsId, Proto, RealServer, Service, Verdict};

/// Label sets of a family with real-server labels, and of the delay histogram.
///
/// A node programs up to 100,000 real servers; three such families at this cap stay near 5,000
/// series, which a Prometheus server does not notice.
pub const SERIES_MAX: usize = 1_000;

/// Services in the families with service labels.
///
/// A node programs up to 10,000 services, and each takes 22 series; at this cap they stay near
/// 11,000.
pub const SERVICES_MAX: usize = 500;

/// A real server's stale connections of one cause.
pub type StaleKey = (Service, Option<RealServer>, StaleCause);

/// Families made of the kernel's counters.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Families {
    /// Attempts by service and decision, of at most [`SERVICES_MAX`] services.
    pub connections: BTreeMap<(Service, Decision), u64>,
    /// Attempts sent to stale real servers, at most [`SERIES_MAX`].
    pub stale: BTreeMap<StaleKey, u64>,
    /// Dead SYNs by service and cause, of the same services.
    pub syn_drops: BTreeMap<(Service, DropCause), u64>,
    /// Attempts given to real servers, at most [`SERIES_MAX`].
    pub new_connections: BTreeMap<(Service, RealServer), u64>,
    /// Outcomes of stale attempts by service, of the same services.
    pub outcomes: BTreeMap<(Service, Outcome), u64>,
    /// Datagrams to stale real servers, at most [`SERIES_MAX`].
    pub stale_datagrams: BTreeMap<(Service, RealServer), u64>,
    /// Flows of datagrams to stale real servers, at most [`SERIES_MAX`].
    pub stale_flows: BTreeMap<(Service, RealServer), u64>,
    /// Retransmitted SYNs by service and by where the one before was lost, of the same services.
    pub retransmits: BTreeMap<(Service, Lost), u64>,
    /// Services the cap refused; each is missing in every family with service labels.
    pub services_refused: usize,
    /// Label sets of `stale_datagrams` the cap refused.
    pub stale_datagrams_refused: usize,
    /// Label sets of `stale_flows` the cap refused.
    pub stale_flows_refused: usize,
    /// Label sets of `stale` the cap refused.
    pub stale_refused: usize,
    /// Label sets of `new_connections` the cap refused.
    pub new_connections_refused: usize,
    /// Counts under keys that make no sense.
    pub malformed: u64,
    /// Network namespaces of known services, those the cap refused included.
    pub netns: BTreeSet<NetnsId>,
}

impl Families {
    /// Arranges what the kernel counted.
    #[must_use]
    pub fn of(counts: &[(CountKey, u64)]) -> Self {
        let mut families = Self::default();
        for (key, count) in counts {
            if families.add(key, *count).is_none() {
                families.malformed += count;
            }
        }
        families.zeros();
        let services = families.connections.keys();
        families.netns = services.map(|(service, _)| service.netns).collect();
        families.cap();
        families
    }

    fn add(&mut self, key: &CountKey, count: u64) -> Option<()> {
        let service = known_or_one(decode::service(&key.service).ok()?);
        let real_server = decode::real_server(&key.real_server).ok()?;
        match key.tally {
            TALLY_ATTEMPT => {
                let verdict = decode::verdict(key.decision, key.cause).ok()?;
                self.add_attempt(service, real_server, verdict, count);
            }
            TALLY_SYN_DROP => {
                let cause = DropCause::try_from(key.cause).ok()?;
                *self.syn_drops.entry((service, cause)).or_default() += count;
            }
            TALLY_OUTCOME => {
                let outcome = Outcome::try_from(key.cause).ok()?;
                *self.outcomes.entry((service, outcome)).or_default() += count;
            }
            TALLY_RETRANSMIT => {
                let lost = Lost::try_from(key.cause).ok()?;
                *self.retransmits.entry((service, lost)).or_default() += count;
            }
            TALLY_STALE_DATAGRAM => {
                *self
                    .stale_datagrams
                    .entry((service, real_server?))
                    .or_default() += count;
            }
            TALLY_STALE_FLOW => {
                *self.stale_flows.entry((service, real_server?)).or_default() += count;
            }
            _ => return None,
        }
        Some(())
    }

    fn add_attempt(
        &mut self,
        service: Service,
        real_server: Option<RealServer>,
        verdict: Verdict,
        count: u64,
    ) {
        let decision = (service, verdict.decision());
        *self.connections.entry(decision).or_default() += count;
        if let Verdict::ReusedStale(cause) = verdict {
            *self.stale.entry((service, real_server, cause)).or_default() += count;
        }
        if let Some(server) = real_server
            && !matches!(verdict, Verdict::Dropped(_))
        {
            *self.new_connections.entry((service, server)).or_default() += count;
        }
    }

    /// A rate sees the first event only if the series was there before it.
    fn zeros(&mut self) {
        let services: BTreeSet<Service> = self
            .connections
            .keys()
            .map(|(service, _)| *service)
            .chain(self.syn_drops.keys().map(|(service, _)| *service))
            .filter(Service::is_known)
            .collect();
        for service in services {
            for decision in Decision::ALL {
                self.connections.entry((service, *decision)).or_default();
            }
            for cause in DropCause::ALL {
                self.syn_drops.entry((service, *cause)).or_default();
            }
            for outcome in Outcome::ALL {
                self.outcomes.entry((service, *outcome)).or_default();
            }
            for lost in Lost::ALL {
                self.retransmits.entry((service, *lost)).or_default();
            }
        }
        for (service, server) in self.new_connections.keys() {
            for cause in StaleCause::ALL {
                let key = (*service, Some(*server), *cause);
                self.stale.entry(key).or_default();
            }
            if service.proto_word() == Proto::Udp.as_str() {
                self.stale_datagrams.entry((*service, *server)).or_default();
                self.stale_flows.entry((*service, *server)).or_default();
            }
        }
    }

    /// Keeps the most abnormal: those with stale connections, then the busiest.
    fn cap(&mut self) {
        self.cap_services();
        let mut stale_of = BTreeMap::new();
        for ((service, server, _), count) in &self.stale {
            if let Some(server) = server {
                *stale_of.entry((*service, *server)).or_default() += count;
            }
        }
        let stale = |key: &(Service, RealServer)| stale_of.get(key).copied().unwrap_or(0_u64);
        self.new_connections_refused = keep(&mut self.new_connections, |key, n| (stale(key), n));
        self.stale_datagrams_refused = keep(&mut self.stale_datagrams, |_, n| (n, 0));
        self.stale_flows_refused = keep(&mut self.stale_flows, |_, n| (n, 0));
        self.stale_refused = keep(&mut self.stale, |_, n| (n, 0));
    }
}

impl Families {
    /// Keeps the most abnormal services: those whose clients are hurt most often, then the busiest.
    fn cap_services(&mut self) {
        let mut ranks: BTreeMap<Service, (u64, u64)> = BTreeMap::new();
        for ((service, decision), count) in &self.connections {
            let (hurt, all) = ranks.entry(*service).or_default();
            *all += count;
            if matches!(decision, Decision::ReusedStale | Decision::Dropped) {
                *hurt += count;
            }
        }
        for ((service, _), count) in &self.syn_drops {
            ranks.entry(*service).or_default().0 += count;
        }
        ranks.retain(|service, _| service.is_known());
        self.services_refused = ranks.len().saturating_sub(SERVICES_MAX);
        if self.services_refused == 0 {
            return;
        }
        let mut ranked: Vec<_> = ranks.into_iter().collect();
        ranked.sort_by_key(|(service, rank)| (Reverse(*rank), *service));
        let refused = ranked.into_iter().skip(SERVICES_MAX);
        let refused: BTreeSet<Service> = refused.map(|(service, _)| service).collect();
        self.connections
            .retain(|(service, _), _| !refused.contains(service));
        self.syn_drops
            .retain(|(service, _), _| !refused.contains(service));
        self.outcomes
            .retain(|(service, _), _| !refused.contains(service));
        self.retransmits
            .retain(|(service, _), _| !refused.contains(service));
    }
}

/// All dead SYNs of unknown services are one series, wherever they died.
fn known_or_one(service: Service) -> Service {
    if service.is_known() {
        return service;
    }
    Service {
        netns: NetnsId::default(),
        ..service
    }
}

/// Keeps the [`SERIES_MAX`] highest ranks; returns how many it refused.
pub(super) fn keep<K: Ord + Copy>(
    map: &mut BTreeMap<K, u64>,
    rank: impl Fn(&K, u64) -> (u64, u64),
) -> usize {
    let refused = map.len().saturating_sub(SERIES_MAX);
    if refused > 0 {
        let mut ranked: Vec<_> = map
            .iter()
            .map(|(key, n)| (rank(key, *n), *key, *n))
            .collect();
        ranked.sort_by_key(|(rank, key, _)| (Reverse(*rank), *key));
        ranked.truncate(SERIES_MAX);
        *map = ranked.into_iter().map(|(_, key, n)| (key, n)).collect();
    }
    refused
}
