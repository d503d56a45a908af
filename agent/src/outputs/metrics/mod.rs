//! `/metrics`: the kernel's exact counters, read at scrape, and what findings add to them.
//!
//! Counters that alerts rest on come from the kernel through a [`CountSource`]; events add only
//! the delay histogram and the exemplars, which name a client.

#[cfg(test)]
mod conservation;
mod encode;
mod families;
pub mod form;
pub mod hazards;
pub mod histogram;
pub mod labels;
pub mod names;
mod node;
mod page;
pub mod sample;
pub mod system;
pub mod table;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use agent_common::stat::Stat;
use agent_common::verdict::{DropCause, Outcome};
use agent_core::loss::Loss;
use prometheus_client::encoding::prometheus_protobuf::EncodeError;
use thiserror::Error;

pub use families::{SERIES_MAX, SERVICES_MAX};

use crate::clock::{MonoNs, WallAnchor};
use crate::correlate::Counters;
use crate::decode::{Malformed, Reason};
use crate::event::{NetnsId, Service};
use crate::finding::{
    Attempt, Client, ConnectDelayed, Finding, StaleConnection, StaleOutcome, WeightedServer,
};
use crate::ledger::Counts;
use crate::ledger::node::NodeCounts;
pub use crate::source::counts::{CountSource, SkippedRuns, SourceError};
use crate::status::{ProbeState, ProbeStatus};
use families::{Families, RECENT, Shelves, StaleKey};
use form::Form;
use histogram::Histogram;
use labels::Labels;
use node::{NodeFamilies, NodeShelves};
use sample::{Example, Page, Part, Sample, Samples};

/// Upper bounds of the delay histogram, in seconds.
///
/// A client's SYNs leave 1, 3, 7 and 15 s after the first, so each of these waits has a bucket
/// that begins a little below it (clocks) and ends well above it (slow machines): 0.9 to 1.5,
/// 2.8 to 4, 6.5 to 9, 14.5 to 20. Below lie delays that no lost SYN of Linux explains.
pub const DELAY_BUCKETS_SECONDS: [f64; 11] =
    [0.1, 0.25, 0.5, 0.9, 1.5, 2.8, 4.0, 6.5, 9.0, 14.5, 20.0];

/// Histograms of one family with services of their own, of 14 series each.
///
/// Only services whose clients were hurt have any.
pub const HISTOGRAMS_MAX: usize = 100;

/// Losses of one part of the agent, counted from its start; readable from any thread.
pub trait LossSource: Send + Sync {
    /// The numbers it keeps; a [`Loss`] that is not its own is left out.
    fn losses(&self) -> Vec<(Loss, u64)>;
}

/// What runs, for `ipvs_lens_build_info`.
#[derive(Clone, Copy, Debug)]
pub struct BuildInfo {
    /// Version of the package.
    pub version: &'static str,
    /// Revision of the sources.
    pub revision: &'static str,
    /// Compiler.
    pub rustc: &'static str,
}

impl BuildInfo {
    /// This build.
    pub const THIS: Self = Self {
        version: env!("CARGO_PKG_VERSION"),
        revision: match option_env!("IPVS_LENS_REVISION") {
            Some(revision) => revision,
            None => "unknown",
        },
        rustc: match option_env!("IPVS_LENS_RUSTC") {
            Some(rustc) => rustc,
            None => "unknown",
        },
    };
}

