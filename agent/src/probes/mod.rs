//! Loads the kernel programs, attaches them, and reads what they count. All aya is in here.

pub mod attach;
pub mod counters;
pub mod fexit;
mod locations;
pub mod outcomes;
pub mod table;
