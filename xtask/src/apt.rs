//! The machine's own apt: packages, the mirror's address, verified downloads.
//!
//! Contents come either under apt's signatures (`apt-get download`) or under a pinned hash
//! ([`fetch`]). No host is named here; whatever mirror the machine uses is used.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cache::with_suffix;
use crate::exec::{self, say};
use crate::paths::Paths;
use crate::pins::{Archive, PROGRAMS, Package};

/// apt's own downloader: resumes, verifies, and follows the machine's proxy settings.
const APT_HELPER: &str = "/usr/lib/apt/apt-helper";

/// Another installation, such as the machine's own nightly one, may be running.
const APT_LOCK_WAIT: &str = "DPkg::Lock::Timeout=300";

/// Makes sure that a program of [`PROGRAMS`] is installed, from its package if it is not.
///
/// # Errors
/// When it is not in that list, or apt cannot install its package.
pub fn ensure_program(program: &str) -> Result<()> {
    if exec::find_program(program).is_some() {
        return Ok(());
    }
    let package = package_of(program)?;
    say(format!("installing the package {package} for {program}"));
    with_update(|| {
        exec::run(
            Command::new("apt-get")
                .args([
                    "-o",
                    APT_LOCK_WAIT,
                    "install",
                    "--yes",
                    "--no-install-recommends",
                ])
                .arg(package)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )
    })
    .with_context(|| {
        format!("{program} is missing; install the package {package} as root and run this again")
    })?;
    ensure!(
        exec::find_program(program).is_some(),
        "the package {package} is installed but {program} is not in PATH; add its directory"
    );
    Ok(())
}

fn package_of(program: &str) -> Result<&'static str> {
    let mut known = PROGRAMS.iter().filter(|(name, _)| *name == program);
    let (_, package) = known
        .next()
        .with_context(|| format!("{program} is missing, and xtask/src/pins.rs names no package"))?;
    Ok(package)
}

/// Downloads packages into `dir` in one call, verified by apt's signatures, and returns the files.
///
/// `dir` may hold what an interrupted call left: apt goes on from there.
///
/// # Errors
/// When apt cannot find or fetch one of them, even after refreshing its lists.
pub fn download(packages: &[&str], dir: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    with_update(|| exec::run(apt_get("download").args(packages).current_dir(dir)))?;
    // Asked elsewhere, because apt lists only what it does not find in the current directory.
    let listed = exec::output(
        apt_get("download")
            .arg("--print-uris")
            .args(packages)
            .current_dir("/"),
    )?;
    let files: Vec<_> = file_names(&listed).map(|name| dir.join(name)).collect();
    ensure!(
        files.len() == packages.len() && files.iter().all(|file| file.is_file()),
        "apt-get download left {} of {} packages in {}; remove that directory and try again",
        files.iter().filter(|file| file.is_file()).count(),
        packages.len(),
        dir.display()
    );
    Ok(files)
}

/// File names in what `apt-get --print-uris` prints: `'ADDRESS' NAME SIZE HASH` per line.
fn file_names(listed: &str) -> impl Iterator<Item = &str> {
    listed
        .lines()
        .filter(|line| line.starts_with('\''))
        .filter_map(|line| line.split_whitespace().nth(1))
}

/// Downloads pinned packages into the cache unless they are there, and returns the files.
///
/// # Errors
/// When no configured mirror carries one of them or its hash differs.
pub fn fetch_all(paths: &Paths, packages: &[Package]) -> Result<Vec<PathBuf>> {
    let dir = paths.cache.join("downloads");
    packages
        .iter()
        .map(|package| fetch(package, &dir))
        .collect()
}

