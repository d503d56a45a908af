//! The reverse path filter drops SYNs whose answers would leave by another device.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::{director_up, syns_in_vain, with_parameters};
use crate::agent::Agent;
use crate::command;
use crate::expect::Expected;
use crate::lab::Lab;
use crate::topology::{CLIENT_NETNS, RS1};

/// A second address of the client; the director thinks it is behind a real server.
const ASTRAY: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// Clients.
const PORTS: std::ops::Range<u16> = 43_000..43_004;
/// The connection before, by which the agent learns of the service.
const FIRST_PORT: u16 = 43_100;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director_up()?;
    let agent = Agent::start()?;
    lab.run_all_answered(&Lab::plan(vec![FIRST_PORT]))?;

    command::line(&format!(
        "ip -n {CLIENT_NETNS} addr add {ASTRAY}/32 dev eth0"
    ))?;
    command::line(&format!("ip route add {ASTRAY}/32 dev {}", RS1.cable()))?;
    let filter = format!("net/ipv4/conf/to-{CLIENT_NETNS}/rp_filter");
    let mut plan = Lab::plan(PORTS.collect());
    plan.source = ASTRAY.into();
    let syns = with_parameters(&[(&filter, "1", "0")], || syns_in_vain(plan))?;

    agent.expect(
        &Expected::none()
            .decision("scheduled", 1)
            .syn_drops("rp_filter", syns),
    )?;
    agent.terminate()
}
