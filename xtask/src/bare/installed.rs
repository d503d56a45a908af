//! What a bare machine has, and what commands have added to it.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result};

use super::root::Root;
use crate::pins;

/// Directories of the root that grow, and what people call them.
const DIRECTORIES: &[(&str, &str)] = &[
    ("/root/.rustup", "Rust toolchains"),
    ("/root/.cargo", "sources of crates"),
    ("/root/.cache", "cache of this project"),
    ("/src/project/target", "build output"),
];

/// Prints the size of each directory that is there, in KiB.
const SIZES: &str = "for dir in \"$@\"; do [ ! -e \"$dir\" ] || du -sk \"$dir\"; done";

/// State of a machine, or the difference of two.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// Installed size of every package in KiB.
    packages: BTreeMap<String, u64>,
    /// Packages that were asked for by name.
    asked_for: Vec<String>,
    /// Size of [`DIRECTORIES`] in KiB.
    directories: BTreeMap<String, u64>,
}

impl Installed {
    /// Asks dpkg, apt and the file system of the root.
    ///
    /// # Errors
    /// When one of them fails or prints what is not understood.
    pub fn read(root: &Root) -> Result<Self> {
        let packages = root.output("dpkg-query -W -f '${Installed-Size} ${Package}\\n'")?;
        let asked_for = root.output("apt-mark showmanual")?;
        let names: Vec<_> = DIRECTORIES.iter().map(|(dir, _)| *dir).collect();
        let sizes = root.output(&format!("set -- {}; {SIZES}", names.join(" ")))?;
        Ok(Self {
            packages: parse_sizes(&packages)?,
            asked_for: asked_for.lines().map(str::to_owned).collect(),
            directories: parse_sizes(&sizes)?,
        })
    }

    /// What is here and was not in `before`.
    pub fn beyond(mut self, before: &Self) -> Self {
        self.packages
            .retain(|name, _| !before.packages.contains_key(name));
        self.asked_for
            .retain(|name| !before.asked_for.contains(name));
        for (name, kib) in &mut self.directories {
            *kib = kib.saturating_sub(before.directories.get(name).copied().unwrap_or(0));
        }
        self
    }

    /// Packages asked for by name that [`pins::PROGRAMS`] does not have.
    pub fn unnamed(&self) -> Vec<&str> {
        let names = self.asked_for.iter().map(String::as_str);
        names
            .filter(|name| !pins::PROGRAMS.iter().any(|(_, package)| package == name))
            .collect()
    }
}

/// Lines of a size in KiB and a name.
fn parse_sizes(text: &str) -> Result<BTreeMap<String, u64>> {
    text.lines()
        .map(|line| {
            let parsed = line
                .split_once(char::is_whitespace)
                .and_then(|(kib, name)| Some((name.trim().to_owned(), kib.parse().ok()?)));
            parsed.with_context(|| format!("found `{line}`, want a size in KiB and a name"))
        })
        .collect()
}

/// A line for the packages and one for each directory.
impl fmt::Display for Installed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib: u64 = self.packages.values().sum();
        write!(
            out,
            "installed: {} Debian packages, {} MB; asked for by name: {}",
            self.packages.len(),
            megabytes(kib),
            self.asked_for.join(", ")
        )?;
        for (dir, what) in DIRECTORIES {
            let kib = self.directories.get(*dir).copied().unwrap_or(0);
            write!(out, "\n{what} ({dir}): {} MB more", megabytes(kib))?;
        }
        Ok(())
    }
}

const fn megabytes(kib: u64) -> u64 {
    kib * 1024 / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::Installed;

    fn state(packages: &str, asked_for: &[&str], directories: &str) -> Installed {
        Installed {
            packages: super::parse_sizes(packages).expect("sizes and names"),
            asked_for: asked_for.iter().map(|name| (*name).to_owned()).collect(),
            directories: super::parse_sizes(directories).expect("sizes and names"),
        }
    }

    #[test]
    fn only_what_came_later_is_reported() {
        let before = state("9 gcc", &["gcc"], "2000 /root/.cargo");
        let after = state(
            "9 gcc\n3000 make\n100000 npm",
            &["gcc", "make", "npm"],
            "5000 /root/.cargo",
        );
        let gained = after.beyond(&before);
        assert_eq!(gained.unnamed(), ["npm"]);
        let text = gained.to_string();
        let want = "installed: 2 Debian packages, 105 MB; asked for by name: make, npm\n";
        assert!(text.starts_with(want), "{text}");
        assert!(
            text.contains("sources of crates (/root/.cargo): 3 MB more"),
            "{text}"
        );
    }

    #[test]
    fn a_line_without_a_size_is_an_error() {
        let error = super::parse_sizes("gcc").map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err("found `gcc`, want a size in KiB and a name".to_owned())
        );
    }
}
