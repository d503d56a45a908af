//! What is told to people: one type, one line, one JSON object.
//!
//! PURE. `correlate` makes findings of events and counters, `table` of readings of the IPVS tables;
//! `outputs` tells them, whoever made them.

mod json;
#[cfg(test)]
mod tests;
mod text;

use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::MonoNs;
use crate::event::{
    AttemptDecided, EntryState, NetnsId, OutcomeSeen, RealServer, Service, ServiceName,
    StaleDatagrams, SynDropped, Trouble, Tuple,
};
use crate::table::draining::{Concluded, Ending, Timeline};
use agent_common::netfilter::HookPoint;
use agent_common::node::NodeEvent;
use agent_common::verdict::{Decision, DropCause, Outcome, StaleCause};

/// What kind of thing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FindingKind {
    /// An attempt was sent to a stale real server.
    StaleConnection,
    /// What became of an attempt that was sent to a stale real server.
    StaleOutcome,
    /// A flow of datagrams goes to a stale real server; a sample of it.
    StaleFlow,
    /// A SYN came again although none of the attempt was lost here: this node is exonerated.
    SynLostElsewhere,
    /// A SYN died on this node, a retransmit of it got through: the client waited.
    ConnectDelayed,
    /// IPVS dropped a SYN, and no retransmit got through here before the deadline.
    ConnectBlocked,
    /// A SYN that never met IPVS died on this node, and no retransmit got through to IPVS.
    SynDropped,
    /// A listener of this node refused SYNs: one of its queues is full.
    SynsRefused,
    /// A listener of this node forgot handshakes at their last packet: its accept queue is full.
    HandshakesForgotten,
    /// Clients on this node could not connect: no source port is left.
    ConnectFailed,
    /// Packets were too big for their way.
    PacketTooBig,
    /// Sockets of this node threw packets away for want of memory.
    SocketDropped,
    /// Conntrack could not insert entries.
    ConntrackFailed,
    /// A listener has a port that an outgoing connection may be given as well.
    ListenerInPortRange,
    /// An ordinary decision, told only when all of them are asked for.
    Decision,
    /// A draining real server was removed from its service.
    DrainingEnded,
    /// A real server has weight 0 and no connections, and nobody removes it.
    DrainingForgotten,
    /// A service that had real servers to choose from has none any more.
    NoRealServer,
}

impl FindingKind {
    /// Every member.
    pub const ALL: &'static [Self] = &[
        Self::StaleConnection,
        Self::StaleOutcome,
        Self::StaleFlow,
        Self::SynLostElsewhere,
        Self::ConnectDelayed,
        Self::ConnectBlocked,
        Self::SynDropped,
        Self::SynsRefused,
        Self::HandshakesForgotten,
        Self::ConnectFailed,
        Self::PacketTooBig,
        Self::SocketDropped,
        Self::ConntrackFailed,
        Self::ListenerInPortRange,
        Self::Decision,
        Self::DrainingEnded,
        Self::DrainingForgotten,
        Self::NoRealServer,
    ];

    /// The word of `kind` in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::StaleConnection => "stale_connection",
            Self::StaleOutcome => "stale_outcome",
            Self::StaleFlow => "stale_flow",
            Self::SynLostElsewhere => "syn_lost_elsewhere",
            Self::ConnectDelayed => "connect_delayed",
            Self::ConnectBlocked => "connect_blocked",
            Self::SynDropped => "syn_dropped",
            Self::SynsRefused => "syns_refused",
            Self::HandshakesForgotten => "handshakes_forgotten",
            Self::ConnectFailed => "connect_failed",
            Self::PacketTooBig => "packet_too_big",
            Self::SocketDropped => "socket_dropped",
            Self::ConntrackFailed => "conntrack_failed",
            Self::ListenerInPortRange => "listener_in_port_range",
            Self::Decision => "decision",
            Self::DrainingEnded => "draining_ended",
            Self::DrainingForgotten => "draining_forgotten",
            Self::NoRealServer => "no_real_server",
        }
    }
}

/// Why: a stale cause, a drop cause or a trouble of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// Of a stale connection.
    Stale(StaleCause),
    /// Of a dropped SYN.
    Drop(DropCause),
    /// Of what was counted about the node.
    Node(Trouble),
}

impl Cause {
    /// The word of `cause` in metrics and JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stale(cause) => cause.word(),
            Self::Drop(cause) => cause.word(),
            Self::Node(trouble) => trouble.word(),
        }
    }
}

