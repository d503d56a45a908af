//! `ipvs-lens doctor`: what keeps this node from being observed, and what IPVS may do wrong on it.
//!
//! Facts are gathered by IO, judged by pure rules, and reported; nothing is attached or changed.

pub mod facts;
pub mod gather;
pub mod report;
pub mod rules;

use std::io::{self, Write};
use std::path::Path;

use crate::error::{Exit, Failure};
use crate::settings::Format;
use report::Report;

/// Judges this node and prints the report.
///
/// # Errors
/// When `out` cannot be written.
pub fn run(format: Format, out: &mut impl Write) -> Result<Exit, Failure> {
    let facts = gather::gather(Path::new("/"));
    let report = Report::of(&facts);
    print(&report, format, out)
        .map_err(|error| Failure::failed(format_args!("cannot write the report: {error}")))?;
    Ok(report.exit())
}

fn print(report: &Report<'_>, format: Format, out: &mut impl Write) -> io::Result<()> {
    match format {
        Format::Text => {
            let mut text = String::new();
            report.text(&mut text).map_err(io::Error::other)?;
            out.write_all(text.as_bytes())?;
        }
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, report)?;
            out.write_all(b"\n")?;
        }
    }
    out.flush()
}
