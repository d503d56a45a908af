//! The hooks, one file each, in the order a SYN meets them.
//!
//! Each hook is written once, as a function of [`crate::call::Call`], and hangs on fexit or on a
//! kprobe and kretprobe; the agent loads one of the two.

mod leave;
mod lookup;
mod removal;
mod schedule;
mod syn_drop;
mod verdict;
mod weight;
