//! That agent-core does no I/O: it compiles for a target that has none, its lints refuse what the
//! standard library offers elsewhere, and its tests need no linker of kernel programs.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::iter;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::exec::{self, say};
use crate::paths::Paths;
use crate::{pins, toolchain};

/// The package that must stay pure.
const CORE: &str = "agent-core";

/// The packages that [`CORE`] is compiled from, besides published ones.
const PACKAGES: &[&str] = &[CORE, "agent-common"];

/// What a copy of [`CORE`] needs of the checkout besides [`PACKAGES`].
const WORKSPACE_FILES: &[&str] = &["Cargo.lock", "clippy.toml"];

/// Program that links kernel programs.
const LINKER: &str = "bpf-linker";

/// Stands in for [`LINKER`], so that a build that needs it fails.
const REFUSING_LINKER: &str =
    "#!/bin/sh\necho 'agent-core must compile without bpf-linker' >&2\nexit 1\n";

/// One thing agent-core must not do.
struct Impurity {
    /// For people.
    what: &'static str,
    /// The line that does it.
    code: &'static str,
    /// The file it is put into: those whose test modules stand at the top are among them, because
    /// a search that stops at `#[cfg(test)]` sees nothing of them.
    file: &'static str,
}

const IMPURITIES: &[Impurity] = &[
    Impurity {
        what: "reads a file",
        code: r#"pub fn impure() -> usize { std::fs::read("/proc/stat").map_or(0, |bytes| bytes.len()) }"#,
        file: "src/correlate/mod.rs",
    },
    Impurity {
        what: "opens a file under another name",
        code: r#"pub fn impure() -> bool { use std::fs::{self as disk}; disk::OpenOptions::new().open("/").is_ok() }"#,
        file: "src/decode/mod.rs",
    },
    Impurity {
        what: "asks whether a file is there",
        code: r#"pub fn impure() -> bool { std::path::Path::new("/proc").exists() }"#,
        file: "src/kernel/mod.rs",
    },
    Impurity {
        what: "opens a socket",
        code: r#"pub fn impure() -> bool { std::net::TcpStream::connect("127.0.0.1:1").is_ok() }"#,
        file: "src/table/mod.rs",
    },
    Impurity {
        what: "reads the monotonic clock",
        code: "pub fn impure() -> bool { std::time::Instant::now().elapsed().is_zero() }",
        file: "src/finding/mod.rs",
    },
    Impurity {
        what: "reads the wall clock",
        code: "pub fn impure() -> bool { std::time::SystemTime::now() > std::time::UNIX_EPOCH }",
        file: "src/doctor/rules/mod.rs",
    },
    Impurity {
        what: "reads the environment",
        code: r#"pub fn impure() -> bool { std::env::var_os("HOME").is_some() }"#,
        file: "src/top/mod.rs",
    },
    Impurity {
        what: "starts a program",
        code: r#"pub fn impure() -> bool { std::process::Command::new("true").status().is_ok() }"#,
        file: "src/doctor/mod.rs",
    },
    Impurity {
        what: "starts a thread",
        code: "pub fn impure() { drop(std::thread::spawn(|| ())); }",
        file: "src/event.rs",
    },
    Impurity {
        what: "reads the standard input",
        code: "pub fn impure() -> bool { std::io::stdin().lines().next().is_none() }",
        file: "src/clock.rs",
    },
    Impurity {
        what: "prints",
        code: r#"pub fn impure() { println!("impure"); }"#,
        file: "src/lib.rs",
    },
];

/// Checks that agent-core compiles for a target without files, sockets, clocks and threads.
///
/// # Errors
/// When it does not.
pub fn compiles_without_io(paths: &Paths) -> Result<()> {
    toolchain::ensure_rust(paths)?;
    say(format!("checking {CORE} for {}", pins::WASM_TARGET));
    let mut command = cargo_without_linker(paths)?;
    command.args(["check", "--locked", "--package", CORE]);
    exec::run(command.args(["--target", pins::WASM_TARGET]))
}

/// The command that runs the tests of agent-core by itself: no feature that another package asks
/// for is on, and the linker of kernel programs cannot be found.
///
/// # Errors
/// When the toolchain cannot be installed.
pub fn tests(paths: &Paths) -> Result<Command> {
    toolchain::ensure_rust(paths)?;
    let mut command = cargo_without_linker(paths)?;
    command.args(["test", "--locked", "--no-fail-fast", "--package", CORE]);
    Ok(command)
}

/// Checks that lints pass on a copy of agent-core, and refuse each of [`IMPURITIES`] put into it.
///
/// # Errors
/// Which impurity was not refused, or what is wrong with the untouched copy.
pub fn check(paths: &Paths) -> Result<()> {
    toolchain::ensure_rust(paths)?;
    say(format!("checking that the lints of {CORE} refuse I/O"));
    let scratch = Scratch::copy(paths)?;
    let complaints = scratch.complaints()?;
    ensure!(
        complaints.is_empty(),
        "the lints refuse {CORE} as it is: {complaints:?}"
    );
    let lines = IMPURITIES
        .iter()
        .map(|impurity| scratch.append(impurity))
        .collect::<Result<Vec<_>>>()?;
    let complaints = scratch.complaints()?;
    let missed: Vec<_> = IMPURITIES
        .iter()
        .zip(&lines)
        .filter(|(_, line)| !complaints.contains(line.as_str()))
        .map(|(impurity, line)| format!("{line}: {}: {}", impurity.what, impurity.code))
        .collect();
    ensure!(
        missed.is_empty(),
        "the lints of {CORE} let through what does I/O:\n{}",
        missed.join("\n")
    );
    Ok(())
}

