use expect_test::expect;
use proptest::prelude::*;

use super::super::facts::{Controller, ControllerKind, Fact, IpVs, Table};
use super::super::rules::prerequisites;
use super::super::testing::{any_facts, features_without, fit, with, with_netns, with_seen};
use super::*;
use crate::kernel::features::Feature;

fn text(facts: &Facts) -> String {
    let mut text = String::new();
    Report::of(facts).text(&mut text).unwrap();
    text
}

/// A report without the table of features, which is part of the one of a fit node.
fn without_features(report: &str) -> String {
    let (before, rest) = report.split_once("\nwhat this kernel offers\n").unwrap();
    let (_, after) = rest.split_once("\n\n").unwrap();
    format!("{before}\n{after}")
}

fn set(facts: &mut Facts, name: &str, value: &str) {
    if let Fact::Known(sysctls) = &mut facts.netns[0].sysctls {
        sysctls.insert(name.to_owned(), value.to_owned());
    }
}

/// kube-router's settings, seen to do harm, in its own namespace.
fn ill() -> Facts {
    let mut facts = with_seen(fit(), |seen| {
        seen.stale.insert("port_reuse".to_owned(), 12);
    });
    set(&mut facts, "conn_reuse_mode", "0");
    set(&mut facts, "expire_nodest_conn", "0");
    facts.controllers = Fact::Known(vec![Controller {
        kind: ControllerKind::KubeRouter,
        evidence: vec!["process 7 kube-router".to_owned()],
    }]);
    facts
}

