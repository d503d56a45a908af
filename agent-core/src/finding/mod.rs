//! What is reported: a sum of kinds, each with exactly its evidence, one line and one JSON object.
//!
//! PURE. `correlate` makes findings of events and counters, `table` of readings of the IPVS tables;
//! `outputs` prints them, whoever made them. A kind's line and its JSON come from the same struct.
//! The JSON is promised in `docs/findings.md`: keys may be added, they do not change; what a kind or
//! a finding does not have is left out. The edge adds the wall time.

mod attempt;
mod node;
mod parts;
#[cfg(any(test, feature = "testing"))]
pub mod samples;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

pub use attempt::{
    Behind, ConnectBlocked, ConnectDelayed, OrdinaryDecision, StaleConnection, StaleFlow,
    StaleOutcome, SynDrop, SynLostElsewhere,
};
pub use node::{
    ConnectFailed, ConntrackFailed, Counted, HandshakesForgotten, ListenerInPortRange,
    PacketTooBig, SocketDropped, SynsRefused,
};
pub use parts::{Attempt, Client, WeightedServer};
pub use table::{DrainingEnded, DrainingForgotten, NoRealServer};

use crate::clock::MonoNs;

macro_rules! kinds {
    ($($(#[$meta:meta])* $kind:ident($evidence:ident) = $word:literal;)*) => {
        /// What kind of thing was found.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum FindingKind { $($(#[$meta])* $kind,)* }

        impl FindingKind {
            /// Every member.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// The word of `kind` in JSON.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $word,)* }
            }
        }

        /// One finding.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(tag = "kind")]
        pub enum Finding { $($(#[$meta])* #[serde(rename = $word)] $kind($evidence),)* }

        impl Finding {
            /// What was found.
            #[must_use]
            pub const fn kind(&self) -> FindingKind {
                match self { $(Self::$kind(_) => FindingKind::$kind,)* }
            }

            /// When: the decision, the SYN that got through, or the drop nothing followed.
            #[must_use]
            pub const fn at(&self) -> MonoNs {
                match self { $(Self::$kind(evidence) => evidence.at,)* }
            }
        }

        impl fmt::Display for Finding {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $(Self::$kind(evidence) => evidence.fmt(f),)* }
            }
        }

        $(impl From<$evidence> for Finding {
            fn from(evidence: $evidence) -> Self {
                Self::$kind(evidence)
            }
        })*
    };
}

kinds! {
    /// An attempt was sent to a stale real server.
    StaleConnection(StaleConnection) = "stale_connection";
    /// What became of an attempt that was sent to a stale real server.
    StaleOutcome(StaleOutcome) = "stale_outcome";
    /// A flow of datagrams goes to a stale real server; a sample of it.
    StaleFlow(StaleFlow) = "stale_flow";
    /// A SYN was retransmitted although none of the attempt was lost here: this node is exonerated.
    SynLostElsewhere(SynLostElsewhere) = "syn_lost_elsewhere";
    /// A SYN died on this node, a retransmit of it got through: the client waited.
    ConnectDelayed(ConnectDelayed) = "connect_delayed";
    /// IPVS dropped a SYN, and no retransmit got through here before the deadline.
    ConnectBlocked(ConnectBlocked) = "connect_blocked";
    /// A SYN that never met IPVS died on this node, and no retransmit got through to IPVS.
    SynDropped(SynDrop) = "syn_dropped";
    /// A listener of this node refused SYNs: one of its queues is full.
    SynsRefused(SynsRefused) = "syns_refused";
    /// A listener of this node dropped the final ACK of handshakes: its accept queue is full.
    HandshakesForgotten(HandshakesForgotten) = "handshakes_forgotten";
    /// Clients on this node could not connect: no source port is left.
    ConnectFailed(ConnectFailed) = "connect_failed";
    /// Packets exceeded the path MTU.
    PacketTooBig(PacketTooBig) = "packet_too_big";
    /// Sockets of this node dropped packets for want of memory.
    SocketDropped(SocketDropped) = "socket_dropped";
    /// Conntrack could not insert entries.
    ConntrackFailed(ConntrackFailed) = "conntrack_failed";
    /// A listener has a port that an outgoing connection may use as its source port.
    ListenerInPortRange(ListenerInPortRange) = "listener_in_port_range";
    /// An ordinary decision, reported only when all of them are asked for.
    Decision(OrdinaryDecision) = "decision";
    /// A draining real server was removed from its service.
    DrainingEnded(DrainingEnded) = "draining_ended";
    /// A real server has had weight 0 and no connections for long, and is still listed.
    DrainingForgotten(DrainingForgotten) = "draining_forgotten";
    /// A service that had real servers to choose from has none any more.
    NoRealServer(NoRealServer) = "no_real_server";
}
