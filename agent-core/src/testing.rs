//! Made-up events for the tests of several rooms.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "used by tests only; the texts parsed here are constants"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use agent_common::netfilter::HookPoint;
use agent_common::verdict::{Decision, DropCause, Outcome, StaleCause};
use proptest::prelude::*;
use proptest::sample::select;

use crate::clock::MonoNs;
use crate::event::{
    AttemptDecided, AttemptId, Change, ConfigEvent, EntryState, Event, Family, FirstDrop, NetnsId,
    OutcomeSeen, PacketEvent, Proto, RealServer, RealServerChanged, SentOn, Service, ServiceName,
    StaleDatagrams, SynDropped, Tuple, Verdict,
};

/// A connection that followed an old entry to a stale real server.
pub fn sample_attempt() -> AttemptDecided {
    AttemptDecided {
        at: MonoNs(5_000_000_000),
        attempt: sample_id(),
        verdict: Verdict::ReusedStale(StaleCause::PortReuse),
        service: sample_service(),
        real_server: Some(RealServer("10.1.1.2:8080".parse().unwrap())),
        weight: 0,
        first_seen: MonoNs(5_000_000_000),
        first_drop: None,
        retransmits: 0,
        drops: 0,
        old_state: Some(EntryState::TimeWait),
        cpu: 1,
    }
}

/// A SYN of the same attempt that a netfilter rule dropped.
pub fn sample_syn_drop() -> SynDropped {
    SynDropped {
        at: MonoNs(6_000_000_000),
        attempt: sample_id(),
        sent_on: None,
        netns: sample_id().tuple.netns,
        client_informed: false,
        cause: DropCause::Netfilter,
        hook: Some(HookPoint::Input),
        reason: 8,
        location: 0xffff_ffff_8123_4567,
        cpu: 0,
    }
}

/// What became of [`sample_attempt`].
pub fn sample_outcome() -> OutcomeSeen {
    OutcomeSeen {
        at: MonoNs(6_100_000_000),
        attempt: sample_id(),
        since: MonoNs(3_000_000_000),
        service: sample_service(),
        real_server: Some(RealServer("10.1.1.2:8080".parse().unwrap())),
        weight: 0,
        retransmits: 1,
        outcome: Outcome::Unreachable,
        cause: StaleCause::PortReuse,
        cpu: 1,
    }
}

/// Datagrams of one flow to a stale real server.
pub fn sample_datagrams() -> StaleDatagrams {
    let AttemptId { mut tuple, .. } = sample_id();
    tuple.proto = Proto::Udp;
    StaleDatagrams {
        at: MonoNs(6_900_000_000),
        tuple,
        since: MonoNs(900_000_000),
        datagrams: 21,
        service: sample_service(),
        real_server: Some(RealServer("10.1.1.2:8080".parse().unwrap())),
        weight: 0,
        removed: false,
        cpu: 1,
    }
}

/// The service of the other samples.
pub fn sample_service() -> Service {
    Service {
        netns: NetnsId(4_026_531_840),
        name: ServiceName::Address {
            proto: Proto::Tcp,
            local: "10.96.0.10:80".parse().unwrap(),
        },
    }
}

fn sample_id() -> AttemptId {
    AttemptId {
        tuple: Tuple {
            client: "10.0.0.2:40001".parse().unwrap(),
            destination: "10.96.0.10:80".parse().unwrap(),
            netns: NetnsId(4_026_531_840),
            proto: Proto::Tcp,
        },
        isn: 77,
    }
}

/// Any event that decoding can produce.
pub fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => any_packet_event().prop_map(Event::Packet),
        1 => any_real_server_changed()
            .prop_map(|changed| ConfigEvent::RealServerChanged(changed).into()),
    ]
}

/// Any event about packets that decoding can produce.
pub fn any_packet_event() -> impl Strategy<Value = PacketEvent> {
    prop_oneof![
        any_attempt().prop_map(PacketEvent::AttemptDecided),
        any_syn_drop().prop_map(PacketEvent::SynDropped),
        any_outcome().prop_map(PacketEvent::OutcomeSeen),
        any_datagrams().prop_map(PacketEvent::StaleDatagrams),
    ]
}

