//! The metrics of the IPVS table: a few hundred series, also where 100,000 real servers are.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::families::{SERIES_MAX_OF_MANY, SERVICES_MAX, SERVICES_MAX_OF_MANY};
use super::labels::and;
use super::names::{self, Metric};
use super::sample::{Page, Part, Sample, Samples};
use crate::clock::{MonoNs, WallAnchor};
use crate::event::{NetnsId, RealServer, Service};
use crate::settings::RealServers;
use crate::table::changes::Change;
use crate::table::draining::Holder;
use crate::table::tables::{Member, Tables, Totals};

/// One real server's series.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Row {
    service: Service,
    real_server: RealServer,
    weight: u32,
    active: u32,
    inactive: u32,
}

/// One draining real server's series.
#[derive(Clone, Copy, Debug, PartialEq)]
struct DrainRow {
    service: Service,
    real_server: RealServer,
    since: SystemTime,
    holder: Holder,
}

/// One service's series.
#[derive(Clone, Copy, Debug, PartialEq)]
struct SpreadRow {
    service: Service,
    starved: usize,
    near_reuse: usize,
    by_scheduler: f64,
    by_reuse: f64,
}

/// What one scrape shows of the tables.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    netns: BTreeSet<NetnsId>,
    totals: Totals,
    read_in: Duration,
    read: bool,
    changed: Vec<(Change, u64)>,
    rows: Vec<Row>,
    rows_refused: usize,
    drains: Vec<DrainRow>,
    drains_refused: usize,
    spreads: Vec<SpreadRow>,
    spreads_refused: usize,
}

impl Shown {
    /// What there is to show of `tables` at `now`: the most abnormal first, no more than the cap.
    #[must_use]
    pub fn of(tables: &Tables, which: RealServers, now: MonoNs, clocks: &WallAnchor) -> Self {
        let (rows, rows_refused) = rows(tables, which);
        let (drains, drains_refused) = drains(tables, which, now, clocks);
        let (spreads, spreads_refused) = spreads(tables);
        let totals = tables.totals();
        let populated = totals.iter().filter(|(_, totals)| totals.services > 0);
        Self {
            netns: populated.map(|(netns, _)| *netns).collect(),
            totals: totals.into_values().fold(Totals::default(), Totals::and),
            read_in: tables.snapshots().map(|snapshot| snapshot.took).sum(),
            read: tables.snapshots().next().is_some(),
            changed: Change::ALL
                .map(|change| (change, tables.changed(change)))
                .into(),
            rows,
            rows_refused,
            drains,
            drains_refused,
            spreads,
            spreads_refused,
        }
    }
}

/// Real servers of the family with two series each.
const ROWS_MAX: usize = 500;

/// As many of `all` as have series of their own.
const fn room(all: usize, few: usize, of_many: usize) -> usize {
    if all <= few { few } else { of_many }
}

fn rows(tables: &Tables, which: RealServers) -> (Vec<Row>, usize) {
    let mut chosen: Vec<_> = tables
        .members()
        .filter(|member| match which {
            RealServers::All => true,
            RealServers::Abnormal => member.is_abnormal(),
            RealServers::None => false,
        })
        .map(|member| (Reverse(rank(&member)), row(&member)))
        .collect();
    let room = room(chosen.len(), ROWS_MAX, SERIES_MAX_OF_MANY);
    let refused = chosen.len().saturating_sub(room);
    if refused > 0 {
        chosen.sort_by_key(|(rank, row)| (*rank, row.service, row.real_server));
        chosen.truncate(room);
    }
    (chosen.into_iter().map(|(_, row)| row).collect(), refused)
}

/// Draining with connections, starved, draining without, full, ordinary; then the busiest.
fn rank(member: &Member<'_>) -> (u8, u64) {
    let connections = member.row.connections();
    let class = if member.row.is_draining() && connections > 0 {
        4
    } else if member.starved {
        3
    } else if member.row.is_draining() {
        2
    } else {
        u8::from(member.is_overloaded())
    };
    (class, connections)
}

fn row(member: &Member<'_>) -> Row {
    Row {
        service: member.service.service,
        real_server: member.row.real_server,
        weight: member.row.weight,
        active: member.row.active,
        inactive: member.row.inactive,
    }
}

fn drains(
    tables: &Tables,
    which: RealServers,
    now: MonoNs,
    clocks: &WallAnchor,
) -> (Vec<DrainRow>, usize) {
    if which == RealServers::None {
        return (Vec::new(), 0);
    }
    let draining = tables.members().filter_map(|member| {
        let drain = member.drain?;
        let row = DrainRow {
            service: member.service.service,
            real_server: member.row.real_server,
            since: clocks.wall(drain.timeline.since),
            holder: drain.holder(now),
        };
        Some((Reverse(rank(&member)), row))
    });
    let mut chosen: Vec<_> = draining.collect();
    let room = room(chosen.len(), ROWS_MAX, SERIES_MAX_OF_MANY);
    let refused = chosen.len().saturating_sub(room);
    if refused > 0 {
        chosen.sort_by_key(|(rank, row)| (*rank, row.service, row.real_server));
        chosen.truncate(room);
    }
    (chosen.into_iter().map(|(_, row)| row).collect(), refused)
}

