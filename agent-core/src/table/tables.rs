//! Everything known of the IPVS tables: the last reading of each, and what was made of them.
//!
//! PURE. `handle_*` takes what happened, [`Tables::poll_output`] takes what was concluded, everything else
//! only reads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use agent_common::count::CountKey;
use agent_common::key::TupleKey;

use super::changes::{self, DIFFERENCES_MAX, Difference};
use super::draining::{Concluded, Drain, Draining};
use super::given::{self, Given, Place};
use super::near::{self, Look};
use super::skew::{Skew, Spread};
use super::{RealServerRow, ServiceRow, Snapshot};
use crate::clock::MonoNs;
use crate::event::{Change, NetnsId, RealServerChanged, Service};

/// Services that wait to be reported to have no real server left: more in one reading are one incident.
const VACANT_MAX: usize = 10_000;

/// Rates of one real server between the last two readings of the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Connections per second that the scheduler gave it.
    pub scheduled: f64,
    /// By old entries, while it had a weight.
    pub reused: f64,
    /// Connections and datagrams while it was stale.
    pub stale: f64,
    /// Attempts bound there that IPVS dropped.
    pub dropped: f64,
}

/// One real server with everything known of it.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Its service.
    pub service: &'a ServiceRow,
    /// As it was read.
    pub row: &'a RealServerRow,
    /// How it drains, if it does.
    pub drain: Option<&'a Drain>,
    /// What it is given.
    pub rates: Rates,
    /// Whether it should have got connections and got none.
    pub starved: bool,
}

impl Member<'_> {
    /// Whether anybody should look at it: it drains, it is starved, or it has more connections
    /// than it may.
    #[must_use]
    pub const fn is_abnormal(&self) -> bool {
        self.row.is_draining() || self.starved || self.is_overloaded()
    }

    /// Whether its upper threshold keeps new connections away.
    #[must_use]
    pub const fn is_overloaded(&self) -> bool {
        self.row.upper_threshold > 0 && self.row.connections() >= self.row.upper_threshold as u64
    }
}

/// Numbers of one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Services.
    pub services: usize,
    /// Real servers with a weight.
    pub available: usize,
    /// Real servers without.
    pub draining: usize,
    /// Services without a real server to choose.
    pub without_real_server: usize,
}

impl Totals {
    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            services: self.services + other.services,
            available: self.available + other.available,
            draining: self.draining + other.draining,
            without_real_server: self.without_real_server + other.without_real_server,
        }
    }
}

/// What readings of the tables led to, for people; `finding` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// No real server of a service has a weight.
    NoRealServer {
        /// The second reading that showed it.
        at: MonoNs,
        /// The service.
        service: Service,
        /// Real servers it lists, all with weight 0.
        draining: usize,
    },
    /// What became of a draining real server.
    Draining(Concluded),
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct Tables {
    snapshots: BTreeMap<NetnsId, Arc<Snapshot>>,
    failed: BTreeMap<NetnsId, String>,
    counted_at: Option<MonoNs>,
    counted: u64,
    rates: BTreeMap<Place, Rates>,
    draining: Draining,
    skew: Skew,
    spreads: BTreeMap<Service, Spread>,
    /// Clients near reuse, of services that have any.
    near: BTreeMap<Service, usize>,
    /// Without anybody to choose at the last reading, but not at the one before.
    vacant: BTreeSet<Service>,
    outputs: VecDeque<Output>,
    /// Of readings, not reported yet.
    differences: VecDeque<Difference>,
    changed: BTreeMap<changes::Change, u64>,
}

impl Tables {
    /// Nothing read yet; a real server with weight 0 and no connection for `forgotten_after` is
    /// reported.
    #[must_use]
    pub fn new(forgotten_after: Duration) -> Self {
        Self {
            draining: Draining::new(forgotten_after),
            ..Self::default()
        }
    }

