//! Findings about the node: counted, not seen packet by packet, so they have no client.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use agent_common::node::NodeEvent;
use serde::Serialize;

use super::Finding;
use super::parts::{Number, nanoseconds};
use crate::clock::MonoNs;
use crate::event::{NetnsId, NodeProblem};

/// What a counter grew by, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// When it was read.
    pub at: MonoNs,
    /// What is counted.
    pub cause: NodeProblem,
    /// Network namespace; `None` where it is not known.
    pub netns: Option<NetnsId>,
    /// The listener or destination; of several, the latest, if that is known.
    pub destination: Option<SocketAddr>,
    /// How often it happened since it was last reported.
    pub count: u64,
    /// The time that `count` is of.
    pub lasted: Duration,
}

impl From<Counted> for Finding {
    fn from(counted: Counted) -> Self {
        let Counted {
            at,
            cause,
            netns,
            destination,
            count,
            lasted,
        } = counted;
        let count = Count { count, lasted };
        match cause {
            NodeProblem::Event(NodeEvent::AcceptQueueFull | NodeEvent::SynQueueFull) => {
                SynsRefused {
                    at,
                    netns,
                    listener: destination,
                    cause,
                    count,
                }
                .into()
            }
            NodeProblem::Event(NodeEvent::HandshakeRefused) => HandshakesForgotten {
                at,
                netns,
                listener: destination,
                cause,
                count,
            }
            .into(),
            NodeProblem::Event(NodeEvent::SourcePortsExhausted) => ConnectFailed {
                at,
                netns,
                destination,
                cause,
                count,
            }
            .into(),
            NodeProblem::Event(
                NodeEvent::FragNeededSent
                | NodeEvent::FragNeededReceived
                | NodeEvent::BlackHoleSuspected,
            ) => PacketTooBig {
                at,
                netns,
                destination,
                cause,
                count,
            }
            .into(),
            NodeProblem::TcpMemory | NodeProblem::UdpReceiveBuffer | NodeProblem::UdpMemory => {
                SocketDropped { at, cause, count }.into()
            }
            NodeProblem::ConntrackInsertFailed => ConntrackFailed { at, cause, count }.into(),
        }
    }
}

/// How often, in which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Count {
    /// How often it happened since it was last reported; the rate of reports is bounded, the count
    /// is not.
    pub count: u64,
    /// The time that `count` is of.
    #[serde(rename = "lasted_ns", serialize_with = "nanoseconds")]
    #[cfg_attr(feature = "schema", schemars(with = "u64"))]
    pub lasted: Duration,
}

impl Count {
    /// `3 SYNs in 1.0 s`
    const fn of(self, what: &'static str) -> CountOf {
        CountOf(self, what)
    }
}

struct CountOf(Count, &'static str);

impl fmt::Display for CountOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.lasted.as_secs_f64();
        write!(f, "{} in {seconds:.1} s", Number(self.0.count, self.1))
    }
}

/// An address, or several of that kind.
struct OneOrSeveral(&'static str, Option<SocketAddr>, &'static str);

impl fmt::Display for OneOrSeveral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(at) => write!(f, "{}{at}", self.0),
            None => f.write_str(self.2),
        }
    }
}

const fn listener(at: Option<SocketAddr>) -> OneOrSeveral {
    OneOrSeveral("listener ", at, "several listeners")
}

/// See [`super::FindingKind::SynsRefused`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SynsRefused {
    /// When the counter was read.
    #[serde(rename = "mono_ns")]
    pub at: MonoNs,
    /// Network namespace of the listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<NetnsId>,
    /// The listener; absent if several are counted as one.
    #[serde(rename = "destination", skip_serializing_if = "Option::is_none")]
    pub listener: Option<SocketAddr>,
    /// Which queue is full.
    pub cause: NodeProblem,
    /// How many SYNs.
    #[serde(flatten)]
    pub count: Count,
}

impl fmt::Display for SynsRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, syns) = (listener(self.listener), self.count.of("SYN"));
        write!(f, "{at} refused {syns}: {}", self.cause.as_str())
    }
}

