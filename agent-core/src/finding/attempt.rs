//! Findings about attempts and flows: each has a client.

use std::fmt;
use std::time::Duration;

use agent_common::netfilter::HookPoint;
use agent_common::verdict::{Decision, DropCause, Outcome, StaleCause};
use serde::Serialize;

#[cfg(feature = "schema")]
use super::parts::ServiceKeys;
use super::parts::{
    Attempt, Client, Number, Route, WeightedServer, hexadecimal, nanoseconds, service, weighted,
};
use crate::clock::MonoNs;
use crate::event::{
    AttemptDecided, FirstDrop, NetnsId, OutcomeSeen, Service, StaleDatagrams, SynDropped,
};

/// See [`super::FindingKind::StaleConnection`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StaleConnection {
    /// When IPVS decided.
    #[serde(rename = "mono_ns")]
    pub at: MonoNs,
    /// The attempt.
    #[serde(flatten)]
    pub attempt: Attempt,
    /// Why it went there.
    pub cause: StaleCause,
}

impl fmt::Display for StaleConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (route, to) = (self.attempt.route(), self.attempt.to());
        let cause = self.cause.as_str();
        write!(f, "stale connection: {route} sent to {to} by {cause}")
    }
}

/// See [`super::FindingKind::StaleOutcome`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StaleOutcome {
    /// When it was known.
    #[serde(rename = "mono_ns")]
    pub at: MonoNs,
    /// Whose attempt it was.
    #[serde(flatten)]
    pub client: Client,
    /// Initial sequence number; SCTP: initiate tag.
    pub isn: u32,
    /// Service; without keys in JSON if the kernel program could not name it.
    #[serde(flatten, serialize_with = "service")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<ServiceKeys>"))]
    pub service: Service,
    /// The stale real server.
    #[serde(flatten)]
    pub server: Option<WeightedServer>,
    /// What IPVS had decided: `reused_stale`.
    pub decision: Decision,
    /// Why it went there.
    pub cause: StaleCause,
    /// What became of it.
    pub outcome: Outcome,
    /// From the decision to the outcome.
    #[serde(rename = "lasted_ns", serialize_with = "nanoseconds")]
    #[cfg_attr(feature = "schema", schemars(with = "u64"))]
    pub lasted: Duration,
    /// SYNs of the attempt seen after the first.
    pub retransmits: u16,
}

impl From<&OutcomeSeen> for StaleOutcome {
    fn from(seen: &OutcomeSeen) -> Self {
        Self {
            at: seen.at,
            client: seen.attempt.tuple.into(),
            isn: seen.attempt.isn,
            service: seen.service,
            server: weighted(seen.real_server, seen.weight),
            decision: Decision::ReusedStale,
            cause: seen.cause,
            outcome: seen.outcome,
            lasted: seen.at.since(seen.since),
            retransmits: seen.retransmits,
        }
    }
}

impl fmt::Display for StaleOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = self.outcome.as_str();
        let seconds = self.lasted.as_secs_f64();
        let route = Route(&self.client, &self.service);
        write!(
            f,
            "stale connection {outcome} after {seconds:.3} s: {route} by "
        )?;
        write_server(f, self.server)
    }
}

/// See [`super::FindingKind::StaleFlow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StaleFlow {
    /// The latest datagram.
    #[serde(rename = "mono_ns")]
    pub at: MonoNs,
    /// Whose flow it is.
    #[serde(flatten)]
    pub client: Client,
    /// Service; without keys in JSON if the kernel program could not name it.
    #[serde(flatten, serialize_with = "service")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<ServiceKeys>"))]
    pub service: Service,
    /// The stale real server.
    #[serde(flatten)]
    pub server: Option<WeightedServer>,
    /// Why IPVS dropped the datagram, if it did: the real server was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<DropCause>,
    /// Since the first stale datagram of the flow.
    #[serde(rename = "lasted_ns", serialize_with = "nanoseconds")]
    #[cfg_attr(feature = "schema", schemars(with = "u64"))]
    pub lasted: Duration,
    /// Datagrams of the flow seen so far.
    pub datagrams: u64,
}