/// Why there is no exposition.
#[derive(Debug, Error)]
pub enum RenderError {
    /// The kernel's maps.
    #[error("cannot read the kernel's counters: {0}; see /status for the probes")]
    Source(#[source] SourceError),
    /// The encoder, which does not fail on memory.
    #[error("cannot encode the metrics")]
    Encode(#[from] EncodeError),
}

/// What events add.
#[derive(Clone, Default)]
struct Live {
    source: Option<Arc<dyn CountSource>>,
    probes: Vec<ProbeStatus>,
    received: u64,
    malformed: BTreeMap<Reason, u64>,
    correlator: Counters,
    loss_sources: Vec<Arc<dyn LossSource>>,
    /// Without a service: of those that have no histogram of their own.
    delays: BTreeMap<(Option<Service>, DropCause), Histogram>,
    outcomes: BTreeMap<(Option<Service>, Outcome), Histogram>,
    /// When services without a histogram of their own were last delayed by each cause.
    delays_hidden: BTreeMap<DropCause, MonoNs>,
    /// The same of outcomes.
    outcomes_hidden: BTreeMap<Outcome, MonoNs>,
    examples: BTreeMap<StaleKey, Example>,
    /// Counts under keys that could not be read, at the last exposition.
    count_keys_malformed: u64,
}

/// All metrics of the agent; share it in an [`Arc`].
pub struct Metrics {
    build: BuildInfo,
    live: Mutex<Live>,
    parts: Mutex<Vec<Arc<dyn Part>>>,
    shelves: Mutex<AllShelves>,
}

/// What the last scrape showed.
#[derive(Debug, Default)]
struct AllShelves {
    services: Shelves,
    node: NodeShelves,
}

impl Metrics {
    /// Nothing counted, no source.
    #[must_use]
    pub fn new(build: BuildInfo) -> Self {
        Self {
            build,
            live: Mutex::default(),
            parts: Mutex::default(),
            shelves: Mutex::default(),
        }
    }

    /// Shows this part's families too, from the next scrape on.
    pub fn add(&self, part: Arc<dyn Part>) {
        self.parts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(part);
    }

    /// Adds these losses to [`names::EVENTS_LOST`], from the next scrape on.
    pub fn add_losses(&self, source: Arc<dyn LossSource>) {
        self.live().loss_sources.push(source);
    }

    /// Reads the kernel's counters from here on; `None` when they are gone.
    pub fn set_source(&self, source: Option<Arc<dyn CountSource>>) {
        self.live().source = source;
    }

    /// Shows these probes.
    pub fn set_probes(&self, probes: Vec<ProbeStatus>) {
        self.live().probes = probes;
    }

    /// A record was read, whether it decodes or not.
    pub fn received(&self) {
        self.live().received += 1;
    }

    /// A record was refused.
    pub fn malformed(&self, malformed: &Malformed) {
        *self.live().malformed.entry(malformed.reason()).or_default() += 1;
    }

    /// What became of the decoded events so far.
    pub fn correlated(&self, counters: Counters) {
        self.live().correlator = counters;
    }

    /// A finding: a delay, an outcome, or an example of a stale connection.
    ///
    /// What has no client is counted by the kernel alone.
    pub fn finding(&self, finding: &Finding, clocks: &WallAnchor) {
        let at = clocks.wall(finding.at());
        match finding {
            Finding::StaleConnection(found) => self.live().example(found, at),
            Finding::StaleOutcome(found) => self.live().ended(found, at),
            Finding::ConnectDelayed(found) => self.live().delayed(found, at),
            _ => {}
        }
    }

    /// The whole exposition in one form.
    ///
    /// # Errors
    /// [`RenderError`] when the kernel's counters cannot be read: half an exposition would look
    /// like counters that were reset.
    pub fn render(&self, form: Form) -> Result<Vec<u8>, RenderError> {
        Ok(encode::encode(self.page()?, form)?)
    }

    fn page(&self) -> Result<Page, RenderError> {
        let kernel = self.read(Kernel::read)?;
        // One scrape after the other: each shows what has changed since the last one.
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        let at = unix_seconds(kernel.counts.at);
        let families = Families::of(&kernel.counts, &shelves.services);
        let node = NodeFamilies::of(&kernel.node_counts, &shelves.node);
        let views = families.show(at, &mut shelves.services);
        // A copy: whoever observes never waits for a scrape to be written.
        let live = {
            let mut live = self.live();
            live.count_keys_malformed = families.malformed + node.malformed;
            live.clone()
        };
        let parts = self.parts();
        for part in &parts {
            part.counted(&kernel.counts.all);
        }
        let mut netns = page::netns(&families, &live);
        netns.extend(parts.iter().flat_map(|part| part.netns()));
        let mut page = Page::new(netns.len() > 1);
        page::show(&mut page, self.build, &kernel, &families, &views, &live);
        node.show(&mut page, at, &mut shelves.node);
        drop(shelves);
        for part in parts {
            part.show(&mut page);
        }
        let hidden = hidden(&page);
        page.put(names::SERIES_DROPPED, hidden);
        Ok(page)
    }

    /// Tells every part what the kernel has counted, as a scrape does.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn count(&self) -> Result<(), RenderError> {
        let kernel = self.read(Kernel::read)?;
        for part in self.parts() {
            part.counted(&kernel.counts.all);
        }
        Ok(())
    }

    /// Every way of losing an event with its number, as `ipvs_lens_events_lost_total` has it.
    ///
    /// Cheap enough for every second: the table of counters, which may be large, is not read, so
    /// malformed keys in it are those of the last exposition.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn losses(&self) -> Result<Vec<(&'static str, u64)>, RenderError> {
        let kernel = self.read(Kernel::read_without_counts)?;
        Ok(self.live().losses(&kernel))
    }

    fn read(
        &self,
        read: fn(&dyn CountSource) -> Result<Kernel, SourceError>,
    ) -> Result<Kernel, RenderError> {
        // Not while the lock is held: reading takes system calls.
        let source = self.live().source.clone();
        match source {
            Some(source) => read(&*source).map_err(RenderError::Source),
            None => Ok(Kernel::default()),
        }
    }

