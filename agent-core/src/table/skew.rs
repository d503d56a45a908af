//! Whether new connections are spread as the weights ask, and if not, by whose doing.
//!
//! PURE. Counts new connections only: how many are open, and for how long, plays no part. What the
//! scheduler chose and what followed an old entry are kept apart, because only the first obeys
//! weights; `conn_reuse_mode=0` starves a new real server by the second.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::given::{Given, Place};
use super::{ServiceRow, Snapshot};
use crate::clock::MonoNs;
use crate::event::{RealServer, Service};

/// What shares are taken over: long enough for a rate, short enough to notice a rollout.
pub const WINDOW: Duration = Duration::from_secs(60);

/// What a window slides by.
const PIECE: Duration = Duration::from_secs(10);

/// New connections a service needs in a window before its spread is judged: below, chance rules.
pub const JUDGED_FROM: u64 = 100;

/// New connections a real server must have missed to be called starved. A fair choice misses one
/// that should get 20 once in 485 million times (e^-20).
pub const STARVED_FROM: f64 = 20.0;

/// Schedulers that choose by weight alone.
const BY_WEIGHT: [&str; 2] = ["rr", "wrr"];

/// Schedulers that choose by weight and open connections: one with more open gets fewer new ones,
/// as it should. The others (`sh`, `dh`, `mh`, `lblc`, `lblcr`, `fo`, `ovf`, `nq`) choose by
/// client or by order and owe no real server a share.
const BY_CONNECTIONS: [&str; 3] = ["lc", "wlc", "sed"];

/// How the new connections of one service are spread.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spread {
    /// New connections in the window.
    pub total: u64,
    /// Of them, those that followed an old entry.
    pub reused: u64,
    /// Share of all new connections that the scheduler gave to others than the weights ask.
    pub misplaced_by_scheduler: f64,
    /// The same for old entries.
    pub misplaced_by_reuse: f64,
    /// Real servers with a weight that should have got [`STARVED_FROM`] or more and got none.
    pub starved: Vec<RealServer>,
}

impl Spread {
    /// Share of new connections that followed an old entry; 0 without any.
    #[must_use]
    pub fn reuse_ratio(&self) -> f64 {
        if self.total == 0 {
            return 0.0;
        }
        number(self.reused) / number(self.total)
    }
}

/// One real server in one piece of time, or in the whole window.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    scheduled: u64,
    reused: u64,
    /// What the weights of the time asked of the scheduler's connections.
    due_scheduled: f64,
    /// The same of those that followed old entries.
    due_reused: f64,
}

impl Share {
    fn add(&mut self, other: &Self) {
        self.scheduled += other.scheduled;
        self.reused += other.reused;
        self.due_scheduled += other.due_scheduled;
        self.due_reused += other.due_reused;
    }
}

/// Everything given in one piece of the window. Only services that were given something.
#[derive(Debug)]
struct Piece {
    began: MonoNs,
    shares: BTreeMap<Place, Share>,
}

/// Shares over a sliding window.
#[derive(Debug, Default)]
pub struct Skew {
    pieces: VecDeque<Piece>,
}

