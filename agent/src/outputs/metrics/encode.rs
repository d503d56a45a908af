//! A page of samples to bytes, by `prometheus-client`.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_protobuf::EncodeError;
use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model as message;
use prometheus_client::encoding::{
    DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_protobuf, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::CounterWithExemplar;
use prometheus_client::registry::{Registry, Unit};

use super::form::Form;
use super::labels::Labels;
use super::names::{Kind, Metric};
use super::sample::{Example, Page, Sample};

/// The bytes of `page` in this form.
///
/// # Errors
/// None in practice: writing to memory does not fail.
pub fn encode(page: Page, form: Form) -> Result<Vec<u8>, EncodeError> {
    match form {
        Form::OpenMetrics1 | Form::OpenMetrics0 => Ok(openmetrics(page)?.into_bytes()),
        Form::Text1 | Form::Text0 => Ok(super::text::text(&families(page)?)?.into_bytes()),
        Form::Protobuf => Ok(delimited(&families(page)?)?),
    }
}

fn openmetrics(page: Page) -> Result<String, Error> {
    let mut out = String::new();
    text::encode(&mut out, &registry(page, Shown::Classic))?;
    Ok(out)
}

/// The page as messages, classic and native buckets with their exemplars.
fn families(page: Page) -> Result<Vec<message::MetricFamily>, Error> {
    let mut families = prometheus_protobuf::encode(&registry(page, Shown::Both))?;
    for family in &mut families {
        if family.r#type() == message::MetricType::Histogram {
            join(family);
        }
    }
    Ok(families)
}

/// Readers of the protobuf form know families by their metrics: one without any is left out.
fn delimited(families: &[message::MetricFamily]) -> Result<Vec<u8>, EncodeError> {
    use prost::Message;
    let mut bytes = Vec::new();
    for family in families.iter().filter(|family| !family.metric.is_empty()) {
        family.encode_length_delimited(&mut bytes)?;
    }
    Ok(bytes)
}

/// Makes one of each histogram's two metrics: its counts, and the exemplars of its buckets.
fn join(family: &mut message::MetricFamily) {
    let mut metrics = std::mem::take(&mut family.metric).into_iter();
    while let Some((mut counts, examples)) = metrics.next().zip(metrics.next()) {
        if let Some((counts, examples)) = counts.histogram.as_mut().zip(examples.histogram) {
            for (bucket, example) in counts.bucket.iter_mut().zip(examples.bucket) {
                bucket.exemplar = example.exemplar;
            }
        }
        family.metric.push(counts);
    }
}

/// What is encoded of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// Classic buckets with exemplars.
    Classic,
    /// Classic and native buckets, then once more with exemplars, for [`join`].
    Both,
}

#[derive(Debug)]
struct Encoding {
    page: Page,
    shown: Shown,
}

fn registry(page: Page, shown: Shown) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Encoding { page, shown }));
    registry
}

impl Collector for Encoding {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        for (metric, samples) in self.page.families() {
            family(&mut encoder, metric, samples, self.shown)?;
        }
        Ok(())
    }
}

fn family(
    encoder: &mut DescriptorEncoder,
    metric: &Metric,
    samples: &[(Labels, Sample)],
    shown: Shown,
) -> Result<(), Error> {
    let (name, unit) = (metric.stem(), metric.unit().map(library_unit));
    let kind = match metric.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    let mut family = encoder.encode_descriptor(name, metric.help, unit.as_ref(), kind)?;
    if let [(labels, sample)] = samples
        && labels.is_empty()
    {
        // The library would write an empty label set as `{}`.
        return encode_sample(family, sample, shown);
    }
    for (labels, sample) in samples {
        encode_sample(family.encode_family(labels)?, sample, shown)?;
    }
    Ok(())
}

fn library_unit(unit: &str) -> Unit {
    match unit {
        "seconds" => Unit::Seconds,
        other => Unit::Other(other.to_owned()),
    }
}

fn encode_sample(mut encoder: MetricEncoder, sample: &Sample, shown: Shown) -> Result<(), Error> {
    match sample {
        Sample::Counter(value, example) => counter(&mut encoder, *value, example.as_ref()),
        Sample::Gauge(value) => encoder.encode_gauge(value),
        Sample::Histogram(of) => {
            if shown == Shown::Both {
                // The encoder once more, for the same labels.
                of.encode_native(encoder.encode_family(&Labels::new())?)?;
            }
            of.encode_classic(encoder)
        }
    }
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
