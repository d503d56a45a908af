//! What the kernel says a process may still do.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// Capabilities as `CapEff` of /proc/PID/status has them, one bit each (include/uapi/linux/capability.h).
pub mod capability {
    /// Read and change what is the network's.
    pub const NET_ADMIN: u64 = 1 << 12;
    /// Look into other users' processes.
    pub const SYS_PTRACE: u64 = 1 << 19;
    /// Most of what root may.
    pub const SYS_ADMIN: u64 = 1 << 21;
    /// Raise resource limits.
    pub const SYS_RESOURCE: u64 = 1 << 24;
    /// See addresses of the kernel.
    pub const SYSLOG: u64 = 1 << 34;
    /// Programs that read the kernel's memory.
    pub const PERFMON: u64 = 1 << 38;
    /// Load programs.
    pub const BPF: u64 = 1 << 39;
}

use capability::{BPF, NET_ADMIN, PERFMON, SYS_ADMIN, SYS_RESOURCE, SYSLOG};

/// Of the systemd unit.
pub const UNIT: u64 = BPF | PERFMON | SYS_ADMIN | NET_ADMIN | SYSLOG;
/// Of the DaemonSet.
pub const DAEMONSET: u64 = UNIT | SYS_RESOURCE;

/// Fields of a thread's `status` that say what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    effective: u64,
    permitted: u64,
    inheritable: u64,
    ambient: u64,
    no_new_privs: u64,
    seccomp: u64,
}

impl Held {
    fn read(directory: &Path) -> Result<Self> {
        let path = directory.join("status");
        let status =
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok());
            number.with_context(|| format!("no {name} in {}", path.display()))
        };
        Ok(Self {
            effective: field("CapEff:")?,
            permitted: field("CapPrm:")?,
            inheritable: field("CapInh:")?,
            ambient: field("CapAmb:")?,
            no_new_privs: field("NoNewPrivs:")?,
            seccomp: field("Seccomp:")?,
        })
    }

    /// With these capabilities, none of which passes to a program it starts, and a filter.
    const fn confined(capabilities: u64) -> Self {
        Self {
            effective: capabilities,
            permitted: capabilities,
            inheritable: 0,
            ambient: 0,
            no_new_privs: 1,
            seccomp: 2,
        }
    }
}

/// The process holds exactly these capabilities, each of its threads all or none of them; no
/// program it starts would get more, and a filter of system calls is installed.
///
/// # Errors
/// Names what differs, with the thread.
pub fn ensure_confined(process: u32, capabilities: u64) -> Result<()> {
    let directory = Path::new("/proc").join(process.to_string());
    let want = Held::confined(capabilities);
    let held = Held::read(&directory)?;
    ensure!(held == want, "process: {held:x?}, want {want:x?}");
    for thread in fs::read_dir(directory.join("task"))? {
        let path = thread?.path();
        let held = Held::read(&path)?;
        ensure!(
            held == want || held == Held::confined(0),
            "{}: {held:x?}, want {want:x?}, or no capability",
            path.display()
        );
    }
    Ok(())
}
