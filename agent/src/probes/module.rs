//! Whether the ip_vs module is there, the same as before, and used by anybody but us.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::table::IPVS_MODULE;
use crate::kernel::presence;

/// Where the kernel lists its modules.
const MODULES: &str = "/sys/module";

/// One loading of the module; unloading and loading again makes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loading {
    /// The directory of the module, by its inode.
    Directory(u64),
    /// Part of the kernel's image and without a directory: never unloaded.
    Image,
}

/// The module as it is loaded now; `None` when it is not, or not yet, or not any more.
///
/// Its directory is there before it can be probed and until after it is gone; only in between is
/// it `live`. A module built into the kernel has no such state and is always there.
pub fn loading() -> Option<Loading> {
    let directory = directory();
    let Ok(metadata) = fs::metadata(&directory) else {
        return is_built_in().then_some(Loading::Image);
    };
    let state = fs::read_to_string(directory.join("initstate"));
    is_live(state.as_deref().ok()).then(|| Loading::Directory(metadata.ino()))
}

/// Whether the kernel's image holds ip_vs; the image of a running kernel stays as it is.
fn is_built_in() -> bool {
    static BUILT_IN: OnceLock<bool> = OnceLock::new();
    *BUILT_IN.get_or_init(|| presence::is_built_in(Path::new("/")).unwrap_or(false))
}

fn is_live(state: Option<&str>) -> bool {
    state.is_none_or(|state| state.trim() == "live")
}

/// References to the module: schedulers, services, and programs attached to its functions.
///
/// `None` when it is not loaded, or built into the kernel.
pub fn references() -> Option<u64> {
    fs::read_to_string(directory().join("refcnt"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn directory() -> PathBuf {
    Path::new(MODULES).join(IPVS_MODULE)
}

/// Notices when everybody else has let go of the module, so that we do too.
///
/// A program attached by fexit holds a reference, and `rmmod` gives up at once on a module that
/// has one. Once schedulers and services are gone there is nothing to observe, so the reference
/// is given back. A module nobody has used yet is held: its first service must not be missed.
#[derive(Debug, Default)]
pub struct LastUser {
    ours: u64,
    was_used: bool,
}

impl LastUser {
    /// `before` and `after` are the references around our own attaching.
    pub const fn new(before: u64, after: u64) -> Self {
        Self {
            ours: after.saturating_sub(before),
            was_used: before > 0,
        }
    }

    /// Whether only we are left, given the references now.
    pub const fn is_us(&mut self, references: u64) -> bool {
        if references > self.ours {
            self.was_used = true;
        }
        self.ours > 0 && self.was_used && references <= self.ours
    }
}

#[cfg(test)]
mod tests {
    use super::{LastUser, is_live};

    #[test]
    fn a_module_that_comes_or_goes_is_not_there() {
        assert!(is_live(Some("live\n")) && is_live(None));
        assert!(!is_live(Some("coming\n")) && !is_live(Some("going\n")));
    }

    #[test]
    fn a_module_nobody_has_used_is_held() {
        let mut last = LastUser::new(0, 8);
        assert!(!last.is_us(8));
    }

    #[test]
    fn the_last_user_lets_go() {
        let mut last = LastUser::new(0, 8);
        assert!(!last.is_us(9), "a scheduler came");
        assert!(last.is_us(8), "and went");
        let mut last = LastUser::new(2, 10);
        assert!(!last.is_us(10));
        assert!(last.is_us(8));
    }

    #[test]
    fn kprobes_hold_nothing() {
        let mut last = LastUser::new(2, 2);
        assert!(!last.is_us(0));
    }
}
