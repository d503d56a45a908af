//! The director: IPVS in the root network namespace, its parameters, and the firewall before it.
//!
//! Every scenario starts with `ip_vs` unloaded, because only unloading it forgets its entries.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::topology::{RealServer, VIP};
use crate::{command, sysctl};

/// Modules that are unloaded to forget IPVS's and conntrack's entries, users before used.
const MODULES: [&str; 5] = [
    "ip_vs_rr",
    "ip_vs",
    "xt_conntrack",
    "nft_ct",
    "nf_conntrack",
];

/// The firewall tool; the guest has the flavour that speaks to nf_tables, as current systems do.
const IPTABLES: &str = "iptables";

/// Which transport a virtual service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `ipvsadm -t`.
    Tcp,
    /// `ipvsadm -u`.
    Udp,
}

impl Transport {
    fn flag(self) -> &'static str {
        match self {
            Self::Tcp => "-t",
            Self::Udp => "-u",
        }
    }
}

/// Loads `ip_vs` and sets its parameters (`net.ipv4.vs.*`).
///
/// # Errors
/// The module is missing, or this kernel does not know a parameter.
pub fn load(parameters: &[(&str, &str)]) -> Result<()> {
    command::line("modprobe ip_vs")?;
    parameters
        .iter()
        .try_for_each(|(name, value)| set(name, value))
}

/// Sets one parameter of `net.ipv4.vs`.
///
/// # Errors
/// This kernel does not know it.
pub fn set(name: &str, value: &str) -> Result<()> {
    sysctl::write(&format!("net/ipv4/vs/{name}"), value)
}

/// Creates the service on [`VIP`] with these real servers, weight 1, round robin, NAT.
///
/// # Errors
/// `ipvsadm` refused it.
pub fn add_service(transport: Transport, servers: &[RealServer]) -> Result<()> {
    let mut rules = format!("-A {} {VIP} -s rr\n", transport.flag());
    for rs in servers {
        let _ = writeln!(
            rules,
            "-a {} {VIP} -r {} -m -w 1",
            transport.flag(),
            rs.address()
        );
    }
    command::run_with_input("ipvsadm", &["-R"], &rules).map(drop)
}

/// Adds a real server with weight 1 to the TCP service.
///
/// # Errors
/// `ipvsadm` refused it.
pub fn add_real_server(rs: RealServer) -> Result<()> {
    command::line(&format!("ipvsadm -a -t {VIP} -r {} -m -w 1", rs.address())).map(drop)
}

/// Sets the weight of a real server of the TCP service; 0 drains it.
///
/// # Errors
/// `ipvsadm` refused it.
pub fn set_weight(rs: RealServer, weight: u32) -> Result<()> {
    command::line(&format!(
        "ipvsadm -e -t {VIP} -r {} -m -w {weight}",
        rs.address()
    ))
    .map(drop)
}

/// Removes a real server from the TCP service.
///
/// # Errors
/// `ipvsadm` refused it.
pub fn delete_real_server(rs: RealServer) -> Result<()> {
    command::line(&format!("ipvsadm -d -t {VIP} -r {}", rs.address())).map(drop)
}

/// Makes netfilter track connections in the director's namespace, as any cluster node does.
///
/// `net.ipv4.vs.conntrack` alone does not: a rule must ask for it.
///
/// # Errors
/// `iptables` failed.
pub fn enable_conntrack() -> Result<()> {
    command::line(&format!(
        "{IPTABLES} -A INPUT -m conntrack --ctstate INVALID -j RETURN"
    ))
    .map(drop)
}

/// A firewall rule that drops SYNs to [`VIP`] before IPVS sees them.
#[derive(Debug)]
pub struct SynDrop {
    rule: String,
}

impl SynDrop {
    /// Inserts the rule.
    ///
    /// # Errors
    /// `iptables` failed.
    pub fn install() -> Result<Self> {
        let (address, port) = (VIP.ip(), VIP.port());
        let rule = format!("INPUT -d {address} -p tcp --dport {port} --syn -j DROP");
        command::line(&format!("{IPTABLES} -I {rule}"))?;
        Ok(Self { rule })
    }

    /// Deletes the rule.
    ///
    /// # Errors
    /// `iptables` failed.
    pub fn remove(self) -> Result<()> {
        command::line(&format!("{IPTABLES} -D {}", self.rule)).map(drop)
    }
}

/// Packets the rules of the INPUT chain have dropped so far, by the kernel's own count.
///
/// # Errors
/// `iptables` failed, or the chain has no DROP rule.
pub fn dropped_packets() -> Result<u64> {
    let table = command::line(&format!("{IPTABLES} -L INPUT -nvx"))?;
    table
        .lines()
        .find(|line| line.contains("DROP") && line.contains("dpt:"))
        .and_then(|line| line.split_whitespace().next())
        .and_then(|packets| packets.parse().ok())
        .with_context(|| format!("no counter of a DROP rule in:\n{table}"))
}

/// Forgets services, entries and firewall rules; what is not there is no error.
pub fn reset() {
    if is_loaded("ip_vs") {
        let _ = command::line("ipvsadm -C");
    }
    if is_loaded("nf_tables") {
        let _ = command::line(&format!("{IPTABLES} -F"));
    }
    for module in MODULES {
        if is_loaded(module) {
            let _ = command::run("rmmod", &[module]);
        }
    }
}

/// # Errors
/// A module of [`MODULES`] is still loaded, most likely because a probe holds it.
pub fn ensure_reset() -> Result<()> {
    let left: Vec<_> = MODULES
        .into_iter()
        .filter(|module| is_loaded(module))
        .collect();
    ensure!(
        left.is_empty(),
        "modules {left:?} cannot be unloaded: something still uses them; /proc/modules:\n{}",
        fs::read_to_string("/proc/modules").unwrap_or_default()
    );
    Ok(())
}

fn is_loaded(module: &str) -> bool {
    fs::read_to_string("/proc/modules").is_ok_and(|list| {
        list.lines()
            .any(|line| line.split(' ').next() == Some(module))
    })
}
