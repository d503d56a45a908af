//! A test per branch of every rule. Facts are those of a fit node with one thing changed.

use std::collections::HashSet;

use proptest::prelude::*;

use super::super::facts::{
    CAP_BPF, CAP_PERFMON, Conntrack, Controller, ControllerKind, Fact, IpVs, Kernel, KubeProxy,
    Listener, Observed, PortRange, Ports, Queues, Rules as Firewall, Table, Timeouts, Tool,
};
use super::super::testing::{
    any_facts, features_without, fit, with, with_kernel, with_netns, with_seen,
};
use super::*;
use crate::kernel::features::Feature;

fn judge(id: &str, facts: &Facts) -> Verdict {
    let rule = RULES.iter().find(|rule| rule.id == id).unwrap();
    rule.judge(facts).remove(0).1
}

/// The advice of a rule that gives some.
fn advice(id: &str, facts: &Facts) -> Advice {
    match judge(id, facts) {
        Verdict::Advise(advice) => *advice,
        other => panic!("{id}: {other:?}"),
    }
}

fn is_ok(id: &str, facts: &Facts) {
    assert_eq!(judge(id, facts), Verdict::Ok, "{id}");
}

fn does_not_apply(id: &str, facts: &Facts, why: &str) {
    match judge(id, facts) {
        Verdict::NotApplicable { why: found } => assert!(found.contains(why), "{id}: {found}"),
        other => panic!("{id}: {other:?}"),
    }
}

fn is_unknown(id: &str, facts: &Facts, because: &str) {
    match judge(id, facts) {
        Verdict::Unknown { because: found } => assert!(found.contains(because), "{id}: {found}"),
        other => panic!("{id}: {other:?}"),
    }
}

/// Risk, certainty and commands.
fn gist(advice: &Advice) -> (Risk, Sure, Vec<&str>) {
    let commands = advice.commands.iter().map(String::as_str).collect();
    (advice.risk, advice.sure, commands)
}

fn controlled_by(kinds: &[ControllerKind]) -> Fact<Vec<Controller>> {
    let controllers = kinds.iter().map(|kind| Controller {
        kind: *kind,
        evidence: vec!["seen".to_owned()],
    });
    Fact::Known(controllers.collect())
}

#[test]
fn a_fit_node_needs_nothing() {
    for rule in RULES {
        for (_, verdict) in rule.judge(&fit()) {
            let fine = matches!(verdict, Verdict::Ok | Verdict::NotApplicable { .. });
            assert!(fine, "{}: {verdict:?}", rule.id);
        }
    }
    assert_eq!(prerequisites(&fit()), Ok(()));
}

#[test]
fn what_could_not_be_read_is_unknown_and_no_hindrance() {
    let nothing = Facts {
        netns: vec![Netns::default()],
        ..Facts::default()
    };
    for rule in RULES {
        for (_, verdict) in rule.judge(&nothing) {
            assert!(matches!(verdict, Verdict::Unknown { .. }), "{}", rule.id);
        }
    }
    assert_eq!(prerequisites(&nothing), Ok(()));
}

proptest! {
    #[test]
    fn no_facts_make_a_rule_panic(facts in any_facts()) {
        for rule in RULES {
            for (_, verdict) in rule.judge(&facts) {
                if let Some(advice) = verdict.advice() {
                    prop_assert!(!advice.found.is_empty() && !advice.want.is_empty());
                    // Whoever may run commands may take them back.
                    let undone = advice.undo.is_empty() && !advice.commands.is_empty();
                    prop_assert!(!undone || rule.id == "kube_proxy_mode", "{}", rule.id);
                }
            }
        }
    }
}

#[test]
fn unmet_prerequisites_are_one_line() {
    let line = |facts: &Facts| prerequisites(facts).unwrap_err().to_string();
    assert_eq!(
        line(&with_kernel(|k| k.kprobes = Fact::Known(false))),
        "cannot observe this node: this kernel has no kprobes, expected a kernel built with CONFIG_KPROBES and CONFIG_BPF_EVENTS"
    );
    let no_features = |k: &mut Kernel| k.features = Fact::default();
    assert_eq!(
        line(&with_kernel(|k| {
            no_features(k);
            k.btf = Fact::Known(false);
        })),
        "cannot observe this node: /sys/kernel/btf/vmlinux is not there, expected a kernel built with CONFIG_DEBUG_INFO_BTF, or its types by --btf FILE (`pahole --btf_encode_detached FILE vmlinux`, or an archive of BTFHub)"
    );
    let lacks = |absent: &[Feature]| {
        let features = features_without(absent);
        with_kernel(|k| k.features = Fact::Known(features))
    };
    assert_eq!(
        line(&with(|f| {
            f.capabilities = Fact::Known(0);
            f.kernel = lacks(&[Feature::GlobalData, Feature::BoundedLoops]).kernel;
        })),
        "cannot observe this node: this kernel lacks global data of programs: not here, and loops with a bound: not here, expected a kernel that has them; this process lacks CAP_SYS_ADMIN, expected root, or that capability"
    );
    for (absent, id) in [
        (Feature::KernelTypes, "btf"),
        (Feature::IpVsTypes, "ip_vs_btf"),
        (Feature::Kprobes, "kprobes"),
        (Feature::Helpers, "kernel"),
    ] {
        assert!(advice(id, &lacks(&[absent])).found.contains("not here"));
        assert_eq!(
            line(&lacks(&[absent])).matches("not here").count(),
            1,
            "{id}"
        );
    }
    let caps = 1 << CAP_BPF | 1 << CAP_PERFMON;
    assert_eq!(
        line(&with(|f| f.capabilities = Fact::Known(caps))),
        "cannot observe this node: this process lacks CAP_SYS_ADMIN, CAP_BPF and CAP_PERFMON alone do not do, expected root, or that capability"
    );
}

