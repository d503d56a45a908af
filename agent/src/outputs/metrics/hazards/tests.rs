use std::sync::Arc;

use agent_common::count::{CountKey, TALLY_ATTEMPT, TALLY_SYN_DROP};
use agent_common::key::{FAMILY_IPV4, RealServerKey, ServiceKey};
use agent_common::verdict::{Decision, DropCause, StaleCause};
use agent_core::doctor::facts::{Fact, Facts, Seen};

use super::super::form::Form;
use super::super::{BuildInfo, Metrics};
use super::*;
use crate::doctor::testing::{NETNS, fit};

/// A node whose facts the test changes.
#[derive(Clone)]
struct Fake(Arc<Mutex<Facts>>);

impl Fake {
    fn new(facts: Facts) -> Self {
        Self(Arc::new(Mutex::new(facts)))
    }

    fn set(&self, name: &str, value: &str) {
        if let Fact::Known(sysctls) = &mut self.0.lock().unwrap().netns[0].sysctls {
            sysctls.insert(name.to_owned(), value.to_owned());
        }
    }
}

impl FactSource for Fake {
    fn gather(&self) -> Facts {
        self.0.lock().unwrap().clone()
    }

    fn refresh_sysctls(&self, facts: &mut Facts) {
        for (netns, new) in facts.netns.iter_mut().zip(&self.0.lock().unwrap().netns) {
            netns.sysctls = new.sysctls.clone();
        }
    }
}

fn stale(count: u64) -> (CountKey, u64) {
    let key = CountKey {
        service: ServiceKey {
            addr: [0; 16],
            fwmark: 0,
            netns: NETNS,
            port: 80,
            family: FAMILY_IPV4,
            proto: 6,
        },
        real_server: RealServerKey::NONE,
        tally: TALLY_ATTEMPT,
        decision: Decision::ReusedStale as u8,
        cause: StaleCause::PortReuse as u8,
        pad: 0,
    };
    (key, count)
}

fn syn_drop(count: u64) -> (CountKey, u64) {
    let (mut key, _) = stale(0);
    key.tally = TALLY_SYN_DROP;
    key.decision = 0;
    key.cause = DropCause::IpvsReuse as u8;
    (key, count)
}

