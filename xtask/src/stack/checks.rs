//! What the tools of Prometheus and Alertmanager say about rules, routes and exposition.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::programs::{self, Programs};
use crate::exec;
use crate::paths::Paths;
use crate::pins;
use crate::tally::Tally;

/// The example configuration of Alertmanager.
pub const ALERTMANAGER: &str = "dashboards/alertmanager.yml";

/// What the agent exposes, as its own tests know it.
const EXPOSITION: &str = "agent/src/outputs/metrics/golden.prom";

/// Labels of an alert and the receiver it must reach.
const ROUTES: &[(&[&str], &str)] = &[
    (
        &["alertname=IPVSStaleConnections", "severity=critical"],
        "pages",
    ),
    (
        &["alertname=IPVSConnectsDelayed", "severity=critical"],
        "pages",
    ),
    (
        &["alertname=IPVSConnectsDelayed", "severity=warning"],
        "tickets",
    ),
    (&["alertname=IPVSHazard", "severity=warning"], "tickets"),
    (&["alertname=IPVSLensDown", "severity=warning"], "tickets"),
    (
        &["alertname=IPVSLensSeriesDropped", "severity=info"],
        "nobody",
    ),
    // Somebody else's page must not ring here.
    (&["alertname=DiskFull", "severity=critical"], "tickets"),
];

/// Runs every check with the tools of every release; one test per check.
///
/// # Errors
/// When the tools cannot be provided.
pub fn run(paths: &Paths) -> Result<Tally> {
    let mut tally = Tally::default();
    for release in pins::STACKS {
        let programs = programs::ensure(paths, release)?;
        let results = rules(paths, &programs)?
            .into_iter()
            .chain([
                exposition(paths, &programs),
                configuration(paths, &programs),
            ])
            .chain(
                ROUTES
                    .iter()
                    .map(|route| route_test(paths, &programs, route)),
            );
        for result in results {
            if let Err(error) = &result {
                eprintln!("xtask: {}: {error:#}", release.name);
            }
            tally += Tally::of(result.is_ok());
        }
    }
    Ok(tally)
}

/// One result per rule file and per file of rule tests.
fn rules(paths: &Paths, programs: &Programs) -> Result<Vec<Result<()>>> {
    let dashboards = paths.root.join("dashboards");
    let mut results = Vec::new();
    for (dir, suffix, verb) in [
        (dashboards.clone(), ".rules.yml", "check"),
        (dashboards.join("tests"), ".yml", "test"),
    ] {
        for file in files_ending(&dir, suffix)? {
            results.push(exec::run(
                programs.tool("promtool").args([verb, "rules"]).arg(file),
            ));
        }
    }
    Ok(results)
}

/// The exposition that the agent's tests write, judged by Prometheus's own linter.
fn exposition(paths: &Paths, programs: &Programs) -> Result<()> {
    let file = paths.root.join(EXPOSITION);
    let text = File::open(&file).with_context(|| format!("cannot read {}", file.display()))?;
    exec::run(
        programs
            .tool("promtool")
            .args(["check", "metrics"])
            .stdin(text),
    )
}

fn configuration(paths: &Paths, programs: &Programs) -> Result<()> {
    let mut amtool = programs.tool("amtool");
    exec::run(
        amtool
            .arg("check-config")
            .arg(paths.root.join(ALERTMANAGER)),
    )
}

fn route_test(
    paths: &Paths,
    programs: &Programs,
    &(labels, wanted): &(&[&str], &str),
) -> Result<()> {
    let mut amtool = programs.tool("amtool");
    amtool
        .args(["config", "routes", "test", "--config.file"])
        .arg(paths.root.join(ALERTMANAGER))
        .args(labels);
    let found = exec::output(&mut amtool)?;
    if found.trim() != wanted {
        bail!(
            "{ALERTMANAGER} sends {} to {}, want {wanted}",
            labels.join(" "),
            found.trim()
        );
    }
    Ok(())
}

/// Files of a directory whose names end in `suffix`, sorted; none when there is no directory.
fn files_ending(dir: &Path, suffix: &str) -> Result<Vec<PathBuf>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(suffix) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::files_ending;
    use std::fs;

    #[test]
    fn files_are_chosen_by_ending_and_sorted() {
        let dir = std::env::temp_dir().join(format!("xtask-test-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a temporary directory can be created");
        for name in ["b.rules.yml", "a.rules.yml", "c.yml"] {
            fs::write(dir.join(name), "").expect("the directory is writable");
        }
        let files = files_ending(&dir, ".rules.yml").expect("the directory is readable");
        assert_eq!(files, [dir.join("a.rules.yml"), dir.join("b.rules.yml")]);
        fs::remove_dir_all(&dir).expect("the directory was made here");
        assert!(
            files_ending(&dir, ".yml")
                .expect("an absent directory is empty")
                .is_empty()
        );
    }
}