fn any_real_server_changed() -> impl Strategy<Value = RealServerChanged> {
    let numbers = (any::<u64>(), any::<i32>(), any::<u32>());
    let what = (any_service(), any_socket(), select(Change::ALL));
    (numbers, what).prop_map(|(numbers, what)| RealServerChanged {
        at: MonoNs(numbers.0),
        service: what.0,
        real_server: RealServer(what.1),
        weight: numbers.1,
        change: what.2,
        cpu: numbers.2,
    })
}

fn any_attempt() -> impl Strategy<Value = AttemptDecided> {
    let times = (any::<u64>(), any::<u64>(), any::<u32>());
    let who = (any_id(), any_service(), proptest::option::of(any_socket()));
    let what = (any_verdict(), any_first_drop(), any_old_state());
    let counts = (any::<i32>(), any::<u16>(), any::<u16>());
    (times, who, what, counts).prop_map(|(times, who, what, counts)| AttemptDecided {
        at: MonoNs(times.0),
        attempt: who.0,
        verdict: what.0,
        service: who.1,
        real_server: who.2.map(RealServer),
        weight: counts.0,
        first_seen: MonoNs(times.1),
        first_drop: what.1,
        retransmits: counts.1,
        drops: counts.2,
        old_state: what.2.filter(|state| state.proto() == who.0.tuple.proto),
        cpu: times.2,
    })
}

fn any_syn_drop() -> impl Strategy<Value = SynDropped> {
    let numbers = (any::<u64>(), any::<u32>(), any::<u64>(), any::<u32>());
    let hook = prop::option::of(select(HookPoint::ALL));
    let sent = (
        any_service(),
        any_socket(),
        any::<i32>(),
        select(Decision::ALL),
    );
    let sent = (prop::option::of(sent), any::<bool>());
    let all = (numbers, any_id(), any_drop_cause(), hook, sent);
    all.prop_map(|(numbers, attempt, cause, hook, sent)| SynDropped {
        at: MonoNs(numbers.0),
        attempt,
        sent_on: sent.0.map(|(service, server, weight, decision)| SentOn {
            service,
            real_server: RealServer(server),
            weight,
            decision,
        }),
        netns: NetnsId(numbers.3),
        client_informed: sent.1,
        cause,
        hook,
        reason: numbers.1,
        location: numbers.2,
        cpu: numbers.3,
    })
}

fn any_outcome() -> impl Strategy<Value = OutcomeSeen> {
    let times = (any::<u64>(), any::<u64>(), any::<u32>());
    let who = (any_id(), any_service(), proptest::option::of(any_socket()));
    let what = (select(Outcome::ALL), select(StaleCause::ALL));
    let counts = (any::<i32>(), any::<u16>());
    (times, who, what, counts).prop_map(|(times, who, what, counts)| OutcomeSeen {
        at: MonoNs(times.0),
        attempt: who.0,
        since: MonoNs(times.1),
        service: who.1,
        real_server: who.2.map(RealServer),
        weight: counts.0,
        retransmits: counts.1,
        outcome: what.0,
        cause: what.1,
        cpu: times.2,
    })
}

fn any_datagrams() -> impl Strategy<Value = StaleDatagrams> {
    let times = (any::<u64>(), any::<u64>(), any::<u32>());
    let who = (any_id(), any_service(), proptest::option::of(any_socket()));
    let what = (any::<i32>(), any::<u64>(), any::<bool>());
    (times, who, what).prop_map(|(times, who, what)| StaleDatagrams {
        at: MonoNs(times.0),
        tuple: who.0.tuple,
        since: MonoNs(times.1),
        datagrams: what.1,
        service: who.1,
        real_server: who.2.map(RealServer),
        weight: what.0,
        removed: what.2,
        cpu: times.2,
    })
}

