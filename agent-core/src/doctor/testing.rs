//! Made-up nodes for the tests of the doctor.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::facts::{
    Conntrack, Controller, ControllerKind, Fact, Facts, IpVs, Kernel, KubeProxy, Limit, Limits,
    Listener, Lockdown, Netns, Observed, PortRange, Ports, Queues, Rules, Seen, Table, Timeouts,
    Tool, Unmounted,
};
use crate::kernel::features::{Feature, Features, Found, TABLE};

/// The initial network namespace.
pub const NETNS: u32 = 4_026_531_840;

/// A node on which everything is as it should be: one TCP service, three real servers.
pub fn fit() -> Facts {
    let known = |text: &str| Fact::Known(text.to_owned());
    Facts {
        taken_at: known("2026-01-02T03:04:05Z"),
        host: known("node-1"),
        kernel: Kernel {
            release: known("6.12.1"),
            upstream: Fact::Unknown("/proc/version does not state it".to_owned()),
            btf: Fact::Known(true),
            btf_ip_vs: Fact::Known(true),
            kprobes: Fact::Known(true),
            unmounted: Fact::Known(Vec::new()),
            lockdown: Fact::Known(Lockdown::None),
            features: Fact::Known(features_without(&[])),
        },
        capabilities: Fact::Known(u64::MAX),
        limits: Fact::Known(Limits {
            open_files: Limit::Of(1_024),
            locked_bytes: Limit::Infinite,
            maps_are_charged: false,
            address_bytes: Limit::Infinite,
        }),
        ip_vs: Fact::Known(IpVs::Module),
        conn_tab_bits: Fact::Known(12),
        nf_conntrack: Fact::Known(true),
        controllers: Fact::Known(Vec::new()),
        netns: vec![fit_netns()],
        observed: Fact::Unknown("no agent was asked".to_owned()),
        ..Facts::default()
    }
}

/// A kernel that has everything but these.
pub fn features_without(absent: &[Feature]) -> Features {
    let mut features = Features::default();
    for row in TABLE {
        let found = if absent.contains(&row.feature) {
            Found::Absent("not here".to_owned())
        } else {
            Found::Present(String::new())
        };
        features.set(row.feature, found);
    }
    features
}

fn fit_netns() -> Netns {
    let sysctls = [
        ("conn_reuse_mode", "1"),
        ("conntrack", "0"),
        ("expire_nodest_conn", "1"),
        ("expire_quiescent_template", "0"),
        ("sync_threshold", "3\t50"),
    ];
    let sysctls = sysctls.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Netns {
        id: NETNS,
        path: None,
        sysctls: Fact::Known(sysctls.into()),
        timeouts: Fact::Known(Timeouts {
            tcp_seconds: 900,
            tcp_fin_seconds: 120,
            udp_seconds: 300,
        }),
        tcp_keepalive_seconds: Fact::Known(600),
        table: Fact::Known(Table {
            services: [("TCP".to_owned(), 1)].into(),
            schedulers: [("rr".to_owned(), 1)].into(),
            real_servers: 3,
            ports: vec![80],
            ..Table::default()
        }),
        conntrack: Conntrack {
            count: Fact::Known(10),
            max: Fact::Known(65_536),
            buckets: Fact::Known(65_536),
            insert_failed: Fact::Known(0),
            drop: Fact::Known(0),
        },
        rules: Fact::Known(Rules::default()),
        ports: Ports {
            range: Fact::Known(PortRange(32_768, 60_999)),
            reserved: Fact::Known(Vec::new()),
            listeners: Fact::Known(Vec::new()),
        },
        queues: Queues {
            somaxconn: Fact::Known(4_096),
            overflows: Fact::Known(0),
        },
    }
}

/// [`fit`], changed.
pub fn with(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = fit();
    change(&mut facts);
    facts
}

/// [`fit`] with another kernel.
pub fn with_kernel(change: impl FnOnce(&mut Kernel)) -> Facts {
    with(|facts| change(&mut facts.kernel))
}

/// [`fit`] with another namespace.
pub fn with_netns(change: impl FnOnce(&mut Netns)) -> Facts {
    with(|facts| change(&mut facts.netns[0]))
}

