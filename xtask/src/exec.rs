//! Running other programs: what is run is named in every error.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::pins;

/// Tells the person watching what happens next.
pub fn say(text: impl AsRef<str>) {
    eprintln!("==> {}", text.as_ref());
}

/// Runs a program that shows its own output.
///
/// # Errors
/// When it cannot be started or does not exit with status 0.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    ensure!(status.success(), "{} failed: {status}", shown(command));
    Ok(())
}

/// Runs a program and returns what it printed.
///
/// # Errors
/// When it cannot be started, does not exit with status 0 (its stderr is in the message), or
/// prints what is not UTF-8.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} failed: {}: {}",
            shown(command),
            output.status,
            stderr.trim()
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("{} printed what is not UTF-8", shown(command)))
}

/// Runs a program, hands over each line of its stdout as it comes, and returns its status.
///
/// # Errors
/// When it cannot be started or its output cannot be read.
pub fn each_line(command: &mut Command, mut take: impl FnMut(&str)) -> Result<ExitStatus> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.with_context(|| format!("cannot read from {}", shown(command)))?;
            take(String::from_utf8_lossy(&line).trim_end_matches('\r'));
        }
    }
    child
        .wait()
        .with_context(|| format!("cannot wait for {}", shown(command)))
}

/// Where `PATH` finds `program`.
pub fn find_program(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

/// A program of the pinned toolchain, free of what the toolchain around `cargo xtask` exported.
pub fn pinned(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("rustup");
    command.arg("run").arg(pins::RUST).arg(program.as_ref());
    clear_cargo_env(&mut command);
    command
}

/// `cargo` of the toolchain that runs `cargo xtask`: the one this package must compile with.
pub fn outer_cargo() -> Command {
    let mut command = Command::new("cargo");
    clear_cargo_env(&mut command);
    if let Some(toolchain) = env::var_os("RUSTUP_TOOLCHAIN") {
        command.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    command
}

/// `cargo run` describes this package in the environment; a nested cargo must not see it, and
/// its library path would put the outer toolchain's libraries first.
fn clear_cargo_env(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if is_leftover(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
}

fn is_leftover(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "CARGO",
        "CARGO_BIN_NAME",
        "CARGO_CRATE_NAME",
        "CARGO_PRIMARY_PACKAGE",
        "LD_LIBRARY_PATH",
        "OUT_DIR",
        "RUSTC",
        "RUSTDOC",
        "RUSTUP_TOOLCHAIN",
        "RUSTUP_TOOLCHAIN_SOURCE",
        "RUST_RECURSION_COUNT",
    ];
    NAMES.contains(&name) || name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

/// The command as a person would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let text: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    format!("`{}`", text.join(" "))
}

#[cfg(test)]
mod tests {
    use super::{each_line, is_leftover, output, run};
    use std::process::Command;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn failure_names_command_and_status() {
        let error = run(&mut sh("exit 3")).map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err("`sh -c exit 3` failed: exit status: 3".to_owned())
        );
        let error = output(&mut sh("echo why >&2; exit 4")).map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err("`sh -c echo why >&2; exit 4` failed: exit status: 4: why".to_owned())
        );
    }

    #[test]
    fn lines_arrive_without_their_ends() {
        let mut lines = Vec::new();
        let status = each_line(&mut sh("printf 'a\\r\\nb\\nc'; exit 1"), |line| {
            lines.push(line.to_owned());
        });
        assert_eq!(lines, ["a", "b", "c"]);
        assert_eq!(status.ok().and_then(|status| status.code()), Some(1));
    }

    #[test]
    fn only_what_cargo_left_is_removed() {
        for name in [
            "CARGO",
            "CARGO_PKG_NAME",
            "CARGO_MANIFEST_DIR",
            "RUSTUP_TOOLCHAIN",
        ] {
            assert!(is_leftover(name), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_TARGET_DIR",
            "RUSTUP_HOME",
            "PATH",
            "CARGO_BUILD_JOBS",
        ] {
            assert!(!is_leftover(name), "{name}");
        }
    }
}