fn fetch(package: &Package, dir: &Path) -> Result<PathBuf> {
    let name = package.path.rsplit('/').next().unwrap_or(package.path);
    let file = dir.join(name);
    // Renamed only after verification, so its existence is proof enough.
    if file.is_file() {
        return Ok(file);
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    say(format!(
        "downloading {name} ({} MB)",
        package.size_bytes / 1_000_000
    ));
    let part = with_suffix(&file, ".part");
    let uri = format!("{}/{}", site(package.archive)?, package.path);
    let download = |target: &Path| {
        exec::run(
            Command::new(APT_HELPER)
                .args(["-o", "APT::Sandbox::User=root", "download-file", &uri])
                .arg(target)
                .arg(format!("SHA256:{}", package.sha256)),
        )
    };
    if download(&part).is_err() {
        // A damaged beginning cannot be resumed: once more, from the start.
        let _ = fs::remove_file(&part);
        download(&part).with_context(|| {
            format!("cannot download {name}; if the mirror no longer carries it, pin a newer one in xtask/src/pins.rs")
        })?;
    }
    fs::rename(&part, &file).with_context(|| format!("cannot create {}", file.display()))?;
    Ok(file)
}

/// Base address of an archive, as the machine's apt sources name it.
fn site(archive: Archive) -> Result<String> {
    let sites = || {
        exec::output(apt_get("indextargets").args(["--format", "$(SITE)", "Created-By: Packages"]))
    };
    let mut listed = sites()?;
    if find_site(&listed, archive).is_none() {
        update()?;
        listed = sites()?;
    }
    match find_site(&listed, archive) {
        Some(site) => Ok(site.to_owned()),
        None => bail!(
            "apt's sources name no mirror that ends in {}; found: {}; add Debian's main and security archives",
            suffix(archive),
            listed.split_whitespace().collect::<Vec<_>>().join(", ")
        ),
    }
}

/// The first address in a list, one per line, that carries `archive`.
fn find_site(listed: &str, archive: Archive) -> Option<&str> {
    listed
        .lines()
        .map(|line| line.trim().trim_end_matches('/'))
        .find(|line| line.ends_with(suffix(archive)))
}

/// How the address of an archive ends on every mirror.
const fn suffix(archive: Archive) -> &'static str {
    match archive {
        Archive::Debian => "/debian",
        Archive::Security => "/debian-security",
    }
}

/// Runs `attempt`; when it fails, refreshes apt's lists and runs it once more.
///
/// A fresh machine has no lists, an old one has lists that name packages since replaced.
fn with_update(attempt: impl Fn() -> Result<()>) -> Result<()> {
    if attempt().is_ok() {
        return Ok(());
    }
    update()?;
    attempt()
}

fn update() -> Result<()> {
    say("refreshing apt's package lists");
    exec::run(&mut apt_get("update"))
}

/// apt works unsandboxed here: its own user may not enter a home directory.
fn apt_get(verb: &str) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-q", "-o", "APT::Sandbox::User=root", verb]);
    command
}

#[cfg(test)]
mod tests {
    use super::{file_names, find_site, package_of};
    use crate::pins::Archive;

    #[test]
    fn sites_are_told_apart_by_how_they_end() {
        let listed = "http://one.example/debian\nhttps://two.example/mirror/debian-security/\nhttps://three.example/tools\n";
        assert_eq!(
            find_site(listed, Archive::Debian),
            Some("http://one.example/debian")
        );
        assert_eq!(
            find_site(listed, Archive::Security),
            Some("https://two.example/mirror/debian-security")
        );
    }

    #[test]
    fn programs_have_the_package_that_is_pinned() {
        assert_eq!(package_of("make").ok(), Some("make"));
        assert_eq!(package_of("pip3").ok(), Some("python3-pip"));
        assert!(package_of("npm").is_err());
    }

    #[test]
    fn file_names_are_the_second_word() {
        let listed = "Reading lists\n'http://one.example/a_1%3a2_amd64.deb' a_1%3a2_amd64.deb 12 SHA256:ab\n'http://one.example/b.deb' b.deb 3 \n";
        assert_eq!(
            file_names(listed).collect::<Vec<_>>(),
            ["a_1%3a2_amd64.deb", "b.deb"]
        );
    }

    #[test]
    fn a_machine_without_the_archive_has_no_site() {
        assert_eq!(find_site("", Archive::Debian), None);
        assert_eq!(
            find_site("http://one.example/ubuntu\n", Archive::Debian),
            None
        );
        assert_eq!(
            find_site("http://one.example/debian\n", Archive::Security),
            None
        );
    }
}
