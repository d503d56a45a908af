//! A page of samples to OpenMetrics text, by `prometheus-client`.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::CounterWithExemplar;
use prometheus_client::registry::{Registry, Unit};

use super::labels::Labels;
use super::names::{Kind, Metric};
use super::{Delays, Example};

/// One scrape's samples, one entry per family.
#[derive(Debug, Default)]
pub struct Page(pub Vec<(Metric, Vec<(Labels, Sample)>)>);

/// One value.
#[derive(Debug)]
pub enum Sample {
    /// Of a counter, with the client of its last increase where one is known.
    Counter(u64, Option<Example>),
    /// Of a gauge.
    Gauge(i64),
    /// Of a histogram.
    Histogram(Delays),
}

impl Page {
    /// The text, `# EOF` included.
    ///
    /// # Errors
    /// None in practice: writing to a `String` does not fail.
    pub fn encode(self) -> Result<String, Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        for (metric, samples) in &self.0 {
            family(&mut encoder, metric, samples)?;
        }
        Ok(())
    }
}

fn family(
    encoder: &mut DescriptorEncoder,
    metric: &Metric,
    samples: &[(Labels, Sample)],
) -> Result<(), Error> {
    // The encoder adds unit and `_total` itself.
    let (name, unit, kind) = match metric.kind {
        Kind::Counter => (
            metric.name.strip_suffix("_total"),
            None,
            MetricType::Counter,
        ),
        Kind::Gauge => (Some(metric.name), None, MetricType::Gauge),
        Kind::Histogram => (
            metric.name.strip_suffix("_seconds"),
            Some(Unit::Seconds),
            MetricType::Histogram,
        ),
    };
    let name = name.ok_or(Error)?;
    let mut family = encoder.encode_descriptor(name, metric.help, unit.as_ref(), kind)?;
    for (labels, sample) in samples {
        match sample {
            Sample::Histogram(delays) => delays.encode(family.encode_family(labels)?)?,
            Sample::Counter(value, example) if labels.is_empty() => {
                counter(&mut family, *value, example.as_ref())?;
            }
            Sample::Counter(value, example) => {
                counter(&mut family.encode_family(labels)?, *value, example.as_ref())?;
            }
            Sample::Gauge(value) => family.encode_family(labels)?.encode_gauge(value)?,
        }
    }
    Ok(())
}

fn counter(
    encoder: &mut MetricEncoder,
    value: u64,
    example: Option<&Example>,
) -> Result<(), Error> {
    let Some(example) = example.filter(|_| value > 0) else {
        return encoder.encode_counter::<NoLabelSet, _, u64>(&value, None);
    };
    // The library makes an exemplar only while it counts: the last 1 carries it.
    let counter = CounterWithExemplar::<Labels>::default();
    counter.inc_by(value - 1, None, None);
    counter.inc_by(1, Some(example.labels.clone()), Some(example.at));
    let (value, exemplar) = counter.get();
    encoder.encode_counter(&value, exemplar.as_ref())
}
