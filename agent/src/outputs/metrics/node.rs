//! The kernel's counters about the node, arranged by family.
//!
//! PURE.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use agent_common::node::{NodeCountKey, NodeEvent};
use agent_common::verdict::DropCause;

use super::families::keep;
use super::labels::Labels;
use super::names;
use super::sample::{Page, Sample, Samples};
use crate::decode;
use crate::event::{NetnsId, Proto};

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

/// A listener, why it refused, and what.
pub type ListenKey = (NetnsId, SocketAddr, DropCause, Packet);

/// Families made of the counters about the node.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct NodeFamilies {
    /// Packets listeners refused, at most [`super::SERIES_MAX`].
    pub listen_drops: BTreeMap<ListenKey, u64>,
    /// Label sets of `listen_drops` the cap refused.
    pub listen_drops_refused: usize,
    /// Connects that failed for want of a source port, by destination; at most
    /// [`super::SERIES_MAX`].
    pub connect_failures: BTreeMap<(NetnsId, SocketAddr), u64>,
    /// Label sets of `connect_failures` the cap refused.
    pub connect_failures_refused: usize,
    /// Signs of packets too big for their way.
    pub path_mtu: BTreeMap<NodeEvent, u64>,
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
    /// Arranges what the kernel counted.
    #[must_use]
    pub fn of(counts: &[(NodeCountKey, u64)]) -> Self {
        let mut families = Self {
            path_mtu: PATH_MTU_EVENTS.map(|event| (event, 0)).into(),
            ..Self::default()
        };
        for (key, count) in counts {
            if families.add(key, *count).is_none() {
                families.malformed += count;
            }
        }
        families.listen_drops_refused = keep(&mut families.listen_drops, |_, n| (n, 0));
        families.connect_failures_refused = keep(&mut families.connect_failures, |_, n| (n, 0));
        families
    }

    fn add(&mut self, key: &NodeCountKey, count: u64) -> Option<()> {
        let key = decode::node_count(key).ok()?;
        let (cause, packet) = match key.event {
            NodeEvent::AcceptQueueFull => (DropCause::AcceptQueueFull, Packet::Syn),
            NodeEvent::HandshakeRefused => (DropCause::AcceptQueueFull, Packet::Ack),
            NodeEvent::SynQueueFull => (DropCause::SynQueueFull, Packet::Syn),
            NodeEvent::SourcePortsExhausted => {
                let destination = (key.netns, key.at?);
                *self.connect_failures.entry(destination).or_default() += count;
                return Some(());
            }
            event @ (NodeEvent::FragNeededSent
            | NodeEvent::FragNeededReceived
            | NodeEvent::BlackHoleSuspected) => {
                *self.path_mtu.entry(event).or_default() += count;
                return Some(());
            }
        };
        let listener = (key.netns, key.at?, cause, packet);
        *self.listen_drops.entry(listener).or_default() += count;
        Some(())
    }

    /// Puts its families onto the page.
    pub fn show(&self, page: &mut Page) {
        page.put(names::LISTEN_DROPS, counters(self.listen_rows()));
        page.refuse(names::LISTEN_DROPS, self.listen_drops_refused);
        page.put(names::CONNECT_FAILURES, counters(self.connect_rows()));
        page.refuse(names::CONNECT_FAILURES, self.connect_failures_refused);
        page.put(names::PATH_MTU, counters(self.path_mtu_rows()));
    }

    /// Labels and values of `listen_drops`; the namespace is named where there is more than one.
    fn listen_rows(&self) -> impl Iterator<Item = (Labels, u64)> {
        let with_netns = several(self.listen_drops.keys().map(|key| key.0));
        self.listen_drops.iter().map(move |(key, count)| {
            let (netns, listener, cause, packet) = key;
            let mut labels = vec![
                ("local_address", listener.ip().to_string()),
                ("local_port", listener.port().to_string()),
            ];
            if with_netns {
                labels.push(("netns", netns.to_string()));
            }
            labels.push(("cause", cause.as_str().to_owned()));
            labels.push(("packet", packet.as_str().to_owned()));
            (labels, *count)
        })
    }

    /// Labels and values of `connect_failures`; the namespace as in [`Self::listen_rows`].
    fn connect_rows(&self) -> impl Iterator<Item = (Labels, u64)> {
        let with_netns = several(self.connect_failures.keys().map(|key| key.0));
        self.connect_failures.iter().map(move |(key, count)| {
            let (netns, destination) = key;
            let mut labels = vec![
                ("proto", Proto::Tcp.as_str().to_owned()),
                ("remote_address", destination.ip().to_string()),
                ("remote_port", destination.port().to_string()),
            ];
            if with_netns {
                labels.push(("netns", netns.to_string()));
            }
            let cause = NodeEvent::SourcePortsExhausted.as_str();
            labels.push(("cause", cause.to_owned()));
            (labels, *count)
        })
    }

    fn path_mtu_rows(&self) -> impl Iterator<Item = (Labels, u64)> {
        let rows = self.path_mtu.iter();
        rows.map(|(event, count)| (vec![("event", event.as_str().to_owned())], *count))
    }
}

fn several(namespaces: impl Iterator<Item = NetnsId>) -> bool {
    namespaces.collect::<BTreeSet<_>>().len() > 1
}

fn counters(rows: impl Iterator<Item = (Labels, u64)>) -> Samples {
    rows.map(|(labels, count)| (labels, Sample::Counter(count, None)))
        .collect()
}

#[cfg(test)]
mod tests {
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

    fn rows(counts: &[(NodeCountKey, u64)]) -> Vec<String> {
        let families = NodeFamilies::of(counts);
        let row = |(labels, count): (Labels, u64)| {
            let words: Vec<_> = labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
            format!("{} {count}", words.join(" "))
        };
        let rows = families.listen_rows().chain(families.connect_rows());
        rows.map(row).collect()
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
        let families = NodeFamilies::of(&[(sent, 3)]);
        let rows: Vec<_> = families.path_mtu_rows().map(|(_, count)| count).collect();
        assert_eq!(rows, [3, 0, 0]);
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
        assert_eq!(NodeFamilies::of(&[(odd, 9)]).malformed, 9);
    }
}
