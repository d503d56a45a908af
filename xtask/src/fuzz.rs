//! Fuzzing with libFuzzer on the stable toolchain: the coverage instrumentation is part of LLVM
//! and needs only compiler flags, so neither a nightly compiler nor cargo-fuzz is wanted.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::exec::{self, say};
use crate::paths::Paths;
use crate::{apt, pins, toolchain};

/// What cargo-fuzz passes too: count edges inline, name them, look into comparisons, keep checks.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
    "-Coverflow-checks",
    "--cfg=fuzzing",
];

/// Separates flags in the variable that carries [`FLAGS`].
const FLAG_SEPARATOR: &str = "\u{1f}";

/// Arguments of `cargo xtask fuzz`.
#[derive(Args)]
pub struct FuzzArgs {
    /// Name of a fuzz target
    #[arg(required_unless_present = "all")]
    target: Option<String>,
    /// Fuzz every target, one after the other
    #[arg(long, conflicts_with = "target")]
    all: bool,
    /// How long to fuzz each
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// How much a target is fed.
#[derive(Clone, Copy, Debug)]
pub enum Amount {
    /// New inputs for so long.
    Seconds(u32),
    /// So many inputs, the same ones every time for the same build and corpus.
    Inputs(u32),
}

/// Runs `cargo xtask fuzz`.
///
/// # Errors
/// As [`run`]; with `--all`, after every target has run.
pub fn fuzz(paths: &Paths, args: &FuzzArgs) -> Result<()> {
    let amount = Amount::Seconds(args.seconds);
    if let Some(target) = &args.target {
        return run(paths, target, amount);
    }
    let mut failed = Vec::new();
    for target in targets(paths)? {
        if let Err(error) = run(paths, &target, amount) {
            eprintln!("xtask: {target}: {error:#}");
            failed.push(target);
        }
    }
    ensure!(
        failed.is_empty(),
        "fuzz targets that failed: {}",
        failed.join(", ")
    );
    Ok(())
}

/// Manifest of the fuzz targets, a workspace of its own so that their flags reach nothing else.
pub fn manifest(paths: &Paths) -> PathBuf {
    paths.root.join("tests/fuzz/Cargo.toml")
}

/// Names of the targets there are, sorted.
///
/// # Errors
/// When the directory cannot be read.
pub fn targets(paths: &Paths) -> Result<Vec<String>> {
    let dir = paths.root.join("tests/fuzz/fuzz_targets");
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir)? {
        let path = entry?.path();
        if let (Some("rs"), Some(stem)) = (
            path.extension().and_then(|extension| extension.to_str()),
            path.file_stem().and_then(|stem| stem.to_str()),
        ) {
            names.push(stem.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// libFuzzer itself is C++.
///
/// # Errors
/// When no compiler can be installed.
pub fn ensure_compiler() -> Result<()> {
    apt::ensure_program("c++")
}

/// Builds a target and feeds it. What it found interesting is kept below the
/// build directory and used next time.
///
/// # Errors
/// When there is no such target, it does not build, or an input makes it fail; the input's file
/// is then named by the fuzzer.
pub fn run(paths: &Paths, target: &str, amount: Amount) -> Result<()> {
    let known = targets(paths)?;
    ensure!(
        known.iter().any(|name| name == target),
        "no fuzz target {target}; there are: {}",
        known.join(", ")
    );
    ensure_compiler()?;
    build(paths, target)?;
    let work = paths.target.join("fuzz").join(target);
    let corpus = work.join("corpus");
    fs::create_dir_all(&corpus).with_context(|| format!("cannot create {}", corpus.display()))?;
    let mut command = Command::new(program(paths, target));
    command.arg(&corpus);
    let seeds = paths.root.join("tests/fuzz/seeds").join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    match amount {
        Amount::Seconds(seconds) => {
            say(format!("fuzzing {target} for {seconds} s"));
            command.arg(format!("-max_total_time={seconds}"));
        }
        Amount::Inputs(inputs) => {
            say(format!("fuzzing {target} with {inputs} inputs"));
            command.args([format!("-runs={inputs}"), "-seed=1".to_owned()]);
        }
    }
    command.arg(format!("-artifact_prefix={}/", work.display()));
    exec::run(command.args(["-print_final_stats=1", "-verbosity=1"]))
}

fn build(paths: &Paths, target: &str) -> Result<()> {
    toolchain::ensure_rust(paths)?;
    say(format!("building the fuzz target {target}"));
    let mut command = exec::pinned("cargo");
    command
        .args([
            "build",
            "--release",
            "--locked",
            "--target",
            pins::HOST_TARGET,
            "--bin",
            target,
        ])
        .arg("--manifest-path")
        .arg(manifest(paths))
        .env("CARGO_TARGET_DIR", paths.target.join("fuzz/build"))
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join(FLAG_SEPARATOR));
    exec::run(&mut command)
}

fn program(paths: &Paths, target: &str) -> PathBuf {
    paths
        .target
        .join("fuzz/build")
        .join(pins::HOST_TARGET)
        .join("release")
        .join(target)
}
