//! The kernel programs of ipvs-lens, with a perf buffer per CPU for their records (Linux 5.4).
//!
//! See `ring.rs`, of which this is the twin for kernels without ring buffers. Nothing in here may
//! need more than 5.4: no ring buffer, and so no aya-log either.
//!
//! Each file under `probes/` is one hook; `attempt` decides what a SYN means, `count` and `emit`
//! are the only writers of counters and records, `read` is the only reader of kernel memory.
//! Nothing here allocates, loops without bound, or changes what the kernel does with a packet.
#![no_std]
#![no_main]
#![expect(
    clippy::inline_always,
    reason = "one program, one function: old verifiers refuse or re-check what is called"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the attribute macros of the hooks want their context by value"
)]
#![expect(
    unstable_features,
    reason = "inline assembly for this target is not stable yet"
)]
#![feature(asm_experimental_arch)]

mod atomic;
mod attempt;
mod call;
mod conntrack;
mod count;
mod datagram;
mod emit;
mod follow;
mod ipvs;
mod maps;
mod netfilter;
mod node;
mod packet;
mod probes;
mod proof;
mod read;
mod runtime;
mod socket;
#[path = "transport/perf.rs"]
mod transport;
mod types;
