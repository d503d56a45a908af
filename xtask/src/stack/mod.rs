//! Prometheus and Alertmanager as people run them, with the agent in its guest: programs from
//! Debian's packages, on the loopback address only.

mod api;
pub mod checks;
pub mod demo;
mod director;
mod ports;
mod preview;
pub mod programs;
mod servers;
pub mod test;
mod timelapse;
mod wait;
mod webhook;
