//! The guest's file system: userland, kernel modules, the lab as `/init`, the agent.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cpio::Archive;

/// What a guest's file system is made of.
pub struct Contents<'a> {
    /// Root of the Debian userland.
    pub userland: &'a Path,
    /// The kernel's own tree (`/lib/modules`).
    pub kernel: &'a Path,
    /// The lab's program, which becomes process 1.
    pub init: &'a Path,
    /// The agent.
    pub agent: &'a Path,
    /// Root of further programs.
    pub more: Option<&'a Path>,
}

/// Empty directories a running system mounts or writes to.
const DIRECTORIES: &[&str] = &["dev", "etc", "proc", "root", "run", "sys", "tmp", "var/run"];

/// Writes the file system to `file`, uncompressed: unpacking is slow under emulation.
///
/// # Errors
/// When a part cannot be read or the file cannot be written.
pub fn write(file: &Path, contents: &Contents) -> Result<()> {
    let out = File::create(file).with_context(|| format!("cannot create {}", file.display()))?;
    let mut archive = Archive::new(BufWriter::new(out));
    for directory in DIRECTORIES {
        archive.directory(directory)?;
    }
    archive.device("dev/console", 5, 1)?;
    archive.device("dev/null", 1, 3)?;
    archive.tree(contents.userland)?;
    archive.tree(contents.kernel)?;
    if let Some(more) = contents.more {
        archive.tree(more)?;
    }
    add_program(&mut archive, "init", contents.init)?;
    archive.symlink("bin/lab", "/init")?;
    add_program(&mut archive, "bin/ipvs-lens", contents.agent)?;
    archive.finish()?;
    Ok(())
}

fn add_program(archive: &mut Archive<BufWriter<File>>, name: &str, from: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    archive.file(name, 0o755, &bytes)
}
