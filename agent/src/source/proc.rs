//! Reads what the kernel counts about this network namespace out of procfs. IO only: the text is
//! understood by [`crate::decode::proc`].

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::decode::proc::{self, Readings};

/// Listeners looked at: far above what a node of thousands of services has in one namespace.
const LISTENERS_MAX: usize = 16_384;

/// Segments that came for a socket and were thrown away for want of memory, each counted once
/// (`TcpExt`): no room in the receive queue, in the queue of what came out of order, in the backlog
/// of a busy socket, or only emergency memory left.
const TCP_MEMORY: [&str; 4] = [
    "TCPRcvQDrop",
    "TCPOFODrop",
    "TCPBacklogDrop",
    "PFMemallocDrop",
];

/// Where procfs is.
#[derive(Clone, Debug)]
pub struct Procfs {
    root: PathBuf,
}

impl Procfs {
    /// procfs below `root`, which is `/proc` but for tests.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Reads everything: nine small files and the listening sockets.
    #[must_use]
    pub fn read(&self) -> Readings {
        let netstat = self.text("net/netstat");
        let snmp = self.text("net/snmp");
        let snmp6 = self.text("net/snmp6");
        let conntrack = self.text("net/stat/nf_conntrack");
        let tcp = |name: &&str| proc::counter(&netstat, "TcpExt", name);
        let udp = |v4: &str, v6: &str| {
            let v4 = proc::counter(&snmp, "Udp", v4)?;
            Some(v4 + proc::counter_v6(&snmp6, v6).unwrap_or(0))
        };
        Readings {
            tcp_memory: TCP_MEMORY.iter().filter_map(tcp).reduce(|a, b| a + b),
            udp_receive_buffer: udp("RcvbufErrors", "Udp6RcvbufErrors"),
            udp_memory: udp("MemErrors", "Udp6MemErrors"),
            conntrack_entries: self.number("sys/net/netfilter/nf_conntrack_count"),
            conntrack_entries_limit: self.number("sys/net/netfilter/nf_conntrack_max"),
            conntrack_insert_failed: proc::conntrack_statistic(&conntrack, "insert_failed"),
            listeners_in_port_range: self.listeners_in_port_range(),
        }
    }

    fn listeners_in_port_range(&self) -> Option<Vec<SocketAddr>> {
        let (first, last) = proc::port_range(&self.text("sys/net/ipv4/ip_local_port_range"))?;
        let reserved = proc::port_list(&self.text("sys/net/ipv4/ip_local_reserved_ports"))?;
        let is_reserved = |port| reserved.iter().any(|(a, b)| (*a..=*b).contains(&port));
        let given_out =
            |at: &SocketAddr| (first..=last).contains(&at.port()) && !is_reserved(at.port());
        let mut found: Vec<_> = ["net/tcp", "net/tcp6"]
            .iter()
            .flat_map(|table| self.listeners(table))
            .filter(given_out)
            .collect();
        found.sort_unstable();
        found.dedup();
        Some(found)
    }

    /// The kernel lists listening sockets first; the rest, which may be long, is not read.
    fn listeners(&self, table: &str) -> Vec<SocketAddr> {
        let Ok(file) = File::open(self.root.join(table)) else {
            return Vec::new();
        };
        let lines = BufReader::new(file).lines().skip(1).take(LISTENERS_MAX);
        lines
            .map_while(|line| proc::listener(&line.ok()?))
            .collect()
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.text(path).trim().parse().ok()
    }

    /// Empty when it cannot be read: the kernel does not have it.
    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A procfs of this test's own, removed at the end.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let name = format!("ipvs-lens-proc-{name}-{}", std::process::id());
            let tree = Self(std::env::temp_dir().join(name));
            for (path, text) in files {
                let path = tree.0.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            tree
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_node_with_conntrack() {
        let tcp = "  sl  local_address rem_address   st\n\
            0: 00000000:1F90 00000000:0000 0A\n\
            1: 00000000:9C40 00000000:0000 0A\n\
            2: 00000000:9C41 00000000:0000 0A\n\
            3: 0100007F:9C42 0100007F:0050 01\n";
        let tree = Tree::new(
            "full",
            &[
                (
                    "net/netstat",
                    "TcpExt: TCPBacklogDrop PFMemallocDrop TCPRcvQDrop TCPOFODrop\nTcpExt: 1 2 3 4\n",
                ),
                ("net/snmp", "Udp: RcvbufErrors MemErrors\nUdp: 5 6\n"),
                ("net/snmp6", "Udp6RcvbufErrors 10\n"),
                (
                    "net/stat/nf_conntrack",
                    "insert_failed drop\n0a 01\n01 00\n",
                ),
                ("sys/net/netfilter/nf_conntrack_count", "7\n"),
                ("sys/net/netfilter/nf_conntrack_max", "8192\n"),
                ("sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
                ("sys/net/ipv4/ip_local_reserved_ports", "40001\n"),
                ("net/tcp", tcp),
            ],
        );
        let expected = Readings {
            tcp_memory: Some(10),
            udp_receive_buffer: Some(15),
            udp_memory: Some(6),
            conntrack_entries: Some(7),
            conntrack_entries_limit: Some(8_192),
            conntrack_insert_failed: Some(11),
            listeners_in_port_range: Some(vec!["0.0.0.0:40000".parse().unwrap()]),
        };
        assert_eq!(Procfs::new(&tree.0).read(), expected);
    }

    #[test]
    fn what_a_kernel_does_not_have_is_none() {
        let nowhere = std::env::temp_dir().join("ipvs-lens-proc-nowhere");
        assert_eq!(Procfs::new(&nowhere).read(), Readings::default());
    }
}
