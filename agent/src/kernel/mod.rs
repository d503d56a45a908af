//! What the agent must know about the running kernel before it may read its memory.
//!
//! What is decided from it is pure and lives in `agent_core::kernel`; `btf` reads type information,
//! `model` what says how the kernel preempts, `presence` whether ip_vs is part of its image,
//! `supplied` types that the user has, `symbols` which functions there are.

pub mod btf;
pub mod model;
pub mod presence;
#[cfg(test)]
mod reach;
pub mod supplied;
pub mod symbols;

pub use agent_core::kernel::{builtin, layout, limitation, netfilter, preemption, reasons};
