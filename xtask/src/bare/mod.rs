//! `cargo xtask bare`: the commands of the README on a machine made from nothing.
//!
//! The machine is a directory with Debian's smallest installation in it, the packages the README
//! names, and rustup with its default toolchain. It sees no file of this machine: a clone of the
//! commit that is checked out is built and tested in it. An install step that the README
//! lacks fails there.

mod installed;
mod root;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use crate::cache;
use crate::exec::{self, say};
use crate::paths::Paths;

use self::installed::Installed;
use self::root::Root;

/// Exit status when no such machine can be made here: nothing was tested.
const CANNOT_MAKE: u8 = 4;

/// The commands of the README for a newcomer.
const DEMO: &str = "cargo xtask demo";
const FAST_TEST: &str = "cargo xtask test --fast";
const FULL_TEST: &str = "cargo xtask test";

/// Arguments of `cargo xtask bare`.
#[derive(Args)]
pub struct BareArgs {
    /// Commands to run instead of those of the README, each for a shell
    commands: Vec<String>,
    /// Run every test, those in guests too
    #[arg(long, conflicts_with = "commands")]
    full: bool,
    /// Use the machine that the last run left, with all it has installed
    #[arg(long)]
    warm: bool,
    /// Remove the machine afterwards
    #[arg(long)]
    remove: bool,
}

/// Runs the commands one after the other until one fails.
///
/// Exit status 4 when no bare machine can be made here, with the reason on stderr.
///
/// # Errors
/// When the machine is there and its state cannot be read.
pub fn bare(paths: &Paths, args: &BareArgs) -> Result<ExitCode> {
    let dir = paths.target.join("bare");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let _lock = cache::lock_file(&dir.join(".lock"), "the bare machine")?;
    let root = match make(paths, dir.join("root"), args.warm) {
        Ok(root) => root,
        Err(error) => {
            eprintln!("xtask: no bare machine can be made here: {error:#}");
            return Ok(CANNOT_MAKE.into());
        }
    };
    let before = Installed::read(&root)?;
    let mut lines = Vec::new();
    let mut passed = true;
    for command in commands(args) {
        let start = Instant::now();
        let status = root.run(&command)?;
        passed = status.success();
        lines.push(outcome(&command, passed, start.elapsed()));
        if !passed {
            break;
        }
    }
    let gained = Installed::read(&root)?.beyond(&before);
    if args.remove {
        root.remove()?;
    }
    // Not on stdout: the tests' own last line is the last there.
    eprintln!("\n{}\n{gained}", lines.join("\n"));
    let unnamed = gained.unnamed();
    if !unnamed.is_empty() {
        eprintln!(
            "xtask: packages were installed that xtask/src/pins.rs does not name: {}",
            unnamed.join(", ")
        );
    }
    Ok(if passed && unnamed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn commands(args: &BareArgs) -> Vec<String> {
    match (args.commands.as_slice(), args.full) {
        ([], false) => vec![DEMO.to_owned(), FAST_TEST.to_owned()],
        ([], true) => vec![DEMO.to_owned(), FULL_TEST.to_owned()],
        (commands, _) => commands.to_vec(),
    }
}

/// A machine with a fresh clone in it, in which everything but the commands was tried.
fn make(paths: &Paths, dir: PathBuf, warm: bool) -> Result<Root> {
    let root = if warm {
        Root::open(dir)?
    } else {
        Root::make(dir)?
    };
    clone(paths, &root)?;
    root.try_out()?;
    Ok(root)
}

/// Puts the commit that is checked out into the machine; a `target` of a former clone stays.
fn clone(paths: &Paths, root: &Root) -> Result<()> {
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(&paths.root).args(words);
        exec::output(&mut command)
    };
    let changed = git(&["status", "--porcelain"])?.lines().count();
    if changed > 0 {
        say(format!(
            "{changed} changed files are not committed and not in the bare machine's clone"
        ));
    }
    let project = root.project();
    let target = root.path().join("target-kept");
    let _ = fs::rename(project.join("target"), &target);
    let _ = fs::remove_dir_all(&project);
    exec::run(
        Command::new("git")
            .args(["clone", "--quiet", "--no-hardlinks"])
            .arg(&paths.root)
            .arg(&project),
    )?;
    let _ = fs::rename(target, project.join("target"));
    Ok(())
}

fn outcome(command: &str, passed: bool, took: Duration) -> String {
    let word = if passed { "passed" } else { "FAILED" };
    let seconds = took.as_secs();
    format!(
        "{word}: {command} ({} min {} s)",
        seconds / 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::{BareArgs, DEMO, FULL_TEST, commands, outcome};
    use std::time::Duration;

    #[test]
    fn readme_has_the_commands_and_the_packages() {
        let readme = include_str!("../../../README.md");
        for command in [DEMO, FULL_TEST] {
            assert!(readme.contains(command), "{command}");
        }
        let packages = crate::pins::BARE_PACKAGES.join(" ");
        let line = format!("apt-get install --yes {packages}\n");
        assert!(readme.contains(&line), "{line}");
        for (_, package) in crate::pins::PROGRAMS {
            assert!(readme.contains(&format!("`{package}`")), "{package}");
        }
    }

    #[test]
    fn commands_replace_those_of_the_readme() {
        let args = |words: &[&str], full| BareArgs {
            commands: words.iter().map(|word| (*word).to_owned()).collect(),
            full,
            warm: false,
            remove: false,
        };
        assert_eq!(commands(&args(&["true"], false)), ["true"]);
        assert_eq!(commands(&args(&[], true)), [DEMO, FULL_TEST]);
        assert_eq!(
            commands(&args(&[], false)),
            [DEMO, "cargo xtask test --fast"]
        );
    }

    #[test]
    fn outcomes_say_how_long_it_took() {
        let took = Duration::from_secs(61);
        assert_eq!(outcome("a b", false, took), "FAILED: a b (1 min 1 s)");
    }
}
