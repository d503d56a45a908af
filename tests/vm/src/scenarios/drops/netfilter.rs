//! Rules drop SYNs on the way to a real server, before the service, and by nftables.

use std::fs;
use std::net::SocketAddrV4;

use anyhow::{Result, ensure};

use super::{director_up, syns_in_vain, under_chain};
use crate::agent::{self, Agent};
use crate::command;
use crate::expect::Expected;
use crate::lab::Lab;
use crate::topology::{RS1, VIP};

/// The client of each rule; one, so that the log names every one of them.
const PORT: u16 = 43_000;
/// The connection before, by which the agent learns of the service.
const FIRST_PORT: u16 = 43_100;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director_up()?;
    let agent = Agent::start()?;
    lab.run_all_answered(&Lab::plan(vec![FIRST_PORT]))?;

    let mut to_rs1 = Lab::plan(vec![PORT]);
    to_rs1.target = RS1.address().into();
    let rule = format!("FORWARD -d {} -p tcp --syn -j DROP", RS1.address().ip());
    let forwarded = under("filter", &rule, || syns_in_vain(to_rs1))?;

    let to_vip = || Lab::plan(vec![PORT]);
    let rule = format!("PREROUTING -d {} -p tcp --syn -j DROP", VIP.ip());
    let before_routing = under("raw", &rule, || syns_in_vain(to_vip()))?;
    let by_nft = under_nft(VIP, || syns_in_vain(to_vip()))?;

    agent.expect(
        &Expected::none()
            .decision("scheduled", 1)
            .syn_drops_elsewhere("netfilter", forwarded)
            .syn_drops("netfilter", before_routing + by_nft),
    )?;
    agent.terminate()?;
    ensure_hooks_named()
}

/// The log names the hook of each of the three clients.
fn ensure_hooks_named() -> Result<()> {
    let log = fs::read_to_string(agent::LOG)?;
    for hook in ["forward", "prerouting", "input"] {
        let words = format!("by netfilter in {hook},");
        let named = log.matches(&words).count();
        ensure!(
            named == 1,
            "{named} log lines with {words:?}, want 1:\n{log}"
        );
    }
    Ok(())
}

/// Plays under a rule of `iptables`.
pub(in crate::scenarios) fn under<T>(
    table: &str,
    rule: &str,
    play: impl FnOnce() -> Result<T>,
) -> Result<T> {
    command::line(&format!("iptables -t {table} -I {rule}"))?;
    let played = play();
    command::line(&format!("iptables -t {table} -D {rule}"))?;
    played
}

/// Plays under a rule of `nft` that drops SYNs to the service where they come in.
pub(in crate::scenarios) fn under_nft<T>(
    target: SocketAddrV4,
    play: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let (address, port) = (target.ip(), target.port());
    let chain = format!(
        "type filter hook input priority 0; ip daddr {address} tcp dport {port} tcp flags syn drop"
    );
    under_chain(None, &chain, play)
}