/// Services of the family with two series each, the worst first.
fn spreads(tables: &Tables) -> (Vec<SpreadRow>, usize) {
    let mut chosen: Vec<SpreadRow> = tables
        .spreads()
        .iter()
        .map(|(service, spread)| SpreadRow {
            service: *service,
            starved: spread.starved.len(),
            near_reuse: tables.near_reuse(service),
            by_scheduler: spread.misplaced_by_scheduler,
            by_reuse: spread.misplaced_by_reuse,
        })
        .collect();
    let room = room(chosen.len(), SERVICES_MAX, SERVICES_MAX_OF_MANY);
    let refused = chosen.len().saturating_sub(room);
    if refused > 0 {
        let worst = |row: &SpreadRow| row.by_scheduler + row.by_reuse;
        chosen.sort_by(|a, b| {
            let reported = |row: &SpreadRow| row.starved + row.near_reuse;
            let most = reported(b).cmp(&reported(a));
            most.then(worst(b).total_cmp(&worst(a)))
        });
        chosen.truncate(room);
    }
    (chosen, refused)
}

/// The part of the exposition that shows the tables.
#[derive(Debug, Default)]
pub struct TablePart(Mutex<Arc<Shown>>);

impl TablePart {
    /// Shows this from the next scrape on.
    pub fn set(&self, shown: Shown) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(shown);
    }

    fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Part for TablePart {
    fn netns(&self) -> BTreeSet<NetnsId> {
        self.shown().netns.clone()
    }

    fn show(&self, page: &mut Page) {
        let shown = self.shown();
        show_totals(page, &shown);
        show_real_servers(page, &shown);
        show_spreads(page, &shown);
    }
}

fn show_totals(page: &mut Page, shown: &Shown) {
    // No number is better than a 0 that was never read.
    if !shown.read {
        return;
    }
    let totals = shown.totals;
    page.put_one(names::SERVICES, gauge(totals.services));
    let states = [
        ("available", totals.available),
        ("draining", totals.draining),
    ];
    let states = states.map(|(state, count)| (vec![("state", state.to_owned())], gauge(count)));
    page.put(names::REAL_SERVERS, states.into());
    let without = gauge(totals.without_real_server);
    page.put_one(names::SERVICES_WITHOUT_REAL_SERVER, without);
    let read_in = Sample::Gauge(shown.read_in.as_secs_f64());
    page.put_one(names::TABLE_READ, read_in);
    let changed = shown.changed.iter().map(|(change, count)| {
        let labels = vec![("change", change.as_str().to_owned())];
        (labels, Sample::Counter(*count, None))
    });
    page.put(names::TABLE_CHANGES, changed.collect());
}

fn show_real_servers(page: &mut Page, shown: &Shown) {
    let of = |page: &Page, row: &Row| page.real_server(&row.service, Some(row.real_server));
    let weights: Samples = shown
        .rows
        .iter()
        .map(|row| (of(page, row), Sample::Gauge(row.weight.into())))
        .collect();
    let connections: Samples = shown
        .rows
        .iter()
        .flat_map(|row| {
            let labels = of(page, row);
            [("active", row.active), ("inactive", row.inactive)].map(|(state, count)| {
                (
                    and(labels.clone(), "state", state),
                    Sample::Gauge(count.into()),
                )
            })
        })
        .collect();
    put(page, names::REAL_SERVER_WEIGHT, weights, shown.rows_refused);
    let refused = shown.rows_refused * 2;
    put(page, names::REAL_SERVER_CONNECTIONS, connections, refused);
    let of = |page: &Page, row: &DrainRow| page.real_server(&row.service, Some(row.real_server));
    let since: Samples = shown
        .drains
        .iter()
        .map(|row| (of(page, row), Sample::Gauge(unix_seconds(row.since))))
        .collect();
    let holders: Samples = shown
        .drains
        .iter()
        .map(|row| {
            let labels = and(of(page, row), "holder", row.holder.as_str());
            (labels, Sample::Gauge(1.0))
        })
        .collect();
    put(page, names::DRAINING_SINCE, since, shown.drains_refused);
    put(page, names::DRAINING_HOLDER, holders, shown.drains_refused);
}

fn show_spreads(page: &mut Page, shown: &Shown) {
    let starved: Samples = shown
        .spreads
        .iter()
        .map(|row| (page.service(&row.service), gauge(row.starved)))
        .collect();
    let skew: Samples = shown
        .spreads
        .iter()
        .flat_map(|row| {
            let labels = page.service(&row.service);
            [("scheduled", row.by_scheduler), ("reused", row.by_reuse)]
                .map(|(part, ratio)| (and(labels.clone(), "part", part), Sample::Gauge(ratio)))
        })
        .collect();
    let near_reuse: Samples = shown
        .spreads
        .iter()
        .map(|row| (page.service(&row.service), gauge(row.near_reuse)))
        .collect();
    put(page, names::STARVED, starved, shown.spreads_refused);
    let refused = shown.spreads_refused;
    put(page, names::CLIENTS_NEAR_PORT_REUSE, near_reuse, refused);
    put(page, names::SKEW, skew, shown.spreads_refused * 2);
}

fn put(page: &mut Page, family: Metric, samples: Samples, refused: usize) {
    page.put(family, samples);
    page.refuse(family, refused);
}

#[expect(
    clippy::cast_precision_loss,
    reason = "rows of a table, far below 2^52"
)]
const fn gauge(count: usize) -> Sample {
    Sample::Gauge(count as f64)
}

fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
