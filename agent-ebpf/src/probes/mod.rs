//! The hooks, one file each, in the order a SYN meets them.
//!
//! Each hook is written once, as a function of [`crate::call::Call`], and hangs on fexit or on a
//! kprobe and kretprobe; the agent loads one of the two.

mod black_hole;
mod connect;
mod conntrack_clash;
mod conntrack_full;
mod frag_needed;
mod handshake;
mod icmp;
mod icmp_relay;
mod leave;
mod listen;
mod lookup;
mod outcome;
mod removal;
mod schedule;
mod syn_drop;
mod verdict;
mod weight;
