//! The kernel's counters arranged by family.
//!
//! PURE: sums in, families out. The most abnormal services and real servers have series of their
//! own, every known combination of which starts at 0; what the others counted is in one series for
//! each combination of the remaining labels, see [`crate::ledger::shelf`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent_common::count::{
    CountKey, TALLY_ATTEMPT, TALLY_OUTCOME, TALLY_RETRANSMIT, TALLY_STALE_DATAGRAM,
    TALLY_STALE_FLOW, TALLY_SYN_DROP,
};
use agent_common::key::{RealServerKey, ServiceKey};
use agent_common::verdict::{Decision, DropCause, Lost, Outcome, StaleCause};

use crate::decode;
use crate::event::{NetnsId, Proto, RealServer, Service, ServiceName, Verdict};
use crate::ledger::shelf::{Group, Reading, Shelf, View};
use crate::ledger::{Count, Counts, Presence};

/// Label sets of a family with real-server labels.
///
/// A node has some hundred real servers, or thousands, which no person reads one by one: see
/// `SERIES_MAX_OF_MANY`.
pub const SERIES_MAX: usize = 1_000;

/// The same where there are more than [`SERIES_MAX`]: 200 real servers take 600 series.
pub const SERIES_MAX_OF_MANY: usize = 200;

/// Services in the families with service labels, each of which takes some 22 series.
pub const SERVICES_MAX: usize = 500;

/// The same where there are more than [`SERVICES_MAX`]: with 10,000 services of 10 real servers
/// each a scrape has fewer than 2,500 series.
pub const SERVICES_MAX_OF_MANY: usize = 50;

/// How long a service or real server counts as abnormal after the last fault.
pub(super) const RECENT: Duration = Duration::from_mins(15);

/// A real server under its service.
pub type Place = (Service, RealServer);

/// A real server's stale connections of one cause.
pub type StaleKey = (Service, RealServer, StaleCause);

/// One family: groups with series of their own, and the sums of all.
#[derive(Debug, PartialEq, Eq)]
pub struct Family<G, S> {
    chosen: BTreeMap<G, Group<S>>,
    totals: BTreeMap<S, u64>,
    /// Groups without series of their own.
    pub hidden: usize,
}

impl<G, S> Default for Family<G, S> {
    fn default() -> Self {
        Self {
            chosen: BTreeMap::new(),
            totals: BTreeMap::new(),
            hidden: 0,
        }
    }
}

impl<G: Ord + Copy, S: Ord + Copy> Family<G, S> {
    /// Of these groups, each with the beginning of its life, and `hidden` others.
    pub(super) fn of(chosen: &BTreeMap<G, u64>, hidden: usize) -> Self {
        let group = |born: &u64| Group {
            born: *born,
            rows: BTreeMap::new(),
        };
        Self {
            chosen: chosen
                .iter()
                .map(|(key, born)| (*key, group(born)))
                .collect(),
            totals: BTreeMap::new(),
            hidden,
        }
    }

    /// Counts for a group, or without a name.
    pub(super) fn add(&mut self, group: Option<G>, row: S, count: u64) {
        *self.totals.entry(row).or_default() += count;
        if let Some(group) = group.and_then(|group| self.chosen.get_mut(&group)) {
            *group.rows.entry(row).or_default() += count;
        }
    }
}

/// What was shown at the last scrape of every family made of the kernel's counters.
#[derive(Debug, Default)]
pub struct Shelves {
    connections: Shelf<Service, Decision>,
    syn_drops: Shelf<Service, DropCause>,
    outcomes: Shelf<Service, Outcome>,
    retransmits: Shelf<Service, Lost>,
    new_connections: Shelf<Place, ()>,
    stale: Shelf<Place, StaleCause>,
    stale_datagrams: Shelf<Place, ()>,
    stale_flows: Shelf<Place, ()>,
}

/// Families made of the kernel's counters, as one scrape shows them.
#[derive(Debug)]
pub struct Views {
    /// Attempts by service and decision.
    pub connections: View<Service, Decision>,
    /// Dead SYNs by service and cause.
    pub syn_drops: View<Service, DropCause>,
    /// Outcomes of stale attempts by service.
    pub outcomes: View<Service, Outcome>,
    /// Retransmitted SYNs by service and by where the one before was lost.
    pub retransmits: View<Service, Lost>,
    /// Attempts given to real servers.
    pub new_connections: View<Place, ()>,
    /// Attempts sent to stale real servers.
    pub stale: View<Place, StaleCause>,
    /// Datagrams to stale real servers.
    pub stale_datagrams: View<Place, ()>,
    /// Flows of datagrams to stale real servers.
    pub stale_flows: View<Place, ()>,
}

