//! `cargo xtask bench`: what observing costs, counted in instructions.

mod table;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};

use crate::guest::{self, Extras, Flow, Prepared};
use crate::paths::Paths;
use crate::results::{self, Event, Measurement};
use crate::{kernel, pins, userland};

/// Longest measurement; it compiles bpftrace's script under emulation, once a round.
const LIMIT: Duration = Duration::from_mins(60);

/// Who watches, in the order of the table; the first is what the others are compared with.
const VARIANTS: &[&str] = &[
    "none",
    "empty fexit",
    "flags fexit",
    "agent fexit",
    "empty kprobe",
    "flags kprobe",
    "agent kprobe",
    "bpftrace",
];

/// Largest and smallest of the rounds may differ by so much of the smallest.
const REPEATABLE: f64 = 0.02;

/// Arguments of `cargo xtask bench`.
#[derive(Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Instructions a packet costs without an observer, with empty programs, the agent, bpftrace
    Packet {
        /// Kernel to boot
        #[arg(default_value = pins::BENCH_KERNEL)]
        kernel: String,
    },
    /// Time and memory 10,000 services with 10 real servers each cost, compared with node_exporter
    Table {
        /// Kernel to boot
        #[arg(default_value = pins::BENCH_KERNEL)]
        kernel: String,
    },
}

/// Runs the verb.
///
/// # Errors
/// When the guest fails, or the rounds differ too much to mean anything.
pub fn bench(paths: &Paths, args: &BenchArgs) -> Result<()> {
    match &args.what {
        What::Packet { kernel } => packet(paths, kernel),
        What::Table { kernel } => table::run(paths, kernel),
    }
}

/// A guest whose clock counts instructions, with these programs.
const fn counting(programs: &Path) -> Extras<'_> {
    Extras {
        programs: Some(programs),
        counting: true,
        keep_log: false,
    }
}

fn packet(paths: &Paths, kernel: &str) -> Result<()> {
    let bpftrace = userland::ensure_bpftrace(paths)?;
    let name = format!("{kernel} bench");
    let guest = guest::prepare(paths, kernel::find(kernel)?, &name, counting(&bpftrace))?;
    let mut measured = Vec::new();
    follow(&guest, "bench", LIMIT, |event| {
        if let Event::Bench(one) = event {
            println!(
                "round {}, {}: {} established, {} scheduled, {} reused",
                one.round + 1,
                one.variant,
                one.established,
                one.scheduled,
                one.reused
            );
            measured.push(one);
        }
    })?;
    print!("{}", report(&measured)?);
    Ok(())
}

/// Boots the guest in this mode and hands over what it reports until it is done.
fn follow(
    guest: &Prepared,
    mode: &str,
    limit: Duration,
    mut take: impl FnMut(Event),
) -> Result<()> {
    let mut failure = None;
    guest
        .follow(&[format!("lab.mode={mode}")], limit, |line| {
            match results::parse(line) {
                Some(Event::Done) => return Flow::Finished,
                Some(Event::Error { detail }) => {
                    failure = Some(detail);
                    return Flow::Finished;
                }
                Some(event) => take(event),
                None => println!("{line}"),
            }
            Flow::Continue
        })
        .context("the measurement did not finish")?;
    match failure {
        Some(detail) => bail!("the measurement failed: {detail}"),
        None => Ok(()),
    }
}

