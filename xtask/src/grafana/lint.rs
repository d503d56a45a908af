//! What people expect of a dashboard, after the rules of Grafana's dashboard linter.

use std::collections::BTreeSet;

use super::json::dashboard;
use super::{BOARDS, Board, Panel, Query, variables};
use crate::metrics;
use crate::paths::Paths;
use crate::rules::{self, RuleFile};

/// Functions of a counter that need a window.
const RATES: [&str; 3] = ["rate(", "irate(", "increase("];

fn each_query(mut check: impl FnMut(&Board, &Panel, &Query)) {
    for board in BOARDS {
        for panel in board.panels() {
            for query in panel.queries {
                check(board, panel, query);
            }
        }
    }
}

#[test]
fn boards_and_panels_are_described_and_unique() {
    let uids: BTreeSet<_> = BOARDS.iter().map(|board| board.uid).collect();
    assert_eq!(uids.len(), BOARDS.len());
    for board in BOARDS {
        assert!(board.uid.starts_with("ipvs-lens-"), "{}", board.uid);
        assert!(!board.description.is_empty(), "{}", board.uid);
        let mut titles = BTreeSet::new();
        for panel in board.panels() {
            let what = format!("{}: {}", board.uid, panel.title);
            assert!(titles.insert(panel.title), "{what}: twice");
            assert!(panel.description.ends_with('.'), "{what}: description");
            assert!(!panel.unit.is_empty(), "{what}: unit");
            assert!(!panel.queries.is_empty(), "{what}: nothing to draw");
            assert!(panel.width <= 24, "{what}: width");
        }
    }
}

#[test]
fn every_query_names_series_that_exist() {
    let paths = Paths::find().expect("the checkout is found");
    let exposed = metrics::series(&paths).expect("docs/metrics.md is there");
    let text = rules::read(&paths).expect("the rules are there");
    let rules = RuleFile::parse(&text).expect("the rules are valid");
    let recorded: BTreeSet<_> = rules.rules().filter_map(|r| r.record.as_deref()).collect();
    each_query(|board, panel, query| {
        for name in rules::series(query.expr) {
            assert!(
                exposed.contains(name) || recorded.contains(name),
                "{}: {}: {name} does not exist",
                board.uid,
                panel.title
            );
        }
    });
}

#[test]
fn every_query_is_selected_by_the_boards_variables() {
    each_query(|board, panel, query| {
        let what = format!("{}: {}: {}", board.uid, panel.title, query.expr);
        let expr = query.with_selectors();
        assert!(!expr.contains('<'), "{what}: an unknown scope");
        assert!(expr.contains("job=~\"$job\""), "{what}: no job");
        assert!(
            expr.contains("instance=~\"$instance\""),
            "{what}: no instance"
        );
        let offered: BTreeSet<_> = variables(board.scope).map(|v| v.label).collect();
        for word in expr.split("=~\"$").skip(1) {
            let name = word.split('"').next().unwrap_or_default();
            assert!(
                offered.contains(name),
                "{what}: ${name} is no variable here"
            );
        }
    });
}

#[test]
fn rates_use_the_rate_interval_and_counters_a_rate() {
    each_query(|board, panel, query| {
        let what = format!("{}: {}: {}", board.uid, panel.title, query.expr);
        for window in query.expr.split('[').skip(1) {
            let window = window.split(']').next().unwrap_or_default();
            assert_eq!(window, "$__rate_interval", "{what}");
        }
        for (at, _) in query.expr.match_indices("_total{") {
            let before = &query.expr[..at];
            let start = before
                .rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .map_or(0, |at| at + 1);
            let before = &query.expr[..start];
            assert!(
                RATES.iter().any(|rate| before.ends_with(rate)),
                "{what}: a counter without a rate"
            );
        }
    });
}

#[test]
fn dashboards_are_as_the_linter_wants_them() {
    for board in BOARDS {
        let json = dashboard(board);
        assert_eq!(json["editable"], false, "{}", board.uid);
        let variables = json["templating"]["list"].as_array().expect("a list");
        let datasource = &variables[0];
        assert_eq!(datasource["name"], "datasource");
        assert_eq!(datasource["label"], "Data Source");
        for variable in &variables[1..] {
            assert_eq!(variable["multi"], true, "{}", variable["name"]);
            assert_eq!(variable["refresh"], 2, "{}", variable["name"]);
            assert_eq!(variable["datasource"]["uid"], "${datasource}");
        }
    }
}

/// Alerts lead to a dashboard that is there, with variables that it has.
#[test]
fn alerts_lead_to_dashboards_and_variables_that_exist() {
    let paths = Paths::find().expect("the checkout is found");
    let text = rules::read(&paths).expect("the rules are there");
    for rule in RuleFile::parse(&text).expect("the rules are valid").rules() {
        let Some(url) = rule.annotations.get("dashboard_url") else {
            continue;
        };
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let board = BOARDS
            .iter()
            .find(|board| path == format!("/d/{}", board.uid))
            .unwrap_or_else(|| panic!("{path} is no dashboard"));
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let name = part.split('=').next().unwrap_or_default();
            let name = name.strip_prefix("var-").unwrap_or(name);
            assert!(
                variables(board.scope).any(|variable| variable.label == name),
                "{url}: {} has no variable {name}",
                board.uid
            );
        }
    }
}
