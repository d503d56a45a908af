//! The doctor's facts kept up to date while the agent runs, with what the kernel's counters have
//! shown.
//!
//! What was seen belongs to the parameters it was seen under: once they change, counting starts
//! again, so that a cured hazard is not "observed" for ever.

use std::collections::{BTreeMap, BTreeSet};

use agent_common::count::{TALLY_ATTEMPT, TALLY_SYN_DROP};
use agent_common::verdict::DropCause;
use agent_core::decode;
use agent_core::doctor::facts::{Fact, Facts, Netns, Observed, Seen};
use agent_core::event::Verdict;
use agent_core::ledger::Count;

use super::gather::{self, Look};

/// Where facts come from.
pub trait FactSource: Send + Sync {
    /// Everything but what takes other programs; blocks for as long as the service table is large.
    fn gather(&self) -> Facts;

    /// Reads the parameters again, which administrators change at any time.
    fn refresh_sysctls(&self, facts: &mut Facts);
}

/// This node.
#[derive(Clone, Copy, Debug)]
pub struct Node;

impl FactSource for Node {
    fn gather(&self) -> Facts {
        gather::gather(&Look::at_files())
    }

    fn refresh_sysctls(&self, facts: &mut Facts) {
        gather::refresh_sysctls(facts);
    }
}

/// Counts by network namespace.
pub type Counts = BTreeMap<u32, Seen>;

/// The facts of a node and what was seen on it since its parameters last changed.
#[derive(Default)]
pub struct Live {
    /// What the rules judge.
    pub facts: Facts,
    /// How often [`Self::facts`] were gathered.
    gathered: u64,
    /// Counts when the parameters were last seen to change.
    before: Counts,
    /// Counts at the last reading.
    now: Counts,
    /// Namespaces whose parameters were seen to change after [`Self::now`] was read: what is
    /// counted until the next reading happened under the old ones, or may have.
    changed_since: BTreeSet<u32>,
}

impl Live {
    /// A copy of the facts to refresh without holding a lock, and a number for
    /// [`Self::end_reading`].
    pub fn begin_reading(&self) -> (Facts, u64) {
        (self.facts.clone(), self.gathered)
    }

    /// Takes refreshed facts, unless newer ones were gathered meanwhile.
    pub fn end_reading(&mut self, facts: Facts, reading: u64) {
        if reading == self.gathered {
            self.renew(facts);
        }
    }

    /// Takes newly gathered facts.
    pub fn gathered(&mut self, facts: Facts) {
        self.gathered += 1;
        let changed = self.renew(facts);
        self.changed_since.extend(changed);
    }

    /// Takes what the kernel has counted so far.
    pub fn count(&mut self, counts: &[Count]) {
        self.now = by_netns(counts);
        for id in std::mem::take(&mut self.changed_since) {
            self.forget_before_now(id);
        }
    }

    /// Makes what was seen one of the facts, and returns it.
    pub fn seen_to_facts(&mut self) -> Counts {
        let seen = self.seen();
        self.facts.observed = Fact::Known(Observed {
            source: "this agent".to_owned(),
            by_netns: seen.clone(),
        });
        seen
    }

    /// Takes new facts; where parameters changed, what was seen before no longer counts. Returns
    /// the namespaces where they did.
    fn renew(&mut self, facts: Facts) -> Vec<u32> {
        let mut changed = Vec::new();
        for new in &facts.netns {
            let old = self.facts.netns.iter().find(|old| old.id == new.id);
            let values = old.map(|old| (old.sysctls.known(), new.sysctls.known()));
            if let Some((Some(old), Some(new_values))) = values
                && old != new_values
            {
                changed.push(new.id);
            }
        }
        for id in &changed {
            self.forget_before_now(*id);
        }
        let observed = std::mem::take(&mut self.facts.observed);
        self.facts = Facts { observed, ..facts };
        changed
    }

    /// What was counted until the last reading no longer counts as seen.
    fn forget_before_now(&mut self, id: u32) {
        let now = self.now.get(&id).cloned().unwrap_or_default();
        self.before.insert(id, now);
    }

    /// Namespaces in which IPVS has services; the agent's own where there is none.
    pub fn shown(&self) -> impl Iterator<Item = &Netns> {
        let busy = |netns: &&Netns| {
            let table = netns.table.known();
            table.is_some_and(|table| table.service_count() > 0)
        };
        let any_busy = self.facts.netns.iter().any(|netns| busy(&netns));
        let all = self.facts.netns.iter().enumerate();
        all.filter(move |(at, netns)| if any_busy { busy(netns) } else { *at == 0 })
            .map(|(_, netns)| netns)
    }

    fn seen(&self) -> Counts {
        let nothing = Seen::default();
        let now = self.now.iter();
        now.map(|(id, now)| (*id, now.since(self.before.get(id).unwrap_or(&nothing))))
            .collect()
    }
}

/// The kernel's counts in the doctor's words; keys that cannot be read are counted elsewhere.
fn by_netns(counts: &[Count]) -> Counts {
    let mut all = Counts::new();
    for Count { key, total, .. } in counts.iter().filter(|count| count.total > 0) {
        let seen = all.entry(key.service.netns).or_default();
        let mut add = |words: fn(&mut Seen) -> &mut BTreeMap<String, u64>, word: &str| {
            let sum = words(seen).entry(word.to_owned()).or_default();
            *sum = sum.saturating_add(*total);
        };
        match key.tally {
            TALLY_ATTEMPT => {
                let Ok(verdict) = decode::verdict(key.decision, key.cause) else {
                    continue;
                };
                add(|seen| &mut seen.decisions, verdict.decision().as_str());
                if let Verdict::ReusedStale(cause) = verdict {
                    add(|seen| &mut seen.stale, cause.as_str());
                }
            }
            TALLY_SYN_DROP => {
                if let Ok(cause) = DropCause::try_from(key.cause) {
                    add(|seen| &mut seen.syn_drops, cause.as_str());
                }
            }
            _ => {}
        }
    }
    all
}