impl From<&StaleDatagrams> for StaleFlow {
    fn from(seen: &StaleDatagrams) -> Self {
        Self {
            at: seen.at,
            client: seen.tuple.into(),
            service: seen.service,
            server: weighted(seen.real_server, seen.weight),
            cause: seen.removed.then_some(DropCause::IpvsRemoved),
            lasted: seen.at.since(seen.since),
            datagrams: seen.datagrams,
        }
    }
}

impl fmt::Display for StaleFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = Route(&self.client, &self.service);
        let datagrams = Number(self.datagrams, "datagram");
        let seconds = self.lasted.as_secs_f64();
        write!(f, "stale flow: {route}, {datagrams} in {seconds:.1} s ")?;
        f.write_str(if self.cause.is_some() {
            "dropped, bound to removed "
        } else {
            "sent to "
        })?;
        write_server(f, self.server)
    }
}

fn write_server(f: &mut fmt::Formatter<'_>, server: Option<WeightedServer>) -> fmt::Result {
    match server {
        Some(server) => write!(f, "{server}"),
        None => f.write_str("no real server"),
    }
}

/// See [`super::FindingKind::SynLostElsewhere`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SynLostElsewhere {
    /// When IPVS decided about the retransmit.
    #[serde(rename = "mono_ns")]
    pub at: MonoNs,
    /// The attempt.
    #[serde(flatten)]
    pub attempt: Attempt,
    /// From the first SYN seen here to this one.
    #[serde(rename = "delay_ns", serialize_with = "nanoseconds")]
    #[cfg_attr(feature = "schema", schemars(with = "u64"))]
    pub delay: Duration,
}

impl fmt::Display for SynLostElsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (route, to) = (self.attempt.route(), self.attempt.to());
        let seconds = self.delay.as_secs_f64();
        write!(
            f,
            "SYN lost elsewhere: {route}, SYN retransmitted after {seconds:.3} s, no drop seen on \
             this node; sent to {to}"
        )
    }
}

/// See [`super::FindingKind::ConnectDelayed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConnectDelayed {
    /// When the SYN that got through did.
    #[serde(rename = "mono_ns")]
    pub at: MonoNs,
    /// The attempt.
    #[serde(flatten)]
    pub attempt: Attempt,
    /// Why the first dead SYN died.
    pub cause: DropCause,
    /// From the first dead SYN to the one that got through.
    #[serde(rename = "delay_ns", serialize_with = "nanoseconds")]
    #[cfg_attr(feature = "schema", schemars(with = "u64"))]
    pub delay: Duration,
    /// Events lost while the attempt was held.
    pub events_lost: u64,
}

impl ConnectDelayed {
    /// A SYN got through after `first`; `drops` SYNs are known to have died.
    #[must_use]
    pub fn of(decided: &AttemptDecided, first: FirstDrop, drops: u32, events_lost: u64) -> Self {
        let attempt = Attempt::of(decided);
        Self {
            at: decided.at,
            attempt: Attempt {
                drops: attempt.drops.max(drops).max(1),
                ..attempt
            },
            cause: first.cause,
            delay: decided.at.since(first.at),
            events_lost,
        }
    }
}

impl fmt::Display for ConnectDelayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (route, to) = (self.attempt.route(), self.attempt.to());
        let seconds = self.delay.as_secs_f64();
        let drops = Number(self.attempt.drops.into(), "SYN");
        let cause = self.cause.as_str();
        write!(
            f,
            "connect delayed {seconds:.3} s: {route}, {drops} dropped by {cause}, "
        )?;
        write!(f, "then got through to {to}{}", Lost(self.events_lost))
    }
}

/// Where a SYN died that IPVS had sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Behind {
    /// Inode number of the network namespace.
    #[serde(rename = "dropped_in_netns")]
    pub netns: NetnsId,
    /// The hook of netfilter whose rules dropped the SYN, where that is known.
    #[serde(rename = "netfilter_hook", skip_serializing_if = "Option::is_none")]
    pub hook: Option<HookPoint>,
    /// The kernel's number of its drop reason; 0 on kernels without reasons.
    pub kernel_reason: u32,
    /// Kernel address of the code that freed the SYN.
    #[serde(serialize_with = "hexadecimal")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub kernel_location: u64,
}

