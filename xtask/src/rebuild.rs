//! The ip_vs module built from Debian's source of a pinned kernel, against its own headers.
//!
//! Twice of use: it has the types that the packaged module of an old kernel lacks, and a patch can
//! bring back what older kernels did.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt;
use crate::cache;
use crate::exec::{self, say};
use crate::extract;
use crate::paths::Paths;
use crate::pins::{Kernel, Source};

/// Where the module's source is below the root of the kernel's.
const MODULE_SOURCE: &str = "net/netfilter/ipvs";

/// The module, as the build leaves it.
pub const MODULE: &str = "ip_vs.ko";

/// Programs the build runs.
const PROGRAMS: &[&str] = &["gcc", "make", "patch", "strip", "xz"];

/// Libraries the kernel's own build programs want, and their packages.
const LIBRARY_PACKAGES: &[&str] = &["libelf1", "zlib1g"];

/// Where those packages keep them.
const LIBRARY_DIRS: &[&str] = &["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// Makes sure the module is built and returns its directory: [`MODULE`] with debug information.
///
/// # Errors
/// When a package cannot be had or the build fails; what the compiler said is shown.
pub fn ensure(paths: &Paths, kernel: &Kernel, source: &Source) -> Result<PathBuf> {
    for program in PROGRAMS {
        apt::ensure_program(program)?;
    }
    let dir = paths.cache.join(format!("ip_vs-{}", kernel.directory()));
    cache::ensure(&paths.cache, &dir, &stamp(source), |part| {
        say(format!("building ip_vs of kernel {}", kernel.name));
        make(paths, kernel, source, part)
            .with_context(|| format!("ip_vs of kernel {}", kernel.name))
    })?;
    Ok(dir)
}

/// Everything the contents of the directory follow from.
fn stamp(source: &Source) -> String {
    let hashes = source.packages.iter().map(|package| package.sha256);
    let stamp: Vec<_> = hashes.chain(source.patch).collect();
    stamp.join(" ")
}

fn make(paths: &Paths, kernel: &Kernel, source: &Source, part: &Path) -> Result<()> {
    let work = part.join("work");
    extract::packages(&apt::fetch_all(paths, source.packages)?, &work)?;
    let libraries = apt::download(LIBRARY_PACKAGES, &part.join("packages"))?;
    extract::packages(&libraries, &part.join("libraries"))?;
    let headers = work
        .join("usr/src")
        .join(format!("linux-headers-{}", kernel.release));
    let common = relocate(&work, &headers)?;
    let module = extract_module(&work)?;
    if let Some(patch) = source.patch {
        let file = part.join("patch");
        fs::write(&file, patch)?;
        exec::run(
            Command::new("patch")
                .args(["--quiet", "--strip=1", "--directory"])
                .arg(common)
                .arg("--input")
                .arg(fs::canonicalize(&file)?),
        )?;
    }
    build(&headers, &module, &part.join("libraries"))?;
    fs::copy(module.join(MODULE), part.join(MODULE)).context("the build left no module")?;
    for scratch in ["work", "packages", "libraries"] {
        fs::remove_dir_all(part.join(scratch))?;
    }
    Ok(())
}

/// The headers name each other by where they would be installed; makes them name each other where
/// they are, and returns the directory all flavours share.
fn relocate(work: &Path, headers: &Path) -> Result<PathBuf> {
    let makefile = headers.join("Makefile");
    let text = fs::read_to_string(&makefile)
        .with_context(|| format!("cannot read {}", makefile.display()))?;
    let installed = text.trim().strip_prefix("include /").with_context(|| {
        format!(
            "{} holds `{text}`; want one `include /...`",
            makefile.display()
        )
    })?;
    let here = work.join(installed);
    fs::write(&makefile, format!("include {}\n", here.display()))?;
    let shared = here
        .parent()
        .context("the shared headers have no directory")?;
    Ok(shared.to_path_buf())
}

/// Takes the module's directory out of the packed source and returns it.
fn extract_module(work: &Path) -> Result<PathBuf> {
    let dir = work.join("usr/src");
    for entry in fs::read_dir(&dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(root) = name.strip_suffix(".tar.xz") else {
            continue;
        };
        let member = format!("{root}/{MODULE_SOURCE}");
        exec::run(
            Command::new("tar")
                .args(["--extract", "--xz", "--directory"])
                .arg(&dir)
                .arg("--file")
                .arg(&path)
                .arg(&member),
        )?;
        return Ok(dir.join(member));
    }
    bail!("no source of the kernel in {}", dir.display())
}

/// With the machine's compiler: Debian's headers name that of their own release.
fn build(headers: &Path, module: &Path, libraries: &Path) -> Result<()> {
    let dirs: Vec<_> = LIBRARY_DIRS
        .iter()
        .map(|dir| libraries.join(dir).display().to_string())
        .collect();
    let mut command = Command::new("make");
    command.arg("-C").arg(headers);
    command.arg(format!("M={}", module.display()));
    command.args(["CC=gcc", "-j2", "--silent", MODULE]);
    exec::run(command.env("LD_LIBRARY_PATH", dirs.join(":")))
}
