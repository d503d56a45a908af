//! `cargo xtask test`: every check and test there is, one count at the end.

use std::process::{Command, ExitCode, ExitStatus};

use anyhow::Result;
use clap::Args;

use crate::dist::{self, AGENT, LAB};
use crate::exec::{self, say};
use crate::paths::Paths;
use crate::tally::{self, Tally};
use crate::{
    check, deploy, fuzz, grafana, passes, pins, prototypes, purity, setup, stack, toolchain,
};

/// Inputs of each fuzz target as a test, the same number on every machine: a few seconds of each.
const FUZZ_INPUTS: u32 = 200_000;

/// The same of `btf`, which reads a thousand a second.
const FUZZ_INPUTS_OF_BTF: u32 = 10_000;

/// Arguments of `cargo xtask test`.
#[derive(Args)]
pub struct TestArgs {
    /// Leave out what needs a guest
    #[arg(long)]
    fast: bool,
    /// Run only the steps, and the passes in guests, whose names contain this
    #[arg(long, value_name = "WORDS")]
    only: Option<String>,
}

/// One independent part: its name and what it counted.
type Step<'a> = (String, Box<dyn FnOnce() -> Result<Tally> + 'a>);

/// Runs every step, whatever became of those before it, and closes with the sum.
///
/// Failure is the exit status; no word comes behind the sum.
pub fn test(paths: &Paths, args: &TestArgs) -> ExitCode {
    let mut lines = Vec::new();
    let mut failures = Vec::new();
    let mut total = Tally::default();
    let mut add = |name: &str, tally: Tally| {
        lines.push(format!("{name}: {tally}, {} skipped", tally.skipped));
        total += tally;
    };
    let mut steps = host_steps(paths);
    let mut passes = Vec::new();
    if !args.fast {
        steps.push((
            "Prometheus and Alertmanager watch the incident".to_owned(),
            Box::new(|| stack::test::run(paths)),
        ));
        passes = pins::test_passes();
    }
    if let Some(words) = &args.only {
        steps.retain(|(name, _)| name.contains(words.as_str()));
        passes.retain(|pass| pass_name(&pass.name()).contains(words.as_str()));
        if steps.is_empty() && passes.is_empty() {
            eprintln!("xtask: no step and no pass has {words:?} in its name");
            return ExitCode::FAILURE;
        }
    }
    let count = steps.len() + usize::from(!passes.is_empty());
    for (number, (name, step)) in (1..).zip(steps) {
        say(format!("step {number} of {count}: {name}"));
        let tally = step().unwrap_or_else(|error| {
            eprintln!("xtask: {name}: {error:#}");
            Tally::FAILED
        });
        add(&name, tally);
    }
    if !passes.is_empty() {
        say(format!("step {count} of {count}: scenarios in guests"));
        for pass in passes::run(paths, &passes) {
            add(&pass_name(&pass.name), pass.tally);
            failures.extend(pass.failures);
        }
    }
    // After the counts: a log that is cut keeps its end.
    lines.append(&mut failures);
    println!("\n{}\n{total}", lines.join("\n"));
    if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn pass_name(pass: &str) -> String {
    format!("scenarios on kernel {pass}")
}

fn host_steps(paths: &Paths) -> Vec<Step<'_>> {
    vec![
        (
            "formatting".to_owned(),
            Box::new(|| held(check::format(paths))),
        ),
        ("lints".to_owned(), Box::new(|| held(check::lints(paths)))),
        (
            "documentation".to_owned(),
            Box::new(|| held(check::documentation(paths))),
        ),
        (
            "agent-core compiles for a target without I/O".to_owned(),
            Box::new(|| held(purity::compiles_without_io(paths))),
        ),
        (
            "agent-core refuses I/O".to_owned(),
            Box::new(|| held(purity::check(paths))),
        ),
        (
            "tests of agent-core, without the kernel programs' linker".to_owned(),
            Box::new(|| cargo_test(&mut purity::tests(paths)?)),
        ),
        (
            "tests of the agent and the lab".to_owned(),
            Box::new(|| product_tests(paths)),
        ),
        ("tests of xtask".to_owned(), Box::new(|| own_tests(paths))),
        (
            "kernel prototypes".to_owned(),
            Box::new(|| prototypes::check(paths)),
        ),
        (
            "alert rules, routes and exposition".to_owned(),
            Box::new(|| stack::checks::run(paths)),
        ),
        (
            "dashboards against Grafana's schema".to_owned(),
            Box::new(|| held(grafana::published::check(paths))),
        ),
        (
            "unit and manifests".to_owned(),
            Box::new(|| deploy::check(paths)),
        ),
        ("fuzz targets".to_owned(), Box::new(|| fuzz_targets(paths))),
        (
            "licences and sources".to_owned(),
            Box::new(|| licences(paths)),
        ),
    ]
}

