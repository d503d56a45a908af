//! An attempt: what is remembered of it, and what each of its SYNs changes.
//!
//! The kernel programs call this and do what it says (look up, store, count, write records); the
//! rules themselves are plain code that the host tests. Every function is inlined: a program of
//! the kernel pays for no call and the verifier sees one function.

#[cfg(test)]
mod tests;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::verdict::{Decision, DropCause, Lost, StaleCause};

/// Attempts remembered at once (an LRU table: the oldest make room).
///
/// A retransmit is recognised while its attempt is remembered. 65,536 attempts last over one
/// second, the first retransmit, up to 65,000 new connections per second; about 10 MiB.
pub const ATTEMPTS_MAX: u32 = 65_536;

/// SYNs between the lookup and IPVS's verdict at one moment.
///
/// Bounded by CPUs times the nesting depth of the hooks (two); 4,096 is far above any machine.
pub const PENDING_MAX: u32 = 4_096;

/// One client's try to open a connection: its first SYN and the retransmits of that SYN.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Attempt {
    /// When the first SYN was seen on this node.
    pub first_seen_ns: u64,
    /// When a SYN of this attempt was first dropped here; 0 if never.
    pub first_drop_ns: u64,
    /// Initial sequence number, host order; distinguishes a new attempt on the same tuple from a
    /// retransmit.
    pub isn: u32,
    /// SYNs of this attempt dropped on this node.
    pub drops: u16,
    /// SYNs seen after the first.
    pub retransmits: u16,
    /// [`crate::verdict::Decision`] already counted for this attempt; 0 if none yet.
    pub decision: u8,
    /// [`crate::verdict::DropCause`] of the first drop; 0 if never dropped.
    pub first_drop_cause: u8,
    /// 1 once a SYN was sent on after the latest drop and that was recorded.
    pub delay_reported: u8,
    /// 1: an ICMP error about the latest SYN was sent to the client.
    pub client_informed: u8,
    /// 1: a SYN died on this node since IPVS decided about one.
    pub dropped_since_syn: u8,
    /// Always 0.
    pub pad: [u8; 3],
}

const _: () = assert!(size_of::<Attempt>() == 32);

/// Where an entry leads, as far as a decision depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryTarget {
    /// Weight of the real server now.
    pub weight: i32,
    /// The real server was removed from its service.
    pub removed: bool,
    /// The entry belongs to a persistence template.
    pub controlled: bool,
}

impl EntryTarget {
    /// Whether no new connection should go there.
    #[inline(always)]
    pub const fn is_stale(self) -> bool {
        self.weight <= 0 || self.removed
    }
}

/// What IPVS decided about one SYN, as it is counted and recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynVerdict {
    /// The decision.
    pub decision: Decision,
    /// [`StaleCause`] or [`DropCause`], 0 for any other decision.
    pub cause: u8,
    /// [`DropCause`] if the kernel freed the packet while IPVS was still handling it (no route to
    /// the real server, say), else 0.
    pub freed_cause: u8,
    /// [`crate::verdict::Outcome`] if an ICMP error about the packet was sent meanwhile, else 0.
    pub outcome: u8,
}

impl SynVerdict {
    /// A decision that needs no cause.
    #[inline(always)]
    pub const fn plain(decision: Decision) -> Self {
        Self::because(decision, 0)
    }

    /// A SYN sent to a stale real server.
    #[inline(always)]
    pub const fn stale(cause: StaleCause) -> Self {
        Self::because(Decision::ReusedStale, cause as u8)
    }

    /// A SYN IPVS dropped.
    #[inline(always)]
    pub const fn dropped(cause: DropCause) -> Self {
        Self::because(Decision::Dropped, cause as u8)
    }

    #[inline(always)]
    const fn because(decision: Decision, cause: u8) -> Self {
        Self {
            decision,
            cause,
            freed_cause: 0,
            outcome: 0,
        }
    }

    /// IPVS's hook returned for a SYN that met an entry and was not rescheduled.
    #[inline(always)]
    pub const fn on_entry(target: EntryTarget, dropped: bool) -> Self {
        if dropped {
            return Self::dropped(if target.removed {
                DropCause::IpvsRemoved
            } else {
                DropCause::IpvsReuse
            });
        }
        if !target.is_stale() {
            return Self::plain(Decision::Reused);
        }
        Self::stale(if target.controlled {
            StaleCause::Persistence
        } else {
            StaleCause::PortReuse
        })
    }

    /// The scheduler chose a real server; `met_entry`: IPVS had found an entry and expired it.
    ///
    /// The scheduler itself never chooses a stale real server: a persistence template did.
    #[inline(always)]
    pub const fn on_choice(target: EntryTarget, met_entry: bool) -> Self {
        if target.is_stale() {
            Self::stale(StaleCause::Persistence)
        } else if met_entry {
            Self::plain(Decision::Rescheduled)
        } else {
            Self::plain(Decision::Scheduled)
        }
    }

    #[inline(always)]
    const fn is_drop(self) -> bool {
        matches!(self.decision, Decision::Dropped)
    }
}

/// What has to be done about one SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynStep {
    /// Count the attempt with this SYN's decision: it is the first about the attempt.
    pub decides: bool,
    /// Count a retransmit, and where the SYN before it was lost; `None` for a first SYN.
    pub retransmit: Option<Lost>,
    /// Count a SYN that IPVS dropped.
    pub dropped: bool,
    /// Write a record.
    pub record: bool,
}

/// A SYN that comes again sooner than this was answered. The first timeout is 1 s (RFC 6298, section
/// 2; the answer to a challenge ACK is sent at once, `tcp_rcv_synsent_state_process`,
/// net/ipv4/tcp_input.c), of which a busy sender may have used up a part before it was seen here.
pub const FIRST_TIMEOUT_NS_MIN: u64 = 500_000_000;

