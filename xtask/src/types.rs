//! Types of a pinned kernel and of its modules, as BTF files in the cache.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use btf_rs::Btf;
use btf_rs::utils::elf::extract_btf_from_file;

use crate::exec::{self, say};
use crate::kernel::{self, Files};
use crate::paths::Paths;
use crate::pins::Kernel;
use crate::{bzimage, cache, rebuild, unpack, userland};

/// The kernel's own types.
const KERNEL_TYPES: &str = "vmlinux.btf";

/// The module whose functions are traced.
const IPVS: &str = "ip_vs";

/// Further modules whose functions may be traced; a kernel whose modules carry no types has none.
const OTHER_MODULES: &[&str] = &["nf_conntrack"];

/// Parsed types of one kernel.
pub struct Types {
    /// The kernel's own.
    pub kernel: Btf,
    /// Of the modules that have some; ip_vs is the first.
    pub modules: Vec<Btf>,
}

/// Reads the types of a kernel, making them first if need be.
///
/// # Errors
/// When the kernel cannot be had or carries no types.
pub fn read(paths: &Paths, kernel: &Kernel) -> Result<Types> {
    let dir = ensure(paths, kernel)?;
    let base = Btf::from_file(dir.join(KERNEL_TYPES))?;
    let mut modules = Vec::new();
    for module in [IPVS].iter().chain(OTHER_MODULES) {
        let file = dir.join(file_name(module));
        if file.exists() {
            modules.push(Btf::from_split_file(file, &base)?);
        }
    }
    Ok(Types {
        kernel: base,
        modules,
    })
}

fn file_name(module: &str) -> String {
    format!("{module}.btf")
}

fn ensure(paths: &Paths, kernel: &Kernel) -> Result<PathBuf> {
    let tools = unpack::ensure_tools(paths)?;
    let files = kernel::ensure(paths, kernel)?;
    let built = match &kernel.source {
        Some(source) => Some(rebuild::ensure(paths, kernel, source)?),
        None => None,
    };
    let dir = paths.cache.join(format!("types-{}", kernel.directory()));
    let stamp = [IPVS].iter().chain(OTHER_MODULES).copied();
    let stamp = stamp.collect::<Vec<_>>().join(" ");
    cache::ensure(&paths.cache, &dir, &stamp, |part| {
        say(format!("taking the types out of kernel {}", kernel.name));
        make(&tools, &files, built.as_deref(), part)
            .with_context(|| format!("types of kernel {}", kernel.name))
    })?;
    Ok(dir)
}

fn make(tools: &Path, files: &Files, built: Option<&Path>, part: &Path) -> Result<()> {
    let image =
        fs::read(&files.image).with_context(|| format!("cannot read {}", files.image.display()))?;
    let packed = part.join("packed");
    fs::write(&packed, bzimage::payload(&image)?)?;
    let elf = part.join("vmlinux");
    unpack::unpack(tools, &packed, &elf)?;
    fs::write(part.join(KERNEL_TYPES), types_of(&elf)?)?;
    match built {
        Some(built) => encode(tools, &elf, &built.join(rebuild::MODULE), part)?,
        None => {
            for module in [IPVS].iter().chain(OTHER_MODULES) {
                let file = part.join("module");
                unpack::unpack(tools, &kernel::module_file(&files.tree, module)?, &file)?;
                fs::write(part.join(file_name(module)), types_of(&file)?)?;
                fs::remove_file(file)?;
            }
        }
    }
    fs::remove_file(packed)?;
    Ok(fs::remove_file(elf)?)
}

fn types_of(elf: &Path) -> Result<Vec<u8>> {
    extract_btf_from_file(elf).map_err(|error| anyhow!("{}: {error}", elf.display()))
}

/// Makes types from a module's debug information, on top of those of its kernel.
///
/// Into a file of their own: for a section in the module, pahole would call `llvm-objcopy`.
fn encode(tools: &Path, kernel: &Path, module: &Path, part: &Path) -> Result<()> {
    let mut file = OsString::from("--btf_encode_detached=");
    file.push(part.join(file_name(IPVS)));
    exec::run(
        userland::program(tools, "usr/bin/pahole")
            .arg(file)
            .arg("--btf_base")
            .arg(kernel)
            .arg(module),
    )
}