fn any_id() -> impl Strategy<Value = AttemptId> {
    let ends = prop_oneof![(any_v4(), any_v4()).boxed(), (any_v6(), any_v6()).boxed()];
    (ends, any::<u32>(), select(Proto::ALL), any::<u32>()).prop_map(
        |((client, destination), netns, proto, isn)| AttemptId {
            tuple: Tuple {
                client,
                destination,
                netns: NetnsId(netns),
                proto,
            },
            isn,
        },
    )
}

fn any_service() -> impl Strategy<Value = Service> {
    let name = prop_oneof![
        Just(ServiceName::Unknown),
        (select(Proto::ALL), any_socket())
            .prop_map(|(proto, local)| ServiceName::Address { proto, local }),
        (1_u32.., select(vec![Family::V4, Family::V6]))
            .prop_map(|(mark, family)| ServiceName::Fwmark { mark, family }),
    ];
    (any::<u32>(), name).prop_map(|(netns, name)| Service {
        netns: NetnsId(netns),
        name,
    })
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Scheduled),
        Just(Verdict::Reused),
        Just(Verdict::Rescheduled),
        select(StaleCause::ALL).prop_map(Verdict::ReusedStale),
        any_drop_cause().prop_map(Verdict::Dropped),
    ]
}

fn any_first_drop() -> impl Strategy<Value = Option<FirstDrop>> {
    let first = (1_u64.., any_drop_cause()).prop_map(|(at, cause)| FirstDrop {
        at: MonoNs(at),
        cause,
    });
    proptest::option::of(first)
}

fn any_drop_cause() -> impl Strategy<Value = DropCause> {
    select(DropCause::ALL)
}

fn any_old_state() -> impl Strategy<Value = Option<EntryState>> {
    proptest::option::of(select(EntryState::ALL))
}

fn any_socket() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![any_v4(), any_v6()]
}

fn any_v4() -> impl Strategy<Value = SocketAddr> {
    (any::<u32>(), any::<u16>())
        .prop_map(|(ip, port)| SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), port))
}

fn any_v6() -> impl Strategy<Value = SocketAddr> {
    (any::<u128>(), any::<u16>())
        .prop_map(|(ip, port)| SocketAddr::new(IpAddr::V6(Ipv6Addr::from(ip)), port))
}

/// Up to 60 events of a few attempts in order of time, so that drops and passes meet.
pub fn any_story() -> impl Strategy<Value = Vec<PacketEvent>> {
    let step = (0_u64..2_000, 0_u32..4, 0_u8..4, any_packet_event());
    proptest::collection::vec(step, 0..60).prop_map(|steps| {
        let mut at = MonoNs(1_000_000_000);
        let mut story = Vec::new();
        for (gap_ms, isn, kind, event) in steps {
            at = at + std::time::Duration::from_millis(gap_ms);
            story.push(story_event(at, isn, kind, event));
        }
        story
    })
}

fn story_event(at: MonoNs, isn: u32, kind: u8, event: PacketEvent) -> PacketEvent {
    let attempt = AttemptId { isn, ..sample_id() };
    match (kind, event) {
        (0, _) => PacketEvent::SynDropped(SynDropped {
            at,
            attempt,
            ..sample_syn_drop()
        }),
        (1, _) => PacketEvent::AttemptDecided(AttemptDecided {
            at,
            attempt,
            verdict: Verdict::Dropped(DropCause::IpvsReuse),
            drops: 1,
            ..sample_attempt()
        }),
        (_, PacketEvent::AttemptDecided(decided)) => PacketEvent::AttemptDecided(AttemptDecided {
            at,
            attempt,
            first_drop: None,
            ..decided
        }),
        (_, PacketEvent::SynDropped(dropped)) => {
            PacketEvent::SynDropped(SynDropped { at, ..dropped })
        }
        (_, PacketEvent::OutcomeSeen(seen)) => PacketEvent::OutcomeSeen(OutcomeSeen { at, ..seen }),
        (_, PacketEvent::StaleDatagrams(seen)) => {
            PacketEvent::StaleDatagrams(StaleDatagrams { at, ..seen })
        }
    }
}
