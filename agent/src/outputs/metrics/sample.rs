//! One scrape as data: families, their samples, and who adds them.

use std::collections::{BTreeMap, BTreeSet};

pub use super::histogram::Example;
use super::histogram::Histogram;
use super::labels::{self, Labels};
use super::names::{self, Metric};
use crate::event::{NetnsId, RealServer, Service};
use crate::ledger::Count;

/// One value.
#[derive(Clone, Debug)]
pub enum Sample {
    /// Of a counter, with the client of its last increase where one is known.
    Counter(u64, Option<Example>),
    /// Of a gauge, in the unit its name ends in.
    Gauge(f64),
    /// Of a histogram.
    Histogram(Histogram),
}

/// The samples of one family.
pub type Samples = Vec<(Labels, Sample)>;

/// A part of the agent with metrics of its own; [`super::Metrics::add`] takes it.
pub trait Part: Send + Sync {
    /// Network namespaces of the services it shows: with those of the other parts they decide
    /// whether services are labelled with theirs.
    fn netns(&self) -> BTreeSet<NetnsId> {
        BTreeSet::new()
    }

    /// Takes what the kernel has counted so far, before [`Self::show`] and when `/status` is
    /// asked for, on the same kind of thread.
    fn counted(&self, _counts: &[Count]) {}

    /// Puts its families onto the page, at every scrape, on a thread that may block for as long
    /// as a few system calls take.
    fn show(&self, page: &mut Page);
}

/// The samples of one scrape.
#[derive(Debug, Default)]
pub struct Page {
    with_netns: bool,
    families: BTreeMap<&'static str, Samples>,
    refused: BTreeMap<&'static str, u64>,
}

impl Page {
    /// An empty page; `with_netns` where services of more than one namespace will be on it.
    #[must_use]
    pub fn new(with_netns: bool) -> Self {
        Self {
            with_netns,
            ..Self::default()
        }
    }

    /// Adds samples of a family of [`names::ALL`]; others are never shown.
    pub fn put(&mut self, family: Metric, samples: Samples) {
        self.families
            .entry(family.name)
            .or_default()
            .extend(samples);
    }

    /// Adds the one sample of a family without labels.
    pub fn put_one(&mut self, family: Metric, sample: Sample) {
        self.put(family, vec![(Labels::new(), sample)]);
    }

    /// Says how many label sets a capped family has refused in this scrape, 0 included.
    pub fn refuse(&mut self, family: Metric, label_sets: usize) {
        let label_sets = u64::try_from(label_sets).unwrap_or(u64::MAX);
        *self.refused.entry(family.name).or_default() += label_sets;
    }

    /// Labels of a service on this page.
    #[must_use]
    pub fn service(&self, service: &Service) -> Labels {
        labels::service(service, self.with_netns)
    }

    /// Labels of something that belongs to a namespace, on this page.
    #[must_use]
    pub fn with_netns(&self, mut labels: Labels, netns: NetnsId) -> Labels {
        if self.with_netns {
            labels.push(("netns", netns.to_string()));
        }
        labels
    }

    /// Labels of a real server on this page.
    #[must_use]
    pub fn real_server(&self, of: &Service, server: Option<RealServer>) -> Labels {
        labels::real_server(of, server, self.with_netns)
    }

    /// What capped families have refused in this scrape.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.refused.iter().map(|(name, count)| (*name, *count))
    }

    /// Every family there is, in the order of [`names::ALL`], those without samples included.
    pub fn families(&self) -> impl Iterator<Item = (&'static Metric, &[(Labels, Sample)])> {
        names::ALL.iter().map(|family| {
            let samples = self.families.get(family.name);
            (family, samples.map_or(&[][..], Vec::as_slice))
        })
    }
}
