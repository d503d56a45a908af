//! Stamped directories in the cache: made once, in full or not at all.
//!
//! A directory is made under a `.part` name and renamed when it is complete, so an interruption
//! leaves nothing that looks finished. Its stamp names the pins it was made from.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::exec::say;

/// File inside each directory that holds its stamp.
const STAMP: &str = ".stamp";

/// Makes `dir` hold what `make` puts into the directory it is given, unless it is there already
/// with the same stamp.
///
/// # Errors
/// When `make` fails or the file system does; `dir` is then as before.
pub fn ensure(
    cache: &Path,
    dir: &Path,
    stamp: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    if is_current(dir, stamp) {
        return Ok(());
    }
    let _lock = lock(cache)?;
    // Another process may have made it while this one waited.
    if is_current(dir, stamp) {
        return Ok(());
    }
    let part = with_suffix(dir, ".part");
    remove(&part)?;
    fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
    make(&part)?;
    fs::write(part.join(STAMP), stamp)?;
    remove(dir)?;
    fs::rename(&part, dir).with_context(|| format!("cannot create {}", dir.display()))
}

/// Keeps other processes from changing the cache until the returned file is dropped.
///
/// # Errors
/// When the lock file cannot be created.
pub fn lock(cache: &Path) -> Result<File> {
    lock_file(&cache.join(".lock"), "the cache")
}

/// Takes an exclusive lock on `path`, saying so when it has to wait for `what`.
///
/// # Errors
/// When the file cannot be created or locked.
pub fn lock_file(path: &Path, what: &str) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    if file.try_lock().is_err() {
        say(format!("waiting: another process uses {what}"));
        file.lock()
            .with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

/// `path` with `suffix` behind its last component.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn is_current(dir: &Path, stamp: &str) -> bool {
    fs::read_to_string(dir.join(STAMP)).is_ok_and(|found| found == stamp)
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::ensure;
    use anyhow::bail;
    use std::fs;
    use std::path::PathBuf;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("xtask-cache-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a temporary directory can be created");
        dir
    }

    #[test]
    fn made_once_per_stamp() {
        let cache = scratch("once");
        let dir = cache.join("thing");
        let mut made = 0;
        for stamp in ["1", "1", "2"] {
            ensure(&cache, &dir, stamp, |part| {
                made += 1;
                Ok(fs::write(part.join("content"), stamp)?)
            })
            .expect("nothing here fails");
        }
        assert_eq!(made, 2);
        assert_eq!(
            fs::read_to_string(dir.join("content")).ok().as_deref(),
            Some("2")
        );
        fs::remove_dir_all(cache).expect("the directory was made here");
    }

    #[test]
    fn failure_leaves_the_former_content() {
        let cache = scratch("failure");
        let dir = cache.join("thing");
        ensure(&cache, &dir, "1", |part| {
            Ok(fs::write(part.join("content"), "old")?)
        })
        .expect("nothing here fails");
        let failed = ensure(&cache, &dir, "2", |part| {
            fs::write(part.join("content"), "half")?;
            bail!("interrupted")
        });
        assert!(failed.is_err());
        assert_eq!(
            fs::read_to_string(dir.join("content")).ok().as_deref(),
            Some("old")
        );
        fs::remove_dir_all(cache).expect("the directory was made here");
    }
}
