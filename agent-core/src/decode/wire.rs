//! [`Event`]s back to the bytes a kernel program would have written.
//!
//! PURE. The inverse of [`super::decode`], for tests, benchmarks and made-up records.

use std::net::{IpAddr, SocketAddr};

use agent_common::key::{FAMILY_IPV4, FAMILY_IPV6, RealServerKey, ServiceKey, TupleKey};
use agent_common::record::{
    AttemptRecord, DatagramRecord, KIND_ATTEMPT, KIND_DATAGRAM, KIND_OUTCOME, KIND_REAL_SERVER,
    KIND_SYN_DROP, OutcomeRecord, RealServerRecord, RecordHeader, SynDropRecord,
};
use zerocopy::IntoBytes;

use crate::clock::MonoNs;
use crate::event::{
    AttemptDecided, ConfigEvent, EntryState, Event, Family, OutcomeSeen, PacketEvent, RealServer,
    RealServerChanged, Service, ServiceName, StaleDatagrams, SynDropped, Tuple, Verdict,
};

/// The record of an event.
#[must_use]
pub fn encode(event: &Event) -> Vec<u8> {
    match event {
        Event::Packet(packet) => encode_packet(packet),
        Event::Config(ConfigEvent::RealServerChanged(changed)) => {
            real_server_changed(changed).as_bytes().to_vec()
        }
    }
}

/// The record of an event about packets.
#[must_use]
pub fn encode_packet(event: &PacketEvent) -> Vec<u8> {
    match event {
        PacketEvent::AttemptDecided(decided) => attempt(decided).as_bytes().to_vec(),
        PacketEvent::SynDropped(dropped) => syn_drop(dropped).as_bytes().to_vec(),
        PacketEvent::OutcomeSeen(seen) => outcome(seen).as_bytes().to_vec(),
        PacketEvent::StaleDatagrams(seen) => datagrams(seen).as_bytes().to_vec(),
    }
}

fn attempt(event: &AttemptDecided) -> AttemptRecord {
    AttemptRecord {
        header: header::<AttemptRecord>(KIND_ATTEMPT, event.at, event.cpu),
        first_seen_ns: event.first_seen.0,
        first_drop_ns: event.first_drop.map_or(0, |first| first.at.0),
        tuple: tuple(&event.attempt.tuple),
        isn: event.attempt.isn,
        service: service(&event.service),
        real_server: real_server(event.real_server),
        weight: event.weight,
        retransmits: event.retransmits,
        drops: event.drops,
        decision: event.verdict.decision() as u8,
        cause: cause(event.verdict),
        first_drop_cause: event.first_drop.map_or(0, |first| first.cause as u8),
        old_state: event.old_state.map_or(0, EntryState::number),
        pad: [0; 4],
    }
}

fn syn_drop(event: &SynDropped) -> SynDropRecord {
    SynDropRecord {
        header: header::<SynDropRecord>(KIND_SYN_DROP, event.at, event.cpu),
        location: event.location,
        tuple: tuple(&event.attempt.tuple),
        isn: event.attempt.isn,
        service: event
            .sent_on
            .map_or(ServiceKey::NONE, |sent| service(&sent.service)),
        real_server: real_server(event.sent_on.map(|sent| sent.real_server)),
        weight: event.sent_on.map_or(0, |sent| sent.weight),
        netns: event.netns.0,
        reason: event.reason,
        cause: event.cause as u8,
        hook: event.hook.map_or(0, |hook| hook as u8),
        client_informed: event.client_informed.into(),
        decision: event.sent_on.map_or(0, |sent| sent.decision as u8),
    }
}

fn real_server_changed(event: &RealServerChanged) -> RealServerRecord {
    RealServerRecord {
        header: header::<RealServerRecord>(KIND_REAL_SERVER, event.at, event.cpu),
        service: service(&event.service),
        real_server: real_server(Some(event.real_server)),
        weight: event.weight,
        change: event.change.number(),
        pad: [0; 3],
    }
}

fn outcome(event: &OutcomeSeen) -> OutcomeRecord {
    OutcomeRecord {
        header: header::<OutcomeRecord>(KIND_OUTCOME, event.at, event.cpu),
        since_ns: event.since.0,
        tuple: tuple(&event.attempt.tuple),
        isn: event.attempt.isn,
        service: service(&event.service),
        real_server: real_server(event.real_server),
        weight: event.weight,
        retransmits: event.retransmits,
        outcome: event.outcome as u8,
        cause: event.cause as u8,
    }
}

fn datagrams(event: &StaleDatagrams) -> DatagramRecord {
    DatagramRecord {
        header: header::<DatagramRecord>(KIND_DATAGRAM, event.at, event.cpu),
        since_ns: event.since.0,
        datagrams: event.datagrams,
        tuple: tuple(&event.tuple),
        service: service(&event.service),
        real_server: real_server(event.real_server),
        weight: event.weight,
        removed: event.removed.into(),
        pad: [0; 7],
    }
}

/// The number of a verdict's cause, 0 where it has none.
#[must_use]
pub const fn cause(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::ReusedStale(cause) => cause as u8,
        Verdict::Dropped(cause) => cause as u8,
        Verdict::Scheduled | Verdict::Reused | Verdict::Rescheduled => 0,
    }
}

/// The wire key of a service.
#[must_use]
pub fn service(service: &Service) -> ServiceKey {
    let none = ServiceKey {
        netns: service.netns.0,
        ..ServiceKey::NONE
    };
    match service.name {
        ServiceName::Unknown => none,
        ServiceName::Fwmark { mark, family } => ServiceKey {
            fwmark: mark,
            family: family_number(family),
            ..none
        },
        ServiceName::Address { proto, local } => {
            let (addr, family) = address(local);
            ServiceKey {
                addr,
                family,
                port: local.port(),
                proto: proto.number(),
                ..none
            }
        }
    }
}

/// The wire key of a real server.
#[must_use]
pub fn real_server(real_server: Option<RealServer>) -> RealServerKey {
    real_server.map_or(RealServerKey::NONE, |RealServer(socket)| {
        let (addr, family) = address(socket);
        RealServerKey {
            addr,
            family,
            port: socket.port(),
            pad: 0,
        }
    })
}

fn tuple(tuple: &Tuple) -> TupleKey {
    let (client_addr, family) = address(tuple.client);
    let (dest_addr, _) = address(tuple.destination);
    TupleKey {
        client_addr,
        dest_addr,
        client_port: tuple.client.port(),
        dest_port: tuple.destination.port(),
        netns: tuple.netns.0,
        family,
        proto: tuple.proto.number(),
        pad: [0; 2],
    }
}

fn header<T>(kind: u16, at: MonoNs, cpu: u32) -> RecordHeader {
    RecordHeader {
        ktime_ns: at.0,
        kind,
        len: u16::try_from(size_of::<T>()).unwrap_or(u16::MAX),
        cpu,
    }
}

fn address(socket: SocketAddr) -> ([u8; 16], u8) {
    match socket.ip() {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            let [a, b, c, d] = v4.octets();
            [bytes[0], bytes[1], bytes[2], bytes[3]] = [a, b, c, d];
            (bytes, FAMILY_IPV4)
        }
        IpAddr::V6(v6) => (v6.octets(), FAMILY_IPV6),
    }
}

const fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => FAMILY_IPV4,
        Family::V6 => FAMILY_IPV6,
    }
}
