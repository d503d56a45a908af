//! The kernel and this process's rights.

use std::path::Path;

use super::super::facts::{Fact, IpVs, Kernel, Lockdown, Unmounted};
use super::files::{line, present, text};
use crate::kernel::presence;

pub(super) fn kernel(root: &Path) -> Kernel {
    let btf = |name: &str| present(root, "sys/kernel", &format!("btf/{name}")).into();
    Kernel {
        release: line(root, "proc/sys/kernel/osrelease").into(),
        upstream: upstream(root).into(),
        btf: btf("vmlinux"),
        btf_ip_vs: btf("ip_vs"),
        kprobes: present(root, "sys/bus/event_source/devices", "kprobe").into(),
        unmounted: Fact::Known(unmounted(root)),
        lockdown: lockdown(root).into(),
        features: Fact::default(),
    }
}

/// Ubuntu: `Ubuntu 5.4.0-216.236-generic 5.4.289`. Debian: `... Debian 5.10.262-1 (2026-01-01)`.
fn upstream(root: &Path) -> Result<String, String> {
    if let Ok(signature) = line(root, "proc/version_signature")
        && let Some(version) = signature.split_whitespace().nth(2)
    {
        return Ok(version.to_owned());
    }
    let version = line(root, "proc/version")?;
    let mut words = version
        .split_whitespace()
        .skip_while(|word| *word != "Debian");
    let stated = words.nth(1).and_then(|word| word.split('-').next());
    stated
        .map(str::to_owned)
        .ok_or_else(|| "/proc/version does not state it".to_owned())
}

fn unmounted(root: &Path) -> Vec<Unmounted> {
    let needed = [
        ("proc/sys", Unmounted::Proc),
        ("sys/kernel", Unmounted::Sys),
    ];
    needed
        .into_iter()
        .filter_map(|(path, which)| (!root.join(path).is_dir()).then_some(which))
        .collect()
}

/// Securityfs says it; where that is not mounted, the kernel's command line may.
fn lockdown(root: &Path) -> Result<Lockdown, String> {
    const FILE: &str = "sys/kernel/security/lockdown";
    if let Ok(text) = line(root, FILE) {
        return Lockdown::of(&text).ok_or_else(|| format!("/{FILE} is {text:?}"));
    }
    let command_line = line(root, "proc/cmdline").unwrap_or_default();
    let parameter = command_line
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("lockdown="))
        .next_back();
    Ok(parameter
        .and_then(Lockdown::of)
        .unwrap_or(Lockdown::NotShown))
}

pub(super) fn capabilities(root: &Path) -> Result<u64, String> {
    let status = text(root, "proc/self/status")?;
    let bits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .ok_or("/proc/self/status has no CapEff")?;
    u64::from_str_radix(bits.trim(), 16).map_err(|error| format!("CapEff is {bits:?}: {error}"))
}

pub(super) fn ip_vs(root: &Path) -> Result<IpVs, String> {
    // A module has a state; what is built in has parameters only.
    if present(root, "sys/module", "ip_vs/initstate")? {
        return Ok(IpVs::Module);
    }
    let built_in = present(root, "sys/module", "ip_vs")?
        || present(root, "proc/thread-self/net", "ip_vs")?
        // Without parameters it has no directory; in another namespace no procfs file.
        || presence::is_built_in(root).unwrap_or(false);
    Ok(if built_in {
        IpVs::BuiltIn
    } else {
        IpVs::Absent
    })
}
