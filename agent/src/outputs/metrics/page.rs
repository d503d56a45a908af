//! Which sample of the kernel's counters and of the events goes into which family.
//!
//! PURE.

use std::collections::BTreeSet;

use agent_common::stat::Stat;
use agent_common::verdict::{Decision, DropCause, Lost, Outcome, StaleCause};

use super::families::{Families, Place, Views};
use super::labels::{self, ENDED, Labels, OTHER, and};
use super::names::{self, Metric};
use super::sample::{Example, Page, Sample, Samples};
use super::{BuildInfo, HISTOGRAMS_MAX, Kernel, Live, hidden_recently, no_delays};
use crate::event::{NetnsId, Service};
use crate::ledger::shelf::View;

/// Puts what the kernel counted and what events added onto the page.
pub(super) fn show(
    page: &mut Page,
    build: BuildInfo,
    kernel: &Kernel,
    families: &Families,
    views: &Views,
    live: &Live,
) {
    show_services(page, families, views);
    show_real_servers(page, families, views, live);
    page.put(names::CONNECT_DELAY, delays(page, views, live));
    page.refuse(
        names::CONNECT_DELAY,
        hidden_recently(&live.delays_hidden, kernel.counts.at),
    );
    page.put(names::STALE_OUTCOME, times_to_outcome(page, live));
    page.refuse(
        names::STALE_OUTCOME,
        hidden_recently(&live.outcomes_hidden, kernel.counts.at),
    );
    page.put(names::EVENTS_LOST, lost(kernel, live));
    page.put_one(names::EVENTS_EMITTED, plain(kernel.stat(Stat::Emitted)));
    page.put_one(names::EVENTS_RECEIVED, plain(live.received));
    page.put(names::PROBE_ATTACHED, probes(live));
    page.put(names::BUILD_INFO, build_info(build));
}

fn show_services(page: &mut Page, families: &Families, views: &Views) {
    let hidden = families.services_hidden;
    let label = |row: &Decision| ("decision", row.as_str());
    put(page, names::CONNECTIONS, &views.connections, label, hidden);
    let label = |row: &DropCause| ("cause", row.as_str());
    put(page, names::SYN_DROPS, &views.syn_drops, label, hidden);
    let label = |row: &Outcome| ("outcome", row.as_str());
    put(page, names::STALE_OUTCOMES, &views.outcomes, label, hidden);
    let label = |row: &Lost| ("lost", row.as_str());
    put(
        page,
        names::SYN_RETRANSMITS,
        &views.retransmits,
        label,
        hidden,
    );
}

fn show_real_servers(page: &mut Page, families: &Families, views: &Views, live: &Live) {
    let hidden = families.real_servers_hidden;
    let examples = &live.examples;
    let cause = |row: &StaleCause| Some(("cause", row.as_str()));
    let example = |(service, server): &Place, cause: &StaleCause| {
        examples.get(&(*service, *server, *cause)).cloned()
    };
    let stale = real_servers(page, &views.stale, cause, example);
    page.put(names::STALE_CONNECTIONS, stale);
    page.refuse(names::STALE_CONNECTIONS, hidden * StaleCause::ALL.len());
    for (family, view, hidden) in [
        (names::NEW_CONNECTIONS, &views.new_connections, hidden),
        (names::STALE_DATAGRAMS, &views.stale_datagrams, 0),
        (names::STALE_FLOWS, &views.stale_flows, 0),
    ] {
        page.put(family, real_servers(page, view, |()| None, |_, ()| None));
        page.refuse(family, hidden);
    }
}

/// A family with service labels and one more.
fn put<S: Copy>(
    page: &mut Page,
    family: Metric,
    view: &View<Service, S>,
    label: impl Fn(&S) -> (&'static str, &'static str),
    hidden: usize,
) {
    let mut sets = 0;
    let row = |labels: Labels, row: &S, count: u64| {
        let (name, value) = label(row);
        (and(labels, name, value), plain(count))
    };
    let mut samples: Samples = Vec::new();
    for (service, of, count) in &view.rows {
        samples.push(row(page.service(service), of, *count));
    }
    for (of, count) in &view.other {
        sets += 1;
        samples.push(row(labels::service_standing_for(OTHER), of, *count));
    }
    for (of, count) in &view.ended {
        let labels = labels::until(labels::service_standing_for(ENDED), view.until);
        samples.push(row(labels, of, *count));
    }
    page.put(family, samples);
    page.refuse(family, hidden * sets);
}

/// The samples of a family with real-server labels, and one more where there is a `label`.
fn real_servers<S: Copy>(
    page: &Page,
    view: &View<Place, S>,
    label: impl Fn(&S) -> Option<(&'static str, &'static str)>,
    example: impl Fn(&Place, &S) -> Option<Example>,
) -> Samples {
    let with = |labels: Labels, row: &S| match label(row) {
        Some((name, value)) => and(labels, name, value),
        None => labels,
    };
    let named = view.rows.iter().map(|(place, row, count)| {
        let labels = page.real_server(&place.0, Some(place.1));
        let example = example(place, row);
        (with(labels, row), Sample::Counter(*count, example))
    });
    let other = view.other.iter().map(|(row, count)| {
        let labels = labels::real_server_standing_for(OTHER);
        (with(labels, row), plain(*count))
    });
    let ended = view.ended.iter().map(|(row, count)| {
        let labels = labels::until(labels::real_server_standing_for(ENDED), view.until);
        (with(labels, row), plain(*count))
    });
    named.chain(other).chain(ended).collect()
}

/// Network namespaces of the services that [`show`] will put.
pub(super) fn netns(families: &Families, live: &Live) -> BTreeSet<NetnsId> {
    let services = live.delays.keys().filter_map(|(service, _)| *service);
    let known = services.filter(Service::is_known);
    let of_kernel = families.netns.iter().copied();
    of_kernel.chain(known.map(|s| s.netns)).collect()
}

fn plain(value: u64) -> Sample {
    Sample::Counter(value, None)
}

/// Labels of a service, or of those that share one histogram.
fn service_or_other(page: &Page, service: Option<&Service>) -> Labels {
    match service {
        Some(service) => page.service(service),
        None => labels::service_standing_for(OTHER),
    }
}

/// What was observed, and an empty histogram where SYNs died whose delay is still open.
fn delays(page: &Page, views: &Views, live: &Live) -> Samples {
    let mut all = live.delays.clone();
    let died = views.syn_drops.rows.iter().filter(|(.., count)| *count > 0);
    for (service, cause, _) in died {
        if service.is_known() && all.len() < HISTOGRAMS_MAX {
            let key = (Some(*service), *cause);
            all.entry(key).or_insert_with(no_delays);
        }
    }
    let rows = all.into_iter();
    rows.map(|((service, cause), delays)| {
        let labels = service_or_other(page, service.as_ref());
        (
            and(labels, "cause", cause.as_str()),
            Sample::Histogram(delays),
        )
    })
    .collect()
}

fn times_to_outcome(page: &Page, live: &Live) -> Samples {
    let rows = live.outcomes.iter();
    rows.map(|((service, outcome), times)| {
        let labels = service_or_other(page, service.as_ref());
        (
            and(labels, "outcome", outcome.as_str()),
            Sample::Histogram(times.clone()),
        )
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