#[test]
fn lockdown_is_named_in_one_line() {
    use crate::doctor::facts::Lockdown;
    let locked = |mode| with_kernel(|k| k.lockdown = Fact::Known(mode));
    assert_eq!(prerequisites(&locked(Lockdown::Integrity)), Ok(()));
    let refusal = prerequisites(&locked(Lockdown::Confidentiality)).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "cannot observe this node: the kernel is locked down (lockdown=confidentiality), expected lockdown=integrity or none"
    );
    // What lockdown hides is not blamed on the kernel.
    let without_helpers = with_kernel(|k| {
        k.lockdown = Fact::Known(Lockdown::Confidentiality);
        k.features = Fact::Known(features_without(&[Feature::Helpers]));
    });
    assert_eq!(prerequisites(&without_helpers), Err(refusal));
    assert_eq!(
        Lockdown::of("none [integrity] confidentiality\n"),
        Some(Lockdown::Integrity)
    );
    assert_eq!(
        Lockdown::of("confidentiality"),
        Some(Lockdown::Confidentiality)
    );
    assert_eq!(Lockdown::of(""), None);
}

#[test]
fn a_low_limit_is_refused_with_both_numbers() {
    use crate::doctor::facts::{Limit, Limits};
    let with_locked = |open_files, locked_bytes, maps_are_charged| {
        with(|f| {
            f.limits = Fact::Known(Limits {
                open_files,
                locked_bytes: Limit::Of(locked_bytes),
                maps_are_charged,
                address_bytes: Limit::Infinite,
            });
        })
    };
    let limited = |open_files| with_locked(open_files, 65_536, false);
    assert_eq!(prerequisites(&limited(Limit::Of(256))), Ok(()));
    assert_eq!(prerequisites(&limited(Limit::Infinite)), Ok(()));
    let refusal = prerequisites(&limited(Limit::Of(32))).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "cannot observe this node: RLIMIT_NOFILE is 32, expected 256 or more (LimitNOFILE= of a systemd unit, ulimit)"
    );
    let charged = |locked| prerequisites(&with_locked(Limit::Infinite, locked, true));
    assert_eq!(charged(LOCKED_BYTES_NEEDED), Ok(()));
    assert_eq!(
        charged(8_388_608).unwrap_err().to_string(),
        "cannot observe this node: RLIMIT_MEMLOCK is 8388608, expected 134217728 or more (LimitMEMLOCK= of a systemd unit, ulimit, or CAP_SYS_RESOURCE)"
    );
}

#[test]
fn a_missing_file_system_is_named() {
    use crate::doctor::facts::Unmounted;
    let refusal = |which| {
        let facts = with_kernel(|k| k.unmounted = Fact::Known(vec![which]));
        prerequisites(&facts).unwrap_err().to_string()
    };
    assert_eq!(
        refusal(Unmounted::Sys),
        "cannot observe this node: there is no /sys/kernel, expected sysfs mounted at /sys; in a container, the node's"
    );
    assert_eq!(
        refusal(Unmounted::Proc),
        "cannot observe this node: there is no /proc/sys, expected procfs mounted at /proc, without subset=pid"
    );
}

#[test]
fn a_version_hinders_nothing() {
    for release in ["3.10.0", "4.18.0-240.el8.x86_64", "six"] {
        let facts = with_kernel(|k| k.release = Fact::Known(release.to_owned()));
        assert_eq!(prerequisites(&facts), Ok(()), "{release}");
    }
}

#[test]
fn old_bundles_are_judged_without_features() {
    let facts = with_kernel(|k| k.features = Fact::default());
    is_unknown("kernel", &facts, "what the kernel offers");
    is_ok("btf", &facts);
    is_ok("ip_vs_btf", &facts);
    is_ok("kprobes", &facts);
}

#[test]
fn an_absent_ip_vs_is_advice_and_no_hindrance() {
    let facts = with(|f| f.ip_vs = Fact::Known(IpVs::Absent));
    assert_eq!(prerequisites(&facts), Ok(()));
    let advice = advice("ip_vs", &facts);
    assert_eq!(advice.commands, ["modprobe ip_vs"]);
    for id in ["ip_vs_btf", "stale_reuse", "syn_drop", "removed_server"] {
        does_not_apply(id, &facts, "ip_vs is not loaded");
    }
}

#[test]
fn the_types_of_ip_vs() {
    let missing = with_kernel(|k| {
        k.features = Fact::default();
        k.btf_ip_vs = Fact::Known(false);
    });
    assert_eq!(
        advice("ip_vs_btf", &missing).found,
        "/sys/kernel/btf/ip_vs is not there"
    );
    let known_by_heart = with_kernel(|k| {
        k.features = Fact::default();
        k.btf_ip_vs = Fact::Known(false);
        k.release = Fact::Known("5.10.0-46-cloud-amd64".to_owned());
    });
    is_ok("ip_vs_btf", &known_by_heart);
    let mut built_in = with(|f| f.ip_vs = Fact::Known(IpVs::BuiltIn));
    is_ok("ip_vs_btf", &built_in);
    built_in.kernel.features = Fact::default();
    does_not_apply("ip_vs_btf", &built_in, "built into the kernel");
}

