//! What the traffic generator saw: the ground truth the agent's numbers are held against. Pure.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// Failed connections shown in one error message; the rest is only counted.
const SHOWN_FAILURES: usize = 5;

/// Step of a connection that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Socket and source port: no packet has been sent.
    Bind,
    /// From the first SYN on.
    Connect,
    /// Connected, waiting for the server's name.
    Answer,
    /// Answered, waiting for the server's FIN.
    Close,
}

/// Why a connection failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Where it failed.
    pub stage: Stage,
    /// Error number of the system; 0 when the peer closed without answering.
    pub errno: i32,
    /// The system's text for it.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            stage,
            errno,
            message,
        } = self;
        write!(f, "{stage:?}: {message} (errno {errno})")
    }
}

impl Error for Failure {}

/// One attempt to connect (TCP) or one question (UDP).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Client's source port.
    pub source_port: u16,
    /// Name the server sent.
    pub answered_by: Option<String>,
    /// From `connect()` to its end, by the monotonic clock; for UDP from question to answer.
    pub elapsed_ms: u64,
    /// SYNs sent again before the connection was made or given up.
    pub syn_retransmits: u32,
    /// What went wrong, if anything.
    pub failure: Option<Failure>,
}

/// All connections of one run, in the order in which each worker made them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// One entry per attempt.
    pub connections: Vec<Connection>,
}

impl Report {
    /// Attempts made.
    pub fn attempts(&self) -> usize {
        self.connections.len()
    }

    /// Attempts answered by the server called `name`.
    pub fn answered_by(&self, name: &str) -> usize {
        self.ports_answered_by(name).len()
    }

    /// Source ports of the attempts answered by the server called `name`.
    pub fn ports_answered_by(&self, name: &str) -> Vec<u16> {
        self.connections
            .iter()
            .filter(|connection| connection.answered_by.as_deref() == Some(name))
            .map(|connection| connection.source_port)
            .collect()
    }

    /// Answers by server name; attempts without answer are not in it.
    pub fn answers(&self) -> BTreeMap<&str, usize> {
        let mut answers = BTreeMap::new();
        for name in self
            .connections
            .iter()
            .filter_map(|c| c.answered_by.as_deref())
        {
            *answers.entry(name).or_default() += 1;
        }
        answers
    }

    /// SYNs sent again, over all attempts.
    pub fn syn_retransmits(&self) -> u64 {
        self.connections
            .iter()
            .map(|c| u64::from(c.syn_retransmits))
            .sum()
    }

    /// SYNs sent, over all attempts.
    ///
    /// # Errors
    /// More than can be counted.
    pub fn syns(&self) -> Result<usize> {
        Ok(self.attempts() + usize::try_from(self.syn_retransmits())?)
    }

    /// Attempts that failed in any way.
    pub fn failed(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().filter(|c| c.failure.is_some())
    }

    /// The longest [`Connection::elapsed_ms`]; 0 when there was no attempt.
    pub fn slowest_ms(&self) -> u64 {
        self.connections
            .iter()
            .map(|c| c.elapsed_ms)
            .max()
            .unwrap_or(0)
    }

    /// # Errors
    /// Names the first attempt that did not fail with this error number.
    pub fn ensure_all_failed(&self, errno: i32) -> Result<()> {
        for connection in &self.connections {
            let found = connection.failure.as_ref().map(|failure| failure.errno);
            ensure!(
                found == Some(errno),
                "want errno {errno}, got {connection:?}"
            );
        }
        Ok(())
    }

    /// # Errors
    /// Names the first attempts that were not answered.
    pub fn ensure_all_answered(&self) -> Result<()> {
        let failed: Vec<_> = self.failed().collect();
        if failed.is_empty() {
            return Ok(());
        }
        bail!(
            "{} of {} connections failed, expected none; the first: {:?}",
            failed.len(),
            self.attempts(),
            &failed[..failed.len().min(SHOWN_FAILURES)]
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(source_port: u16, answered_by: Option<&str>) -> Connection {
        Connection {
            source_port,
            answered_by: answered_by.map(str::to_owned),
            elapsed_ms: u64::from(source_port),
            syn_retransmits: 2,
            failure: answered_by.is_none().then(|| Failure {
                stage: Stage::Connect,
                errno: 113,
                message: "No route to host".to_owned(),
            }),
        }
    }

    fn report() -> Report {
        Report {
            connections: vec![
                connection(1, Some("rs1")),
                connection(2, Some("rs2")),
                connection(3, None),
                connection(4, Some("rs1")),
            ],
        }
    }

    #[test]
    fn counts_by_server_and_sums() {
        let report = report();
        assert_eq!(report.attempts(), 4);
        assert_eq!(report.ports_answered_by("rs1"), [1, 4]);
        assert_eq!(report.answers(), BTreeMap::from([("rs1", 2), ("rs2", 1)]));
        assert_eq!(report.syn_retransmits(), 8);
        assert_eq!(report.slowest_ms(), 4);
        assert_eq!(
            report.failed().map(|c| c.source_port).collect::<Vec<_>>(),
            [3]
        );
    }

    #[test]
    fn one_failure_is_named() {
        let error = report().ensure_all_answered().unwrap_err().to_string();
        assert!(error.starts_with("1 of 4 connections failed"), "{error}");
        assert!(error.contains("errno: 113"), "{error}");
    }

    #[test]
    fn json_keeps_every_field() {
        let json = serde_json::to_value(connection(3, None)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "source_port": 3, "answered_by": null, "elapsed_ms": 3, "syn_retransmits": 2,
                "failure": {"stage": "connect", "errno": 113, "message": "No route to host"},
            })
        );
    }
}
