//! The kernel's counters about the node, arranged by family.
//!
//! PURE.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use agent_common::node::NodeEvent;
use agent_common::verdict::DropCause;

use super::families::{Family, Rank, SERIES_MAX_OF_MANY, choose, on};
use super::labels::{ENDED, Labels, OTHER, and, until};
use super::names;
use super::sample::{Page, Sample, Samples};
use crate::decode;
use crate::event::{NetnsId, Proto};
use crate::ledger::node::NodeCounts;
use crate::ledger::shelf::{Reading, Shelf, View};

/// The packet a listener refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Packet {
    /// The first of a connection: the client sends it again.
    Syn,
    /// The last of a handshake: the client believes to be connected.
    Ack,
}

impl Packet {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::Ack => "ack",
        }
    }
}

/// A listener or a destination in its namespace.
pub type Place = (NetnsId, SocketAddr);

/// Why a listener refused, and what.
pub type Refusal = (DropCause, Packet);

/// Every reason of a listener.
const REFUSALS: [Refusal; 3] = [
    (DropCause::AcceptQueueFull, Packet::Syn),
    (DropCause::AcceptQueueFull, Packet::Ack),
    (DropCause::SynQueueFull, Packet::Syn),
];

/// What was shown at the last scrape.
#[derive(Debug, Default)]
pub struct NodeShelves {
    listen_drops: Shelf<Place, Refusal>,
    connect_failures: Shelf<Place, ()>,
}

/// Families made of the counters about the node.
#[derive(Debug, Default)]
pub struct NodeFamilies {
    reading: u64,
    /// Packets listeners refused.
    listen_drops: Family<Place, Refusal>,
    /// Connects that failed for want of a source port, by destination.
    connect_failures: Family<Place, ()>,
    /// Signs of packets too big for their way.
    path_mtu: BTreeMap<NodeEvent, u64>,
    /// Counts under keys that make no sense.
    pub malformed: u64,
}

/// Events of `ipvs_lens_path_mtu_total`.
const PATH_MTU_EVENTS: [NodeEvent; 3] = [
    NodeEvent::FragNeededSent,
    NodeEvent::FragNeededReceived,
    NodeEvent::BlackHoleSuspected,
];

impl NodeFamilies {
    /// Arranges what the kernel counted; what `shelves` show already is preferred to its equals.
    #[must_use]
    pub fn of(counts: &NodeCounts, shelves: &NodeShelves) -> Self {
        let decoded = counts.all.iter();
        let decoded: Vec<_> = decoded
            .map(|count| (decode::node_count(&count.key).ok(), count))
            .collect();
        let places = |is: fn(NodeEvent) -> bool, shown: &dyn Fn(&Place) -> bool| {
            let of_event = decoded.iter().filter_map(|(key, count)| {
                let key = key.filter(|key| is(key.event))?;
                Some(((key.netns, key.at?), *count))
            });
            let mut ranks: BTreeMap<Place, Rank<Place>> = BTreeMap::new();
            for (place, count) in of_event {
                let rank = ranks.entry(place).or_insert_with(|| Rank {
                    group: place,
                    class: 1,
                    shown: shown(&place),
                    count: 0,
                    born: count.born,
                });
                rank.count = rank.count.saturating_add(count.total);
                rank.born = rank.born.min(count.born);
            }
            let ranks = ranks.into_values().collect();
            choose(ranks, SERIES_MAX_OF_MANY, SERIES_MAX_OF_MANY)
        };
        let listeners = places(|it| refusal(it).is_some(), &|it| {
            shelves.listen_drops.shows(it)
        });
        let is_connect = |it| it == NodeEvent::SourcePortsExhausted;
        let destinations = places(is_connect, &|it| shelves.connect_failures.shows(it));
        let mut families = Self {
            reading: counts.reading,
            listen_drops: Family::of(&listeners.0, listeners.1),
            connect_failures: Family::of(&destinations.0, destinations.1),
            path_mtu: PATH_MTU_EVENTS.map(|event| (event, 0)).into(),
            malformed: 0,
        };
        for (key, count) in decoded {
            match key {
                Some(key) => families.add(&key, count.total),
                None => families.malformed += count.total,
            }
        }
        families
    }

