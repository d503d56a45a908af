//! A histogram with classic buckets, native buckets and the clients behind its observations.

use std::fmt::Error;
use std::time::SystemTime;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::histogram::{Histogram as Native, NativeHistogramConfig};

use super::labels::Labels;

/// Resolution of native buckets: each ends 2^(1/8), or 9 %, above the one before, which is finer
/// than the clocks of two machines agree on a second.
const NATIVE_SCHEMA: i8 = 3;

/// Native buckets of one histogram, 20 powers of two at full resolution: from 0.1 ms to 100 s.
/// Beyond it the library halves the resolution instead of growing.
const NATIVE_BUCKETS_MAX: usize = 160;

/// The client behind an observation, for an exemplar.
#[derive(Clone, Debug)]
pub struct Example {
    /// Who it was; at most 128 characters, as OpenMetrics wants it.
    pub labels: Labels,
    /// When.
    pub at: SystemTime,
}

/// Counts by size. Clones share what they count.
///
/// The library keeps exemplars only with classic buckets and native buckets only without
/// exemplars, so both are kept and the form written decides which is shown.
#[derive(Clone, Debug)]
pub struct Histogram {
    classic: HistogramWithExemplars<Labels>,
    native: Native,
}

impl Histogram {
    /// Nothing observed; `buckets` are the upper bounds of the classic ones, ascending.
    #[must_use]
    pub fn new(buckets: &[f64]) -> Self {
        let config =
            NativeHistogramConfig::with_schema(NATIVE_SCHEMA).max_buckets(NATIVE_BUCKETS_MAX);
        let bounds = buckets.iter().copied();
        Self {
            classic: HistogramWithExemplars::new(bounds.clone()),
            native: Native::new_classic_and_native(bounds, config),
        }
    }

    /// One value, and who it was observed of.
    pub fn observe(&self, value: f64, example: Option<Example>) {
        let (labels, at) = example.map(|example| (example.labels, example.at)).unzip();
        self.classic.observe(value, labels, at);
        self.native.observe(value);
    }

    /// Classic buckets with exemplars.
    pub(super) fn encode_classic(&self, encoder: MetricEncoder) -> Result<(), Error> {
        self.classic.encode(encoder)
    }

    /// Classic and native buckets without exemplars; only the protobuf form shows the latter.
    pub(super) fn encode_native(&self, encoder: MetricEncoder) -> Result<(), Error> {
        self.native.encode(encoder)
    }
}
