//! What the agent must know about the running kernel before it may read its memory.
//!
//! `layout` and `reasons` are pure functions of BTF; `btf` is the only file that reads it.

pub mod btf;
pub mod builtin;
pub mod layout;
pub mod netfilter;
pub mod preemption;
pub mod reasons;
pub mod symbols;

#[cfg(test)]
mod sample;
