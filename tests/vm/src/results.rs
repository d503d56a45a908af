//! The second serial port: what the host reads while the guest runs.
//!
//! JSON Lines for the host in scenario mode, plain lines for a person in demo mode. Writing must
//! never stop the guest: without the port, lines go to the console.

use std::fs::{File, OpenOptions};
use std::io::Write;

use serde::Serialize;

/// The host's end of this port is a file or a pipe.
const PORT: &str = "/dev/ttyS1";

/// How a scenario ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything was as asserted.
    Passed,
    /// Something was not; the detail says what.
    Failed,
    /// It cannot hold on this kernel; the detail says why.
    Skipped,
}

/// One line for the host.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// Init runs.
    Booted {
        /// Kernel release.
        release: &'a str,
    },
    /// A scenario begins.
    Start {
        /// Its name.
        scenario: &'a str,
    },
    /// A scenario ended.
    End {
        /// Its name.
        scenario: &'a str,
        /// How.
        result: Outcome,
        /// How long it took.
        seconds: f64,
        /// Why it failed or was skipped; empty when it passed.
        detail: &'a str,
    },
    /// One measurement, in instructions.
    Bench {
        /// Who watched.
        variant: &'a str,
        /// Which turn it was.
        round: u32,
        /// An acknowledgement on an established connection.
        established: u64,
        /// A SYN that was scheduled.
        scheduled: u64,
        /// A SYN that followed an old entry to a stale real server.
        reused: u64,
    },
    /// What a table of 100,000 real servers cost once.
    Table {
        /// Who was scraped.
        variant: &'a str,
        /// Which turn it was.
        round: u32,
        /// From the connect to the last byte.
        scrape_ms: f64,
        /// Lines of the answer that are no comments.
        series: usize,
        /// Time the last reading of the table took outside scrapes; 0 where a scrape reads it.
        read_ms: f64,
        /// Memory held after the scrape.
        resident_kib: u64,
        /// The most it ever held.
        peak_kib: u64,
    },
    /// Init itself failed.
    Error {
        /// Why.
        detail: &'a str,
    },
    /// Nothing follows; the guest powers off.
    Done,
}

/// The open port.
pub struct Results(Box<dyn Write + Send>);

impl Results {
    /// Opens the port, or the console where there is no such port.
    pub fn open() -> Self {
        let port: std::io::Result<File> = OpenOptions::new().write(true).open(PORT);
        match port {
            Ok(port) => Self(Box::new(port)),
            Err(error) => {
                eprintln!("lab: open {PORT}: {error}; results go to the console");
                Self(Box::new(std::io::stdout()))
            }
        }
    }

    /// Sends one event.
    pub fn send(&mut self, event: &Event<'_>) {
        match serde_json::to_string(event) {
            Ok(line) => self.line(&line),
            Err(error) => eprintln!("lab: result as JSON: {error}"),
        }
    }

    /// Sends one line of text.
    pub fn line(&mut self, text: &str) {
        if let Err(error) = writeln!(self.0, "{text}").and_then(|()| self.0.flush()) {
            eprintln!("lab: write to {PORT}: {error}; the line was: {text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_hosts_format() {
        let json = |event: &Event<'_>| serde_json::to_string(event).unwrap();
        assert_eq!(json(&Event::Done), r#"{"event":"done"}"#);
        assert_eq!(
            json(&Event::Booted {
                release: "6.1.0-56"
            }),
            r#"{"event":"booted","release":"6.1.0-56"}"#
        );
        assert_eq!(
            json(&Event::End {
                scenario: "x",
                result: Outcome::Failed,
                seconds: 1.5,
                detail: "a\nb",
            }),
            r#"{"event":"end","scenario":"x","result":"failed","seconds":1.5,"detail":"a\nb"}"#
        );
    }
}
