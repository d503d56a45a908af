//! Settings that the agent writes into the kernel programs before it loads them.

use crate::verdict::Decision;

/// Read-only settings of the kernel programs, constant for the verifier.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bit [`decision_bit`] set: write a record for first SYNs with this decision.
    pub emit_decisions: u32,
    /// 1: write a record for SYNs the kernel freed outside IPVS.
    pub emit_syn_drops: u32,
    /// Arguments of the kernel's `__inet_hash_connect`; 0 when its types do not say.
    pub connect_args: u32,
    /// Always 0.
    pub pad: u32,
    /// How long after its latest SYN an unanswered stale attempt has timed out.
    pub outcome_timeout_ns: u64,
}

/// A drop reason that says nothing, in the table of causes: the location may know that nothing is
/// lost.
pub const UNSAID: u8 = u8::MAX;

/// Pieces of kernel functions whose drops are distinguished by location where there are no reasons;
/// a compiler makes up to three pieces of one function.
pub const DROP_LOCATIONS_MAX: u32 = 48;

/// Code of one piece of a kernel function, and what a SYN freed there died of.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropLocation {
    /// First address.
    pub start: u64,
    /// First address behind it; equal to `start` in an unused entry.
    pub end: u64,
    /// [`crate::verdict::DropCause`], 0 for what is no loss.
    pub cause: u32,
    /// Always 0.
    pub pad: u32,
}

/// First elements of the table of hook callers: pieces of the function that runs a hook's rules.
pub const HOOK_LOOPS: u32 = 2;

/// Pieces of kernel functions that pass packets to netfilter's hooks, behind [`HOOK_LOOPS`] others.
pub const HOOK_CALLERS_MAX: u32 = 40;

/// Code of one piece of such a function, and the hook it passes packets to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookCaller {
    /// First address.
    pub start: u64,
    /// First address behind it; equal to `start` in an unused entry.
    pub end: u64,
    /// [`crate::netfilter::HookPoint`]; 0 for what runs the rules of any hook.
    pub hook: u32,
    /// Always 0.
    pub pad: u32,
}

/// The bit of a decision in [`Config::emit_decisions`].
pub const fn decision_bit(decision: Decision) -> u32 {
    1 << decision as u32
}

/// Decisions that are findings by themselves: written unless the user asks for all.
pub const FINDINGS: u32 = decision_bit(Decision::ReusedStale) | decision_bit(Decision::Dropped);

/// Every decision.
pub const ALL_DECISIONS: u32 = decision_bit(Decision::Scheduled)
    | decision_bit(Decision::Reused)
    | decision_bit(Decision::ReusedStale)
    | decision_bit(Decision::Rescheduled)
    | decision_bit(Decision::Dropped);

#[cfg(feature = "user")]
mod user {
    // SAFETY: `#[repr(C)]`, padding spelled out.
    unsafe impl aya::Pod for super::Config {}
    // SAFETY: `#[repr(C)]`, padding spelled out.
    unsafe impl aya::Pod for super::DropLocation {}
    // SAFETY: `#[repr(C)]`, padding spelled out.
    unsafe impl aya::Pod for super::HookCaller {}
}
