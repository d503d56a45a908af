//! Types that the user supplies with `--btf`: one file, or a directory with files of many kernels.
//!
//! In a directory, and at most `DEPTH_MAX` directories below it, a file belongs to a kernel by
//! its release (`uname -r`): `RELEASE.btf`, `RELEASE/vmlinux` and `RELEASE/ip_vs`, and
//! `RELEASE.btf.tar.xz` as BTFHub archives them (`DISTRIBUTION/VERSION/ARCHITECTURE/`). What a file
//! describes, the kernel, ip_vs or both, is found by looking into it.

use std::fs;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use agent_core::kernel::btf::Btf;
use agent_core::kernel::layout::{describes_ip_vs, describes_kernel};
use lzma_rust2::XzReader;

/// Directories below the one that the user names: BTFHub's archive has three, and a release may be
/// one more.
const DEPTH_MAX: u32 = 4;
/// Entries looked at in a directory tree; BTFHub's archive has some 10,000.
const ENTRIES_MAX: u32 = 200_000;
/// Bytes read of an archive once unpacked; the largest kernels have some 8 MiB of types.
const BYTES_MAX: u64 = 64 << 20;

/// Why `--btf` is of no use.
#[derive(Debug, thiserror::Error)]
pub enum SuppliedError {
    /// It cannot be read.
    #[error("--btf {}: cannot be read: {source}", path.display())]
    Unreadable {
        /// File or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bytes are no BTF.
    #[error(
        "--btf {}: not valid BTF ({reason}); supply a file made by pahole \
         (`pahole --btf_encode_detached FILE vmlinux`)",
        path.display()
    )]
    Malformed {
        /// File.
        path: PathBuf,
        /// What the parser found.
        reason: String,
    },
    /// It is BTF of something else.
    #[error(
        "--btf {}: describes neither the kernel (`sk_buff`, `net_device`, `net`) nor ip_vs \
         (`ip_vs_conn`); supply types of this kernel",
        path.display()
    )]
    OfNothing {
        /// File.
        path: PathBuf,
    },
    /// No file of the directory is for this kernel.
    #[error(
        "--btf {}: no types for kernel {release}; searched for {release}.btf, \
         {release}.btf.tar.xz, {release}/vmlinux and {release}/ip_vs",
        path.display()
    )]
    NoneForRelease {
        /// Directory.
        path: PathBuf,
        /// The running kernel.
        release: String,
    },
    /// Two files of the directory are for this kernel.
    #[error(
        "--btf: {} and {} both describe {what} of this release; name the right file",
        first.display(), second.display()
    )]
    Ambiguous {
        /// The kernel or ip_vs.
        what: &'static str,
        /// One file.
        first: PathBuf,
        /// Another one.
        second: PathBuf,
    },
}

/// What the user supplied, with the file it comes from.
#[derive(Default)]
pub struct Supplied {
    /// Types of the kernel itself.
    pub kernel: Option<(PathBuf, Btf)>,
    /// Types of ip_vs.
    pub module: Option<(PathBuf, Btf)>,
}

impl Supplied {
    /// Reads `path`; of a directory, what is for kernel `release`. `base` is the kernel's own BTF,
    /// over which that of a module may be split.
    ///
    /// # Errors
    /// [`SuppliedError`] names the file and what is wrong with it.
    pub fn read(path: &Path, release: &str, base: Option<&Btf>) -> Result<Self, SuppliedError> {
        let files = files(path, release)?;
        let mut supplied = Self::default();
        // What stands by itself first: it may be what the others are split over.
        let mut split = Vec::new();
        for file in files {
            let bytes = contents(&file)?;
            match Btf::parse(bytes.clone()) {
                Ok(types) => supplied.add(&file, types)?,
                Err(error) => split.push((file, bytes, error)),
            }
        }
        for (file, bytes, alone) in split {
            let own = supplied.kernel.as_ref().map(|(_, types)| types);
            let types = match base.or(own) {
                Some(base) => Btf::parse_split(bytes, base),
                None => Err(alone),
            };
            let types = types.map_err(|error| SuppliedError::Malformed {
                path: file.clone(),
                reason: error.to_string(),
            })?;
            supplied.add_module(&file, types)?;
        }
        Ok(supplied)
    }

    fn add(&mut self, file: &Path, types: Btf) -> Result<(), SuppliedError> {
        let (kernel, module) = (describes_kernel(&types), describes_ip_vs(&types));
        if !kernel && !module {
            let path = file.to_owned();
            return Err(SuppliedError::OfNothing { path });
        }
        if kernel {
            fill(&mut self.kernel, "the kernel", file, types.clone())?;
        }
        if module {
            self.add_module(file, types)?;
        }
        Ok(())
    }

