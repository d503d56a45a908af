//! Where findings and counters leave the agent: `/metrics` and its neighbours, lines, logs.

pub mod http;
pub mod log;
pub mod logger;
pub mod metrics;
pub mod trace;
pub mod writer;
