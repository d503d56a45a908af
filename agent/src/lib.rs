//! The agent as a library: kernel records in, findings and metrics out.
//!
//! ```text
//! source (io) -> decode (pure) -> correlate (pure, clock as argument) -> outputs (io)
//! ```
//!
//! What is pure is `agent-core`, and appears here under the names it has there. `clock` is the only
//! reader of clocks.

pub mod cli;
pub mod clock;
pub mod confinement;
pub mod doctor;
pub mod error;
pub mod kernel;
pub mod limits;
pub mod observation;
pub mod observer;
pub mod outputs;
pub mod privileges;
pub mod probes;
pub mod publish;
pub mod run;
#[cfg(test)]
mod schema;
pub mod settings;
pub mod signals;
pub mod source;
pub mod status;
pub mod syscall_filter;
pub mod top;
pub mod wake;

#[cfg(test)]
use agent_core::testing;
pub use agent_core::{correlate, decode, event, finding, ledger, table};
