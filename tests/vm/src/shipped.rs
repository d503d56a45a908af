//! The rights that people install the agent with, read out of the files in `deploy/`. Pure.

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::resource::RLIM_INFINITY;
use rustix::thread::CapabilitySet;
use serde::Deserialize;

/// The systemd unit.
pub const UNIT: &str = include_str!("../../../deploy/ipvs-lens.service");

/// The manifests, one of them the DaemonSet.
const MANIFESTS: &str = include_str!("../../../deploy/daemonset.yaml");

/// Any user but root.
const ORDINARY_USER: u32 = 1_000;

/// What systemd 252 does to the file system for an option of a unit, as far as the agent reads it
/// (src/core/namespace.c), and the capability it takes away (src/core/unit.c).
const OPTIONS: &[(&str, Confinement)] = &[
    (
        "ProtectKernelTunables",
        Confinement {
            masked: &["/proc/kallsyms", "/proc/kcore"],
            emptied: &[],
            read_only: &["/proc/sys", "/sys"],
            without: CapabilitySet::empty(),
        },
    ),
    (
        "ProtectKernelLogs",
        Confinement {
            masked: &["/proc/kmsg"],
            emptied: &[],
            read_only: &[],
            without: CapabilitySet::SYSLOG,
        },
    ),
    (
        "ProtectControlGroups",
        Confinement {
            masked: &[],
            emptied: &[],
            read_only: &["/sys/fs/cgroup"],
            without: CapabilitySet::empty(),
        },
    ),
];

/// What a container runtime does unless the container is privileged: the defaults of containerd
/// and CRI-O. Its own sysfs has no tracefs, no debugfs and no securityfs in it.
const CONTAINER: Confinement = Confinement {
    masked: &["/proc/kcore"],
    emptied: &[
        "/sys/kernel/debug",
        "/sys/kernel/tracing",
        "/sys/kernel/security",
    ],
    read_only: &["/proc/sys", "/sys"],
    without: CapabilitySet::empty(),
};

/// What is kept from a process besides capabilities.
#[derive(Clone, Copy, Debug)]
pub struct Confinement {
    /// Files shown as empty.
    pub masked: &'static [&'static str],
    /// Directories shown as empty.
    pub emptied: &'static [&'static str],
    /// Directories shown read-only.
    pub read_only: &'static [&'static str],
    /// Capabilities an option takes away.
    without: CapabilitySet,
}

/// One way to install the agent.
#[derive(Clone, Debug)]
pub struct Shipped {
    /// The file's own word for it.
    pub name: &'static str,
    /// Who runs it.
    pub uid: u32,
    /// What it may do.
    pub capabilities: CapabilitySet,
    /// Whether it can never gain rights.
    pub no_new_privs: bool,
    /// Both limits of `RLIMIT_MEMLOCK` in bytes, where the file sets them.
    pub locked_bytes: Option<u64>,
    /// What is kept from it.
    pub confinements: Vec<Confinement>,
}

/// The rights of the unit.
///
/// # Errors
/// The unit has no such lines, or they are not understood.
pub fn unit() -> Result<Shipped> {
    let mut capabilities = capabilities(setting("AmbientCapabilities")?.split_whitespace())?;
    let mut confinements = Vec::new();
    for (option, confinement) in OPTIONS {
        if setting(option).is_ok_and(|value| value == "yes") {
            capabilities -= confinement.without;
            confinements.push(*confinement);
        }
    }
    Ok(Shipped {
        name: "unit",
        uid: match setting("DynamicUser") {
            Ok("yes") => ORDINARY_USER,
            _ => 0,
        },
        capabilities,
        no_new_privs: setting("NoNewPrivileges").is_ok_and(|value| value == "yes"),
        locked_bytes: locked_bytes(setting("LimitMEMLOCK").ok())?,
        confinements,
    })
}

/// A limit of a unit; `infinity` is none.
fn locked_bytes(value: Option<&str>) -> Result<Option<u64>> {
    match value {
        None => Ok(None),
        Some("infinity") => Ok(Some(RLIM_INFINITY)),
        Some(number) => {
            let number = number.parse();
            number
                .context("LimitMEMLOCK= is neither a number of bytes nor infinity")
                .map(Some)
        }
    }
}

/// The program that the unit starts.
///
/// # Errors
/// The unit starts none.
pub fn unit_program() -> Result<&'static str> {
    let words = setting("ExecStart")?.split_whitespace().next();
    words.context("ExecStart= is empty")
}

