//! Unpacking what kernels and modules come packed in, with Debian's own programs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, ensure};

use crate::cache;
use crate::exec::say;
use crate::paths::Paths;
use crate::{pins, userland};

/// First bytes of a packed file, and the program with its arguments that unpacks it to stdout.
const UNPACKERS: &[(&[u8], &[&str])] = &[
    (b"\xfd7zXZ\0", &["usr/bin/xz", "--decompress", "--stdout"]),
    (
        b"\x28\xb5\x2f\xfd",
        &["usr/bin/zstd", "--decompress", "--stdout", "--quiet"],
    ),
    // The legacy frame, the only one the kernel's own unpacker knows.
    (
        b"\x02\x21\x4c\x18",
        &["usr/bin/lz4", "--decompress", "--stdout", "--quiet"],
    ),
];

/// Makes sure the programs for type information are in the cache and returns their root.
///
/// # Errors
/// When apt cannot provide the packages.
pub fn ensure_tools(paths: &Paths) -> Result<PathBuf> {
    let root = paths.cache.join("type-tools");
    let stamp = userland::stamp(pins::TYPE_TOOLS_PACKAGES);
    cache::ensure(&paths.cache, &root, &stamp, |part| {
        say("fetching the programs that read type information");
        userland::unpack(paths, "type-tools", pins::TYPE_TOOLS_PACKAGES, part)
    })?;
    Ok(root)
}

/// Writes to `to` what is packed in `from`; copies a file that is not packed.
///
/// # Errors
/// When the file is damaged or packed in another way.
pub fn unpack(tools: &Path, from: &Path, to: &Path) -> Result<()> {
    let packed = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if packed.starts_with(b"\x7fELF") {
        fs::copy(from, to)?;
        return Ok(());
    }
    let words = unpacker(&packed).ok_or_else(|| {
        anyhow!(
            "{} begins with {:02x?}; want an ELF file, plain or packed by xz, zstd or lz4",
            from.display(),
            &packed[..packed.len().min(6)]
        )
    })?;
    let (program, arguments) = words.split_first().context("an unpacker has no program")?;
    let status = userland::program(tools, program)
        .args(arguments)
        .stdin(Stdio::from(File::open(from)?))
        .stdout(File::create(to).with_context(|| format!("cannot create {}", to.display()))?)
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        status.success(),
        "{program} of {} failed: {status}",
        from.display()
    );
    Ok(())
}

fn unpacker(packed: &[u8]) -> Option<&'static [&'static str]> {
    UNPACKERS
        .iter()
        .find(|(magic, _)| packed.starts_with(magic))
        .map(|(_, words)| *words)
}

#[cfg(test)]
mod tests {
    use super::unpacker;

    #[test]
    fn programs_are_chosen_by_the_first_bytes() {
        let program = |bytes| unpacker(bytes).map(|words| words[0]);
        assert_eq!(program(b"\xfd7zXZ\0\0"), Some("usr/bin/xz"));
        assert_eq!(program(b"\x28\xb5\x2f\xfd\x04"), Some("usr/bin/zstd"));
        assert_eq!(program(b"\x02\x21\x4c\x18\x00"), Some("usr/bin/lz4"));
        assert_eq!(program(b"BZh9"), None);
    }
}
