//! `cargo xtask setup`: everything the other verbs need, so that they run without a network.

use std::path::Path;

use anyhow::Result;

use crate::exec::{self, say};
use crate::paths::Paths;
use crate::{apt, deploy, fuzz, grafana, pins, stack, toolchain, types, userland};

/// Installs and fetches everything; what is there already is left alone.
///
/// # Errors
/// When a piece cannot be installed or fetched.
pub fn setup(paths: &Paths) -> Result<()> {
    toolchain::ensure_rust(paths)?;
    toolchain::ensure_bpf_linker(paths)?;
    apt::ensure_program(pins::QEMU_PROGRAM)?;
    userland::ensure(paths)?;
    for release in pins::STACKS {
        stack::programs::ensure(paths, release)?;
    }
    for kernel in pins::KERNELS {
        types::read(paths, kernel)?;
    }
    grafana::published::ensure(paths)?;
    deploy::ensure_checker(paths)?;
    toolchain::ensure_cargo_deny(paths)?;
    fuzz::ensure_compiler()?;
    fetch_sources(paths)?;
    say(format!("everything is in {}", paths.cache.display()));
    Ok(())
}

/// Sources of every dependency, so that no build wants a network: the workspace's, the fuzz
/// targets' and those of `core`, which the kernel programs build for themselves.
fn fetch_sources(paths: &Paths) -> Result<()> {
    say("fetching the sources of all dependencies");
    let manifests = [
        paths.root.join("Cargo.toml"),
        fuzz::manifest(paths),
        toolchain::sysroot()?.join("lib/rustlib/src/rust/library/Cargo.toml"),
    ];
    for manifest in manifests.iter().filter(|manifest| manifest.is_file()) {
        fetch_dependencies(manifest)?;
    }
    Ok(())
}

/// Sources of every dependency of a workspace, for every target and feature.
///
/// # Errors
/// When the registry cannot be reached and something is not there.
pub fn fetch_dependencies(manifest: &Path) -> Result<()> {
    let mut cargo = exec::pinned("cargo");
    // The manifest of `core` uses what only its own builds may.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    exec::run(
        cargo
            .args(["fetch", "--locked", "--manifest-path"])
            .arg(manifest),
    )
}
