//! Growing counters about the node to findings.
//!
//! PURE. NodeProblem of the node is counted and not seen packet by packet. A counter is reported when it
//! first grows, then at most every [`TELL_EVERY`] with what was added since: the findings are few,
//! and their counts together are the counter.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use agent_common::node::NODE_COUNTS_MAX;

use crate::clock::MonoNs;
use crate::decode::NodeCount;
use crate::decode::proc::Readings;
use crate::event::{NetnsId, NodeProblem};
use crate::finding::{Counted, Finding, ListenerInPortRange};

/// How often a counter that goes on growing is reported.
pub const TELL_EVERY: Duration = Duration::from_secs(10);

/// Counters kept apart: as many as the kernel programs hold. Those beyond are reported together, as
/// one without an address.
pub const COUNTERS_HELD_MAX: usize = NODE_COUNTS_MAX as usize;

/// Listeners in the range of source ports that are reported one by one: a person reads them. The gauge
/// has all.
pub const LISTENERS_TOLD_MAX: usize = 256;

/// What is counted where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    problem: NodeProblem,
    netns: Option<NetnsId>,
    at: Option<SocketAddr>,
}

/// A counter between two findings.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// What the findings so far add up to, and what was there before them.
    reported: u64,
    seen: u64,
    /// When it was last seen as it was reported.
    since: MonoNs,
    reported_at: Option<MonoNs>,
}

/// What a counter that is met for the first time started from.
#[derive(Clone, Copy)]
enum Start {
    /// The kernel programs count from 0.
    Zero,
    /// The kernel has counted since it was booted.
    AsFound,
}

/// The state machine: readings go in, findings come out.
#[derive(Debug, Default)]
pub struct NodeWatch {
    known: BTreeMap<Place, Known>,
    listeners: BTreeSet<SocketAddr>,
    counts_at: Option<MonoNs>,
    procfs_at: Option<MonoNs>,
    findings: VecDeque<Finding>,
}

impl NodeWatch {
    /// Takes what the kernel programs have counted until `now`, and the latest destination of
    /// events that are counted without one.
    pub fn handle_counts(
        &mut self,
        now: MonoNs,
        counts: &[(NodeCount, u64)],
        latest: &[NodeCount],
    ) {
        let before = self.counts_at.replace(now).unwrap_or(now);
        let counted = counts.iter().map(|(count, value)| {
            let place = Place {
                problem: NodeProblem::Event(count.event),
                netns: (count.netns.0 != 0).then_some(count.netns),
                at: count.at,
            };
            (place, *value)
        });
        for (place, value) in self.within_bounds(counted) {
            self.counter(place, value, Start::Zero, (before, now), latest);
        }
    }

    /// Takes what procfs said at `now`.
    pub fn handle_procfs(&mut self, now: MonoNs, readings: &Readings) {
        let before = self.procfs_at.replace(now).unwrap_or(now);
        let counters = [
            (NodeProblem::TcpMemory, readings.tcp_memory),
            (NodeProblem::UdpReceiveBuffer, readings.udp_receive_buffer),
            (NodeProblem::UdpMemory, readings.udp_memory),
            (
                NodeProblem::ConntrackInsertFailed,
                readings.conntrack_insert_failed,
            ),
        ];
        for (problem, value) in counters {
            let place = Place {
                problem,
                netns: None,
                at: None,
            };
            if let Some(value) = value {
                self.counter(place, value, Start::AsFound, (before, now), &[]);
            }
        }
        self.listeners(now, readings.listeners_in_port_range.as_deref());
    }

    /// Nothing more will come: reports what has grown since the last report.
    pub fn handle_end(&mut self, now: MonoNs) {
        for (place, known) in &mut self.known {
            if known.seen > known.reported {
                self.findings.push_back(report(*place, known, now, &[]));
            }
        }
    }

    /// The next finding.
    pub fn poll_output(&mut self) -> Option<Finding> {
        self.findings.pop_front()
    }

