//! Real servers of weight 0: since when, what keeps their connections alive, how it ended.
//!
//! PURE. A time the kernel reported (a weight changed, a real server was removed) is exact; a time a
//! reading showed is late by up to the interval of readings, and marked so.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::given::{Given, Place};
use super::{RealServerRow, Snapshot};
use crate::clock::MonoNs;
use crate::event::{NetnsId, Service};

/// Real servers that drain at the same time. A node programs up to 100,000; all of them at once
/// is a node being emptied. One more is not followed, and counted.
pub const DRAINING_MAX: usize = 100_000;

/// How long a stale connection is held to keep a real server from being empty: the lifetime of
/// an entry in TIME_WAIT. What refreshed nothing for longer holds nothing.
pub const HOLD: Duration = Duration::from_secs(120);

/// The same for a datagram: the lifetime of an entry of UDP.
pub const HOLD_BY_DATAGRAM: Duration = Duration::from_secs(300);

/// How long a real server may have weight 0 and no connection before that is a finding, unless the
/// settings say otherwise.
///
/// kube-proxy looks once a minute for draining real servers without connections and removes
/// them; after five of its rounds it has forgotten this one (kubernetes#108319).
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// What keeps a draining real server from being empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// Clients come back with source ports whose old entries lead here.
    PortReuse,
    /// Persistence templates lead clients here.
    Persistence,
    /// Connections that are still open.
    LongLived,
    /// UDP: every datagram keeps its entry alive, whatever the weight.
    Udp,
    /// Nothing: entries only wait for their end, or there are none and it should be removed.
    Nobody,
}

impl Holder {
    /// Every member.
    pub const ALL: &'static [Self] = &[
        Self::PortReuse,
        Self::Persistence,
        Self::LongLived,
        Self::Udp,
        Self::Nobody,
    ];

    /// The word in metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PortReuse => "port_reuse",
            Self::Persistence => "persistence",
            Self::LongLived => "long_lived",
            Self::Udp => "udp",
            Self::Nobody => "nobody",
        }
    }
}

crate::words::json!(Holder, TimeSource);

/// How well a time is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeSource {
    /// By the kernel, as it happened.
    Live,
    /// By a reading of the table or the counters: it happened since the reading before.
    Reading,
    /// It was so when the agent first looked.
    Before,
}

impl TimeSource {
    /// Every member.
    pub const ALL: &'static [Self] = &[Self::Live, Self::Reading, Self::Before];

    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Reading => "reading",
            Self::Before => "before_start",
        }
    }
}

/// What happened to one real server, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Timeline {
    /// Its weight became 0.
    #[serde(rename = "weight_0_ns")]
    pub since: MonoNs,
    /// How well that time is known.
    #[serde(rename = "weight_0_told")]
    pub time_source: TimeSource,
    /// Reading of the counters that last showed connections of the scheduler.
    #[serde(rename = "last_scheduled_ns", skip_serializing_if = "Option::is_none")]
    pub last_scheduled: Option<MonoNs>,
    /// The same for old entries that led here while it had a weight.
    #[serde(rename = "last_reused_ns", skip_serializing_if = "Option::is_none")]
    pub last_reused: Option<MonoNs>,
    /// The same for connections and datagrams that came while it was stale, each of which renewed
    /// an entry.
    #[serde(rename = "last_stale_ns", skip_serializing_if = "Option::is_none")]
    pub last_stale: Option<MonoNs>,
    /// Connections that came while it was stale.
    #[serde(rename = "stale_connections")]
    pub stale: u64,
    /// Datagrams that did.
    pub stale_datagrams: u64,
}

/// One draining real server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drain {
    /// What happened, and when.
    pub timeline: Timeline,
    /// Stale connections per second, over the last reading of the counters that had any.
    pub stale_per_second: f64,
    /// Entries in state ESTABLISHED at the last reading.
    pub active: u32,
    /// Other entries.
    pub inactive: u32,
    last_port_reuse: Option<MonoNs>,
    last_persistence: Option<MonoNs>,
    last_datagram: Option<MonoNs>,
    /// Since when readings have shown no connection at all.
    empty_since: Option<MonoNs>,
    /// Whether it was reported as forgotten.
    reported_forgotten: bool,
    /// The reading that did not show it any more.
    missing: Option<MonoNs>,
}

impl Drain {
    const fn begun(timeline: Timeline) -> Self {
        Self {
            timeline,
            stale_per_second: 0.0,
            active: 0,
            inactive: 0,
            last_port_reuse: None,
            last_persistence: None,
            last_datagram: None,
            empty_since: None,
            reported_forgotten: false,
            missing: None,
        }
    }