#[test]
fn without_services_nothing_can_go_wrong() {
    let facts = with_netns(|n| n.table = Fact::Known(Table::default()));
    for id in ["stale_reuse", "syn_drop", "removed_server", "uneven_reuse"] {
        does_not_apply(id, &facts, "no virtual service");
    }
}

fn with_modes(mode: i64, conntrack: i64, nodest: i64) -> Facts {
    with_netns(|netns| set_modes(netns, mode, conntrack, nodest))
}

fn set_modes(netns: &mut Netns, mode: i64, conntrack: i64, nodest: i64) {
    if let Fact::Known(sysctls) = &mut netns.sysctls {
        for (name, value) in [
            ("conn_reuse_mode", mode),
            ("conntrack", conntrack),
            ("expire_nodest_conn", nodest),
        ] {
            sysctls.insert(name.to_owned(), value.to_string());
        }
    }
}

/// conn_reuse_mode, conntrack, expire_nodest_conn on a kernel with both fixes, in a namespace where
/// netfilter tracks connections: rules that advise.
#[test]
fn the_three_sysctls() {
    type Row = ((i64, i64, i64), &'static [&'static str]);
    let table: [Row; 8] = [
        (
            (0, 0, 0),
            &["stale_reuse", "removed_server", "uneven_reuse"],
        ),
        (
            (0, 1, 0),
            &["stale_reuse", "removed_server", "uneven_reuse"],
        ),
        ((0, 0, 1), &["uneven_reuse"]),
        ((0, 1, 1), &["syn_drop", "uneven_reuse"]),
        ((1, 0, 0), &["removed_server"]),
        ((1, 1, 0), &["removed_server"]),
        ((1, 0, 1), &[]),
        ((1, 1, 1), &["syn_drop"]),
    ];
    for ((mode, conntrack, nodest), want) in table {
        let facts = with_modes(mode, conntrack, nodest);
        let advising: Vec<_> = RULES
            .iter()
            .filter(|rule| judge(rule.id, &facts).is_hazard())
            .map(|rule| rule.id)
            .collect();
        assert_eq!(advising, want, "{mode} {conntrack} {nodest}");
    }
}

#[test]
fn stale_reuse_is_cured_by_reuse_mode() {
    let configured = advice("stale_reuse", &with_modes(0, 0, 0));
    assert_eq!(
        gist(&configured),
        (
            Risk::High,
            Sure::Configured,
            vec!["sysctl -w net.ipv4.vs.conn_reuse_mode=1"]
        )
    );
    assert_eq!(configured.undo, ["sysctl -w net.ipv4.vs.conn_reuse_mode=0"]);
    let observed = with_seen(with_modes(0, 0, 0), |seen| {
        seen.stale.insert("port_reuse".to_owned(), 7);
    });
    let observed = advice("stale_reuse", &observed);
    assert_eq!(observed.sure, Sure::Observed);
    assert!(
        observed.found.contains("seen 7 times"),
        "{}",
        observed.found
    );
}

/// Release, what was seen: the verdict on conn_reuse_mode=0 with expire_nodest_conn=1.
#[test]
fn whether_nodest_is_enough_is_seen_or_guessed_from_the_version() {
    let on = |release: &str| {
        let mut facts = with_modes(0, 0, 1);
        facts.kernel.release = Fact::Known(release.to_owned());
        facts
    };
    is_ok("stale_reuse", &on("6.12.1"));
    let old = advice("stale_reuse", &on("5.10.46"));
    assert_eq!((old.risk, old.sure), (Risk::High, Sure::Configured));
    assert!(old.found.contains("not enough on 5.10.46"), "{}", old.found);

    let vendor = || on("5.14.0-100.el9.x86_64");
    let unsure = advice("stale_reuse", &vendor());
    assert_eq!((unsure.risk, unsure.sure), (Risk::Medium, Sure::Unknown));
    let rescheduled = with_seen(vendor(), |seen| {
        seen.decisions.insert("rescheduled".to_owned(), 1);
    });
    is_ok("stale_reuse", &rescheduled);
    let stale = with_seen(vendor(), |seen| {
        seen.stale.insert("port_reuse".to_owned(), 1);
    });
    let stale = advice("stale_reuse", &stale);
    assert_eq!((stale.risk, stale.sure), (Risk::High, Sure::Observed));
    // What is seen wins over a version that says it cannot be.
    let contradicted = with_seen(on("6.12.1"), |seen| {
        seen.stale.insert("port_reuse".to_owned(), 1);
    });
    assert_eq!(advice("stale_reuse", &contradicted).sure, Sure::Observed);
}

#[test]
fn with_reuse_mode_only_clients_that_vanished_are_left() {
    let seen = |facts| {
        with_seen(facts, |seen| {
            seen.stale.insert("port_reuse".to_owned(), 2);
        })
    };
    let advice = advice("stale_reuse", &seen(with_modes(1, 0, 0)));
    assert_eq!(
        gist(&advice),
        (
            Risk::Low,
            Sure::Observed,
            vec!["sysctl -w net.ipv4.vs.expire_nodest_conn=1"]
        )
    );
    is_ok("stale_reuse", &seen(with_modes(1, 0, 1)));
}

#[test]
fn udp_alone_reuses_nothing() {
    let facts = with_netns(|netns| {
        set_modes(netns, 0, 1, 1);
        netns.table = Fact::Known(Table {
            services: [("UDP".to_owned(), 2)].into(),
            ..Table::default()
        });
    });
    for id in ["stale_reuse", "uneven_reuse", "syn_drop"] {
        does_not_apply(id, &facts, "every service is UDP");
    }
}