    fn parts(&self) -> Vec<Arc<dyn Part>> {
        self.parts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Label sets each family hides in this scrape.
fn hidden(page: &Page) -> Samples {
    let hidden = page.refused().map(|(family, count)| {
        #[expect(clippy::cast_precision_loss, reason = "label sets, far below 2^52")]
        let count = Sample::Gauge(count as f64);
        (vec![("family", family.to_owned())], count)
    });
    hidden.collect()
}

fn unix_seconds(at: MonoNs) -> u64 {
    let since = crate::clock::wall_anchor()
        .wall(at)
        .duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// What one scrape read from the kernel.
#[derive(Default)]
struct Kernel {
    counts: Counts,
    node_counts: NodeCounts,
    stats: Vec<(Stat, u64)>,
    skipped_runs: SkippedRuns,
}

impl Kernel {
    fn read(source: &dyn CountSource) -> Result<Self, SourceError> {
        Ok(Self {
            counts: source.counts()?,
            node_counts: source.node_counts()?,
            ..Self::read_without_counts(source)?
        })
    }

    fn read_without_counts(source: &dyn CountSource) -> Result<Self, SourceError> {
        Ok(Self {
            counts: Counts::default(),
            node_counts: NodeCounts::default(),
            stats: source.stats()?,
            skipped_runs: source.skipped_runs(),
        })
    }

    fn stat(&self, stat: Stat) -> u64 {
        let found = self.stats.iter().find(|(member, _)| *member == stat);
        found.map_or(0, |(_, count)| *count)
    }
}

fn example(client: &Client, server: Option<WeightedServer>, at: SystemTime) -> Example {
    let real_server = server.map(|server| server.real_server);
    Example {
        labels: labels::exemplar(client.client, client.netns, real_server),
        at,
    }
}

impl Live {
    fn example(&mut self, found: &StaleConnection, at: SystemTime) {
        let Attempt {
            client,
            service,
            server,
            ..
        } = found.attempt;
        let Some(weighted) = server else {
            return;
        };
        let key = (service, weighted.real_server, found.cause);
        if self.examples.len() < SERIES_MAX || self.examples.contains_key(&key) {
            self.examples.insert(key, example(&client, server, at));
        }
    }

    fn delayed(&mut self, found: &ConnectDelayed, at: SystemTime) {
        let Attempt {
            client,
            mut service,
            server,
            ..
        } = found.attempt;
        if !service.is_known() {
            service.netns = NetnsId::default();
        }
        let key = histogram_of(&self.delays, service, found.cause);
        if key.0.is_none() {
            self.delays_hidden.insert(found.cause, found.at);
        }
        let delays = self.delays.entry(key).or_insert_with(no_delays);
        delays.observe(
            found.delay.as_secs_f64(),
            Some(example(&client, server, at)),
        );
    }

    fn ended(&mut self, found: &StaleOutcome, at: SystemTime) {
        let key = histogram_of(&self.outcomes, found.service, found.outcome);
        if key.0.is_none() {
            self.outcomes_hidden.insert(found.outcome, found.at);
        }
        let times = self.outcomes.entry(key).or_insert_with(no_delays);
        let example = example(&found.client, found.server, at);
        times.observe(found.lasted.as_secs_f64(), Some(example));
    }

    fn losses(&self, kernel: &Kernel) -> Vec<(&'static str, u64)> {
        let by_kernel = Stat::ALL
            .iter()
            .filter_map(|stat| Some((stat.loss_reason()?, kernel.stat(*stat))));
        let by_decode = Reason::ALL.iter().map(|reason| {
            let count = self.malformed.get(reason).copied().unwrap_or(0);
            (reason.as_str(), count)
        });
        by_kernel
            .chain([
                ("program_recursion", kernel.skipped_runs.trampolines),
                ("kprobe_skipped", kernel.skipped_runs.kprobes),
                ("count_key_malformed", self.count_keys_malformed),
            ])
            .chain(by_decode)
            .chain([
                ("attempts_evicted", self.correlator.evicted),
                ("findings_unread", self.correlator.unread),
            ])
            .chain(self.own_losses())
            .collect()
    }

    /// Losses of the agent itself, at 0 where they are not counted.
    fn own_losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counted: Vec<(Loss, u64)> = self
            .loss_sources
            .iter()
            .flat_map(|source| source.losses())
            .collect();
        Loss::ALL.into_iter().map(move |loss| {
            let of_loss = counted.iter().filter(|(member, _)| *member == loss);
            (loss.as_str(), of_loss.map(|(_, count)| count).sum())
        })
    }

    fn attached(&self) -> impl Iterator<Item = (Labels, f64)> {
        self.probes.iter().map(|probe| {
            let labels = vec![("probe", probe.name.clone()), ("via", probe.via.clone())];
            (
                labels,
                f64::from(u8::from(probe.state == ProbeState::Active)),
            )
        })
    }
}

/// Label sets that were hidden in a shared histogram within the last [`RECENT`].
fn hidden_recently<S>(hidden: &BTreeMap<S, MonoNs>, now: MonoNs) -> usize {
    let recent = hidden.values().filter(|at| now.since(**at) <= RECENT);
    recent.count()
}

/// The key of a service's own histogram; without room for another one, that of all others.
fn histogram_of<S: Ord + Copy>(
    histograms: &BTreeMap<(Option<Service>, S), Histogram>,
    service: Service,
    row: S,
) -> (Option<Service>, S) {
    let own = (Some(service), row);
    if histograms.len() < HISTOGRAMS_MAX || histograms.contains_key(&own) {
        own
    } else {
        (None, row)
    }
}

fn no_delays() -> Histogram {
    Histogram::new(&DELAY_BUCKETS_SECONDS)
}
