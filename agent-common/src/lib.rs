//! The contract between the kernel programs (`agent-ebpf`) and the agent.
//!
//! Everything here crosses the kernel boundary, so every type is plain: fixed-width integers,
//! padding spelled out, no `bool`, `enum`, `Option` or `usize`. `zerocopy` proves at compile time
//! that no byte is undefined. Enumerations travel as integers and are validated on arrival.
//!
//! Byte order: addresses are network-order bytes, IPv4 in the first four and zeros behind it;
//! everything else, ports included, is host order (writer and reader share a machine).
//! Clock: `*_ns` is `CLOCK_MONOTONIC` as `bpf_ktime_get_ns` reads it.
#![no_std]
#![expect(
    clippy::inline_always,
    reason = "the rules of an attempt are part of the kernel program that calls them"
)]

#[cfg(any(test, feature = "schema"))]
extern crate std;

pub mod attempt;
pub mod config;
pub mod count;
pub mod flow;
pub mod follow;
pub mod forwarded;
pub mod key;
pub mod layout;
pub mod netfilter;
pub mod node;
pub mod record;
pub mod stat;
pub mod verdict;
