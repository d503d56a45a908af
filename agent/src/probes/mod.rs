//! Loads the kernel programs, attaches them, and reads what they count. All aya is in here.

pub mod attach;
pub mod banks;
pub mod counters;
pub mod error;
pub mod features;
pub mod fexit;
pub mod grace;
mod locations;
#[cfg(test)]
mod object_check;
pub mod outcomes;
#[cfg(test)]
mod settings_check;
pub mod table;