/// See [`super::FindingKind::HandshakesForgotten`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HandshakesForgotten {
    /// When the counter was read.
    #[serde(rename = "mono_ns")]
    pub at: MonoNs,
    /// Network namespace of the listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<NetnsId>,
    /// The listener; absent if several are counted as one.
    #[serde(rename = "destination", skip_serializing_if = "Option::is_none")]
    pub listener: Option<SocketAddr>,
    /// Which queue is full.
    pub cause: NodeProblem,
    /// How many final ACKs.
    #[serde(flatten)]
    pub count: Count,
}

impl fmt::Display for HandshakesForgotten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = listener(self.listener);
        let acks = self.count.of("final handshake ACK");
        write!(f, "{at} dropped {acks}: {}", self.cause.as_str())
    }
}

/// See [`super::FindingKind::ConnectFailed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConnectFailed {
    /// When the counter was read.
    #[serde(rename = "mono_ns")]
    pub at: MonoNs,
    /// Network namespace of the clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<NetnsId>,
    /// The destination; absent if several are counted as one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<SocketAddr>,
    /// What there is none of.
    pub cause: NodeProblem,
    /// How many connects.
    #[serde(flatten)]
    pub count: Count,
}

impl fmt::Display for ConnectFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = OneOrSeveral("", self.destination, "several destinations");
        let times = self.count.of("time");
        write!(f, "connect to {to} failed {times}: {}", self.cause.as_str())
    }
}

/// See [`super::FindingKind::PacketTooBig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PacketTooBig {
    /// When the counter was read.
    #[serde(rename = "mono_ns")]
    pub at: MonoNs,
    /// Network namespace, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<NetnsId>,
    /// The latest destination; port 0 where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<SocketAddr>,
    /// By what it was seen.
    pub cause: NodeProblem,
    /// How many packets.
    #[serde(flatten)]
    pub count: Count,
}

impl fmt::Display for PacketTooBig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packets = self.count.of("packet");
        write!(f, "path MTU exceeded: {packets}")?;
        if let Some(at) = self.destination {
            write!(f, ", latest destination {}", at.ip())?;
        }
        write!(f, ": {}", self.cause.as_str())
    }
}

/// See [`super::FindingKind::SocketDropped`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SocketDropped {
    /// When the counter was read.
    #[serde(rename = "mono_ns")]
    pub at: MonoNs,
    /// Which memory was short.
    pub cause: NodeProblem,
    /// How many packets.
    #[serde(flatten)]
    pub count: Count,
}

impl fmt::Display for SocketDropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packets = self.count.of("packet");
        write!(f, "sockets dropped {packets}: {}", self.cause.as_str())
    }
}

/// See [`super::FindingKind::ConntrackFailed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConntrackFailed {
    /// When the counter was read.
    #[serde(rename = "mono_ns")]
    pub at: MonoNs,
    /// What is counted.
    pub cause: NodeProblem,
    /// How many entries.
    #[serde(flatten)]
    pub count: Count,
}

impl fmt::Display for ConntrackFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.count.count;
        let plural = if entries == 1 { "entry" } else { "entries" };
        write!(f, "conntrack could not insert {entries} {plural}")
    }
}

/// See [`super::FindingKind::ListenerInPortRange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListenerInPortRange {
    /// When it was seen.
    #[serde(rename = "mono_ns")]
    pub at: MonoNs,
    /// The listener.
    #[serde(rename = "destination")]
    pub listener: SocketAddr,
    /// `listener_in_port_range`
    cause: &'static str,
}

impl ListenerInPortRange {
    /// Seen at `at`.
    #[must_use]
    pub const fn new(at: MonoNs, listener: SocketAddr) -> Self {
        Self {
            at,
            listener,
            cause: "listener_in_port_range",
        }
    }
}

impl fmt::Display for ListenerInPortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "listener {} listens on a port inside ip_local_port_range",
            self.listener
        )
    }
}
