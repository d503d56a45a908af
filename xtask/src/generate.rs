//! `cargo xtask generate`: files in the repository that are made from others.
//!
//! Tests of this package compare each with what belongs into it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::exec::say;
use crate::paths::Paths;
use crate::{grafana, rules};

/// Every file made, with its content.
///
/// # Errors
/// When a source cannot be read.
pub fn files(paths: &Paths) -> Result<Vec<(PathBuf, String)>> {
    let mut files = vec![rules::object(paths)?];
    files.extend(grafana::files(paths));
    Ok(files)
}

/// Writes the files that differ from what belongs into them.
///
/// # Errors
/// When a file cannot be made or written.
pub fn generate(paths: &Paths) -> Result<()> {
    for (path, content) in files(paths)? {
        if fs::read_to_string(&path).is_ok_and(|found| found == content) {
            continue;
        }
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        say(format!("wrote {}", path.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::files;
    use crate::paths::Paths;
    use std::fs;

    #[test]
    fn made_files_are_up_to_date() {
        let paths = Paths::find().expect("the checkout is found");
        for (path, wanted) in files(&paths).expect("the sources are there") {
            let found = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                found == wanted,
                "{} is out of date: run `cargo xtask generate`",
                path.display()
            );
        }
    }
}
