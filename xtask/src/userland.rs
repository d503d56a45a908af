//! Debian programs taken out of their packages: the guest's userland.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt;
use crate::cache;
use crate::exec::{self, say};
use crate::extract;
use crate::paths::Paths;
use crate::pins;

/// The loader of the guest's own C library, below the userland.
const LOADER: &str = "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";

/// Where the userland keeps its libraries.
const LIBRARY_DIRS: &[&str] = &["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// Names an installed system makes by scripts the extraction does not run. As on Debian,
/// `iptables` speaks nftables; the older kind is there as `iptables-legacy`.
const LINKS: &[(&str, &str)] = &[
    // Not busybox: its shell prefers its own `ip` and `modprobe` to the real ones.
    ("bin/sh", "bash"),
    ("usr/sbin/iptables", "xtables-nft-multi"),
    ("usr/sbin/iptables-save", "xtables-nft-multi"),
    ("usr/sbin/iptables-restore", "xtables-nft-multi"),
    ("usr/sbin/ip6tables", "xtables-nft-multi"),
    ("usr/sbin/ip6tables-save", "xtables-nft-multi"),
    ("usr/sbin/ip6tables-restore", "xtables-nft-multi"),
];

/// Where busybox looks for a program before its own applet would do.
const PROGRAM_DIRS: &[&str] = &["usr/sbin", "usr/bin", "sbin", "bin"];

/// Makes sure the guest's userland is in the cache and returns its root directory.
///
/// # Errors
/// When apt cannot provide the packages.
pub fn ensure(paths: &Paths) -> Result<PathBuf> {
    let root = paths.cache.join("userland");
    let stamp = stamp(pins::USERLAND_PACKAGES);
    cache::ensure(&paths.cache, &root, &stamp, |part| {
        say(format!(
            "fetching the guest's userland: {} packages",
            pins::USERLAND_PACKAGES.len()
        ));
        unpack(paths, "userland", pins::USERLAND_PACKAGES, part)?;
        // Manuals and translations are most of what the packages hold.
        fs::remove_dir_all(part.join("usr/share"))?;
        for (link, target) in LINKS {
            symlink(target, part.join(link)).with_context(|| format!("cannot create {link}"))?;
        }
        link_applets(part)
    })?;
    Ok(root)
}

/// Gives every busybox applet its name, except where a package brings the program itself.
fn link_applets(root: &Path) -> Result<()> {
    let applets = exec::output(Command::new(root.join("bin/busybox")).arg("--list"))?;
    for applet in applets.lines() {
        if PROGRAM_DIRS
            .iter()
            .all(|dir| root.join(dir).join(applet).symlink_metadata().is_err())
        {
            symlink("busybox", root.join("bin").join(applet))?;
        }
    }
    Ok(())
}

/// Makes sure bpftrace and its libraries are in the cache and returns their root.
///
/// # Errors
/// When apt cannot provide the packages.
pub fn ensure_bpftrace(paths: &Paths) -> Result<PathBuf> {
    ensure_programs(paths, "bpftrace", pins::BPFTRACE_PACKAGES)
}

/// Makes sure node_exporter is in the cache and returns its root.
///
/// # Errors
/// When apt cannot provide the package.
pub fn ensure_node_exporter(paths: &Paths) -> Result<PathBuf> {
    ensure_programs(paths, "node-exporter", pins::NODE_EXPORTER_PACKAGES)
}

/// Makes sure systemd is in the cache and returns its root.
///
/// # Errors
/// When apt cannot provide the packages.
pub fn ensure_systemd(paths: &Paths) -> Result<PathBuf> {
    ensure_programs(paths, "systemd", pins::SYSTEMD_PACKAGES)
}

/// Programs for the guest besides its userland, without their manuals.
fn ensure_programs(paths: &Paths, name: &str, packages: &[&str]) -> Result<PathBuf> {
    let root = paths.cache.join(name);
    cache::ensure(&paths.cache, &root, &stamp(packages), |part| {
        say(format!("fetching {name} for guests"));
        unpack(paths, name, packages, part)?;
        Ok(fs::remove_dir_all(part.join("usr/share"))?)
    })?;
    Ok(root)
}

/// Downloads packages and extracts them below `root`; the downloads are not kept.
///
/// # Errors
/// When apt cannot provide one of them.
pub fn unpack(paths: &Paths, what: &str, packages: &[&str], root: &Path) -> Result<()> {
    let downloads = paths.cache.join("downloads").join(what);
    extract::packages(&apt::download(packages, &downloads)?, root)?;
    Ok(fs::remove_dir_all(downloads)?)
}

/// Stamp of a tree that [`unpack`] made from `packages`.
pub fn stamp(packages: &[&str]) -> String {
    format!("{}; {}", extract::FORM, packages.join(" "))
}

/// A program of the userland, run on this machine with the userland's own libraries.
pub fn program(userland: &Path, program: &str) -> Command {
    let libraries: Vec<_> = LIBRARY_DIRS
        .iter()
        .map(|dir| userland.join(dir).display().to_string())
        .collect();
    let mut command = Command::new(userland.join(LOADER));
    command
        .args(["--library-path", &libraries.join(":")])
        .args(["--argv0", program])
        .arg(userland.join(program));
    command
}
