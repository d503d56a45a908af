//! What happened, in the words of the field: the agent's own events.
//!
//! PURE. Addresses are [`std::net`] types, ports are in host order, enumerations are names.
//! Only `decode` knows both these and the wire records; nothing here knows bytes.

use std::fmt;
use std::net::SocketAddr;

use agent_common::netfilter::HookPoint;
use agent_common::node::NodeEvent;
use agent_common::record::{CHANGE_ADDED, CHANGE_REMOVED, CHANGE_WEIGHT_SET};
use agent_common::verdict::{Decision, DropCause, Outcome, StaleCause};
use serde::Serialize;

use crate::clock::MonoNs;

/// Inode number of a network namespace; 0 when it could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NetnsId(pub u32);

impl fmt::Display for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A transport IPVS can balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proto {
    /// TCP, number 6.
    Tcp,
    /// UDP, number 17.
    Udp,
    /// SCTP, number 132.
    Sctp,
}

impl Proto {
    /// Every member.
    pub const ALL: &'static [Self] = &[Self::Tcp, Self::Udp, Self::Sctp];

    /// The word `ipvsadm` and node_exporter use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Version of the Internet Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How a virtual service is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceName {
    /// The kernel program could not name it.
    Unknown,
    /// By protocol, address and port; port 0 is every port.
    Address {
        /// Transport.
        proto: Proto,
        /// Virtual address and port.
        local: SocketAddr,
    },
    /// By firewall mark.
    Fwmark {
        /// The mark, not 0.
        mark: u32,
        /// Family of the clients.
        family: Family,
    },
}

/// A virtual service of one network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// Where it is configured.
    pub netns: NetnsId,
    /// Its name there.
    pub name: ServiceName,
}

impl Service {
    /// Whether the service could be named.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        !matches!(self.name, ServiceName::Unknown)
    }

    /// `proto` as node_exporter prints it; `FWM` for a firewall mark, empty when unknown.
    #[must_use]
    pub const fn proto_word(&self) -> &'static str {
        match self.name {
            ServiceName::Unknown => "",
            ServiceName::Address { proto, .. } => proto.as_str(),
            ServiceName::Fwmark { .. } => "FWM",
        }
    }

    /// Virtual address; empty for a firewall mark and when unknown.
    #[must_use]
    pub fn local_address(&self) -> String {
        match self.name {
            ServiceName::Address { local, .. } => local.ip().to_string(),
            ServiceName::Unknown | ServiceName::Fwmark { .. } => String::new(),
        }
    }

    /// Virtual port; 0 for a firewall mark, none when unknown.
    #[must_use]
    pub const fn local_port(&self) -> Option<u16> {
        match self.name {
            ServiceName::Unknown => None,
            ServiceName::Address { local, .. } => Some(local.port()),
            ServiceName::Fwmark { .. } => Some(0),
        }
    }

    /// Firewall mark in the eight hexadecimal digits of `/proc/net/ip_vs`; else empty.
    #[must_use]
    pub fn local_mark(&self) -> String {
        match self.name {
            ServiceName::Fwmark { mark, .. } => format!("{mark:08X}"),
            ServiceName::Unknown | ServiceName::Address { .. } => String::new(),
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            ServiceName::Unknown => f.write_str("unknown service"),
            ServiceName::Address { proto, local } => write!(f, "{proto} {local}"),
            ServiceName::Fwmark { mark, .. } => write!(f, "FWM {mark:08X}"),
        }
    }
}

/// A real server under its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealServer(pub SocketAddr);

impl fmt::Display for RealServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who asked whom, in one network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Client address and port.
    pub client: SocketAddr,
    /// Address and port the client asked for; same family as the client.
    pub destination: SocketAddr,
    /// Where the packet was seen.
    pub netns: NetnsId,
    /// Transport.
    pub proto: Proto,
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.proto, self.client, self.destination)
    }
}

/// One attempt: a first SYN and the retransmits of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// Who asked whom.
    pub tuple: Tuple,
    /// Initial sequence number: distinguishes two attempts on the same tuple.
    pub isn: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} isn {}", self.tuple, self.isn)
    }
}

/// A problem of this node that is counted, and not seen packet by packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeProblem {
    /// Counted by the kernel programs.
    Event(NodeEvent),
    /// Segments dropped for want of memory.
    TcpMemory,
    /// Datagrams dropped because their socket's buffer was full.
    UdpReceiveBuffer,
    /// Datagrams dropped because all of UDP had no memory left.
    UdpMemory,
    /// Entries conntrack could not insert.
    ConntrackInsertFailed,
}