    /// Puts what there is no room for under a place without address.
    fn within_bounds(&self, counted: impl Iterator<Item = (Place, u64)>) -> BTreeMap<Place, u64> {
        let mut room = COUNTERS_HELD_MAX.saturating_sub(self.known.len());
        let mut totals = BTreeMap::new();
        for (mut place, value) in counted {
            if !self.known.contains_key(&place) {
                if room == 0 {
                    (place.netns, place.at) = (None, None);
                }
                room = room.saturating_sub(1);
            }
            *totals.entry(place).or_default() += value;
        }
        totals
    }

    fn counter(
        &mut self,
        place: Place,
        value: u64,
        start: Start,
        (before, now): (MonoNs, MonoNs),
        latest: &[NodeCount],
    ) {
        let known = self.known.entry(place).or_insert_with(|| {
            let reported = match start {
                Start::Zero => 0,
                Start::AsFound => value,
            };
            Known {
                reported,
                seen: reported,
                since: before,
                reported_at: None,
            }
        });
        if value > known.seen {
            if known.seen == known.reported {
                known.since = before;
            }
            known.seen = value;
        }
        let due = known
            .reported_at
            .is_none_or(|at| now.since(at) >= TELL_EVERY);
        if known.seen > known.reported && due {
            self.findings.push_back(report(place, known, now, latest));
        }
    }

    /// A listener that is there the first time, or again.
    fn listeners(&mut self, now: MonoNs, found: Option<&[SocketAddr]>) {
        let Some(found) = found else { return };
        let found: BTreeSet<_> = found.iter().copied().take(LISTENERS_TOLD_MAX).collect();
        for listener in found.difference(&self.listeners) {
            let finding = ListenerInPortRange::new(now, *listener);
            self.findings.push_back(finding.into());
        }
        self.listeners = found;
    }
}

