//! A writer of the archive format the kernel unpacks as its first file system ("newc").
//!
//! Format: `Documentation/driver-api/early-userspace/buffer-format.rst` in the kernel sources.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_SYMLINK: u32 = 0o120_000;
const TYPE_CHARACTER_DEVICE: u32 = 0o020_000;

/// Name of the entry that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// An archive being written. Every owner is root and every time is 0, so equal contents give
/// equal bytes.
pub struct Archive<W> {
    out: W,
    /// Bytes written, for the padding to multiples of four.
    position: usize,
    /// Number of the next entry; the kernel takes equal numbers for hard links.
    inode: u32,
    /// Directories written, so that a merged tree names each once.
    directories: BTreeSet<PathBuf>,
}

impl<W: Write> Archive<W> {
    /// An empty archive on `out`.
    pub const fn new(out: W) -> Self {
        Self {
            out,
            position: 0,
            inode: 1,
            directories: BTreeSet::new(),
        }
    }

    /// Adds a directory and those above it.
    ///
    /// # Errors
    /// When writing fails.
    pub fn directory(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        if path.as_os_str().is_empty() || self.directories.contains(path) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        self.directories.insert(path.to_path_buf());
        self.entry(path, TYPE_DIRECTORY | 0o755, (0, 0), &[])
    }

    /// Adds a file with these contents and permissions.
    ///
    /// # Errors
    /// When writing fails or the contents exceed 4 GiB.
    pub fn file(&mut self, path: impl AsRef<Path>, mode: u32, contents: &[u8]) -> Result<()> {
        self.entry(path.as_ref(), TYPE_FILE | (mode & 0o7777), (0, 0), contents)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// When writing fails.
    pub fn symlink(&mut self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<()> {
        let target = target.as_ref().as_os_str().as_bytes();
        self.entry(path.as_ref(), TYPE_SYMLINK | 0o777, (0, 0), target)
    }

    /// Adds a character device.
    ///
    /// # Errors
    /// When writing fails.
    pub fn device(&mut self, path: impl AsRef<Path>, major: u32, minor: u32) -> Result<()> {
        self.entry(
            path.as_ref(),
            TYPE_CHARACTER_DEVICE | 0o600,
            (major, minor),
            &[],
        )
    }

    /// Adds everything below `from` under the same names, in sorted order.
    ///
    /// # Errors
    /// When reading or writing fails, or something is neither directory, file nor link.
    pub fn tree(&mut self, from: &Path) -> Result<()> {
        self.subtree(from, Path::new(""))
    }

    fn subtree(&mut self, from: &Path, at: &Path) -> Result<()> {
        let read = fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
        let mut entries = read.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (host, guest) = (entry.path(), at.join(entry.file_name()));
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.directory(&guest)?;
                self.subtree(&host, &guest)?;
            } else if kind.is_symlink() {
                self.symlink(&guest, fs::read_link(&host)?)?;
            } else if kind.is_file() {
                let mode = entry.metadata()?.permissions().mode();
                self.file(&guest, mode, &fs::read(&host)?)?;
            } else {
                bail!(
                    "{} is neither a directory, a file nor a link",
                    host.display()
                );
            }
        }
        Ok(())
    }

    /// Ends the archive and returns what it was written to.
    ///
    /// # Errors
    /// When writing fails.
    pub fn finish(mut self) -> Result<W> {
        self.entry(Path::new(TRAILER), 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &Path, mode: u32, device: (u32, u32), data: &[u8]) -> Result<()> {
        let name = path.as_os_str().as_bytes();
        let size = u32::try_from(data.len())
            .with_context(|| format!("{} is larger than 4 GiB", path.display()))?;
        let links = if mode & TYPE_DIRECTORY == 0 { 1 } else { 2 };
        let fields = [
            self.inode,
            mode,
            0, // owner
            0, // group
            links,
            0, // time
            size,
            0, // device that holds it
            0,
            device.0,
            device.1,
            u32::try_from(name.len() + 1).context("a path is larger than 4 GiB")?,
            0, // checksum: none in this variant
        ];
        self.inode += 1;
        let mut header = String::from("070701");
        for field in fields {
            write!(header, "{field:08x}").context("a header has no end")?;
        }
        self.put(header.as_bytes())?;
        self.put(name)?;
        self.put(&[0])?;
        self.pad()?;
        self.put(data)?;
        self.pad()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.position += bytes.len();
        self.out
            .write_all(bytes)
            .context("cannot write the guest's file system")
    }

    fn pad(&mut self) -> Result<()> {
        let missing = self.position.next_multiple_of(4) - self.position;
        self.put(&[0; 3][..missing])
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    /// Name, mode, device minor and data of every entry, read back by the format's rules.
    fn entries(bytes: &[u8]) -> Vec<(String, u32, u32, Vec<u8>)> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            assert_eq!(at % 4, 0);
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |index: usize| {
                let start = at + 6 + index * 8;
                let text = std::str::from_utf8(&bytes[start..start + 8]).expect("hex digits");
                u32::from_str_radix(text, 16).expect("hex digits")
            };
            let (mode, size, minor, name_size) =
                (field(1), field(6) as usize, field(10), field(11) as usize);
            let name_end = at + 110 + name_size;
            let name = String::from_utf8(bytes[at + 110..name_end - 1].to_vec()).expect("UTF-8");
            assert_eq!(bytes[name_end - 1], 0);
            let data = name_end.next_multiple_of(4);
            found.push((name, mode, minor, bytes[data..data + size].to_vec()));
            at = (data + size).next_multiple_of(4);
        }
        found
    }

    #[test]
    fn entries_read_back_as_written() {
        let mut archive = Archive::new(Vec::new());
        archive.directory("dev").expect("memory");
        archive.device("dev/console", 5, 1).expect("memory");
        archive.file("init", 0o755, b"hello").expect("memory");
        archive.symlink("bin", "usr/bin").expect("memory");
        let bytes = archive.finish().expect("memory");
        assert_eq!(
            entries(&bytes),
            [
                ("dev".to_owned(), 0o040_755, 0, vec![]),
                ("dev/console".to_owned(), 0o020_600, 1, vec![]),
                ("init".to_owned(), 0o100_755, 0, b"hello".to_vec()),
                ("bin".to_owned(), 0o120_777, 0, b"usr/bin".to_vec()),
                ("TRAILER!!!".to_owned(), 0, 0, vec![]),
            ]
        );
    }

    #[test]
    fn parents_come_first_and_once() {
        let mut archive = Archive::new(Vec::new());
        archive.directory("a/b").expect("memory");
        archive.directory("a/c").expect("memory");
        let names: Vec<_> = entries(&archive.finish().expect("memory"))
            .into_iter()
            .map(|entry| entry.0)
            .collect();
        assert_eq!(names, ["a", "a/b", "a/c", "TRAILER!!!"]);
    }
}