/// Who or what a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Packets of a client.
    Flow(Tuple),
    /// Something at a place of this node.
    Node {
        /// Network namespace; `None` where it is not told apart.
        netns: Option<NetnsId>,
        /// The listener, or the destination; of several, one.
        at: Option<SocketAddr>,
    },
}

/// What the IPVS tables showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableEvidence {
    /// Of one draining real server.
    Draining(Timeline, Ending),
    /// Nobody is left to choose.
    Vacant {
        /// Real servers the service still lists, all with weight 0.
        draining: usize,
    },
}

/// One finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was found.
    pub kind: FindingKind,
    /// When: the decision, the SYN that got through, or the drop nothing followed.
    pub at: MonoNs,
    /// Who asked whom, where.
    pub subject: Subject,
    /// Initial sequence number of the attempt; 0 for datagrams.
    pub isn: u32,
    /// Service, as far as IPVS saw the attempt.
    pub service: Service,
    /// Real server the SYN went to, or the one its old entry named.
    pub real_server: Option<RealServer>,
    /// Weight of that real server at the decision.
    pub weight: Option<i32>,
    /// What IPVS did with the SYN this finding ends with.
    pub decision: Option<Decision>,
    /// Why it is a finding.
    pub cause: Option<Cause>,
    /// What became of it.
    pub outcome: Option<Outcome>,
    /// State of the entry the SYN met.
    pub old_state: Option<EntryState>,
    /// From the first dropped SYN to the one that got through.
    pub delay: Option<Duration>,
    /// From the decision to the outcome, from the first datagram of a flow to this one, or the time
    /// that `count` is of.
    pub lasted: Option<Duration>,
    /// How often it happened since it was told last; the rate of telling is bounded, the count is
    /// not.
    pub count: Option<u64>,
    /// Datagrams of the flow seen so far.
    pub datagrams: Option<u64>,
    /// How long after the last dead SYN nothing had got through; the deadline, or less at the end.
    pub waited: Option<Duration>,
    /// SYNs of the attempt known to have died here.
    pub drops: u32,
    /// SYNs of the attempt seen before the one this finding ends with.
    pub retransmits: Option<u16>,
    /// The hook of netfilter whose rules dropped the SYN, where that is known.
    pub hook: Option<HookPoint>,
    /// The kernel's number of its drop reason, where it freed the SYN itself.
    pub kernel_reason: Option<u32>,
    /// Kernel address of the code that freed the SYN.
    pub kernel_location: Option<u64>,
    /// Events lost while the attempt was held: above 0, a missing outcome may be one of them.
    pub events_lost: u64,
    /// What the IPVS tables showed, where the finding rests on them.
    pub table: Option<TableEvidence>,
}

impl Finding {
    /// A finding that rests on one decision.
    #[must_use]
    pub fn of_decision(kind: FindingKind, decided: &AttemptDecided) -> Self {
        Self {
            at: decided.at,
            isn: decided.attempt.isn,
            real_server: decided.real_server,
            weight: decided.real_server.map(|_| decided.weight),
            decision: Some(decided.verdict.decision()),
            old_state: decided.old_state,
            drops: decided.drops.into(),
            retransmits: Some(decided.retransmits),
            ..Self::about(kind, Subject::Flow(decided.attempt.tuple), decided.service)
        }
    }

    /// What became of a stale attempt.
    #[must_use]
    pub fn of_outcome(seen: &OutcomeSeen) -> Self {
        Self {
            at: seen.at,
            isn: seen.attempt.isn,
            decision: Some(Decision::ReusedStale),
            cause: Some(Cause::Stale(seen.cause)),
            outcome: Some(seen.outcome),
            lasted: Some(seen.at.since(seen.since)),
            retransmits: Some(seen.retransmits),
            weight: seen.real_server.map(|_| seen.weight),
            real_server: seen.real_server,
            ..Self::about(
                FindingKind::StaleOutcome,
                Subject::Flow(seen.attempt.tuple),
                seen.service,
            )
        }
    }

    /// A flow of datagrams to a stale real server.
    #[must_use]
    pub fn of_datagrams(seen: &StaleDatagrams) -> Self {
        Self {
            at: seen.at,
            lasted: Some(seen.at.since(seen.since)),
            datagrams: Some(seen.datagrams),
            cause: seen.removed.then_some(Cause::Drop(DropCause::IpvsRemoved)),
            weight: seen.real_server.map(|_| seen.weight),
            real_server: seen.real_server,
            ..Self::about(
                FindingKind::StaleFlow,
                Subject::Flow(seen.tuple),
                seen.service,
            )
        }
    }