impl Skew {
    /// What was given until `at`, under the weights of the last reading of the table.
    pub fn handle_given<'a>(
        &mut self,
        at: MonoNs,
        all: &BTreeMap<Place, Given>,
        row_of: impl Fn(&Service) -> Option<&'a ServiceRow>,
    ) {
        self.slide(at);
        let Some(piece) = self.pieces.back_mut() else {
            return;
        };
        let mut services: BTreeMap<Service, (u64, u64)> = BTreeMap::new();
        for ((service, server), given) in all {
            let scheduled = given.scheduled;
            let reused = given.old_entries() + given.stale_by_persistence;
            let share = piece.shares.entry((*service, *server)).or_default();
            share.scheduled += scheduled;
            share.reused += reused;
            let sums = services.entry(*service).or_default();
            (sums.0, sums.1) = (sums.0 + scheduled, sums.1 + reused);
        }
        for (service, (scheduled, reused)) in services {
            let Some(row) = row_of(&service) else {
                continue;
            };
            let weights = number(row.weight());
            for server in row.real_servers.iter().filter(|server| server.weight > 0) {
                let part = f64::from(server.weight) / weights;
                let share = piece
                    .shares
                    .entry((service, server.real_server))
                    .or_default();
                share.due_scheduled += part * number(scheduled);
                share.due_reused += part * number(reused);
            }
        }
    }

    /// New connections of every service of late: no fewer than those of the `last` part of the
    /// window, and up to a piece more.
    #[must_use]
    pub fn totals(&self, at: MonoNs, last: Duration) -> BTreeMap<Service, u64> {
        let mut totals = BTreeMap::new();
        let of_late = self
            .pieces
            .iter()
            .filter(|piece| at.since(piece.began) < last + PIECE);
        for ((service, _), share) in of_late.flat_map(|piece| &piece.shares) {
            *totals.entry(*service).or_default() += share.scheduled + share.reused;
        }
        totals
    }

    /// How every service of `snapshot` with enough new connections is spread.
    #[must_use]
    pub fn spreads(&self, snapshot: &Snapshot) -> BTreeMap<Service, Spread> {
        let mut window: BTreeMap<Place, Share> = BTreeMap::new();
        for (place, share) in self.pieces.iter().flat_map(|piece| &piece.shares) {
            if place.0.netns == snapshot.netns {
                window.entry(*place).or_default().add(share);
            }
        }
        let mut spreads: BTreeMap<Service, Spread> = BTreeMap::new();
        for ((service, _), share) in &window {
            let spread = spreads.entry(*service).or_default();
            spread.total += share.scheduled + share.reused;
            spread.reused += share.reused;
            // Half: what is too much in one place is missing in another.
            spread.misplaced_by_scheduler +=
                (number(share.scheduled) - share.due_scheduled).abs() / 2.0;
            spread.misplaced_by_reuse += (number(share.reused) - share.due_reused).abs() / 2.0;
        }
        spreads.retain(|service, spread| {
            let row = snapshot.service(service);
            let judged = row.is_some_and(|row| is_judged(&row.scheduler));
            if let Some(row) = row
                && judged
            {
                spread.starved = starved(row, &window);
            }
            if !judged {
                (spread.misplaced_by_scheduler, spread.misplaced_by_reuse) = (0.0, 0.0);
            }
            spread.misplaced_by_scheduler /= number(spread.total.max(1));
            spread.misplaced_by_reuse /= number(spread.total.max(1));
            row.is_some() && (spread.total >= JUDGED_FROM || !spread.starved.is_empty())
        });
        spreads
    }

    /// Begins a new piece when the last is full, and lets go of what left the window.
    fn slide(&mut self, at: MonoNs) {
        if self
            .pieces
            .back()
            .is_none_or(|last| at.since(last.began) >= PIECE)
        {
            self.pieces.push_back(Piece {
                began: at,
                shares: BTreeMap::new(),
            });
        }
        while self
            .pieces
            .front()
            .is_some_and(|first| at.since(first.began) > WINDOW)
        {
            self.pieces.pop_front();
        }
    }
}

fn is_judged(scheduler: &str) -> bool {
    BY_WEIGHT.contains(&scheduler) || BY_CONNECTIONS.contains(&scheduler)
}

fn starved(row: &ServiceRow, window: &BTreeMap<Place, Share>) -> Vec<RealServer> {
    let by_connections = BY_CONNECTIONS.contains(&&*row.scheduler);
    row.real_servers
        .iter()
        .filter(|server| server.weight > 0)
        .filter(|server| {
            let share = window.get(&(row.service, server.real_server));
            share.is_some_and(|share| {
                share.scheduled + share.reused == 0
                    && share.due_scheduled + share.due_reused >= STARVED_FROM
            })
        })
        // One that has its share of open connections is not owed new ones.
        .filter(|server| !by_connections || owes(row, server.real_server))
        .map(|server| server.real_server)
        .collect()
}