/// `facts` with what an agent has seen in their first namespace.
pub fn with_seen(mut facts: Facts, change: impl FnOnce(&mut Seen)) -> Facts {
    let mut seen = Seen::default();
    change(&mut seen);
    facts.observed = Fact::Known(Observed {
        source: "the agent at 127.0.0.1:9742".to_owned(),
        by_netns: [(NETNS, seen)].into(),
    });
    facts
}

fn fact<T: std::fmt::Debug + Clone + 'static>(
    value: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Fact<T>> {
    prop_oneof![
        4 => value.prop_map(Fact::Known),
        1 => Just(Fact::Unknown("because".to_owned())),
    ]
    .boxed()
}

fn any_kind() -> impl Strategy<Value = ControllerKind> {
    prop_oneof![
        Just(ControllerKind::KubeProxy),
        Just(ControllerKind::KubeRouter),
        Just(ControllerKind::Keepalived),
        Just(ControllerKind::DockerSwarm),
    ]
}

/// Small numbers, the largest, and everything between.
fn any_count() -> impl Strategy<Value = u64> {
    prop_oneof![0..3_u64, Just(u64::MAX), any::<u64>()]
}

fn any_counts(words: &'static str) -> impl Strategy<Value = BTreeMap<String, u64>> {
    prop::collection::btree_map(words, any_count(), 0..4)
}

fn any_table() -> impl Strategy<Value = Table> {
    (
        any_counts("TCP|UDP|SCTP|FWM"),
        any_counts("rr|wrr|lc"),
        [any_count(), any_count(), any_count(), any_count()],
        prop::collection::vec(any::<u16>(), 0..20),
    )
        .prop_map(|(services, schedulers, numbers, ports)| {
            let [persistent, one_packet, real_servers, draining] = numbers;
            Table {
                services,
                schedulers,
                persistent,
                one_packet,
                real_servers,
                draining,
                ports,
                truncated: false,
            }
        })
}

fn any_ports() -> impl Strategy<Value = Ports> {
    let range = || any::<(u16, u16)>().prop_map(|(from, to)| PortRange(from, to));
    let listener = ("::|0.0.0.0|127.0.0.1", any::<u16>())
        .prop_map(|(address, port)| Listener { address, port });
    (
        fact(range()),
        fact(prop::collection::vec(range(), 0..5)),
        fact(prop::collection::vec(listener, 0..20)),
    )
        .prop_map(|(range, reserved, listeners)| Ports {
            range,
            reserved,
            listeners,
        })
}

fn any_conntrack() -> impl Strategy<Value = Conntrack> {
    let number = || fact(any_count());
    [number(), number(), number(), number(), number()].prop_map(
        |[count, max, buckets, insert_failed, drop]| Conntrack {
            count,
            max,
            buckets,
            insert_failed,
            drop,
        },
    )
}

fn any_netns() -> impl Strategy<Value = Netns> {
    let names = "conn_lfactor|conn_reuse_mode|conntrack|expire_nodest_conn|expire_quiescent_template|run_estimation";
    let sysctls = prop::collection::btree_map(names, "0|1|2|-1|x y|99999999999999999999", 0..9);
    let timeouts =
        any::<[u32; 3]>().prop_map(|[tcp_seconds, tcp_fin_seconds, udp_seconds]| Timeouts {
            tcp_seconds,
            tcp_fin_seconds,
            udp_seconds,
        });
    let rules = (any_count(), prop::collection::vec("masquerade|x", 0..3)).prop_map(
        |(stateful, masquerades)| Rules {
            stateful,
            masquerades,
        },
    );
    let queues = (fact(any_count()), fact(any_count())).prop_map(|(somaxconn, overflows)| Queues {
        somaxconn,
        overflows,
    });
    (
        (Just(NETNS), prop::option::of("/run/netns/[a-z]{1,8}")),
        (
            fact(sysctls),
            fact(timeouts),
            fact(any_table()),
            fact(rules),
        ),
        (any_conntrack(), any_ports(), queues),
    )
        .prop_map(
            |((id, path), (sysctls, timeouts, table, rules), (conntrack, ports, queues))| Netns {
                id,
                path,
                sysctls,
                timeouts,
                tcp_keepalive_seconds: Fact::default(),
                table,
                conntrack,
                rules,
                ports,
                queues,
            },
        )
}

