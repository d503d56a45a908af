//! What is told to people: one type, one line, one JSON object.
//!
//! PURE. The JSON fields are promised: they may grow, they do not change. Every field is always
//! present; what does not apply is `null`. The edge adds the wall time.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use agent_common::netfilter::HookPoint;
use agent_common::node::NodeEvent;
use agent_common::verdict::{Decision, DropCause, Outcome, StaleCause};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::clock::MonoNs;
use crate::event::{
    AttemptDecided, EntryState, NetnsId, OutcomeSeen, RealServer, Service, ServiceName,
    StaleDatagrams, SynDropped, Trouble, Tuple,
};

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
}

impl Finding {
    /// A finding that rests on one decision.
    #[must_use]
    pub fn of_decision(kind: FindingKind, decided: &AttemptDecided) -> Self {
        Self {
            kind,
            at: decided.at,
            subject: Subject::Flow(decided.attempt.tuple),
            isn: decided.attempt.isn,
            service: decided.service,
            real_server: decided.real_server,
            weight: decided.real_server.map(|_| decided.weight),
            decision: Some(decided.verdict.decision()),
            cause: None,
            outcome: None,
            old_state: decided.old_state,
            delay: None,
            lasted: None,
            count: None,
            datagrams: None,
            waited: None,
            drops: decided.drops.into(),
            retransmits: Some(decided.retransmits),
            hook: None,
            kernel_reason: None,
            kernel_location: None,
            events_lost: 0,
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
        map.end()
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

/// `a -> service via real server`, as far as each is known.
struct Route<'a>(&'a Finding);

impl fmt::Display for Route<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finding = self.0;
        let Subject::Flow(tuple) = finding.subject else {
            return f.write_str("nobody");
        };
        write!(f, "{} -> ", tuple.client)?;
        if finding.service.is_known() {
            write!(f, "{}", finding.service)
        } else {
            write!(f, "{} {}", tuple.proto, tuple.destination)
        }
    }
}

/// Where on this node, as far as it is known.
struct At<'a>(&'a Finding);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.kind, self.0.destination()) {
            (FindingKind::ConnectFailed, Some(at)) => write!(f, "{at}"),
            (FindingKind::ConnectFailed, None) => f.write_str("several destinations"),
            (_, Some(at)) => write!(f, "listener {at}"),
            (_, None) => f.write_str("several listeners"),
        }
    }
}

/// `3 SYNs in 1.0 s`.
struct Times<'a>(&'a Finding, &'static str);

impl fmt::Display for Times<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.count.unwrap_or_default();
        let plural = if count == 1 { "" } else { "s" };
        let seconds = self.0.lasted.unwrap_or_default().as_secs_f64();
        write!(f, "{count} {}{plural} in {seconds:.1} s", self.1)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = Route(self);
        let cause = self.cause.map_or("no cause", Cause::word);
        match self.kind {
            FindingKind::StaleConnection => {
                write!(f, "stale connection: {route} sent to ")?;
                self.write_real_server(f)?;
                write!(f, " by {cause}")?;
            }
            FindingKind::StaleOutcome => {
                let outcome = self.outcome.map_or("unknown", Outcome::word);
                let seconds = self.lasted.unwrap_or_default().as_secs_f64();
                write!(
                    f,
                    "stale connection {outcome} after {seconds:.3} s: {route} by "
                )?;
                self.write_real_server(f)?;
            }
            FindingKind::StaleFlow => self.write_flow(f)?,
            FindingKind::SynLostElsewhere => {
                let seconds = self.delay.unwrap_or_default().as_secs_f64();
                write!(
                    f,
                    "SYN lost elsewhere: {route}, came again after {seconds:.3} s, "
                )?;
                f.write_str("none of its SYNs died here; sent to ")?;
                self.write_real_server(f)?;
            }
            FindingKind::ConnectDelayed => {
                let seconds = self.delay.unwrap_or_default().as_secs_f64();
                write!(f, "connect delayed {seconds:.3} s: {route}, ")?;
                self.write_drops(f, cause)?;
                f.write_str(", then got through to ")?;
                self.write_real_server(f)?;
            }
            FindingKind::ConnectBlocked => {
                write!(f, "connect blocked: {route}, ")?;
                self.write_drops(f, cause)?;
                self.write_waited(f)?;
            }
            FindingKind::SynDropped => {
                write!(f, "SYN dropped: {route}, {} by {cause}", self.drops)?;
                if let Some(hook) = self.hook {
                    write!(f, " in {}", hook.word())?;
                }
                self.write_waited(f)?;
            }
            FindingKind::SynsRefused
            | FindingKind::HandshakesForgotten
            | FindingKind::ConnectFailed
            | FindingKind::PacketTooBig
            | FindingKind::SocketDropped
            | FindingKind::ConntrackFailed
            | FindingKind::ListenerInPortRange => self.write_about_node(f, cause)?,
            FindingKind::Decision => {
                let decision = self.decision.map_or("undecided", Decision::word);
                write!(f, "{decision}: {route} sent to ")?;
                self.write_real_server(f)?;
            }
        }
        if self.events_lost > 0 {
            write!(f, " ({} events lost meanwhile)", self.events_lost)?;
        }
        Ok(())
    }
}

