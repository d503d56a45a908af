//! `ipvs_lens_sysctl` and `ipvs_lens_hazard`: the doctor's rules, kept up to date while the agent
//! runs, with what the kernel's counters have shown.
//!
//! What was seen belongs to the parameters it was seen under: once they change, counting starts
//! anew, so that a cured hazard is not "observed" for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use agent_common::count::{CountKey, TALLY_ATTEMPT, TALLY_SYN_DROP};
use agent_common::verdict::DropCause;

use super::labels::Labels;
use super::names;
use super::sample::{Page, Part, Sample};
use crate::decode;
use crate::doctor::facts::{Fact, Facts, Netns, Observed, Seen};
use crate::doctor::gather::{self, Look};
use crate::doctor::rules::{RULES, Rule};
use crate::event::{NetnsId, Verdict};
use crate::status::SharedStatus;

/// Parameters of `net.ipv4.vs` that decide what the rules judge; those a kernel lacks are left out.
pub const SYSCTLS: &[&str] = &[
    "conn_reuse_mode",
    "conntrack",
    "expire_nodest_conn",
    "expire_quiescent_template",
    "run_estimation",
];

/// Where facts come from.
pub trait Eyes: Send + Sync {
    /// Everything but what takes other programs; blocks for as long as the service table is large.
    fn look(&self) -> Facts;

    /// Reads the parameters again, which administrators change at any time.
    fn look_again(&self, facts: &mut Facts);
}

/// This node.
#[derive(Clone, Copy, Debug)]
pub struct Node;

impl Eyes for Node {
    fn look(&self) -> Facts {
        gather::gather(&Look::at_files())
    }

    fn look_again(&self, facts: &mut Facts) {
        gather::refresh_sysctls(facts);
    }
}

/// Counts by network namespace.
type Counts = BTreeMap<u32, Seen>;

#[derive(Default)]
struct State {
    facts: Facts,
    /// Counts when the parameters were last seen to change.
    before: Counts,
    /// Counts at the last reading.
    now: Counts,
}

/// The part that shows them; also keeps `observed` in `/status`.
pub struct Hazards {
    eyes: Box<dyn Eyes>,
    status: SharedStatus,
    state: Mutex<State>,
}

impl Hazards {
    /// Nothing looked at yet.
    #[must_use]
    pub fn new(eyes: impl Eyes + 'static, status: SharedStatus) -> Self {
        Self {
            eyes: Box::new(eyes),
            status,
            state: Mutex::default(),
        }
    }

    /// Looks at everything; blocks, see [`Eyes::look`].
    pub fn look(&self) {
        let facts = self.eyes.look();
        self.state().renew(facts);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part for Hazards {
    fn netns(&self) -> BTreeSet<NetnsId> {
        let state = self.state();
        state.shown().map(|netns| NetnsId(netns.id)).collect()
    }

    fn counted(&self, counts: &[(CountKey, u64)]) {
        let mut state = self.state();
        state.now = by_netns(counts);
        let mut facts = state.facts.clone();
        self.eyes.look_again(&mut facts);
        state.renew(facts);
        let seen = state.seen();
        state.facts.observed = Fact::Known(Observed {
            source: "this agent".to_owned(),
            by_netns: seen.clone(),
        });
        drop(state);
        self.status.update(|status| status.observed = seen);
    }

    fn show(&self, page: &mut Page) {
        let state = self.state();
        for netns in state.shown() {
            for (labels, value) in sysctls(netns) {
                let labels = page.with_netns(labels, NetnsId(netns.id));
                page.put(names::SYSCTL, vec![(labels, Sample::Gauge(value))]);
            }
        }
        for rule in RULES.iter().filter(|rule| rule.is_hazard()) {
            for (labels, netns, there) in state.hazards(rule) {
                let labels = match netns {
                    Some(id) => page.with_netns(labels, NetnsId(id)),
                    None => labels,
                };
                let value = f64::from(u8::from(there));
                page.put(names::HAZARD, vec![(labels, Sample::Gauge(value))]);
            }
        }
    }
}

impl State {
    /// Takes new facts; where parameters changed, what was seen before no longer counts.
    fn renew(&mut self, facts: Facts) {
        for new in &facts.netns {
            let old = self.facts.netns.iter().find(|old| old.id == new.id);
            let values = old.map(|old| (old.sysctls.known(), new.sysctls.known()));
            if let Some((Some(old), Some(new_values))) = values
                && old != new_values
            {
                let now = self.now.get(&new.id).cloned().unwrap_or_default();
                self.before.insert(new.id, now);
            }
        }
        let observed = std::mem::take(&mut self.facts.observed);
        self.facts = Facts { observed, ..facts };
    }

    /// Namespaces in which IPVS has services; the agent's own where there is none.
    fn shown(&self) -> impl Iterator<Item = &Netns> {
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

    /// Labels, namespace and value of each series of a hazard.
    fn hazards(&self, rule: &Rule) -> Vec<(Labels, Option<u32>, bool)> {
        let shown: BTreeSet<u32> = self.shown().map(|netns| netns.id).collect();
        let labels = |source: &str| {
            vec![
                ("hazard", rule.id.to_owned()),
                ("source", source.to_owned()),
            ]
        };
        let mut series = Vec::new();
        for (netns, verdict) in rule.judge(&self.facts) {
            if netns.is_some_and(|netns| !shown.contains(&netns.id)) {
                continue;
            }
            let id = netns.map(|netns| netns.id);
            series.push((labels("configured"), id, verdict.is_hazard()));
            if let Some(seen) = rule.seen {
                let counts = netns.and_then(|netns| self.facts.seen(netns));
                let times = counts.map_or(0, seen);
                series.push((labels("observed"), id, times > 0));
            }
        }
        series
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "parameters are small; a huge one may lose its last digits"
)]
fn sysctls(netns: &Netns) -> Vec<(Labels, f64)> {
    let Some(all) = netns.sysctls.known() else {
        return Vec::new();
    };
    let values = SYSCTLS.iter().filter_map(|name| {
        let value: i64 = all.get(*name)?.parse().ok()?;
        Some((vec![("name", (*name).to_owned())], value as f64))
    });
    values.collect()
}

/// The kernel's counts in the doctor's words; keys that cannot be read are counted elsewhere.
fn by_netns(counts: &[(CountKey, u64)]) -> Counts {
    let mut all = Counts::new();
    for (key, count) in counts {
        let seen = all.entry(key.service.netns).or_default();
        let mut add = |words: fn(&mut Seen) -> &mut BTreeMap<String, u64>, word: &str| {
            let sum = words(seen).entry(word.to_owned()).or_default();
            *sum = sum.saturating_add(*count);
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

#[cfg(test)]
mod tests;
