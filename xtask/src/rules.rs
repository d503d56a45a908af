//! The Prometheus rules: read, checked against the rest of the repository, and written again as an
//! object of the Prometheus operator.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::paths::Paths;

/// The rules, for Prometheus; everything else is made from them.
const SOURCE: &str = "dashboards/ipvs-lens.rules.yml";

/// The same, for the Prometheus operator.
const OBJECT: &str = "deploy/prometheusrule.yaml";

/// What stands before the groups of the object.
const OBJECT_HEAD: &str = "\
# Made from dashboards/ipvs-lens.rules.yml by `cargo xtask generate`; change that file.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: ipvs-lens
  labels:
    app.kubernetes.io/name: ipvs-lens
spec:
";

/// A rule file.
#[derive(Debug, Deserialize)]
pub struct RuleFile {
    /// Evaluated one after the other inside, at the same time among each other.
    pub groups: Vec<Group>,
}

/// A group of rules.
#[derive(Debug, Deserialize)]
pub struct Group {
    /// In their order.
    pub rules: Vec<Rule>,
}

/// A recording rule or an alert.
#[derive(Debug, Deserialize)]
pub struct Rule {
    /// Name of an alert.
    pub alert: Option<String>,
    /// Name of a recorded series.
    pub record: Option<String>,
    /// PromQL.
    pub expr: String,
    /// Of an alert.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Of an alert.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl RuleFile {
    /// Reads the text of a rule file.
    ///
    /// # Errors
    /// When it is no rule file.
    pub fn parse(text: &str) -> Result<Self> {
        serde_saphyr::from_str(text).with_context(|| format!("{SOURCE} is no rule file"))
    }

    /// Every rule of every group.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.groups.iter().flat_map(|group| &group.rules)
    }
}

/// Where the rules are.
pub fn source(paths: &Paths) -> PathBuf {
    paths.root.join(SOURCE)
}

/// The text of the rules.
///
/// # Errors
/// When the file cannot be read.
pub fn read(paths: &Paths) -> Result<String> {
    let path = source(paths);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// The object's file, and what belongs into it.
///
/// # Errors
/// When the rules cannot be read.
pub fn object(paths: &Paths) -> Result<(PathBuf, String)> {
    Ok((paths.root.join(OBJECT), wrap(&read(paths)?)))
}

/// The rules as an object: indented as they are, so that comments stay.
fn wrap(rules: &str) -> String {
    let mut object = OBJECT_HEAD.to_owned();
    // What stands above the groups speaks of the file.
    let groups = rules.find("groups:").map_or("", |at| &rules[at..]);
    for line in groups.lines() {
        if !line.is_empty() {
            object.push_str("  ");
            object.push_str(line);
        }
        object.push('\n');
    }
    object
}

/// Names of series in a query, in their order, without those of this file's own labels.
///
/// A name that begins like ours can only be a series: no label or function does.
pub fn series(query: &str) -> Vec<&str> {
    query
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
        .filter(|word| word.contains("ipvs_lens_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{RuleFile, read, series, wrap};
    use crate::metrics;
    use crate::paths::Paths;
    use std::collections::BTreeSet;
    use std::fs;

    const RUNBOOKS: &str = "docs/runbooks";
    const RUNBOOK_URL: &str = "https://github.com/ipvs-lens/ipvs-lens/blob/main/docs/runbooks/";
    const SECTIONS: [&str; 4] = [
        "## What it means",
        "## How to confirm",
        "## What to do now",
        "## How to fix for good",
    ];

    fn paths() -> Paths {
        Paths::find().expect("the checkout is found")
    }

    fn rules() -> RuleFile {
        let text = read(&paths()).expect("the rules are there");
        RuleFile::parse(&text).expect("the rules are valid")
    }

    fn alerts() -> BTreeSet<String> {
        rules()
            .rules()
            .filter_map(|rule| rule.alert.clone())
            .collect()
    }

    #[test]
    fn the_object_is_the_rules_two_columns_in() {
        let object = wrap("# about\ngroups:\n  - name: a\n\n    rules: []\n");
        assert!(
            object.ends_with("spec:\n  groups:\n    - name: a\n\n      rules: []\n"),
            "{object}"
        );
        assert!(!object.contains("# about"));
    }

    #[test]
    fn series_are_found_in_a_query() {
        assert_eq!(
            series(
                "sum by (job) (rate(ipvs_lens_a_total{cause=\"x\"}[2m])) / up > a:ipvs_lens_b:rate2m"
            ),
            ["ipvs_lens_a_total", "a:ipvs_lens_b:rate2m"]
        );
    }

    #[test]
    fn every_query_names_series_that_exist() {
        let exposed = metrics::series(&paths()).expect("docs/metrics.md is there");
        let rules = rules();
        let recorded: BTreeSet<_> = rules.rules().filter_map(|r| r.record.as_deref()).collect();
        for rule in rules.rules() {
            for name in series(&rule.expr) {
                assert!(
                    exposed.contains(name) || recorded.contains(name),
                    "{name} in {:?} is no metric of docs/metrics.md and no recorded series",
                    rule.expr
                );
            }
        }
    }

    #[test]
    fn every_alert_is_told_as_people_expect() {
        for rule in rules().rules() {
            let Some(alert) = &rule.alert else { continue };
            assert!(alert.starts_with("IPVS"), "{alert}");
            let severity = rule.labels.get("severity").map(String::as_str);
            assert!(
                matches!(severity, Some("critical" | "warning" | "info")),
                "{alert}: severity {severity:?}"
            );
            let annotation = |name: &str| {
                let text = rule.annotations.get(name);
                text.unwrap_or_else(|| panic!("{alert} has no {name}"))
            };
            let summary = annotation("summary");
            assert!(
                summary.ends_with('.') && !summary.contains("{{"),
                "{alert}: {summary}"
            );
            let static_too = alert == "IPVSLensAbsent";
            assert!(
                static_too || annotation("description").contains("{{ $labels.instance }}"),
                "{alert} names no node"
            );
            assert_eq!(
                annotation("runbook_url"),
                &format!("{RUNBOOK_URL}{alert}.md")
            );
            assert!(annotation("dashboard_url").starts_with("/d/ipvs-lens-"));
        }
    }

    #[test]
    fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
        let dir = paths().root.join(RUNBOOKS);
        let mut books = BTreeSet::new();
        for entry in fs::read_dir(dir).expect("the runbooks are there") {
            let path = entry.expect("the directory is readable").path();
            let name = path.file_stem().expect("a file has a name");
            let name = name.to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).expect("a runbook is text");
            assert!(text.starts_with(&format!("# {name}\n")), "{name}");
            let sections: Vec<_> = text.lines().filter(|l| l.starts_with("## ")).collect();
            assert_eq!(sections, SECTIONS, "{name}");
            books.insert(name);
        }
        assert_eq!(books, alerts());
    }

    #[test]
    fn every_alert_is_fired_by_a_test() {
        let tests = paths().root.join("dashboards/tests/ipvs-lens.test.yml");
        let text = fs::read_to_string(tests).expect("the rule tests are there");
        let tests: serde_json::Value = serde_saphyr::from_str(&text).expect("they are YAML");
        let mut fired = BTreeSet::new();
        for test in tests["tests"].as_array().expect("a list of tests") {
            for wanted in test["alert_rule_test"].as_array().into_iter().flatten() {
                if wanted["exp_alerts"]
                    .as_array()
                    .is_some_and(|a| !a.is_empty())
                {
                    fired.insert(wanted["alertname"].as_str().unwrap_or_default().to_owned());
                }
            }
        }
        assert_eq!(fired, alerts());
    }
}
