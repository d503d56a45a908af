//! The kernel's counters, as whoever shows or judges them reads them.

use std::error::Error;

use agent_common::stat::Stat;

use crate::ledger::Counts;
use crate::ledger::node::NodeCounts;

/// Error of a [`CountSource`].
pub type SourceError = Box<dyn Error + Send + Sync>;

/// Where the kernel's counters are read, at every scrape, from any thread.
pub trait CountSource: Send + Sync {
    /// Every counter, summed over CPUs, in the order of the keys.
    ///
    /// # Errors
    /// Why the kernel's map could not be read.
    fn counts(&self) -> Result<Counts, SourceError>;

    /// Every counter about the node, summed over CPUs.
    ///
    /// # Errors
    /// Why the kernel's map could not be read.
    fn node_counts(&self) -> Result<NodeCounts, SourceError> {
        Ok(NodeCounts::default())
    }

    /// What the kernel programs count about themselves; what is missing counts 0.
    ///
    /// # Errors
    /// Why the kernel's map could not be read.
    fn stats(&self) -> Result<Vec<(Stat, u64)>, SourceError>;

    /// Runs of programs that the kernel skipped.
    fn skipped_runs(&self) -> SkippedRuns {
        SkippedRuns::default()
    }
}

/// Runs of programs that the kernel skipped, each a loss if the packet was worth counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SkippedRuns {
    /// Of a trampoline's program, because it was running on that CPU already. Linux 5.12 and newer.
    pub trampolines: u64,
    /// Of a kprobe's program, because any kprobe's was running on that CPU, or somebody used a map
    /// there. Linux 6.7 and newer.
    pub kprobes: u64,
}