impl NodeProblem {
    /// Every member.
    pub const ALL: &'static [Self] = &[
        Self::Event(NodeEvent::AcceptQueueFull),
        Self::Event(NodeEvent::HandshakeRefused),
        Self::Event(NodeEvent::SynQueueFull),
        Self::Event(NodeEvent::SourcePortsExhausted),
        Self::Event(NodeEvent::FragNeededSent),
        Self::Event(NodeEvent::FragNeededReceived),
        Self::Event(NodeEvent::BlackHoleSuspected),
        Self::TcpMemory,
        Self::UdpReceiveBuffer,
        Self::UdpMemory,
        Self::ConntrackInsertFailed,
    ];

    /// The word of `cause`, as the metrics have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Event(NodeEvent::HandshakeRefused) => NodeEvent::AcceptQueueFull.as_str(),
            Self::Event(event) => event.as_str(),
            Self::TcpMemory => "tcp_memory",
            Self::UdpReceiveBuffer => "udp_receive_buffer",
            Self::UdpMemory => "udp_memory",
            Self::ConntrackInsertFailed => "conntrack_insert_failed",
        }
    }
}

/// What IPVS did with a SYN, with the cause where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// No entry: the scheduler chose.
    Scheduled,
    /// Followed an entry to a real server of weight > 0.
    Reused,
    /// Followed an entry or template to a stale real server.
    ReusedStale(StaleCause),
    /// Entry expired by the kernel, scheduler chose again.
    Rescheduled,
    /// IPVS dropped the SYN.
    Dropped(DropCause),
}

impl Verdict {
    /// The decision without its cause.
    #[must_use]
    pub const fn decision(self) -> Decision {
        match self {
            Self::Scheduled => Decision::Scheduled,
            Self::Reused => Decision::Reused,
            Self::ReusedStale(_) => Decision::ReusedStale,
            Self::Rescheduled => Decision::Rescheduled,
            Self::Dropped(_) => Decision::Dropped,
        }
    }
}

