//! What ipvs-lens decides: bytes in, events, findings, verdicts and lines out.
//!
//! Nothing here reads a file, a socket or a clock, starts a thread or calls the kernel: bytes and
//! times are arguments. No dependency offers such a thing, it compiles for
//! `wasm32-unknown-unknown`, and the lints below refuse what the standard library offers:
//! `clippy.toml` in this crate's directory has the list.

#![forbid(unsafe_code)]
#![forbid(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stderr,
    clippy::print_stdout
)]

pub mod clock;
pub mod correlate;
pub mod decode;
pub mod doctor;
pub mod event;
pub mod finding;
pub mod kernel;
pub mod ledger;
pub mod lifecycle;
pub mod loss;
pub mod output;
pub mod schedule;
pub mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod top;
mod words;
