//! Where things live: the checkout, the cache of downloads, the build output.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

/// The directories every verb works in.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Root of the checkout.
    pub root: PathBuf,
    /// Downloads and tools, shared by all checkouts; survives `cargo clean`.
    pub cache: PathBuf,
    /// Cargo's build output.
    pub target: PathBuf,
}

impl Paths {
    /// Finds the three directories and creates the cache.
    ///
    /// # Errors
    /// When no home directory is known or the cache cannot be created.
    pub fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the xtask package has no parent directory")?
            .to_path_buf();
        let cache = cache_dir(|name| env::var_os(name))?;
        fs::create_dir_all(&cache)
            .with_context(|| format!("cannot create the cache directory {}", cache.display()))?;
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => env::current_dir()?.join(dir),
            None => root.join("target"),
        };
        Ok(Self {
            root,
            cache,
            target,
        })
    }

    /// A release program built for the static target.
    pub fn static_program(&self, name: &str) -> PathBuf {
        self.target
            .join(crate::pins::MUSL_TARGET)
            .join("release")
            .join(name)
    }
}

/// `$IPVS_LENS_CACHE`, else `$XDG_CACHE_HOME/ipvs-lens`, else `~/.cache/ipvs-lens`.
fn cache_dir(lookup: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    let absolute = |name: &str| {
        lookup(name)
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
    };
    absolute("IPVS_LENS_CACHE")
        .or_else(|| absolute("XDG_CACHE_HOME").map(|dir| dir.join("ipvs-lens")))
        .or_else(|| absolute("HOME").map(|dir| dir.join(".cache/ipvs-lens")))
        .ok_or_else(|| {
            anyhow!("no cache directory: HOME is not set; set IPVS_LENS_CACHE to an absolute path")
        })
}

#[cfg(test)]
mod tests {
    use super::cache_dir;
    use std::path::PathBuf;

    fn with(vars: &[(&str, &str)]) -> Option<PathBuf> {
        cache_dir(|name| {
            vars.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).into())
        })
        .ok()
    }

    #[test]
    fn own_variable_wins_then_xdg_then_home() {
        let home = ("HOME", "/h");
        let xdg = ("XDG_CACHE_HOME", "/x");
        let own = ("IPVS_LENS_CACHE", "/o");
        assert_eq!(with(&[home, xdg, own]), Some("/o".into()));
        assert_eq!(with(&[home, xdg]), Some("/x/ipvs-lens".into()));
        assert_eq!(with(&[home]), Some("/h/.cache/ipvs-lens".into()));
        assert_eq!(with(&[]), None);
    }

    #[test]
    fn relative_directories_are_ignored() {
        assert_eq!(
            with(&[("HOME", "/h"), ("XDG_CACHE_HOME", "x")]),
            Some("/h/.cache/ipvs-lens".into())
        );
    }
}
