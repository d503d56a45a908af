//! Programs that are published as Python wheels, by version and hash.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::exec::{self, say};
use crate::paths::Paths;
use crate::{apt, cache};

/// Makes sure that the wheels listed in `list`, a file of the checkout, are unpacked in the cache
/// below `name`, and returns that directory. pip refuses a wheel that is not listed or has another
/// hash.
///
/// # Errors
/// When apt or pip cannot provide something.
pub fn ensure(paths: &Paths, name: &str, list: &str) -> Result<PathBuf> {
    apt::ensure_program("python3")?;
    apt::ensure_program("pip3")?;
    let list = paths.root.join(list);
    let listed =
        fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    // Wheels differ between versions of Python.
    let python = exec::output(Command::new("python3").arg("--version"))?;
    let dir = paths.cache.join(name);
    cache::ensure(&paths.cache, &dir, &format!("{python}{listed}"), |part| {
        say(format!("fetching {name}"));
        exec::run(
            Command::new("python3")
                .args(["-m", "pip", "install", "--quiet", "--no-deps"])
                .args(["--only-binary", ":all:", "--require-hashes", "--target"])
                .arg(part)
                .arg("--requirement")
                .arg(&list),
        )
    })?;
    Ok(dir)
}
