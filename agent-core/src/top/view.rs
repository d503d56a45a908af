//! The table as rows to show: chosen, sorted, and put into columns.
//!
//! PURE. The same rows are drawn on a terminal and printed by `--once`.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::clock::{MonoNs, WallAnchor};
use crate::event::{NetnsId, Service};
use crate::table::Forwarding;
use crate::table::draining::{Holder, TimeSource};
use crate::table::tables::{Member, Rates, Tables};

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortBy {
    /// As `ipvsadm -Ln` would.
    #[default]
    Name,
    /// Active connections.
    Active,
    /// New connections per second, by whatever way.
    New,
    /// Stale connections per second.
    Stale,
    /// How long it has been draining.
    Draining,
}

impl SortBy {
    /// Every member, in the order of the key `s`.
    pub const ALL: &'static [Self] = &[
        Self::Name,
        Self::Active,
        Self::New,
        Self::Stale,
        Self::Draining,
    ];

    /// The word on the command line and on the screen.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Active => "active",
            Self::New => "new",
            Self::Stale => "stale",
            Self::Draining => "draining",
        }
    }

    /// The member after this one, and after the last the first.
    #[must_use]
    pub fn next(self) -> Self {
        let after = Self::ALL
            .iter()
            .skip_while(|member| **member != self)
            .nth(1);
        after.copied().unwrap_or_default()
    }
}

/// Which rows are shown, and in which order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// What they are sorted by; the largest first, names from the first letter on.
    pub sort: SortBy,
    /// The other way round.
    pub reverse: bool,
    /// Only those whose service's or own name contains this.
    pub filter: String,
    /// Only those that drain, starve or are full.
    pub abnormal_only: bool,
}

/// One real server as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Row {
    /// Network namespace.
    pub netns: NetnsId,
    /// As node_exporter prints it.
    pub proto: &'static str,
    /// Virtual address; empty with a mark.
    pub local_address: String,
    /// Virtual port; 0 with a mark.
    pub local_port: u16,
    /// Firewall mark; empty without one.
    pub local_mark: String,
    /// Scheduler of the service.
    pub scheduler: String,
    /// How long a client stays with its real server, in seconds; 0: not at all.
    pub persistence_s: u64,
    /// Whether every datagram is scheduled for itself.
    pub one_packet: bool,
    /// Address of the real server.
    pub remote_address: String,
    /// Its port.
    pub remote_port: u16,
    /// How packets get there.
    pub forwarding: Forwarding,
    /// Share of new connections.
    pub weight: u32,
    /// Established connections.
    pub active: u32,
    /// Other entries.
    pub inactive: u32,
    /// Persistence templates.
    pub persistent: u32,
    /// Upper threshold of connections; 0: none.
    pub upper_threshold: u32,
    /// Lower threshold.
    pub lower_threshold: u32,
    /// Connections per second by the scheduler.
    pub scheduled_per_s: f64,
    /// By old entries.
    pub reused_per_s: f64,
    /// Connections and datagrams while it was stale.
    pub stale_per_s: f64,
    /// Attempts that IPVS dropped.
    pub dropped_per_s: f64,
    /// Since when it drains, RFC 3339; `null` when it does not.
    pub draining_since: Option<String>,
    /// How well that is known: `live`, `reading` or `before_start`.
    pub draining_told: Option<&'static str>,
    /// What holds it.
    pub held_by: Option<Holder>,
    /// Whether it should have got connections and got none.
    pub starved: bool,
    /// How long it drains.
    #[serde(skip)]
    pub draining_for: Option<Duration>,
    #[serde(skip)]
    service: Service,
    #[serde(skip)]
    abnormal: bool,
}

impl Row {
    fn of(member: &Member<'_>, now: MonoNs, clocks: &WallAnchor) -> Self {
        let (service, row) = (member.service, member.row);
        let Rates {
            scheduled,
            reused,
            stale,
            dropped,
        } = member.rates;
        let drain = member.drain;
        let since = drain.map(|drain| drain.timeline.since);
        Self {
            netns: service.service.netns,
            proto: service.service.proto_word(),
            local_address: service.service.local_address(),
            local_port: service.service.local_port().unwrap_or(0),
            local_mark: service.service.local_mark(),
            scheduler: service.scheduler.to_string(),
            persistence_s: service.persistence.as_secs(),
            one_packet: service.flags.is_one_packet(),
            remote_address: row.real_server.0.ip().to_string(),
            remote_port: row.real_server.0.port(),
            forwarding: row.forwarding,
            weight: row.weight,
            active: row.active,
            inactive: row.inactive,
            persistent: row.persistent,
            upper_threshold: row.upper_threshold,
            lower_threshold: row.lower_threshold,
            scheduled_per_s: scheduled,
            reused_per_s: reused,
            stale_per_s: stale,
            dropped_per_s: dropped,
            draining_since: since.map(|since| rfc3339(clocks, since)),
            draining_told: drain.map(|drain| TimeSource::as_str(drain.timeline.time_source)),
            held_by: drain.map(|drain| drain.holder(now)),
            starved: member.starved,
            draining_for: since.map(|since| now.since(since)),
            service: service.service,
            abnormal: member.is_abnormal(),
        }
    }