/// The kernel's counters by family.
#[derive(Debug, Default)]
pub struct Families {
    reading: u64,
    connections: Family<Service, Decision>,
    syn_drops: Family<Service, DropCause>,
    outcomes: Family<Service, Outcome>,
    retransmits: Family<Service, Lost>,
    new_connections: Family<Place, ()>,
    stale: Family<Place, StaleCause>,
    stale_datagrams: Family<Place, ()>,
    stale_flows: Family<Place, ()>,
    /// Services without series of their own that are not gone.
    pub services_hidden: usize,
    /// Real servers without series of their own that are not gone.
    pub real_servers_hidden: usize,
    /// Counts under keys that make no sense.
    pub malformed: u64,
    /// Network namespaces of known services, those without series of their own included.
    pub netns: BTreeSet<NetnsId>,
}

impl Families {
    /// Arranges what the kernel counted; what `shelves` show already is preferred to its equals.
    #[must_use]
    pub fn of(counts: &Counts, shelves: &Shelves) -> Self {
        let Ranks {
            services,
            real_servers,
            unknown,
        } = Ranks::of(counts, shelves);
        let netns = services.iter().map(|rank| rank.group.netns).collect();
        let (services, services_hidden) = choose(services, SERVICES_MAX, SERVICES_MAX_OF_MANY);
        let (real_servers, hidden) = choose(real_servers, SERIES_MAX, SERIES_MAX_OF_MANY);
        let of_datagrams = real_servers
            .iter()
            .filter(|((service, _), _)| takes_datagrams(service));
        let of_datagrams: BTreeMap<Place, u64> =
            of_datagrams.map(|(place, born)| (*place, *born)).collect();
        let mut families = Self {
            reading: counts.reading,
            connections: Family::of(&services, services_hidden),
            syn_drops: Family::of(&with(&services, unknown), services_hidden),
            outcomes: Family::of(&services, services_hidden),
            retransmits: Family::of(&services, services_hidden),
            new_connections: Family::of(&real_servers, hidden),
            stale: Family::of(&real_servers, hidden),
            stale_datagrams: Family::of(&of_datagrams, 0),
            stale_flows: Family::of(&of_datagrams, 0),
            services_hidden,
            real_servers_hidden: hidden,
            malformed: 0,
            netns,
        };
        for count in &counts.all {
            if families.add(&count.key, count.total).is_none() {
                families.malformed += count.total;
            }
        }
        families
    }

    /// What a scrape at `at` (Unix seconds) shows after what `shelves` showed before.
    pub fn show(&self, at: u64, shelves: &mut Shelves) -> Views {
        let reading = Reading {
            number: self.reading,
            at,
        };
        Views {
            connections: on(
                &mut shelves.connections,
                reading,
                Decision::ALL,
                &self.connections,
            ),
            syn_drops: on(
                &mut shelves.syn_drops,
                reading,
                DropCause::ALL,
                &self.syn_drops,
            ),
            outcomes: on(&mut shelves.outcomes, reading, Outcome::ALL, &self.outcomes),
            retransmits: on(
                &mut shelves.retransmits,
                reading,
                Lost::ALL,
                &self.retransmits,
            ),
            new_connections: on(
                &mut shelves.new_connections,
                reading,
                &[()],
                &self.new_connections,
            ),
            stale: on(&mut shelves.stale, reading, StaleCause::ALL, &self.stale),
            stale_datagrams: on(
                &mut shelves.stale_datagrams,
                reading,
                &[()],
                &self.stale_datagrams,
            ),
            stale_flows: on(&mut shelves.stale_flows, reading, &[()], &self.stale_flows),
        }
    }

    fn add(&mut self, key: &CountKey, count: u64) -> Option<()> {
        let (service, server) = names(key)?;
        let place = service.zip(server);
        match key.tally {
            TALLY_ATTEMPT => {
                let verdict = decode::verdict(key.decision, key.cause).ok()?;
                self.connections.add(service, verdict.decision(), count);
                if let Verdict::ReusedStale(cause) = verdict {
                    self.stale.add(place, cause, count);
                }
                if !matches!(verdict, Verdict::Dropped(_)) {
                    self.new_connections.add(place, (), count);
                }
            }
            TALLY_SYN_DROP => {
                let cause = DropCause::try_from(key.cause).ok()?;
                self.syn_drops.add(service, cause, count);
            }
            TALLY_OUTCOME => {
                let outcome = Outcome::try_from(key.cause).ok()?;
                self.outcomes.add(service, outcome, count);
            }
            TALLY_RETRANSMIT => {
                let lost = Lost::try_from(key.cause).ok()?;
                self.retransmits.add(service, lost, count);
            }
            TALLY_STALE_DATAGRAM => self.stale_datagrams.add(place, (), count),
            TALLY_STALE_FLOW => self.stale_flows.add(place, (), count),
            _ => return None,
        }
        Some(())
    }
}

pub(super) fn on<G: Ord + Copy, S: Ord + Copy>(
    shelf: &mut Shelf<G, S>,
    reading: Reading,
    all: &[S],
    family: &Family<G, S>,
) -> View<G, S> {
    shelf.show(reading, all, &family.chosen, &family.totals)
}