    /// What holds it at `now`.
    ///
    /// A client that comes back is reported before connections that are open: it will come back again,
    /// they will end.
    #[must_use]
    pub fn holder(&self, now: MonoNs) -> Holder {
        let within = |at: Option<MonoNs>, hold| at.is_some_and(|at: MonoNs| now.since(at) <= hold);
        if within(self.last_port_reuse, HOLD) {
            Holder::PortReuse
        } else if within(self.last_persistence, HOLD) {
            Holder::Persistence
        } else if within(self.last_datagram, HOLD_BY_DATAGRAM) {
            Holder::Udp
        } else if self.active > 0 {
            Holder::LongLived
        } else {
            Holder::Nobody
        }
    }

    fn seen(&mut self, at: MonoNs, row: &RealServerRow) {
        (self.active, self.inactive) = (row.active, row.inactive);
        self.missing = None;
        if row.connections() > 0 {
            self.empty_since = None;
            self.reported_forgotten = false;
        } else {
            self.empty_since.get_or_insert(at);
        }
    }

    fn given(&mut self, at: MonoNs, since: Option<MonoNs>, given: &Given) {
        if given.stale_datagrams > 0 {
            self.timeline.last_stale = Some(at);
            self.timeline.stale_datagrams += given.stale_datagrams;
            self.last_datagram = Some(at);
        }
        if given.stale() == 0 {
            return;
        }
        self.timeline.last_stale = Some(at);
        self.timeline.stale += given.stale();
        if given.stale_by_port_reuse > 0 {
            self.last_port_reuse = Some(at);
        }
        if given.stale_by_persistence > 0 {
            self.last_persistence = Some(at);
        }
        let seconds = since.map_or(0.0, |since| at.since(since).as_secs_f64());
        if seconds > 0.0 {
            self.stale_per_second = per_second(given.stale(), seconds);
        }
    }

    /// A reading comes after what it read: nothing was given to it by choice after it began to
    /// drain, whenever that was read.
    fn active_until(&mut self, activity: &Activity) {
        let not_after = |read_at: MonoNs| read_at.min(self.timeline.since);
        self.timeline.last_scheduled = activity.last_scheduled.map(not_after);
        self.timeline.last_reused = activity.last_reused.map(not_after);
    }

    /// Whether it has been empty so long that it will not be removed any more; reported once.
    fn is_forgotten(&mut self, now: MonoNs, after: Duration) -> bool {
        let forgotten = self
            .empty_since
            .is_some_and(|since| now.since(since) >= after);
        forgotten && !std::mem::replace(&mut self.reported_forgotten, true)
    }
}

/// Which services give connections to which machine, on whatever port.
///
/// In Kubernetes a pod is ready for all services or for none.
struct Users(Vec<(IpAddr, Service)>);

impl Users {
    fn of(snapshot: &Snapshot) -> Self {
        let members = snapshot.real_servers();
        let users = members.filter(|(_, row)| !row.is_draining());
        let mut users: Vec<_> = users
            .map(|(service, row)| (row.real_server.0.ip(), service.service))
            .collect();
        users.sort_unstable();
        users.dedup();
        Self(users)
    }

    /// Services other than its own that use the machine of this real server.
    fn others(&self, (service, server): Place) -> usize {
        let machine = server.0.ip();
        let from = self.0.partition_point(|(ip, _)| *ip < machine);
        let of_machine = self.0.get(from..).unwrap_or_default().iter();
        let of_machine = of_machine.take_while(|(ip, _)| *ip == machine);
        of_machine.filter(|(_, user)| *user != service).count()
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "no real server gets 2^52 connections between two readings"
)]
fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

/// How the draining of one real server is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was removed from its service.
    Removed {
        /// When.
        at: MonoNs,
        /// How well that is known.
        time_source: TimeSource,
        /// What held it last.
        held_by: Holder,
    },
    /// It has weight 0 and no connections, and stays in the table.
    Forgotten {
        /// When it was concluded.
        at: MonoNs,
        /// Since when it is empty.
        empty_since: MonoNs,
        /// Other services that give the same machine connections: it is alive.
        wanted_by: usize,
    },
}

/// What became of a draining real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concluded {
    /// Which.
    pub place: Place,
    /// What happened to it.
    pub timeline: Timeline,
    /// What became of it.
    pub ending: Ending,
}

