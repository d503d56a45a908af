//! What differs between two readings of one table.
//!
//! PURE. The kernel reports weights and removals by itself, exactly; this is the rest, and what
//! was missed: seen when it is read, and not at all when it was undone before.

use std::cmp::Ordering;
use std::fmt;

use super::{RealServerRow, ServiceRow, Snapshot};
use crate::clock::MonoNs;
use crate::event::{RealServer, Service};

/// Differences that wait to be reported: a table that was written again is one event to people. The rest
/// is counted only.
pub const DIFFERENCES_MAX: usize = 1_000;

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A service is there that was not.
    ServiceAdded,
    /// A service is no longer there.
    ServiceRemoved,
    /// Scheduler, flags, persistence or netmask of a service.
    ServiceChanged,
    /// A real server is there that was not; those of a new service too.
    RealServerAdded,
    /// A real server is no longer there; those of a removed service too.
    RealServerRemoved,
    /// Forwarding method, weight or thresholds of a real server.
    RealServerChanged,
}

impl Change {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::ServiceAdded,
        Self::ServiceRemoved,
        Self::ServiceChanged,
        Self::RealServerAdded,
        Self::RealServerRemoved,
        Self::RealServerChanged,
    ];

    /// The value of the label `change`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServiceAdded => "service_added",
            Self::ServiceRemoved => "service_removed",
            Self::ServiceChanged => "service_changed",
            Self::RealServerAdded => "real_server_added",
            Self::RealServerRemoved => "real_server_removed",
            Self::RealServerChanged => "real_server_changed",
        }
    }
}

/// One difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// When it was read.
    pub at: MonoNs,
    /// What.
    pub change: Change,
    /// Of which service.
    pub service: Service,
    /// Of which real server; `None` when the service itself changed.
    pub real_server: Option<RealServer>,
    /// Weight before and after; `None` where there is none.
    pub weights: (Option<u32>, Option<u32>),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.change.as_str().replace('_', " ");
        match self.real_server {
            Some(server) => write!(f, "{what}: {server} of {}", self.service)?,
            None => write!(f, "{what}: {}", self.service)?,
        }
        match self.weights {
            (Some(before), Some(after)) if before != after => {
                write!(f, ", weight {before} to {after}")
            }
            (None, Some(weight)) | (Some(weight), None) => write!(f, ", weight {weight}"),
            _ => Ok(()),
        }
    }
}

/// Passes every difference to `report`, in the order of the tables.
pub fn between(before: &Snapshot, after: &Snapshot, report: &mut impl FnMut(Difference)) {
    let at = after.taken_at;
    pairs(
        &before.services,
        &after.services,
        |row| row.service,
        &mut |old, new| services(at, old, new, report),
    );
}

fn services(
    at: MonoNs,
    old: Option<&ServiceRow>,
    new: Option<&ServiceRow>,
    report: &mut impl FnMut(Difference),
) {
    let Some(service) = new.or(old).map(|row| row.service) else {
        return;
    };
    let change = match (old, new) {
        (None, _) => Some(Change::ServiceAdded),
        (_, None) => Some(Change::ServiceRemoved),
        (Some(old), Some(new)) => is_other_service(old, new).then_some(Change::ServiceChanged),
    };
    if let Some(change) = change {
        report(Difference {
            at,
            change,
            service,
            real_server: None,
            weights: (None, None),
        });
    }
    pairs(
        rows_of(old),
        rows_of(new),
        |row| row.real_server,
        &mut |old, new| real_servers(at, service, old, new, report),
    );
}

fn rows_of(service: Option<&ServiceRow>) -> &[RealServerRow] {
    service.map_or(&[], |row| &row.real_servers)
}

fn real_servers(
    at: MonoNs,
    service: Service,
    old: Option<&RealServerRow>,
    new: Option<&RealServerRow>,
    report: &mut impl FnMut(Difference),
) {
    let change = match (old, new) {
        (None, _) => Change::RealServerAdded,
        (_, None) => Change::RealServerRemoved,
        (Some(old), Some(new)) if is_other_real_server(old, new) => Change::RealServerChanged,
        _ => return,
    };
    let weight = |row: Option<&RealServerRow>| row.map(|row| row.weight);
    report(Difference {
        at,
        change,
        service,
        real_server: new.or(old).map(|row| row.real_server),
        weights: (weight(old), weight(new)),
    });
}

/// As it is configured; connections come and go.
fn is_other_service(old: &ServiceRow, new: &ServiceRow) -> bool {
    old.scheduler != new.scheduler
        || old.flags != new.flags
        || old.persistence != new.persistence
        || old.netmask != new.netmask
}

fn is_other_real_server(old: &RealServerRow, new: &RealServerRow) -> bool {
    old.weight != new.weight
        || old.forwarding != new.forwarding
        || old.upper_threshold != new.upper_threshold
        || old.lower_threshold != new.lower_threshold
}

