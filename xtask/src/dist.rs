//! Building the agent and the lab with the pinned toolchain.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::exec::{self, say};
use crate::paths::Paths;
use crate::pins;
use crate::toolchain;

/// The agent's package and program.
pub const AGENT: &str = "ipvs-lens";

/// The package and program that runs inside a guest.
pub const LAB: &str = "lab";

/// `cargo` of the pinned toolchain, at the root of the checkout, knowing the kernel programs'
/// linker.
///
/// # Errors
/// When the toolchain or the linker cannot be installed.
pub fn cargo(paths: &Paths) -> Result<Command> {
    let linker = toolchain::ensure_bpf_linker(paths)?;
    let mut command = exec::pinned("cargo");
    command
        .current_dir(&paths.root)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker);
    Ok(command)
}

/// Builds one package for release as a static program.
///
/// One at a time: built together, packages share features, and the agent that guests test would
/// not be the agent that is shipped.
///
/// # Errors
/// When the set-up or the build fails.
pub fn build(paths: &Paths, package: &str) -> Result<()> {
    say(format!("building {package} for {}", pins::MUSL_TARGET));
    let mut command = cargo(paths)?;
    command.args(["build", "--release", "--locked", "--package", package]);
    exec::run(command.args(["--target", pins::MUSL_TARGET]))
}

/// Builds the agent and puts it where releases are taken from.
///
/// # Errors
/// When the build fails or the file cannot be copied.
pub fn dist(paths: &Paths) -> Result<PathBuf> {
    build(paths, AGENT)?;
    let dir = paths.root.join("dist");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let file = dir.join("ipvs-lens-x86_64");
    let built = paths.static_program(AGENT);
    fs::copy(&built, &file).with_context(|| format!("cannot copy {}", built.display()))?;
    Ok(file)
}