    const fn about(kind: FindingKind, subject: Subject, service: Service) -> Self {
        Self {
            kind,
            at: MonoNs(0),
            subject,
            isn: 0,
            service,
            real_server: None,
            weight: None,
            decision: None,
            cause: None,
            outcome: None,
            old_state: None,
            delay: None,
            lasted: None,
            count: None,
            datagrams: None,
            waited: None,
            drops: 0,
            retransmits: None,
            hook: None,
            kernel_reason: None,
            kernel_location: None,
            events_lost: 0,
            table: None,
        }
    }

    /// A finding that rests on a SYN the kernel freed.
    #[must_use]
    pub fn of_syn_drop(dropped: &SynDropped) -> Self {
        let tuple = dropped.attempt.tuple;
        let service = Service {
            netns: tuple.netns,
            name: ServiceName::Unknown,
        };
        Self {
            at: dropped.at,
            isn: dropped.attempt.isn,
            cause: Some(Cause::Drop(dropped.cause)),
            drops: 1,
            hook: dropped.hook,
            kernel_reason: Some(dropped.reason),
            kernel_location: Some(dropped.location),
            ..Self::about(FindingKind::SynDropped, Subject::Flow(tuple), service)
        }
    }

    /// What was counted about the node.
    #[must_use]
    pub fn of_trouble(trouble: Trouble, netns: Option<NetnsId>, at: Option<SocketAddr>) -> Self {
        let service = Service {
            netns: netns.unwrap_or_default(),
            name: ServiceName::Unknown,
        };
        Self {
            cause: Some(Cause::Node(trouble)),
            ..Self::about(kind_of(trouble), Subject::Node { netns, at }, service)
        }
    }

    /// What became of a draining real server.
    #[must_use]
    pub const fn of_draining(concluded: &Concluded) -> Self {
        let (service, real_server) = concluded.place;
        let (kind, at) = match concluded.ending {
            Ending::Removed { at, .. } => (FindingKind::DrainingEnded, at),
            Ending::Forgotten { at, .. } => (FindingKind::DrainingForgotten, at),
        };
        Self {
            at,
            real_server: Some(real_server),
            weight: Some(0),
            table: Some(TableEvidence::Draining(
                concluded.timeline,
                concluded.ending,
            )),
            ..Self::about_service(kind, service)
        }
    }

    /// A service has nobody left to choose, though it lists `draining` real servers.
    #[must_use]
    pub const fn of_vacancy(at: MonoNs, service: Service, draining: usize) -> Self {
        Self {
            at,
            table: Some(TableEvidence::Vacant { draining }),
            ..Self::about_service(FindingKind::NoRealServer, service)
        }
    }

    const fn about_service(kind: FindingKind, service: Service) -> Self {
        let subject = Subject::Node {
            netns: Some(service.netns),
            at: None,
        };
        Self::about(kind, subject, service)
    }

    /// Client address and port.
    #[must_use]
    pub const fn client(&self) -> Option<SocketAddr> {
        match self.subject {
            Subject::Flow(tuple) => Some(tuple.client),
            Subject::Node { .. } => None,
        }
    }

    /// Address and port the client asked for, or the listener or destination concerned.
    #[must_use]
    pub const fn destination(&self) -> Option<SocketAddr> {
        match self.subject {
            Subject::Flow(tuple) => Some(tuple.destination),
            Subject::Node { at, .. } => at,
        }
    }

    /// Network namespace it happened in.
    #[must_use]
    pub const fn netns(&self) -> Option<NetnsId> {
        match self.subject {
            Subject::Flow(tuple) => Some(tuple.netns),
            Subject::Node { netns, .. } => netns,
        }
    }
}

const fn kind_of(trouble: Trouble) -> FindingKind {
    match trouble {
        Trouble::Event(NodeEvent::AcceptQueueFull | NodeEvent::SynQueueFull) => {
            FindingKind::SynsRefused
        }
        Trouble::Event(NodeEvent::HandshakeRefused) => FindingKind::HandshakesForgotten,
        Trouble::Event(NodeEvent::SourcePortsExhausted) => FindingKind::ConnectFailed,
        Trouble::Event(
            NodeEvent::FragNeededSent
            | NodeEvent::FragNeededReceived
            | NodeEvent::BlackHoleSuspected,
        ) => FindingKind::PacketTooBig,
        Trouble::TcpMemory | Trouble::UdpReceiveBuffer | Trouble::UdpMemory => {
            FindingKind::SocketDropped
        }
        Trouble::ConntrackInsertFailed => FindingKind::ConntrackFailed,
        Trouble::ListenerInPortRange => FindingKind::ListenerInPortRange,
    }
}
