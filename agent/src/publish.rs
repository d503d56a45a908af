//! What `/status`, `/readyz` and the probe metric say about what is attached.

use std::sync::Arc;

use agent_common::attempt::{ATTEMPTS_MAX, PENDING_MAX};
use agent_common::count::COUNTS_MAX;
use agent_common::flow::FLOWS_MAX;
use agent_common::follow::FOLLOWED_MAX;
use agent_common::layout::{ABSENT, FIELDS, KernelLayout};
use agent_common::node::NODE_COUNTS_MAX;
use agent_common::record::RING_BYTES;

use crate::correlate::{ATTEMPTS_HELD_MAX, STALE_REMEMBERED_MAX, WINDOW_EVENTS_MAX};
use crate::ledger::KEYS_MAX;
use crate::outputs::http::SEATS_MAX;
use crate::outputs::metrics::{BuildInfo, Metrics, SERIES_MAX};
use crate::probes::attach::Programs;
use crate::probes::table::{PROBES, Way};
use crate::source::module::IPVS_MODULE;
use crate::source::table::NETNS_MAX;
use crate::status::{ProbeState, ProbeStatus, SharedStatus, State, Status};
use crate::table::draining::DRAINING_MAX;

/// Writes to both places where people read what is attached.
#[derive(Clone)]
pub struct Publisher {
    metrics: Arc<Metrics>,
    status: SharedStatus,
    /// How programs are attached while none is.
    way: Way,
}

impl Publisher {
    /// Nothing is attached yet, on a kernel of this `release`.
    pub fn new(metrics: Arc<Metrics>, release: &str, way: Way) -> Self {
        let probes = probe_statuses(way, ProbeState::Disabled, None);
        metrics.set_probes(probes.clone());
        let status = SharedStatus::new(Status {
            version: BuildInfo::THIS.version.to_owned(),
            reason: Some("starting".to_owned()),
            kernel: release.to_owned(),
            probes,
            limits: bounds().collect(),
            ..Status::default()
        });
        Self {
            metrics,
            status,
            way,
        }
    }

    /// Where `/status` is kept.
    pub fn status(&self) -> SharedStatus {
        self.status.clone()
    }

    /// Every program that can be attached is.
    pub fn observing(&self, programs: &Programs) {
        let probes = attached_statuses(programs);
        self.metrics.set_probes(probes.clone());
        self.status.update(|status| {
            status.state = State::Armed;
            status.reason = None;
            status.probes = probes;
            programs.types_origin().clone_into(&mut status.types);
            status.attachment = programs.attachment();
            status.layout = layout_by_name(programs.layout()).collect();
            status.absent = absent_fields(programs.layout()).collect();
            status.limitations = programs.limitations().to_vec();
        });
        for limitation in programs.limitations() {
            log::warn!("{limitation}");
        }
        let (attachment, origin) = (programs.attachment(), programs.types_origin());
        log::info!(
            "{} probes attached, those of {IPVS_MODULE} by {attachment}; offsets from {origin}",
            PROBES.len() - programs.missing().len()
        );
    }

    /// The programs that hold the module were detached.
    pub fn released(&self, programs: &Programs, reason: String) {
        self.not_observing_module(programs, reason);
        self.status.update(|status| status.gaps += 1);
    }

    /// Only the programs that do not hold the module are attached, now for this `reason`.
    pub fn not_observing_module(&self, programs: &Programs, reason: String) {
        let mut probes = attached_statuses(programs);
        for (status, probe) in probes.iter_mut().zip(PROBES) {
            if probe.is_of_module() {
                status.state = ProbeState::Disabled;
                status.reason = Some(reason.clone());
            }
        }
        self.metrics.set_probes(probes.clone());
        self.status.update(|status| {
            status.state = State::Waiting;
            status.reason = Some(reason);
            status.probes = probes;
        });
    }

    /// No program is attached.
    pub fn not_observing(&self, state: State, reason: String) {
        let probes = probe_statuses(self.way, ProbeState::Disabled, Some(&reason));
        self.metrics.set_probes(probes.clone());
        self.status.update(|status| {
            status.state = state;
            status.reason = Some(reason);
            status.probes = probes;
        });
    }

    /// What is in flight is reported, then the agent ends.
    pub fn stopping(&self) {
        self.status.update(|status| status.state = State::Stopping);
    }
}

fn probe_statuses(way: Way, state: ProbeState, reason: Option<&str>) -> Vec<ProbeStatus> {
    PROBES
        .iter()
        .map(|probe| ProbeStatus {
            name: probe.name.to_owned(),
            via: probe.via(way).to_owned(),
            state,
            reason: reason.map(str::to_owned),
        })
        .collect()
}

/// Every probe, once IPVS is observed: those it can be observed without may be missing.
fn attached_statuses(programs: &Programs) -> Vec<ProbeStatus> {
    let mut statuses = probe_statuses(programs.way(), ProbeState::Active, None);
    for status in &mut statuses {
        if let Some(reason) = programs.missing().get(status.name.as_str()) {
            status.state = ProbeState::Failed;
            status.reason = Some(reason.clone());
        }
    }
    statuses
}

fn layout_by_name(layout: &KernelLayout) -> impl Iterator<Item = (String, u16)> {
    FIELDS
        .iter()
        .zip(layout.offsets())
        .filter(|(_, offset)| *offset != ABSENT)
        .map(|(field, offset)| (format!("{}.{}", field.structure, field.path), offset))
}

/// Fields this kernel does not have, each with what is not reported for it.
fn absent_fields(layout: &KernelLayout) -> impl Iterator<Item = (String, String)> {
    FIELDS
        .iter()
        .zip(layout.offsets())
        .filter(|(_, offset)| *offset == ABSENT)
        .map(|(field, _)| {
            let name = format!("{}.{}", field.structure, field.path);
            (name, field.costs().to_owned())
        })
}

fn bounds() -> impl Iterator<Item = (String, u64)> {
    let sizes = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
    [
        ("kernel_counts", u64::from(COUNTS_MAX)),
        ("counters_kept", sizes(KEYS_MAX)),
        ("kernel_attempts", u64::from(ATTEMPTS_MAX)),
        ("kernel_pending", u64::from(PENDING_MAX)),
        ("kernel_followed", u64::from(FOLLOWED_MAX)),
        ("kernel_flows", u64::from(FLOWS_MAX)),
        ("kernel_node_counts", u64::from(NODE_COUNTS_MAX)),
        ("ring_bytes", u64::from(RING_BYTES)),
        ("correlator_attempts", sizes(ATTEMPTS_HELD_MAX)),
        ("correlator_stale", sizes(STALE_REMEMBERED_MAX)),
        ("correlator_window_events", sizes(WINDOW_EVENTS_MAX)),
        ("series_per_family", sizes(SERIES_MAX)),
        ("table_namespaces", sizes(NETNS_MAX)),
        ("table_draining", sizes(DRAINING_MAX)),
        ("http_connections", sizes(SEATS_MAX)),
    ]
    .into_iter()
    .map(|(name, limit)| (name.to_owned(), limit))
}