/// When a real server was last given connections, before it drains.
#[derive(Clone, Copy, Debug, Default)]
struct Activity {
    last_scheduled: Option<MonoNs>,
    last_reused: Option<MonoNs>,
}

/// A draining real server that was removed.
#[derive(Clone, Copy, Debug)]
struct Closing {
    place: Place,
    drain: Drain,
    at: MonoNs,
    time_source: TimeSource,
}

/// Every real server that drains.
#[derive(Debug)]
pub struct Draining {
    forgotten_after: Duration,
    drains: BTreeMap<Place, Drain>,
    /// As many as the kernel's counters have real servers.
    activity: BTreeMap<Place, Activity>,
    /// What the kernel reported since the last readings began; readings know less of those.
    changed: BTreeMap<Place, MonoNs>,
    /// Namespaces that were read before.
    read: Vec<NetnsId>,
    counted_at: Option<MonoNs>,
    /// Removed, and reported once the counters have been read that they were counted in.
    closing: BTreeMap<Place, Vec<Closing>>,
    /// Members of `closing`, at most [`DRAINING_MAX`].
    closings: usize,
    concluded: VecDeque<Concluded>,
    refused: u64,
}

impl Default for Draining {
    fn default() -> Self {
        Self::new(FORGOTTEN_AFTER)
    }
}

impl Draining {
    /// Nothing drains; weight 0 without a connection for `forgotten_after` is reported.
    #[must_use]
    pub const fn new(forgotten_after: Duration) -> Self {
        Self {
            forgotten_after,
            drains: BTreeMap::new(),
            activity: BTreeMap::new(),
            changed: BTreeMap::new(),
            read: Vec::new(),
            counted_at: None,
            closing: BTreeMap::new(),
            closings: 0,
            concluded: VecDeque::new(),
            refused: 0,
        }
    }

    /// The kernel set the weight of a real server, which may be a new one.
    pub fn handle_weight(&mut self, at: MonoNs, place: Place, weight: u32) {
        self.note_change(at, place);
        if weight > 0 {
            self.drains.remove(&place);
        } else {
            self.begin(at, place, TimeSource::Live);
        }
    }

    /// The kernel removed a real server from its service.
    pub fn handle_removal(&mut self, at: MonoNs, place: Place) {
        self.note_change(at, place);
        self.end(at, place, TimeSource::Live);
    }

    /// What was given between the last reading of the counters and this one.
    pub fn handle_given(&mut self, at: MonoNs, all: &BTreeMap<Place, Given>) {
        let since = self.counted_at.replace(at);
        for (place, given) in all {
            let activity = self.activity.entry(*place).or_default();
            if given.scheduled > 0 {
                activity.last_scheduled = Some(at);
            }
            if given.reused > 0 {
                activity.last_reused = Some(at);
            }
            if let Some(drain) = self.drains.get_mut(place) {
                drain.given(at, since, given);
                drain.active_until(activity);
            }
            for closing in self.closing.get_mut(place).into_iter().flatten() {
                // Read after it was removed, so it happened before.
                closing.drain.given(at.min(closing.at), since, given);
                closing.drain.active_until(activity);
            }
        }
        self.conclude_closing(at);
    }

    /// Nothing more will be read: reports what waits for it.
    pub fn handle_end(&mut self) {
        self.conclude_closing(MonoNs(u64::MAX));
    }

    /// What a reading of the table shows.
    pub fn handle_snapshot(&mut self, snapshot: &Snapshot) {
        let (at, began) = (snapshot.taken_at, snapshot.taken_at - snapshot.took);
        let time_source = if self.read.contains(&snapshot.netns) {
            TimeSource::Reading
        } else {
            self.read.push(snapshot.netns);
            TimeSource::Before
        };
        let mut forgotten = Vec::new();
        for (service, row) in snapshot.real_servers() {
            let place = (service.service, row.real_server);
            if self
                .changed
                .get(&place)
                .is_some_and(|change| *change >= began)
            {
                continue;
            }
            if !row.is_draining() {
                self.drains.remove(&place);
                continue;
            }
            self.begin(at, place, time_source);
            if let Some(drain) = self.drains.get_mut(&place) {
                drain.seen(at, row);
                if drain.is_forgotten(at, self.forgotten_after) {
                    forgotten.push(place);
                }
            }
        }
        self.conclude_forgotten(snapshot, &forgotten);
        self.end_missing(snapshot, began);
        self.changed.retain(|_, change| *change >= began);
    }