    /// A reading of one table.
    pub fn handle_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        self.failed.remove(&snapshot.netns);
        self.find_differences(&snapshot);
        self.draining.handle_snapshot(&snapshot);
        self.find_vacant(&snapshot);
        self.snapshots.insert(snapshot.netns, snapshot);
        self.take_concluded();
    }

    /// A table could not be read this time; what was read before stays.
    pub fn handle_failure(&mut self, netns: NetnsId, reason: String) {
        self.failed.insert(netns, reason);
    }

    /// A namespace is gone with its table.
    pub fn handle_gone(&mut self, netns: NetnsId) {
        self.snapshots.remove(&netns);
        self.failed.remove(&netns);
        self.draining.handle_gone(netns);
        self.vacant.retain(|service| service.netns != netns);
        self.spreads.retain(|service, _| service.netns != netns);
        self.near.retain(|service, _| service.netns != netns);
    }

    /// The kernel reported that a real server was configured.
    pub fn handle_change(&mut self, changed: &RealServerChanged) {
        let place = (changed.service, changed.real_server);
        match changed.change {
            Change::WeightSet | Change::Added => {
                // The kernel refuses weights below 0.
                let weight = u32::try_from(changed.weight).unwrap_or(0);
                self.draining.handle_weight(changed.at, place, weight);
            }
            Change::Removed => self.draining.handle_removal(changed.at, place),
        }
        self.take_concluded();
    }

    /// What the kernel's counters have risen by since the reading before this one, made at `at`.
    pub fn handle_counts(&mut self, at: MonoNs, increments: &[(CountKey, u64)]) {
        self.counted += 1;
        let given = given::by_real_server(increments);
        self.draining.handle_given(at, &given);
        let tables = &self.snapshots;
        self.skew.handle_given(at, &given, |service| {
            tables.get(&service.netns)?.service(service)
        });
        self.spreads = tables
            .values()
            .flat_map(|snapshot| self.skew.spreads(snapshot))
            .collect();
        let seconds = self
            .counted_at
            .replace(at)
            .map(|before| at.since(before).as_secs_f64());
        self.rates = match seconds {
            Some(seconds) if seconds > 0.0 => rates(&given, seconds),
            _ => BTreeMap::new(),
        };
        self.take_concluded();
    }

    /// The attempts that were looked for.
    pub fn handle_attempts(&mut self, attempts: Vec<TupleKey>, look: Look) {
        let tables = &self.snapshots;
        self.near = near::clients(attempts, look, |service| {
            let table = tables.get(&service.netns);
            table.is_some_and(|table| table.service(service).is_some())
        });
    }

    /// Attempts to look for, because clients may be near reuse; when none can be, none is.
    pub fn look(&mut self, at: MonoNs) -> Option<Look> {
        let totals = self.skew.totals(at, near::WINDOW);
        let busiest = totals.values().max().copied().unwrap_or(0);
        let look = Look::for_rates(busiest, totals.values().sum());
        if look.is_none() {
            self.near.clear();
        }
        look
    }

    /// Nothing more will be read.
    pub fn handle_end(&mut self) {
        self.draining.handle_end();
        self.take_concluded();
    }

    /// The next finding.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The next difference between two readings; at most [`DIFFERENCES_MAX`] wait.
    pub fn poll_difference(&mut self) -> Option<Difference> {
        self.differences.pop_front()
    }

    /// Differences between readings so far, those included that were never reported.
    #[must_use]
    pub fn changed(&self, change: changes::Change) -> u64 {
        self.changed.get(&change).copied().unwrap_or(0)
    }

    /// How often the counters were read; rates are known from the second time on.
    #[must_use]
    pub const fn counted(&self) -> u64 {
        self.counted
    }

    /// The last reading of every table.
    pub fn snapshots(&self) -> impl Iterator<Item = &Snapshot> {
        self.snapshots.values().map(|snapshot| &**snapshot)
    }

    /// Tables that could not be read the last time, and why.
    pub const fn failed(&self) -> &BTreeMap<NetnsId, String> {
        &self.failed
    }

    /// Every real server of every table.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        self.snapshots()
            .flat_map(Snapshot::real_servers)
            .map(|(service, row)| self.member(service, row))
    }

    /// How services are spread, as far as they had connections enough.
    pub const fn spreads(&self) -> &BTreeMap<Service, Spread> {
        &self.spreads
    }

    /// Clients of a service whose source ports come back before IPVS forgets them, or nearly.
    #[must_use]
    pub fn near_reuse(&self, service: &Service) -> usize {
        self.near.get(service).copied().unwrap_or(0)
    }

    /// Real servers whose draining is not followed, for want of room.
    #[must_use]
    pub const fn draining_refused(&self) -> u64 {
        self.draining.refused()
    }

    /// Numbers of each namespace.
    #[must_use]
    pub fn totals(&self) -> BTreeMap<NetnsId, Totals> {
        self.snapshots()
            .map(|snapshot| (snapshot.netns, totals(snapshot)))
            .collect()
    }

    fn member<'a>(&'a self, service: &'a ServiceRow, row: &'a RealServerRow) -> Member<'a> {
        let place = (service.service, row.real_server);
        let spread = self.spreads.get(&service.service);
        Member {
            service,
            row,
            drain: self.draining.drains().get(&place),
            rates: self.rates.get(&place).copied().unwrap_or_default(),
            starved: spread.is_some_and(|spread| spread.starved.contains(&row.real_server)),
        }
    }

    fn find_differences(&mut self, snapshot: &Snapshot) {
        let Some(before) = self.snapshots.get(&snapshot.netns) else {
            return;
        };
        let (differences, changed) = (&mut self.differences, &mut self.changed);
        changes::between(before, snapshot, &mut |difference| {
            *changed.entry(difference.change).or_default() += 1;
            if differences.len() < DIFFERENCES_MAX {
                differences.push_back(difference);
            }
        });
    }

    /// A service is reported when two readings in a row show no real server to choose, after one that did.
    fn find_vacant(&mut self, snapshot: &Snapshot) {
        let before = self.snapshots.get(&snapshot.netns);
        for row in &snapshot.services {
            let service = row.service;
            if row.weight() > 0 {
                self.vacant.remove(&service);
            } else if self.vacant.remove(&service) {
                let draining = row.real_servers.len();
                self.outputs.push_back(Output::NoRealServer {
                    at: snapshot.taken_at,
                    service,
                    draining,
                });
            } else if before
                .and_then(|before| before.service(&service))
                .is_some_and(|before| before.weight() > 0)
                && self.vacant.len() < VACANT_MAX
            {
                self.vacant.insert(service);
            }
        }
    }

    fn take_concluded(&mut self) {
        while let Some(concluded) = self.draining.poll() {
            self.outputs.push_back(Output::Draining(concluded));
        }
    }
}