#[test]
fn the_text_of_a_fit_node() {
    expect![[r#"
        node-1 6.12.1
        no manager of IPVS was recognised
        decisions were not observed: no agent was asked

        ok              mounts              procfs and sysfs are mounted
        ok              kernel              the kernel has what the programs need
        ok              btf                 the kernel describes its own types (BTF)
        ok              kprobes             the kernel can be probed
        ok              rights              this process may attach to the kernel
        ok              lockdown            the kernel lets BPF programs read its memory
        ok              limits              the resource limits of this process are high enough
        ok              ip_vs               ip_vs is loaded
        ok              ip_vs_btf           the structures of ip_vs are known
        ok              stale_reuse         a reused source port does not follow its old entry to a stale real server
        ok              syn_drop            IPVS does not drop the SYN of a reused source port
        ok              removed_server      clients of a removed real server get another one
        ok              idle_timeout        idle TCP connections send keepalives before IPVS forgets them
        ok              uneven_reuse        reused source ports are scheduled like new ones
        ok              conntrack_full      there is room in the connection tracking table
        ok              conntrack_insert    no connection was lost to a clash of translated addresses
        ok              ports_taken         no port that is served can be taken by an outgoing connection
        ok              ports_few           clients on this node have ports enough
        ok              accept_queue        accept queues may be long enough
        ok              estimation          counting statistics does not stall the node
        not applicable  stale_persistence   no service is persistent
        not applicable  udp_timeout         no UDP service, but for those that schedule every packet
        not applicable  growing_table       the table of connections has one size on this kernel
        not applicable  shared_address      no rule masquerades
        not applicable  kube_proxy_tools    kube-proxy was not found here
        not applicable  kube_proxy_mode     kube-proxy was not found here
        not applicable  ipvs_mode_end       kube-proxy was not found here

        what this kernel offers
          types of the kernel (BTF)       yes
          types of ip_vs                  yes
          programs on kprobes             yes
          programs on raw tracepoints     yes
          global data of programs         yes
          loops with a bound              yes
          helpers of the programs         yes
          ring buffers                    yes
          fexit on functions of ip_vs     yes
          reasons of dropped packets      yes
          programs run without an event   yes

        nothing to do
    "#]].assert_eq(&text(&fit()));
}

#[test]
fn the_text_of_an_ill_node() {
    expect![[r#"
        node-1 6.12.1
        IPVS is managed by kube-router (process 7 kube-router)
        decisions as observed by the agent at 127.0.0.1:9742

        HIGH stale_reuse (observed)
          found  conn_reuse_mode=0 and expire_nodest_conn=0; seen 12 times since the settings last changed
          want   conn_reuse_mode=1
          why    IPVS keeps an entry for two minutes after a connection was closed; a client whose source port comes back in that time is sent to the real server of the old entry, also when its weight is 0 or it is gone: errors during every rollout. kube-router sets conn_reuse_mode=0 on every kernel and will set it back.
          run    sysctl -w net.ipv4.vs.conn_reuse_mode=1
          undo   sysctl -w net.ipv4.vs.conn_reuse_mode=0
          keep   in DaemonSet kube-router, its container (needs securityContext.privileged):
                   lifecycle:
                     postStart:
                       exec:
                         command: [sh, -c, 'until test -d /sys/class/net/kube-dummy-if; do sleep 1; done; sysctl -w net.ipv4.vs.conn_reuse_mode=1']
          more   docs/doctor.md#stale_reuse

        MEDIUM removed_server (configured)
          found  expire_nodest_conn=0
          want   expire_nodest_conn=1
          why    entries of a real server that was taken out of its service live on, and IPVS drops every packet that meets one without a word to the client. With conntrack=1 one packet per entry is still lost, which is the lesser evil.
          run    sysctl -w net.ipv4.vs.expire_nodest_conn=1
          undo   sysctl -w net.ipv4.vs.expire_nodest_conn=0
          keep   in DaemonSet kube-router, its container (needs securityContext.privileged):
                   lifecycle:
                     postStart:
                       exec:
                         command: [sh, -c, 'until test -d /sys/class/net/kube-dummy-if; do sleep 1; done; sysctl -w net.ipv4.vs.expire_nodest_conn=1']
          more   docs/doctor.md#removed_server

        LOW uneven_reuse (configured)
          found  conn_reuse_mode=0
          want   conn_reuse_mode=1
          why    a source port that comes back follows its old entry past the scheduler: busy clients stay on the real servers they know, and one that was added gets next to nothing until they pause for two minutes. kube-router sets conn_reuse_mode=0 on every kernel and will set it back.
          run    sysctl -w net.ipv4.vs.conn_reuse_mode=1
          undo   sysctl -w net.ipv4.vs.conn_reuse_mode=0
          keep   in DaemonSet kube-router, its container (needs securityContext.privileged):
                   lifecycle:
                     postStart:
                       exec:
                         command: [sh, -c, 'until test -d /sys/class/net/kube-dummy-if; do sleep 1; done; sysctl -w net.ipv4.vs.conn_reuse_mode=1']
          more   docs/doctor.md#uneven_reuse

        ok              mounts              procfs and sysfs are mounted
        ok              kernel              the kernel has what the programs need
        ok              btf                 the kernel describes its own types (BTF)
        ok              kprobes             the kernel can be probed
        ok              rights              this process may attach to the kernel
        ok              lockdown            the kernel lets BPF programs read its memory
        ok              limits              the resource limits of this process are high enough
        ok              ip_vs               ip_vs is loaded
        ok              ip_vs_btf           the structures of ip_vs are known
        ok              syn_drop            IPVS does not drop the SYN of a reused source port
        ok              idle_timeout        idle TCP connections send keepalives before IPVS forgets them
        ok              conntrack_full      there is room in the connection tracking table
        ok              conntrack_insert    no connection was lost to a clash of translated addresses
        ok              ports_taken         no port that is served can be taken by an outgoing connection
        ok              ports_few           clients on this node have ports enough
        ok              accept_queue        accept queues may be long enough
        ok              estimation          counting statistics does not stall the node
        not applicable  stale_persistence   no service is persistent
        not applicable  udp_timeout         no UDP service, but for those that schedule every packet
        not applicable  growing_table       the table of connections has one size on this kernel
        not applicable  shared_address      no rule masquerades
        not applicable  kube_proxy_tools    kube-proxy was not found here
        not applicable  kube_proxy_mode     kube-proxy was not found here
        not applicable  ipvs_mode_end       kube-proxy was not found here

        problems found, see above
    "#]].assert_eq(&without_features(&text(&ill())));
}

#[test]
fn the_json() {
    let facts = ill();
    let report = Report::of(&facts);
    let mut json = serde_json::to_value(&report).unwrap();
    let entries = json["verdicts"].as_array().unwrap();
    assert_eq!(
        entries.len(),
        RULES.len(),
        "one namespace: one verdict per rule"
    );
    let one = |word: &str| {
        let found = entries.iter().find(|entry| entry["verdict"] == word);
        serde_json::to_string_pretty(found.unwrap()).unwrap()
    };
    expect![[r#"
        {
          "commands": [
            "sysctl -w net.ipv4.vs.conn_reuse_mode=1"
          ],
          "doc": "docs/doctor.md#stale_reuse",
          "found": "conn_reuse_mode=0 and expire_nodest_conn=0; seen 12 times since the settings last changed",
          "id": "stale_reuse",
          "lasting": [
            {
              "place": "DaemonSet kube-router, its container (needs securityContext.privileged)",
              "text": "lifecycle:\n  postStart:\n    exec:\n      command: [sh, -c, 'until test -d /sys/class/net/kube-dummy-if; do sleep 1; done; sysctl -w net.ipv4.vs.conn_reuse_mode=1']"
            }
          ],
          "netns": {
            "id": 4026531840,
            "path": null
          },
          "risk": "high",
          "sure": "observed",
          "title": "a reused source port does not follow its old entry to a stale real server",
          "undo": [
            "sysctl -w net.ipv4.vs.conn_reuse_mode=0"
          ],
          "verdict": "advise",
          "want": "conn_reuse_mode=1",
          "why": "IPVS keeps an entry for two minutes after a connection was closed; a client whose source port comes back in that time is sent to the real server of the old entry, also when its weight is 0 or it is gone: errors during every rollout. kube-router sets conn_reuse_mode=0 on every kernel and will set it back."
        }"#]].assert_eq(&one("advise"));
    expect![[r#"
        {
          "doc": "docs/doctor.md#mounts",
          "id": "mounts",
          "netns": null,
          "title": "procfs and sysfs are mounted",
          "verdict": "ok"
        }"#]]
    .assert_eq(&one("ok"));
    expect![[r#"
        {
          "doc": "docs/doctor.md#stale_persistence",
          "id": "stale_persistence",
          "netns": {
            "id": 4026531840,
            "path": null
          },
          "title": "a persistent client leaves a real server of weight 0",
          "verdict": "not_applicable",
          "why": "no service is persistent"
        }"#]]
    .assert_eq(&one("not_applicable"));
    let rest = json.as_object_mut().unwrap();
    rest.remove("verdicts");
    rest.remove("facts");
    assert_eq!(json, serde_json::json!({"version": 1, "exit_status": 1}));
}

#[test]
fn exit_statuses() {
    let status = |facts: &Facts| Report::of(facts).exit_status;
    assert_eq!(status(&fit()), 0);
    assert_eq!(status(&ill()), 1);
    // A note is no advice to act on.
    let noted = with_netns(|netns| netns.queues.overflows = Fact::Known(1));
    assert_eq!(status(&noted), 0);
    let no_btf = with(|facts| {
        facts.kernel.features = Fact::Known(features_without(&[Feature::KernelTypes]));
    });
    assert_eq!(status(&no_btf), 3);
    // Unknown, and nothing else to say.
    let blind = with_netns(|netns| netns.sysctls = Fact::default());
    assert_eq!(status(&blind), 3);
    // Unknown, and advice all the same.
    let mut half_blind = ill();
    half_blind.netns[0].table = Fact::default();
    half_blind.ip_vs = Fact::Known(IpVs::Absent);
    assert_eq!(status(&half_blind), 1);
    // Hints are welcome, not owed.
    let no_ports = with_netns(|netns| netns.ports.range = Fact::default());
    assert_eq!(status(&no_ports), 0);
    assert_eq!(status(&Facts::default()), 3);
}

#[test]
fn every_namespace_has_its_verdicts() {
    let mut facts = ill();
    let mut other = facts.netns[0].clone();
    other.id = 7;
    other.path = Some("/run/netns/lb".to_owned());
    other.table = Fact::Known(Table::default());
    facts.netns.push(other);
    let report = Report::of(&facts);
    let mut of_rule = report
        .verdicts
        .iter()
        .filter(|entry| entry.id == "stale_reuse");
    let own = of_rule.next().unwrap();
    assert!(own.verdict.is_hazard());
    let other = of_rule.next().unwrap();
    assert_eq!(other.netns.as_ref().unwrap().id, 7);
    assert!(matches!(other.verdict, Verdict::NotApplicable { .. }));
    assert!(text(&facts).contains("stale_reuse        in /run/netns/lb"));
}

proptest! {
    #[test]
    fn any_facts_can_be_reported_saved_and_judged_again(facts in any_facts()) {
        let saved = serde_json::to_string(&facts).unwrap();
        let read = Facts::parse(&saved).unwrap();
        prop_assert_eq!(&read, &facts);
        prop_assert_eq!(text(&read), text(&facts));
        let json = serde_json::to_value(Report::of(&facts)).unwrap();
        prop_assert_eq!(json["exit_status"].as_u64(), Some(u64::from(Report::of(&facts).exit_status)));
    }

    /// `run` refuses a node by [`prerequisites`], `doctor` by its report.
    #[test]
    fn run_and_doctor_judge_a_node_alike(facts in any_facts()) {
        let report = Report::of(&facts);
        let refusal = prerequisites(&facts).err().map(|refusal| refusal.to_string());
        let text = text(&facts);
        let last = text.lines().last().filter(|line| line.starts_with("cannot observe this node: "));
        prop_assert_eq!(refusal.as_deref(), last);
        prop_assert_eq!(refusal.is_some(), report.verdicts.iter().any(Entry::is_hindrance));
        prop_assert!(refusal.is_none() || report.exit_status == 3);
    }
}