    /// `address:port`.
    #[must_use]
    pub fn name(&self) -> String {
        if self.remote_address.contains(':') {
            format!("[{}]:{}", self.remote_address, self.remote_port)
        } else {
            format!("{}:{}", self.remote_address, self.remote_port)
        }
    }

    fn key(&self, by: SortBy) -> f64 {
        match by {
            SortBy::Name => 0.0,
            SortBy::Active => self.active.into(),
            SortBy::New => self.scheduled_per_s + self.reused_per_s + self.stale_per_s,
            SortBy::Stale => self.stale_per_s,
            SortBy::Draining => self.draining_for.map_or(0.0, |d| d.as_secs_f64()),
        }
    }
}

fn rfc3339(clocks: &WallAnchor, at: MonoNs) -> String {
    humantime::format_rfc3339_millis(clocks.wall(at)).to_string()
}

/// A service with those of its real servers that are shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// `TCP 10.96.0.10:80`, with its namespace where there are several.
    pub name: String,
    /// Its scheduler, and how long it is persistent.
    pub kind: String,
    /// Its real servers.
    pub rows: Vec<Row>,
}

/// Everything of the tables, and a line about them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// Every real server.
    rows: Vec<Row>,
    /// What is above the columns.
    pub title: String,
    /// Whether services are named with their namespace.
    several_netns: bool,
}

impl View {
    /// Nothing to show yet.
    #[must_use]
    pub fn waiting() -> Self {
        Self {
            title: "waiting for ip_vs and for the first reading of its table".to_owned(),
            ..Self::default()
        }
    }

    /// What there is to show at `now`.
    #[must_use]
    pub fn of(tables: &Tables, now: MonoNs, clocks: &WallAnchor) -> Self {
        let rows: Vec<Row> = tables
            .members()
            .map(|member| Row::of(&member, now, clocks))
            .collect();
        let totals = tables.totals();
        let populated = totals.values().filter(|totals| totals.services > 0).count();
        Self {
            rows,
            title: title(tables),
            several_netns: populated > 1,
        }
    }

    /// Services and their real servers as chosen.
    #[must_use]
    pub fn groups(&self, choice: &Choice) -> Vec<Group> {
        let mut groups: Vec<Group> = self
            .rows
            .chunk_by(|a, b| a.service == b.service)
            .filter_map(|rows| self.group(rows, choice))
            .collect();
        let best = |group: &Group| {
            let keys = group.rows.iter().map(|row| row.key(choice.sort));
            keys.fold(0.0, f64::max)
        };
        groups.sort_by(|a, b| order(best(a), best(b), choice.reverse));
        if choice.sort == SortBy::Name && choice.reverse {
            groups.reverse();
        }
        groups
    }

    /// Every real server as chosen.
    #[must_use]
    pub fn rows(&self, choice: &Choice) -> Vec<Row> {
        let groups = self.groups(choice).into_iter();
        groups.flat_map(|group| group.rows).collect()
    }

    fn group(&self, rows: &[Row], choice: &Choice) -> Option<Group> {
        let first = rows.first()?;
        let name = if self.several_netns {
            format!("{} @{}", first.service, first.netns)
        } else {
            first.service.to_string()
        };
        let of_service = name.contains(&choice.filter);
        let mut rows: Vec<Row> = rows
            .iter()
            .filter(|row| !choice.abnormal_only || row.abnormal)
            .filter(|row| of_service || row.name().contains(&choice.filter))
            .cloned()
            .collect();
        rows.sort_by(|a, b| order(a.key(choice.sort), b.key(choice.sort), choice.reverse));
        let mut kind = first.scheduler.clone();
        if first.persistence_s > 0 {
            let _ = write!(kind, " persistent {} s", first.persistence_s);
        }
        if first.one_packet {
            kind.push_str(" one packet");
        }
        (!rows.is_empty()).then_some(Group { name, kind, rows })
    }
}

/// The largest first; equals stay in the order of their names.
fn order(a: f64, b: f64, reverse: bool) -> Ordering {
    if reverse {
        a.total_cmp(&b)
    } else {
        b.total_cmp(&a)
    }
}

