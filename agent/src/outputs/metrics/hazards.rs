//! `ipvs_lens_sysctl` and `ipvs_lens_hazard`: the doctor's rules, kept up to date while the agent
//! runs, with what the kernel's counters have shown.
//!
//! Renders what [`crate::doctor::live`] keeps.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use agent_core::doctor::facts::Netns;
use agent_core::doctor::rules::{RULES, Rule};

use super::labels::Labels;
use super::names;
use super::sample::{Page, Part, Sample};
use crate::doctor::live::{FactSource, Live};
use crate::event::NetnsId;
use crate::ledger::Count;
use crate::status::SharedStatus;

/// Parameters of `net.ipv4.vs` that decide what the rules judge; those a kernel lacks are left out.
pub const SYSCTLS: &[&str] = &[
    "conn_reuse_mode",
    "conntrack",
    "expire_nodest_conn",
    "expire_quiescent_template",
    "run_estimation",
];

/// The part that shows them; also keeps `observed` in `/status`.
pub struct Hazards {
    source: Box<dyn FactSource>,
    status: SharedStatus,
    state: Mutex<Live>,
}

impl Hazards {
    /// Nothing looked at yet.
    #[must_use]
    pub fn new(source: impl FactSource + 'static, status: SharedStatus) -> Self {
        Self {
            source: Box::new(source),
            status,
            state: Mutex::default(),
        }
    }

    /// Looks at everything; blocks, see [`FactSource::gather`].
    pub fn look(&self) {
        let facts = self.source.gather();
        self.state().gathered(facts);
    }

    fn state(&self) -> MutexGuard<'_, Live> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part for Hazards {
    fn netns(&self) -> BTreeSet<NetnsId> {
        let state = self.state();
        state.shown().map(|netns| NetnsId(netns.id)).collect()
    }

    /// Reads the parameters without holding the lock that a scrape waits for.
    fn counted(&self, counts: &[Count]) {
        let (mut facts, reading) = self.state().begin_reading();
        self.source.refresh_sysctls(&mut facts);
        let mut state = self.state();
        state.count(counts);
        state.end_reading(facts, reading);
        let seen = state.seen_to_facts();
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
            for (labels, netns, there) in series(&state, rule) {
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

/// Labels, namespace and value of each series of a hazard.
fn series(live: &Live, rule: &Rule) -> Vec<(Labels, Option<u32>, bool)> {
    let shown: BTreeSet<u32> = live.shown().map(|netns| netns.id).collect();
    let labels = |source: &str| {
        vec![
            ("hazard", rule.id.to_owned()),
            ("source", source.to_owned()),
        ]
    };
    let mut series = Vec::new();
    for (netns, verdict) in rule.judge(&live.facts) {
        if netns.is_some_and(|netns| !shown.contains(&netns.id)) {
            continue;
        }
        let id = netns.map(|netns| netns.id);
        series.push((labels("configured"), id, verdict.is_hazard()));
        if let Some(seen) = rule.seen {
            let counts = netns.and_then(|netns| live.facts.seen(netns));
            let times = counts.map_or(0, seen);
            // What the rule calls healthy under these parameters is no hazard, however often seen.
            let there = verdict.is_hazard() && times > 0;
            series.push((labels("observed"), id, there));
        }
    }
    series
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

#[cfg(test)]
mod tests;
