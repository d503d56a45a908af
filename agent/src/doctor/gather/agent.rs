//! What a running agent has seen: `observed` in its `/status`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Deserialize;

use super::super::facts::{Observed, Seen};
use super::http;

/// The part of `/status` that is read here.
#[derive(Deserialize)]
struct Status {
    observed: BTreeMap<u32, Seen>,
}

pub(super) fn observed(listens: SocketAddr) -> Result<Observed, String> {
    let address = reachable(listens);
    // A scrape makes the agent count; what it says itself is not needed here.
    http::get(address, "/metrics")?;
    let body = http::get(address, "/status")?;
    parse(&body, address)
}

pub(super) fn parse(body: &str, address: SocketAddr) -> Result<Observed, String> {
    let status: Status = serde_json::from_str(body)
        .map_err(|error| format!("http://{address}/status is not that of an agent: {error}"))?;
    Ok(Observed {
        source: format!("the agent at {address}"),
        by_netns: status.observed,
    })
}

/// Who listens on every address is asked on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::LOCALHOST),
        });
    }
    address
}
