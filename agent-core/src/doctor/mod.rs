//! The doctor: facts about a node, rules that judge them, and the report.

pub mod facts;
pub mod report;
pub mod rules;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
