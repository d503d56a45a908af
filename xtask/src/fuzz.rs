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
    target: String,
    /// How long to fuzz
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Runs `cargo xtask fuzz`.
///
/// # Errors
/// As [`run`].
pub fn fuzz(paths: &Paths, args: &FuzzArgs) -> Result<()> {
    run(paths, &args.target, args.seconds)
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

/// Builds a target and feeds it for some seconds. What it found interesting is kept below the
/// build directory and used next time.
///
/// # Errors
/// When there is no such target, it does not build, or an input makes it fail; the input's file
/// is then named by the fuzzer.
pub fn run(paths: &Paths, target: &str, seconds: u32) -> Result<()> {
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
    say(format!("fuzzing {target} for {seconds} s"));
    let mut command = Command::new(program(paths, target));
    command.arg(&corpus);
    let seeds = paths.root.join("tests/fuzz/seeds").join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    command.arg(format!("-max_total_time={seconds}"));
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
