//! The Prometheus text format 0.0.4, written from the same messages as the protobuf form.
//!
//! PURE. Bounds are written as OpenMetrics and Prometheus's own protobuf reader write them
//! (`le="1.0"`), so that a series keeps its name whichever form it was scraped in.

use std::fmt::{Error, Write};

use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{
    Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

/// The text of these families; native histograms and exemplars have no place in it.
///
/// # Errors
/// None in practice: writing to a `String` does not fail.
pub fn text(families: &[MetricFamily]) -> Result<String, Error> {
    let mut text = String::new();
    for family in families {
        let (name, help) = (&family.name, escaped(&family.help, false));
        let kind = match family.r#type() {
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram | MetricType::GaugeHistogram => "histogram",
            MetricType::Summary => "summary",
            MetricType::Untyped => "untyped",
        };
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
        for metric in &family.metric {
            samples(&mut text, name, metric)?;
        }
    }
    Ok(text)
}

fn samples(text: &mut String, name: &str, metric: &Metric) -> Result<(), Error> {
    let labels = &metric.label;
    if let Some(counter) = &metric.counter {
        sample(text, name, labels, None, counter.value)?;
    }
    if let Some(gauge) = &metric.gauge {
        sample(text, name, labels, None, gauge.value)?;
    }
    if let Some(of) = &metric.histogram {
        histogram(text, name, labels, of)?;
    }
    Ok(())
}

fn histogram(
    text: &mut String,
    name: &str,
    labels: &[LabelPair],
    of: &Histogram,
) -> Result<(), Error> {
    let bucket_name = format!("{name}_bucket");
    for bucket in &of.bucket {
        let bound = Some(bucket.upper_bound);
        sample(text, &bucket_name, labels, bound, bucket.cumulative_count)?;
    }
    sample(text, &format!("{name}_sum"), labels, None, of.sample_sum)?;
    let count = of.sample_count;
    sample(text, &format!("{name}_count"), labels, None, count)
}

fn sample(
    text: &mut String,
    name: &str,
    labels: &[LabelPair],
    bound: Option<f64>,
    value: impl Into<Value>,
) -> Result<(), Error> {
    text.write_str(name)?;
    let mut before = '{';
    for label in labels {
        let value = escaped(&label.value, true);
        write!(text, "{before}{}=\"{value}\"", label.name)?;
        before = ',';
    }
    if let Some(bound) = bound {
        write!(text, "{before}le=\"{}\"", le(bound))?;
        before = ',';
    }
    let end = if before == '{' { "" } else { "}" };
    writeln!(text, "{end} {}", value.into().0)
}

/// A value as text.
struct Value(String);

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self(count.to_string())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self(if value.is_infinite() {
            (if value > 0.0 { "+Inf" } else { "-Inf" }).to_owned()
        } else {
            value.to_string()
        })
    }
}

fn le(bound: f64) -> String {
    if bound.is_infinite() {
        "+Inf".to_owned()
    } else {
        format!("{bound:?}")
    }
}

/// Backslashes and line ends; in label values also quotes.
fn escaped(text: &str, quotes: bool) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes {
        escaped.replace('"', "\\\"")
    } else {
        escaped
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{
        Bucket, Counter, Gauge,
    };

    use super::*;

    fn label(name: &str, value: &str) -> LabelPair {
        LabelPair {
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }

    fn family(name: &str, kind: MetricType, metric: Metric) -> MetricFamily {
        MetricFamily {
            name: name.to_owned(),
            help: "a \\ b \"c\"\nd".to_owned(),
            r#type: kind.into(),
            metric: vec![metric],
            ..MetricFamily::default()
        }
    }

    #[test]
    fn every_kind_is_written_with_its_escapes() {
        let counter = Metric {
            label: vec![label("a", "x\\y\"z\nw"), label("b", "")],
            counter: Some(Counter {
                value: 12_345_678_901.0,
                ..Counter::default()
            }),
            ..Metric::default()
        };
        let gauge = |value| Metric {
            gauge: Some(Gauge { value }),
            ..Metric::default()
        };
        let bucket = |upper_bound, cumulative_count| Bucket {
            upper_bound,
            cumulative_count,
            ..Bucket::default()
        };
        let histogram = Metric {
            label: vec![label("a", "1")],
            histogram: Some(Histogram {
                sample_count: 3,
                sample_sum: 4.5,
                bucket: vec![bucket(1.0, 2), bucket(2.5, 2), bucket(f64::INFINITY, 3)],
                ..Histogram::default()
            }),
            ..Metric::default()
        };
        let written = text(&[
            family("c_total", MetricType::Counter, counter),
            family("g", MetricType::Gauge, gauge(-0.25)),
            family("i", MetricType::Gauge, gauge(f64::NEG_INFINITY)),
            family("h_seconds", MetricType::Histogram, histogram),
        ])
        .unwrap();
        expect![[r#"
            # HELP c_total a \\ b "c"\nd
            # TYPE c_total counter
            c_total{a="x\\y\"z\nw",b=""} 12345678901
            # HELP g a \\ b "c"\nd
            # TYPE g gauge
            g -0.25
            # HELP i a \\ b "c"\nd
            # TYPE i gauge
            i -Inf
            # HELP h_seconds a \\ b "c"\nd
            # TYPE h_seconds histogram
            h_seconds_bucket{a="1",le="1.0"} 2
            h_seconds_bucket{a="1",le="2.5"} 2
            h_seconds_bucket{a="1",le="+Inf"} 3
            h_seconds_sum{a="1"} 4.5
            h_seconds_count{a="1"} 3
        "#]]
        .assert_eq(&written);
    }
}
