//! The service table, counted line by line from procfs: however large it is, little is kept.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::super::facts::Table;

const PATH: &str = "proc/thread-self/net/ip_vs";

/// Lines read: ten times the largest table known, 10,000 services of 10 real servers.
const LINES_MAX: usize = 1_100_000;

pub(super) fn read(root: &Path) -> Result<Table, String> {
    let failed = |error: std::io::Error| format!("cannot read /{PATH}: {error}");
    let file = File::open(root.join(PATH)).map_err(failed)?;
    count(BufReader::new(file)).map_err(failed)
}

/// Counts a text as `/proc/net/ip_vs` has it.
pub(super) fn count(text: impl BufRead) -> std::io::Result<Table> {
    let mut table = Table::default();
    let mut ports = BTreeSet::new();
    for (number, line) in text.lines().enumerate() {
        let line = line?;
        if number >= LINES_MAX {
            table.truncated = true;
            break;
        }
        match line.trim_start().strip_prefix("->") {
            Some(row) => real_server(&mut table, row),
            None => service(&mut table, &mut ports, &line),
        }
    }
    table.ports = ports.into_iter().collect();
    Ok(table)
}

/// `  -> 0A010102:1F90      Masq    1      0          0`
fn real_server(table: &mut Table, row: &str) {
    let Some(Ok(weight)) = row.split_whitespace().nth(2).map(str::parse::<u64>) else {
        return;
    };
    table.real_servers += 1;
    table.draining += u64::from(weight == 0);
}

/// `TCP  0A60000A:0050 rr ops persistent 300 FFFFFFFF`, `FWM  00000007 rr`
fn service(table: &mut Table, ports: &mut BTreeSet<u16>, row: &str) {
    let mut words = row.split_whitespace();
    let (Some(protocol), Some(name), Some(scheduler)) = (words.next(), words.next(), words.next())
    else {
        return;
    };
    if !["TCP", "UDP", "SCTP", "FWM"].contains(&protocol) {
        return;
    }
    *table.services.entry(protocol.to_owned()).or_default() += 1;
    *table.schedulers.entry(scheduler.to_owned()).or_default() += 1;
    let flags: Vec<&str> = words.collect();
    table.persistent += u64::from(flags.contains(&"persistent"));
    table.one_packet += u64::from(flags.contains(&"ops"));
    let port = name
        .rsplit_once(':')
        .and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
    if let Some(port) = port.filter(|port| *port != 0)
        && ports.len() < Table::PORTS_MAX
    {
        ports.insert(port);
    }
}
