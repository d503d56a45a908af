//! What is told about the tables: findings without a client.
//!
//! PURE. Like those about attempts, each is one line for people and one JSON object whose fields
//! are promised in `docs/findings.md`; the edge adds the wall time.

use std::fmt;

use serde::ser::{SerializeMap, SerializeStruct as _};
use serde::{Serialize, Serializer};

use super::draining::{Concluded, Outcome, Timeline};
use crate::clock::MonoNs;
use crate::event::{RealServer, Service};

/// What was concluded from the tables.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Conclusion {
    /// Of a draining real server.
    Draining(Concluded),
    /// A service that had real servers to choose from has none any more.
    NoRealServer {
        /// Which.
        service: Service,
        /// When that was read.
        at: MonoNs,
        /// Real servers it still lists, all with weight 0.
        draining: usize,
    },
}

impl Conclusion {
    /// The word of `kind` in JSON.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Draining(told) => match told.outcome {
                Outcome::Removed { .. } => "draining_ended",
                Outcome::Forgotten { .. } => "draining_forgotten",
            },
            Self::NoRealServer { .. } => "no_real_server",
        }
    }

    /// When.
    #[must_use]
    pub const fn at(&self) -> MonoNs {
        match self {
            Self::Draining(told) => match told.outcome {
                Outcome::Removed { at, .. } | Outcome::Forgotten { at, .. } => at,
            },
            Self::NoRealServer { at, .. } => *at,
        }
    }

    const fn service(&self) -> &Service {
        match self {
            Self::Draining(told) => &told.place.0,
            Self::NoRealServer { service, .. } => service,
        }
    }

    const fn real_server(&self) -> Option<RealServer> {
        match self {
            Self::Draining(told) => Some(told.place.1),
            Self::NoRealServer { .. } => None,
        }
    }
}

impl Serialize for Conclusion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let service = self.service();
        let server = self.real_server();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", self.kind())?;
        map.serialize_entry("mono_ns", &self.at())?;
        map.serialize_entry("netns", &service.netns)?;
        map.serialize_entry("proto", service.proto_word())?;
        map.serialize_entry("local_address", &service.local_address())?;
        map.serialize_entry("local_port", &service.local_port())?;
        map.serialize_entry("local_mark", &service.local_mark())?;
        map.serialize_entry("remote_address", &server.map(|server| server.0.ip()))?;
        map.serialize_entry("remote_port", &server.map(|server| server.0.port()))?;
        match self {
            Self::Draining(told) => {
                map.serialize_entry("timeline", &told.timeline)?;
                match told.outcome {
                    Outcome::Removed { at, told, held_by } => {
                        map.serialize_entry("removed_ns", &at)?;
                        map.serialize_entry("removed_told", told.word())?;
                        map.serialize_entry("held_by", &held_by)?;
                    }
                    Outcome::Forgotten {
                        empty_since,
                        wanted_by,
                        ..
                    } => {
                        map.serialize_entry("empty_since_ns", &empty_since)?;
                        map.serialize_entry("wanted_by_services", &wanted_by)?;
                    }
                }
            }
            Self::NoRealServer { draining, .. } => map.serialize_entry("draining", draining)?,
        }
        map.end()
    }
}

impl Serialize for Timeline {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Timeline", 7)?;
        fields.serialize_field("weight_0_ns", &self.since)?;
        fields.serialize_field("weight_0_told", self.told.word())?;
        fields.serialize_field("last_scheduled_ns", &self.last_scheduled)?;
        fields.serialize_field("last_reused_ns", &self.last_reused)?;
        fields.serialize_field("last_stale_ns", &self.last_stale)?;
        fields.serialize_field("stale_connections", &self.stale)?;
        fields.serialize_field("stale_datagrams", &self.stale_datagrams)?;
        fields.end()
    }
}

impl fmt::Display for Conclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Draining(told) => draining(f, told),
            Self::NoRealServer {
                service, draining, ..
            } => {
                write!(f, "no real server: {service} has nobody left to choose")?;
                match draining {
                    0 => Ok(()),
                    1 => f.write_str(", its only real server has weight 0"),
                    all => write!(f, ", all {all} real servers have weight 0"),
                }
            }
        }
    }
}

