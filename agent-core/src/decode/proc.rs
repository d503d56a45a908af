//! Tables of procfs as text. PURE: what is not there is `None`, because kernels differ.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// State of a listening socket in `/proc/net/tcp` (`TCP_LISTEN`).
const LISTEN: &str = "0A";

/// What one look at procfs found; `None` for what this kernel does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// Segments thrown away for want of memory.
    pub tcp_memory: Option<u64>,
    /// Datagrams thrown away because their socket's buffer was full.
    pub udp_receive_buffer: Option<u64>,
    /// Datagrams thrown away because all of UDP had no memory left; from 5.11 on.
    pub udp_memory: Option<u64>,
    /// Entries of conntrack.
    pub conntrack_entries: Option<u64>,
    /// Most entries of conntrack.
    pub conntrack_entries_limit: Option<u64>,
    /// Entries conntrack could not insert.
    pub conntrack_insert_failed: Option<u64>,
    /// Listeners on a port that an outgoing connection may be given as well.
    pub listeners_in_port_range: Option<Vec<SocketAddr>>,
}

/// A counter of `/proc/net/snmp` or `/proc/net/netstat`: each group is a line of names and a line
/// of numbers (net/ipv4/proc.c).
#[must_use]
pub fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(group)?.strip_prefix(':'));
    let names = lines.next()?.split_whitespace();
    let numbers = lines.next()?.split_whitespace();
    let (_, number) = names.zip(numbers).find(|(found, _)| *found == name)?;
    number.parse().ok()
}

/// A counter of `/proc/net/snmp6`: a name and a number on each line (net/ipv6/proc.c).
#[must_use]
pub fn counter_v6(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| (words.next()? == name).then(|| words.next()?.parse().ok())?)
}

/// A column of `/proc/net/stat/nf_conntrack`, summed over CPUs: a line of names, then a line of
/// hexadecimal numbers for each CPU (net/netfilter/nf_conntrack_standalone.c). `None` where the sum
/// exceeds 64 bits: that is no table of this kernel.
#[must_use]
pub fn conntrack_statistic(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    let mut names = lines.next()?.split_whitespace();
    let column = names.position(|found| found == name)?;
    lines
        .map(|line| u64::from_str_radix(line.split_whitespace().nth(column)?, 16).ok())
        .try_fold(0_u64, |sum, value| sum.checked_add(value?))
}

/// First and last of two ports, as `net.ipv4.ip_local_port_range` has them.
#[must_use]
pub fn port_range(text: &str) -> Option<(u16, u16)> {
    let mut words = text.split_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// Ranges as `net.ipv4.ip_local_reserved_ports` has them, `8080,30000-32767`.
#[must_use]
pub fn port_list(text: &str) -> Option<Vec<(u16, u16)>> {
    let words = text.trim().split(',').filter(|word| !word.is_empty());
    words
        .map(|word| {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            Some((first.parse().ok()?, last.parse().ok()?))
        })
        .collect()
}

/// The listening socket on a line of `/proc/net/tcp` or `/proc/net/tcp6`; `None` for any other
/// line (net/ipv4/tcp_ipv4.c).
#[must_use]
pub fn listener(line: &str) -> Option<SocketAddr> {
    let mut words = line.split_whitespace().skip(1);
    let local = words.next()?;
    if words.nth(1)? != LISTEN {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    Some(SocketAddr::new(
        ip(address)?,
        u16::from_str_radix(port, 16).ok()?,
    ))
}

/// `0100007F`: the words of an address as this machine's integers.
fn ip(text: &str) -> Option<IpAddr> {
    let word = |at| u32::from_str_radix(text.get(at..at + 8)?, 16).ok();
    if text.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?.to_ne_bytes()).into());
    }
    let mut bytes = [0; 16];
    for (at, part) in bytes.chunks_mut(4).enumerate() {
        part.copy_from_slice(&word(at * 8)?.to_ne_bytes());
    }
    Some(Ipv6Addr::from(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux 6.12, shortened.
    const SNMP: &str = "\
Tcp: RtoAlgorithm RtoMin
Tcp: 1 200
Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors
Udp: 8 1 3 9 2 0 0 0 1
UdpLite: InDatagrams RcvbufErrors
UdpLite: 0 70
";

    #[test]
    fn a_counter_stands_under_its_name_in_its_group() {
        assert_eq!(counter(SNMP, "Udp", "RcvbufErrors"), Some(2));
        assert_eq!(counter(SNMP, "Udp", "MemErrors"), Some(1));
        assert_eq!(counter(SNMP, "UdpLite", "RcvbufErrors"), Some(70));
    }

    #[test]
    fn a_sum_beyond_64_bits_is_none() {
        let text = |second: &str| format!("found drop\n0 ffffffffffffffff\n0 {second}\n");
        assert_eq!(conntrack_statistic(&text("0"), "drop"), Some(u64::MAX));
        assert_eq!(conntrack_statistic(&text("1"), "drop"), None);
    }

    #[test]
    fn a_counter_of_a_newer_kernel_is_none() {
        assert_eq!(counter(SNMP, "Udp", "Future"), None);
        assert_eq!(counter("", "Udp", "RcvbufErrors"), None);
        assert_eq!(counter("Udp: A B\n", "Udp", "A"), None);
        assert_eq!(counter("Udp: A B\nUdp: 1\n", "Udp", "B"), None);
    }

    #[test]
    fn counters_of_ipv6() {
        let text = "Ip6InReceives   \t5\nUdp6RcvbufErrors                \t4\n";
        assert_eq!(counter_v6(text, "Udp6RcvbufErrors"), Some(4));
        assert_eq!(counter_v6(text, "Udp6MemErrors"), None);
    }

    #[test]
    fn conntrack_counts_in_hexadecimal_on_every_cpu() {
        let text = "\
entries  clashres found new invalid ignore delete chainlength insert insert_failed drop
0000001a  00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 0000000f 00000002
0000001a  00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000001 00000000
";
        assert_eq!(conntrack_statistic(text, "insert_failed"), Some(16));
        assert_eq!(conntrack_statistic(text, "drop"), Some(2));
        assert_eq!(conntrack_statistic(text, "nothing"), None);
        assert_eq!(conntrack_statistic("a b\n1\n", "b"), None, "a short line");
    }

    #[test]
    fn listeners_are_told_from_connections() {
        let listening =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12";
        assert_eq!(listener(listening), "127.0.0.1:8080".parse().ok());
        let connected =
            "   1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000 0 0 13";
        assert_eq!(listener(connected), None);
        let ipv6 = "   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0 0";
        assert_eq!(listener(ipv6), "[::1]:80".parse().ok());
        assert_eq!(
            listener("  sl  local_address rem_address   st tx_queue"),
            None
        );
    }

    #[test]
    fn ranges_of_ports() {
        assert_eq!(port_range("32768\t60999\n"), Some((32_768, 60_999)));
        assert_eq!(port_range("32768"), None);
        assert_eq!(
            port_list("8080,30000-32767\n"),
            Some(vec![(8_080, 8_080), (30_000, 32_767)])
        );
        assert_eq!(port_list("\n"), Some(Vec::new()));
        assert_eq!(port_list("x"), None);
    }
}
