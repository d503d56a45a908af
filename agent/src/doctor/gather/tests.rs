use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::facts::{ControllerKind, IpVs, Listener, PortRange, Rules, Table, Tool};
use super::*;

/// A directory of one test's own, removed at the end.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let name = format!("ipvs-lens-{name}-{}", std::process::id());
        let tree = Self(std::env::temp_dir().join(name));
        for (path, text) in files {
            let path = tree.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        tree
    }

    fn gather(&self) -> Facts {
        gather(&at(&self.0))
    }
}

/// Looks at files below `root` only.
fn at(root: &Path) -> Look {
    Look {
        root: root.to_owned(),
        ..Look::at_files()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// `/proc/net/ip_vs` of a node with every kind of service.
const TABLE: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A60000A:0050 rr  \n\
\x20 -> 0A010102:1F90      Masq    1      0          2         \n\
\x20 -> 0A010202:1F90      Masq    0      1          0         \n\
TCP  [fd00:0000:0000:0000:0000:0000:0000:000a]:01BB wrr persistent 300 FFFFFFFF
  -> [fd01:0001:0000:0000:0000:0000:0000:0002]:20FB      Masq    5      0          0         \n\
UDP  0A60000A:0035 rr ops \n\
FWM  00000007 sh persistent 60 FFFFFF00
";

/// The files of a node with IPVS, kube-proxy, keepalived and Swarm.
const NODE: &[(&str, &str)] = &[
    ("proc/sys/kernel/osrelease", "5.10.0-46-cloud-amd64\n"),
    ("proc/sys/kernel/hostname", "node-1\n"),
    (
        "proc/version",
        "Linux version 5.10.0-46 (x@y) (gcc) #1 SMP Debian 5.10.262-1 (2026-10-01)\n",
    ),
    ("proc/self/status", "Name:\tx\nCapEff:\t000001ffffffffff\n"),
    ("sys/kernel/btf/vmlinux", ""),
    ("sys/kernel/btf/ip_vs", ""),
    ("sys/bus/event_source/devices/kprobe/type", "8\n"),
    ("sys/module/ip_vs/initstate", "live\n"),
    ("sys/module/ip_vs/parameters/conn_tab_bits", "12\n"),
    ("proc/thread-self/net/ip_vs", TABLE),
    (
        "proc/thread-self/net/dev",
        "a\nb\n  lo: 1 2\nkube-ipvs0: 0\n",
    ),
    ("proc/sys/net/netfilter/nf_conntrack_max", "65536\n"),
    ("proc/sys/net/netfilter/nf_conntrack_count", "12\n"),
    (
        "proc/thread-self/net/stat/nf_conntrack",
        "entries  insert_failed drop\n0000000c  00000001 00000010\n0000000c  00000002 00000001\n",
    ),
    ("proc/sys/net/ipv4/vs/conn_reuse_mode", "0\n"),
    ("proc/sys/net/ipv4/vs/sync_threshold", "3\t50\n"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
    (
        "proc/sys/net/ipv4/ip_local_reserved_ports",
        "8080,9000-9001\n",
    ),
    ("proc/sys/net/core/somaxconn", "128\n"),
    (
        "proc/thread-self/net/netstat",
        "TcpExt: A ListenOverflows B\nTcpExt: 1 7 3\nIpExt: A\nIpExt: 1\n",
    ),
    (
        "proc/thread-self/net/tcp",
        "  sl  local_address rem_address   st\n\
                 \x20  0: 0100007F:2600 00000000:0000 0A 0\n\
                 \x20  1: 0100007F:2601 0100007F:2600 01 0\n\
                 \x20  2: 0100007F:2602 00000000:0000 0A never read\n",
    ),
    (
        "proc/thread-self/net/tcp6",
        "  sl\n   0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 0\n",
    ),
    ("proc/7/comm", "keepalived\n"),
    ("proc/8/comm", "kube-proxy\n"),
    (
        "proc/8/cmdline",
        "kube-proxy\0--config=/etc/kp.conf\0--proxy-mode=iptables\0",
    ),
    (
        "proc/8/root/etc/kp.conf",
        "ipvs:\n  mode: wrong\nmode: \"ipvs\" # since then\nmetricsBindAddress: 127.0.0.1:1\n",
    ),
    ("proc/8/root/usr/sbin/ipset", ""),
    ("run/docker/netns/ingress_sbox", ""),
];

#[test]
fn the_kernel_of_a_node() {
    let facts = Tree::new("kernel", NODE).gather();
    assert_eq!(facts.host, Fact::Known("node-1".to_owned()));
    assert_eq!(facts.kernel.upstream, Fact::Known("5.10.262".to_owned()));
    assert_eq!(facts.capabilities, Fact::Known(0x1ff_ffff_ffff));
    assert_eq!(facts.kernel.kprobes, Fact::Known(true));
    assert_eq!(facts.ip_vs, Fact::Known(IpVs::Module));
    assert_eq!(facts.conn_tab_bits, Fact::Known(12));
    assert_eq!(facts.nf_conntrack, Fact::Known(true));
}

#[test]
fn the_services_of_a_node() {
    let facts = Tree::new("services", NODE).gather();
    let netns = &facts.netns[0];
    assert_eq!(
        netns.sysctls,
        Fact::Known(BTreeMap::from([
            ("conn_reuse_mode".to_owned(), "0".to_owned()),
            ("sync_threshold".to_owned(), "3\t50".to_owned()),
        ]))
    );
    assert_eq!(
        netns.table,
        Fact::Known(Table {
            services: [("FWM", 1), ("TCP", 2), ("UDP", 1)]
                .map(|(name, count)| (name.to_owned(), count))
                .into(),
            schedulers: [("rr", 2), ("sh", 1), ("wrr", 1)]
                .map(|(name, count)| (name.to_owned(), count))
                .into(),
            persistent: 2,
            one_packet: 1,
            real_servers: 3,
            draining: 1,
            ports: vec![53, 80, 443],
            truncated: false,
        })
    );
}

#[test]
fn the_queues_and_ports_of_a_node() {
    let facts = Tree::new("ports", NODE).gather();
    let netns = &facts.netns[0];
    assert_eq!(netns.conntrack.count, Fact::Known(12));
    assert_eq!(netns.conntrack.insert_failed, Fact::Known(3));
    assert_eq!(netns.conntrack.drop, Fact::Known(17));
    assert_eq!(netns.queues.somaxconn, Fact::Known(128));
    assert_eq!(netns.queues.overflows, Fact::Known(7));
    assert_eq!(netns.ports.range, Fact::Known(PortRange(32_768, 60_999)));
    assert_eq!(
        netns.ports.reserved,
        Fact::Known(vec![PortRange(8_080, 8_080), PortRange(9_000, 9_001)])
    );
    let listener = |address: &str, port| Listener {
        address: address.to_owned(),
        port,
    };
    assert_eq!(
        netns.ports.listeners,
        Fact::Known(vec![listener("127.0.0.1", 9_728), listener("::", 443)])
    );
    assert!(matches!(&netns.rules, Fact::Unknown(why) if why == "not looked at"));
}

#[test]
fn the_managers_of_a_node() {
    let facts = Tree::new("managers", NODE).gather();
    let controllers = facts.controllers.known().unwrap();
    let found: Vec<_> = controllers
        .iter()
        .map(|c| (c.kind, c.evidence.join(", ")))
        .collect();
    assert_eq!(
        found,
        [
            (
                ControllerKind::KubeProxy,
                "process 8 kube-proxy, device kube-ipvs0".to_owned()
            ),
            (
                ControllerKind::Keepalived,
                "process 7 keepalived".to_owned()
            ),
            (
                ControllerKind::DockerSwarm,
                "network namespace ingress_sbox".to_owned()
            ),
        ]
    );
    let kube_proxy = facts.kube_proxy.unwrap();
    assert_eq!(kube_proxy.asked_mode, Fact::Known("ipvs".to_owned()));
    assert!(
        kube_proxy
            .actual_mode
            .get()
            .unwrap_err()
            .contains("127.0.0.1:1/proxyMode")
    );
    assert_eq!(
        kube_proxy.tools,
        Fact::Known(BTreeMap::from([
            ("conntrack".to_owned(), Tool::Missing),
            ("ipset".to_owned(), Tool::At("/usr/sbin/ipset".to_owned())),
        ]))
    );
}

#[test]
fn absent_is_told_apart_from_unreadable() {
    let tree = Tree::new(
        "bare",
        &[
            ("sys/kernel/notes", ""),
            ("sys/bus/event_source/devices/software/type", "1\n"),
            ("sys/module/kernel/parameters/x", ""),
            ("proc/thread-self/net/dev", ""),
        ],
    );
    let bare = tree.gather();
    assert_eq!(bare.kernel.btf, Fact::Known(false));
    assert_eq!(bare.kernel.kprobes, Fact::Known(false));
    assert_eq!(bare.ip_vs, Fact::Known(IpVs::Absent));
    let why = bare.kernel.release.get().unwrap_err();
    assert!(why.starts_with("cannot read /proc/sys/kernel/osrelease: No such file"));
    assert_eq!(
        bare.nf_conntrack.get().unwrap_err(),
        "there is no /proc/sys/net"
    );
    assert!(bare.kube_proxy.is_none());
    let nothing = essentials(&at(&tree.0.join("nowhere")));
    assert_eq!(nothing.ip_vs.get().unwrap_err(), "there is no /sys/module");
}

#[test]
fn what_is_built_in_needs_no_directory() {
    let symbols =
        |symbol: &str| format!("0000000000000000 T vfs_read\n0000000000000000 {symbol}\n");
    for (name, symbol, found) in [
        ("image", "T ip_vs_conn_in_get_proto", IpVs::BuiltIn),
        ("module", "t ip_vs_conn_in_get_proto\t[ip_vs]", IpVs::Absent),
    ] {
        let files = [
            ("sys/module/kernel/x", ""),
            ("proc/thread-self/net/dev", ""),
        ];
        let tree = Tree::new(name, &files);
        fs::write(tree.0.join("proc/kallsyms"), symbols(symbol)).unwrap();
        assert_eq!(tree.gather().ip_vs, Fact::Known(found), "{symbol}");
    }
}

#[test]
fn ubuntu_states_its_version_elsewhere() {
    let tree = Tree::new(
        "ubuntu",
        &[
            (
                "proc/version_signature",
                "Ubuntu 5.4.0-216.236-generic 5.4.289\n",
            ),
            ("proc/version", "Linux version 5.4.0-216-generic\n"),
        ],
    );
    let kernel = essentials(&at(&tree.0)).kernel;
    assert_eq!(kernel.upstream, Fact::Known("5.4.289".to_owned()));
}

#[test]
fn values_that_are_none_are_named() {
    let tree = Tree::new(
        "odd",
        &[
            ("proc/sys/net/ipv4/ip_local_port_range", "few\n"),
            ("proc/sys/net/ipv4/ip_local_reserved_ports", "1,x-2\n"),
            ("proc/sys/net/core/somaxconn", "many\n"),
        ],
    );
    let facts = tree.gather();
    let netns = &facts.netns[0];
    let because = |why: Result<&_, &str>| why.err().map(str::to_owned).unwrap();
    assert!(
        because(netns.queues.somaxconn.get().map(|_| &())).contains("\"many\", expected a number")
    );
    assert!(because(netns.ports.range.get().map(|_| &())).contains("\"few\", expected two ports"));
    assert!(because(netns.ports.reserved.get().map(|_| &())).contains("holds \"x-2\""));
}

#[test]
fn rules_are_counted_in_every_tool_s_own_words() {
    let nft = "\
table ip nat {
\tchain POSTROUTING {
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\toifname != \"docker0\" ip saddr 172.17.0.0/16 counter packets 0 bytes 0 masquerade
\t}
}
table ip filter {
\tchain INPUT {
\t\tct state invalid counter packets 1 bytes 60 drop
\t\ttcp dport 80 accept
\t}
}";
    let iptables = "\
*nat
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 10.0.0.1
COMMIT
*filter
-A INPUT -m conntrack --ctstate INVALID -j RETURN
-A INPUT -p tcp -j ACCEPT
COMMIT";
    for (listing, stateful, masquerade) in [
        (
            nft,
            2,
            "oifname != \"docker0\" ip saddr 172.17.0.0/16 counter packets 0 bytes 0 masquerade",
        ),
        (
            iptables,
            3,
            "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
        ),
    ] {
        let mut rules = Rules::default();
        firewall::count(&mut rules, listing);
        assert_eq!(rules.stateful, stateful);
        assert_eq!(rules.masquerades, [masquerade]);
    }
}

#[test]
fn options_of_kube_proxy() {
    let words = |text: &str| site::Options::Flags(text.split(' ').map(str::to_owned).collect());
    let mode = |options: site::Options| options.get("proxy-mode", "mode");
    assert_eq!(
        mode(words("kube-proxy --proxy-mode=ipvs")),
        Some("ipvs".to_owned())
    );
    assert_eq!(
        mode(words("kube-proxy --proxy-mode ipvs -v 2")),
        Some("ipvs".to_owned())
    );
    assert_eq!(mode(words("kube-proxy --proxy-modes=x")), None);
    assert_eq!(
        mode(site::Options::File("kind: K\nmode: ''\n".to_owned())),
        Some(String::new())
    );
}

#[test]
fn what_an_agent_answers() {
    let address = "127.0.0.1:9742".parse().unwrap();
    let body = r#"{"version": "0", "observed": {"4026531840": {"decisions": {"reused": 3}}}}"#;
    let observed = agent::parse(body, address).unwrap();
    assert_eq!(observed.source, "the agent at 127.0.0.1:9742");
    assert_eq!(observed.by_netns[&4_026_531_840].decided("reused"), 3);
    let other = agent::parse("{}", address).unwrap_err();
    assert!(
        other.contains("is not that of an agent: missing field `observed`"),
        "{other}"
    );
}