    fn add(&mut self, key: &decode::NodeCount, count: u64) {
        let place = key.at.map(|at| (key.netns, at));
        if let Some(refusal) = refusal(key.event) {
            self.listen_drops.add(place, refusal, count);
        } else if key.event == NodeEvent::SourcePortsExhausted {
            self.connect_failures.add(place, (), count);
        } else {
            *self.path_mtu.entry(key.event).or_default() += count;
        }
    }

    /// Puts its families onto the page, as a scrape at `at` (Unix seconds) after what `shelves`
    /// showed before.
    pub fn show(&self, page: &mut Page, at: u64, shelves: &mut NodeShelves) {
        let reading = Reading {
            number: self.reading,
            at,
        };
        let listen = on(
            &mut shelves.listen_drops,
            reading,
            &REFUSALS,
            &self.listen_drops,
        );
        let with_netns = several(listen.rows.iter().map(|row| row.0.0));
        let label = |labels, (cause, packet): &Refusal| {
            let labels = and(labels, "cause", cause.as_str());
            and(labels, "packet", packet.as_str())
        };
        let samples = samples(&listen, &|place| listener(place, with_netns), &label);
        page.put(names::LISTEN_DROPS, samples);
        page.refuse(
            names::LISTEN_DROPS,
            self.listen_drops.hidden * REFUSALS.len(),
        );
        let connects = on(
            &mut shelves.connect_failures,
            reading,
            &[()],
            &self.connect_failures,
        );
        let with_netns = several(connects.rows.iter().map(|row| row.0.0));
        let label =
            |labels, (): &()| and(labels, "cause", NodeEvent::SourcePortsExhausted.as_str());
        let samples = self::samples(&connects, &|place| destination(place, with_netns), &label);
        page.put(names::CONNECT_FAILURES, samples);
        page.refuse(names::CONNECT_FAILURES, self.connect_failures.hidden);
        let path_mtu = self.path_mtu.iter().map(|(event, count)| {
            let labels = vec![("event", event.as_str().to_owned())];
            (labels, Sample::Counter(*count, None))
        });
        page.put(names::PATH_MTU, path_mtu.collect());
    }
}

/// Why a listener refused, if it did.
const fn refusal(event: NodeEvent) -> Option<Refusal> {
    match event {
        NodeEvent::AcceptQueueFull => Some((DropCause::AcceptQueueFull, Packet::Syn)),
        NodeEvent::HandshakeRefused => Some((DropCause::AcceptQueueFull, Packet::Ack)),
        NodeEvent::SynQueueFull => Some((DropCause::SynQueueFull, Packet::Syn)),
        NodeEvent::SourcePortsExhausted
        | NodeEvent::FragNeededSent
        | NodeEvent::FragNeededReceived
        | NodeEvent::BlackHoleSuspected => None,
    }
}

/// Who a series is about: somebody with a name, or those that have none.
enum About<'a> {
    Place(&'a Place),
    Others(&'static str),
}

impl About<'_> {
    fn address_and_port(&self) -> (String, String) {
        match self {
            Self::Place((_, at)) => (at.ip().to_string(), at.port().to_string()),
            Self::Others(address) => ((*address).to_owned(), String::new()),
        }
    }

    fn netns(&self, mut labels: Labels, with_netns: bool) -> Labels {
        if let (Self::Place((netns, _)), true) = (self, with_netns) {
            labels.push(("netns", netns.to_string()));
        }
        labels
    }
}

fn listener(of: &About<'_>, with_netns: bool) -> Labels {
    let (address, port) = of.address_and_port();
    let labels = vec![("local_address", address), ("local_port", port)];
    of.netns(labels, with_netns)
}

fn destination(of: &About<'_>, with_netns: bool) -> Labels {
    let (address, port) = of.address_and_port();
    let labels = vec![
        ("proto", Proto::Tcp.as_str().to_owned()),
        ("remote_address", address),
        ("remote_port", port),
    ];
    of.netns(labels, with_netns)
}

