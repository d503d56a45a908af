//! The ip_vs module as /sys/module shows it; what follows from it is `agent_core::lifecycle`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use agent_core::lifecycle::{Module, ModuleId};

use crate::kernel::presence;

/// Its name.
pub const IPVS_MODULE: &str = "ip_vs";

/// Where the kernel lists its modules.
const MODULES: &str = "/sys/module";

/// The module now.
pub fn read() -> Module {
    let directory = Path::new(MODULES).join(IPVS_MODULE);
    let Ok(metadata) = fs::metadata(&directory) else {
        return if is_built_in() {
            Module::of(ModuleId::Image, None, None)
        } else {
            Module::Absent
        };
    };
    let initstate = fs::read_to_string(directory.join("initstate")).ok();
    let refcnt = fs::read_to_string(directory.join("refcnt")).ok();
    // A module that went between two readings has no state, as one that is built in.
    if initstate.is_none() && !directory.exists() {
        return Module::Absent;
    }
    let id = ModuleId::Directory(metadata.ino());
    Module::of(id, initstate.as_deref(), refcnt.as_deref())
}

/// Whether the kernel's image holds ip_vs; the image of a running kernel stays as it is.
fn is_built_in() -> bool {
    static BUILT_IN: OnceLock<bool> = OnceLock::new();
    *BUILT_IN.get_or_init(|| presence::is_built_in(Path::new("/")).unwrap_or(false))
}

/// Whether its functions and its netlink family are there now.
pub fn is_live() -> bool {
    read().live().is_some()
}
