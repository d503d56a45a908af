//! A finding as a line: for people, or as JSON Lines for programs.
//!
//! The JSON object is the finding's own with `time` in front: the wall time as RFC 3339 in UTC
//! with milliseconds. Its fields are promised in `docs/findings.md`.

use std::io::{self, Write};
use std::time::Duration;

use agent_core::output::queue::QueueLimits;
use serde::Serialize;

use super::writer::{LineWriter, OnFailure};
use crate::clock::{self, WallAnchor};
use crate::finding::Finding;
use crate::settings::Format;

/// Lines that wait for whoever reads stdout: some seconds of a flood as JSON.
const TRACE_LINES_MAX: QueueLimits = QueueLimits {
    lines: 8_192,
    bytes: 4 * 1024 * 1024,
};

/// Time for the last lines at the end of the process; SIGTERM is answered within two seconds.
const FLUSH_TIME: Duration = Duration::from_millis(500);

/// Findings as lines on stdout. A reader who is too slow misses some, and reads how many at their
/// place.
pub struct Lines {
    out: LineWriter,
    format: Format,
}

impl Lines {
    /// Starts the thread that writes to stdout.
    ///
    /// # Errors
    /// There is no thread, or stdout cannot be used.
    pub fn start(format: Format) -> io::Result<Self> {
        let left_out = move |count| left_out(count, &clock::wall_anchor(), format);
        let out = LineWriter::start(
            "trace",
            io::stdout(),
            TRACE_LINES_MAX,
            OnFailure::Stop,
            left_out,
        )?;
        Ok(Self { out, format })
    }

    /// Hands over the line of one finding.
    ///
    /// # Errors
    /// Those of stdout.
    pub fn send(&mut self, finding: &Finding, clocks: &WallAnchor) -> io::Result<()> {
        let mut line = Vec::new();
        write_line(&mut line, finding, clocks, self.format)?;
        self.out.send(line)
    }

    /// Whether stdout still takes lines.
    ///
    /// # Errors
    /// Those of stdout.
    pub fn check(&self) -> io::Result<()> {
        self.out.check()
    }

    /// Writes what waits, within a limit of time.
    pub fn finish(&mut self) {
        if !self.out.flush(FLUSH_TIME) {
            let limit = FLUSH_TIME.as_millis();
            log::warn!("stdout was not read within {limit} ms; the last findings are lost");
        }
    }
}

/// The line at the place of `count` findings that were left out; `docs/findings.md` promises it.
fn left_out(count: u64, clocks: &WallAnchor, format: Format) -> Vec<u8> {
    let time = humantime::format_rfc3339_millis(clocks.wall(clock::now()));
    let line = match format {
        Format::Text => format!("{time} {count} findings left out here: stdout is read too slowly"),
        Format::Json => {
            format!("{{\"time\":\"{time}\",\"kind\":\"findings_left_out\",\"count\":{count}}}")
        }
    };
    (line + "\n").into_bytes()
}

/// A finding as it is printed.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JsonLine<'a> {
    /// Wall time, RFC 3339, UTC.
    time: String,
    /// The finding.
    #[serde(flatten)]
    finding: &'a Finding,
}

