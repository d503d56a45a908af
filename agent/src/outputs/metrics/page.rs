//! Which sample of the kernel's counters and of the events goes into which family.
//!
//! PURE.

use std::collections::{BTreeMap, BTreeSet};

use agent_common::stat::Stat;
use agent_common::verdict::{Decision, DropCause, Lost, Outcome};

use super::families::{Families, SERIES_MAX};
use super::labels::and;
use super::sample::{Page, Sample, Samples};
use super::{BuildInfo, Kernel, Live, names, no_delays};
use crate::event::{NetnsId, RealServer, Service};

/// Puts what the kernel counted and what events added onto the page.
pub(super) fn show(
    page: &mut Page,
    build: BuildInfo,
    kernel: &Kernel,
    families: &Families,
    live: &Live,
) {
    page.put(names::CONNECTIONS, connections(page, families));
    page.refuse(
        names::CONNECTIONS,
        families.services_refused * Decision::ALL.len(),
    );
    page.put(names::STALE_CONNECTIONS, stale(page, families, live));
    page.refuse(names::STALE_CONNECTIONS, families.stale_refused);
    page.put(names::SYN_DROPS, syn_drops(page, families));
    page.refuse(
        names::SYN_DROPS,
        families.services_refused * DropCause::ALL.len(),
    );
    page.put(names::CONNECT_DELAY, delays(page, families, live));
    page.refuse(names::CONNECT_DELAY, live.delays_refused);
    page.put(
        names::NEW_CONNECTIONS,
        by_real_server(page, &families.new_connections),
    );
    page.refuse(names::NEW_CONNECTIONS, families.new_connections_refused);
    page.put(names::STALE_OUTCOMES, outcomes(page, families));
    page.refuse(
        names::STALE_OUTCOMES,
        families.services_refused * Outcome::ALL.len(),
    );
    page.put(names::STALE_OUTCOME, times_to_outcome(page, live));
    page.refuse(names::STALE_OUTCOME, live.outcomes_refused);
    page.put(
        names::STALE_DATAGRAMS,
        by_real_server(page, &families.stale_datagrams),
    );
    page.refuse(names::STALE_DATAGRAMS, families.stale_datagrams_refused);
    page.put(
        names::STALE_FLOWS,
        by_real_server(page, &families.stale_flows),
    );
    page.refuse(names::STALE_FLOWS, families.stale_flows_refused);
    page.put(names::SYN_RETRANSMITS, retransmits(page, families));
    page.refuse(
        names::SYN_RETRANSMITS,
        families.services_refused * Lost::ALL.len(),
    );
    page.put(names::EVENTS_LOST, lost(kernel, live));
    page.put_one(names::EVENTS_EMITTED, plain(kernel.stat(Stat::Emitted)));
    page.put_one(names::EVENTS_RECEIVED, plain(live.received));
    page.put(names::PROBE_ATTACHED, probes(live));
    page.put(names::BUILD_INFO, build_info(build));
}

/// Network namespaces of the services that [`show`] will put.
pub(super) fn netns(families: &Families, live: &Live) -> BTreeSet<NetnsId> {
    let services = live.delays.keys().map(|(service, _)| *service);
    let known = services.filter(Service::is_known);
    let of_kernel = families.netns.iter().copied();
    of_kernel.chain(known.map(|s| s.netns)).collect()
}

fn plain(value: u64) -> Sample {
    Sample::Counter(value, None)
}

fn connections(page: &Page, families: &Families) -> Samples {
    let rows = families.connections.iter();
    rows.map(|((service, decision), count)| {
        let labels = page.service(service);
        (and(labels, "decision", decision.as_str()), plain(*count))
    })
    .collect()
}

fn stale(page: &Page, families: &Families, live: &Live) -> Samples {
    let rows = families.stale.iter();
    rows.map(|(key, count)| {
        let (service, server, cause) = key;
        let labels = page.real_server(service, *server);
        let example = live.examples.get(key).cloned();
        (
            and(labels, "cause", cause.as_str()),
            Sample::Counter(*count, example),
        )
    })
    .collect()
}

fn syn_drops(page: &Page, families: &Families) -> Samples {
    let rows = families.syn_drops.iter();
    rows.map(|((service, cause), count)| {
        let labels = page.service(service);
        (and(labels, "cause", cause.as_str()), plain(*count))
    })
    .collect()
}

/// What was observed, and an empty histogram where SYNs died whose delay is still open.
fn delays(page: &Page, families: &Families, live: &Live) -> Samples {
    let mut all = live.delays.clone();
    let died = families.syn_drops.iter().filter(|(_, count)| **count > 0);
    for ((service, cause), _) in died {
        if service.is_known() && all.len() < SERIES_MAX {
            all.entry((*service, *cause)).or_insert_with(no_delays);
        }
    }
    let rows = all.into_iter();
    rows.map(|((service, cause), delays)| {
        let labels = page.service(&service);
        (
            and(labels, "cause", cause.as_str()),
            Sample::Histogram(delays),
        )
    })
    .collect()
}

fn outcomes(page: &Page, families: &Families) -> Samples {
    let rows = families.outcomes.iter();
    rows.map(|((service, outcome), count)| {
        let labels = page.service(service);
        (and(labels, "outcome", outcome.as_str()), plain(*count))
    })
    .collect()
}

fn times_to_outcome(page: &Page, live: &Live) -> Samples {
    let rows = live.outcomes.iter();
    rows.map(|((service, outcome), times)| {
        let labels = page.service(service);
        (
            and(labels, "outcome", outcome.as_str()),
            Sample::Histogram(times.clone()),
        )
    })
    .collect()
}

fn retransmits(page: &Page, families: &Families) -> Samples {
    let rows = families.retransmits.iter();
    rows.map(|((service, lost), count)| {
        let labels = page.service(service);
        (and(labels, "lost", lost.as_str()), plain(*count))
    })
    .collect()
}

fn by_real_server(page: &Page, counts: &BTreeMap<(Service, RealServer), u64>) -> Samples {
    let rows = counts.iter();
    rows.map(|((service, server), count)| {
        let labels = page.real_server(service, Some(*server));
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

fn build_info(build: BuildInfo) -> Samples {
    let labels = vec![
        ("version", build.version.to_owned()),
        ("revision", build.revision.to_owned()),
        ("rustc", build.rustc.to_owned()),
    ];
    vec![(labels, Sample::Gauge(1.0))]
}
