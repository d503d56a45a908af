//! `ipvs-lens doctor`: the fault is there, the doctor names it, its command is run as printed, and
//! fault and verdict are gone.

mod accept_queue;
mod clinic;
mod conntrack;
mod growing_table;
mod idle_timeout;
mod namespace;
mod old_drop;
mod persistence;
mod ports;
mod removed;
mod reuse;
mod syn_drop;
mod udp_timeout;

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount, umount};

use self::clinic::{ADVICE, BLIND, FINE, Visit};
use crate::agent::{self, Agent, BINARY};
use crate::director::{self, Transport};
use crate::lab::Lab;
use crate::topology::REAL_SERVERS;
use crate::wait;

pub use accept_queue::run as short_queue;
pub use conntrack::full as conntrack_full;
pub use growing_table::run as growing_table;
pub use idle_timeout::run as idle_timeout;
pub use namespace::run as other_namespace;
pub use old_drop::run as before_5_9;
pub use persistence::run as template;
pub use ports::run as taken_ports;
pub use removed::run as removed_server;
pub use reuse::run as reused_ports;
pub use syn_drop::run as dropped_syn;
pub use udp_timeout::run as udp_timeout;

/// A user without any right.
const NOBODY: u32 = 65_534;
/// The parameters of IPVS.
const SYSCTLS: &str = "/proc/sys/net/ipv4/vs";
/// Until the agent has looked at the node.
const HAZARD_LIMIT: std::time::Duration = std::time::Duration::from_secs(15);

/// Verdicts and exit statuses by the settings alone.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    ensure_advising(&["stale_reuse", "removed_server", "uneven_reuse"]).context("as it is")?;
    director::set("expire_nodest_conn", "1")?;
    ensure_advising(&["uneven_reuse"]).context("expire_nodest_conn=1")?;
    director::set("conn_reuse_mode", "1")?;
    ensure_advising(&[]).context("conn_reuse_mode=1")?;
    director::set("conntrack", "1")?;
    ensure_advising(&[]).context("conntrack=1 where netfilter tracks nothing")?;
    director::enable_conntrack()?;
    ensure_advising(&["syn_drop"]).context("conntrack=1")?;

    let text = agent::finish(&["doctor"])?;
    ensure!(
        text.code == Some(ADVICE) && text.stdout.contains("LOW syn_drop (configured)"),
        "the text is {text:?}"
    );
    blind().context("where it cannot look")?;
    lab.bpf_before.ensure_nothing_new()
}

/// Exactly these rules advise.
fn ensure_advising(want: &[&str]) -> Result<()> {
    let visit = Visit::pay_with_bundle()?;
    let found = visit.advising();
    ensure!(
        found == want,
        "advice by {found:?}, want {want:?}: {visit:?}"
    );
    visit.ensure_status(if want.is_empty() { FINE } else { ADVICE })
}

/// Without rights, and without the parameters.
fn blind() -> Result<()> {
    let mut doctor = Command::new(BINARY);
    let unprivileged = agent::start_command(doctor.arg("doctor").uid(NOBODY))?.finish()?;
    ensure!(
        unprivileged.code == Some(BLIND) && unprivileged.stdout.contains("HIGH rights"),
        "as uid {NOBODY}: {unprivileged:?}"
    );
    let nothing = None::<&str>;
    mount(
        Some("tmpfs"),
        SYSCTLS,
        Some("tmpfs"),
        MsFlags::empty(),
        nothing,
    )
    .with_context(|| format!("hide {SYSCTLS}"))?;
    let visit = Visit::pay_with_bundle();
    umount(SYSCTLS).with_context(|| format!("show {SYSCTLS} again"))?;
    visit?.ensure_status(BLIND)
}

/// Wants a hazard as the agent shows it: by configuration, and as observed.
fn ensure_hazard(agent: &Agent, hazard: &str, configured: u64, observed: u64) -> Result<()> {
    wait::until(&format!("hazard {hazard}"), HAZARD_LIMIT, || {
        let scrape = agent.scrape()?;
        for (source, want) in [("configured", configured), ("observed", observed)] {
            let labels = [("hazard", hazard), ("source", source)];
            let found = scrape.select("ipvs_lens_hazard", &labels);
            ensure!(found.len() == 1, "{} series of {labels:?}", found.len());
            let value = scrape.count("ipvs_lens_hazard", &labels)?;
            ensure!(value == want, "{labels:?} is {value}, want {want}");
        }
        Ok(())
    })
}
