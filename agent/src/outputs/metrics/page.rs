//! Which sample goes into which family.
//!
//! PURE.

use std::collections::BTreeSet;

use agent_common::stat::Stat;

use super::encode::{Page, Sample};
use super::families::{Families, SERIES_MAX};
use super::labels::{self, Labels, and};
use super::{BuildInfo, Kernel, Live, names, no_delays};
use crate::event::{NetnsId, Service};

/// Everything one scrape shows.
pub(super) fn page(build: BuildInfo, kernel: &Kernel, families: &Families, live: &Live) -> Page {
    let with_netns = watched(families, live).len() > 1;
    Page(vec![
        (names::CONNECTIONS, connections(families, with_netns)),
        (names::STALE_CONNECTIONS, stale(families, live, with_netns)),
        (names::SYN_DROPS, syn_drops(families, with_netns)),
        (names::CONNECT_DELAY, delays(families, live, with_netns)),
        (names::NEW_CONNECTIONS, given(families, with_netns)),
        (names::EVENTS_LOST, lost(kernel, live)),
        (names::EVENTS_EMITTED, one(kernel.stat(Stat::Emitted))),
        (names::EVENTS_RECEIVED, one(live.received)),
        (names::PROBE_ATTACHED, probes(live)),
        (names::SERIES_DROPPED, refused(live)),
        (names::BUILD_INFO, build_info(build)),
    ])
}

type Samples = Vec<(Labels, Sample)>;

fn watched(families: &Families, live: &Live) -> BTreeSet<NetnsId> {
    let services = live.delays.keys().map(|(service, _)| *service);
    let known = services.filter(Service::is_known);
    families
        .netns()
        .into_iter()
        .chain(known.map(|s| s.netns))
        .collect()
}

fn plain(value: u64) -> Sample {
    Sample::Counter(value, None)
}

fn one(value: u64) -> Samples {
    vec![(Labels::new(), plain(value))]
}

fn connections(families: &Families, with_netns: bool) -> Samples {
    let rows = families.connections.iter();
    rows.map(|((service, decision), count)| {
        let labels = labels::service(service, with_netns);
        (and(labels, "decision", decision.word()), plain(*count))
    })
    .collect()
}

fn stale(families: &Families, live: &Live, with_netns: bool) -> Samples {
    let rows = families.stale.iter();
    rows.map(|(key, count)| {
        let (service, server, cause) = key;
        let labels = labels::real_server(service, *server, with_netns);
        let example = live.examples.get(key).cloned();
        (
            and(labels, "cause", cause.word()),
            Sample::Counter(*count, example),
        )
    })
    .collect()
}

fn syn_drops(families: &Families, with_netns: bool) -> Samples {
    let rows = families.syn_drops.iter();
    rows.map(|((service, cause), count)| {
        let labels = labels::service(service, with_netns);
        (and(labels, "cause", cause.word()), plain(*count))
    })
    .collect()
}

/// What was observed, and an empty histogram where SYNs died whose delay is still open.
fn delays(families: &Families, live: &Live, with_netns: bool) -> Samples {
    let mut all = live.delays.clone();
    let died = families.syn_drops.iter().filter(|(_, count)| **count > 0);
    for ((service, cause), _) in died {
        if service.is_known() && all.len() < SERIES_MAX {
            all.entry((*service, *cause)).or_insert_with(no_delays);
        }
    }
    let rows = all.into_iter();
    rows.map(|((service, cause), delays)| {
        let labels = labels::service(&service, with_netns);
        (
            and(labels, "cause", cause.word()),
            Sample::Histogram(delays),
        )
    })
    .collect()
}

fn given(families: &Families, with_netns: bool) -> Samples {
    let rows = families.new_connections.iter();
    rows.map(|((service, server), count)| {
        let labels = labels::real_server(service, Some(*server), with_netns);
        (labels, plain(*count))
    })
    .collect()
}

fn lost(kernel: &Kernel, live: &Live) -> Samples {
    let rows = live.losses(kernel).into_iter();
    rows.map(|(reason, count)| (vec![("reason", reason.to_owned())], plain(count)))
        .collect()
}

fn probes(live: &Live) -> Samples {
    let rows = live.attached();
    rows.map(|(labels, value)| (labels, Sample::Gauge(value)))
        .collect()
}

fn refused(live: &Live) -> Samples {
    [
        (names::STALE_CONNECTIONS, live.stale_refused_most),
        (names::CONNECT_DELAY, live.delays_refused),
        (names::NEW_CONNECTIONS, live.new_connections_refused_most),
    ]
    .into_iter()
    .map(|(family, count)| (vec![("family", family.name.to_owned())], plain(count)))
    .collect()
}

fn build_info(build: BuildInfo) -> Samples {
    let labels = vec![
        ("version", build.version.to_owned()),
        ("revision", build.revision.to_owned()),
        ("rustc", build.rustc.to_owned()),
    ];
    vec![(labels, Sample::Gauge(1))]
}
