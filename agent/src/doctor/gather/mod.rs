//! Reads the facts. The only IO of the doctor; changes nothing on the node.

mod agent;
mod conntrack;
mod files;
mod firewall;
mod http;
mod kernel;
mod netns;
mod ports;
mod site;
mod table;
#[cfg(test)]
mod tests;
mod timeouts;

use std::net::SocketAddr;
use std::path::PathBuf;

use super::facts::{Fact, Facts, IpVs, Netns};
use crate::cli::KernelArgs;
use crate::probes::features::{self, Known};
use crate::{clock, limits};

pub use netns::refresh_sysctls;

/// How closely to look.
#[derive(Clone, Debug)]
pub struct Look {
    /// `/`, but for tests.
    pub root: PathBuf,
    /// Whether other programs may be run for what only they can read (`nft`, `iptables-save`).
    pub programs: bool,
    /// A running agent to ask for what it has seen.
    pub agent: Option<SocketAddr>,
    /// With which options the running kernel is asked what it offers to programs, which loads some
    /// of them for a moment.
    pub kernel: Option<KernelArgs>,
}

impl Look {
    /// At this node's files only.
    #[must_use]
    pub fn at_files() -> Self {
        Self {
            root: PathBuf::from("/"),
            programs: false,
            agent: None,
            kernel: None,
        }
    }
}

/// What decides whether a node can be observed at all: a handful of files, and the kernel's answers.
#[must_use]
pub fn essentials(look: &Look) -> Facts {
    essentials_and_known(look).0
}

/// As [`essentials`], with what was read of the kernel to find out.
#[must_use]
pub fn essentials_and_known(look: &Look) -> (Facts, Option<Known>) {
    let root = &look.root;
    let mut facts = Facts {
        host: files::line(root, "proc/sys/kernel/hostname").into(),
        kernel: kernel::kernel(root),
        capabilities: kernel::capabilities(root).into(),
        limits: Fact::Known(limits::current()),
        ip_vs: kernel::ip_vs(root).into(),
        conn_tab_bits: files::number(root, "sys/module/ip_vs/parameters/conn_tab_bits").into(),
        nf_conntrack: files::present(root, "proc/sys/net", "netfilter/nf_conntrack_max").into(),
        ..Facts::default()
    };
    let mut known = None;
    if let Some(args) = &look.kernel {
        let release = facts.kernel.release.known().map_or("", String::as_str);
        let is_loaded = facts.ip_vs.known().is_some_and(|it| *it != IpVs::Absent);
        let (found, read) = features::look(args, release, is_loaded);
        known = read;
        facts.kernel.features = Fact::Known(found);
    }
    (facts, known)
}

/// Everything.
#[must_use]
pub fn gather(look: &Look) -> Facts {
    let root = &look.root;
    let (netns, netns_skipped) = netns::all(look);
    let processes = site::processes(root);
    let controllers = site::controllers(root, &netns, processes.as_deref());
    let kube_proxy = site::kube_proxy(root, &controllers, processes.as_deref().unwrap_or(&[]));
    Facts {
        taken_at: Fact::Known(now()),
        controllers: Fact::Known(controllers),
        kube_proxy,
        netns: netns.into_iter().map(|looked| looked.facts).collect(),
        netns_skipped,
        observed: match look.agent {
            Some(address) => agent::observed(address).into(),
            None => Fact::Unknown("no agent was asked".to_owned()),
        },
        ..essentials(look)
    }
}

fn now() -> String {
    let wall = clock::wall_anchor().wall(clock::now());
    humantime::format_rfc3339_seconds(wall).to_string()
}

/// A namespace with what only matters while looking.
#[derive(Debug)]
struct Looked {
    facts: Netns,
    /// Names of its devices.
    devices: Vec<String>,
}