fn totals(snapshot: &Snapshot) -> Totals {
    let mut totals = Totals {
        services: snapshot.services.len(),
        ..Totals::default()
    };
    for row in &snapshot.services {
        let draining = row
            .real_servers
            .iter()
            .filter(|row| row.is_draining())
            .count();
        totals.draining += draining;
        totals.available += row.real_servers.len() - draining;
        totals.without_real_server += usize::from(draining == row.real_servers.len());
    }
    totals
}

fn rates(given: &BTreeMap<Place, Given>, seconds: f64) -> BTreeMap<Place, Rates> {
    let rate = |count: u64| {
        #[expect(
            clippy::cast_precision_loss,
            reason = "connections between two readings"
        )]
        let count = count as f64;
        count / seconds
    };
    given
        .iter()
        .map(|(place, given)| {
            let rates = Rates {
                scheduled: rate(given.scheduled),
                reused: rate(given.reused),
                stale: rate(given.stale() + given.stale_datagrams),
                dropped: rate(given.dropped),
            };
            (*place, rates)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::RealServer;
    use crate::table::{Forwarding, ServiceFlags};
    use crate::testing::sample_service;

    fn reading(seconds: u64, weights: &[u32]) -> Arc<Snapshot> {
        let rows = weights.iter().zip(1..).map(|(weight, n)| RealServerRow {
            real_server: RealServer(format!("10.1.{n}.2:8080").parse().unwrap()),
            forwarding: Forwarding::Masquerade,
            weight: *weight,
            active: n,
            inactive: 0,
            persistent: 0,
            upper_threshold: 2,
            lower_threshold: 0,
        });
        let row = ServiceRow {
            service: sample_service(),
            scheduler: "rr".into(),
            flags: ServiceFlags(2),
            persistence: Duration::ZERO,
            netmask: u32::MAX,
            real_servers: rows.collect(),
        };
        let netns = sample_service().netns;
        let at = MonoNs(seconds * 1_000_000_000);
        Arc::new(Snapshot::new(at, Duration::ZERO, netns, vec![row]))
    }

    #[test]
    fn a_service_with_nobody_left_is_told_once() {
        let mut tables = Tables::default();
        tables.handle_snapshot(reading(1, &[1, 1]));
        tables.handle_snapshot(reading(2, &[0, 0]));
        assert_eq!(tables.poll_output(), None, "one reading may be torn");
        tables.handle_snapshot(reading(3, &[0]));
        let expected = Output::NoRealServer {
            at: MonoNs(3_000_000_000),
            service: sample_service(),
            draining: 1,
        };
        assert_eq!(tables.poll_output(), Some(expected));
        tables.handle_snapshot(reading(4, &[]));
        tables.handle_snapshot(reading(5, &[]));
        let again = std::iter::from_fn(|| tables.poll_output())
            .filter(|output| matches!(output, Output::NoRealServer { .. }));
        assert_eq!(again.count(), 0);
    }

    #[test]
    fn a_service_that_never_had_anybody_is_ordinary() {
        let mut tables = Tables::default();
        for second in 1..5 {
            tables.handle_snapshot(reading(second, &[]));
        }
        assert_eq!(tables.poll_output(), None);
        assert_eq!(
            tables.totals()[&sample_service().netns].without_real_server,
            1
        );
    }

    #[test]
    fn differences_are_counted_where_they_are_no_longer_told() {
        let mut tables = Tables::new(Duration::from_secs(300));
        tables.handle_snapshot(reading(1, &[1, 1]));
        assert_eq!(
            tables.poll_difference(),
            None,
            "the first reading is no change"
        );
        let rounds = 600;
        for round in 0..rounds {
            tables.handle_snapshot(reading(2 * round + 2, &[1]));
            tables.handle_snapshot(reading(2 * round + 3, &[1, 1]));
        }
        let mut reported = 0;
        while tables.poll_difference().is_some() {
            reported += 1;
        }
        assert_eq!(reported, DIFFERENCES_MAX);
        assert_eq!(tables.changed(changes::Change::RealServerAdded), rounds);
        assert_eq!(tables.changed(changes::Change::RealServerRemoved), rounds);
        assert_eq!(tables.changed(changes::Change::ServiceRemoved), 0);
    }

    #[test]
    fn members_are_normal_draining_or_full() {
        let mut tables = Tables::default();
        tables.handle_snapshot(reading(1, &[1, 5, 0]));
        let abnormal: Vec<_> = tables
            .members()
            .map(|member| member.is_abnormal())
            .collect();
        // The first has one connection of two, the second has two, the third has no weight.
        assert_eq!(abnormal, [false, true, true]);
        let totals = Totals {
            services: 1,
            available: 2,
            draining: 1,
            without_real_server: 0,
        };
        assert_eq!(tables.totals()[&sample_service().netns], totals);
    }

    #[test]
    fn what_is_gone_shows_nothing() {
        let mut tables = Tables::default();
        tables.handle_snapshot(reading(1, &[0]));
        tables.handle_failure(sample_service().netns, "refused".to_owned());
        assert_eq!((tables.members().count(), tables.failed().len()), (1, 1));
        tables.handle_gone(sample_service().netns);
        assert_eq!((tables.members().count(), tables.failed().len()), (0, 0));
    }
}