/// A kernel whose table of connections is resized, with this `conn_lfactor`.
fn growing(factor: i64, mode: i64, nodest: i64) -> Facts {
    with_netns(|netns| {
        set_modes(netns, mode, 0, nodest);
        if let Fact::Known(sysctls) = &mut netns.sysctls {
            sysctls.insert("conn_lfactor".to_owned(), factor.to_string());
        }
    })
}

#[test]
fn a_table_that_grows_under_reuse_is_made_large() {
    for (mode, nodest) in [(1, 0), (0, 1), (1, 1)] {
        let advice = advice("growing_table", &growing(-4, mode, nodest));
        assert_eq!(
            gist(&advice),
            (
                Risk::Note,
                Sure::Unknown,
                vec!["sysctl -w net.ipv4.vs.conn_lfactor=-8"]
            )
        );
        assert_eq!(advice.undo, ["sysctl -w net.ipv4.vs.conn_lfactor=-4"]);
    }
    is_ok("growing_table", &growing(-4, 0, 0));
    is_ok("growing_table", &growing(-8, 1, 1));
    does_not_apply("growing_table", &fit(), "has one size");

    let with_bits = |bits: Fact<u64>| Facts {
        conn_tab_bits: bits,
        ..growing(-4, 1, 1)
    };
    is_ok("growing_table", &with_bits(Fact::Known(8)));
    is_unknown(
        "growing_table",
        &with_bits(Fact::default()),
        "conn_tab_bits",
    );
}

/// A kernel that drops at every reuse must not be advised to reuse.
#[test]
fn the_cure_depends_on_what_the_kernel_does_with_conntrack() {
    let on = |release: &str, nodest, masquerade: bool| {
        let mut facts = with_modes(0, 1, nodest);
        facts.kernel.release = Fact::Known(release.to_owned());
        if masquerade {
            facts.netns[0].rules = Fact::Known(Firewall {
                stateful: 1,
                masquerades: vec!["masquerade".to_owned()],
            });
        }
        facts
    };
    let commands = |facts: &Facts| advice("stale_reuse", facts).commands;
    assert_eq!(
        commands(&on("5.4.18", 0, false)),
        [
            "sysctl -w net.ipv4.vs.conntrack=0",
            "sysctl -w net.ipv4.vs.conn_reuse_mode=1"
        ]
    );
    assert!(commands(&on("5.4.18", 0, true)).is_empty());
    // Nothing older than 5.9 has the second fix without the first; a made-up kernel would.
    let uneven = advice("uneven_reuse", &on("5.4.18", 0, true));
    assert_eq!(uneven.risk, Risk::Note);
    assert_eq!(
        advice("uneven_reuse", &on("6.12.1", 1, true)).commands,
        ["sysctl -w net.ipv4.vs.conn_reuse_mode=1"]
    );
}

#[test]
fn who_sets_it_back_is_named() {
    let why = |kinds: &[ControllerKind], release: &str| {
        let mut facts = with_modes(0, 0, 0);
        facts.controllers = controlled_by(kinds);
        facts.kernel.release = Fact::Known(release.to_owned());
        advice("stale_reuse", &facts).why
    };
    assert!(why(&[ControllerKind::KubeRouter], "6.12").contains("will set it back"));
    assert!(why(&[ControllerKind::DockerSwarm], "6.12").contains("Docker Swarm sets"));
    assert!(why(&[ControllerKind::KubeProxy], "6.12").contains("leaves it alone from then on"));
    assert!(why(&[ControllerKind::KubeProxy], "4.18.0-1.el8").contains("says little"));
    assert!(!why(&[], "6.12").contains("kube"));
}

#[test]
fn what_makes_a_change_last_depends_on_who_runs_here() {
    let places = |kinds: &[ControllerKind]| {
        let mut facts = with_modes(0, 0, 0);
        facts.controllers = controlled_by(kinds);
        let lasting = advice("stale_reuse", &facts).lasting;
        lasting.into_iter().map(|l| l.place).collect::<Vec<_>>()
    };
    assert_eq!(
        places(&[]),
        [
            "/etc/modules-load.d/ip_vs.conf",
            "/etc/sysctl.d/90-ipvs.conf"
        ]
    );
    assert!(places(&[ControllerKind::KubeProxy])[0].starts_with("DaemonSet kube-proxy"));
    assert!(places(&[ControllerKind::KubeRouter])[0].starts_with("DaemonSet kube-router"));
    assert_eq!(
        places(&[ControllerKind::Keepalived])[2],
        "/etc/systemd/system/keepalived.service.d/ipvs.conf"
    );
}

#[test]
fn in_another_namespace_commands_enter_it() {
    let mut facts = with_modes(0, 0, 0);
    facts.netns[0].path = Some("/run/docker/netns/ingress_sbox".to_owned());
    let advice = advice("stale_reuse", &facts);
    assert_eq!(
        advice.commands,
        ["nsenter --net=/run/docker/netns/ingress_sbox sysctl -w net.ipv4.vs.conn_reuse_mode=1"]
    );
    let unit = &advice.lasting[0];
    assert!(unit.place.contains("docker.service.d"), "{}", unit.place);
    assert!(unit.text.contains("ExecStartPost=-"), "{}", unit.text);
}