fn draining(f: &mut fmt::Formatter<'_>, told: &Concluded) -> fmt::Result {
    let (service, server) = told.place;
    let timeline = &told.timeline;
    match told.outcome {
        Outcome::Removed { at, held_by, .. } => {
            let seconds = at.since(timeline.since).as_secs_f64();
            write!(
                f,
                "draining ended: {server} of {service} was removed {seconds:.1} s after its weight \
                 became 0; {} stale connections meanwhile, held by {}",
                timeline.stale,
                held_by.word()
            )
        }
        Outcome::Forgotten {
            at,
            empty_since,
            wanted_by,
        } => {
            let seconds = at.since(empty_since).as_secs();
            write!(
                f,
                "draining forgotten: {server} of {service} has weight 0 and had no connection for \
                 {seconds} s; "
            )?;
            if wanted_by > 0 {
                let s = if wanted_by == 1 { "" } else { "s" };
                write!(f, "it is alive, {wanted_by} other service{s} use it; ")?;
            }
            f.write_str("whoever set the weight should remove it or give it one again")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table::draining::{Holder, Told};
    use crate::testing::sample_service;

    fn concluded(outcome: Outcome) -> Conclusion {
        Conclusion::Draining(Concluded {
            place: (
                sample_service(),
                RealServer("10.1.1.2:8080".parse().unwrap()),
            ),
            timeline: Timeline {
                since: MonoNs(1_000_000_000),
                told: Told::Live,
                last_scheduled: Some(MonoNs(900_000_000)),
                last_reused: None,
                last_stale: Some(MonoNs(4_000_000_000)),
                stale: 7,
                stale_datagrams: 0,
            },
            outcome,
        })
    }

    fn removed() -> Conclusion {
        concluded(Outcome::Removed {
            at: MonoNs(6_500_000_000),
            told: Told::Live,
            held_by: Holder::PortReuse,
        })
    }

    #[test]
    fn a_draining_that_ended_is_told_with_its_timeline() {
        assert_eq!(
            removed().to_string(),
            "draining ended: 10.1.1.2:8080 of TCP 10.96.0.10:80 was removed 5.5 s after its weight \
             became 0; 7 stale connections meanwhile, held by port_reuse"
        );
        let expected = json!({
            "kind": "draining_ended",
            "mono_ns": 6_500_000_000_u64,
            "netns": 4_026_531_840_u32,
            "proto": "TCP",
            "local_address": "10.96.0.10",
            "local_port": 80,
            "local_mark": "",
            "remote_address": "10.1.1.2",
            "remote_port": 8080,
            "timeline": {
                "weight_0_ns": 1_000_000_000,
                "weight_0_told": "live",
                "last_scheduled_ns": 900_000_000,
                "last_reused_ns": null,
                "last_stale_ns": 4_000_000_000_u64,
                "stale_connections": 7,
                "stale_datagrams": 0,
            },
            "removed_ns": 6_500_000_000_u64,
            "removed_told": "live",
            "held_by": "port_reuse",
        });
        assert_eq!(serde_json::to_value(removed()).unwrap(), expected);
    }

    #[test]
    fn what_was_forgotten_says_what_to_do() {
        let forgotten = |wanted_by| {
            concluded(Outcome::Forgotten {
                at: MonoNs(400_000_000_000),
                empty_since: MonoNs(90_000_000_000),
                wanted_by,
            })
        };
        assert_eq!(
            forgotten(0).to_string(),
            "draining forgotten: 10.1.1.2:8080 of TCP 10.96.0.10:80 has weight 0 and had no \
             connection for 310 s; whoever set the weight should remove it or give it one again"
        );
        let alive = forgotten(2).to_string();
        assert!(
            alive.contains("310 s; it is alive, 2 other services use it; whoever"),
            "{alive}"
        );
        let json = serde_json::to_value(forgotten(1)).unwrap();
        assert_eq!(json["kind"], "draining_forgotten");
        assert_eq!(json["empty_since_ns"], 90_000_000_000_u64);
        assert_eq!(json["wanted_by_services"], 1);
    }

    #[test]
    fn a_service_with_nobody_left_says_who_is_still_listed() {
        let left = |draining| Conclusion::NoRealServer {
            service: sample_service(),
            at: MonoNs(1),
            draining,
        };
        let text = "no real server: TCP 10.96.0.10:80 has nobody left to choose";
        assert_eq!(left(0).to_string(), text);
        let two = format!("{text}, all 2 real servers have weight 0");
        assert_eq!(left(2).to_string(), two);
        assert_eq!(serde_json::to_value(left(2)).unwrap()["draining"], 2);
    }
}
