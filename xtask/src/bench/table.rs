//! `cargo xtask bench table`: what 10,000 services with 10 real servers each cost the agent, and
//! node_exporter's ipvs collector on the same table in the same guest.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};

use super::{LIMIT, counting, follow};
use crate::guest;
use crate::kernel;
use crate::paths::Paths;
use crate::results::{Event, TableMeasurement};
use crate::userland;

/// What is compared, in the order of the table.
const VARIANTS: &[&str] = &["agent", "agent, all real servers", "node_exporter"];

/// Runs the measurement and prints the table.
///
/// # Errors
/// When the guest fails.
pub fn run(paths: &Paths, name: &str) -> Result<()> {
    let exporter = userland::ensure_node_exporter(paths)?;
    let guest = guest::prepare(
        paths,
        kernel::find(name)?,
        &format!("{name} bench table"),
        counting(&exporter),
    )?;
    let mut measured = Vec::new();
    follow(&guest, "bench_table", LIMIT, |event| {
        if let Event::Table(one) = event {
            println!("{}", line(&one));
            measured.push(one);
        }
    })?;
    print!("{}", report(&measured)?);
    Ok(())
}

fn line(one: &TableMeasurement) -> String {
    format!(
        "round {}, {}: scrape {:.1} ms, {} series, reading {:.1} ms, resident {} KiB, at most {} KiB",
        one.round + 1,
        one.variant,
        one.scrape_ms,
        one.series,
        one.read_ms,
        one.resident_kib,
        one.peak_kib
    )
}

/// Medians of the rounds, and the ratios to node_exporter.
fn report(measured: &[TableMeasurement]) -> Result<String> {
    let mut rounds: BTreeMap<&str, Vec<&TableMeasurement>> = BTreeMap::new();
    for one in measured {
        rounds.entry(one.variant.as_str()).or_default().push(one);
    }
    ensure!(!rounds.is_empty(), "nothing was measured");
    let mut text = String::from(
        "| | scrape, ms | series | reading of the table, ms | resident, MiB | at most, MiB |\n|---|---|---|---|---|---|\n",
    );
    let mut scrapes = BTreeMap::new();
    for variant in VARIANTS {
        let of_variant = rounds
            .get(variant)
            .with_context(|| format!("`{variant}` was not measured"))?;
        let middle = |value: fn(&TableMeasurement) -> f64| median(of_variant, value);
        let scrape = middle(|one| one.scrape_ms);
        let read = middle(|one| one.read_ms);
        scrapes.insert(*variant, (scrape, read));
        writeln!(
            text,
            "| {variant} | {scrape:.1} | {:.0} | {read:.1} | {:.1} | {:.1} |",
            middle(|one| f64::from(one.series)),
            middle(|one| f64::from(one.resident_kib)) / 1024.0,
            middle(|one| f64::from(one.peak_kib)) / 1024.0,
        )?;
    }
    text.push_str("\n| / node_exporter | scrape | reading and scrape |\n|---|---|---|\n");
    let (other, _) = scrapes.get("node_exporter").copied().unwrap_or_default();
    for variant in &VARIANTS[..2] {
        let (scrape, read) = scrapes.get(variant).copied().unwrap_or_default();
        writeln!(
            text,
            "| {variant} | {:.4} | {:.4} |",
            scrape / other,
            (scrape + read) / other
        )?;
    }
    Ok(text)
}

fn median(rounds: &[&TableMeasurement], value: fn(&TableMeasurement) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(|one| value(one)).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(variant: &str, round: u32, scrape_ms: f64) -> TableMeasurement {
        TableMeasurement {
            variant: variant.to_owned(),
            round,
            scrape_ms,
            series: 500,
            read_ms: 30.0,
            resident_kib: 20 * 1024,
            peak_kib: 30 * 1024,
        }
    }

    #[test]
    fn medians_and_ratios() {
        let mut measured = Vec::new();
        for (round, noise) in [(0, 0.0), (1, 90.0), (2, 1.0)] {
            measured.push(one("agent", round, 10.0 + noise));
            measured.push(one("agent, all real servers", round, 20.0));
            measured.push(one("node_exporter", round, 110.0));
        }
        let text = report(&measured).expect("all were measured");
        assert!(
            text.contains("| agent | 11.0 | 500 | 30.0 | 20.0 | 30.0 |"),
            "{text}"
        );
        assert!(text.contains("| agent | 0.1000 | 0.3727 |"), "{text}");
    }

    #[test]
    fn what_was_not_measured_is_no_report() {
        assert!(report(&[]).is_err());
        assert!(report(&[one("agent", 0, 1.0)]).is_err());
    }
}
