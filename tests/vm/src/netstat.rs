//! The kernel's own counters of the director's namespace: the second witness besides the client.

use std::fs;

use anyhow::{Context as _, Result};

/// Where they are.
const TABLE: &str = "/proc/net/netstat";

/// Where those of ICMP are, of the calling thread.
const ICMP_TABLE: &str = "/proc/thread-self/net/snmp";

/// One counter of `TcpExt`.
///
/// # Errors
/// This kernel has no such counter.
pub fn tcp_ext(name: &str) -> Result<u64> {
    let text = fs::read_to_string(TABLE).with_context(|| format!("read {TABLE}"))?;
    find(&text, "TcpExt:", name).with_context(|| format!("no counter {name} in {TABLE}"))
}

/// ICMP "destination unreachable" that came in, "fragmentation needed" among them; in the namespace
/// of the calling thread.
///
/// # Errors
/// There is no such table.
pub fn icmp_in_unreachable() -> Result<u64> {
    let text = fs::read_to_string(ICMP_TABLE).with_context(|| format!("read {ICMP_TABLE}"))?;
    find(&text, "Icmp:", "InDestUnreachs").with_context(|| format!("no counter in {ICMP_TABLE}"))
}

/// The table has a line of names and a line of numbers for each group.
fn find(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    let names = lines.next()?.split_whitespace();
    let numbers = lines.next()?.split_whitespace();
    let (_, number) = names.zip(numbers).find(|(found, _)| *found == name)?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn a_number_stands_under_its_name() {
        let text =
            "TcpExt: ListenOverflows ListenDrops\nTcpExt: 3 7\nIpExt: InNoRoutes\nIpExt: 1\n";
        assert_eq!(find(text, "TcpExt:", "ListenDrops"), Some(7));
        assert_eq!(find(text, "IpExt:", "InNoRoutes"), Some(1));
        assert_eq!(find(text, "TcpExt:", "InNoRoutes"), None);
    }
}
