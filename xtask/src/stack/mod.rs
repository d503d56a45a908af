//! Prometheus and Alertmanager as people run them, beside the agent: programs from Debian's
//! packages, on the loopback address only.

pub mod checks;
pub mod programs;
