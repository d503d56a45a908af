//! The same for what is counted about the node: sums by listener and by destination.

use std::collections::BTreeMap;

use agent_common::node::{NodeCountKey, NodeEvent};

use crate::clock::MonoNs;

/// Sums kept apart: as many as the kernel's table has room for at once.
pub const NODE_KEYS_MAX: usize = agent_common::node::NODE_COUNTS_MAX as usize;

/// Sums by listener, destination and event; the coldest are folded into one for each event.
#[derive(Debug, Default)]
pub struct NodeLedger {
    sums: BTreeMap<NodeCountKey, Sum>,
    readings: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sum {
    total: u64,
    born: u64,
    changed: MonoNs,
}

/// One sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeCount {
    /// What was counted.
    pub key: NodeCountKey,
    /// How often.
    pub total: u64,
    /// The number of the reading in which its life began.
    pub born: u64,
}

impl From<(NodeCountKey, u64)> for NodeCount {
    fn from((key, total): (NodeCountKey, u64)) -> Self {
        Self {
            key,
            total,
            born: 1,
        }
    }
}

/// Everything counted about the node so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeCounts {
    /// Number of this reading, from 1 on.
    pub reading: u64,
    /// Every sum, in the order of the keys.
    pub all: Vec<NodeCount>,
}

impl NodeLedger {
    /// Adds `more` under `key`.
    pub fn add(&mut self, at: MonoNs, key: NodeCountKey, more: u64) {
        if more == 0 {
            return;
        }
        self.add_to(at, key, more);
        if self.sums.len() > NODE_KEYS_MAX {
            self.fold(self.sums.len() - NODE_KEYS_MAX / 4 * 3);
        }
    }

    /// Every sum, as a new reading.
    pub fn counts(&mut self) -> NodeCounts {
        self.readings += 1;
        let sums = self.sums.iter().map(|(key, sum)| NodeCount {
            key: *key,
            total: sum.total,
            born: sum.born,
        });
        NodeCounts {
            reading: self.readings,
            all: sums.collect(),
        }
    }

    fn add_to(&mut self, at: MonoNs, key: NodeCountKey, more: u64) {
        let sum = self.sums.entry(key).or_insert(Sum {
            total: 0,
            born: self.readings + 1,
            changed: at,
        });
        sum.total = sum.total.saturating_add(more);
        sum.changed = sum.changed.max(at);
    }

    fn fold(&mut self, keys: usize) {
        let named = self.sums.iter().filter(|(key, _)| **key != rest(key));
        let mut cold: Vec<(MonoNs, NodeCountKey)> =
            named.map(|(key, sum)| (sum.changed, *key)).collect();
        cold.sort_unstable();
        for (_, key) in cold.into_iter().take(keys) {
            if let Some(sum) = self.sums.remove(&key) {
                self.add_to(sum.changed, rest(&key), sum.total);
            }
        }
    }
}

/// The key of everything of this event that has no key of its own.
#[must_use]
pub const fn rest(key: &NodeCountKey) -> NodeCountKey {
    NodeCountKey {
        addr: [0; 16],
        netns: 0,
        port: 0,
        family: 0,
        event: key.event,
    }
}

/// Whether this is the sum of what has no key of its own, of an event that is keyed by address.
#[must_use]
pub fn is_nameless(key: &NodeCountKey) -> bool {
    use NodeEvent::{AcceptQueueFull, HandshakeRefused, SourcePortsExhausted, SynQueueFull};
    let keyed = [
        AcceptQueueFull,
        HandshakeRefused,
        SynQueueFull,
        SourcePortsExhausted,
    ];
    key.family == 0 && keyed.iter().any(|event| *event as u8 == key.event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coldest_lose_their_name_and_no_number() {
        let mut ledger = NodeLedger::default();
        let all = agent_common::node::NODE_COUNTS_MAX * 2;
        for number in 0..all {
            let key = NodeCountKey {
                addr: [0; 16],
                netns: number,
                port: 80,
                family: 4,
                event: NodeEvent::SynQueueFull as u8,
            };
            ledger.add(MonoNs(u64::from(number)), key, 2);
            assert!(ledger.sums.len() <= NODE_KEYS_MAX);
        }
        let counts = ledger.counts().all;
        let sum: u64 = counts.iter().map(|count| count.total).sum();
        assert_eq!(sum, u64::from(all) * 2);
        // The latest have kept theirs.
        assert!(counts.iter().any(|it| it.key.netns == all - 1));
        assert!(counts.iter().all(|it| it.key.netns != 1));
        let nameless: Vec<_> = counts.iter().filter(|it| is_nameless(&it.key)).collect();
        assert!(matches!(nameless[..], [it] if it.total > 0));
    }

    #[test]
    fn an_event_of_no_address_is_not_nameless() {
        let mut key = rest(&NodeCountKey {
            addr: [0; 16],
            netns: 7,
            port: 80,
            family: 4,
            event: NodeEvent::FragNeededSent as u8,
        });
        assert!(!is_nameless(&key));
        key.event = NodeEvent::AcceptQueueFull as u8;
        assert!(is_nameless(&key));
    }
}
