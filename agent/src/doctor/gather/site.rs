//! Who programs IPVS here, by what it leaves lying about.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use super::super::facts::{Controller, ControllerKind, Fact, KubeProxy, Tool};
use super::files::{line, names, present, text};
use super::{Looked, firewall, http};

/// Processes looked at; the kernel's own default limit.
const PROCESSES_MAX: usize = 32_768;

/// Where kube-proxy answers unless configured otherwise.
const KUBE_PROXY_METRICS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 10_249);

/// keepalived's configuration, and what in it makes IPVS services.
const KEEPALIVED: &str = "etc/keepalived/keepalived.conf";
const VIRTUAL_SERVER: &str = "virtual_server";

/// The namespace in which Docker Swarm keeps the services of its routing mesh.
const SWARM: &str = "ingress_sbox";

/// A running program: its number and its name, which the kernel cuts to 15 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pid: u32,
    name: String,
}

/// Every process this one may see; `None` without procfs.
pub(super) fn processes(root: &Path) -> Option<Vec<Process>> {
    present(root, "proc", "self").ok().filter(|found| *found)?;
    let pids = names(root, "proc")
        .into_iter()
        .filter_map(|n| n.parse().ok());
    let processes = pids.take(PROCESSES_MAX).filter_map(|pid: u32| {
        let name = line(root, &format!("proc/{pid}/comm")).ok()?;
        Some(Process { pid, name })
    });
    Some(processes.collect())
}

pub(super) fn controllers(
    root: &Path,
    netns: &[Looked],
    processes: Option<&[Process]>,
) -> Vec<Controller> {
    use ControllerKind::{DockerSwarm, Keepalived, KubeProxy, KubeRouter};
    let mut found: BTreeMap<ControllerKind, Vec<String>> = BTreeMap::new();
    let mut add = |kind, evidence| found.entry(kind).or_default().push(evidence);
    for process in processes.unwrap_or(&[]) {
        let kind = match process.name.as_str() {
            "kube-proxy" => KubeProxy,
            "kube-router" => KubeRouter,
            "keepalived" => Keepalived,
            _ => continue,
        };
        add(kind, format!("process {} {}", process.pid, process.name));
    }
    for device in netns.iter().flat_map(|netns| &netns.devices) {
        match device.as_str() {
            "kube-ipvs0" => add(KubeProxy, format!("device {device}")),
            "kube-dummy-if" => add(KubeRouter, format!("device {device}")),
            _ => {}
        }
    }
    if text(root, KEEPALIVED).is_ok_and(|text| text.contains(VIRTUAL_SERVER)) {
        add(Keepalived, format!("{VIRTUAL_SERVER} in /{KEEPALIVED}"));
    }
    if present(root, "run/docker/netns", SWARM) == Ok(true) {
        add(DockerSwarm, format!("network namespace {SWARM}"));
    }
    let found = found.into_iter();
    found
        .map(|(kind, mut evidence)| {
            evidence.truncate(EVIDENCE_MAX);
            Controller { kind, evidence }
        })
        .collect()
}

/// Pieces kept per controller: keepalived alone has three processes.
const EVIDENCE_MAX: usize = 4;

/// What kube-proxy was asked for and does, where it was found.
pub(super) fn kube_proxy(
    root: &Path,
    controllers: &[Controller],
    processes: &[Process],
) -> Option<KubeProxy> {
    let found = controllers
        .iter()
        .find(|c| c.kind == ControllerKind::KubeProxy);
    found?;
    let process = processes
        .iter()
        .find(|process| process.name == "kube-proxy");
    let Some(process) = process else {
        let unseen = || "its process cannot be seen from here (hostPID)".to_owned();
        return Some(KubeProxy {
            asked_mode: Fact::Unknown(unseen()),
            actual_mode: http::get(KUBE_PROXY_METRICS, "/proxyMode").into(),
            tools: Fact::Unknown(unseen()),
        });
    };
    let options = Options::of(root, process.pid);
    let metrics = options.as_ref().ok().and_then(|options| {
        let text = options.get("metrics-bind-address", "metricsBindAddress")?;
        text.parse().ok()
    });
    Some(KubeProxy {
        asked_mode: options
            .map(|options| options.get("proxy-mode", "mode").unwrap_or_default())
            .into(),
        actual_mode: http::get(metrics.unwrap_or(KUBE_PROXY_METRICS), "/proxyMode").into(),
        tools: Fact::Known(tools(&root.join(format!("proc/{}/root", process.pid)))),
    })
}

/// What kube-proxy was started with: once it has a configuration file, its flags are ignored.
#[derive(Debug)]
pub(super) enum Options {
    Flags(Vec<String>),
    File(String),
}

impl Options {
    fn of(root: &Path, pid: u32) -> Result<Self, String> {
        let words = text(root, &format!("proc/{pid}/cmdline"))?;
        let words: Vec<String> = words.split('\0').map(str::to_owned).collect();
        match flag(&words, "config") {
            Some(file) => {
                let inside = format!("proc/{pid}/root/{}", file.trim_start_matches('/'));
                Ok(Self::File(text(root, &inside)?))
            }
            None => Ok(Self::Flags(words)),
        }
    }

    pub(super) fn get(&self, name: &str, key: &str) -> Option<String> {
        match self {
            Self::Flags(words) => flag(words, name),
            Self::File(text) => top_level(text, key),
        }
    }
}

/// `--name=value` or `--name value`.
fn flag(words: &[String], name: &str) -> Option<String> {
    let long = format!("--{name}");
    words.iter().enumerate().find_map(|(at, word)| {
        let rest = word.strip_prefix(&long)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value.to_owned()),
            None if rest.is_empty() => words.get(at + 1).cloned(),
            None => None,
        }
    })
}

/// The value of a key at the left margin: enough of YAML for a scalar.
fn top_level(yaml: &str, key: &str) -> Option<String> {
    let value = yaml
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let value = value.split(" #").next().unwrap_or_default().trim();
    Some(value.trim_matches(['"', '\'']).to_owned())
}

fn tools(root: &Path) -> BTreeMap<String, Tool> {
    let looked = ["conntrack", "ipset"].map(|name| {
        let tool = firewall::find(root, name).map_or(Tool::Missing, |path| {
            let inside = path.strip_prefix(root).unwrap_or(&path);
            Tool::At(format!("/{}", inside.display()))
        });
        (name.to_owned(), tool)
    });
    looked.into()
}
