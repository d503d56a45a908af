//! That nothing the agent does rests on the version of a kernel.
//!
//! Vendors bring features to old kernels and leave them out of new ones, so the agent looks for
//! each feature (`agent-core/src/kernel/features.rs`). What only a version shows, because it
//! leaves no trace that could be looked for, is listed in [`EXCEPTIONS`] with the reason.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::exec::say;
use crate::paths::Paths;

/// Sources of what is shipped.
const SOURCES: &[&str] = &[
    "agent/src",
    "agent-common/src",
    "agent-core/src",
    "agent-ebpf/src",
];

/// What compares versions looks like.
const COMPARISONS: &[&str] = &[
    "Version(",
    ".version() >",
    ".version() <",
    "version >",
    "version <",
    "release >",
    "release <",
    "release.starts_with",
    "KERNEL_VERSION",
    "LINUX_VERSION",
];

/// A file that may compare versions, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    (
        "agent-core/src/doctor/facts/kernel.rs",
        "two fixes of IPVS can only be observed by what happens, or guessed from the version",
    ),
    (
        "agent-core/src/doctor/rules/estimation.rs",
        "how IPVS estimates rates leaves no trace where estimation is not configurable",
    ),
    (
        "agent-core/src/doctor/rules/kube_proxy.rs",
        "kube-proxy itself decides by the version",
    ),
    (
        "agent-core/src/kernel/builtin.rs",
        "a built-in layout was read from one series, and is proven on every SYN",
    ),
];

/// Checks the sources.
///
/// # Errors
/// Each comparison, with its file and line.
pub fn check(paths: &Paths) -> Result<()> {
    say("checking that no version of a kernel is compared");
    let mut found = Vec::new();
    for source in SOURCES {
        for file in files(&paths.root.join(source))? {
            let name = file
                .strip_prefix(&paths.root)?
                .to_string_lossy()
                .into_owned();
            let text = fs::read_to_string(&file).with_context(|| name.clone())?;
            found.extend(comparisons(&name, &text));
        }
    }
    ensure!(
        found.is_empty(),
        "look for the feature instead of comparing versions:\n{}",
        found.join("\n")
    );
    Ok(())
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(self::files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// Lines of one file that compare versions; its tests may.
fn comparisons(file: &str, text: &str) -> Vec<String> {
    if file.ends_with("tests.rs") || EXCEPTIONS.iter().any(|(excepted, _)| *excepted == file) {
        return Vec::new();
    }
    let shipped = text
        .lines()
        .take_while(|line| line.trim() != "#[cfg(test)]");
    let numbered = (1..).zip(shipped);
    numbered
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .filter(|(_, line)| {
            COMPARISONS
                .iter()
                .any(|comparison| line.contains(comparison))
        })
        .map(|(number, line)| format!("{file}:{number}: {}", line.trim()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_are_found() {
        for line in [
            "const OLDEST: Version = Version(5, 4, 0);",
            "    Some(version) if version >= OLDEST => Ok(()),",
            "    if facts.kernel.version() < Some(OLDEST) {",
            "    if release.starts_with(\"5.4.\") {",
        ] {
            let text = format!("fn f() {{\n{line}\n}}\n");
            let found = comparisons("agent/src/run.rs", &text);
            assert_eq!(found, [format!("agent/src/run.rs:2: {}", line.trim())]);
        }
    }

    #[test]
    fn tests_comments_and_exceptions_are_left_out() {
        let line = "let oldest = Version(5, 4, 0);\n";
        assert!(comparisons("agent/src/x/tests.rs", line).is_empty());
        assert!(comparisons("agent/src/x.rs", &format!("    #[cfg(test)]\n{line}")).is_empty());
        assert!(comparisons("agent/src/x.rs", &format!("// {line}")).is_empty());
        assert!(comparisons(EXCEPTIONS[0].0, line).is_empty());
    }

    #[test]
    fn every_exception_is_needed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (file, _) in EXCEPTIONS {
            let text = fs::read_to_string(root.join(file)).unwrap();
            assert!(!comparisons("as another file", &text).is_empty(), "{file}");
        }
    }
}