fn any_kube_proxy() -> impl Strategy<Value = KubeProxy> {
    let tool = prop_oneof![Just(Tool::Missing), Just(Tool::At("/x".to_owned()))];
    (
        fact("|ipvs|iptables"),
        fact("ipvs|iptables"),
        fact(prop::collection::btree_map("conntrack|ipset", tool, 0..3)),
    )
        .prop_map(|(asked_mode, actual_mode, tools)| KubeProxy {
            asked_mode,
            actual_mode,
            tools,
        })
}

fn any_features() -> impl Strategy<Value = Features> {
    let found = prop_oneof![
        Just(Found::Present(String::new())),
        Just(Found::Absent("x".to_owned())),
        Just(Found::Unknown("x".to_owned())),
    ];
    prop::collection::vec(found, TABLE.len()).prop_map(|all| {
        let mut features = Features::default();
        for (row, found) in TABLE.iter().zip(all) {
            features.set(row.feature, found);
        }
        features
    })
}

fn any_kernel() -> impl Strategy<Value = Kernel> {
    let release = "[3-7]\\.[0-9]{1,2}(\\.[0-9]{1,3})?(-[a-z0-9.]{1,12})?|six";
    let unmounted = prop_oneof![Just(Unmounted::Proc), Just(Unmounted::Sys)];
    let lockdown = prop_oneof![
        Just(Lockdown::NotShown),
        Just(Lockdown::None),
        Just(Lockdown::Integrity),
        Just(Lockdown::Confidentiality)
    ];
    (
        fact(release),
        fact("[0-9]\\.[0-9]{1,2}\\.[0-9]{1,3}"),
        [
            fact(any::<bool>()),
            fact(any::<bool>()),
            fact(any::<bool>()),
        ],
        fact(prop::collection::vec(unmounted, 0..2)),
        fact(lockdown),
        fact(any_features()),
    )
        .prop_map(
            |(release, upstream, [btf, btf_ip_vs, kprobes], unmounted, lockdown, features)| {
                Kernel {
                    release,
                    upstream,
                    btf,
                    btf_ip_vs,
                    kprobes,
                    unmounted,
                    lockdown,
                    features,
                }
            },
        )
}

/// Facts of every kind of node, and of none.
pub fn any_facts() -> impl Strategy<Value = Facts> {
    let kernel = any_kernel();
    let ip_vs = prop_oneof![Just(IpVs::Absent), Just(IpVs::Module), Just(IpVs::BuiltIn)];
    let controllers = prop::collection::vec(any_kind(), 0..3).prop_map(|kinds| {
        let controllers = kinds.into_iter().map(|kind| Controller {
            kind,
            evidence: Vec::new(),
        });
        controllers.collect::<Vec<_>>()
    });
    let seen = (
        any_counts("scheduled|reused|rescheduled"),
        any_counts("port_reuse|persistence"),
        any_counts("ipvs_reuse|ipvs_removed|netfilter"),
    )
        .prop_map(|(decisions, stale, syn_drops)| Seen {
            decisions,
            stale,
            syn_drops,
        });
    let observed = prop::collection::btree_map(prop_oneof![Just(NETNS), any::<u32>()], seen, 0..3)
        .prop_map(|by_netns| Observed {
            source: "x".to_owned(),
            by_netns,
        });
    (
        (kernel, fact(any::<u64>()), fact(ip_vs), fact(any::<bool>())),
        fact(any_count()),
        (fact(controllers), prop::option::of(any_kube_proxy())),
        prop::collection::vec(any_netns(), 0..3),
        fact(observed),
    )
        .prop_map(
            |(
                (kernel, capabilities, ip_vs, nf_conntrack),
                conn_tab_bits,
                (controllers, kube_proxy),
                netns,
                observed,
            )| {
                Facts {
                    kernel,
                    capabilities,
                    ip_vs,
                    conn_tab_bits,
                    nf_conntrack,
                    controllers,
                    kube_proxy,
                    netns,
                    observed,
                    ..Facts::default()
                }
            },
        )
}