/// The value of an option of the unit.
fn setting(option: &str) -> Result<&'static str> {
    let mut lines = UNIT.lines().filter_map(|line| line.split_once('='));
    let found = lines.find(|(name, _)| *name == option);
    let (_, value) = found.with_context(|| format!("the unit has no {option}="))?;
    Ok(value.trim())
}

/// The rights of the DaemonSet's container.
///
/// # Errors
/// The manifest has no such container, or its words are not understood.
pub fn daemon_set() -> Result<Shipped> {
    let manifests = MANIFESTS.split("\n---\n");
    let mut daemon_sets = manifests.filter(|text| text.contains("\nkind: DaemonSet\n"));
    let text = daemon_sets
        .next()
        .context("no DaemonSet in the manifests")?;
    let manifest: Manifest = serde_saphyr::from_str(text).context("read the DaemonSet")?;
    let [container] = manifest.spec.template.spec.containers.as_slice() else {
        bail!("the DaemonSet has not exactly one container");
    };
    let context = &container.security_context;
    ensure!(
        !context.privileged,
        "the DaemonSet's container is privileged; the matrix knows only confined ones"
    );
    ensure!(
        context.capabilities.drop == ["ALL"],
        "the DaemonSet's container drops {:?}, want ALL",
        context.capabilities.drop
    );
    Ok(Shipped {
        name: "DaemonSet",
        uid: context.run_as_user,
        capabilities: capabilities(context.capabilities.add.iter().map(String::as_str))?,
        no_new_privs: !context.allow_privilege_escalation,
        locked_bytes: None,
        confinements: vec![CONTAINER],
    })
}

#[derive(Deserialize)]
struct Manifest {
    spec: DaemonSetSpec,
}

#[derive(Deserialize)]
struct DaemonSetSpec {
    template: Template,
}

#[derive(Deserialize)]
struct Template {
    spec: PodSpec,
}

#[derive(Deserialize)]
struct PodSpec {
    containers: Vec<Container>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    security_context: SecurityContext,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecurityContext {
    run_as_user: u32,
    #[serde(default)]
    privileged: bool,
    allow_privilege_escalation: bool,
    capabilities: CapabilityChanges,
}

#[derive(Deserialize)]
struct CapabilityChanges {
    drop: Vec<String>,
    add: Vec<String>,
}

/// The set of capabilities with these names, with or without `CAP_`.
fn capabilities<'a>(names: impl Iterator<Item = &'a str>) -> Result<CapabilitySet> {
    names.map(capability).collect()
}

fn capability(name: &str) -> Result<CapabilitySet> {
    let short = name.strip_prefix("CAP_").unwrap_or(name);
    CapabilitySet::from_name(short).with_context(|| format!("no capability is called {name}"))
}

/// The kernel's name of a single capability.
pub fn capability_name(one: CapabilitySet) -> String {
    let names: Vec<_> = one.iter_names().map(|(name, _)| name).collect();
    format!("CAP_{}", names.join(", CAP_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_files_are_understood() {
        let unit = unit().unwrap();
        assert_ne!(unit.uid, 0);
        assert!(unit.no_new_privs);
        let daemon_set = daemon_set().unwrap();
        assert_eq!(daemon_set.uid, 0);
        for shipped in [unit, daemon_set] {
            let needed = CapabilitySet::BPF | CapabilitySet::PERFMON;
            assert!(shipped.capabilities.contains(needed), "{shipped:?}");
            assert!(!shipped.capabilities.contains(CapabilitySet::SYS_MODULE));
        }
        assert!(unit_program().unwrap().starts_with('/'));
    }

    #[test]
    fn bounding_set_is_the_ambient_set() {
        // Less would take a capability away, more would leave one within reach.
        assert_eq!(
            setting("CapabilityBoundingSet").unwrap(),
            setting("AmbientCapabilities").unwrap()
        );
    }

    #[test]
    fn names_of_capabilities() {
        assert_eq!(capability("CAP_SYSLOG").unwrap(), CapabilitySet::SYSLOG);
        assert_eq!(capability("BPF").unwrap(), CapabilitySet::BPF);
        assert!(capability("CAP_FLY").is_err());
        assert_eq!(capability_name(CapabilitySet::NET_ADMIN), "CAP_NET_ADMIN");
    }
}
