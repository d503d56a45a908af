//! What ipvs-lens decides: bytes in, events, findings, verdicts and lines out.
//!
//! Nothing here reads a file, a socket or a clock, starts a thread or calls the kernel: bytes and
//! times are arguments. Without the standard library's I/O it compiles for
//! `wasm32-unknown-unknown`; `clippy.toml` beside this crate bans the rest.

#![forbid(unsafe_code)]

pub mod clock;
pub mod correlate;
pub mod decode;
pub mod doctor;
pub mod event;
pub mod finding;
pub mod kernel;
pub mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod top;