/// The table: what each variant costs, what it adds, and the ratios that matter.
///
/// The smallest of the rounds counts. The kernel has days on which it spends some 90 instructions
/// more on every packet, whoever watches; the least is what the packet needs.
fn report(measured: &[Measurement]) -> Result<String> {
    let mut rounds: BTreeMap<&str, Vec<[f64; 3]>> = BTreeMap::new();
    for one in measured {
        let of_variant = rounds.entry(one.variant.as_str()).or_default();
        of_variant.push([one.established, one.scheduled, one.reused].map(f64::from));
    }
    let costs: BTreeMap<&str, [f64; 3]> = rounds
        .iter()
        .map(|(variant, costs)| (*variant, least(costs)))
        .collect();
    let baseline = costs
        .get(VARIANTS[0])
        .context("the bare kernel was not measured")?;
    let mut text = String::from(
        "| watching | packet of an established connection | added | SYN, scheduled | added | SYN, reused | added |\n|---|---|---|---|---|---|---|\n",
    );
    for variant in VARIANTS {
        let Some(costs) = costs.get(variant) else {
            continue;
        };
        write!(text, "| {variant} |")?;
        for (cost, bare) in costs.iter().zip(baseline) {
            write!(text, " {cost:.0} | {:.0} |", cost - bare)?;
        }
        text.push('\n');
    }
    text.push_str(
        "\n| added cost | established | SYN, scheduled | SYN, reused |\n|---|---|---|---|\n",
    );
    for (above, below) in [
        ("flags fexit", "empty fexit"),
        ("agent fexit", "empty fexit"),
        ("flags kprobe", "empty kprobe"),
        ("agent kprobe", "empty kprobe"),
        ("agent fexit", "agent kprobe"),
        ("empty fexit", "bpftrace"),
        ("agent fexit", "bpftrace"),
        ("agent kprobe", "bpftrace"),
    ] {
        let (Some(one), Some(other)) = (costs.get(above), costs.get(below)) else {
            continue;
        };
        write!(text, "| {above} / {below} |")?;
        for kind in 0..3 {
            let ratio = (one[kind] - baseline[kind]) / (other[kind] - baseline[kind]);
            write!(text, " {ratio:.2} |")?;
        }
        text.push('\n');
    }
    for (variant, costs) in &rounds {
        let largest = [0, 1, 2]
            .map(|kind| spread(costs, kind))
            .into_iter()
            .fold(0.0, f64::max);
        ensure!(
            largest <= REPEATABLE,
            "{text}\nrounds of `{variant}` differ by {:.1} %, want {:.1} % at most: these numbers mean nothing",
            largest * 100.0,
            REPEATABLE * 100.0
        );
    }
    Ok(text)
}

fn least(costs: &[[f64; 3]]) -> [f64; 3] {
    let values = |kind: usize| costs.iter().map(move |cost| cost[kind]);
    [0, 1, 2].map(|kind| values(kind).fold(f64::INFINITY, f64::min))
}

/// Largest less smallest, as a share of the smallest.
fn spread(costs: &[[f64; 3]], kind: usize) -> f64 {
    let smallest = least(costs)[kind];
    let values = costs.iter().map(|cost| cost[kind]);
    (values.fold(smallest, f64::max) - smallest) / smallest
}

#[cfg(test)]
mod tests {
    use super::report;
    use crate::results::Measurement;

    fn measured(variant: &str, established: u32) -> Measurement {
        in_round(0, variant, established)
    }

    fn in_round(round: u32, variant: &str, established: u32) -> Measurement {
        Measurement {
            variant: variant.to_owned(),
            round,
            established,
            scheduled: established * 2,
            reused: established * 3,
        }
    }

    #[test]
    fn costs_are_per_packet_and_ratios_of_what_is_added() {
        let text = report(&[
            measured("none", 1_000),
            measured("empty fexit", 1_010),
            measured("agent fexit", 1_020),
        ])
        .expect("the bare kernel was measured");
        assert!(
            text.contains("| empty fexit | 1010 | 10 | 2020 | 20 | 3030 | 30 |"),
            "{text}"
        );
        assert!(
            text.contains("| agent fexit / empty fexit | 2.00 | 2.00 | 2.00 |"),
            "{text}"
        );
        assert!(!text.contains("bpftrace"), "{text}");
    }

    #[test]
    fn the_smallest_of_the_rounds_counts() {
        let text = report(&[
            in_round(0, "none", 10_000),
            in_round(0, "agent fexit", 10_190),
            in_round(1, "none", 10_090),
            in_round(1, "agent fexit", 10_100),
        ])
        .expect("the bare kernel was measured");
        assert!(text.contains("| agent fexit | 10100 | 100 |"), "{text}");
    }

    #[test]
    fn rounds_that_differ_mean_nothing() {
        let refused = report(&[measured("none", 1_000), in_round(1, "none", 1_030)]);
        assert!(refused.is_err_and(|error| error.to_string().contains("differ by 3.0 %")));
        assert!(report(&[measured("agent fexit", 1)]).is_err());
    }
}