    /// Nothing of this namespace is known any more.
    pub fn handle_gone(&mut self, netns: NetnsId) {
        self.read.retain(|read| *read != netns);
        self.drains.retain(|place, _| place.0.netns != netns);
        self.activity.retain(|place, _| place.0.netns != netns);
    }

    /// The next thing concluded.
    pub fn poll(&mut self) -> Option<Concluded> {
        self.concluded.pop_front()
    }

    /// Every draining real server.
    pub const fn drains(&self) -> &BTreeMap<Place, Drain> {
        &self.drains
    }

    /// Real servers not followed, because [`DRAINING_MAX`] drained already.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    fn note_change(&mut self, at: MonoNs, place: Place) {
        if self.changed.len() < DRAINING_MAX || self.changed.contains_key(&place) {
            self.changed.insert(place, at);
        }
    }

    fn begin(&mut self, at: MonoNs, place: Place, time_source: TimeSource) {
        if self.drains.contains_key(&place) {
            return;
        }
        if self.drains.len() >= DRAINING_MAX {
            self.refused += 1;
            return;
        }
        let activity = self.activity.get(&place).copied().unwrap_or_default();
        let drain = Drain::begun(Timeline {
            since: at,
            time_source,
            last_scheduled: activity.last_scheduled,
            last_reused: activity.last_reused,
            last_stale: None,
            stale: 0,
            stale_datagrams: 0,
        });
        self.drains.insert(place, drain);
    }

    fn end(&mut self, at: MonoNs, place: Place, time_source: TimeSource) {
        let Some(drain) = self.drains.remove(&place) else {
            return;
        };
        if self.closings < DRAINING_MAX {
            self.closings += 1;
            self.closing.entry(place).or_default().push(Closing {
                place,
                drain,
                at,
                time_source,
            });
        }
    }

    fn conclude_closing(&mut self, counted_at: MonoNs) {
        let mut closed = Vec::new();
        self.closing.retain(|_, of_place| {
            closed.extend(of_place.extract_if(.., |closing| closing.at <= counted_at));
            !of_place.is_empty()
        });
        self.closings -= closed.len();
        closed.sort_by_key(|closing| closing.at);
        for Closing {
            place,
            drain,
            at,
            time_source,
        } in closed
        {
            let held_by = drain.holder(at);
            self.conclude(Concluded {
                place,
                timeline: drain.timeline,
                ending: Ending::Removed {
                    at,
                    time_source,
                    held_by,
                },
            });
        }
    }

    fn conclude_forgotten(&mut self, snapshot: &Snapshot, places: &[Place]) {
        if places.is_empty() {
            return;
        }
        let users = Users::of(snapshot);
        let at = snapshot.taken_at;
        for place in places {
            let Some(drain) = self.drains.get(place) else {
                continue;
            };
            let ending = Ending::Forgotten {
                at,
                empty_since: drain.empty_since.unwrap_or(at),
                wanted_by: users.others(*place),
            };
            let timeline = drain.timeline;
            self.conclude(Concluded {
                place: *place,
                timeline,
                ending,
            });
        }
    }

    fn conclude(&mut self, concluded: Concluded) {
        if self.concluded.len() < DRAINING_MAX {
            self.concluded.push_back(concluded);
        }
    }

    /// Ends what two readings in a row did not show: one alone may have missed it.
    fn end_missing(&mut self, snapshot: &Snapshot, began: MonoNs) {
        let mut gone = Vec::new();
        for (place, drain) in &mut self.drains {
            let (service, server) = place;
            if service.netns != snapshot.netns
                || drain.timeline.since >= began
                || snapshot.real_server(service, server).is_some()
            {
                continue;
            }
            match drain.missing {
                Some(missing) => gone.push((*place, missing)),
                None => drain.missing = Some(snapshot.taken_at),
            }
        }
        for (place, missing) in gone {
            self.end(missing, place, TimeSource::Reading);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::event::{Proto, RealServer, ServiceName};
    use crate::table::{Forwarding, ServiceFlags, ServiceRow};
    use crate::testing::sample_service;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> MonoNs {
        MonoNs(seconds * SECOND)
    }

    fn place() -> Place {
        let server = RealServer("10.1.1.2:8080".parse().unwrap());
        (sample_service(), server)
    }

    /// A reading of one real server; `None`: of none.
    fn reading(seconds: u64, row: Option<(u32, u32, u32)>) -> Snapshot {
        let (service, real_server) = place();
        let rows = row.map(|(weight, active, inactive)| RealServerRow {
            real_server,
            forwarding: Forwarding::Masquerade,
            weight,
            active,
            inactive,
            persistent: 0,
            upper_threshold: 0,
            lower_threshold: 0,
        });
        let row = ServiceRow {
            service,
            scheduler: "rr".into(),
            flags: ServiceFlags(2),
            persistence: Duration::ZERO,
            netmask: u32::MAX,
            real_servers: rows.into_iter().collect(),
        };
        let took = Duration::from_millis(1);
        Snapshot::new(at(seconds), took, service.netns, vec![row])
    }

    fn given(given: Given) -> BTreeMap<Place, Given> {
        BTreeMap::from([(place(), given)])
    }

    fn only(draining: &Draining) -> Drain {
        assert_eq!(draining.drains().len(), 1);
        draining.drains()[&place()]
    }

    #[test]
    fn a_rolling_update_is_told_to_the_nanosecond() {
        let mut draining = Draining::default();
        draining.handle_snapshot(&reading(5, Some((1, 0, 0))));
        let scheduled = Given {
            scheduled: 10,
            reused: 2,
            ..Given::default()
        };
        draining.handle_given(at(5), &given(scheduled));
        draining.handle_weight(MonoNs(6 * SECOND + 7), place(), 0);
        let stale = Given {
            scheduled: 1,
            stale_by_port_reuse: 3,
            ..Given::default()
        };
        draining.handle_given(at(10), &given(stale));
        assert_eq!(only(&draining).holder(at(10)), Holder::PortReuse);
        assert!((only(&draining).stale_per_second - 0.6).abs() < 1e-9);
        draining.handle_removal(MonoNs(11 * SECOND + 5), place());
        assert_eq!(
            draining.poll(),
            None,
            "the last connections are not counted yet"
        );
        let last = Given {
            stale_by_port_reuse: 1,
            ..Given::default()
        };
        draining.handle_given(at(15), &given(last));
        let concluded = draining.poll().unwrap();
        let since = MonoNs(6 * SECOND + 7);
        let expected = Timeline {
            since,
            time_source: TimeSource::Live,
            // Read after the weight became 0, so it happened before.
            last_scheduled: Some(since),
            last_reused: Some(at(5)),
            // Read after it was removed.
            last_stale: Some(MonoNs(11 * SECOND + 5)),
            stale: 4,
            stale_datagrams: 0,
        };
        assert_eq!(concluded.timeline, expected);
        let removed = Ending::Removed {
            at: MonoNs(11 * SECOND + 5),
            time_source: TimeSource::Live,
            held_by: Holder::PortReuse,
        };
        assert_eq!((concluded.place, concluded.ending), (place(), removed));
        assert_eq!(draining.poll(), None);
        assert!(draining.drains().is_empty());
    }

    #[test]
    fn a_reading_alone_tells_too_but_says_so() {
        let mut draining = Draining::default();
        draining.handle_snapshot(&reading(5, Some((1, 0, 0))));
        draining.handle_snapshot(&reading(10, Some((0, 2, 1))));
        let timeline = only(&draining).timeline;
        assert_eq!(
            (timeline.since, timeline.time_source),
            (at(10), TimeSource::Reading)
        );
        // One absence may be a torn reading.
        draining.handle_snapshot(&reading(15, None));
        assert_eq!(draining.drains().len(), 1);
        draining.handle_snapshot(&reading(20, None));
        draining.handle_given(at(20), &BTreeMap::new());
        let ending = draining.poll().unwrap().ending;
        let expected = Ending::Removed {
            at: at(15),
            time_source: TimeSource::Reading,
            held_by: Holder::LongLived,
        };
        assert_eq!(ending, expected);
    }

    #[test]
    fn what_drained_before_is_told_so() {
        let mut draining = Draining::default();
        draining.handle_snapshot(&reading(5, Some((0, 0, 0))));
        let timeline = only(&draining).timeline;
        assert_eq!(
            (timeline.since, timeline.time_source),
            (at(5), TimeSource::Before)
        );
    }

    #[test]
    fn a_reading_older_than_the_kernels_word_changes_nothing() {
        let mut draining = Draining::default();
        draining.handle_snapshot(&reading(5, Some((1, 0, 0))));
        // Read before the weight was set, handled after.
        draining.handle_weight(at(10), place(), 0);
        draining.handle_snapshot(&reading(10, Some((1, 0, 0))));
        assert_eq!(only(&draining).timeline.since, at(10));
        draining.handle_weight(at(12), place(), 3);
        draining.handle_snapshot(&reading(12, Some((0, 0, 0))));
        assert!(draining.drains().is_empty());
        draining.handle_removal(at(14), place());
        draining.handle_snapshot(&reading(14, Some((0, 0, 0))));
        assert!(draining.drains().is_empty());
        // The next reading knows better.
        draining.handle_snapshot(&reading(15, Some((0, 0, 0))));
        assert_eq!(only(&draining).timeline.time_source, TimeSource::Reading);
    }

    #[test]
    fn each_holder_is_named() {
        let mut drain = Drain::begun(Timeline {
            since: at(1),
            time_source: TimeSource::Live,
            last_scheduled: None,
            last_reused: None,
            last_stale: None,
            stale: 0,
            stale_datagrams: 0,
        });
        assert_eq!(drain.holder(at(2)), Holder::Nobody);
        // Entries that nothing renews wait for their end.
        drain.inactive = 3;
        assert_eq!(drain.holder(at(2)), Holder::Nobody);
        drain.active = 1;
        assert_eq!(drain.holder(at(2)), Holder::LongLived);
        let by_datagram = Given {
            stale_datagrams: 5,
            ..Given::default()
        };
        drain.given(at(2), None, &by_datagram);
        assert_eq!(drain.holder(at(302)), Holder::Udp);
        assert_eq!(drain.holder(at(303)), Holder::LongLived);
        assert_eq!(drain.timeline.stale_datagrams, 5);
        assert_eq!(
            (drain.timeline.last_stale, drain.timeline.stale),
            (Some(at(2)), 0)
        );
        let by_template = Given {
            stale_by_persistence: 1,
            ..Given::default()
        };
        drain.given(at(3), None, &by_template);
        assert_eq!(drain.holder(at(4)), Holder::Persistence);
        let by_port = Given {
            stale_by_port_reuse: 1,
            ..Given::default()
        };
        drain.given(at(4), None, &by_port);
        assert_eq!(drain.holder(at(124)), Holder::PortReuse);
        assert_eq!(drain.holder(at(125)), Holder::Udp);
    }

    #[test]
    fn weight_0_for_ever_without_a_connection_is_told_once() {
        let mut draining = Draining::default();
        draining.handle_snapshot(&reading(5, Some((1, 0, 0))));
        draining.handle_snapshot(&reading(10, Some((0, 0, 4))));
        draining.handle_snapshot(&reading(20, Some((0, 0, 0))));
        draining.handle_snapshot(&reading(319, Some((0, 0, 0))));
        assert_eq!(draining.poll(), None);
        draining.handle_snapshot(&reading(320, Some((0, 0, 0))));
        let forgotten = Ending::Forgotten {
            at: at(320),
            empty_since: at(20),
            wanted_by: 0,
        };
        assert_eq!(draining.poll().map(|report| report.ending), Some(forgotten));
        draining.handle_snapshot(&reading(900, Some((0, 0, 0))));
        assert_eq!(draining.poll(), None);
    }

    #[test]
    fn a_forgotten_machine_that_others_use_is_alive() {
        let mut draining = Draining::new(Duration::from_secs(2));
        let read = |seconds| {
            let mut snapshot = reading(seconds, Some((0, 0, 0)));
            for port in 1..4 {
                let mut other = snapshot.services[0].clone();
                other.service.name = ServiceName::Address {
                    proto: Proto::Tcp,
                    local: SocketAddr::from(([10, 96, 0, 20], port)),
                };
                // One of the others drains it too.
                other.real_servers[0].weight = u32::from(port > 1);
                snapshot.services.push(other);
            }
            snapshot
        };
        draining.handle_snapshot(&read(10));
        draining.handle_snapshot(&read(12));
        let reports: Vec<_> = std::iter::from_fn(|| draining.poll()).collect();
        // The other service that drains it has forgotten it as well.
        assert_eq!(reports.len(), 2);
        assert_eq!(reports[0].place, place());
        let forgotten = Ending::Forgotten {
            at: at(12),
            empty_since: at(10),
            wanted_by: 2,
        };
        assert_eq!(reports[0].ending, forgotten);
    }

    #[test]
    fn a_namespace_takes_its_real_servers_along() {
        let mut draining = Draining::default();
        draining.handle_snapshot(&reading(5, Some((0, 0, 0))));
        draining.handle_gone(place().0.netns);
        assert!(draining.drains().is_empty());
        assert_eq!(draining.poll(), None);
    }
}
