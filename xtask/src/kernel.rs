//! Kernels for guests: fetched by hash, reduced to what a guest needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::apt;
use crate::cache;
use crate::exec::{self, say};
use crate::extract;
use crate::modules::ModuleLists;
use crate::paths::Paths;
use crate::pins::{self, Kernel};
use crate::rebuild;
use crate::userland;

/// Lists that come with a kernel and that `modprobe` wants.
const MODULE_LISTS: &[&str] = &[
    "modules.builtin",
    "modules.builtin.modinfo",
    "modules.order",
];

/// A kernel ready to boot.
pub struct Files {
    /// The image.
    pub image: PathBuf,
    /// What the guest's file system gets: `/lib/modules` and the kernel's configuration.
    pub tree: PathBuf,
}

/// The pinned kernel people call `name`.
///
/// # Errors
/// When no such kernel is pinned; the message lists those that are.
pub fn find(name: &str) -> Result<&'static Kernel> {
    pins::kernel(name).ok_or_else(|| {
        let known: Vec<_> = pins::KERNELS.iter().map(|kernel| kernel.name).collect();
        anyhow!("no kernel {name}; the pinned ones are {}", known.join(", "))
    })
}

/// Makes sure a kernel is in the cache.
///
/// # Errors
/// When it cannot be fetched or lacks a module every guest needs.
pub fn ensure(paths: &Paths, kernel: &Kernel) -> Result<Files> {
    let userland = userland::ensure(paths)?;
    let rebuilt = match &kernel.source {
        Some(source) if source.patch.is_some() => Some(rebuild::ensure(paths, kernel, source)?),
        _ => None,
    };
    let dir = paths.cache.join(format!("kernel-{}", kernel.directory()));
    cache::ensure(&paths.cache, &dir, &stamp(kernel), |part| {
        make(paths, kernel, &userland, part)
            .and_then(|()| replace_module(part, rebuilt.as_deref()))
            .with_context(|| format!("kernel {}", kernel.name))
    })?;
    Ok(Files {
        image: dir.join("vmlinuz"),
        tree: dir.join("tree"),
    })
}

/// The file of a module in a kernel's tree.
///
/// # Errors
/// When there is none.
pub fn module_file(tree: &Path, module: &str) -> Result<PathBuf> {
    let mut dirs = vec![tree.join("lib/modules")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && !path.is_symlink() {
                dirs.push(path);
            } else if name
                .split_once(".ko")
                .is_some_and(|(stem, _)| stem == module)
            {
                return Ok(path);
            }
        }
    }
    bail!("no module {module} below {}", tree.display())
}

/// Puts a module built from source in the place of the packaged one, without what only debuggers
/// read. The lists stay right: the packaged module is a plain file of the same name.
fn replace_module(part: &Path, rebuilt: Option<&Path>) -> Result<()> {
    let Some(rebuilt) = rebuilt else {
        return Ok(());
    };
    let packaged = module_file(&part.join("tree"), "ip_vs")?;
    ensure!(
        packaged.extension() == Some("ko".as_ref()),
        "the packaged module is {}, and only a plain ip_vs.ko can be replaced",
        packaged.display()
    );
    exec::run(
        Command::new("strip")
            .arg("--strip-debug")
            .arg("-o")
            .arg(&packaged)
            .arg(rebuilt.join(rebuild::MODULE)),
    )
}

/// Everything the contents of the directory follow from.
fn stamp(kernel: &Kernel) -> String {
    let hashes = kernel.packages.iter().map(|package| package.sha256);
    let patch = kernel.source.and_then(|source| source.patch);
    let modules = pins::REQUIRED_MODULES
        .iter()
        .chain(pins::OPTIONAL_MODULES)
        .copied();
    hashes
        .chain(modules)
        .chain(patch)
        .collect::<Vec<_>>()
        .join(" ")
}

fn make(paths: &Paths, kernel: &Kernel, userland: &Path, part: &Path) -> Result<()> {
    let full = part.join("full");
    extract::packages(&apt::fetch_all(paths, kernel.packages)?, &full)?;
    normalise(&full)?;
    say(format!("choosing the modules of kernel {}", kernel.name));
    depmod(userland, &full, kernel.release)?;
    let tree = part.join("tree");
    copy_modules(&full, &tree, kernel.release)?;
    depmod(userland, &tree, kernel.release)?;
    fs::create_dir_all(tree.join("boot"))?;
    let config = tree.join(format!("boot/config-{}", kernel.release));
    copy(&boot_file(&full, "config", kernel.release), &config)?;
    copy(
        &boot_file(&full, "vmlinuz", kernel.release),
        &part.join("vmlinuz"),
    )?;
    Ok(fs::remove_dir_all(full)?)
}

/// A file older packages keep in `boot` and newer ones next to the modules.
fn boot_file(full: &Path, name: &str, release: &str) -> PathBuf {
    let old = full.join(format!("boot/{name}-{release}"));
    if old.exists() {
        old
    } else {
        full.join("lib/modules").join(release).join(name)
    }
}

/// Newer packages keep modules below `usr/lib`; depmod and the guest look in `lib`.
fn normalise(full: &Path) -> Result<()> {
    let (old, new) = (full.join("lib"), full.join("usr/lib"));
    if !old.join("modules").exists() && new.join("modules").exists() {
        fs::create_dir_all(&old)?;
        fs::rename(new.join("modules"), old.join("modules"))?;
    }
    Ok(())
}

/// Copies the modules a guest needs, and the lists, from the full kernel.
fn copy_modules(full: &Path, tree: &Path, release: &str) -> Result<()> {
    let below = Path::new("lib/modules").join(release);
    let (from, to) = (full.join(&below), tree.join(&below));
    let read = |name: &str| {
        let path = from.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let lists = ModuleLists::parse(&read("modules.dep")?, &read("modules.builtin")?);
    for file in lists.resolve(pins::REQUIRED_MODULES, pins::OPTIONAL_MODULES)? {
        let target = to.join(file);
        fs::create_dir_all(target.parent().context("a module path has no directory")?)?;
        copy(&from.join(file), &target)?;
    }
    for list in MODULE_LISTS {
        copy(&from.join(list), &to.join(list))?;
    }
    Ok(())
}

fn depmod(userland: &Path, root: &Path, release: &str) -> Result<()> {
    exec::run(
        userland::program(userland, "sbin/depmod")
            .arg("-b")
            .arg(root)
            .arg(release),
    )
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}
