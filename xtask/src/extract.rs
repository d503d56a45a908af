//! Packages unpacked into a directory: nothing is installed and no script of theirs runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::exec;

/// Part of the stamp of every tree that [`packages`] made; changes when it makes them differently.
pub const FORM: &str = "relative links";

/// Unpacks packages into one tree below `root`, whose links all stay inside it.
///
/// # Errors
/// When a package is damaged or the disk is full.
pub fn packages(files: &[PathBuf], root: &Path) -> Result<()> {
    for file in files {
        exec::run(Command::new("dpkg-deb").arg("-x").arg(file).arg(root))?;
    }
    relative_links(root, root)
}

/// Makes every absolute link below `dir` lead to the same place below `root`.
///
/// Packages hold links such as `sbin/depmod -> /bin/kmod`. Outside of the guest those would lead
/// to this machine's file, or to none.
fn relative_links(root: &Path, dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            relative_links(root, &path)?;
        } else if let Ok(target) = fs::read_link(&path)
            && let Ok(inside) = target.strip_prefix("/")
        {
            let depth = dir.strip_prefix(root)?.components().count();
            let up: PathBuf = std::iter::repeat_n("..", depth).collect();
            fs::remove_file(&path)?;
            symlink(up.join(inside), &path)
                .with_context(|| format!("cannot create {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::relative_links;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    #[test]
    fn absolute_links_stay_inside_the_tree() {
        let root = std::env::temp_dir().join(format!("xtask-links-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("usr/sbin")).expect("a temporary directory can be created");
        fs::write(root.join("usr/kmod"), "kmod").expect("the directory was made here");
        symlink("/usr/kmod", root.join("usr/sbin/depmod")).expect("no such file yet");
        symlink("/usr/kmod", root.join("top")).expect("no such file yet");
        symlink("sbin/depmod", root.join("usr/depmod")).expect("no such file yet");
        relative_links(&root, &root).expect("nothing here fails");
        let target = |link: &str| fs::read_link(root.join(link)).ok();
        assert_eq!(
            target("usr/sbin/depmod").as_deref(),
            Some(Path::new("../../usr/kmod"))
        );
        assert_eq!(target("top").as_deref(), Some(Path::new("usr/kmod")));
        assert_eq!(
            target("usr/depmod").as_deref(),
            Some(Path::new("sbin/depmod")),
            "a relative link stays as it is"
        );
        assert_eq!(
            fs::read_to_string(root.join("usr/depmod")).ok().as_deref(),
            Some("kmod")
        );
        fs::remove_dir_all(root).expect("the directory was made here");
    }
}