/// `cargo` of the pinned toolchain that finds a linker of kernel programs which links nothing,
/// wherever the machine has a real one.
fn cargo_without_linker(paths: &Paths) -> Result<Command> {
    let directory = paths.target.join("no-linker");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let linker = directory.join(LINKER);
    fs::write(&linker, REFUSING_LINKER)
        .and_then(|()| fs::set_permissions(&linker, Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", linker.display()))?;
    let mut command = exec::pinned("cargo");
    command
        .current_dir(&paths.root)
        .env("PATH", in_front(&directory, env::var_os("PATH").as_ref())?);
    Ok(command)
}

/// A search path that begins with `directory`.
fn in_front(directory: &Path, path: Option<&OsString>) -> Result<OsString> {
    let rest = path.into_iter().flat_map(env::split_paths);
    env::join_paths(iter::once(directory.to_owned()).chain(rest))
        .with_context(|| format!("{} cannot be in PATH", directory.display()))
}

/// A workspace with a copy of agent-core, compiled like the original.
struct Scratch {
    root: PathBuf,
}

impl Scratch {
    /// Replaces what an earlier check left; its build output stays, so that only agent-core is
    /// compiled again.
    fn copy(paths: &Paths) -> Result<Self> {
        let root = paths.target.join("purity");
        for package in PACKAGES {
            let copy = root.join(package);
            if copy.exists() {
                fs::remove_dir_all(&copy)
                    .with_context(|| format!("cannot remove {}", copy.display()))?;
            }
            copy_directory(&paths.root.join(package), &copy)?;
        }
        for file in WORKSPACE_FILES {
            copy_file(&paths.root.join(file), &root.join(file))?;
        }
        let manifest = paths.root.join("Cargo.toml");
        let text = fs::read_to_string(&manifest)
            .with_context(|| format!("cannot read {}", manifest.display()))?;
        fs::write(root.join("Cargo.toml"), with_members(&text, PACKAGES)?)?;
        Ok(Self { root })
    }

    /// Puts the impurity at the end of its file; returns where it stands, as `file:line`.
    fn append(&self, impurity: &Impurity) -> Result<String> {
        let file = self.root.join(CORE).join(impurity.file);
        let mut text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        text.push_str(impurity.code);
        text.push('\n');
        let line = text.lines().count();
        fs::write(&file, text)?;
        Ok(format!("{CORE}/{}:{line}", impurity.file))
    }

    /// The places that one of the lints forbidden in agent-core complains about, as `file:line`.
    fn complaints(&self) -> Result<BTreeSet<String>> {
        let mut command = exec::pinned("cargo");
        command
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", self.root.join("target"))
            // Not locked: the lock file is that of the whole workspace.
            .args(["clippy", "--offline", "--package", CORE])
            .args(["--message-format", "short"]);
        let output = command.output().context("cannot run cargo clippy")?;
        let text = String::from_utf8_lossy(&output.stderr);
        let complaints: BTreeSet<_> = text.lines().filter_map(complaint).collect();
        ensure!(
            output.status.success() || !complaints.is_empty(),
            "the copy of {CORE} cannot be checked: {text}"
        );
        Ok(complaints)
    }
}

/// `file:line` of a complaint about I/O.
fn complaint(line: &str) -> Option<String> {
    let (place, message) = line.split_once(": error")?;
    let is_ours = message.contains("use of a disallowed") || message.contains("use of `print");
    let (place, _column) = place.rsplit_once(':')?;
    is_ours.then(|| place.to_owned())
}

/// A workspace's manifest with other members.
fn with_members(manifest: &str, members: &[&str]) -> Result<String> {
    let mut found = false;
    let mut lines = Vec::new();
    for line in manifest.lines() {
        if line.starts_with("members = ") {
            found = true;
            lines.push(format!("members = {members:?}"));
        } else if !line.starts_with("default-members = ") {
            lines.push(line.to_owned());
        }
    }
    ensure!(
        found,
        "Cargo.toml of the workspace has no line `members = `"
    );
    Ok(lines.join("\n") + "\n")
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let entries = fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &copy)?;
        } else {
            copy_file(&entry.path(), &copy)?;
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{complaint, in_front, with_members};
    use std::path::Path;

    #[test]
    fn a_complaint_is_found_by_file_and_line() {
        let method = "agent-core/src/event.rs:597:20: error: use of a disallowed method \
            `std::thread::spawn`";
        assert_eq!(
            complaint(method).as_deref(),
            Some("agent-core/src/event.rs:597")
        );
        let print = "agent-core/src/lib.rs:9:3: error: use of `println!`";
        assert_eq!(complaint(print).as_deref(), Some("agent-core/src/lib.rs:9"));
        let other = "agent-core/src/lib.rs:9:3: error: mismatched types";
        assert_eq!(complaint(other), None);
        assert_eq!(complaint("error: could not compile"), None);
    }

    #[test]
    fn only_the_members_change() {
        let manifest = "[workspace]\nmembers = [\"a\", \"b\"]\ndefault-members = [\"a\"]\n[x]\n";
        assert_eq!(
            with_members(manifest, &["c"]).ok().as_deref(),
            Some("[workspace]\nmembers = [\"c\"]\n[x]\n")
        );
        assert!(with_members("[package]\n", &["c"]).is_err());
    }

    #[test]
    fn the_linker_that_refuses_is_found_first() {
        let path = in_front(Path::new("/no-linker"), Some(&"/bin:/sbin".into()));
        assert_eq!(path.ok(), Some("/no-linker:/bin:/sbin".into()));
    }
}
