//! The agent as a library: kernel records in, findings and metrics out.
//!
//! ```text
//! source (io) -> decode (pure) -> correlate (pure, clock as argument) -> outputs (io)
//! ```
//!
//! PURE rooms (`event`, `decode`, `correlate`, `finding`, `doctor::{facts, rules, report}`) read no clock, no
//! file and no socket, and spawn nothing. `clock` is the only reader of clocks.

pub mod cli;
pub mod clock;
pub mod correlate;
pub mod decode;
pub mod doctor;
pub mod error;
pub mod event;
pub mod finding;
pub mod kernel;
pub mod observer;
pub mod outputs;
pub mod probes;
pub mod run;
pub mod settings;
pub mod source;
pub mod status;
pub mod table;
#[cfg(test)]
mod testing;
pub mod top;
