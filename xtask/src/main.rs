//! The project's own commands: `cargo xtask VERB`.
//!
//! Compiles with the toolchain a fresh machine already has and installs everything else, the
//! pinned toolchain included. Every verb calls the pieces of the set-up it needs by itself.

mod apt;
#[cfg(test)]
mod arrows;
mod bare;
mod bench;
mod bzimage;
mod cache;
mod check;
mod cpio;
mod deploy;
mod dist;
#[cfg(test)]
mod documents;
mod exec;
mod extract;
mod fuzz;
mod generate;
mod grafana;
mod guest;
mod initramfs;
mod kernel;
#[cfg(test)]
mod metrics;
mod modules;
mod passes;
mod paths;
mod pins;
mod prototypes;
mod purity;
mod python;
mod qemu;
mod rebuild;
mod results;
mod rules;
mod scenarios;
mod setup;
mod stack;
mod tally;
mod test;
mod toolchain;
mod types;
mod unpack;
mod userland;
mod versions;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::paths::Paths;

/// Builds, tests and shows ipvs-lens
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install and fetch everything the other verbs need
    Setup,
    /// Build the agent as a static program
    Build,
    /// Build the agent and put it into dist/
    Dist,
    /// Check formatting, lints, documentation, and that agent-core does no I/O
    Check,
    /// Run every check and test, in guests too
    Test(test::TestArgs),
    /// Run the commands of the README on a bare machine, made from nothing
    Bare(bare::BareArgs),
    /// Check the kernel prototypes the probes rely on against every pinned kernel
    Prototypes(prototypes::PrototypesArgs),
    /// Boot a kernel and run scenarios in it, or a shell
    Vm(vm::VmArgs),
    /// Play the incident in a guest and show what the agent saw
    Demo(vm::DemoArgs),
    /// Write the files of the repository that are made from others
    Generate,
    /// Let Prometheus and Alertmanager, oldest and newest, watch the incident
    StackTest,
    /// Measure what observing costs
    Bench(bench::BenchArgs),
    /// Fuzz one target
    Fuzz(fuzz::FuzzArgs),
}

fn main() -> ExitCode {
    match run(&Cli::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: &Verb) -> Result<ExitCode> {
    let paths = Paths::find()?;
    match verb {
        Verb::Setup => setup::setup(&paths)?,
        Verb::Build => dist::build(&paths, dist::AGENT)?,
        Verb::Dist => println!("{}", dist::dist(&paths)?.display()),
        Verb::Check => check::check(&paths)?,
        Verb::Test(args) => return Ok(test::test(&paths, args)),
        Verb::Bare(args) => return bare::bare(&paths, args),
        Verb::Prototypes(args) => prototypes::prototypes(&paths, args)?,
        Verb::Vm(args) => vm::vm(&paths, args)?,
        Verb::Demo(args) => vm::demo(&paths, args)?,
        Verb::Generate => generate::generate(&paths)?,
        Verb::StackTest => stack::test::verb(&paths)?,
        Verb::Bench(args) => bench::bench(&paths, args)?,
        Verb::Fuzz(args) => fuzz::fuzz(&paths, args)?,
    }
    Ok(ExitCode::SUCCESS)
}
