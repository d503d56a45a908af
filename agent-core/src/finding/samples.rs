//! A finding of every kind, made by the state machines that make them.

use std::net::SocketAddr;
use std::time::Duration;

use agent_common::node::NodeEvent;
use agent_common::verdict::{Decision, DropCause, StaleCause};

use super::Finding;
use crate::clock::MonoNs;
use crate::correlate::{Correlator, NodeWatch};
use crate::decode::NodeCount;
use crate::decode::proc::Readings;
use crate::event::{
    AttemptDecided, FirstDrop, NetnsId, PacketEvent, RealServer, SentOn, StaleDatagrams,
    SynDropped, Verdict,
};
use crate::table::draining::{Concluded, Ending, Holder, TimeSource, Timeline};
use crate::testing::{
    sample_attempt, sample_datagrams, sample_outcome, sample_service, sample_syn_drop,
};

/// At least one finding of every kind, those with optional evidence with and without it.
pub fn samples() -> Vec<Finding> {
    let mut findings = of_packets();
    findings.extend(of_node());
    findings.extend(of_tables());
    findings
}

fn of_packets() -> Vec<Finding> {
    let mut correlator = Correlator::new(true);
    for (isn, event) in (1_u32..).zip(packets()) {
        let event = match event {
            PacketEvent::AttemptDecided(mut decided) => {
                decided.attempt.isn = isn;
                PacketEvent::AttemptDecided(decided)
            }
            other => other,
        };
        correlator.handle_event(event.at(), event);
    }
    correlator.handle_loss(MonoNs(0), 3);
    correlator.handle_end(MonoNs(30_000_000_000));
    std::iter::from_fn(|| correlator.poll_output()).collect()
}

fn packets() -> Vec<PacketEvent> {
    let attempt = sample_attempt();
    let plain = AttemptDecided {
        verdict: Verdict::Scheduled,
        weight: 1,
        old_state: None,
        ..attempt
    };
    let first_drop = Some(FirstDrop {
        at: attempt.at - Duration::from_millis(1_033),
        cause: DropCause::IpvsReuse,
    });
    let mut elsewhere = sample_syn_drop();
    elsewhere.attempt.isn = 1_000;
    elsewhere.attempt.tuple.destination.set_port(22);
    let hookless = SynDropped {
        hook: None,
        cause: DropCause::Other,
        ..sample_syn_drop()
    };
    let mut behind = sample_syn_drop();
    behind.attempt.isn = 1_001;
    behind.netns = NetnsId(4_026_532_165);
    behind.sent_on = attempt.real_server.map(|real_server| SentOn {
        service: attempt.service,
        real_server,
        weight: 1,
        decision: Decision::Scheduled,
    });
    vec![
        PacketEvent::AttemptDecided(attempt),
        PacketEvent::AttemptDecided(AttemptDecided {
            verdict: Verdict::ReusedStale(StaleCause::Persistence),
            ..plain
        }),
        PacketEvent::OutcomeSeen(sample_outcome()),
        PacketEvent::StaleDatagrams(sample_datagrams()),
        PacketEvent::StaleDatagrams(StaleDatagrams {
            removed: true,
            ..sample_datagrams()
        }),
        PacketEvent::AttemptDecided(AttemptDecided {
            first_seen: attempt.at - Duration::from_millis(1_030),
            retransmits: 1,
            ..plain
        }),
        PacketEvent::AttemptDecided(AttemptDecided {
            first_drop,
            drops: 1,
            retransmits: 1,
            ..plain
        }),
        PacketEvent::AttemptDecided(AttemptDecided {
            verdict: Verdict::Dropped(DropCause::IpvsReuse),
            drops: 1,
            ..attempt
        }),
        PacketEvent::AttemptDecided(AttemptDecided {
            verdict: Verdict::Dropped(DropCause::IpvsNoDestination),
            real_server: None,
            drops: 1,
            ..plain
        }),
        PacketEvent::SynDropped(elsewhere),
        PacketEvent::SynDropped(hookless),
        PacketEvent::SynDropped(behind),
        PacketEvent::AttemptDecided(plain),
    ]
}

fn of_node() -> Vec<Finding> {
    let mut watch = NodeWatch::default();
    let at = SocketAddr::from(([10, 0, 0, 1], 80));
    let count = |event, netns, at| NodeCount {
        event,
        netns: NetnsId(netns),
        at,
    };
    let counts = [
        (count(NodeEvent::AcceptQueueFull, 7, Some(at)), 3),
        (count(NodeEvent::SynQueueFull, 0, None), 2),
        (count(NodeEvent::HandshakeRefused, 7, Some(at)), 1),
        (count(NodeEvent::SourcePortsExhausted, 7, Some(at)), 5),
        (count(NodeEvent::FragNeededSent, 0, None), 2),
    ];
    let latest = [count(NodeEvent::FragNeededSent, 7, Some(at))];
    watch.handle_counts(MonoNs(1_000_000_000), &[], &[]);
    watch.handle_counts(MonoNs(2_000_000_000), &counts, &latest);
    let readings = |errors, listeners| Readings {
        tcp_memory: Some(errors),
        conntrack_insert_failed: Some(errors),
        listeners_in_port_range: Some(listeners),
        ..Readings::default()
    };
    watch.handle_procfs(MonoNs(10_000_000_000), &readings(0, Vec::new()));
    let listener = SocketAddr::from(([0, 0, 0, 0], 40_000));
    watch.handle_procfs(MonoNs(20_000_000_000), &readings(4, vec![listener]));
    std::iter::from_fn(|| watch.poll_output()).collect()
}

fn of_tables() -> Vec<Finding> {
    let timeline = Timeline {
        since: MonoNs(1_000_000_000),
        time_source: TimeSource::Live,
        last_scheduled: Some(MonoNs(900_000_000)),
        last_reused: None,
        last_stale: Some(MonoNs(4_000_000_000)),
        stale: 7,
        stale_datagrams: 0,
    };
    let concluded = |ending| Concluded {
        place: (
            sample_service(),
            RealServer(SocketAddr::from(([10, 1, 1, 2], 8080))),
        ),
        timeline,
        ending,
    };
    let removed = concluded(Ending::Removed {
        at: MonoNs(6_500_000_000),
        time_source: TimeSource::Live,
        held_by: Holder::PortReuse,
    });
    let forgotten = concluded(Ending::Forgotten {
        at: MonoNs(400_000_000_000),
        empty_since: MonoNs(90_000_000_000),
        wanted_by: 2,
    });
    vec![
        Finding::of_draining(&removed),
        Finding::of_draining(&forgotten),
        Finding::of_vacancy(MonoNs(3_000_000_000), sample_service(), 2),
    ]
}