fn samples<S>(
    view: &View<Place, S>,
    labels: &dyn Fn(&About<'_>) -> Labels,
    with: &dyn Fn(Labels, &S) -> Labels,
) -> Samples {
    let row = |labels, row: &S, count: u64| (with(labels, row), Sample::Counter(count, None));
    let named = view.rows.iter();
    let named = named.map(|(place, of, count)| row(labels(&About::Place(place)), of, *count));
    let other = view.other.iter();
    let other = other.map(|(of, count)| row(labels(&About::Others(OTHER)), of, *count));
    let ended = view.ended.iter().map(|(of, count)| {
        let labels = until(labels(&About::Others(ENDED)), view.until);
        row(labels, of, *count)
    });
    named.chain(other).chain(ended).collect()
}

fn several(namespaces: impl Iterator<Item = NetnsId>) -> bool {
    namespaces.collect::<BTreeSet<_>>().len() > 1
}

#[cfg(test)]
mod tests {
    use agent_common::node::NodeCountKey;

    use super::*;

    fn key(netns: u32, event: NodeEvent) -> NodeCountKey {
        let mut addr = [0; 16];
        addr[..4].copy_from_slice(&[10, 0, 0, 1]);
        NodeCountKey {
            addr,
            netns,
            port: 80,
            family: 4,
            event: event as u8,
        }
    }

    fn all_rows(counts: &[(NodeCountKey, u64)]) -> (NodeFamilies, Vec<String>) {
        let counts = NodeCounts {
            reading: 1,
            all: counts.iter().map(|count| (*count).into()).collect(),
        };
        let mut shelves = NodeShelves::default();
        let families = NodeFamilies::of(&counts, &shelves);
        let mut page = Page::new(true);
        families.show(&mut page, 0, &mut shelves);
        let row = |(labels, sample): &(Labels, Sample)| {
            let Sample::Counter(count, _) = sample else {
                panic!("{sample:?}")
            };
            let words: Vec<_> = labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
            format!("{} {count}", words.join(" "))
        };
        let rows = page.families().flat_map(|(_, samples)| samples).map(row);
        let rows = rows.collect();
        (families, rows)
    }

    /// Of listeners and destinations that have a series of their own and were counted for.
    fn rows(counts: &[(NodeCountKey, u64)]) -> Vec<String> {
        let (_, mut rows) = all_rows(counts);
        rows.retain(|row| !row.contains("=other") && !row.contains("event="));
        rows.retain(|row| !row.ends_with(" 0"));
        rows
    }

    #[test]
    fn a_destination_without_a_source_port() {
        assert_eq!(
            rows(&[(key(7, NodeEvent::SourcePortsExhausted), 5)]),
            ["proto=TCP remote_address=10.0.0.1 remote_port=80 cause=source_ports_exhausted 5"]
        );
    }

    #[test]
    fn every_sign_of_a_small_way_starts_at_0() {
        let mut sent = key(0, NodeEvent::FragNeededSent);
        (sent.addr, sent.port, sent.family) = ([0; 16], 0, 0);
        let (_, mut rows) = all_rows(&[(sent, 3)]);
        rows.retain(|row| row.starts_with("event="));
        let expected = [
            "event=frag_needed_sent 3",
            "event=frag_needed_received 0",
            "event=black_hole_suspected 0",
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_refused_handshake_is_told_apart_from_a_refused_syn() {
        assert_eq!(
            rows(&[
                (key(7, NodeEvent::AcceptQueueFull), 2),
                (key(7, NodeEvent::HandshakeRefused), 3),
                (key(7, NodeEvent::SynQueueFull), 4),
            ]),
            [
                "local_address=10.0.0.1 local_port=80 cause=accept_queue_full packet=syn 2",
                "local_address=10.0.0.1 local_port=80 cause=accept_queue_full packet=ack 3",
                "local_address=10.0.0.1 local_port=80 cause=syn_queue_full packet=syn 4",
            ]
        );
    }

    #[test]
    fn the_same_listener_in_two_namespaces_is_two() {
        assert_eq!(
            rows(&[
                (key(7, NodeEvent::SynQueueFull), 1),
                (key(8, NodeEvent::SynQueueFull), 2),
            ]),
            [
                "local_address=10.0.0.1 local_port=80 netns=7 cause=syn_queue_full packet=syn 1",
                "local_address=10.0.0.1 local_port=80 netns=8 cause=syn_queue_full packet=syn 2",
            ]
        );
    }

    #[test]
    fn what_cannot_be_is_counted_apart() {
        let mut odd = key(7, NodeEvent::SynQueueFull);
        odd.family = 5;
        assert_eq!(all_rows(&[(odd, 9)]).0.malformed, 9);
    }
}
