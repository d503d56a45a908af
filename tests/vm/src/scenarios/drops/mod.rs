//! SYNs that die on the node, and connections that fail on it, for reasons IPVS has nothing to do
//! with.

pub mod accept_queue;
pub mod behind;
pub mod conntrack;
pub mod netfilter;
pub mod path_mtu;
pub mod rp_filter;
pub mod socket_buffers;
pub mod source_ports;
pub mod syn_queue;

use std::net::SocketAddrV4;

use anyhow::{Result, ensure};

use crate::director::{self, Transport};
use crate::topology::{CLIENT_GATEWAY, CLIENT_NETNS, REAL_SERVERS};
use crate::traffic::{self, GIVE_UP, Plan};
use crate::{command, netns};

/// A listener of the director itself, which is no service.
pub(super) const LISTENER: SocketAddrV4 = SocketAddrV4::new(CLIENT_GATEWAY, 9_000);

/// IPVS has the ordinary service, asked for or not: a module without other users is released for a
/// while, and the agent sees nothing meanwhile.
pub(super) fn director_up() -> Result<()> {
    director::load(&[])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)
}

/// One client for each port, all at once; every SYN must be lost. Returns how many were sent.
pub(super) fn syns_in_vain(mut plan: Plan) -> Result<usize> {
    plan.timeout = GIVE_UP;
    plan.workers = plan.ports.len();
    let report = traffic::run(Some(CLIENT_NETNS), &plan)?;
    ensure!(
        report.failed().count() == report.attempts() && report.answers().is_empty(),
        "some clients got through, want none: {report:?}"
    );
    report.syns()
}

/// Plays in a namespace with this chain of `nft`.
pub(super) fn under_chain<T>(
    netns: Option<&str>,
    chain: &str,
    play: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let rules = format!("table ip lab {{ chain in {{ {chain}; }}; }}");
    netns::within(netns, || {
        command::run_with_input("nft", &["-f", "-"], &rules)
    })?;
    let played = play();
    netns::within(netns, || command::line("nft delete table ip lab"))?;
    played
}

/// Sets parameters while something is played: name, value, value afterwards.
pub(super) fn with_parameters<T>(
    parameters: &[(&str, &str, &str)],
    play: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let set = |value_of: fn(&(&str, &str, &str)) -> String| {
        parameters
            .iter()
            .try_for_each(|each| crate::sysctl::write(each.0, &value_of(each)))
    };
    set(|each| each.1.to_owned())?;
    let played = play();
    set(|each| each.2.to_owned())?;
    played
}
