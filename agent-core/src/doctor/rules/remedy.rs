//! Commands that change a sysctl in one namespace, take it back, and make it last.
//!
//! Parameters of `net.ipv4.vs` exist only once ip_vs is loaded, and every controller sets some of
//! them when it starts: where to write a change down depends on who runs here.

use super::super::facts::{ControllerKind, Facts, Netns};
use super::verdict::{Lasting, Remedy};

/// Where systemd looks for sysctls and modules.
const SYSCTL_FILE: &str = "/etc/sysctl.d/90-ipvs.conf";
const MODULES_FILE: &str = "/etc/modules-load.d/ip_vs.conf";

/// How one sysctl should change.
#[derive(Clone, Debug)]
pub struct Change {
    name: &'static str,
    from: String,
    to: String,
}

impl Change {
    /// Of a parameter that holds a number; `name` is its full name.
    pub fn number(name: &'static str, from: i64, to: i64) -> Self {
        Self::text(name, from.to_string(), to.to_string())
    }

    /// Of one that holds anything else.
    pub fn text(name: &'static str, from: String, to: String) -> Self {
        Self { name, from, to }
    }

    fn is_ipvs(&self) -> bool {
        self.name.starts_with("net.ipv4.vs.")
    }
}

/// Changes sysctls in a namespace.
pub fn sysctls(facts: &Facts, netns: &Netns, changes: &[Change]) -> Remedy {
    let command = |change: &Change, value: &str| {
        format!(
            "{}sysctl -w {}",
            entering(netns),
            assignment(change.name, value)
        )
    };
    Remedy {
        commands: changes.iter().map(|c| command(c, &c.to)).collect(),
        undo: changes.iter().rev().map(|c| command(c, &c.from)).collect(),
        lasting: lasting(facts, netns, changes),
    }
}

/// Quoted where the value has blanks, as `sh` needs it.
fn assignment(name: &str, value: &str) -> String {
    if value.contains([' ', '\t']) {
        format!("{name}=\"{value}\"")
    } else {
        format!("{name}={value}")
    }
}

/// What a command starts with to happen in this namespace.
pub fn entering(netns: &Netns) -> String {
    netns
        .path
        .as_deref()
        .map_or_else(String::new, |path| format!("nsenter --net={path} "))
}

fn lasting(facts: &Facts, netns: &Netns, changes: &[Change]) -> Vec<Lasting> {
    let commands: Vec<String> = changes
        .iter()
        .map(|c| format!("sysctl -w {}", assignment(c.name, &c.to)))
        .collect();
    let commands = commands.join(" && ");
    let set_by_controller = changes.iter().any(Change::is_ipvs);
    if netns.path.is_some() {
        return vec![swarm(netns, &commands)];
    }
    if set_by_controller && facts.has_controller(ControllerKind::KubeRouter) {
        return vec![daemon_set("kube-router", "kube-dummy-if", &commands)];
    }
    if set_by_controller && facts.has_controller(ControllerKind::KubeProxy) {
        return vec![daemon_set("kube-proxy", "kube-ipvs0", &commands)];
    }
    let mut lasting = sysctl_files(changes);
    if set_by_controller && facts.has_controller(ControllerKind::Keepalived) {
        lasting.push(unit("keepalived", &commands));
    }
    lasting
}

/// The pod's own hook, which waits for the device that the controller makes after it has set its
/// sysctls.
fn daemon_set(name: &str, device: &str, commands: &str) -> Lasting {
    let wait = format!("until test -d /sys/class/net/{device}; do sleep 1; done");
    Lasting {
        place: format!("DaemonSet {name}, its container (needs securityContext.privileged)"),
        text: format!(
            "lifecycle:\n  postStart:\n    exec:\n      command: [sh, -c, '{wait}; {commands}']"
        ),
    }
}

/// A namespace is made again with its program: Docker's `ingress_sbox` at every start of the daemon.
fn swarm(netns: &Netns, commands: &str) -> Lasting {
    let path = netns.path.as_deref().unwrap_or_default();
    let wait = format!("until test -e {path}; do sleep 1; done");
    Lasting {
        place: "/etc/systemd/system/docker.service.d/ipvs.conf, or the unit of what makes this \
                namespace"
            .to_owned(),
        text: format!(
            "[Service]\nExecStartPost=-/bin/sh -c '{wait}; nsenter --net={path} sh -c \"{}\"'",
            commands.replace('"', "\\\"")
        ),
    }
}

fn unit(name: &str, commands: &str) -> Lasting {
    Lasting {
        place: format!("/etc/systemd/system/{name}.service.d/ipvs.conf"),
        text: format!("[Service]\nExecStartPost=/bin/sh -c '{commands}'"),
    }
}

/// Without the module loaded first, systemd finds no such parameter at boot and goes on.
fn sysctl_files(changes: &[Change]) -> Vec<Lasting> {
    let lines: Vec<String> = changes
        .iter()
        .map(|c| format!("{} = {}", c.name, c.to))
        .collect();
    let mut files = vec![Lasting {
        place: SYSCTL_FILE.to_owned(),
        text: lines.join("\n"),
    }];
    if changes.iter().any(Change::is_ipvs) {
        files.insert(
            0,
            Lasting {
                place: MODULES_FILE.to_owned(),
                text: "ip_vs".to_owned(),
            },
        );
    }
    files
}