/// Goes through two ordered lists side by side: what both have comes as a pair.
fn pairs<'a, T, K: Ord>(
    before: &'a [T],
    after: &'a [T],
    key: impl Fn(&T) -> K,
    each: &mut impl FnMut(Option<&'a T>, Option<&'a T>),
) {
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => key(old).cmp(&key(new)),
        };
        match order {
            Ordering::Less => each(before.next(), None),
            Ordering::Greater => each(None, after.next()),
            Ordering::Equal => each(before.next(), after.next()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Proto, ServiceName};
    use crate::table::{Forwarding, ServiceFlags};
    use crate::testing::sample_service;

    fn server(number: u8) -> RealServer {
        RealServer(([10, 1, number, 2], 8080).into())
    }

    fn service(port: u16) -> Service {
        Service {
            name: ServiceName::Address {
                proto: Proto::Tcp,
                local: ([10, 96, 0, 10], port).into(),
            },
            ..sample_service()
        }
    }

    fn row(port: u16, scheduler: &str, weights: &[(u8, u32)]) -> ServiceRow {
        let rows = weights.iter().map(|(number, weight)| RealServerRow {
            real_server: server(*number),
            forwarding: Forwarding::Masquerade,
            weight: *weight,
            active: 0,
            inactive: 0,
            persistent: 0,
            upper_threshold: 0,
            lower_threshold: 0,
        });
        let row = ServiceRow {
            service: service(port),
            scheduler: scheduler.into(),
            flags: ServiceFlags(2),
            persistence: Duration::ZERO,
            netmask: u32::MAX,
            real_servers: Vec::new(),
        };
        row.with_real_servers(rows.collect())
    }

    fn table(seconds: u64, rows: Vec<ServiceRow>) -> Snapshot {
        let at = MonoNs(seconds * 1_000_000_000);
        Snapshot::new(at, Duration::ZERO, sample_service().netns, rows)
    }

    fn differences(before: &Snapshot, after: &Snapshot) -> Vec<Difference> {
        let mut all = Vec::new();
        between(before, after, &mut |difference| all.push(difference));
        all
    }

    fn lines(before: &Snapshot, after: &Snapshot) -> Vec<String> {
        differences(before, after)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn every_kind_is_told_where_it_is() {
        let before = table(
            1,
            vec![
                row(80, "rr", &[(1, 1), (2, 1), (3, 5)]),
                row(81, "rr", &[(1, 2)]),
                row(82, "rr", &[]),
            ],
        );
        let after = table(
            6,
            vec![
                row(80, "rr", &[(1, 1), (3, 0), (4, 7)]),
                row(82, "wrr", &[]),
                row(83, "rr", &[(1, 3)]),
            ],
        );
        assert_eq!(
            lines(&before, &after),
            [
                "real server removed: 10.1.2.2:8080 of TCP 10.96.0.10:80, weight 1",
                "real server changed: 10.1.3.2:8080 of TCP 10.96.0.10:80, weight 5 to 0",
                "real server added: 10.1.4.2:8080 of TCP 10.96.0.10:80, weight 7",
                "service removed: TCP 10.96.0.10:81",
                "real server removed: 10.1.1.2:8080 of TCP 10.96.0.10:81, weight 2",
                "service changed: TCP 10.96.0.10:82",
                "service added: TCP 10.96.0.10:83",
                "real server added: 10.1.1.2:8080 of TCP 10.96.0.10:83, weight 3",
            ]
        );
        assert!(
            differences(&before, &after)
                .iter()
                .all(|it| it.at == after.taken_at)
        );
    }

    #[test]
    fn connections_are_no_change() {
        let before = table(1, vec![row(80, "rr", &[(1, 1)])]);
        let mut busy = row(80, "rr", &[(1, 1)]);
        busy.real_servers[0].active = 9;
        busy.real_servers[0].inactive = 4;
        assert_eq!(lines(&before, &table(2, vec![busy])), [""; 0]);
    }

    proptest! {
        #[test]
        fn what_comes_and_goes_adds_up(
            before in btree_map(80_u16..90, btree_map(0_u8..6, 0_u32..3, 0..6), 0..10),
            after in btree_map(80_u16..90, btree_map(0_u8..6, 0_u32..3, 0..6), 0..10),
        ) {
            let build = |seconds, services: &std::collections::BTreeMap<u16, std::collections::BTreeMap<u8, u32>>| {
                let rows = services.iter().map(|(port, servers)| {
                    let weights: Vec<_> = servers.iter().map(|(n, weight)| (*n, *weight)).collect();
                    row(*port, "rr", &weights)
                });
                table(seconds, rows.collect())
            };
            let (old, new) = (build(1, &before), build(2, &after));
            let found = differences(&old, &new);
            let count = |change| found.iter().filter(|it| it.change == change).count();
            prop_assert_eq!(
                old.services.len() + count(Change::ServiceAdded),
                new.services.len() + count(Change::ServiceRemoved)
            );
            prop_assert_eq!(
                old.real_servers().count() + count(Change::RealServerAdded),
                new.real_servers().count() + count(Change::RealServerRemoved)
            );
            let moved = new.real_servers().filter(|(service, row)| {
                old.real_server(&service.service, &row.real_server)
                    .is_some_and(|before| before.weight != row.weight)
            });
            prop_assert_eq!(moved.count(), count(Change::RealServerChanged));
            prop_assert_eq!(count(Change::ServiceChanged), 0);
        }
    }
}