/// Whether a real server has fewer open connections than its weight asks.
fn owes(row: &ServiceRow, server: RealServer) -> bool {
    let open: u64 = row
        .real_servers
        .iter()
        .map(|row| u64::from(row.active))
        .sum();
    let Some(own) = row.real_server(&server) else {
        return false;
    };
    let due = number(open) * f64::from(own.weight) / number(row.weight().max(1));
    f64::from(own.active) < due
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of connections in a minute, sums of weights"
)]
const fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Forwarding, RealServerRow, ServiceFlags};
    use crate::testing::sample_service;

    fn server(n: usize) -> RealServer {
        RealServer(format!("10.1.{n}.2:8080").parse().unwrap())
    }

    /// A service with these weights and open connections.
    fn table(scheduler: &str, servers: &[(u32, u32)]) -> Snapshot {
        let rows = servers
            .iter()
            .enumerate()
            .map(|(n, (weight, active))| RealServerRow {
                real_server: server(n),
                forwarding: Forwarding::Masquerade,
                weight: *weight,
                active: *active,
                inactive: 0,
                persistent: 0,
                upper_threshold: 0,
                lower_threshold: 0,
            });
        let row = ServiceRow {
            service: sample_service(),
            scheduler: scheduler.into(),
            flags: ServiceFlags(2),
            persistence: Duration::ZERO,
            netmask: u32::MAX,
            real_servers: rows.collect(),
        };
        let netns = sample_service().netns;
        Snapshot::new(MonoNs(1), Duration::ZERO, netns, vec![row])
    }

    /// What each real server got, as (scheduled, reused).
    fn spread(snapshot: &Snapshot, got: &[(u64, u64)]) -> Option<Spread> {
        let mut skew = Skew::default();
        give(&mut skew, 1, snapshot, got);
        skew.spreads(snapshot).remove(&sample_service())
    }

    fn give(skew: &mut Skew, seconds: u64, snapshot: &Snapshot, got: &[(u64, u64)]) {
        let given = got.iter().enumerate().map(|(n, (scheduled, reused))| {
            let given = Given {
                scheduled: *scheduled,
                reused: *reused,
                ..Given::default()
            };
            ((sample_service(), server(n)), given)
        });
        let at = MonoNs(seconds * 1_000_000_000);
        skew.handle_given(at, &given.collect(), |service| snapshot.service(service));
    }

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-9, "{found}, want {wanted}");
    }

    #[test]
    fn what_follows_the_weights_is_no_skew() {
        let even = spread(&table("rr", &[(1, 0), (3, 0)]), &[(25, 10), (75, 30)]).unwrap();
        near(even.misplaced_by_scheduler, 0.0);
        near(even.misplaced_by_reuse, 0.0);
        near(even.reuse_ratio(), 40.0 / 140.0);
        assert_eq!((even.total, even.starved.len()), (140, 0));
    }

    #[test]
    fn reuse_starves_a_new_real_server_and_is_named_as_the_cause() {
        let snapshot = table("rr", &[(1, 0), (1, 0), (1, 0)]);
        let skewed = spread(&snapshot, &[(0, 60), (0, 60)]).unwrap();
        assert_eq!(skewed.starved, [server(2)]);
        near(skewed.misplaced_by_scheduler, 0.0);
        // A third of all connections was owed to the third server.
        near(skewed.misplaced_by_reuse, 1.0 / 3.0);
    }

    #[test]
    fn the_scheduler_is_blamed_for_its_own_choices_only() {
        let snapshot = table("wrr", &[(1, 0), (1, 0)]);
        let skewed = spread(&snapshot, &[(100, 50), (0, 50)]).unwrap();
        near(skewed.misplaced_by_scheduler, 50.0 / 200.0);
        near(skewed.misplaced_by_reuse, 0.0);
        assert_eq!(skewed.starved, []);
    }

    #[test]
    fn open_connections_are_no_skew() {
        // One holds a thousand connections for hours; new ones are spread evenly.
        let rr = spread(&table("rr", &[(1, 1000), (1, 0)]), &[(60, 0), (60, 0)]).unwrap();
        near(rr.misplaced_by_scheduler, 0.0);
        // A scheduler that counts them gives it none, and owes it none.
        let wlc = spread(&table("wlc", &[(1, 1000), (1, 0)]), &[(0, 0), (120, 0)]).unwrap();
        assert_eq!(wlc.starved, []);
        // It does owe one that holds nothing.
        let wlc = spread(&table("wlc", &[(1, 0), (1, 10)]), &[(0, 0), (120, 0)]).unwrap();
        assert_eq!(wlc.starved, [server(0)]);
    }

    #[test]
    fn nobody_is_owed_a_share_by_a_scheduler_of_clients() {
        let sh = spread(&table("sh", &[(1, 0), (1, 0)]), &[(200, 0), (0, 0)]).unwrap();
        near(sh.misplaced_by_scheduler, 0.0);
        assert_eq!(sh.starved, []);
    }

    #[test]
    fn few_connections_are_not_judged() {
        let snapshot = table("rr", &[(1, 0), (1, 0)]);
        assert_eq!(spread(&snapshot, &[(39, 0), (0, 0)]), None);
        // But that many missing in one place are no chance.
        assert_eq!(spread(&snapshot, &[(40, 0)]).unwrap().starved, [server(1)]);
    }

    #[test]
    fn weights_count_as_they_were() {
        let mut skew = Skew::default();
        // A real server that drained while others got connections missed none.
        give(&mut skew, 1, &table("rr", &[(1, 0), (0, 0)]), &[(100, 0)]);
        let now = table("rr", &[(1, 0), (1, 0)]);
        give(&mut skew, 12, &now, &[(10, 0)]);
        let spread = &skew.spreads(&now)[&sample_service()];
        assert_eq!(spread.starved, []);
        near(spread.misplaced_by_scheduler, 5.0 / 110.0);
    }

    #[test]
    fn the_window_forgets() {
        let mut skew = Skew::default();
        let snapshot = table("rr", &[(1, 0), (1, 0)]);
        give(&mut skew, 1, &snapshot, &[(200, 0)]);
        give(&mut skew, 62, &snapshot, &[(50, 0), (50, 0)]);
        let spread = &skew.spreads(&snapshot)[&sample_service()];
        near(spread.misplaced_by_scheduler, 0.0);
        assert_eq!(spread.total, 100);
    }
}
