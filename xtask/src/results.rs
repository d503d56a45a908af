//! What a guest reports on its second serial port: one JSON object per line.

use serde::Deserialize;

/// One line of a guest's report.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Process 1 runs.
    Booted {
        /// As `uname -r` prints it.
        release: String,
    },
    /// A scenario begins.
    Start {
        /// Its name.
        scenario: String,
    },
    /// A scenario is over.
    End {
        /// Its name.
        scenario: String,
        /// How it ended.
        result: Outcome,
        /// How long it took, in guest time.
        seconds: f64,
        /// Why it failed or was skipped; may be empty.
        #[serde(default)]
        detail: String,
    },
    /// One measurement, in instructions.
    Bench(Measurement),
    /// What a table of 100,000 real servers cost once.
    Table(TableMeasurement),
    /// Process 1 could not do what it was asked to; the guest powers off.
    Error {
        /// Why.
        detail: String,
    },
    /// All scenarios are over; the guest powers off.
    Done,
}

/// What one variant cost, in instructions.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Measurement {
    /// Who watched.
    pub variant: String,
    /// Which turn it was.
    pub round: u32,
    /// An acknowledgement on an established connection.
    pub established: u32,
    /// A SYN that was scheduled.
    pub scheduled: u32,
    /// A SYN that followed an old entry to a stale real server.
    pub reused: u32,
}

/// One scrape, and what whoever answered it had used by then.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct TableMeasurement {
    /// Who was scraped.
    pub variant: String,
    /// Which turn it was.
    pub round: u32,
    /// From the connect to the last byte.
    pub scrape_ms: f64,
    /// Lines of the answer that are no comments.
    pub series: u32,
    /// Time the last reading of the table took outside scrapes; 0 where a scrape reads it.
    pub read_ms: f64,
    /// Memory held after the scrape.
    pub resident_kib: u32,
    /// The most it ever held.
    pub peak_kib: u32,
}

/// How a scenario ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every assertion held.
    Passed,
    /// One did not.
    Failed,
    /// It does not apply to this kernel.
    Skipped,
}

/// The event a line holds; `None` for a line that is no event (a torn or foreign line).
pub fn parse(line: &str) -> Option<Event> {
    serde_json::from_str(line).ok()
}

#[cfg(test)]
mod tests {
    use super::{Event, Outcome, parse};

    #[test]
    fn every_event_is_read() {
        assert_eq!(
            parse(r#"{"event":"booted","release":"6.1.0"}"#),
            Some(Event::Booted {
                release: "6.1.0".to_owned()
            })
        );
        assert_eq!(
            parse(r#"{"event":"start","scenario":"x"}"#),
            Some(Event::Start {
                scenario: "x".to_owned()
            })
        );
        assert_eq!(
            parse(
                r#"{"event":"end","scenario":"x","result":"failed","seconds":1.5,"detail":"3 != 4"}"#
            ),
            Some(Event::End {
                scenario: "x".to_owned(),
                result: Outcome::Failed,
                seconds: 1.5,
                detail: "3 != 4".to_owned()
            })
        );
        assert_eq!(
            parse(r#"{"event":"error","detail":"why"}"#),
            Some(Event::Error {
                detail: "why".to_owned()
            })
        );
        assert_eq!(parse(r#"{"event":"done"}"#), Some(Event::Done));
    }

    #[test]
    fn detail_may_be_absent() {
        let event = parse(r#"{"event":"end","scenario":"x","result":"passed","seconds":0}"#);
        assert_eq!(
            event,
            Some(Event::End {
                scenario: "x".to_owned(),
                result: Outcome::Passed,
                seconds: 0.0,
                detail: String::new()
            })
        );
    }

    #[test]
    fn torn_and_foreign_lines_are_no_events() {
        for line in [
            "",
            "{\"event\":\"en",
            "[ 1.0] Kernel panic",
            r#"{"event":"other"}"#,
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
        assert_eq!(
            parse(r#"{"event":"end","scenario":"x","result":"maybe","seconds":1}"#),
            None
        );
    }
}
