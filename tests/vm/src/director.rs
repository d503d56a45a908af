//! The director: IPVS in the root network namespace, its parameters, and the firewall before it.
//!
//! Every scenario starts with `ip_vs` unloaded, because only unloading it forgets its entries.

use std::fs;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::service::{Key, ORDINARY, Service};
use crate::topology::{REAL_SERVERS, RealServer, VIP};
use crate::{command, sysctl, wait};

/// Modules that are unloaded to forget IPVS's and conntrack's entries, users before used.
const MODULES: [&str; 11] = [
    "ip_vs_rr",
    "ip_vs_sh",
    "ip_vs_wlc",
    "ip_vs_wrr",
    "ip_vs",
    "xt_conntrack",
    "nft_ct",
    "nft_nat",
    "nft_chain_nat",
    "nf_nat",
    "nf_conntrack",
];

/// The modules of IPVS among them.
const IPVS_MODULES: [&str; 2] = ["ip_vs_rr", "ip_vs"];

/// Until the last user of a module is gone: deleting a network namespace takes its time.
const RESET_LIMIT: Duration = Duration::from_secs(10);

/// How long `rmmod ip_vs` may be refused to somebody who tries again. The agent holds the module
/// for a second or two at most; the rest is for the emulation.
const UNLOAD_LIMIT: Duration = Duration::from_secs(4);

/// The firewall tool; the guest has the flavour that speaks to nf_tables, as current systems do.
const IPTABLES: &str = "iptables";

/// Which transport the ordinary service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `ipvsadm -t`.
    Tcp,
    /// `ipvsadm -u`.
    Udp,
}

/// The smallest table of connections, which every kernel keeps as it is.
///
/// 7.2 lets a larger one grow with the connections, and for as long as that takes finds the old
/// entry of a reused port before the one just scheduled (`__ip_vs_conn_in_get`,
/// net/netfilter/ipvs/ip_vs_conn.c): such connections break, whoever watches.
const STEADY_TABLE: &str = "conn_tab_bits=8";

/// Loads `ip_vs` with a table of connections that keeps its size, and sets its parameters
/// (`net.ipv4.vs.*`).
///
/// # Errors
/// The module is missing, or this kernel does not know a parameter.
pub fn load(parameters: &[(&str, &str)]) -> Result<()> {
    load_with(&format!("ip_vs {STEADY_TABLE}"), parameters)
}

/// As [`load`], with the table of connections as the distribution has it; 7.2 resizes it.
///
/// # Errors
/// As [`load`].
pub fn load_with_growing_table(parameters: &[(&str, &str)]) -> Result<()> {
    load_with("ip_vs", parameters)
}

fn load_with(module: &str, parameters: &[(&str, &str)]) -> Result<()> {
    command::line(&format!("modprobe {module}"))?;
    parameters
        .iter()
        .try_for_each(|(name, value)| set(name, value))
}

/// The ordinary service, with parameters under which IPVS drops the SYN of a source port that comes
/// back while its old connection is tracked: it expires the entry, and cannot reschedule before
/// conntrack has forgotten too.
///
/// # Errors
/// As [`load`].
pub fn up_to_drop_reused_syns() -> Result<()> {
    load(&[
        ("conn_reuse_mode", "1"),
        ("conntrack", "1"),
        ("expire_nodest_conn", "1"),
    ])?;
    enable_conntrack()?;
    add_service(Transport::Tcp, &REAL_SERVERS)
}

/// Sets one parameter of `net.ipv4.vs`.
///
/// # Errors
/// This kernel does not know it.
pub fn set(name: &str, value: &str) -> Result<()> {
    sysctl::write(&format!("net/ipv4/vs/{name}"), value)
}

/// Creates the ordinary service with these real servers, weight 1, round robin, NAT.
///
/// # Errors
/// `ipvsadm` refused it.
pub fn add_service(transport: Transport, servers: &[RealServer]) -> Result<()> {
    let key = match transport {
        Transport::Tcp => ORDINARY.key,
        Transport::Udp => Key::Udp(VIP.into()),
    };
    Service { key, ..ORDINARY }.create(servers)
}

/// Adds a real server with weight 1 to the ordinary service.
///
/// # Errors
/// `ipvsadm` refused it.
pub fn add_real_server(rs: RealServer) -> Result<()> {
    ORDINARY.add(rs)
}

/// Sets the weight of a real server of the ordinary service; 0 drains it.
///
/// # Errors
/// `ipvsadm` refused it.
pub fn set_weight(rs: RealServer, weight: u32) -> Result<()> {
    ORDINARY.set_weight(rs, weight)
}

/// Removes a real server from the ordinary service.
///
/// # Errors
/// `ipvsadm` refused it.
pub fn delete_real_server(rs: RealServer) -> Result<()> {
    ORDINARY.delete(rs)
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

/// Marks every packet to this address and port before IPVS sees it.
///
/// # Errors
/// `iptables` failed.
pub fn mark(target: SocketAddrV4, mark: u32) -> Result<()> {
    let (address, port) = (target.ip(), target.port());
    command::line(&format!(
        "{IPTABLES} -t mangle -A PREROUTING -d {address} -p tcp --dport {port} -j MARK --set-mark {mark}"
    ))
    .map(drop)
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
        for table in ["filter", "mangle"] {
            let _ = command::line(&format!("{IPTABLES} -t {table} -F"));
        }
    }
    for module in MODULES {
        if is_loaded(module) {
            let _ = command::run("rmmod", &[module]);
        }
    }
}

/// As [`reset`], until nothing is left: the services of a deleted network namespace go a moment
/// after it.
///
/// # Errors
/// A module of [`MODULES`] is still loaded, most likely because a probe holds it.
pub fn reset_for_good() -> Result<()> {
    wait::until("IPVS and conntrack to be unloaded", RESET_LIMIT, || {
        reset();
        ensure_unloaded(&MODULES)
    })
}

/// Takes the services down and unloads `ip_vs` as an administrator does who tries again;
/// returns how long it took.
///
/// # Errors
/// It is still loaded after [`UNLOAD_LIMIT`].
pub fn unload() -> Result<Duration> {
    let start = Instant::now();
    command::line("ipvsadm -C")?;
    wait::until("ip_vs to be unloaded", UNLOAD_LIMIT, || {
        for module in IPVS_MODULES.into_iter().filter(|module| is_loaded(module)) {
            command::run("rmmod", &[module])?;
        }
        Ok(())
    })?;
    Ok(start.elapsed())
}

fn ensure_unloaded(modules: &[&str]) -> Result<()> {
    let left: Vec<_> = modules.iter().filter(|module| is_loaded(module)).collect();
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
