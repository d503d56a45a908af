//! Network namespaces: the process's own, and those with IPVS in them.
//!
//! A namespace belongs to a thread: another one is looked at by a thread of its own, which ends
//! there, so that nothing else ever finds itself in the wrong namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::super::facts::{Fact, Facts, Netns, Queues};
use super::files::{line, names, number, text};
use super::{Look, Looked, conntrack, firewall, ports, table, timeouts};

/// Where namespaces are kept by name: `ip netns` and Kubernetes' runtimes, Docker.
const NAMED: &[&str] = &["run/netns", "run/docker/netns"];

/// Namespaces entered to see whether IPVS has services there; a node has one per pod, 250 at most.
const ENTERED_MAX: usize = 1024;

/// Namespaces with services that are described: Swarm has two, a lab a few.
const KEPT_MAX: usize = 32;

/// Everything of `net.ipv4.vs`.
const SYSCTLS: &str = "proc/sys/net/ipv4/vs";

/// The process's own namespace, then others with services, and how many were left out.
pub(super) fn all(look: &Look) -> (Vec<Looked>, u32) {
    let own_id = inode(&look.root, "proc/thread-self/ns/net");
    let mut all = vec![one(look, own_id.unwrap_or(0), None)];
    let (mut entered, mut skipped) = (0_usize, 0_u32);
    for (id, path) in named(&look.root) {
        if own_id == Some(id) {
            continue;
        }
        entered += 1;
        if entered > ENTERED_MAX || all.len() > KEPT_MAX {
            skipped = skipped.saturating_add(1);
            continue;
        }
        match within(&path, || with_services(look, id, &path)) {
            Ok(looked) => all.extend(looked),
            Err(_) => skipped = skipped.saturating_add(1),
        }
    }
    (all, skipped)
}

/// Reads `net.ipv4.vs` of every known namespace again: what an administrator changes most.
pub fn refresh_sysctls(facts: &mut Facts) {
    let root = Path::new("/");
    for netns in &mut facts.netns {
        netns.sysctls = match &netns.path {
            None => sysctls(root).into(),
            Some(path) => match within(path, || sysctls(root)) {
                Ok(read) => read.into(),
                Err(error) => Fact::Unknown(format!("cannot enter {path}: {error}")),
            },
        };
    }
}

fn named(root: &Path) -> Vec<(u32, String)> {
    let mut seen = BTreeSet::new();
    let paths = NAMED.iter().flat_map(|directory| {
        let names = names(root, directory).into_iter();
        names.map(move |name| format!("{directory}/{name}"))
    });
    paths
        .filter_map(|path| Some((inode(root, &path)?, format!("/{path}"))))
        .filter(|(id, _)| seen.insert(*id))
        .collect()
}

fn inode(root: &Path, path: &str) -> Option<u32> {
    let metadata = fs::metadata(root.join(path)).ok()?;
    u32::try_from(metadata.ino()).ok()
}

fn with_services(look: &Look, id: u32, path: &str) -> Option<Looked> {
    let table = table::read(&look.root).ok()?;
    (table.service_count() > 0).then(|| one(look, id, Some(path.to_owned())))
}

fn one(look: &Look, id: u32, path: Option<String>) -> Looked {
    let root = &look.root;
    let rules = if look.programs {
        firewall::rules(root).into()
    } else {
        Fact::default()
    };
    Looked {
        facts: Netns {
            id,
            path,
            sysctls: sysctls(root).into(),
            timeouts: timeouts::read().into(),
            tcp_keepalive_seconds: number(root, "proc/sys/net/ipv4/tcp_keepalive_time").into(),
            table: table::read(root).into(),
            conntrack: conntrack::read(root),
            rules,
            ports: ports::read(root),
            queues: Queues {
                somaxconn: number(root, "proc/sys/net/core/somaxconn").into(),
                overflows: overflows(root).into(),
            },
        },
        devices: devices(root),
    }
}

fn sysctls(root: &Path) -> Result<BTreeMap<String, String>, String> {
    let directory = root.join(SYSCTLS);
    let entries =
        fs::read_dir(directory).map_err(|error| format!("cannot read /{SYSCTLS}: {error}"))?;
    let names = entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok());
    Ok(names
        .filter_map(|name| {
            let value = line(root, &format!("{SYSCTLS}/{name}")).ok()?;
            Some((name, value))
        })
        .collect())
}

/// `ListenOverflows` of `TcpExt`, which has a line of names and a line of values.
fn overflows(root: &Path) -> Result<u64, String> {
    const PATH: &str = "proc/thread-self/net/netstat";
    let text = text(root, PATH)?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next(), lines.next());
    let pairs = names
        .zip(values)
        .map(|(names, values)| names.split_whitespace().zip(values.split_whitespace()));
    pairs
        .into_iter()
        .flatten()
        .find(|(name, _)| *name == "ListenOverflows")
        .and_then(|(_, value)| value.parse().ok())
        .ok_or_else(|| format!("/{PATH} has no ListenOverflows"))
}

fn devices(root: &Path) -> Vec<String> {
    let text = text(root, "proc/thread-self/net/dev").unwrap_or_default();
    let rows = text.lines().skip(2);
    rows.filter_map(|row| Some(row.split_once(':')?.0.trim().to_owned()))
        .collect()
}

/// Runs `work` on a thread inside the namespace of this file.
fn within<T: Send>(path: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let file = File::open(path)?;
    let inside = || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(work())
    };
    std::thread::scope(|scope| {
        let joined = scope.spawn(inside).join();
        joined.unwrap_or_else(|_| Err(io::Error::other("the thread inside it panicked")))
    })
}
