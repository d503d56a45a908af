//! The pinned Rust toolchain and the tools built with it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cache;
use crate::exec::{self, say};
use crate::paths::Paths;
use crate::pins;

/// Makes sure the pinned toolchain is installed with every component and target it needs.
///
/// # Errors
/// When rustup is missing or cannot install it.
pub fn ensure_rust(paths: &Paths) -> Result<()> {
    if is_complete() {
        return Ok(());
    }
    let _lock = cache::lock(&paths.cache)?;
    if is_complete() {
        return Ok(());
    }
    say(format!("installing Rust {}", pins::RUST));
    let mut rustup = Command::new("rustup");
    rustup.args(["toolchain", "install", pins::RUST, "--no-self-update"]);
    rustup.args(["--profile", "minimal", "--target", pins::MUSL_TARGET]);
    rustup.args(["--target", pins::WASM_TARGET]);
    rustup.args(["--component", &pins::RUST_COMPONENTS.join(",")]);
    exec::run(&mut rustup)?;
    ensure!(
        is_complete(),
        "rustup installed Rust {} without one of: {}, {}, {}",
        pins::RUST,
        pins::RUST_COMPONENTS.join(", "),
        pins::MUSL_TARGET,
        pins::WASM_TARGET
    );
    Ok(())
}

/// Where the pinned toolchain lives.
///
/// # Errors
/// When it is not installed.
pub fn sysroot() -> Result<PathBuf> {
    let mut rustc = exec::pinned("rustc");
    // A question must not start an installation.
    rustc
        .env("RUSTUP_AUTO_INSTALL", "0")
        .args(["--print", "sysroot"]);
    Ok(exec::output(&mut rustc)?.trim().into())
}

/// Every file is there that one of the components or a target brings.
fn is_complete() -> bool {
    let libs = |target| format!("lib/rustlib/{target}/lib");
    let marks = [
        "bin/cargo-clippy",
        "bin/rustfmt",
        "lib/rustlib/src/rust/library/core",
        &libs(pins::MUSL_TARGET),
        &libs(pins::WASM_TARGET),
    ];
    sysroot().is_ok_and(|sysroot| marks.iter().all(|mark| sysroot.join(mark).exists()))
}

/// Makes sure bpf-linker is there, built against the toolchain's own LLVM, and returns its path.
///
/// The pinned rustc and its linker must read the same bitcode; sharing the very library removes
/// the question. The program is therefore tied to the toolchain's place, which its stamp names.
///
/// # Errors
/// When the toolchain has no LLVM library or the build fails.
pub fn ensure_bpf_linker(paths: &Paths) -> Result<PathBuf> {
    ensure_rust(paths)?;
    let sysroot = sysroot()?;
    let dir = paths.cache.join(format!(
        "bpf-linker-{}-rust-{}",
        pins::BPF_LINKER,
        pins::RUST
    ));
    let stamp = format!("{} {}", pins::BPF_LINKER_FEATURE, sysroot.display());
    cache::ensure(&paths.cache, &dir, &stamp, |part| {
        let llvm = paths.cache.join(format!("llvm-rust-{}", pins::RUST));
        link_llvm(&sysroot, &llvm)?;
        let mut tool = Tool::new(paths, "bpf-linker", pins::BPF_LINKER);
        tool.cargo
            .args([
                "--no-default-features",
                "--features",
                pins::BPF_LINKER_FEATURE,
            ])
            .env("LLVM_PREFIX", &llvm);
        tool.install(part)
    })?;
    Ok(dir.join("bin/bpf-linker"))
}

/// Gives the toolchain's LLVM the two names bpf-linker wants: one to link, one to load.
fn link_llvm(sysroot: &Path, llvm: &Path) -> Result<()> {
    let from = sysroot.join("lib");
    let mut library = None;
    for entry in fs::read_dir(&from).with_context(|| format!("cannot read {}", from.display()))? {
        let name = entry?.file_name();
        if is_llvm_library(&name.to_string_lossy()) {
            library = Some(name);
        }
    }
    let Some(library) = library else {
        bail!("{} holds no libLLVM.so.*-rust-*", from.display());
    };
    let to = llvm.join("lib");
    fs::create_dir_all(&to).with_context(|| format!("cannot create {}", to.display()))?;
    for name in [library.as_os_str(), "libLLVM.so".as_ref()] {
        let link = to.join(name);
        let _ = fs::remove_file(&link);
        symlink(from.join(&library), &link)
            .with_context(|| format!("cannot create {}", link.display()))?;
    }
    Ok(())
}

fn is_llvm_library(name: &str) -> bool {
    name.starts_with("libLLVM.so.") && name.contains("-rust-")
}

/// Makes sure cargo-deny is there and returns its path.
///
/// # Errors
/// When the build fails.
pub fn ensure_cargo_deny(paths: &Paths) -> Result<PathBuf> {
    ensure_rust(paths)?;
    let dir = paths.cache.join(format!("cargo-deny-{}", pins::CARGO_DENY));
    cache::ensure(&paths.cache, &dir, pins::RUST, |part| {
        let mut tool = Tool::new(paths, "cargo-deny", pins::CARGO_DENY);
        // It runs for a second per test; optimising it would cost five minutes.
        tool.cargo
            .arg("--debug")
            .env("CARGO_PROFILE_DEV_DEBUG", "0");
        tool.install(part)
    })?;
    Ok(dir.join("bin/cargo-deny"))
}

/// A published program, built with the pinned toolchain.
struct Tool {
    name: &'static str,
    /// The `cargo install` that makes it.
    cargo: Command,
    /// Kept until the program is there, so that an interrupted build goes on.
    build: PathBuf,
}

impl Tool {
    fn new(paths: &Paths, name: &'static str, version: &str) -> Self {
        say(format!("building {name} {version} (a minute or two, once)"));
        let build = paths.cache.join(format!("build-{name}-{version}"));
        let mut cargo = exec::pinned("cargo");
        cargo.args(["install", name, "--version", version, "--locked"]);
        cargo.env("CARGO_TARGET_DIR", &build);
        Self { name, cargo, build }
    }

    /// Puts the program into `root/bin`.
    fn install(mut self, root: &Path) -> Result<()> {
        exec::run(self.cargo.arg("--root").arg(root))?;
        exec::run(Command::new("strip").arg(root.join("bin").join(self.name)))?;
        fs::remove_dir_all(&self.build)
            .with_context(|| format!("cannot remove {}", self.build.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::is_llvm_library;

    #[test]
    fn the_linker_script_beside_it_is_not_the_library() {
        assert!(is_llvm_library("libLLVM.so.22.1-rust-1.98.0-stable"));
        assert!(!is_llvm_library("libLLVM-22-rust-1.98.0-stable.so"));
    }
}