/// The cause of a drop in IPVS's transmit; any other cause stays.
#[inline(always)]
pub const fn transmit_cause(cause: u8, client_informed: bool) -> u8 {
    if cause == DropCause::IpvsTransmit as u8 && client_informed {
        DropCause::NoRoute as u8
    } else {
        cause
    }
}

impl Attempt {
    /// IPVS decided about the first SYN of an attempt that was seen.
    ///
    /// `asked_for`: the agent wants records of this decision. A packet that was freed meanwhile
    /// is not in here yet: [`Self::on_freed`] comes after the record.
    #[inline(always)]
    pub const fn on_first_syn(
        isn: u32,
        now_ns: u64,
        verdict: SynVerdict,
        asked_for: bool,
    ) -> (Self, SynStep) {
        let dropped = verdict.is_drop();
        let attempt = Self {
            first_seen_ns: now_ns,
            first_drop_ns: if dropped { now_ns } else { 0 },
            isn,
            drops: dropped as u16,
            retransmits: 0,
            decision: verdict.decision as u8,
            first_drop_cause: if dropped { verdict.cause } else { 0 },
            delay_reported: 0,
            client_informed: 0,
            dropped_since_syn: dropped as u8,
            pad: [0; 3],
        };
        let step = SynStep {
            decides: true,
            retransmit: None,
            dropped,
            record: asked_for,
        };
        (attempt, step)
    }

    /// The first SYN of an attempt that was seen died before IPVS decided about any.
    #[inline(always)]
    pub const fn on_first_drop(isn: u32, now_ns: u64, cause: u8) -> Self {
        Self {
            first_seen_ns: now_ns,
            first_drop_ns: now_ns,
            isn,
            drops: 1,
            retransmits: 0,
            decision: 0,
            first_drop_cause: cause,
            delay_reported: 0,
            client_informed: 0,
            dropped_since_syn: 1,
            pad: [0; 3],
        }
    }

    /// Whether a SYN with this initial sequence number belongs to this attempt.
    #[inline(always)]
    pub const fn is_of(&self, isn: u32) -> bool {
        self.isn == isn
    }

    /// IPVS decided about a SYN of an attempt that is known: a retransmit.
    #[inline(always)]
    pub const fn on_retransmit(
        &mut self,
        now_ns: u64,
        verdict: SynVerdict,
        asked_for: bool,
    ) -> SynStep {
        self.retransmits = self.retransmits.saturating_add(1);
        let lost = self.lost(now_ns);
        self.dropped_since_syn = 0;
        let decides = self.decision == 0;
        if decides {
            self.decision = verdict.decision as u8;
        }
        let dropped = verdict.is_drop();
        SynStep {
            decides,
            retransmit: Some(lost),
            dropped,
            record: self.is_recorded(now_ns, verdict, asked_for, decides),
        }
    }

    /// Notes a drop or a delay that ended, and says whether it is worth a record.
    #[inline(always)]
    const fn is_recorded(
        &mut self,
        now_ns: u64,
        verdict: SynVerdict,
        asked_for: bool,
        decides: bool,
    ) -> bool {
        if verdict.freed_cause != 0 {
            // The drop's own record says it.
            self.on_drop(now_ns, verdict.freed_cause);
            return false;
        }
        if verdict.is_drop() {
            self.on_drop(now_ns, verdict.cause);
            return asked_for;
        }
        if self.first_drop_ns != 0 && self.delay_reported == 0 {
            self.delay_reported = 1;
            return true;
        }
        decides && asked_for
    }

    /// A first SYN was freed while IPVS was still handling it.
    #[inline(always)]
    pub const fn on_freed(&mut self, now_ns: u64, verdict: SynVerdict) {
        if verdict.freed_cause != 0 {
            self.on_drop(now_ns, verdict.freed_cause);
        }
    }

    /// A SYN of this attempt died on this node.
    #[inline(always)]
    pub const fn on_drop(&mut self, now_ns: u64, cause: u8) {
        self.drops = self.drops.saturating_add(1);
        self.delay_reported = 0;
        self.client_informed = 0;
        self.dropped_since_syn = 1;
        if self.first_drop_ns == 0 {
            self.first_drop_ns = now_ns;
            self.first_drop_cause = cause;
        }
    }

    /// An ICMP error about a SYN of this attempt was sent to the client.
    #[inline(always)]
    pub const fn on_icmp_error(&mut self) {
        self.client_informed = 1;
    }

    /// What a SYN died of, once the ICMP error that preceded its death is considered: IPVS makes
    /// one where it finds no route, and none where it refuses to send for another reason
    /// (`__ip_vs_get_out_rt`, net/netfilter/ipvs/ip_vs_xmit.c).
    #[inline(always)]
    pub const fn drop_cause(&self, cause: u8) -> u8 {
        transmit_cause(cause, self.client_informed != 0)
    }

    /// Where the SYN before a retransmit was lost, as far as this node can see.
    #[inline(always)]
    const fn lost(&self, now_ns: u64) -> Lost {
        if self.dropped_since_syn != 0 {
            Lost::Here
        } else if self.decision == Decision::ReusedStale as u8 {
            Lost::StaleRealServer
        } else if self.retransmits == 1
            && now_ns.wrapping_sub(self.first_seen_ns) < FIRST_TIMEOUT_NS_MIN
        {
            Lost::ChallengeAck
        } else {
            Lost::Unknown
        }
    }
}

#[cfg(feature = "user")]
mod user {
    // SAFETY: `#[repr(C)]`, `Copy`, and `zerocopy::IntoBytes` proves there is no padding.
    unsafe impl aya::Pod for super::Attempt {}
}
