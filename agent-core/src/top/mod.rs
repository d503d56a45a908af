//! `ipvs-lens top`: which rows, in which order, and the lines they make.

pub mod lines;
pub mod view;
