//! What is decided about outputs without writing them: what waits for a slow reader, and when the
//! observer counts as stalled.
//!
//! PURE.

pub mod pulse;
pub mod queue;
