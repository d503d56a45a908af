//! What the agent must know about the running kernel before it may read its memory.
//!
//! What is decided from it is pure and lives in `agent_core::kernel`; `btf` reads type information,
//! `model` what says how the kernel preempts.

pub mod btf;
pub mod model;

pub use agent_core::kernel::{builtin, layout, netfilter, preemption, reasons, symbols};
