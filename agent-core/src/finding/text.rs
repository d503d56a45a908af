//! A finding as one line for people.

use std::fmt;

use agent_common::verdict::{Decision, Outcome};

use super::{Cause, Finding, FindingKind, Subject, TableEvidence};
use crate::table::draining::{Ending, Timeline};

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
            FindingKind::DrainingEnded
            | FindingKind::DrainingForgotten
            | FindingKind::NoRealServer => self.write_about_table(f)?,
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

    fn write_about_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.table {
            Some(TableEvidence::Draining(timeline, ending)) => {
                self.write_draining(f, &timeline, ending)
            }
            Some(TableEvidence::Vacant { draining }) => {
                write!(
                    f,
                    "no real server: {} has nobody left to choose",
                    self.service
                )?;
                match draining {
                    0 => Ok(()),
                    1 => f.write_str(", its only real server has weight 0"),
                    all => write!(f, ", all {all} real servers have weight 0"),
                }
            }
            None => f.write_str(self.kind.word()),
        }
    }

    fn write_draining(
        &self,
        f: &mut fmt::Formatter<'_>,
        timeline: &Timeline,
        ending: Ending,
    ) -> fmt::Result {
        let what = match ending {
            Ending::Removed { .. } => "ended",
            Ending::Forgotten { .. } => "forgotten",
        };
        write!(f, "draining {what}: ")?;
        match self.real_server {
            Some(server) => write!(f, "{server} of {}", self.service)?,
            None => write!(f, "{}", self.service)?,
        }
        match ending {
            Ending::Removed { at, held_by, .. } => {
                let seconds = at.since(timeline.since).as_secs_f64();
                write!(
                    f,
                    " was removed {seconds:.1} s after its weight became 0; {} stale connections \
                     meanwhile, held by {}",
                    timeline.stale,
                    held_by.word()
                )
            }
            Ending::Forgotten {
                at,
                empty_since,
                wanted_by,
            } => {
                let seconds = at.since(empty_since).as_secs();
                write!(f, " has weight 0 and had no connection for {seconds} s; ")?;
                if wanted_by > 0 {
                    let s = if wanted_by == 1 { "" } else { "s" };
                    write!(f, "it is alive, {wanted_by} other service{s} use it; ")?;
                }
                f.write_str("whoever set the weight should remove it or give it one again")
            }
        }
    }
}
