//! The kernel's counters as maps: two banks, of which the programs write one.
//!
//! A key cannot be removed while programs may add to it: an increment between the last reading and
//! the removal would be lost, and the kernel gives the memory of a removed key to the next one at
//! once. So no key is removed from the bank in use. [`Banks::rotate`] makes the programs count in
//! the other bank, waits until none runs that may have read the number before, reads what is then
//! at rest, and empties it. docs/decisions/counters-with-a-life.md has what was rejected.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;

use agent_common::count::{CountKey, REST_MAX, rest_key};
use agent_common::key::ServiceKey;
use agent_common::node::{NODE_REST_MAX, NodeCountKey};
use aya::Pod;
use aya::maps::{Array, HashMap as KernelHash, MapData, MapError, PerCpuArray, PerCpuHashMap};

use super::grace::Grace;

/// One kind of counter: two banks, and what of each was read before.
pub struct Pair<K: Pod>([Bank<K>; 2]);

struct Bank<K: Pod> {
    map: PerCpuHashMap<MapData, K, u64>,
    seen: HashMap<K, u64>,
}

impl<K: Pod + Eq + Hash> Pair<K> {
    /// Both banks are empty.
    pub fn new(banks: [PerCpuHashMap<MapData, K, u64>; 2]) -> Self {
        Self(banks.map(|map| Bank {
            map,
            seen: HashMap::new(),
        }))
    }

    /// What was counted since the last reading. Two system calls per key.
    fn read(&mut self, bank: u32, add: &mut impl FnMut(K, u64)) -> Result<(), MapError> {
        let Some(Bank { map, seen }) = self.0.get_mut(bank as usize) else {
            return Ok(());
        };
        for entry in &*map {
            let (key, values) = entry?;
            let total: u64 = values.iter().sum();
            let before = seen.insert(key, total).unwrap_or(0);
            add(key, total.saturating_sub(before));
        }
        Ok(())
    }

    /// Empties a bank that is at rest and was read. What cannot be removed stays read.
    fn clear(&mut self, bank: u32) {
        if let Some(Bank { map, seen }) = self.0.get_mut(bank as usize) {
            seen.retain(|key, _| map.remove(key).is_err());
        }
    }
}

/// Counters without names, of which only increments are passed on.
pub struct Rest {
    map: PerCpuArray<MapData, u64>,
    seen: Vec<u64>,
}

impl Rest {
    /// Nothing counted.
    pub const fn new(map: PerCpuArray<MapData, u64>) -> Self {
        Self {
            map,
            seen: Vec::new(),
        }
    }

    fn read(&mut self, size: u32, add: &mut impl FnMut(u32, u64)) -> Result<(), MapError> {
        self.seen.resize(usize::try_from(size).unwrap_or(0), 0);
        for (index, seen) in (0..size).zip(&mut self.seen) {
            let total: u64 = self.map.get(&index, 0)?.iter().sum();
            add(index, total.saturating_sub(*seen));
            *seen = total;
        }
        Ok(())
    }
}

/// Every map of the kernel's counters.
pub struct Banks {
    /// Of services and real servers.
    pub counts: Pair<CountKey>,
    /// Of the node.
    pub node_counts: Pair<NodeCountKey>,
    /// What found no room in `counts`.
    pub rest: Rest,
    /// What found no room in `node_counts`.
    pub node_rest: Rest,
    /// The number of the bank in use.
    pub bank: Array<MapData, u32>,
    /// Keys made in each bank.
    pub keys: Array<MapData, u64>,
    /// Services the programs know by their address.
    pub services: KernelHash<MapData, ServiceKey, u8>,
    /// How the end of running programs is waited for.
    pub grace: Grace,
    /// Keys each bank has room for.
    pub size: u64,
    /// The bank in use.
    pub in_use: u32,
    /// Counts without names that have been read.
    pub full_seen: u64,
}

impl Banks {
    /// Whether the bank in use holds more keys than this share of its room.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_filled(&self, share: u64) -> Result<bool, MapError> {
        Ok(self.keys.get(&self.in_use, 0)? >= self.size / share)
    }

    /// What was counted of services since the last reading, and, where `full` (counts that found
    /// no room so far) has risen, what was counted without names.
    ///
    /// # Errors
    /// The kernel's; what was passed on before is not passed on again.
    pub fn read(&mut self, full: u64, mut add: impl FnMut(CountKey, u64)) -> Result<(), MapError> {
        self.counts.read(self.in_use, &mut add)?;
        if full != self.full_seen {
            let mut add = |index, more| add(rest_key(index), more);
            self.rest.read(REST_MAX, &mut add)?;
            self.full_seen = full;
        }
        Ok(())
    }

    /// The same of the node.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_node(
        &mut self,
        full: u64,
        mut add: impl FnMut(NodeCountKey, u64),
    ) -> Result<(), MapError> {
        self.node_counts.read(self.in_use, &mut add)?;
        if full > 0 {
            let mut add = |index, more| add(node_rest_key(index), more);
            self.node_rest.read(NODE_REST_MAX, &mut add)?;
        }
        Ok(())
    }

    /// Counts in the other bank from here on, and empties this one once it is at rest and read.
    ///
    /// # Errors
    /// The kernel's. Nothing is lost then: what was not removed is still counted, and read again.
    pub fn rotate(
        &mut self,
        mut add: impl FnMut(CountKey, u64),
        mut add_node: impl FnMut(NodeCountKey, u64),
    ) -> io::Result<()> {
        let (old, new) = (self.in_use, 1 - self.in_use);
        self.bank.set(0, &new, 0).map_err(io::Error::other)?;
        if let Err(error) = self.grace.wait() {
            // Programs may count in both: this one stays in use, the other is read at the next try.
            self.bank.set(0, &old, 0).map_err(io::Error::other)?;
            return Err(error);
        }
        let read = self.counts.read(old, &mut add);
        let read = read.and_then(|()| self.node_counts.read(old, &mut add_node));
        read.map_err(io::Error::other)?;
        self.in_use = new;
        self.counts.clear(old);
        self.node_counts.clear(old);
        self.keys.set(old, &0, 0).map_err(io::Error::other)
    }

    /// Makes room for others: these services are gone.
    pub fn forget_services(&mut self, services: &[ServiceKey]) {
        for service in services {
            // A service that was known by its mark alone has none.
            drop(self.services.remove(service));
        }
    }
}

/// The key of what was counted about the node without an address.
fn node_rest_key(index: u32) -> NodeCountKey {
    NodeCountKey {
        addr: [0; 16],
        netns: 0,
        port: 0,
        family: 0,
        event: u8::try_from(index).unwrap_or(0),
    }
}