#[test]
fn persistence_is_judged_where_services_have_it() {
    let persistent = |template: &str, services| {
        with_netns(|netns| {
            if let (Fact::Known(sysctls), Fact::Known(table)) =
                (&mut netns.sysctls, &mut netns.table)
            {
                sysctls.insert("expire_quiescent_template".to_owned(), template.to_owned());
                table.persistent = services;
            }
        })
    };
    does_not_apply("stale_persistence", &persistent("0", 0), "no service");
    is_ok("stale_persistence", &persistent("1", 2));
    let found = advice("stale_persistence", &persistent("0", 2));
    assert_eq!(
        gist(&found),
        (
            Risk::Medium,
            Sure::Configured,
            vec!["sysctl -w net.ipv4.vs.expire_quiescent_template=1"]
        )
    );
    let seen = with_seen(persistent("0", 2), |seen| {
        seen.stale.insert("persistence".to_owned(), 1);
    });
    let seen = advice("stale_persistence", &seen);
    assert!(
        seen.found
            .ends_with("seen once since the settings last changed")
    );
}

#[test]
fn conntrack_matters_where_connections_are_tracked() {
    let tracked = |count, stateful, loaded| {
        let mut facts = with_modes(1, 1, 1);
        facts.nf_conntrack = Fact::Known(loaded);
        facts.netns[0].conntrack.count = Fact::Known(count);
        facts.netns[0].rules = Fact::Known(Firewall {
            stateful,
            ..Firewall::default()
        });
        facts
    };
    does_not_apply("syn_drop", &tracked(5, 5, false), "no effect");
    does_not_apply("syn_drop", &tracked(0, 0, true), "no effect");
    for facts in [tracked(1, 0, true), tracked(0, 1, true)] {
        assert_eq!(
            gist(&advice("syn_drop", &facts)),
            (
                Risk::Low,
                Sure::Configured,
                vec!["sysctl -w net.ipv4.vs.conntrack=0"]
            )
        );
    }
    let mut no_tools = tracked(0, 0, true);
    no_tools.netns[0].rules = Fact::Unknown("no nft here".to_owned());
    is_unknown("syn_drop", &no_tools, "no nft here");
}

#[test]
fn what_needs_conntrack_keeps_it() {
    let mut facts = with_modes(1, 1, 1);
    facts.controllers = controlled_by(&[ControllerKind::KubeProxy]);
    let note = advice("syn_drop", &facts);
    assert_eq!(gist(&note), (Risk::Note, Sure::Configured, Vec::new()));
    assert!(note.want.contains("kube-proxy needs conntrack=1"));
    assert!(!judge("syn_drop", &facts).is_hazard());
}

#[test]
fn old_kernels_drop_at_every_reuse() {
    let on = |release: &str, seen: &[(&str, u64)], controllers: &[ControllerKind]| {
        let mut facts = with_modes(1, 1, 0);
        facts.kernel.release = Fact::Known(release.to_owned());
        facts.controllers = controlled_by(controllers);
        with_seen(facts, |counts| {
            for (word, count) in seen {
                let counts = match *word {
                    "rescheduled" => &mut counts.decisions,
                    _ => &mut counts.syn_drops,
                };
                counts.insert((*word).to_owned(), *count);
            }
        })
    };
    let old = on("5.4.18", &[], &[]);
    assert_eq!(
        gist(&advice("syn_drop", &old)),
        (
            Risk::High,
            Sure::Configured,
            vec!["sysctl -w net.ipv4.vs.conntrack=0"]
        )
    );
    let kube = on("5.4.18", &[], &[ControllerKind::KubeProxy]);
    assert_eq!(
        advice("syn_drop", &kube).commands,
        [
            "sysctl -w net.ipv4.vs.conn_reuse_mode=0",
            "sysctl -w net.ipv4.vs.expire_nodest_conn=1"
        ]
    );
    let vendor = "4.18.0-553.el8.x86_64";
    let unsure = advice("syn_drop", &on(vendor, &[], &[]));
    assert_eq!((unsure.risk, unsure.sure), (Risk::Medium, Sure::Unknown));
    let seen = advice("syn_drop", &on(vendor, &[("ipvs_reuse", 3)], &[]));
    assert_eq!((seen.risk, seen.sure), (Risk::High, Sure::Observed));
    is_ok("syn_drop", &on(vendor, &[("rescheduled", 3)], &[]));
    is_ok("syn_drop", &on("6.12.1", &[], &[]));
    // A new release with the behaviour of an old one: what is seen wins.
    let rebuilt = advice("syn_drop", &on("6.12.1", &[("ipvs_reuse", 1)], &[]));
    assert_eq!((rebuilt.risk, rebuilt.sure), (Risk::High, Sure::Observed));
    let both = [("ipvs_reuse", 1), ("rescheduled", 1)];
    is_ok("syn_drop", &on("6.12.1", &both, &[]));
}

#[test]
fn few_drops_with_nodest_are_those_of_clients_that_vanished() {
    let dropped = |count| {
        with_seen(with_modes(1, 1, 1), |seen| {
            seen.syn_drops.insert("ipvs_reuse".to_owned(), count);
        })
    };
    assert_eq!(advice("syn_drop", &dropped(19)).risk, Risk::Low);
    assert_eq!(advice("syn_drop", &dropped(20)).risk, Risk::High);
}

