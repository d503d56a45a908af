//! Types of map values that several files use.

use agent_common::attempt::SynVerdict;

use crate::{ipvs::Target, packet::Syn};

/// Arguments kept of a call, as many as the longest traced function has.
pub const ARGS_KEPT: usize = 5;

/// A packet between two hooks.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Pending {
    /// The SYN, in `PHASE_MET_ENTRY`.
    pub syn: Syn,
    /// Where its old entry leads, in `PHASE_MET_ENTRY`.
    pub target: Target,
    /// `PHASE_*`.
    pub phase: u32,
    /// [`agent_common::verdict::DropCause`] if the kernel freed the packet while IPVS was still handling it (no route to
    /// the real server, say), else 0.
    pub freed_cause: u32,
    /// [`agent_common::verdict::Outcome`] if an ICMP error about the packet was sent meanwhile,
    /// else 0.
    pub outcome: u32,
    /// Always 0; the compiler would put it there.
    pub pad: u32,
}

impl Pending {
    /// What IPVS decided, with what happened to the packet while IPVS was still handling it.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "written from a `u8`")]
    pub const fn verdict(&self, dropped: bool) -> SynVerdict {
        SynVerdict {
            freed_cause: self.freed_cause as u8,
            outcome: self.outcome as u8,
            ..SynVerdict::on_entry(self.target.entry(), dropped)
        }
    }
}

/// What conntrack said last on a CPU.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Trouble {
    /// When; 0 for nothing.
    pub at_ns: u64,
    /// The packet, 0 when conntrack did not say.
    pub skb: u64,
    /// [`agent_common::verdict::DropCause`].
    pub cause: u64,
}