macro_rules! entry_states {
    ($($(#[$meta:meta])* $name:ident = $proto:ident $number:literal, $word:literal;)*) => {
        /// IPVS's state of an entry (`IP_VS_TCP_S_*`, `IP_VS_SCTP_S_*`), which is not that of
        /// an endpoint.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum EntryState { $($(#[$meta])* $name,)* }

        impl EntryState {
            /// Every member.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The kernel's number.
            #[must_use]
            pub const fn number(self) -> u8 {
                match self { $(Self::$name => $number,)* }
            }

            /// Whose states these are.
            #[must_use]
            pub const fn proto(self) -> Proto {
                match self { $(Self::$name => Proto::$proto,)* }
            }

            /// The state a protocol has under the kernel's number.
            #[must_use]
            pub const fn of(proto: Proto, number: u8) -> Option<Self> {
                match (proto, number) {
                    $((Proto::$proto, $number) => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The word `ipvsadm -Lnc` uses, in lower case and in full.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

entry_states! {
    /// Both sides talked.
    Established = Tcp 1, "established";
    /// A SYN from the real server's side.
    SynSent = Tcp 2, "syn_sent";
    /// A SYN from the client.
    SynRecv = Tcp 3, "syn_recv";
    /// One side closed.
    FinWait = Tcp 4, "fin_wait";
    /// Both sides closed; the entry lingers 120 s by default.
    TimeWait = Tcp 5, "time_wait";
    /// Reset; the entry lingers 10 s by default.
    Close = Tcp 6, "close";
    /// The client closed first.
    CloseWait = Tcp 7, "close_wait";
    /// The last ACK is awaited.
    LastAck = Tcp 8, "last_ack";
    /// Listening.
    Listen = Tcp 9, "listen";
    /// The synchronisation daemon's state before `established`.
    SynAck = Tcp 10, "synack";
    /// An INIT from the real server's side.
    SctpInit1 = Sctp 1, "init1";
    /// An INIT from the client.
    SctpInit = Sctp 2, "init";
    /// The real server's side was answered.
    SctpCookieSent = Sctp 3, "cookie_sent";
    /// The real server's side sent its cookie back.
    SctpCookieReplied = Sctp 4, "cookie_replied";
    /// The client's cookie is awaited.
    SctpCookieWait = Sctp 5, "cookie_wait";
    /// The client was answered.
    SctpCookie = Sctp 6, "cookie";
    /// The client sent its cookie back.
    SctpCookieEchoed = Sctp 7, "cookie_echoed";
    /// Both sides talked.
    SctpEstablished = Sctp 8, "established";
    /// One side begins to close.
    SctpShutdownSent = Sctp 9, "shutdown_sent";
    /// The other side closes too.
    SctpShutdownReceived = Sctp 10, "shutdown_received";
    /// The end is awaited.
    SctpShutdownAckSent = Sctp 11, "shutdown_ack_sent";
    /// Refused.
    SctpRejected = Sctp 12, "rejected";
    /// Closed.
    SctpClosed = Sctp 13, "closed";
}

crate::words::json!(EntryState, NodeProblem);

/// The first SYN of an attempt that died on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FirstDrop {
    /// When.
    pub at: MonoNs,
    /// Why.
    pub cause: DropCause,
}

/// IPVS decided about a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptDecided {
    /// When the kernel program ran.
    pub at: MonoNs,
    /// The attempt the SYN belongs to.
    pub attempt: AttemptId,
    /// What IPVS did with this very SYN.
    pub verdict: Verdict,
    /// Service the SYN belongs to.
    pub service: Service,
    /// Real server the SYN went to, or, when dropped, the one its old entry named.
    pub real_server: Option<RealServer>,
    /// Weight of that real server at the decision.
    pub weight: i32,
    /// When this attempt's first SYN was seen here.
    pub first_seen: MonoNs,
    /// The first SYN of the attempt that died here, if one did.
    pub first_drop: Option<FirstDrop>,
    /// SYNs of this attempt seen before this one.
    pub retransmits: u16,
    /// SYNs of this attempt dropped here so far.
    pub drops: u16,
    /// State of the entry the SYN met, if it met one.
    pub old_state: Option<EntryState>,
    /// CPU that wrote the record.
    pub cpu: u32,
}

/// Where IPVS sent a SYN on to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SentOn {
    /// Service the SYN belongs to.
    pub service: Service,
    /// The real server.
    pub real_server: RealServer,
    /// Its weight at the decision.
    pub weight: i32,
    /// The decision about the attempt.
    pub decision: Decision,
}

/// The kernel freed a SYN that IPVS did not drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SynDropped {
    /// When.
    pub at: MonoNs,
    /// The attempt: in front of IPVS if IPVS sent the SYN on, else as the packet read when it died.
    pub attempt: AttemptId,
    /// Where IPVS sent it on to; `None` if it did not.
    pub sent_on: Option<SentOn>,
    /// Where it died.
    pub netns: NetnsId,
    /// An ICMP error about it was sent to the client.
    pub client_informed: bool,
    /// Why.
    pub cause: DropCause,
    /// The innermost hook of netfilter on the stack when it was freed, where that is known.
    pub hook: Option<HookPoint>,
    /// The kernel's number of its drop reason; 0 on kernels without reasons.
    pub reason: u32,
    /// Kernel address of the code that freed the packet.
    pub location: u64,
    /// CPU that wrote the record.
    pub cpu: u32,
}

impl SynDropped {
    /// The hook of netfilter that dropped it: other code runs below a hook as well.
    #[must_use]
    pub fn netfilter_hook(&self) -> Option<HookPoint> {
        let by_hook = matches!(
            self.cause,
            DropCause::Netfilter | DropCause::ConntrackFull | DropCause::ConntrackInsert
        );
        self.hook.filter(|_| by_hook)
    }
}

/// What was done to a real server's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// Its weight was set; it may be the same as before.
    WeightSet,
    /// It was added to its service.
    Added,
    /// It was removed from its service.
    Removed,
}

impl Change {
    /// Every member.
    pub const ALL: &'static [Self] = &[Self::WeightSet, Self::Added, Self::Removed];

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::WeightSet => CHANGE_WEIGHT_SET,
            Self::Added => CHANGE_ADDED,
            Self::Removed => CHANGE_REMOVED,
        }
    }
}

/// Somebody configured a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealServerChanged {
    /// When.
    pub at: MonoNs,
    /// Its service.
    pub service: Service,
    /// Which.
    pub real_server: RealServer,
    /// Its weight from then on, or the last it had.
    pub weight: i32,
    /// What was done.
    pub change: Change,
    /// CPU that wrote the record.
    pub cpu: u32,
}

