//! Runs the tools of the guest's userland (`ip`, `ipvsadm`, `iptables`, `bpftool`, `modprobe`).
//!
//! Must never hide a failure: an error names the command line, its exit status and its stderr.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs `program` and returns what it printed.
///
/// # Errors
/// It cannot be started, or exits with anything but 0.
pub fn run(program: &str, args: &[&str]) -> Result<String> {
    run_with_input(program, args, "")
}

/// Runs a command line whose words are separated by blanks and hold none themselves.
///
/// # Errors
/// As [`run`].
pub fn line(words: &str) -> Result<String> {
    let mut words = words.split_whitespace();
    let program = words.next().context("empty command line")?;
    run(program, &words.collect::<Vec<_>>())
}

/// As [`run`], with `input` on its standard input.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(program: &str, args: &[&str], input: &str) -> Result<String> {
    let shown = || format!("`{program} {}`", args.join(" "));
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", shown()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool may exit without reading its input; its exit status is the reason.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("wait for {}", shown()))?;
    stdout_of(&shown(), &output)
}

fn stdout_of(shown: &str, output: &Output) -> Result<String> {
    if !output.status.success() {
        bail!(
            "{shown} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_reaches_the_command() {
        assert_eq!(run_with_input("cat", &[], "a b\n").unwrap(), "a b\n");
    }

    #[test]
    fn failure_names_command_status_and_stderr() {
        let error = run("sh", &["-c", "echo no such thing >&2; exit 3"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`sh -c echo no such thing >&2; exit 3` ended with exit status: 3: no such thing"
        );
    }
}
