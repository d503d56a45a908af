//! The metrics the agent promises, as `docs/metrics.md` lists them: that page is made from the
//! agent's code and checked there.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};

use crate::paths::Paths;

/// The page with one table row for each metric.
const PAGE: &str = "docs/metrics.md";

/// Series a histogram is scraped as, in addition to its native form, which has its bare name.
const HISTOGRAM_SUFFIXES: [&str; 4] = ["", "_bucket", "_sum", "_count"];

/// Names of every series the agent may expose.
///
/// # Errors
/// When the page cannot be read or lists nothing.
pub fn series(paths: &Paths) -> Result<BTreeSet<String>> {
    let path = paths.root.join(PAGE);
    let page =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let names = parse(&page);
    ensure!(!names.is_empty(), "{PAGE} has no row for any metric");
    Ok(names)
}

/// Reads rows of the form "| `name` | type | ...".
fn parse(page: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for row in page
        .lines()
        .filter(|line| line.starts_with("| `ipvs_lens_"))
    {
        let mut cells = row
            .split('|')
            .skip(1)
            .map(|cell| cell.trim().trim_matches('`'));
        let (Some(name), Some(kind)) = (cells.next(), cells.next()) else {
            continue;
        };
        if kind == "histogram" {
            names.extend(HISTOGRAM_SUFFIXES.map(|suffix| format!("{name}{suffix}")));
        } else {
            names.insert(name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn rows_become_series() {
        let page = "# Metrics\n\n| name | type |\n|---|---|\n\
                    | `ipvs_lens_a_total` | counter |  | A. |\n\
                    | `ipvs_lens_b_seconds` | histogram |  | B. |\n\
                    | `ring_full` | not a metric |\n";
        let names = parse(page);
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "ipvs_lens_a_total",
                "ipvs_lens_b_seconds",
                "ipvs_lens_b_seconds_bucket",
                "ipvs_lens_b_seconds_count",
                "ipvs_lens_b_seconds_sum",
            ]
        );
    }
}
