//! `cargo xtask check`: what reads the sources and runs nothing of them.

use anyhow::Result;

use crate::dist::{self, AGENT, LAB};
use crate::exec::{self, say};
use crate::paths::Paths;
use crate::{purity, versions};

/// Packages that compile for the host; the kernel programs are built by the agent's build script.
pub const HOST_PACKAGES: &[&str] = &[AGENT, "agent-common", "agent-core", LAB, "xtask"];

/// Runs every check.
///
/// # Errors
/// What the first of those found that found something; the others have run too.
pub fn check(paths: &Paths) -> Result<()> {
    let checks = [
        format,
        lints,
        documentation,
        purity::compiles_without_io,
        purity::check,
        versions::check,
    ];
    checks.map(|check| check(paths)).into_iter().collect()
}

/// Documentation of the crates that others read; a broken link is an error.
///
/// # Errors
/// When there is a warning.
pub fn documentation(paths: &Paths) -> Result<()> {
    say("checking the documentation");
    let mut command = dist::cargo(paths)?;
    command.env("RUSTDOCFLAGS", "--deny warnings");
    command.args(["doc", "--locked", "--no-deps", "--lib"]);
    for package in [AGENT, "agent-common", "agent-core"] {
        command.args(["--package", package]);
    }
    exec::run(&mut command)
}

/// Formatting of every package, the fuzz targets included.
///
/// # Errors
/// When a file is not formatted.
pub fn format(paths: &Paths) -> Result<()> {
    say("checking the formatting");
    exec::run(dist::cargo(paths)?.args(["fmt", "--all", "--check"]))?;
    if crate::fuzz::manifest(paths).is_file() {
        let mut command = dist::cargo(paths)?;
        command.args(["fmt", "--check", "--manifest-path"]);
        exec::run(command.arg(crate::fuzz::manifest(paths)))?;
    }
    Ok(())
}

/// Lints of every package; a warning is an error.
///
/// # Errors
/// When there is a warning.
pub fn lints(paths: &Paths) -> Result<()> {
    host_lints(paths)?;
    kernel_program_lints(paths)
}

/// The kernel programs compile for their own target only, with the flags their build gives them.
fn kernel_program_lints(paths: &Paths) -> Result<()> {
    let mut command = dist::cargo(paths)?;
    command
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            "--cfg=bpf_target_arch=\"x86_64\"",
        )
        .args(["clippy", "--locked", "--release", "--package", "agent-ebpf"])
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core"]);
    exec::run(command.args(["--", "--deny", "warnings"]))
}

fn host_lints(paths: &Paths) -> Result<()> {
    say("checking the lints");
    let mut command = dist::cargo(paths)?;
    command.args(["clippy", "--locked", "--all-targets"]);
    for package in HOST_PACKAGES {
        command.args(["--package", package]);
    }
    exec::run(command.args(["--", "--deny", "warnings"]))
}
