//! What people install with, judged by the tools that will read it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::exec;
use crate::paths::Paths;
use crate::tally::Tally;
use crate::{apt, python};

/// The systemd unit.
const UNIT: &str = "deploy/ipvs-lens.service";

/// The program the unit starts, and one that every machine has in its place.
const UNIT_PROGRAM: (&str, &str) = ("/usr/local/bin/ipvs-lens", "/bin/true");

/// Tenths of systemd's measure of what a unit may do, 0 to 10; above 3 something was forgotten.
const EXPOSURE_MAX: &str = "30";

/// Manifests of kinds that Kubernetes itself knows.
const MANIFESTS: &str = "deploy/daemonset.yaml";

/// Checker of manifests, by version and hash.
const CHECKER: &str = "xtask/kubernetes-validate.txt";

/// Checks unit and manifests; one test each.
///
/// # Errors
/// When a tool cannot be provided.
pub fn check(paths: &Paths) -> Result<Tally> {
    apt::ensure_program("systemd-analyze")?;
    let checker = ensure_checker(paths)?;
    let mut tally = Tally::default();
    for result in [unit(paths), manifests(paths, &checker)] {
        if let Err(error) = &result {
            eprintln!("xtask: {error:#}");
        }
        tally += Tally::of(result.is_ok());
    }
    Ok(tally)
}

/// systemd understands every line, and finds it confined.
fn unit(paths: &Paths) -> Result<()> {
    let text = fs::read_to_string(paths.root.join(UNIT))?;
    let (program, stand_in) = UNIT_PROGRAM;
    ensure!(text.contains(program), "{UNIT} does not start {program}");
    let dir = paths.target.join("deploy");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let copy = dir.join("ipvs-lens.service");
    fs::write(&copy, text.replace(&format!("{program} run"), stand_in))?;
    exec::run(
        Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(&copy),
    )?;
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let exposure = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", &threshold])
        .arg(&copy)
        .output()?;
    let said = String::from_utf8_lossy(&exposure.stdout);
    let last = said.trim().lines().last().unwrap_or_default();
    println!("{last}");
    ensure!(exposure.status.success(), "{UNIT} is too exposed: {last}");
    Ok(())
}

fn manifests(paths: &Paths, checker: &Path) -> Result<()> {
    exec::run(
        Command::new("python3")
            .env("PYTHONPATH", checker)
            .args(["-m", "kubernetes_validate", "--strict"])
            .arg(paths.root.join(MANIFESTS)),
    )
}

/// Makes sure the checker of manifests is in the cache and returns its directory.
///
/// # Errors
/// When apt or pip cannot provide it.
pub fn ensure_checker(paths: &Paths) -> Result<PathBuf> {
    python::ensure(paths, "kubernetes-validate", CHECKER)
}