impl Behind {
    /// As the drop of the SYN shows it.
    #[must_use]
    pub fn of(dropped: &SynDropped) -> Self {
        Self {
            netns: dropped.netns,
            hook: dropped.netfilter_hook(),
            kernel_reason: dropped.reason,
            kernel_location: dropped.location,
        }
    }
}

/// See [`super::FindingKind::ConnectBlocked`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConnectBlocked {
    /// When the first SYN known to have died did.
    #[serde(rename = "mono_ns")]
    pub at: MonoNs,
    /// The attempt, as IPVS saw the SYN it dropped.
    #[serde(flatten)]
    pub attempt: Attempt,
    /// Why the first dead SYN died.
    pub cause: DropCause,
    /// Where behind IPVS the first dead SYN died; left out where IPVS dropped it.
    #[serde(flatten)]
    pub behind: Option<Behind>,
    /// How long after the last dead SYN nothing had got through; the deadline, or less at the end.
    #[serde(rename = "waited_ns", serialize_with = "nanoseconds")]
    #[cfg_attr(feature = "schema", schemars(with = "u64"))]
    pub waited: Duration,
    /// Events lost while the attempt was held: above 0, a missing outcome may be one of them.
    pub events_lost: u64,
}

impl fmt::Display for ConnectBlocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = self.attempt.route();
        let drops = Number(self.attempt.drops.into(), "SYN");
        let cause = self.cause.as_str();
        write!(f, "connect blocked: {route}, {drops} dropped by {cause}")?;
        if let Some(behind) = self.behind {
            if let Some(hook) = behind.hook {
                write!(f, " in {}", hook.as_str())?;
            }
            let (to, netns) = (self.attempt.to(), behind.netns);
            write!(f, " on the way to {to} (network namespace {netns})")?;
        }
        write!(f, "{}{}", Waited(self.waited), Lost(self.events_lost))
    }
}

/// See [`super::FindingKind::SynDropped`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "SynDropped"))]
pub struct SynDrop {
    /// When the first SYN known to have died did.
    #[serde(rename = "mono_ns")]
    pub at: MonoNs,
    /// Whose SYN it was.
    #[serde(flatten)]
    pub client: Client,
    /// Initial sequence number; SCTP: initiate tag.
    pub isn: u32,
    /// Why the first dead SYN died.
    pub cause: DropCause,
    /// The hook of netfilter whose rules dropped the SYN, where that is known.
    #[serde(rename = "netfilter_hook", skip_serializing_if = "Option::is_none")]
    pub hook: Option<HookPoint>,
    /// The kernel's number of its drop reason; 0 on kernels without reasons.
    pub kernel_reason: u32,
    /// Kernel address of the code that freed the SYN.
    #[serde(serialize_with = "hexadecimal")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub kernel_location: u64,
    /// SYNs of the attempt known to have died here.
    pub drops: u32,
    /// How long after the last dead SYN nothing had got through; the deadline, or less at the end.
    #[serde(rename = "waited_ns", serialize_with = "nanoseconds")]
    #[cfg_attr(feature = "schema", schemars(with = "u64"))]
    pub waited: Duration,
    /// Events lost while the attempt was held: above 0, a missing outcome may be one of them.
    pub events_lost: u64,
}

impl fmt::Display for SynDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            client,
            drops,
            cause,
            ..
        } = self;
        write!(f, "SYN dropped: {client}, {drops} by {}", cause.as_str())?;
        if let Some(hook) = self.hook {
            write!(f, " in {}", hook.as_str())?;
        }
        write!(f, "{}{}", Waited(self.waited), Lost(self.events_lost))
    }
}

/// See [`super::FindingKind::Decision`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OrdinaryDecision {
    /// When IPVS decided.
    #[serde(rename = "mono_ns")]
    pub at: MonoNs,
    /// The attempt.
    #[serde(flatten)]
    pub attempt: Attempt,
}

impl fmt::Display for OrdinaryDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (route, to) = (self.attempt.route(), self.attempt.to());
        write!(
            f,
            "{}: {route} sent to {to}",
            self.attempt.decision.as_str()
        )
    }
}

struct Waited(Duration);

impl fmt::Display for Waited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        write!(f, ", none got through here in {seconds:.1} s")
    }
}

struct Lost(u64);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            lost => write!(f, " ({lost} events lost meanwhile)"),
        }
    }
}
