//! Reads what the kernel programs have counted, in this session and in those before it.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use agent_common::attempt::{ATTEMPTS_MAX, Attempt};
use agent_common::count::CountKey;
use agent_common::key::TupleKey;
use agent_common::node::NodeCountKey;
use agent_common::stat::Stat;
use aya::Pod;
use aya::maps::{HashMap, MapData, MapError, PerCpuArray, PerCpuHashMap};
use aya::programs::ProgramFd;

use super::fexit::{self, FexitLink};
use crate::clock::MonoNs;
use crate::source::counts::{CountSource, SkippedRuns, SourceError};
use crate::source::table::Held;

/// Totals of sessions that are over; a counter that users see never goes back.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    counts: BTreeMap<CountKey, u64>,
    node_counts: BTreeMap<NodeCountKey, u64>,
    stats: [u64; Stat::ALL.len()],
    skipped_runs: SkippedRuns,
}

/// The kernel's counters, readable from any thread, also after the programs are detached.
pub struct Counters {
    carried: Carried,
    counts: PerCpuHashMap<MapData, CountKey, u64>,
    node_counts: PerCpuHashMap<MapData, NodeCountKey, u64>,
    node_latest: HashMap<MapData, u32, NodeCountKey>,
    stats: PerCpuArray<MapData, u64>,
    attempts: HashMap<MapData, TupleKey, Attempt>,
    skipped: Mutex<Skipped>,
}

/// Programs the kernel can be asked about, and what it said of those that are gone.
#[derive(Default)]
struct Skipped {
    /// Of functions of the module.
    of_module: Vec<FexitLink>,
    /// Of functions of the kernel itself.
    of_kernel: Vec<FexitLink>,
    kprobes: Vec<ProgramFd>,
    before: SkippedRuns,
}

impl Skipped {
    /// A kernel that does not know answers 0.
    fn total(&self) -> SkippedRuns {
        let links = self.of_module.iter().chain(&self.of_kernel);
        let kprobes = self
            .kprobes
            .iter()
            .map(|program| fexit::recursion_misses(program.as_fd()));
        SkippedRuns {
            trampolines: self.before.trampolines + skipped_runs(links),
            kprobes: self.before.kprobes + kprobes.map(Result::unwrap_or_default).sum::<u64>(),
        }
    }
}

fn skipped_runs<'a>(links: impl IntoIterator<Item = &'a FexitLink>) -> u64 {
    let runs = links.into_iter().map(FexitLink::recursion_misses);
    runs.map(Result::unwrap_or_default).sum()
}

impl Counters {
    /// Counts on from `carried`.
    pub(super) fn new(
        carried: Carried,
        counts: PerCpuHashMap<MapData, CountKey, u64>,
        node_counts: PerCpuHashMap<MapData, NodeCountKey, u64>,
        node_latest: HashMap<MapData, u32, NodeCountKey>,
        stats: PerCpuArray<MapData, u64>,
        attempts: HashMap<MapData, TupleKey, Attempt>,
    ) -> Self {
        let skipped = Skipped {
            before: carried.skipped_runs,
            ..Skipped::default()
        };
        Self {
            carried,
            counts,
            node_counts,
            node_latest,
            stats,
            attempts,
            skipped: Mutex::new(skipped),
        }
    }

    /// Everything counted so far, for the session after this one.
    ///
    /// # Errors
    /// Why the kernel's maps cannot be read.
    pub fn carry(&self) -> Result<Carried, SourceError> {
        let mut stats = [0; Stat::ALL.len()];
        for (total, stat) in stats.iter_mut().zip(Stat::ALL) {
            *total = self.stat(*stat)?;
        }
        Ok(Carried {
            counts: self.counts()?.into_iter().collect(),
            node_counts: self.node_counts()?.into_iter().collect(),
            stats,
            skipped_runs: self.skipped_runs(),
        })
    }

    /// What the programs have counted about themselves.
    ///
    /// # Errors
    /// Why the kernel's map cannot be read.
    pub fn stat(&self, stat: Stat) -> Result<u64, MapError> {
        let index = stat as u32;
        let values = self.stats.get(&index, 0)?;
        let before = self.carried.stats.get(stat as usize).copied().unwrap_or(0);
        Ok(before + values.iter().sum::<u64>())
    }

    /// The latest destination of each event that is counted without one.
    ///
    /// # Errors
    /// Why the kernel's map cannot be read.
    pub fn node_latest(&self) -> Result<Vec<NodeCountKey>, MapError> {
        let entries = self.node_latest.iter();
        entries.map(|entry| Ok(entry?.1)).collect()
    }

    /// Keeps a program attached to a function of the module, to ask how often it was skipped.
    pub(super) fn watch_module(&self, link: FexitLink) {
        self.skipped().of_module.push(link);
    }

    /// Keeps a program attached to a function of the kernel itself.
    pub(super) fn watch_kernel(&self, link: FexitLink) {
        self.skipped().of_kernel.push(link);
    }

    /// Detaches the programs that hold the module.
    pub(super) fn unwatch_module(&self) {
        let mut skipped = self.skipped();
        skipped.before.trampolines += skipped_runs(&skipped.of_module);
        skipped.of_module.clear();
    }

    /// Keeps a kprobe's program, to ask how often it was skipped.
    pub(super) fn watch_kprobe(&self, program: ProgramFd) {
        self.skipped().kprobes.push(program);
    }

    /// Detaches every program kept.
    pub(super) fn unwatch(&self) {
        let mut skipped = self.skipped();
        skipped.before = skipped.total();
        skipped.of_module.clear();
        skipped.of_kernel.clear();
        skipped.kprobes.clear();
    }

    fn skipped(&self) -> MutexGuard<'_, Skipped> {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CountSource for Counters {
    /// Two system calls per key.
    fn counts(&self) -> Result<Vec<(CountKey, u64)>, SourceError> {
        totals(self.carried.counts.clone(), &self.counts)
    }

    fn node_counts(&self) -> Result<Vec<(NodeCountKey, u64)>, SourceError> {
        totals(self.carried.node_counts.clone(), &self.node_counts)
    }

    fn stats(&self) -> Result<Vec<(Stat, u64)>, SourceError> {
        Stat::ALL
            .iter()
            .map(|stat| Ok((*stat, self.stat(*stat)?)))
            .collect()
    }

    fn skipped_runs(&self) -> SkippedRuns {
        self.skipped().total()
    }
}

impl Held for Counters {
    /// Two system calls per attempt.
    fn attempts(&self, since: MonoNs) -> Result<Vec<TupleKey>, SourceError> {
        let mut tuples = Vec::new();
        // The kernel begins again at 0 when the key it shall go on from has just made room.
        for entry in self.attempts.iter().take(ATTEMPTS_MAX as usize) {
            let (tuple, attempt) = entry?;
            if attempt.first_seen_ns >= since.0 {
                tuples.push(tuple);
            }
        }
        Ok(tuples)
    }
}

/// Every key with what was counted before and what all CPUs have counted since.
fn totals<K: Pod + Ord>(
    mut totals: BTreeMap<K, u64>,
    map: &PerCpuHashMap<MapData, K, u64>,
) -> Result<Vec<(K, u64)>, SourceError> {
    for entry in map {
        let (key, values) = entry?;
        *totals.entry(key).or_default() += values.iter().sum::<u64>();
    }
    Ok(totals.into_iter().collect())
}