#[test]
fn removed_servers() {
    let tcp = advice("removed_server", &with_modes(1, 0, 0));
    assert_eq!(
        gist(&tcp),
        (
            Risk::Medium,
            Sure::Configured,
            vec!["sysctl -w net.ipv4.vs.expire_nodest_conn=1"]
        )
    );
    assert!(!tcp.why.contains("UDP client"));
    let mut udp = with_modes(1, 0, 0);
    if let Fact::Known(table) = &mut udp.netns[0].table {
        table.services.insert("UDP".to_owned(), 1);
    }
    assert!(advice("removed_server", &udp).why.contains("up to 300 s"));
    udp.netns[0].timeouts = Fact::default();
    let why = advice("removed_server", &udp).why;
    assert!(why.contains("as long as IPVS's UDP timeout"), "{why}");
    let seen = with_seen(with_modes(1, 0, 0), |seen| {
        seen.syn_drops.insert("ipvs_removed".to_owned(), 4);
    });
    assert_eq!(advice("removed_server", &seen).sure, Sure::Observed);
}

#[test]
fn idle_timeouts() {
    let idle = |forgotten_after, keepalive| {
        with_netns(|netns| {
            netns.timeouts = Fact::Known(Timeouts {
                tcp_seconds: forgotten_after,
                tcp_fin_seconds: 120,
                udp_seconds: 300,
            });
            netns.tcp_keepalive_seconds = Fact::Known(keepalive);
        })
    };
    let found = advice("idle_timeout", &idle(900, 7_200));
    assert_eq!(found.risk, Risk::Note);
    assert_eq!(
        found.found,
        "IPVS forgets a TCP connection after 900 s without a packet; net.ipv4.tcp_keepalive_time \
         is 7200 s"
    );
    assert_eq!(found.commands, ["ipvsadm --set 7260 0 0"]);
    assert_eq!(found.undo, ["ipvsadm --set 900 0 0"]);
    assert_eq!(advice("idle_timeout", &idle(900, 900)).risk, Risk::Note);
    is_ok("idle_timeout", &idle(901, 900));
    does_not_apply(
        "idle_timeout",
        &with_netns(|netns| {
            if let Fact::Known(table) = &mut netns.table {
                table.services = [("UDP".to_owned(), 1)].into();
            }
        }),
        "UDP",
    );
    let mut unknown = idle(900, 7_200);
    unknown.netns[0].tcp_keepalive_seconds = Fact::default();
    assert!(judge("idle_timeout", &unknown).advice().is_none());
}

#[test]
fn udp_timeouts() {
    let udp = |seconds, one_packet, controllers: &[ControllerKind]| {
        let mut facts = with_netns(|netns| {
            if let Fact::Known(table) = &mut netns.table {
                table.services.insert("UDP".to_owned(), 2);
                table.one_packet = one_packet;
            }
            netns.timeouts = Fact::Known(Timeouts {
                tcp_seconds: 900,
                tcp_fin_seconds: 120,
                udp_seconds: seconds,
            });
        });
        facts.controllers = controlled_by(controllers);
        facts
    };
    let found = advice("udp_timeout", &udp(300, 1, &[]));
    assert_eq!(
        gist(&found),
        (Risk::Low, Sure::Configured, vec!["ipvsadm --set 0 0 60"])
    );
    assert_eq!(found.undo, ["ipvsadm --set 0 0 300"]);
    is_ok("udp_timeout", &udp(60, 0, &[]));
    does_not_apply("udp_timeout", &udp(300, 2, &[]), "every packet");
    let kube_proxy = [ControllerKind::KubeProxy];
    does_not_apply("udp_timeout", &udp(300, 0, &kube_proxy), "at once");
    let both = [ControllerKind::KubeProxy, ControllerKind::Keepalived];
    assert_eq!(advice("udp_timeout", &udp(300, 0, &both)).risk, Risk::Low);
}

#[test]
fn a_table_of_connections_that_fills_up() {
    let filled = |count, max, buckets, drop| {
        with_netns(|netns| {
            netns.conntrack = Conntrack {
                count: Fact::Known(count),
                max: Fact::Known(max),
                buckets: Fact::Known(buckets),
                drop: Fact::Known(drop),
                insert_failed: Fact::Known(0),
            };
        })
    };
    is_ok("conntrack_full", &filled(749, 1000, 1000, 9));
    is_ok("conntrack_full", &filled(749, 0, 1000, 9));
    let medium = advice("conntrack_full", &filled(750, 1000, 1000, 0));
    assert_eq!(
        gist(&medium),
        (
            Risk::Medium,
            Sure::Configured,
            vec!["sysctl -w net.netfilter.nf_conntrack_max=2000"]
        )
    );
    let high = advice("conntrack_full", &filled(900, 1000, 100, 0));
    assert_eq!((high.risk, high.sure), (Risk::High, Sure::Configured));
    assert_eq!(
        high.commands[1],
        "echo 500 > /sys/module/nf_conntrack/parameters/hashsize"
    );
    assert_eq!(
        high.undo,
        [
            "echo 100 > /sys/module/nf_conntrack/parameters/hashsize",
            "sysctl -w net.netfilter.nf_conntrack_max=1000"
        ]
    );
    let seen = advice("conntrack_full", &filled(750, 1000, 1000, 3));
    assert_eq!((seen.risk, seen.sure), (Risk::High, Sure::Observed));
    let mut kube = filled(900, 1000, 1000, 0);
    kube.controllers = controlled_by(&[ControllerKind::KubeProxy]);
    let lasting = advice("conntrack_full", &kube).lasting;
    assert!(lasting[0].text.contains("maxPerCore"), "{lasting:?}");
    let absent = with(|f| f.nf_conntrack = Fact::Known(false));
    does_not_apply("conntrack_full", &absent, "not loaded");
    does_not_apply("conntrack_insert", &absent, "not loaded");
}