fn title(tables: &Tables) -> String {
    let mut title = String::new();
    let totals = tables.totals();
    let sum = totals
        .values()
        .fold(crate::table::tables::Totals::default(), |sum, one| {
            sum.and(*one)
        });
    let _ = write!(
        title,
        "{} services, {} without real server; {} real servers, {} draining",
        sum.services,
        sum.without_real_server,
        sum.available + sum.draining,
        sum.draining
    );
    for (netns, reason) in tables.failed() {
        let _ = write!(title, "; namespace {netns} cannot be read: {reason}");
    }
    title
}

/// Names of the columns behind the first.
pub const COLUMNS: [&str; 8] = [
    "WEIGHT", "ACTIVE", "INACT", "NEW/s", "REUSE", "STALE", "DROP", "DRAINING",
];

/// Widths of the columns behind the first; with one space before each they leave 24 of 80.
pub const WIDTHS: [usize; 8] = [6, 6, 6, 6, 5, 5, 5, 9];

/// Characters of everything behind the first column.
#[must_use]
pub fn columns_width() -> usize {
    WIDTHS.iter().map(|width| width + 1).sum()
}

/// The columns of a real server behind its name.
#[must_use]
pub fn cells(row: &Row) -> [String; 8] {
    [
        row.weight.to_string(),
        short(row.active.into()),
        short(row.inactive.into()),
        rate(row.scheduled_per_s),
        rate(row.reused_per_s),
        rate(row.stale_per_s),
        rate(row.dropped_per_s),
        draining(row),
    ]
}

/// Age and holder of a draining real server, in nine characters.
fn draining(row: &Row) -> String {
    let Some(age) = row.draining_for else {
        return if row.starved { "starved" } else { "" }.to_owned();
    };
    let by = match row.held_by {
        Some(Holder::PortReuse) => "reuse",
        Some(Holder::Persistence) => "templ",
        Some(Holder::LongLived) => "open",
        Some(Holder::Udp) => "udp",
        Some(Holder::Nobody) | None => "-",
    };
    format!("{} {by}", self::age(age))
}

/// `45s`, `12m`, `3h` or `2d`.
fn age(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..86_400 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// At most five digits: above, thousands.
fn short(count: u64) -> String {
    match count {
        0..=99_999 => count.to_string(),
        100_000..=9_999_999 => format!("{}k", count / 1_000),
        _ => format!("{}M", count / 1_000_000),
    }
}

/// One decimal below 100; a dot for nothing, so that what happens stands out.
fn rate(per_second: f64) -> String {
    if per_second == 0.0 {
        ".".to_owned()
    } else if per_second < 99.95 {
        format!("{per_second:.1}")
    } else {
        format!("{per_second:.0}")
    }
}

/// One line of the table: `first` in `width` characters, then the columns.
#[must_use]
pub fn line(first: &str, width: usize, cells: &[String]) -> String {
    let mut line = fit(first, width);
    for (cell, width) in cells.iter().zip(WIDTHS) {
        let _ = write!(line, " {cell:>width$}");
    }
    line
}

/// A text in exactly `width` characters; what is cut off shows as `~`.
fn fit(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return format!("{text:<width$}");
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}~")
}

/// The head of the table.
#[must_use]
pub fn head(width: usize) -> String {
    line("SERVICE / REAL SERVER", width, &COLUMNS.map(str::to_owned))
}

