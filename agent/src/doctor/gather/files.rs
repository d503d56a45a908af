//! Small files of procfs and sysfs; what cannot be read says which and why.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

/// Far above any file read here as a whole; the service table is read by lines.
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The text of a file below `root`.
pub(super) fn text(root: &Path, path: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("cannot read /{path}: {error}");
    let file = File::open(root.join(path)).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// As [`text`], without the line's end.
pub(super) fn line(root: &Path, path: &str) -> Result<String, String> {
    Ok(text(root, path)?.trim().to_owned())
}

/// A file that holds one number.
pub(super) fn number(root: &Path, path: &str) -> Result<u64, String> {
    let line = line(root, path)?;
    line.parse()
        .map_err(|_| format!("/{path} is {line:?}, expected a number"))
}

/// Whether `path` is below `directory`; an error when that directory is not there either.
pub(super) fn present(root: &Path, directory: &str, path: &str) -> Result<bool, String> {
    let at = root.join(directory);
    if !at.is_dir() {
        return Err(format!("there is no /{directory}"));
    }
    at.join(path)
        .try_exists()
        .map_err(|error| format!("cannot look for /{directory}/{path}: {error}"))
}

/// Names in a directory; none when it is not there.
pub(super) fn names(root: &Path, directory: &str) -> Vec<String> {
    let entries = fs::read_dir(root.join(directory)).into_iter().flatten();
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}
