//! `ipvs-lens doctor`: what keeps this node from being observed, and what IPVS may do wrong on it.
//!
//! Facts are gathered by IO, judged by pure rules, and reported; nothing is changed, and nothing stays attached.

pub mod gather;
pub mod live;

#[cfg(test)]
pub use agent_core::doctor::testing;
pub use agent_core::doctor::{facts, report, rules};

use std::io::{self, Write};
use std::path::Path;

use crate::cli::DoctorArgs;
use crate::error::{Exit, Failure};
use crate::limits;
use crate::settings::Format;
use facts::Facts;
use gather::Look;
use report::{Conclusion, Report};

/// Judges this node, or a saved bundle, and prints the report.
///
/// # Errors
/// When a bundle cannot be read, which is wrong usage, or a file or `out` cannot be written.
pub fn run(args: &DoctorArgs, out: &mut impl Write) -> Result<Exit, Failure> {
    let facts = if let Some(path) = &args.facts {
        saved(path)?
    } else {
        limits::raise();
        gather::gather(&Look {
            programs: true,
            agent: Some(args.http.listen),
            kernel: Some(args.kernel.clone()),
            ..Look::at_files()
        })
    };
    if let Some(path) = &args.save_facts {
        save(&facts, path)?;
    }
    let report = Report::of(&facts);
    let exit = match report.conclusion() {
        Conclusion::NothingToDo => Exit::Done,
        Conclusion::Advice => Exit::Failed,
        Conclusion::CannotObserve => Exit::CannotObserve,
    };
    match print(&report, args.output.format, out) {
        Ok(()) => Ok(exit),
        // A reader that has seen enough, as `head` does, is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit),
        // The status says what the report would have said.
        Err(error) => {
            let failure = Failure::failed(format_args!("cannot write the report: {error}"));
            Err(match exit {
                Exit::Done => failure,
                judged => failure.with_exit(judged),
            })
        }
    }
}

fn saved(path: &Path) -> Result<Facts, Failure> {
    let unusable = |error: &dyn std::fmt::Display| {
        Failure::usage(format_args!("--facts {}: {error}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| unusable(&error))?;
    Facts::parse(&text).map_err(|error| unusable(&error))
}

fn save(facts: &Facts, path: &Path) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::failed(format_args!(
            "cannot save the facts to {}: {error}",
            path.display()
        ))
    };
    let mut text = serde_json::to_string_pretty(facts).map_err(|error| failed(&error))?;
    text.push('\n');
    std::fs::write(path, text).map_err(|error| failed(&error))
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
