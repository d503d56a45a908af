//! Findings of the IPVS tables: each has a service, but no client.

use std::fmt;

use serde::Serialize;

use super::Finding;
#[cfg(feature = "schema")]
use super::parts::ServiceKeys;
use super::parts::{WeightedServer, service};
use crate::clock::MonoNs;
use crate::event::{NetnsId, Service};
use crate::table::draining::{Concluded, Ending, Holder, TimeSource, Timeline};
use crate::table::tables::Output;

impl From<Output> for Finding {
    fn from(output: Output) -> Self {
        match output {
            Output::NoRealServer {
                at,
                service,
                draining,
            } => Self::of_vacancy(at, service, draining),
            Output::Draining(concluded) => Self::of_draining(&concluded),
        }
    }
}

impl Finding {
    /// What became of a draining real server.
    #[must_use]
    pub fn of_draining(concluded: &Concluded) -> Self {
        let (service, real_server) = concluded.place;
        let timeline = concluded.timeline;
        let netns = service.netns;
        let server = WeightedServer {
            real_server,
            weight: 0,
        };
        match concluded.ending {
            Ending::Removed {
                at,
                time_source,
                held_by,
            } => DrainingEnded {
                at,
                netns,
                service,
                server,
                timeline,
                removed: at,
                time_source,
                held_by,
            }
            .into(),
            Ending::Forgotten {
                at,
                empty_since,
                wanted_by,
            } => DrainingForgotten {
                at,
                netns,
                service,
                server,
                timeline,
                empty_since,
                used_by: wanted_by,
            }
            .into(),
        }
    }

    /// No real server of a service has a weight, though it lists `draining` real servers.
    #[must_use]
    pub fn of_vacancy(at: MonoNs, service: Service, draining: usize) -> Self {
        NoRealServer {
            at,
            netns: service.netns,
            service,
            draining,
        }
        .into()
    }
}

/// See [`super::FindingKind::DrainingEnded`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DrainingEnded {
    /// When it was removed.
    #[serde(rename = "mono_ns")]
    pub at: MonoNs,
    /// Network namespace of the service.
    pub netns: NetnsId,
    /// The service.
    #[serde(flatten, serialize_with = "service")]
    #[cfg_attr(feature = "schema", schemars(with = "ServiceKeys"))]
    pub service: Service,
    /// The real server; its weight is 0.
    #[serde(flatten)]
    pub server: WeightedServer,
    /// What happened to it.
    pub timeline: Timeline,
    /// As `mono_ns`.
    #[serde(rename = "removed_ns")]
    pub removed: MonoNs,
    /// How well that is known.
    #[serde(rename = "removed_told")]
    pub time_source: TimeSource,
    /// What held it last.
    pub held_by: Holder,
}

impl fmt::Display for DrainingEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (server, service) = (self.server.real_server, self.service);
        let seconds = self.removed.since(self.timeline.since).as_secs_f64();
        write!(
            f,
            "draining ended: {server} of {service} was removed {seconds:.1} s after its "
        )?;
        write!(
            f,
            "weight became 0; {} stale connections meanwhile, held by {}",
            self.timeline.stale,
            self.held_by.as_str()
        )
    }
}

/// See [`super::FindingKind::DrainingForgotten`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DrainingForgotten {
    /// When it was concluded.
    #[serde(rename = "mono_ns")]
    pub at: MonoNs,
    /// Network namespace of the service.
    pub netns: NetnsId,
    /// The service.
    #[serde(flatten, serialize_with = "service")]
    #[cfg_attr(feature = "schema", schemars(with = "ServiceKeys"))]
    pub service: Service,
    /// The real server; its weight is 0.
    #[serde(flatten)]
    pub server: WeightedServer,
    /// What happened to it.
    pub timeline: Timeline,
    /// Since when it has had no connection.
    #[serde(rename = "empty_since_ns")]
    pub empty_since: MonoNs,
    /// Other services that give the same machine connections.
    #[serde(rename = "wanted_by_services")]
    pub used_by: usize,
}

impl fmt::Display for DrainingForgotten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (server, service) = (self.server.real_server, self.service);
        let seconds = self.at.since(self.empty_since).as_secs();
        write!(
            f,
            "draining forgotten: {server} of {service} has had no connection for {seconds} s; "
        )?;
        match self.used_by {
            0 => {}
            1 => f.write_str("1 other service uses it; ")?,
            others => write!(f, "{others} other services use it; ")?,
        }
        f.write_str("still listed with weight 0; remove it or restore its weight")
    }
}

/// See [`super::FindingKind::NoRealServer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NoRealServer {
    /// The reading of the table that showed it for the second time.
    #[serde(rename = "mono_ns")]
    pub at: MonoNs,
    /// Network namespace of the service.
    pub netns: NetnsId,
    /// The service.
    #[serde(flatten, serialize_with = "service")]
    #[cfg_attr(feature = "schema", schemars(with = "ServiceKeys"))]
    pub service: Service,
    /// Real servers it still lists, all with weight 0.
    pub draining: usize,
}

impl fmt::Display for NoRealServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = self.service;
        write!(
            f,
            "no real server: service {service} has no real server with weight > 0"
        )?;
        match self.draining {
            0 => f.write_str("; it lists none"),
            listed => write!(f, "; it lists {listed} with weight 0"),
        }
    }
}