/// The service and the real server of a key, where each has a name. All dead SYNs of unknown
/// services are of one, wherever they died.
fn names(key: &CountKey) -> Option<(Option<Service>, Option<RealServer>)> {
    let service = match key.service {
        ServiceKey::REST => None,
        ref named => Some(known_or_one(decode::service(named).ok()?)),
    };
    let server = match key.real_server {
        RealServerKey::REST => None,
        ref named => decode::real_server(named).ok()?,
    };
    Some((service, server))
}

/// How much a service or real server is in need of series of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rank<G> {
    pub group: G,
    /// 3: a fault counted recently; 2: draining; 1: listed; 0: gone. See [`choose`].
    pub class: u8,
    /// Whether it was shown before: what is shown changes as little as can be.
    pub shown: bool,
    pub count: u64,
    pub born: u64,
}

impl<G> Rank<G> {
    fn add(&mut self, count: &Count, class: u8) {
        self.class = self.class.max(class);
        self.count = self.count.saturating_add(count.total);
        self.born = self.born.min(count.born);
    }
}

/// Ranks of every known service and real server.
#[derive(Debug, Default)]
struct Ranks {
    services: Vec<Rank<Service>>,
    real_servers: Vec<Rank<Place>>,
    /// Dead SYNs of no known service.
    unknown: Option<(Service, u64)>,
}

impl Ranks {
    fn of(counts: &Counts, shelves: &Shelves) -> Self {
        let mut ranks = Self::default();
        for count in &counts.all {
            let Some((Some(service), server)) = names(&count.key) else {
                continue;
            };
            if !service.is_known() {
                let born = ranks
                    .unknown
                    .map_or(count.born, |(_, born)| born.min(count.born));
                ranks.unknown = Some((service, born));
                continue;
            }
            let class = class(count, counts);
            let shown = |group: &Service| shelves.connections.shows(group);
            rank(&mut ranks.services, service, shown, count, class);
            if let Some(server) = server {
                let shown = |group: &Place| shelves.new_connections.shows(group);
                rank(
                    &mut ranks.real_servers,
                    (service, server),
                    shown,
                    count,
                    class,
                );
            }
        }
        ranks
    }
}

fn with(services: &BTreeMap<Service, u64>, more: Option<(Service, u64)>) -> BTreeMap<Service, u64> {
    services
        .iter()
        .map(|(service, born)| (*service, *born))
        .chain(more)
        .collect()
}

fn takes_datagrams(service: &Service) -> bool {
    match service.name {
        ServiceName::Address { proto, .. } => proto == Proto::Udp,
        ServiceName::Fwmark { .. } => true,
        ServiceName::Unknown => false,
    }
}

/// Adds a count to the rank of its group, which is the last one: counts come in order.
fn rank<G: PartialEq + Copy>(
    ranks: &mut Vec<Rank<G>>,
    group: G,
    shown: impl Fn(&G) -> bool,
    count: &Count,
    class: u8,
) {
    match ranks.last_mut() {
        Some(last) if last.group == group => last.add(count, class),
        _ => ranks.push(Rank {
            group,
            class,
            shown: shown(&group),
            count: count.total,
            born: count.born,
        }),
    }
}

fn class(count: &Count, counts: &Counts) -> u8 {
    let fault = match count.key.tally {
        TALLY_ATTEMPT => {
            [Decision::ReusedStale as u8, Decision::Dropped as u8].contains(&count.key.decision)
        }
        TALLY_SYN_DROP | TALLY_STALE_DATAGRAM => true,
        _ => false,
    };
    if fault && count.total > 0 && counts.at.since(count.changed) <= RECENT {
        return 3;
    }
    match count.presence {
        Presence::Draining => 2,
        Presence::Listed | Presence::Unknown => 1,
        Presence::Absent => 0,
    }
}

/// The highest ranks, each with the beginning of its life, and how many others there are that are
/// not gone.
pub(super) fn choose<G: Ord + Copy>(
    mut ranks: Vec<Rank<G>>,
    few: usize,
    of_many: usize,
) -> (BTreeMap<G, u64>, usize) {
    // Those that are gone neither take the place of others nor make the agent show fewer.
    let alive = ranks.iter().filter(|rank| rank.class > 0).count();
    let room = if ranks.len() <= few {
        few
    } else if alive <= few {
        alive.max(of_many)
    } else {
        of_many
    };
    let hidden = alive.saturating_sub(room);
    if ranks.len() > room {
        let order = |rank: &Rank<G>| (Reverse((rank.class, rank.shown, rank.count)), rank.group);
        ranks.select_nth_unstable_by_key(room, order);
        ranks.truncate(room);
    }
    let chosen = ranks.into_iter().map(|rank| (rank.group, rank.born));
    (chosen.collect(), hidden)
}

fn known_or_one(service: Service) -> Service {
    if service.is_known() {
        return service;
    }
    Service {
        netns: NetnsId::default(),
        ..service
    }
}