/// The whole table as text, every name at full length.
#[must_use]
pub fn plain(view: &View, choice: &Choice) -> String {
    let groups = view.groups(choice);
    let names = groups.iter().flat_map(|group| &group.rows);
    let longest = names.map(|row| row.name().chars().count() + 2).max();
    let width = longest.unwrap_or(0).max(24);
    let mut text = format!("{}\n{}\n", view.title, head(width));
    for group in &groups {
        let _ = writeln!(text, "{} {}", group.name, group.kind);
        for row in &group.rows {
            let first = format!("  {}", row.name());
            let _ = writeln!(text, "{}", line(&first, width, &cells(row)).trim_end());
        }
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::time::UNIX_EPOCH;

    use agent_common::count::{CountKey, TALLY_ATTEMPT};
    use agent_common::verdict::StaleCause;

    use super::*;
    use crate::decode::wire;
    use crate::event::{RealServer, Verdict};
    use crate::table::{RealServerRow, ServiceFlags, ServiceRow, Snapshot};
    use crate::testing::sample_service;

    const SECOND: u64 = 1_000_000_000;

    fn server(n: u8) -> RealServer {
        RealServer(format!("10.1.{n}.2:8080").parse().unwrap())
    }

    /// Three real servers: one ordinary, one busy, one that drains for 12 minutes under reuse.
    pub fn sample_view() -> View {
        let mut tables = Tables::default();
        tables.handle_snapshot(Arc::new(snapshot()));
        tables.handle_counts(MonoNs(SECOND), &[]);
        let counts = [
            (count(2, Verdict::Scheduled), 10),
            (count(3, Verdict::ReusedStale(StaleCause::PortReuse)), 5),
        ];
        tables.handle_counts(MonoNs(3 * SECOND), &counts);
        let clocks = WallAnchor::new(MonoNs(0), UNIX_EPOCH);
        let mut view = View::of(&tables, MonoNs(4 * SECOND), &clocks);
        for row in &mut view.rows {
            if row.draining_for.is_some() {
                row.draining_for = Some(Duration::from_secs(12 * 60 + 59));
            }
        }
        view
    }

    fn count(n: u8, verdict: Verdict) -> CountKey {
        CountKey {
            service: wire::service(&sample_service()),
            real_server: wire::real_server(Some(server(n))),
            tally: TALLY_ATTEMPT,
            decision: verdict.decision() as u8,
            cause: wire::cause(verdict),
            pad: 0,
        }
    }

    fn snapshot() -> Snapshot {
        let rows =
            [(1, 1, 0), (2, 5, 120_000), (3, 0, 1)].map(|(n, weight, inactive)| RealServerRow {
                real_server: server(n),
                forwarding: Forwarding::Masquerade,
                weight,
                active: n.into(),
                inactive,
                persistent: 0,
                upper_threshold: 0,
                lower_threshold: 0,
            });
        let row = ServiceRow {
            service: sample_service(),
            scheduler: "rr".into(),
            flags: ServiceFlags(3),
            persistence: Duration::from_secs(300),
            netmask: u32::MAX,
            real_servers: rows.into(),
        };
        let netns = sample_service().netns;
        Snapshot::new(MonoNs(SECOND), Duration::ZERO, netns, vec![row])
    }

    #[test]
    fn the_plain_table_says_everything() {
        let expected = "\
1 services, 0 without real server; 3 real servers, 1 draining
SERVICE / REAL SERVER    WEIGHT ACTIVE  INACT  NEW/s REUSE STALE  DROP  DRAINING
TCP 10.96.0.10:80 rr persistent 300 s
  10.1.1.2:8080               1      1      0      .     .     .     .
  10.1.2.2:8080               5      2   120k    5.0     .     .     .
  10.1.3.2:8080               0      3      1      .     .   2.5     . 12m reuse
";
        assert_eq!(plain(&sample_view(), &Choice::default()), expected);
    }

    #[test]
    fn rows_are_sorted_by_the_largest() {
        let names = |sort, reverse| {
            let choice = Choice {
                sort,
                reverse,
                ..Choice::default()
            };
            let rows = sample_view().rows(&choice).into_iter();
            rows.map(|row| row.remote_address).collect::<Vec<_>>()
        };
        let by = |order: [u8; 3]| order.map(|n| format!("10.1.{n}.2"));
        assert_eq!(names(SortBy::Name, false), by([1, 2, 3]));
        assert_eq!(names(SortBy::Active, false), by([3, 2, 1]));
        assert_eq!(names(SortBy::Active, true), by([1, 2, 3]));
        assert_eq!(names(SortBy::New, false), by([2, 3, 1]));
        assert_eq!(names(SortBy::Stale, false), by([3, 1, 2]));
        assert_eq!(names(SortBy::Draining, false), by([3, 1, 2]));
    }

    #[test]
    fn a_row_is_a_flat_object() {
        let choice = Choice {
            abnormal_only: true,
            ..Choice::default()
        };
        let rows = sample_view().rows(&choice);
        assert_eq!(rows.len(), 1);
        let json = serde_json::to_value(&rows[0]).unwrap();
        assert_eq!(json["local_address"], "10.96.0.10");
        assert_eq!(json["forwarding"], "masq");
        assert_eq!(json["held_by"], "port_reuse");
        assert_eq!(json["stale_per_s"], 2.5);
        assert_eq!(json["draining_since"], "1970-01-01T00:00:01.000Z");
        assert_eq!(json["draining_told"], "before_start");
    }

    #[test]
    fn every_number_fits_its_column() {
        for count in [
            0,
            99_999,
            100_000,
            9_999_999,
            10_000_000,
            u64::from(u32::MAX),
        ] {
            assert!(short(count).len() <= 5, "{count}");
        }
        for per_second in [0.0, 0.04, 9.96, 99.94, 99.95, 12_345.6] {
            assert!(rate(per_second).len() <= 5, "{per_second}");
        }
        for seconds in [0, 59, 60, 3_599, 86_399, 86_400 * 99] {
            assert!(age(Duration::from_secs(seconds)).len() <= 3, "{seconds}");
        }
    }
}
