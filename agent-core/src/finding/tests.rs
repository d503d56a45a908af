//! Lines and JSON of every kind; the scenarios of `correlate` have more lines of attempts.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::expect_file;
use serde_json::Value;

use super::samples::samples;
use super::*;

fn json(finding: &Finding) -> BTreeMap<String, Value> {
    serde_json::from_value(serde_json::to_value(finding).unwrap()).unwrap()
}

/// `UPDATE_EXPECT=1` writes the file; the agent's tests hold it against the JSON Schema.
#[test]
fn every_kind_as_json() {
    let findings = samples();
    let kinds: BTreeSet<_> = findings.iter().map(Finding::kind).collect();
    assert_eq!(kinds.len(), FindingKind::ALL.len());
    let lines = findings.iter().map(|finding| {
        let mut line = serde_json::to_string(finding).unwrap();
        line.push('\n');
        line
    });
    expect_file!["./samples.jsonl"].assert_eq(&lines.collect::<String>());
}

#[test]
fn every_kind_as_text() {
    let lines = samples().into_iter().map(|finding| format!("{finding}\n"));
    expect_file!["./samples.txt"].assert_eq(&lines.collect::<String>());
}

#[test]
fn json_has_the_kinds_word_and_no_null() {
    for finding in samples() {
        let json = json(&finding);
        assert_eq!(json["kind"], finding.kind().as_str());
        assert_eq!(json["mono_ns"], finding.at().0);
        assert!(
            !serde_json::to_string(&json).unwrap().contains("null"),
            "{json:?}"
        );
    }
}

#[test]
fn no_line_has_a_value_that_was_made_up() {
    for finding in samples() {
        let line = finding.to_string();
        for made_up in ["after 0.000 s", "unknown", "nobody", "no cause"] {
            assert!(!line.contains(made_up), "{line}");
        }
    }
}
