//! The agent's `/metrics` as numbers that can be compared. Pure.
//!
//! Reads the Prometheus text format and OpenMetrics; exemplars and timestamps are skipped.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

/// One line of an exposition.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Metric name with its suffix (`_total`, `_bucket`, ...).
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

impl Sample {
    /// Whether every pair of `labels` is among this sample's labels.
    pub fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels
            .iter()
            .all(|(name, value)| self.labels.get(*name).is_some_and(|found| found == value))
    }
}

impl std::fmt::Display for Sample {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let labels: Vec<_> = self
            .labels
            .iter()
            .map(|(k, v)| format!("{k}={v:?}"))
            .collect();
        write!(out, "{}{{{}}} {}", self.name, labels.join(","), self.value)
    }
}

/// A parsed exposition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape {
    /// Samples in their order.
    pub samples: Vec<Sample>,
}

impl Scrape {
    /// # Errors
    /// A line that is no sample, no comment and not blank.
    pub fn parse(text: &str) -> Result<Self> {
        let samples = text
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
            .map(|line| sample(line).with_context(|| format!("no sample: {line:?}")))
            .collect::<Result<_>>()?;
        Ok(Self { samples })
    }

    /// Samples called `name` with at least these labels.
    pub fn select(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        self.samples
            .iter()
            .filter(|s| s.name == name && s.has(labels))
            .collect()
    }

    /// Sum of the samples called `name` with at least these labels; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        // Not `sum()`: of nothing that is -0.
        self.select(name, labels)
            .iter()
            .fold(0.0, |sum, sample| sum + sample.value)
    }

    /// As [`Self::sum`], for what is counted.
    ///
    /// # Errors
    /// The sum is no whole number.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
        let sum = self.sum(name, labels);
        whole(sum).with_context(|| format!("{name} with {labels:?} is {sum}, no whole number"))
    }

    /// Samples of these names that are not 0.
    pub fn non_zero<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = &'a Sample> {
        self.samples
            .iter()
            .filter(|s| s.value != 0.0 && names.contains(&s.name.as_str()))
    }
}

/// A value that is exactly a whole number.
fn whole(value: f64) -> Option<u64> {
    /// Above it `f64` has no longer every whole number.
    const LIMIT: f64 = 9_007_199_254_740_992.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the bounds and the fraction are checked before"
    )]
    let cast = || value as u64;
    (value.fract() == 0.0 && (0.0..LIMIT).contains(&value)).then(cast)
}

fn sample(line: &str) -> Result<Sample> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    // What follows the value is a timestamp or an exemplar.
    let value = rest.split_whitespace().next().context("no value")?;
    Ok(Sample {
        name: name.to_owned(),
        labels,
        value: value
            .parse()
            .with_context(|| format!("no number: {value:?}"))?,
    })
}

/// Reads `name="value",...}` and returns what follows the brace.
fn labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (name, after) = rest.split_once("=\"").context("no label value")?;
        let (value, after) = quoted(after)?;
        labels.insert(name.to_owned(), value);
        rest = after;
    }
}

/// Reads up to the closing quote and returns what follows it.
fn quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match letters.next().context("a label ends in a backslash")?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    anyhow::bail!("a label without closing quote")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP ipvs_lens_connections Attempts by decision.
# TYPE ipvs_lens_connections counter
ipvs_lens_connections_total{proto="TCP",local_address="10.96.0.10",decision="reused"} 12
ipvs_lens_connections_total{proto="TCP",local_address="10.96.0.10",decision="dropped"} 0
ipvs_lens_connections_total{proto="UDP",local_address="10.96.0.10",decision="reused"} 5 # {client="10.0.0.2:4} 1",rs="x"} 1.0 17.5
ipvs_lens_connect_delay_seconds_bucket{le="+Inf"} 3
up 1e0 1395066363000
odd{text="a\"b\\c\nd, e}"} +Inf
# EOF
"#;

    #[test]
    fn finds_and_counts() {
        let scrape = Scrape::parse(TEXT).unwrap();
        assert_eq!(scrape.samples.len(), 6);
        let family = "ipvs_lens_connections_total";
        assert_eq!(scrape.count(family, &[("decision", "reused")]).unwrap(), 17);
        assert_eq!(scrape.count(family, &[("proto", "UDP")]).unwrap(), 5);
        assert_eq!(scrape.count("up", &[]).unwrap(), 1);
    }

    #[test]
    fn counts_are_whole() {
        let scrape = Scrape::parse("a 3\na{x=\"1\"} 4e0\nb 0.5\nc -1\nd 1e300\ne +Inf").unwrap();
        assert_eq!(scrape.count("a", &[]).unwrap(), 7);
        assert_eq!(scrape.count("missing", &[]).unwrap(), 0);
        for name in ["b", "c", "d", "e"] {
            assert!(scrape.count(name, &[]).is_err(), "{name}");
        }
    }

    #[test]
    fn zeros_are_not_counted_things() {
        let scrape = Scrape::parse(TEXT).unwrap();
        let found: Vec<_> = scrape
            .non_zero(&["ipvs_lens_connections_total", "up"])
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            [
                r#"ipvs_lens_connections_total{decision="reused",local_address="10.96.0.10",proto="TCP"} 12"#,
                r#"ipvs_lens_connections_total{decision="reused",local_address="10.96.0.10",proto="UDP"} 5"#,
                "up{} 1",
            ]
        );
    }

    #[test]
    fn escapes_in_labels() {
        let scrape = Scrape::parse(TEXT).unwrap();
        let odd = scrape.select("odd", &[])[0];
        assert_eq!(odd.labels["text"], "a\"b\\c\nd, e}");
        assert!(odd.value.is_infinite());
    }

    #[test]
    fn refuses_what_is_no_sample() {
        for line in [
            "name",
            "name{",
            "name{a=\"b} 1",
            "name{a=\"b\"}",
            "name x",
            "name{a} 1",
        ] {
            assert!(Scrape::parse(line).is_err(), "{line}");
        }
    }
}
