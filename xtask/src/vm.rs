//! The verbs that boot guests: scenarios, a shell, the demonstration.

use std::io::{self, IsTerminal};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::dist::{self, LAB};
use crate::exec;
use crate::guest::{self, Extras, Flow};
use crate::kernel;
use crate::passes;
use crate::paths::Paths;
use crate::pins;
use crate::results::{self, Event};
use crate::scenarios::{self, Played, Run};
use crate::stack;
use crate::tally::Tally;

/// Longest run of the matrix of rights: some 700 cells.
const RIGHTS_LIMIT: Duration = Duration::from_hours(4);

/// Longest demonstration; it should take a tenth of that.
const DEMO_LIMIT: Duration = Duration::from_mins(10);

/// The line that ends a demonstration.
const DEMO_END: &str = "DONE";

/// Arguments of `cargo xtask vm`.
#[derive(Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub struct VmArgs {
    /// Kernel to boot, for example 6.1
    #[arg(required_unless_present_any = ["list", "matrix"])]
    kernel: Option<String>,
    /// Scenarios to run; all when none is named
    scenarios: Vec<String>,
    /// Boot to a shell instead of running scenarios
    #[arg(long, conflicts_with = "scenarios")]
    shell: bool,
    /// Print the kernels and scenarios there are
    #[arg(long, conflicts_with_all = ["kernel", "scenarios", "shell"])]
    list: bool,
    /// Run every scenario on every kernel, by every way in and out
    #[arg(long, conflicts_with_all = ["kernel", "scenarios", "shell", "list"])]
    matrix: bool,
    /// Boot with Debian's systemd as process 1
    #[arg(long, conflicts_with_all = ["shell", "list", "matrix"])]
    systemd: bool,
    /// Run the agent with every combination of rights, one line each; takes hours
    #[arg(long, conflicts_with_all = ["scenarios", "shell", "list", "matrix", "systemd"])]
    rights: bool,
    /// Add a word to the kernel's command line
    #[arg(long = "kernel-arg", value_name = "WORD", allow_hyphen_values = true)]
    kernel_args: Vec<String>,
    /// Keep the console log of the former run under a number
    #[arg(long)]
    keep_log: bool,
}

/// Arguments of `cargo xtask demo`.
#[derive(Args)]
pub struct DemoArgs {
    /// Kernel to boot
    #[arg(default_value = pins::DEMO_KERNEL)]
    kernel: String,
    /// Let Prometheus and Alertmanager watch, until the page arrives and resolves
    #[arg(long)]
    stack: bool,
    /// Leave everything running until Enter is pressed
    #[arg(long, requires = "stack")]
    keep: bool,
    /// Use ports that are free instead of the usual ones
    #[arg(long, requires = "stack")]
    any_port: bool,
}

/// Runs `cargo xtask vm`.
///
/// # Errors
/// When the guest cannot be booted or a scenario fails.
pub fn vm(paths: &Paths, args: &VmArgs) -> Result<()> {
    if args.matrix {
        return matrix(paths);
    }
    let Some(name) = &args.kernel else {
        return list(paths);
    };
    if args.shell {
        ensure!(
            io::stdin().is_terminal(),
            "a shell needs a terminal on stdin; run a scenario instead"
        );
        let extras = Extras {
            keep_log: args.keep_log,
            ..Extras::default()
        };
        let guest = guest::prepare(paths, kernel::find(name)?, name, extras)?;
        let mut words = vec!["lab.mode=shell".to_owned(), "quiet".to_owned()];
        words.extend_from_slice(&args.kernel_args);
        return guest.interact(&words);
    }
    let set = match (args.systemd, args.rights) {
        _ if !args.scenarios.is_empty() => None,
        (true, _) => Some("lab.set=systemd"),
        (_, true) => Some("lab.set=rights"),
        _ => None,
    };
    let mut words: Vec<_> = set.into_iter().map(str::to_owned).collect();
    words.extend_from_slice(&args.kernel_args);
    let run = Run {
        kernel: name,
        name,
        wanted: &args.scenarios,
        kernel_args: &words,
        keep_log: args.keep_log,
        systemd: args.systemd,
        limit: if args.rights {
            RIGHTS_LIMIT
        } else {
            scenarios::LIMIT
        },
    };
    let Played { tally, .. } = scenarios::run(paths, &run, &mut |line| println!("{line}"))?;
    println!("kernel {name}: {tally}, {} skipped", tally.skipped);
    if tally.failed > 0 {
        bail!("{} scenarios failed on kernel {name}", tally.failed);
    }
    Ok(())
}

/// Every pass of the matrix, whatever became of those before it; a line each at the end.
fn matrix(paths: &Paths) -> Result<()> {
    let mut total = Tally::default();
    let mut lines = Vec::new();
    let mut failures = Vec::new();
    for pass in passes::run(paths, &pins::matrix()) {
        let tally = pass.tally;
        lines.push(format!("{}: {tally}, {} skipped", pass.name, tally.skipped));
        failures.extend(pass.failures);
        total += tally;
    }
    lines.append(&mut failures);
    println!("\n{}\n{total}", lines.join("\n"));
    ensure!(total.failed == 0, "{} scenarios failed", total.failed);
    Ok(())
}

/// Prints the kernels pinned and the scenarios the lab knows.
fn list(paths: &Paths) -> Result<()> {
    dist::build(paths, LAB)?;
    let names = exec::output(Command::new(paths.static_program(LAB)).arg("list"))?;
    println!("kernels:");
    for kernel in pins::KERNELS {
        println!("  {:13} {}", kernel.name, kernel.release);
    }
    println!("scenarios:");
    for name in names.lines() {
        println!("  {name}");
    }
    Ok(())
}

/// Runs `cargo xtask demo`: boots a guest that plays the incident and prints what it shows.
///
/// # Errors
/// When the guest cannot be booted or does not finish.
pub fn demo(paths: &Paths, args: &DemoArgs) -> Result<()> {
    if args.stack {
        return stack::demo::run(paths, &args.kernel, args.any_port, args.keep);
    }
    let guest = guest::prepare(
        paths,
        kernel::find(&args.kernel)?,
        &args.kernel,
        Extras::default(),
    )?;
    let words = ["lab.mode=demo".to_owned()];
    let mut failure = None;
    guest
        .follow(&words, DEMO_LIMIT, |line| match results::parse(line) {
            // Events are for the machine, plain lines for the person watching.
            None if line == DEMO_END => Flow::Finished,
            Some(Event::Error { detail }) => {
                failure = Some(detail);
                Flow::Finished
            }
            Some(_) => Flow::Continue,
            None => {
                println!("{line}");
                Flow::Continue
            }
        })
        .context("the demonstration did not finish")?;
    match failure {
        Some(detail) => bail!("the demonstration failed: {detail}"),
        None => Ok(()),
    }
}
