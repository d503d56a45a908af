//! Reads what the kernel programs have counted, in this session and in those before it.

use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_common::attempt::{ATTEMPTS_MAX, Attempt};
use agent_common::count::CountKey;
use agent_common::key::TupleKey;
use agent_common::node::NodeCountKey;
use agent_common::stat::Stat;
use aya::maps::{HashMap, MapData, MapError, PerCpuArray};
use aya::programs::ProgramFd;

use super::banks::Banks;
use super::fexit::{self, FexitLink};
use crate::clock::{self, MonoNs};
use crate::ledger::node::{NodeCounts, NodeLedger};
use crate::ledger::{Counts, Ledger, Owner, Presence};
use crate::source::counts::{CountSource, SkippedRuns, SourceError};
use crate::source::table::Held;

/// The next reading of the tables empties a bank with this share of its keys in use: few enough
/// that a scrape in between is cheap.
const ROTATE_AT_SHARE: u64 = 16;

/// A bank with this share of its keys in use is emptied at once.
const ROTATE_NOW_AT_SHARE: u64 = 2;

/// Totals of sessions that are over; a counter that users see never goes back.
#[derive(Clone, Default)]
pub struct Carried {
    ledgers: Arc<Mutex<Ledgers>>,
    stats: [u64; Stat::ALL.len()],
    skipped_runs: SkippedRuns,
}

/// The sums of everything read from the kernel's tables.
#[derive(Default)]
struct Ledgers {
    counts: Ledger,
    nodes: NodeLedger,
}

/// The kernel's counters, readable from any thread, also after the programs are detached.
pub struct Counters {
    carried: Carried,
    banks: Mutex<Banks>,
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
        banks: Banks,
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
            banks: Mutex::new(banks),
            node_latest,
            stats,
            attempts,
            skipped: Mutex::new(skipped),
        }
    }

    /// Everything counted so far, for the session after this one; the programs are detached.
    ///
    /// # Errors
    /// Why the kernel's maps cannot be read.
    pub fn carry(&self) -> Result<Carried, SourceError> {
        // A program that began before it was detached may still count.
        lock(&self.banks).grace.wait()?;
        let mut stats = [0; Stat::ALL.len()];
        for (total, stat) in stats.iter_mut().zip(Stat::ALL) {
            *total = self.stat(*stat)?;
        }
        drop(self.read(clock::now())?);
        drop(self.read_node(clock::now())?);
        Ok(Carried {
            ledgers: Arc::clone(&self.carried.ledgers),
            stats,
            skipped_runs: self.skipped_runs(),
        })
    }

    /// Whether the bank in use has to be emptied before the next reading of the tables is due.
    pub fn fills_up(&self) -> bool {
        let banks = self.banks.try_lock();
        banks.is_ok_and(|banks| banks.is_filled(ROTATE_NOW_AT_SHARE).unwrap_or(false))
    }

    /// Moves what was counted of services into the ledger, which is returned.
    fn read(&self, now: MonoNs) -> Result<MutexGuard<'_, Ledgers>, SourceError> {
        let mut banks = lock(&self.banks);
        let mut ledgers = lock(&self.carried.ledgers);
        banks.read(self.full()?, |key, more| ledgers.counts.add(now, key, more))?;
        Ok(ledgers)
    }

    /// The same of the node.
    fn read_node(&self, now: MonoNs) -> Result<MutexGuard<'_, Ledgers>, SourceError> {
        let mut banks = lock(&self.banks);
        let mut ledgers = lock(&self.carried.ledgers);
        banks.read_node(self.full()?, |key, more| ledgers.nodes.add(now, key, more))?;
        Ok(ledgers)
    }

    /// Empties the bank in use if it holds many keys.
    fn rotate(&self, now: MonoNs) -> Result<(), SourceError> {
        let mut banks = lock(&self.banks);
        if !banks.is_filled(ROTATE_AT_SHARE)? {
            return Ok(());
        }
        let mut read = Vec::new();
        let mut read_node = Vec::new();
        // The ledgers are not kept waiting for the kernel.
        let rotated = banks.rotate(
            |key, more| read.push((key, more)),
            |key, more| read_node.push((key, more)),
        );
        let mut ledgers = lock(&self.carried.ledgers);
        for (key, more) in read {
            ledgers.counts.add(now, key, more);
        }
        for (key, more) in read_node {
            ledgers.nodes.add(now, key, more);
        }
        Ok(rotated?)
    }

    /// Counts that found no room in this session.
    fn full(&self) -> Result<u64, MapError> {
        let values = self.stats.get(&(Stat::CountsFull as u32), 0)?;
        Ok(values.iter().sum())
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
        lock(&self.skipped)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CountSource for Counters {
    /// Two system calls per key of the bank in use.
    fn counts(&self) -> Result<Counts, SourceError> {
        let now = clock::now();
        Ok(self.read(now)?.counts.counts(now))
    }

    fn node_counts(&self) -> Result<NodeCounts, SourceError> {
        Ok(self.read_node(clock::now())?.nodes.counts())
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
    fn increments(&self, now: MonoNs) -> Result<Vec<(CountKey, u64)>, SourceError> {
        self.rotate(now)?;
        Ok(self.read(now)?.counts.take_increments())
    }

    fn make_room(&self, now: MonoNs) -> Result<(), SourceError> {
        self.rotate(now)
    }

    fn settle(&self, now: MonoNs, presence: &dyn Fn(&Owner) -> Presence, listed: &[Owner]) {
        let mut ledgers = lock(&self.carried.ledgers);
        let ledger = &mut ledgers.counts;
        for owner in listed {
            ledger.plant(now, *owner);
        }
        ledger.handle_tables(now, presence);
        let due = ledger.due(now);
        ledger.fold(&due);
        let gone = ledger.take_gone_services(now);
        drop(ledgers);
        lock(&self.banks).forget_services(&gone);
    }

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
