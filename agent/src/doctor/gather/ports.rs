//! Local ports, of this thread's namespace.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::super::facts::{Listener, PortRange, Ports};
use super::files::line;

const RANGE: &str = "proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "proc/sys/net/ipv4/ip_local_reserved_ports";

/// State of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

pub(super) fn read(root: &Path) -> Ports {
    Ports {
        range: range(root).into(),
        reserved: reserved(root).into(),
        listeners: listeners(root).into(),
    }
}

fn range(root: &Path) -> Result<PortRange, String> {
    let text = line(root, RANGE)?;
    let mut words = text.split_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(from)), Some(Ok(to))) => Ok(PortRange(from, to)),
        _ => Err(format!("/{RANGE} is {text:?}, expected two ports")),
    }
}

/// `8080,30000-32767`
fn reserved(root: &Path) -> Result<Vec<PortRange>, String> {
    let text = line(root, RESERVED)?;
    let words = text.split(',').filter(|word| !word.is_empty());
    words
        .map(|word| {
            let (from, to) = word.split_once('-').unwrap_or((word, word));
            let ports = from.parse().ok().zip(to.parse().ok());
            let bad = || format!("/{RESERVED} holds {word:?}, expected a port or a range");
            ports.map(|(from, to)| PortRange(from, to)).ok_or_else(bad)
        })
        .collect()
}

fn listeners(root: &Path) -> Result<Vec<Listener>, String> {
    let mut all = Vec::new();
    for name in ["tcp", "tcp6"] {
        let path = format!("proc/thread-self/net/{name}");
        match File::open(root.join(&path)) {
            Ok(file) => all.extend(rows(BufReader::new(file).lines().map_while(Result::ok))),
            // A kernel without IPv6 has no tcp6.
            Err(_) if name == "tcp6" => {}
            Err(error) => return Err(format!("cannot read /{path}: {error}")),
        }
    }
    all.sort();
    all.dedup();
    all.truncate(Ports::LISTENERS_MAX);
    Ok(all)
}

/// The kernel lists listening sockets first: the rest, which may be long, is not read.
fn rows(lines: impl Iterator<Item = String>) -> Vec<Listener> {
    let rows = lines.skip(1).map_while(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, state) = (words.next()?.to_owned(), words.nth(1)?);
        (state == LISTEN).then_some(local)
    });
    rows.take(Ports::LISTENERS_MAX)
        .filter_map(|local| listener(&local))
        .collect()
}

/// `0100007F:2600`: words of the address as this machine's integers.
fn listener(local: &str) -> Option<Listener> {
    let (address, port) = local.rsplit_once(':')?;
    let words: Option<Vec<u32>> = (0..address.len())
        .step_by(8)
        .map(|at| u32::from_str_radix(address.get(at..at + 8)?, 16).ok())
        .collect();
    let bytes: Vec<u8> = words?.into_iter().flat_map(u32::to_ne_bytes).collect();
    let address: IpAddr = match bytes.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
    };
    Some(Listener {
        address: address.to_string(),
        port: u16::from_str_radix(port, 16).ok()?,
    })
}
