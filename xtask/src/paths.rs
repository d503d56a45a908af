//! Where things live: the checkout, the cache of downloads, the build output.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

/// Manifest of this package below the root of a checkout; the fuzz targets' workspace has none.
const PACKAGE_MANIFEST: &str = "xtask/Cargo.toml";

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
    /// When the current directory is outside a checkout, no home directory is known, or the cache
    /// cannot be created.
    pub fn find() -> Result<Self> {
        let from = env::current_dir().context("cannot read the current directory")?;
        let root = workspace_root(&from)?;
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

/// The checkout around `from`: this program may have been built in another one.
fn workspace_root(from: &Path) -> Result<PathBuf> {
    let root = from.ancestors().find(|directory| {
        let manifest = fs::read_to_string(directory.join("Cargo.toml"));
        let is_workspace = |text: String| text.lines().any(|line| line.trim() == "[workspace]");
        manifest.is_ok_and(is_workspace) && directory.join(PACKAGE_MANIFEST).is_file()
    });
    root.map(Path::to_path_buf).ok_or_else(|| {
        anyhow!(
            "no checkout of ipvs-lens around {}: neither it nor a directory above it holds a \
             Cargo.toml with [workspace] and {PACKAGE_MANIFEST}; run it inside a checkout",
            from.display()
        )
    })
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
    use super::{Paths, cache_dir, workspace_root};
    use std::fs;
    use std::path::PathBuf;

    #[test]
    fn a_copied_checkout_is_its_own_root() {
        let copy = std::env::temp_dir().join(format!("xtask-paths-{}", std::process::id()));
        let below = copy.join("tests/fuzz/fuzz_targets");
        fs::create_dir_all(&below).expect("a temporary directory can be created");
        fs::create_dir_all(copy.join("xtask")).expect("a directory can be created");
        for (file, text) in [
            ("Cargo.toml", "[workspace]\nmembers = [\"xtask\"]\n"),
            ("xtask/Cargo.toml", "[package]\n"),
            // A workspace of its own, as that of the fuzz targets.
            ("tests/fuzz/Cargo.toml", "[package]\n\n[workspace]\n"),
        ] {
            fs::write(copy.join(file), text).expect("a file can be written");
        }
        assert_eq!(workspace_root(&below).ok().as_ref(), Some(&copy));
        fs::remove_file(copy.join("xtask/Cargo.toml")).expect("a file can be removed");
        let error = workspace_root(&below).map_err(|error| error.to_string());
        let error = error.expect_err("no checkout is left");
        for part in ["tests/fuzz/fuzz_targets", "[workspace]", "xtask/Cargo.toml"] {
            assert!(error.contains(part), "{error}");
        }
        fs::remove_dir_all(&copy).expect("the copy can be removed");
    }

    #[test]
    fn these_tests_run_in_the_checkout_they_belong_to() {
        let root = Paths::find().expect("the tests run in a checkout").root;
        assert!(
            root.join("xtask/src/paths.rs").is_file(),
            "{}",
            root.display()
        );
    }

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
