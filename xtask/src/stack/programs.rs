//! Prometheus, Alertmanager and their tools, taken out of Debian's packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt;
use crate::cache;
use crate::exec::say;
use crate::extract;
use crate::paths::Paths;
use crate::pins::{self, Origin, Release};

/// The programs of one release, extracted.
#[derive(Clone, Debug)]
pub struct Programs {
    root: PathBuf,
}

/// Makes sure the programs of a release are in the cache.
///
/// # Errors
/// When a package cannot be fetched or lacks a program.
pub fn ensure(paths: &Paths, release: &Release) -> Result<Programs> {
    let root = paths.cache.join(format!("stack-{}", release.name));
    cache::ensure(&paths.cache, &root, &stamp(release), |part| {
        say(format!(
            "fetching Prometheus and Alertmanager ({})",
            release.name
        ));
        unpack(paths, release, part)?;
        let programs = Programs {
            root: part.to_owned(),
        };
        for program in pins::STACK_PROGRAMS {
            let path = programs.path(program);
            fs::metadata(&path)
                .with_context(|| format!("the packages hold no {}", path.display()))?;
        }
        Ok(())
    })?;
    Ok(Programs { root })
}

fn stamp(release: &Release) -> String {
    let sources: Vec<_> = match release.origin {
        Origin::Suite(names) => names.to_vec(),
        Origin::Pinned(packages) => packages.iter().map(|package| package.sha256).collect(),
    };
    format!("{}; {}", extract::FORM, sources.join(" "))
}

fn unpack(paths: &Paths, release: &Release, root: &Path) -> Result<()> {
    let files = match release.origin {
        Origin::Suite(names) => apt::download(names, &paths.cache.join("downloads/stack"))?,
        Origin::Pinned(packages) => apt::fetch_all(paths, packages)?,
    };
    extract::packages(&files, root)?;
    for file in files {
        // Unpacked, it is of no use any more.
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    Ok(())
}

impl Programs {
    /// A tool that needs nothing but itself: `promtool`, `amtool`.
    pub fn tool(&self, name: &str) -> Command {
        Command::new(self.path(name))
    }

    /// A server, ended by the kernel when this process ends, however it ends.
    ///
    /// Debian's builds read templates and pages below `/usr/share`. A mount namespace of its own
    /// shows the server the package's files there and leaves the machine as it is.
    pub fn server(&self, name: &str) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args([
                "--pdeathsig",
                "KILL",
                "--",
                "unshare",
                "--mount",
                "sh",
                "-c",
            ])
            .arg("mount --bind \"$0\" /usr/share && exec \"$@\"")
            .arg(self.root.join("usr/share"))
            .arg(self.path(name));
        command
    }

    fn path(&self, program: &str) -> PathBuf {
        self.root.join("usr/bin").join(program)
    }
}