/// Families of this part as text, with only the lines that hold `word`.
fn lines(hazards: &Arc<Hazards>, word: &str) -> Vec<String> {
    let metrics = Metrics::new(BuildInfo::THIS);
    metrics.add(Arc::clone(hazards) as Arc<dyn Part>);
    // Without a source the scrape itself counts nothing: show what the test counted.
    let mut page = Page::new(hazards.netns().len() > 1);
    hazards.show(&mut page);
    let bytes = super::super::encode::encode(page, Form::Text0).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let lines = text
        .lines()
        .filter(|line| line.contains(word) && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

#[test]
fn every_hazard_is_there_from_the_first_look_on() {
    let hazards = Arc::new(Hazards::new(Fake::new(fit()), SharedStatus::default()));
    assert_eq!(
        lines(&hazards, "ipvs_lens_hazard{hazard=\"stale_reuse\""),
        [""; 0]
    );
    hazards.look();
    let shown = lines(&hazards, "ipvs_lens_hazard");
    let known = RULES.iter().filter(|rule| rule.is_hazard());
    let series: usize = known.map(|rule| 1 + usize::from(rule.seen.is_some())).sum();
    assert_eq!(shown.len(), series);
    assert!(shown.iter().all(|line| line.ends_with(" 0")), "{shown:?}");
    assert_eq!(
        lines(&hazards, "ipvs_lens_sysctl"),
        [
            "ipvs_lens_sysctl{name=\"conn_reuse_mode\"} 1",
            "ipvs_lens_sysctl{name=\"conntrack\"} 0",
            "ipvs_lens_sysctl{name=\"expire_nodest_conn\"} 1",
            "ipvs_lens_sysctl{name=\"expire_quiescent_template\"} 0",
        ]
    );
}

#[test]
fn what_was_seen_counts_until_the_parameters_change() {
    let node = Fake::new(fit());
    node.set("conn_reuse_mode", "0");
    node.set("expire_nodest_conn", "0");
    let status = SharedStatus::default();
    let hazards = Arc::new(Hazards::new(node.clone(), status.clone()));
    hazards.look();
    let shown = |hazards| lines(hazards, "hazard=\"stale_reuse\"");
    let both = |configured: u8, observed: u8| {
        [
            format!(
                "ipvs_lens_hazard{{hazard=\"stale_reuse\",source=\"configured\"}} {configured}"
            ),
            format!("ipvs_lens_hazard{{hazard=\"stale_reuse\",source=\"observed\"}} {observed}"),
        ]
    };
    assert_eq!(shown(&hazards), both(1, 0));
    hazards.counted(&[stale(3).into(), stale(4).into(), syn_drop(2).into()]);
    assert_eq!(shown(&hazards), both(1, 1));
    let seen = &status.get().observed[&NETNS];
    assert_eq!(seen.stale_by("port_reuse"), 7);
    assert_eq!(seen.decided("reused_stale"), 7);
    assert_eq!(seen.dropped_by("ipvs_reuse"), 2);

    // The cure: a new parameter, and the same counts as before.
    node.set("conn_reuse_mode", "1");
    hazards.counted(&[stale(7).into(), syn_drop(2).into()]);
    assert_eq!(shown(&hazards), both(0, 0));
    assert_eq!(status.get().observed[&NETNS], Seen::default());
    // Looking at everything changes nothing about that.
    hazards.look();
    hazards.counted(&[stale(8).into(), syn_drop(2).into()]);
    assert_eq!(status.get().observed[&NETNS].stale_by("port_reuse"), 1);
}

#[test]
fn what_was_not_read_before_a_change_belongs_to_the_old_parameters() {
    let node = Fake::new(fit());
    node.set("conn_reuse_mode", "0");
    node.set("expire_nodest_conn", "0");
    let status = SharedStatus::default();
    let hazards = Hazards::new(node.clone(), status.clone());
    hazards.look();
    // No scrape reads the three stale attempts before the parameter changes and all is looked at.
    node.set("expire_nodest_conn", "1");
    hazards.look();
    hazards.counted(&[stale(3).into()]);
    assert_eq!(status.get().observed[&NETNS], Seen::default());
    hazards.counted(&[stale(4).into()]);
    assert_eq!(status.get().observed[&NETNS].stale_by("port_reuse"), 1);
}

#[test]
fn what_the_rule_calls_healthy_is_not_observed_as_a_hazard() {
    let node = Fake::new(fit());
    let hazards = Arc::new(Hazards::new(node.clone(), SharedStatus::default()));
    hazards.look();
    let (mut reused, _) = stale(0);
    reused.decision = Decision::Reused as u8;
    reused.cause = 0;
    let shown = |hazards| lines(hazards, "hazard=\"uneven_reuse\"");
    let both = |value: u8| {
        ["configured", "observed"].map(|source| {
            format!("ipvs_lens_hazard{{hazard=\"uneven_reuse\",source=\"{source}\"}} {value}")
        })
    };
    // A persistent client that comes back follows its entry whatever `conn_reuse_mode` is.
    hazards.counted(&[(reused, 1).into()]);
    assert_eq!(shown(&hazards), both(0));
    node.set("conn_reuse_mode", "0");
    hazards.counted(&[(reused, 1).into()]);
    hazards.counted(&[(reused, 2).into()]);
    assert_eq!(shown(&hazards), both(1));
}

#[test]
fn parameters_that_appear_are_no_change() {
    let mut absent = fit();
    absent.netns[0].sysctls = Fact::default();
    let node = Fake::new(absent);
    let status = SharedStatus::default();
    let hazards = Hazards::new(node.clone(), status.clone());
    hazards.look();
    *node.0.lock().unwrap() = fit();
    hazards.counted(&[stale(3).into()]);
    assert_eq!(status.get().observed[&NETNS].stale_by("port_reuse"), 3);
}

#[test]
fn namespaces_are_told_apart_where_ipvs_is_in_more_than_one() {
    let mut facts = fit();
    let mut other = facts.netns[0].clone();
    other.id = 7;
    let mut idle = other.clone();
    idle.id = 8;
    idle.table = Fact::default();
    facts.netns.extend([other, idle]);
    let hazards = Arc::new(Hazards::new(Fake::new(facts), SharedStatus::default()));
    hazards.look();
    assert_eq!(
        hazards.netns(),
        BTreeSet::from([NetnsId(NETNS), NetnsId(7)])
    );
    assert_eq!(
        lines(&hazards, "name=\"conntrack\""),
        [
            "ipvs_lens_sysctl{name=\"conntrack\",netns=\"4026531840\"} 0",
            "ipvs_lens_sysctl{name=\"conntrack\",netns=\"7\"} 0",
        ]
    );
    assert_eq!(lines(&hazards, "netns=\"8\""), [""; 0]);
    // What belongs to the node has no namespace.
    assert_eq!(
        lines(&hazards, "kube_proxy_mode"),
        ["ipvs_lens_hazard{hazard=\"kube_proxy_mode\",source=\"configured\"} 0"]
    );
}
