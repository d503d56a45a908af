//! What procfs says about the agent's network namespace, read at every scrape.

use std::path::Path;

use super::names::{self, Metric};
use super::sample::{Page, Part, Sample, Samples};
use crate::decode::proc::Readings;
use crate::source::proc::Procfs;

/// The part of the page that comes from procfs.
pub struct System {
    procfs: Procfs,
}

impl System {
    /// Of procfs below `root`, which is `/proc` but for tests.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            procfs: Procfs::new(root),
        }
    }
}

impl Part for System {
    fn show(&self, page: &mut Page) {
        show(&self.procfs.read(), page);
    }
}

/// What a kernel does not count is not shown: a 0 would say that nothing happened.
fn show(readings: &Readings, page: &mut Page) {
    page.put(names::SOCKET_DROPS, socket_drops(readings));
    gauge(page, names::CONNTRACK_ENTRIES, readings.conntrack_entries);
    gauge(
        page,
        names::CONNTRACK_ENTRIES_LIMIT,
        readings.conntrack_entries_limit,
    );
    if let Some(count) = readings.conntrack_insert_failed {
        page.put_one(names::CONNTRACK_INSERT_FAILED, Sample::Counter(count, None));
    }
    let listeners = readings.listeners_in_port_range.as_ref();
    let count = listeners.map(|all| u64::try_from(all.len()).unwrap_or(u64::MAX));
    gauge(page, names::LISTENERS_IN_PORT_RANGE, count);
}

fn socket_drops(readings: &Readings) -> Samples {
    [
        ("tcp_memory", readings.tcp_memory),
        ("udp_receive_buffer", readings.udp_receive_buffer),
        ("udp_memory", readings.udp_memory),
    ]
    .into_iter()
    .filter_map(|(cause, count)| {
        let labels = vec![("cause", cause.to_owned())];
        Some((labels, Sample::Counter(count?, None)))
    })
    .collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "entries and listeners are far fewer than 2^53"
)]
fn gauge(page: &mut Page, family: Metric, value: Option<u64>) {
    if let Some(value) = value {
        page.put_one(family, Sample::Gauge(value as f64));
    }
}
