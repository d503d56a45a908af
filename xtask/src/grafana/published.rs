//! The dashboards against what Grafana publishes: its schema and its registry of units.
//!
//! Grafana publishes both as npm packages, so this runs in Node.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::exec::{self, say};
use crate::paths::Paths;
use crate::{apt, cache};

/// The check, and the packages it needs, by version and hash.
const SOURCE: &str = "xtask/grafana-check";

/// What npm reads.
const MANIFESTS: [&str; 2] = ["package.json", "package-lock.json"];

/// The check itself.
const PROGRAM: &str = "check.mjs";

/// Makes sure that Node and the packages are there; returns the directory that has them.
///
/// # Errors
/// When apt or npm cannot provide something.
pub fn ensure(paths: &Paths) -> Result<PathBuf> {
    apt::ensure_program("node", "nodejs")?;
    apt::ensure_program("npm", "npm")?;
    let source = paths.root.join(SOURCE);
    let lock = source.join(MANIFESTS[1]);
    let stamp =
        fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    let dir = paths.cache.join("grafana-check");
    cache::ensure(&paths.cache, &dir, &stamp, |part| {
        say("fetching Grafana's schema and units");
        for manifest in MANIFESTS {
            fs::copy(source.join(manifest), part.join(manifest))
                .with_context(|| format!("cannot copy {manifest}"))?;
        }
        // Hashes are in the lock file; nothing of the packages runs now.
        exec::run(
            Command::new("npm")
                .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
                .args(["--loglevel", "error"])
                .current_dir(part),
        )
    })?;
    Ok(dir)
}

/// Checks every dashboard.
///
/// # Errors
/// When one has something Grafana does not know; each fault is printed.
pub fn check(paths: &Paths) -> Result<()> {
    let dir = ensure(paths)?;
    // It looks for packages beside itself.
    let program = dir.join(PROGRAM);
    fs::copy(paths.root.join(SOURCE).join(PROGRAM), &program)
        .with_context(|| format!("cannot create {}", program.display()))?;
    let mut node = Command::new("node");
    node.arg(program);
    for (file, _) in super::files(paths) {
        node.arg(file);
    }
    exec::run(&mut node)
}