/// What became of an attempt that was sent to a stale real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutcomeSeen {
    /// When.
    pub at: MonoNs,
    /// The attempt.
    pub attempt: AttemptId,
    /// When IPVS had decided about its first SYN.
    pub since: MonoNs,
    /// Service it belongs to.
    pub service: Service,
    /// The stale real server.
    pub real_server: Option<RealServer>,
    /// Weight of that real server at the decision.
    pub weight: i32,
    /// SYNs of the attempt seen after the first.
    pub retransmits: u16,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it went there.
    pub cause: StaleCause,
    /// CPU that wrote the record.
    pub cpu: u32,
}

/// A flow of datagrams goes to a stale real server; a sample of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StaleDatagrams {
    /// When.
    pub at: MonoNs,
    /// The flow.
    pub tuple: Tuple,
    /// When it was first seen to go there.
    pub since: MonoNs,
    /// Datagrams seen to go there so far.
    pub datagrams: u64,
    /// Service it belongs to.
    pub service: Service,
    /// The stale real server.
    pub real_server: Option<RealServer>,
    /// Weight of that real server now.
    pub weight: i32,
    /// It was removed from its service, so IPVS dropped the datagram.
    pub removed: bool,
    /// CPU that wrote the record.
    pub cpu: u32,
}

/// What happened to packets: evidence about attempts and flows, for `correlate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PacketEvent {
    /// IPVS decided about a SYN.
    AttemptDecided(AttemptDecided),
    /// The kernel freed a SYN that IPVS did not drop.
    SynDropped(SynDropped),
    /// What became of a stale attempt.
    OutcomeSeen(OutcomeSeen),
    /// Datagrams go to a stale real server.
    StaleDatagrams(StaleDatagrams),
}

impl PacketEvent {
    /// When the kernel program ran.
    #[must_use]
    pub const fn at(&self) -> MonoNs {
        match self {
            Self::AttemptDecided(decided) => decided.at,
            Self::SynDropped(dropped) => dropped.at,
            Self::OutcomeSeen(seen) => seen.at,
            Self::StaleDatagrams(seen) => seen.at,
        }
    }
}

/// What happened to the configuration of IPVS, for `table`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigEvent {
    /// A real server was added, removed or given a weight.
    RealServerChanged(RealServerChanged),
}

/// One record of the kernel programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// About packets.
    Packet(PacketEvent),
    /// About the configuration.
    Config(ConfigEvent),
}

impl From<PacketEvent> for Event {
    fn from(event: PacketEvent) -> Self {
        Self::Packet(event)
    }
}

impl From<ConfigEvent> for Event {
    fn from(event: ConfigEvent) -> Self {
        Self::Config(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: ServiceName) -> Service {
        Service {
            netns: NetnsId(7),
            name,
        }
    }

    fn words(service: &Service) -> (&'static str, String, Option<u16>, String) {
        let (address, mark) = (service.local_address(), service.local_mark());
        (service.proto_word(), address, service.local_port(), mark)
    }

    #[test]
    fn a_service_reads_as_node_exporter_names_it() {
        let v6 = service(ServiceName::Address {
            proto: Proto::Tcp,
            local: "[fd00::1]:80".parse().unwrap(),
        });
        assert_eq!(v6.to_string(), "TCP [fd00::1]:80");
        assert_eq!(
            words(&v6),
            ("TCP", "fd00::1".to_owned(), Some(80), String::new())
        );
        let mark = service(ServiceName::Fwmark {
            mark: 0x1a,
            family: Family::V4,
        });
        assert_eq!(mark.to_string(), "FWM 0000001A");
        assert_eq!(
            words(&mark),
            ("FWM", String::new(), Some(0), "0000001A".to_owned())
        );
        let unknown = service(ServiceName::Unknown);
        assert_eq!(words(&unknown), ("", String::new(), None, String::new()));
    }

    #[test]
    fn entry_states_have_the_kernels_numbers() {
        for (proto, last) in [(Proto::Tcp, 10), (Proto::Udp, 0), (Proto::Sctp, 13)] {
            let states = EntryState::ALL.iter().filter(|s| s.proto() == proto);
            let numbers: Vec<u8> = states.map(|s| s.number()).collect();
            assert_eq!(numbers, (1..=last).collect::<Vec<u8>>());
            assert_eq!(EntryState::of(proto, last + 1), None);
        }
        for state in EntryState::ALL {
            assert_eq!(EntryState::of(state.proto(), state.number()), Some(*state));
        }
        assert_eq!(EntryState::TimeWait.as_str(), "time_wait");
    }
}