/// A check without a count of its own counts as one test.
fn held(result: Result<()>) -> Result<Tally> {
    result.map(|()| Tally::PASSED)
}

fn product_tests(paths: &Paths) -> Result<Tally> {
    let mut command = dist::cargo(paths)?;
    command.args(["test", "--locked", "--no-fail-fast"]);
    for package in [AGENT, "agent-common", LAB] {
        command.args(["--package", package]);
    }
    cargo_test(&mut command)
}

/// With the toolchain around `cargo xtask`: that one must be able to compile this package.
fn own_tests(paths: &Paths) -> Result<Tally> {
    let mut command = exec::outer_cargo();
    command.args(["test", "--locked", "--package", "xtask"]);
    cargo_test(command.current_dir(&paths.root))
}

fn cargo_test(command: &mut Command) -> Result<Tally> {
    let mut tally = Tally::default();
    let status = exec::each_line(command, |line| {
        println!("{line}");
        if let Some(counts) = tally::parse_cargo_test(line) {
            tally += counts;
        }
    })?;
    Ok(with_status(tally, status))
}

/// A run that failed without a failed test (it did not compile, or it crashed) counts as one.
fn with_status(mut tally: Tally, status: ExitStatus) -> Tally {
    if !status.success() && tally.failed == 0 {
        tally += Tally::FAILED;
    }
    tally
}

fn fuzz_targets(paths: &Paths) -> Result<Tally> {
    let mut tally = Tally::default();
    for target in fuzz::targets(paths)? {
        let inputs = match target.as_str() {
            "btf" => FUZZ_INPUTS_OF_BTF,
            _ => FUZZ_INPUTS,
        };
        let result = fuzz::run(paths, &target, fuzz::Amount::Inputs(inputs));
        if let Err(error) = &result {
            eprintln!("xtask: {error:#}");
        }
        tally += Tally::of(result.is_ok());
    }
    Ok(tally)
}

/// Advisories are not asked for: their database is not pinned and wants a network.
///
/// Looks at every dependency, also at those that nothing here has been built with yet.
fn licences(paths: &Paths) -> Result<Tally> {
    let deny = toolchain::ensure_cargo_deny(paths)?;
    setup::fetch_dependencies(&paths.root.join("Cargo.toml"))?;
    let mut command = exec::pinned(deny);
    command.args([
        "--offline",
        "--locked",
        "check",
        "licenses",
        "bans",
        "sources",
    ]);
    held(exec::run(command.current_dir(&paths.root)))
}

#[cfg(test)]
mod tests {
    use super::with_status;
    use crate::tally::Tally;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    #[test]
    fn failure_without_a_failed_test_counts_as_one() {
        let passed = Tally::PASSED;
        let failed = ExitStatus::from_raw(101 << 8);
        assert_eq!(with_status(passed, ExitStatus::from_raw(0)), passed);
        assert_eq!(with_status(passed, failed).failed, 1);
        assert_eq!(with_status(Tally::FAILED, failed).failed, 1);
    }
}
