//! A finding as one JSON object.
//!
//! The fields are promised in `docs/findings.md`: they may grow, they do not change. Every field is
//! always present; what does not apply is `null`. The edge adds the wall time.

use agent_common::netfilter::HookPoint;
use agent_common::verdict::{Decision, Outcome};
use serde::ser::{SerializeMap, SerializeStruct as _};
use serde::{Serialize, Serializer};

use super::{Cause, Finding, TableEvidence};
use crate::table::draining::{Ending, Timeline};

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", self.kind.word())?;
        map.serialize_entry("mono_ns", &self.at)?;
        map.serialize_entry("netns", &self.netns())?;
        map.serialize_entry("client", &self.client())?;
        map.serialize_entry("destination", &self.destination())?;
        map.serialize_entry("isn", &self.isn)?;
        map.serialize_entry("proto", self.service.proto_word())?;
        map.serialize_entry("local_address", &self.service.local_address())?;
        map.serialize_entry("local_port", &self.service.local_port())?;
        map.serialize_entry("local_mark", &self.service.local_mark())?;
        map.serialize_entry("remote_address", &self.real_server.map(|r| r.0.ip()))?;
        map.serialize_entry("remote_port", &self.real_server.map(|r| r.0.port()))?;
        map.serialize_entry("weight", &self.weight)?;
        map.serialize_entry("decision", &self.decision.map(Decision::word))?;
        map.serialize_entry("cause", &self.cause.map(Cause::word))?;
        map.serialize_entry("outcome", &self.outcome.map(Outcome::word))?;
        map.serialize_entry("old_state", &self.old_state)?;
        map.serialize_entry("delay_ns", &self.delay.map(|d| d.as_nanos()))?;
        map.serialize_entry("lasted_ns", &self.lasted.map(|d| d.as_nanos()))?;
        map.serialize_entry("count", &self.count)?;
        map.serialize_entry("datagrams", &self.datagrams)?;
        map.serialize_entry("waited_ns", &self.waited.map(|d| d.as_nanos()))?;
        map.serialize_entry("drops", &self.drops)?;
        map.serialize_entry("retransmits", &self.retransmits)?;
        map.serialize_entry("netfilter_hook", &self.hook.map(HookPoint::word))?;
        map.serialize_entry("kernel_reason", &self.kernel_reason)?;
        let location = self.kernel_location.map(|at| format!("{at:#x}"));
        map.serialize_entry("kernel_location", &location)?;
        map.serialize_entry("events_lost", &self.events_lost)?;
        self.serialize_table(&mut map)?;
        map.end()
    }
}

impl Finding {
    fn serialize_table<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let (timeline, ending) = match self.table {
            Some(TableEvidence::Draining(timeline, ending)) => (Some(timeline), Some(ending)),
            _ => (None, None),
        };
        let removed = ending.and_then(|ending| match ending {
            Ending::Removed { at, told, held_by } => Some((at, told.word(), held_by)),
            Ending::Forgotten { .. } => None,
        });
        let forgotten = ending.and_then(|ending| match ending {
            Ending::Forgotten {
                empty_since,
                wanted_by,
                ..
            } => Some((empty_since, wanted_by)),
            Ending::Removed { .. } => None,
        });
        let draining = self.table.and_then(|table| match table {
            TableEvidence::Vacant { draining } => Some(draining),
            TableEvidence::Draining(..) => None,
        });
        map.serialize_entry("timeline", &timeline)?;
        map.serialize_entry("removed_ns", &removed.map(|(at, ..)| at))?;
        map.serialize_entry("removed_told", &removed.map(|(_, told, _)| told))?;
        map.serialize_entry("held_by", &removed.map(|(.., held_by)| held_by))?;
        map.serialize_entry("empty_since_ns", &forgotten.map(|(since, _)| since))?;
        map.serialize_entry("wanted_by_services", &forgotten.map(|(_, by)| by))?;
        map.serialize_entry("draining", &draining)
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