#[test]
fn failed_insertions_are_a_note() {
    let failed = |rules: &[&str]| {
        with_netns(|netns| {
            netns.conntrack.insert_failed = Fact::Known(5);
            netns.rules = Fact::Known(Firewall {
                stateful: 1,
                masquerades: rules.iter().map(|rule| (*rule).to_owned()).collect(),
            });
        })
    };
    let plain = advice("conntrack_insert", &failed(&["masquerade"]));
    assert_eq!(gist(&plain), (Risk::Note, Sure::Observed, Vec::new()));
    assert!(plain.want.starts_with("--random-fully"), "{}", plain.want);
    let random = advice("conntrack_insert", &failed(&["masquerade fully-random"]));
    assert!(random.want.starts_with("fewer flows"), "{}", random.want);
}

#[test]
fn served_ports_in_the_port_range() {
    let served = |listeners: &[(&str, u16)], services: &[u16], reserved: &[PortRange]| {
        with_netns(|netns| {
            netns.ports = Ports {
                range: Fact::Known(PortRange(32768, 60999)),
                reserved: Fact::Known(reserved.to_vec()),
                listeners: Fact::Known(
                    listeners
                        .iter()
                        .map(|(address, port)| Listener {
                            address: (*address).to_owned(),
                            port: *port,
                        })
                        .collect(),
                ),
            };
            if let Fact::Known(table) = &mut netns.table {
                table.ports = services.to_vec();
            }
        })
    };
    is_ok("ports_taken", &served(&[("0.0.0.0", 80)], &[443], &[]));
    // Most often given by the kernel.
    is_ok(
        "ports_taken",
        &served(&[("127.0.0.1", 40_000), ("::1", 40_000)], &[], &[]),
    );
    is_ok(
        "ports_taken",
        &served(&[("::", 40_000)], &[], &[PortRange(39_000, 40_000)]),
    );
    let found = advice(
        "ports_taken",
        &served(
            &[("::", 40_000), ("::", 40_001)],
            &[50_000],
            &[PortRange(8_080, 8_080), PortRange(39_998, 39_999)],
        ),
    );
    assert_eq!(
        gist(&found),
        (
            Risk::Low,
            Sure::Configured,
            vec!["sysctl -w net.ipv4.ip_local_reserved_ports=8080,39998-40001,50000"]
        )
    );
    assert_eq!(
        found.undo,
        ["sysctl -w net.ipv4.ip_local_reserved_ports=8080,39998-39999"]
    );
    let many: Vec<u16> = (40_000..40_020).collect();
    let many = advice("ports_taken", &served(&[], &many, &[]));
    assert!(many.found.ends_with("40007, and 12 more"), "{}", many.found);
}

#[test]
fn a_small_port_range() {
    let ranged = |from, to, reserved: &[PortRange]| {
        with_netns(|netns| {
            netns.ports.range = Fact::Known(PortRange(from, to));
            netns.ports.reserved = Fact::Known(reserved.to_vec());
        })
    };
    is_ok("ports_few", &ranged(32_768, 60_999, &[]));
    is_ok("ports_few", &ranged(1, 65_535, &[]));
    let few = advice("ports_few", &ranged(32_768, 33_967, &[]));
    assert_eq!(
        gist(&few),
        (
            Risk::Low,
            Sure::Configured,
            vec!["sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\""]
        )
    );
    assert!(few.why.contains("more than 10 connections"), "{}", few.why);
    let reserved = ranged(32_768, 60_999, &[PortRange(30_000, 50_000)]);
    assert!(
        advice("ports_few", &reserved)
            .found
            .starts_with("10999 ports")
    );
}

#[test]
fn masquerading_hides_clients() {
    let rules = |masquerades: &[&str]| {
        with_netns(|netns| {
            netns.rules = Fact::Known(Firewall {
                stateful: 1,
                masquerades: masquerades.iter().map(|rule| (*rule).to_owned()).collect(),
            });
        })
    };
    does_not_apply("shared_address", &rules(&[]), "no rule masquerades");
    let note = advice(
        "shared_address",
        &rules(&["-s 172.17.0.0/16 -j MASQUERADE"]),
    );
    assert_eq!(note.risk, Risk::Note);
    assert!(note.found.contains("172.17.0.0/16"), "{}", note.found);
}

#[test]
fn accept_queues() {
    let queues = |somaxconn, overflows| {
        with_netns(|netns| {
            netns.queues = Queues {
                somaxconn: Fact::Known(somaxconn),
                overflows: Fact::Known(overflows),
            };
        })
    };
    is_ok("accept_queue", &queues(4096, 0));
    let note = advice("accept_queue", &queues(4096, 3));
    assert_eq!(gist(&note), (Risk::Note, Sure::Observed, Vec::new()));
    let low = advice("accept_queue", &queues(128, 0));
    assert_eq!(
        gist(&low),
        (
            Risk::Low,
            Sure::Configured,
            vec!["sysctl -w net.core.somaxconn=4096"]
        )
    );
    assert_eq!(advice("accept_queue", &queues(128, 3)).sure, Sure::Observed);
}