    fn add_module(&mut self, file: &Path, types: Btf) -> Result<(), SuppliedError> {
        if !describes_ip_vs(&types) {
            let path = file.to_owned();
            return Err(SuppliedError::OfNothing { path });
        }
        fill(&mut self.module, "ip_vs", file, types)
    }
}

/// Keeps the types of one file; a second file for the same would make a choice that is not ours.
fn fill(
    place: &mut Option<(PathBuf, Btf)>,
    what: &'static str,
    file: &Path,
    types: Btf,
) -> Result<(), SuppliedError> {
    if let Some((first, _)) = place {
        return Err(SuppliedError::Ambiguous {
            what,
            first: first.clone(),
            second: file.to_owned(),
        });
    }
    *place = Some((file.to_owned(), types));
    Ok(())
}

/// The file itself, or those of a directory that are for this kernel.
fn files(path: &Path, release: &str) -> Result<Vec<PathBuf>, SuppliedError> {
    let unreadable = |source| SuppliedError::Unreadable {
        path: path.to_owned(),
        source,
    };
    if !fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let mut entries_left = ENTRIES_MAX;
    search(path, release, DEPTH_MAX, &mut entries_left, &mut found).map_err(unreadable)?;
    if found.is_empty() {
        return Err(SuppliedError::NoneForRelease {
            path: path.to_owned(),
            release: release.to_owned(),
        });
    }
    found.sort();
    Ok(found)
}

fn search(
    directory: &Path,
    release: &str,
    depth: u32,
    entries_left: &mut u32,
    found: &mut Vec<PathBuf>,
) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        *entries_left = entries_left
            .checked_sub(1)
            .ok_or_else(|| io::Error::other(format!("more than {ENTRIES_MAX} entries")))?;
        let path = entry?.path();
        if path.is_dir() {
            if depth > 0 && !is_of_another_architecture(&path) {
                search(&path, release, depth - 1, entries_left, found)?;
            }
        } else if is_for(&path, release) {
            found.push(path);
        }
    }
    Ok(())
}

/// BTFHub's names of architectures.
fn is_of_another_architecture(directory: &Path) -> bool {
    let name = directory.file_name().and_then(|name| name.to_str());
    let ours = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    };
    matches!(name, Some(name) if ["x86_64", "arm64"].contains(&name) && name != ours)
}

fn is_for(file: &Path, release: &str) -> bool {
    let name = file.file_name().and_then(|name| name.to_str());
    let directory = file.parent().and_then(Path::file_name);
    match name.and_then(|name| name.strip_prefix(release)) {
        Some(".btf" | ".btf.tar.xz") => true,
        _ => {
            matches!(name, Some("vmlinux" | "ip_vs"))
                && directory.and_then(|name| name.to_str()) == Some(release)
        }
    }
}

/// Bytes of a BTF file, taken out of its archive where it is in one.
pub(super) fn contents(file: &Path) -> Result<Vec<u8>, SuppliedError> {
    let unreadable = |source| SuppliedError::Unreadable {
        path: file.to_owned(),
        source,
    };
    if !file.to_string_lossy().ends_with(".tar.xz") {
        return fs::read(file).map_err(unreadable);
    }
    let packed = BufReader::new(fs::File::open(file).map_err(unreadable)?);
    first_file(XzReader::new(packed, true)).map_err(unreadable)
}