/// Writes one line.
///
/// # Errors
/// Those of `out`.
pub fn write_line(
    out: &mut impl Write,
    finding: &Finding,
    clocks: &WallAnchor,
    format: Format,
) -> io::Result<()> {
    let time = humantime::format_rfc3339_millis(clocks.wall(finding.at())).to_string();
    match format {
        Format::Text => writeln!(out, "{time} {finding}")?,
        Format::Json => {
            serde_json::to_writer(&mut *out, &JsonLine { time, finding })?;
            out.write_all(b"\n")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::{Duration, UNIX_EPOCH};

    use expect_test::{Expect, expect};

    use super::*;
    use crate::clock::MonoNs;
    use crate::correlate::Correlator;
    use crate::event::{AttemptDecided, EntryState, PacketEvent, StaleDatagrams, Verdict};
    use crate::finding::FindingKind;
    use crate::finding::samples::samples;
    use crate::testing::{sample_attempt, sample_datagrams, sample_outcome, sample_syn_drop};

    fn line(event: PacketEvent, format: Format) -> String {
        let mut correlator = Correlator::new(false);
        correlator.handle_event(event.at(), event);
        correlator.handle_end(MonoNs(7_000_000_000));
        let finding = correlator.poll_output().unwrap();
        let clocks = WallAnchor::new(MonoNs(0), UNIX_EPOCH + Duration::from_millis(1_500));
        let mut out = Vec::new();
        write_line(&mut out, &finding, &clocks, format).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
    fn check(event: PacketEvent, format: Format, expected: Expect) {
        expected.assert_eq(&line(event, format));
    }

    #[test]
    fn a_stale_connection() {
        let event = PacketEvent::AttemptDecided(sample_attempt());
        check(
            event,
            Format::Text,
            expect![[r#"
            1970-01-01T00:00:06.500Z stale connection: 10.0.0.2:40001 -> TCP 10.96.0.10:80 sent to 10.1.1.2:8080 (weight 0, old entry time_wait) by port_reuse
        "#]],
        );
        check(
            event,
            Format::Json,
            expect![[r#"
                {"time":"1970-01-01T00:00:06.500Z","kind":"stale_connection","mono_ns":5000000000,"netns":4026531840,"client":"10.0.0.2:40001","destination":"10.96.0.10:80","isn":77,"proto":"TCP","local_address":"10.96.0.10","local_port":80,"local_mark":"","remote_address":"10.1.1.2","remote_port":8080,"weight":0,"decision":"reused_stale","old_state":"time_wait","drops":0,"retransmits":0,"cause":"port_reuse"}
            "#]],
        );
    }

    #[test]
    fn what_became_of_it() {
        let event = PacketEvent::OutcomeSeen(sample_outcome());
        check(
            event,
            Format::Text,
            expect![[r#"
            1970-01-01T00:00:07.600Z stale connection unreachable after 3.100 s: 10.0.0.2:40001 -> TCP 10.96.0.10:80 by 10.1.1.2:8080 (weight 0)
        "#]],
        );
        check(
            event,
            Format::Json,
            expect![[r#"
                {"time":"1970-01-01T00:00:07.600Z","kind":"stale_outcome","mono_ns":6100000000,"netns":4026531840,"client":"10.0.0.2:40001","destination":"10.96.0.10:80","isn":77,"proto":"TCP","local_address":"10.96.0.10","local_port":80,"local_mark":"","remote_address":"10.1.1.2","remote_port":8080,"weight":0,"decision":"reused_stale","cause":"port_reuse","outcome":"unreachable","lasted_ns":3100000000,"retransmits":1}
            "#]],
        );
    }

    #[test]
    fn a_stale_flow() {
        let event = PacketEvent::StaleDatagrams(sample_datagrams());
        check(
            event,
            Format::Text,
            expect![[r#"
            1970-01-01T00:00:08.400Z stale flow: 10.0.0.2:40001 -> TCP 10.96.0.10:80, 21 datagrams in 6.0 s sent to 10.1.1.2:8080 (weight 0)
        "#]],
        );
        let dropped = PacketEvent::StaleDatagrams(StaleDatagrams {
            removed: true,
            ..sample_datagrams()
        });
        check(
            dropped,
            Format::Text,
            expect![[r#"
            1970-01-01T00:00:08.400Z stale flow: 10.0.0.2:40001 -> TCP 10.96.0.10:80, 21 datagrams in 6.0 s dropped, bound to removed 10.1.1.2:8080 (weight 0)
        "#]],
        );
        check(
            dropped,
            Format::Json,
            expect![[r#"
                {"time":"1970-01-01T00:00:08.400Z","kind":"stale_flow","mono_ns":6900000000,"netns":4026531840,"client":"10.0.0.2:40001","destination":"10.96.0.10:80","proto":"TCP","local_address":"10.96.0.10","local_port":80,"local_mark":"","remote_address":"10.1.1.2","remote_port":8080,"weight":0,"cause":"ipvs_removed","lasted_ns":6000000000,"datagrams":21}
            "#]],
        );
    }

    #[test]
    fn a_syn_lost_elsewhere() {
        let event = PacketEvent::AttemptDecided(AttemptDecided {
            at: MonoNs(6_030_000_000),
            verdict: Verdict::Reused,
            weight: 1,
            retransmits: 1,
            old_state: Some(EntryState::SynRecv),
            ..sample_attempt()
        });
        check(
            event,
            Format::Text,
            expect![[r#"
                1970-01-01T00:00:07.530Z SYN lost elsewhere: 10.0.0.2:40001 -> TCP 10.96.0.10:80, SYN retransmitted after 1.030 s, no drop seen on this node; sent to 10.1.1.2:8080 (weight 1, old entry syn_recv)
            "#]],
        );
    }

    #[test]
    fn findings_left_out_are_a_line_too() {
        let clocks = WallAnchor::new(MonoNs(0), UNIX_EPOCH);
        let json = left_out(7, &clocks, Format::Json);
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["kind"], "findings_left_out");
        assert_eq!(json["count"], 7);
        assert!(json["time"].as_str().unwrap().ends_with('Z'), "{json}");
        let text = String::from_utf8(left_out(7, &clocks, Format::Text)).unwrap();
        let ending = " 7 findings left out here: stdout is read too slowly\n";
        assert!(text.ends_with(ending), "{text}");
    }

    #[test]
    fn every_field_and_kind_is_in_the_document() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/findings.md");
        let document = std::fs::read_to_string(path).unwrap();
        let documented = |table: &str| -> Vec<String> {
            let (_, rest) = document.split_once(table).unwrap();
            let rows = rest.lines().skip_while(|l| !l.starts_with("| `"));
            rows.map_while(|line| line.strip_prefix("| `")?.split('`').next())
                .map(str::to_owned)
                .collect()
        };
        let mut fields = BTreeSet::from(["time".to_owned()]);
        for finding in samples() {
            let json: serde_json::Map<String, serde_json::Value> =
                serde_json::from_value(serde_json::to_value(finding).unwrap()).unwrap();
            fields.extend(json.into_iter().map(|(key, _)| key));
        }
        assert_eq!(BTreeSet::from_iter(documented("## Fields")), fields);
        let kinds = FindingKind::ALL.iter().map(|kind| kind.as_str().to_owned());
        assert_eq!(documented("## Kinds"), kinds.collect::<Vec<_>>());
    }

    #[test]
    fn a_dropped_syn() {
        let event = PacketEvent::SynDropped(sample_syn_drop());
        check(
            event,
            Format::Text,
            expect![[r#"
                1970-01-01T00:00:07.500Z SYN dropped: 10.0.0.2:40001 -> TCP 10.96.0.10:80, 1 by netfilter in input, none got through here in 1.0 s
            "#]],
        );
        check(
            event,
            Format::Json,
            expect![[r#"
                {"time":"1970-01-01T00:00:07.500Z","kind":"syn_dropped","mono_ns":6000000000,"netns":4026531840,"client":"10.0.0.2:40001","destination":"10.96.0.10:80","isn":77,"cause":"netfilter","netfilter_hook":"input","kernel_reason":8,"kernel_location":"0xffffffff81234567","drops":1,"waited_ns":1000000000,"events_lost":0}
            "#]],
        );
    }
}
