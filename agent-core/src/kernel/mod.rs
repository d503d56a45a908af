//! Judgements about the running kernel: offsets, drop reasons, symbols, preemption.
//!
//! Functions of type information and of texts that the agent has read.

pub mod btf;
pub mod built_in;
pub mod builtin;
pub mod features;
pub mod layout;
pub mod limitation;
pub mod netfilter;
pub mod preemption;
pub mod reasons;
pub mod symbols;

#[cfg(test)]
mod sample;