#[test]
fn estimation_of_large_tables() {
    let large = |release: &str, switch: Option<&str>, real_servers| {
        let mut facts = with_netns(|netns| {
            if let (Fact::Known(sysctls), Fact::Known(table)) =
                (&mut netns.sysctls, &mut netns.table)
            {
                sysctls.extend(switch.map(|on| ("run_estimation".to_owned(), on.to_owned())));
                table.real_servers = real_servers;
            }
        });
        facts.kernel.release = Fact::Known(release.to_owned());
        facts
    };
    is_ok("estimation", &large("6.12.1", Some("1"), 100_000));
    is_ok("estimation", &large("5.10.1", None, 4_999));
    let old = advice("estimation", &large("5.10.1", None, 5_000));
    assert_eq!(gist(&old), (Risk::Medium, Sure::Unknown, Vec::new()));
    let vendor = advice("estimation", &large("5.10.134-14.al8", Some("1"), 5_000));
    assert_eq!(vendor.commands, ["sysctl -w net.ipv4.vs.run_estimation=0"]);
    let off = advice("estimation", &large("6.12.1", Some("0"), 1));
    assert_eq!(off.risk, Risk::Note);
    let odd = large("6.12.1", Some("maybe"), 1);
    is_unknown("estimation", &odd, "\"maybe\", which is no number");
}

fn kube_proxy(asked: &str, actual: &str, missing: &[&str]) -> Facts {
    with(|facts| {
        facts.controllers = controlled_by(&[ControllerKind::KubeProxy]);
        facts.kube_proxy = Some(KubeProxy {
            asked_mode: Fact::Known(asked.to_owned()),
            actual_mode: Fact::Known(actual.to_owned()),
            tools: Fact::Known(
                ["conntrack", "ipset"]
                    .map(|name| {
                        let tool = if missing.contains(&name) {
                            Tool::Missing
                        } else {
                            Tool::At(format!("/usr/sbin/{name}"))
                        };
                        (name.to_owned(), tool)
                    })
                    .into(),
            ),
        });
    })
}

#[test]
fn kube_proxy_and_its_tools() {
    is_ok("kube_proxy_tools", &kube_proxy("ipvs", "ipvs", &[]));
    let missing = kube_proxy("ipvs", "ipvs", &["conntrack", "ipset"]);
    let missing = advice("kube_proxy_tools", &missing);
    assert_eq!(missing.risk, Risk::Medium);
    assert!(missing.found.starts_with("conntrack and ipset not found"));
    for id in ["kube_proxy_tools", "kube_proxy_mode", "ipvs_mode_end"] {
        does_not_apply(id, &fit(), "kube-proxy was not found");
    }
}

#[test]
fn kube_proxy_and_its_mode() {
    is_ok("kube_proxy_mode", &kube_proxy("ipvs", "ipvs", &[]));
    let fallen_back = advice("kube_proxy_mode", &kube_proxy("ipvs", "iptables", &[]));
    assert_eq!(
        (fallen_back.risk, fallen_back.sure),
        (Risk::High, Sure::Observed)
    );
    assert!(fallen_back.commands[0].starts_with("modprobe -a ip_vs"));
    assert!(fallen_back.commands[1].ends_with("spec.nodeName=node-1"));
    does_not_apply(
        "kube_proxy_mode",
        &kube_proxy("", "iptables", &[]),
        "no mode",
    );
    let nftables = kube_proxy("nftables", "nftables", &[]);
    does_not_apply("kube_proxy_mode", &nftables, "asked for nftables");
    does_not_apply("ipvs_mode_end", &nftables, "not in IPVS mode");
}

#[test]
fn the_end_of_ipvs_mode_comes_with_evidence() {
    let mut facts = kube_proxy("ipvs", "ipvs", &[]);
    let note = advice("ipvs_mode_end", &facts);
    assert_eq!(note.risk, Risk::Note);
    assert_eq!(
        note.found,
        "kube-proxy in IPVS mode; of this node: kernel fit for nftables mode; no scheduler but rr \
         in use, so none would be missed; reuse faults not measured (no agent asked)"
    );
    facts.kernel = Kernel {
        release: Fact::Known("5.10.0-8".to_owned()),
        ..Kernel::default()
    };
    if let Fact::Known(table) = &mut facts.netns[0].table {
        table.schedulers.insert("lc".to_owned(), 1);
    }
    let facts = with_seen(facts, |seen| {
        seen.stale.insert("port_reuse".to_owned(), 3);
        seen.syn_drops = [("ipvs_reuse".to_owned(), 2), ("netfilter".to_owned(), 9)].into();
    });
    assert_eq!(
        advice("ipvs_mode_end", &facts).found,
        "kube-proxy in IPVS mode; of this node: kernel too old for nftables mode, which needs \
         5.13; schedulers in use that nftables mode does not have: lc; measured: 3 connections \
         to stale real servers, 2 SYNs dropped by IPVS"
    );
    // Asked for, while what it is in is not known.
    let mut unanswered = kube_proxy("ipvs", "", &[]);
    if let Some(kube_proxy) = &mut unanswered.kube_proxy {
        kube_proxy.actual_mode = Fact::default();
    }
    assert_eq!(advice("ipvs_mode_end", &unanswered).risk, Risk::Note);
    is_unknown("kube_proxy_mode", &unanswered, "mode kube-proxy is in");
}

#[test]
fn what_was_seen_elsewhere_says_nothing_here() {
    let mut facts = with_modes(0, 0, 0);
    let elsewhere = Seen {
        stale: [("port_reuse".to_owned(), 1)].into(),
        ..Seen::default()
    };
    facts.observed = Fact::Known(Observed {
        source: "x".to_owned(),
        by_netns: [(1, elsewhere)].into(),
    });
    assert_eq!(advice("stale_reuse", &facts).sure, Sure::Configured);
}

#[test]
fn every_rule_has_its_section() {
    let document = include_str!("../../../../docs/doctor.md");
    let sections: Vec<_> = document
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    let ids: Vec<_> = RULES.iter().map(|rule| rule.id).collect();
    assert_eq!(sections, ids);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
}