impl Finding {
    fn write_flow(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.lasted.unwrap_or_default().as_secs_f64();
        write!(f, "stale flow: {}, ", Route(self))?;
        write!(f, "{} datagrams ", self.datagrams.unwrap_or_default())?;
        write!(f, "in {seconds:.1} s ")?;
        f.write_str(if self.cause.is_some() {
            "dropped, bound to removed "
        } else {
            "sent to "
        })?;
        self.write_real_server(f)
    }

    /// A finding of what was counted.
    fn write_about_node(&self, f: &mut fmt::Formatter<'_>, cause: &str) -> fmt::Result {
        match self.kind {
            FindingKind::SynsRefused => {
                write!(f, "{} refused {}: {cause}", At(self), Times(self, "SYN"))
            }
            FindingKind::HandshakesForgotten => {
                let handshakes = Times(self, "handshake");
                write!(f, "{} forgot {handshakes}: {cause}", At(self))
            }
            FindingKind::ConnectFailed => {
                write!(
                    f,
                    "connect to {} failed {}: {cause}",
                    At(self),
                    Times(self, "time")
                )
            }
            FindingKind::PacketTooBig => {
                write!(f, "too big for the way: {}", Times(self, "packet"))?;
                if let Some(at) = self.destination() {
                    write!(f, ", the last one to {}", at.ip())?;
                }
                write!(f, ": {cause}")
            }
            FindingKind::SocketDropped => {
                write!(f, "sockets dropped {}: {cause}", Times(self, "packet"))
            }
            FindingKind::ConntrackFailed => {
                let entries = self.count.unwrap_or_default();
                let plural = if entries == 1 { "entry" } else { "entries" };
                write!(f, "conntrack could not insert {entries} {plural}")
            }
            // The rest is not about the node, but a listener in the range of ports.
            _ => {
                write!(
                    f,
                    "{} has a port that outgoing connections are given as well",
                    At(self)
                )
            }
        }
    }

    fn write_real_server(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.real_server, self.weight) {
            (Some(server), Some(weight)) => write!(f, "{server} (weight {weight}"),
            _ => f.write_str("no real server ("),
        }?;
        match self.old_state {
            Some(state) => write!(f, ", old entry {})", state.word()),
            None => f.write_str(")"),
        }
    }

    fn write_drops(&self, f: &mut fmt::Formatter<'_>, cause: &str) -> fmt::Result {
        let plural = if self.drops == 1 { "" } else { "s" };
        write!(f, "{} SYN{plural} dropped by {cause}", self.drops)
    }

    fn write_waited(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.waited.unwrap_or_default().as_secs_f64();
        write!(f, ", none got through here in {seconds:.1} s")
    }
}