/// The first file in an archive, which is its only one.
fn first_file(archive: impl Read) -> io::Result<Vec<u8>> {
    // A small archive can unpack to anything.
    let mut archive = tar::Archive::new(archive.take(BYTES_MAX));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            return Ok(bytes);
        }
    }
    Err(io::Error::other("the archive holds no file"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const RELEASE: &str = "4.18.0-240.el8.x86_64";

    /// A directory that is removed with it.
    struct Directory(PathBuf);

    impl Directory {
        fn with(files: &[(&str, &[u8])]) -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!(
                "ipvs-lens-supplied-{}-{}",
                std::process::id(),
                NEXT.fetch_add(1, Ordering::Relaxed)
            );
            let directory = Self(std::env::temp_dir().join(name));
            for (file, bytes) in files {
                let path = directory.0.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
            directory
        }

        fn read(&self) -> Result<Supplied, SuppliedError> {
            Supplied::read(&self.0, RELEASE, None)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    /// BTF of structures without members (Documentation/bpf/btf.rst).
    fn btf(structures: &[&str]) -> Vec<u8> {
        let mut strings = vec![0];
        let mut types = Vec::new();
        for structure in structures {
            for word in [u32::try_from(strings.len()).unwrap(), 4 << 24, 1] {
                types.extend_from_slice(&word.to_le_bytes());
            }
            strings.extend_from_slice(structure.as_bytes());
            strings.push(0);
        }
        let lengths = [types.len(), strings.len()].map(|len| u32::try_from(len).unwrap());
        let mut all = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, lengths[0], lengths[0], lengths[1]] {
            all.extend_from_slice(&word.to_le_bytes());
        }
        all.extend_from_slice(&types);
        all.extend_from_slice(&strings);
        all
    }

    const KERNEL: &[&str] = &["sk_buff", "net_device", "net"];

    /// The file of the kernel's types and that of ip_vs's, without the directory.
    fn found(directory: &Directory) -> (Option<String>, Option<String>) {
        let supplied = directory.read().unwrap();
        let name = |types: Option<(PathBuf, Btf)>| {
            let path = types?.0;
            let inner = path.strip_prefix(&directory.0).unwrap();
            Some(inner.to_str().unwrap().to_owned())
        };
        (name(supplied.kernel), name(supplied.module))
    }

    #[test]
    fn one_file_serves_what_it_describes() {
        let kernel = btf(KERNEL);
        let both = btf(&[KERNEL, &["ip_vs_conn"]].concat());
        let module = btf(&["ip_vs_conn"]);
        let directory = Directory::with(&[("k", &kernel), ("b", &both), ("m", &module)]);
        let of = |name: &str| {
            let read = Supplied::read(&directory.0.join(name), RELEASE, None).unwrap();
            (read.kernel.is_some(), read.module.is_some())
        };
        assert_eq!(of("k"), (true, false));
        assert_eq!(of("b"), (true, true));
        assert_eq!(of("m"), (false, true));
    }

    #[test]
    fn a_directory_is_searched_by_release() {
        let (kernel, module) = (btf(KERNEL), btf(&["ip_vs_conn"]));
        let directory = Directory::with(&[
            ("4.18.0-240.el8.x86_64/vmlinux", &kernel),
            ("4.18.0-240.el8.x86_64/ip_vs", &module),
            ("4.18.0-348.el8.x86_64/vmlinux", b"of another kernel"),
            ("4.18.0-240.el8.x86_64.btf.sha256", b"no types"),
        ]);
        assert_eq!(
            found(&directory),
            (
                Some("4.18.0-240.el8.x86_64/vmlinux".to_owned()),
                Some("4.18.0-240.el8.x86_64/ip_vs".to_owned())
            )
        );
    }

    /// The archive was made by `tar -cJf` of a file with [`KERNEL`]'s structures, as BTFHub does.
    #[test]
    fn archives_are_read_as_they_are_downloaded() {
        let archive = include_bytes!("testdata/kernel.btf.tar.xz");
        let directory = Directory::with(&[
            ("centos/8/x86_64/4.18.0-240.el8.x86_64.btf.tar.xz", archive),
            (
                "centos/8/arm64/4.18.0-240.el8.x86_64.btf.tar.xz",
                b"another architecture",
            ),
        ]);
        assert_eq!(
            found(&directory).0.as_deref(),
            Some("centos/8/x86_64/4.18.0-240.el8.x86_64.btf.tar.xz")
        );
    }

    #[test]
    fn two_files_for_one_kernel_are_a_choice_of_the_user() {
        let kernel = btf(KERNEL);
        let directory = Directory::with(&[
            ("centos/8/x86_64/4.18.0-240.el8.x86_64.btf", &kernel),
            ("rhel/8/x86_64/4.18.0-240.el8.x86_64.btf", &kernel),
        ]);
        let refusal = directory.read().err().unwrap().to_string();
        assert!(
            refusal.contains("both describe the kernel of this release"),
            "{refusal}"
        );
        assert!(refusal.contains("centos/8") && refusal.contains("rhel/8"));
    }

    #[test]
    fn what_is_of_no_use_is_named() {
        let refusal = |files: &[(&str, &[u8])]| {
            let directory = Directory::with(files);
            let refusal = directory.read().err().unwrap().to_string();
            refusal.replace(directory.0.to_str().unwrap(), "DIR")
        };
        assert_eq!(
            refusal(&[("5.4.0/vmlinux", b"")]),
            format!(
                "--btf DIR: no types for kernel {RELEASE}; searched for {RELEASE}.btf, \
                 {RELEASE}.btf.tar.xz, {RELEASE}/vmlinux and {RELEASE}/ip_vs"
            )
        );
        let file = format!("{RELEASE}.btf");
        assert!(
            refusal(&[(&file, b"ELF")]).starts_with(&format!("--btf DIR/{file}: not valid BTF ("))
        );
        assert!(
            refusal(&[(&file, &btf(&["task_struct"]))])
                .starts_with(&format!("--btf DIR/{file}: describes neither the kernel"))
        );
        let archive = format!("{RELEASE}.btf.tar.xz");
        assert!(
            refusal(&[(&archive, b"no archive")])
                .starts_with(&format!("--btf DIR/{archive}: cannot be read: "))
        );
    }
}