/// The finding that brings what was reported up to what was seen.
fn report(place: Place, known: &mut Known, now: MonoNs, latest: &[NodeCount]) -> Finding {
    let count = known.seen - known.reported;
    (known.reported, known.reported_at) = (known.seen, Some(now));
    let latest = latest
        .iter()
        .find(|latest| place.at.is_none() && place.problem == NodeProblem::Event(latest.event));
    Counted {
        at: now,
        cause: place.problem,
        netns: place.netns,
        destination: place.at.or_else(|| latest.and_then(|latest| latest.at)),
        count,
        lasted: now.since(known.since),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use agent_common::node::NodeEvent;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn refused(port: u16) -> NodeCount {
        NodeCount {
            event: NodeEvent::AcceptQueueFull,
            netns: NetnsId(7),
            at: Some(SocketAddr::from(([10, 0, 0, 1], port))),
        }
    }

    fn anywhere(event: NodeEvent) -> NodeCount {
        NodeCount {
            event,
            netns: NetnsId(0),
            at: None,
        }
    }

    fn at(seconds: u64) -> MonoNs {
        MonoNs(seconds * SECOND)
    }

    fn reported(watch: &mut NodeWatch) -> Vec<String> {
        std::iter::from_fn(|| watch.poll_output())
            .map(|finding| finding.to_string())
            .collect()
    }

    #[test]
    fn a_counter_is_told_at_once_then_every_ten_seconds_and_adds_up() {
        let mut watch = NodeWatch::default();
        watch.handle_counts(at(1), &[], &[]);
        watch.handle_counts(at(2), &[(refused(80), 3)], &[]);
        assert_eq!(
            reported(&mut watch),
            ["listener 10.0.0.1:80 refused 3 SYNs in 1.0 s: accept_queue_full"]
        );
        for second in 3..12 {
            watch.handle_counts(at(second), &[(refused(80), 4)], &[]);
        }
        assert_eq!(reported(&mut watch), Vec::<String>::new());
        watch.handle_counts(at(12), &[(refused(80), 4)], &[]);
        assert_eq!(
            reported(&mut watch),
            ["listener 10.0.0.1:80 refused 1 SYN in 10.0 s: accept_queue_full"]
        );
        watch.handle_counts(at(13), &[(refused(80), 9)], &[]);
        watch.handle_end(at(14));
        assert_eq!(
            reported(&mut watch),
            ["listener 10.0.0.1:80 refused 5 SYNs in 2.0 s: accept_queue_full"]
        );
        watch.handle_end(at(15));
        assert_eq!(reported(&mut watch), Vec::<String>::new());
    }

    #[test]
    fn each_place_is_shown_by_itself() {
        let mut watch = NodeWatch::default();
        let exhausted = NodeCount {
            event: NodeEvent::SourcePortsExhausted,
            ..refused(443)
        };
        let forgotten = NodeCount {
            event: NodeEvent::HandshakeRefused,
            ..refused(80)
        };
        watch.handle_counts(at(1), &[(exhausted, 5), (forgotten, 1)], &[]);
        assert_eq!(
            reported(&mut watch),
            [
                "listener 10.0.0.1:80 dropped 1 final handshake ACK in 0.0 s: accept_queue_full",
                "connect to 10.0.0.1:443 failed 5 times in 0.0 s: source_ports_exhausted",
            ]
        );
    }

    #[test]
    fn what_is_counted_without_address_names_the_latest() {
        let mut watch = NodeWatch::default();
        let event = NodeEvent::FragNeededSent;
        let latest = NodeCount {
            event,
            ..refused(0)
        };
        watch.handle_counts(at(1), &[(anywhere(event), 2)], &[latest]);
        assert_eq!(
            reported(&mut watch),
            [
                "path MTU exceeded: 2 packets in 0.0 s, latest destination 10.0.0.1: frag_needed_sent"
            ]
        );
    }

    #[test]
    fn the_kernels_own_counters_begin_where_they_are_found() {
        let mut watch = NodeWatch::default();
        let readings = |tcp, conntrack| Readings {
            tcp_memory: Some(tcp),
            conntrack_insert_failed: conntrack,
            ..Readings::default()
        };
        watch.handle_procfs(at(10), &readings(100, None));
        assert_eq!(reported(&mut watch), Vec::<String>::new());
        watch.handle_procfs(at(20), &readings(107, Some(4)));
        assert_eq!(
            reported(&mut watch),
            ["sockets dropped 7 packets in 10.0 s: tcp_memory"]
        );
        watch.handle_procfs(at(30), &readings(107, Some(5)));
        assert_eq!(reported(&mut watch), ["conntrack could not insert 1 entry"]);
    }

    #[test]
    fn a_listener_is_told_once_until_it_comes_again() {
        let mut watch = NodeWatch::default();
        let readings = |ports: &[u16]| Readings {
            listeners_in_port_range: Some(
                ports
                    .iter()
                    .map(|port| refused(*port).at.unwrap())
                    .collect(),
            ),
            ..Readings::default()
        };
        let line =
            |port| format!("listener 10.0.0.1:{port} listens on a port inside ip_local_port_range");
        watch.handle_procfs(at(10), &readings(&[40_000]));
        assert_eq!(reported(&mut watch), [line(40_000)]);
        watch.handle_procfs(at(20), &readings(&[40_000, 40_001]));
        assert_eq!(reported(&mut watch), [line(40_001)]);
        watch.handle_procfs(at(30), &readings(&[40_001]));
        watch.handle_procfs(at(40), &readings(&[40_000, 40_001]));
        assert_eq!(reported(&mut watch), [line(40_000)]);
    }

    #[test]
    fn what_there_is_no_room_for_is_told_together() {
        let mut watch = NodeWatch::default();
        let many: Vec<_> = (0..COUNTERS_HELD_MAX + 2)
            .map(|port| (refused(u16::try_from(port).unwrap()), 2))
            .collect();
        watch.handle_counts(at(1), &many, &[]);
        let lines = reported(&mut watch);
        assert_eq!(lines.len(), COUNTERS_HELD_MAX + 1);
        assert_eq!(
            lines[0],
            "several listeners refused 4 SYNs in 0.0 s: accept_queue_full"
        );
        watch.handle_counts(at(2), &many, &[]);
        assert_eq!(reported(&mut watch), Vec::<String>::new());
        assert!(watch.known.len() <= COUNTERS_HELD_MAX + 1);
    }
}
