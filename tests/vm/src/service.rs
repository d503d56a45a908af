//! A virtual service: how IPVS knows it, how it forwards, what its metrics are labelled with.
//!
//! Knows nothing of the network: whether a packet reaches anybody is [`crate::topology`]'s matter.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::Result;

use crate::topology::{RealServer, VIP};
use crate::{command, netns};

/// What a service is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `ipvsadm -t`.
    Tcp(SocketAddr),
    /// `ipvsadm -u`.
    Udp(SocketAddr),
    /// `ipvsadm --sctp-service`.
    Sctp(SocketAddr),
    /// `ipvsadm -f`: every packet with this firewall mark.
    Mark(u32),
}

/// How packets get to a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// `ipvsadm -m`: addresses and port are rewritten.
    Nat,
    /// `ipvsadm -g`: only the Ethernet address changes.
    DirectRouting,
    /// `ipvsadm -i`: the packet is wrapped in another.
    Tunnel,
    /// The same with real servers of IPv4 behind a service of IPv6.
    TunnelToV4,
}

/// A service; how many real servers it has changes as it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// What it is known by.
    pub key: Key,
    /// How it forwards to every real server.
    pub forwarding: Forwarding,
    /// More words for `ipvsadm -A`.
    pub options: &'static str,
    /// The director's network namespace; `None` for the root namespace.
    pub netns: Option<&'static str>,
}

/// The service of most scenarios: TCP on [`VIP`], NAT, in the root namespace.
pub const ORDINARY: Service = Service {
    key: Key::Tcp(SocketAddr::V4(VIP)),
    forwarding: Forwarding::Nat,
    options: "",
    netns: None,
};

/// Label names of node_exporter with their values.
pub type Labels = Vec<(&'static str, String)>;

impl Service {
    /// Creates it with these real servers, weight 1, round robin.
    ///
    /// # Errors
    /// `ipvsadm` refused it.
    pub fn create(&self, servers: &[RealServer]) -> Result<()> {
        let mut rules = format!("-A {} -s rr {}\n", self.words(), self.options);
        for rs in servers {
            let _ = writeln!(rules, "-a {} -w 1", self.member_words(*rs));
        }
        self.ipvsadm("-R", &rules)
    }

    /// Adds a real server with weight 1.
    ///
    /// # Errors
    /// `ipvsadm` refused it.
    pub fn add(&self, rs: RealServer) -> Result<()> {
        self.ipvsadm(&format!("-a {} -w 1", self.member_words(rs)), "")
    }

    /// Sets the weight of a real server; 0 drains it.
    ///
    /// # Errors
    /// `ipvsadm` refused it.
    pub fn set_weight(&self, rs: RealServer, weight: u32) -> Result<()> {
        self.ipvsadm(&format!("-e {} -w {weight}", self.member_words(rs)), "")
    }

    /// Removes a real server.
    ///
    /// # Errors
    /// `ipvsadm` refused it.
    pub fn delete(&self, rs: RealServer) -> Result<()> {
        let words = format!("-d {} -r {}", self.words(), self.address_of(rs));
        self.ipvsadm(&words, "")
    }

    /// Where its real server listens: only NAT can change the port, and only of a service that
    /// has one.
    pub fn address_of(&self, rs: RealServer) -> SocketAddr {
        let address = match self.key {
            Key::Tcp(SocketAddr::V6(_))
            | Key::Udp(SocketAddr::V6(_))
            | Key::Sctp(SocketAddr::V6(_))
                if self.forwarding != Forwarding::TunnelToV4 =>
            {
                rs.address_v6()
            }
            _ => rs.address().into(),
        };
        match self.key {
            Key::Tcp(local) | Key::Udp(local) | Key::Sctp(local)
                if self.forwarding != Forwarding::Nat || local.port() == 0 =>
            {
                SocketAddr::new(address.ip(), local.port())
            }
            _ => address,
        }
    }

    /// Labels of its series.
    pub fn labels(&self) -> Labels {
        let (proto, local, mark) = match self.key {
            Key::Tcp(local) => ("TCP", Some(local), String::new()),
            Key::Udp(local) => ("UDP", Some(local), String::new()),
            Key::Sctp(local) => ("SCTP", Some(local), String::new()),
            Key::Mark(mark) => ("FWM", None, format!("{mark:08X}")),
        };
        let address = local.map(|local| local.ip().to_string());
        // A mark has no port; node_exporter says 0.
        let port = local.map_or(0, |local| local.port());
        vec![
            ("proto", proto.to_owned()),
            ("local_address", address.unwrap_or_default()),
            ("local_port", port.to_string()),
            ("local_mark", mark),
        ]
    }

    /// Labels of the series of one of its real servers.
    pub fn labels_of(&self, rs: RealServer) -> Labels {
        let address = self.address_of(rs);
        let mut labels = self.labels();
        labels.push(("remote_address", address.ip().to_string()));
        labels.push(("remote_port", address.port().to_string()));
        labels
    }

    fn words(&self) -> String {
        match self.key {
            Key::Tcp(local) => format!("-t {local}"),
            Key::Udp(local) => format!("-u {local}"),
            Key::Sctp(local) => format!("--sctp-service {local}"),
            Key::Mark(mark) => format!("-f {mark}"),
        }
    }

    fn member_words(&self, rs: RealServer) -> String {
        let forwarding = match self.forwarding {
            Forwarding::Nat => "-m",
            Forwarding::DirectRouting => "-g",
            Forwarding::Tunnel | Forwarding::TunnelToV4 => "-i",
        };
        format!("{} -r {} {forwarding}", self.words(), self.address_of(rs))
    }

    fn ipvsadm(&self, words: &str, input: &str) -> Result<()> {
        let words: Vec<_> = words.split_whitespace().collect();
        netns::within(self.netns, || {
            command::run_with_input("ipvsadm", &words, input).map(drop)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::RS2;

    fn values(labels: Labels) -> Vec<String> {
        labels.into_iter().map(|(_, value)| value).collect()
    }

    #[test]
    fn only_nat_changes_the_port() {
        let direct = Service {
            forwarding: Forwarding::DirectRouting,
            ..ORDINARY
        };
        assert_eq!(
            ORDINARY.member_words(RS2),
            "-t 10.96.0.10:80 -r 10.1.2.2:8080 -m"
        );
        assert_eq!(
            direct.member_words(RS2),
            "-t 10.96.0.10:80 -r 10.1.2.2:80 -g"
        );
    }

    #[test]
    fn labels_are_those_of_node_exporter() {
        assert_eq!(
            values(ORDINARY.labels_of(RS2)),
            ["TCP", "10.96.0.10", "80", "", "10.1.2.2", "8080"]
        );
        let mark = Service {
            key: Key::Mark(258),
            ..ORDINARY
        };
        assert_eq!(values(mark.labels()), ["FWM", "", "0", "00000102"]);
        let v6 = Service {
            key: Key::Tcp("[fd96::10]:80".parse().unwrap()),
            ..ORDINARY
        };
        assert_eq!(
            values(v6.labels_of(RS2)),
            ["TCP", "fd96::10", "80", "", "fd01:0:0:2::2", "8080"]
        );
    }
}
