//! Bytes in: raw records from the kernel, untouched. Decoding is not done here.

pub mod ring;
