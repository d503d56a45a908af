//! Evidence that several kinds have in common.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use agent_common::verdict::Decision;
use serde::{Serialize, Serializer};

use crate::event::{
    AttemptDecided, AttemptId, EntryState, NetnsId, Proto, RealServer, SentOn, Service, Tuple,
};

/// Who asked whom, where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Client {
    /// Network namespace the packet was seen in.
    pub netns: NetnsId,
    /// Client address and port.
    pub client: SocketAddr,
    /// Address and port the client asked for.
    pub destination: SocketAddr,
    /// Transport.
    #[serde(skip)]
    pub transport: Proto,
}

impl From<Tuple> for Client {
    fn from(tuple: Tuple) -> Self {
        Self {
            netns: tuple.netns,
            client: tuple.client,
            destination: tuple.destination,
            transport: tuple.proto,
        }
    }
}

/// A real server and the weight it had at the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WeightedServer {
    /// The real server.
    #[serde(flatten, serialize_with = "real_server")]
    #[cfg_attr(feature = "schema", schemars(with = "RealServerKeys"))]
    pub real_server: RealServer,
    /// Its weight.
    pub weight: i32,
}

impl fmt::Display for WeightedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (weight {})", self.real_server, self.weight)
    }
}

/// An attempt that IPVS decided about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Attempt {
    /// Whose.
    #[serde(flatten)]
    pub client: Client,
    /// Initial sequence number; SCTP: initiate tag.
    pub isn: u32,
    /// Service; without keys in JSON if the kernel program could not name it.
    #[serde(flatten, serialize_with = "service")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<ServiceKeys>"))]
    pub service: Service,
    /// Real server the SYN went to, or the one its old entry named.
    #[serde(flatten)]
    pub server: Option<WeightedServer>,
    /// What IPVS did with the SYN this finding ends with.
    pub decision: Decision,
    /// State of the entry the SYN met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_state: Option<EntryState>,
    /// SYNs of the attempt known to have died here.
    pub drops: u32,
    /// SYNs of the attempt seen before the one this finding ends with.
    pub retransmits: u16,
}

impl Attempt {
    /// As its record shows it.
    #[must_use]
    pub fn of(decided: &AttemptDecided) -> Self {
        let AttemptId { tuple, isn } = decided.attempt;
        Self {
            client: tuple.into(),
            isn,
            service: decided.service,
            server: weighted(decided.real_server, decided.weight),
            decision: decided.verdict.decision(),
            old_state: decided.old_state,
            drops: decided.drops.into(),
            retransmits: decided.retransmits,
        }
    }

    /// As the drop of a SYN that IPVS had sent on shows it.
    #[must_use]
    pub fn of_sent_on(id: AttemptId, sent_on: &SentOn) -> Self {
        Self {
            client: id.tuple.into(),
            isn: id.isn,
            service: sent_on.service,
            server: weighted(Some(sent_on.real_server), sent_on.weight),
            decision: sent_on.decision,
            old_state: None,
            drops: 1,
            retransmits: 0,
        }
    }

    /// Whose it is and which service it is for.
    pub(super) const fn route(&self) -> Route<'_> {
        Route(&self.client, &self.service)
    }

    /// The real server, with the state of the entry that led to it.
    pub(super) const fn to(&self) -> To<'_> {
        To(self)
    }
}

/// A real server with the weight it had, where there is one.
pub(super) fn weighted(real_server: Option<RealServer>, weight: i32) -> Option<WeightedServer> {
    real_server.map(|real_server| WeightedServer {
        real_server,
        weight,
    })
}

/// `a -> service`, or what the client asked for where no service is known.
pub(super) struct Route<'a>(pub &'a Client, pub &'a Service);

impl fmt::Display for Route<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(client, service) = self;
        if service.is_known() {
            write!(f, "{} -> {service}", client.client)
        } else {
            client.fmt(f)
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            client,
            destination,
            transport,
            ..
        } = self;
        write!(f, "{client} -> {transport} {destination}")
    }
}

/// See [`Attempt::to`].
pub(super) struct To<'a>(&'a Attempt);

impl fmt::Display for To<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.old_state.map(EntryState::as_str);
        match (self.0.server, state) {
            (Some(server), None) => server.fmt(f),
            (
                Some(WeightedServer {
                    real_server,
                    weight,
                }),
                Some(state),
            ) => {
                write!(f, "{real_server} (weight {weight}, old entry {state})")
            }
            (None, None) => f.write_str("no real server"),
            (None, Some(state)) => write!(f, "no real server (old entry {state})"),
        }
    }
}

/// `1 SYN`, `3 SYNs`.
pub(super) struct Number(pub u64, pub &'static str);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} {}{plural}", self.0, self.1)
    }
}

/// Keys of a service in JSON, as the labels of its metrics.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct ServiceKeys {
    /// `TCP`, `UDP`, `SCTP`, or `FWM` for a firewall-mark service.
    proto: &'static str,
    /// Virtual address; empty for a firewall-mark service.
    local_address: String,
    /// Virtual port; 0 for every port and for a firewall-mark service.
    local_port: u16,
    /// Firewall mark, eight hexadecimal digits; else empty.
    local_mark: String,
}

/// A service as its keys; without keys if it could not be named.
pub(super) fn service<S: Serializer>(service: &Service, serializer: S) -> Result<S::Ok, S::Error> {
    let keys = service.local_port().map(|local_port| ServiceKeys {
        proto: service.proto_word(),
        local_address: service.local_address(),
        local_port,
        local_mark: service.local_mark(),
    });
    keys.serialize(serializer)
}

/// Keys of a real server in JSON.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct RealServerKeys {
    /// Its address.
    remote_address: std::net::IpAddr,
    /// Its port.
    remote_port: u16,
}

/// A real server as its keys.
pub(super) fn real_server<S: Serializer>(
    server: &RealServer,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    RealServerKeys {
        remote_address: server.0.ip(),
        remote_port: server.0.port(),
    }
    .serialize(serializer)
}

/// A span of time as nanoseconds.
pub(super) fn nanoseconds<S: Serializer>(
    span: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}

/// A kernel address as people read it.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
pub(super) fn hexadecimal<S: Serializer>(address: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{address:#x}"))
}
