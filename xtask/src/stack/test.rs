//! End to end: the oldest and the newest Prometheus and Alertmanager watch the same incident.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use serde_json::{Value, json};

use super::director::{Director, Word};
use super::ports;
use super::programs;
use super::servers::{Alertmanager, Prometheus, Setup};
use super::timelapse;
use super::wait;
use super::webhook::{Notice, Webhook};
use crate::exec::say;
use crate::grafana::{BOARDS, Query};
use crate::paths::Paths;
use crate::pins;
use crate::rules::{self, RuleFile};
use crate::tally::Tally;

/// From the cause to the page and from the cure to its end, on a busy host.
const NOTICE_LIMIT: Duration = Duration::from_mins(3);

/// For series to be scraped and rules to be evaluated on them.
const DATA_LIMIT: Duration = Duration::from_secs(60);

/// What the pager must hear, and nothing else: the alert, and labels that name service and real
/// server.
const PAGES: &[(&str, &[(&str, &str)])] = &[
    (
        "IPVSStaleConnections",
        &[
            ("cluster", "demo"),
            ("instance", "director"),
            ("proto", "TCP"),
            ("local_address", "10.96.0.10"),
            ("local_port", "80"),
            ("remote_address", "10.1.1.2"),
            ("remote_port", "8080"),
        ],
    ),
    (
        "IPVSUDPBlackHole",
        &[
            ("cluster", "demo"),
            ("instance", "director"),
            ("proto", "UDP"),
            ("local_address", "10.96.0.10"),
            ("local_port", "80"),
            ("remote_address", "10.1.1.2"),
            ("remote_port", "8080"),
        ],
    ),
];

/// An alert that fires in the incident and must not page: another page's consequence.
const SILENCED: &str =
    "ALERTS{alertname=\"IPVSStaleConnectionsFail\",alertstate=\"firing\",severity=\"critical\"}";

/// Series that rules read and that this incident does not have, and why.
const ABSENT: &[(&str, &str)] = &[
    (
        "ipvs_lens_web_config_last_reload_successful",
        "the agent is started without a web configuration",
    ),
    (
        "ipvs_lens_listen_drops_total",
        "no listener is overrun in the incident",
    ),
    (
        "ipvs_lens_connect_failures_total",
        "no client runs out of ports in the incident",
    ),
];

/// A Prometheus with its Alertmanager, and the name of its paths at the webhook.
struct Watcher {
    name: &'static str,
    prometheus: Prometheus,
    _alertmanager: Alertmanager,
}

/// Counts results and says at once what failed.
#[derive(Default)]
struct Score(Tally);

impl Score {
    fn take(&mut self, what: &str, result: &Result<()>) {
        match result {
            Ok(()) => println!("stack: passed {what}"),
            Err(error) => println!("stack: FAILED {what}: {error:#}"),
        }
        self.0 += Tally::of(result.is_ok());
    }
}

/// Runs `cargo xtask stack-test`.
///
/// # Errors
/// When a part does not start, or something was not as it should be.
pub fn verb(paths: &Paths) -> Result<()> {
    let tally = run(paths)?;
    println!("{tally}");
    ensure!(tally.failed == 0, "{} checks failed", tally.failed);
    Ok(())
}

/// Plays the incident once, before every watcher.
///
/// # Errors
/// When a part does not start.
pub fn run(paths: &Paths) -> Result<Tally> {
    let [agent, control, hook, native_port] = ports::free()?;
    let webhook = Webhook::listen(hook, Router::new())?;
    let director = Director::boot(paths, pins::DEMO_KERNEL, agent, control)?;
    let watchers = [
        watcher(paths, &pins::OLDEST_STACK, agent, hook, false)?,
        watcher(paths, &pins::NEWEST_STACK, agent, hook, true)?,
    ];
    // The oldest keeps either native or classic histograms, so it runs twice.
    let oldest_native = Prometheus::start(
        paths,
        &programs::ensure(paths, &pins::OLDEST_STACK)?,
        &Setup {
            name: "oldest-native",
            port: native_port,
            agent,
            alertmanager: None,
            native_histograms: true,
            scrape_settings: json!({}),
        },
    )?;
    let rules = RuleFile::parse(&rules::read(paths)?)?;
    let mut score = Score::default();
    director.say(Word::Delay)?;
    director.say(Word::Begin)?;
    // Everybody has connected once, or there is no entry to follow.
    wait_for_reuse(&watchers)?;
    director.say(Word::Drain)?;
    for watcher in &watchers {
        let name = watcher.name;
        score.take(&format!("{name}: pages"), &pages(&webhook, name, "firing"));
    }
    director.say(Word::Remove)?;
    data(&rules, &watchers, &oldest_native, &mut score);
    director.say(Word::Cure)?;
    for watcher in &watchers {
        let name = watcher.name;
        score.take(
            &format!("{name}: pages end"),
            &pages(&webhook, name, "resolved"),
        );
        score.take(
            &format!("{name}: no other page"),
            &no_other_page(&webhook.notices(), name),
        );
        score.take(
            &format!("{name}: pages say what the rules do"),
            &told_as_written(&webhook.notices(), name, &rules),
        );
    }
    Ok(score.0)
}

fn watcher(
    paths: &Paths,
    release: &pins::Release,
    agent: u16,
    webhook: u16,
    native: bool,
) -> Result<Watcher> {
    let programs = programs::ensure(paths, release)?;
    let [prometheus, alertmanager] = ports::free()?;
    let alertmanager = Alertmanager::start(paths, &programs, release.name, alertmanager, webhook)?;
    let scrape_settings = if native {
        json!({ "always_scrape_classic_histograms": true })
    } else {
        json!({})
    };
    let prometheus = Prometheus::start(
        paths,
        &programs,
        &Setup {
            name: release.name,
            port: prometheus,
            agent,
            alertmanager: Some(&alertmanager),
            native_histograms: native,
            scrape_settings,
        },
    )?;
    Ok(Watcher {
        name: release.name,
        prometheus,
        _alertmanager: alertmanager,
    })
}

/// Waits until the ports of the clients have come back.
fn wait_for_reuse(watchers: &[Watcher]) -> Result<()> {
    let query = "sum(ipvs_lens_connections_total{decision=\"reused\"}) > 12";
    watchers
        .iter()
        .try_for_each(|watcher| non_empty(&watcher.prometheus, query))
}

/// Waits until every page has arrived in this state.
fn pages(webhook: &Webhook, watcher: &str, status: &str) -> Result<()> {
    for &(alert, labels) in PAGES {
        let what = format!("{watcher}'s page {alert} to be {status}");
        let start = Instant::now();
        wait::until(&what, NOTICE_LIMIT, || {
            let notices = webhook.notices();
            Ok(notices
                .iter()
                .find(|notice| is_page(notice, watcher, alert, status, labels))
                .map(drop))
        })
        .with_context(|| format!("received: {:?}", names(&webhook.notices(), watcher)))?;
        say(format!(
            "{what}: after {:.0} s",
            start.elapsed().as_secs_f64()
        ));
    }
    Ok(())
}

fn is_page(
    notice: &Notice,
    watcher: &str,
    alert: &str,
    status: &str,
    labels: &[(&str, &str)],
) -> bool {
    notice.path == pager(watcher)
        && notice.alert.status == status
        && notice.alert.label("alertname") == alert
        && labels
            .iter()
            .all(|(name, value)| notice.alert.label(name) == *value)
}

fn pager(watcher: &str) -> String {
    format!("/{watcher}/pages")
}

fn names<'a>(notices: &'a [Notice], watcher: &str) -> BTreeSet<(&'a str, &'a str)> {
    let root = format!("/{watcher}/");
    notices
        .iter()
        .filter(|notice| notice.path.starts_with(&root))
        .map(|notice| (notice.path.as_str(), notice.alert.label("alertname")))
        .collect()
}

/// An alert that was silent all along may be reported as resolved, when it ends together with the
/// one that silenced it: they are a group.
fn no_other_page(notices: &[Notice], watcher: &str) -> Result<()> {
    let wanted: BTreeSet<_> = PAGES.iter().map(|(alert, _)| *alert).collect();
    let heard: BTreeSet<_> = notices
        .iter()
        .filter(|notice| notice.path == pager(watcher) && notice.alert.status == "firing")
        .map(|notice| notice.alert.label("alertname"))
        .collect();
    ensure!(
        heard == wanted,
        "the pager heard {heard:?}, want {wanted:?}"
    );
    Ok(())
}

/// Each page has the severity and the runbook of its rule, and names service and real server.
fn told_as_written(notices: &[Notice], watcher: &str, rules: &RuleFile) -> Result<()> {
    for notice in notices {
        if notice.path != pager(watcher) {
            continue;
        }
        let alert = &notice.alert;
        let rule = rules.rules().find(|rule| {
            rule.alert.as_deref() == Some(alert.label("alertname"))
                && rule.labels.get("severity").map(String::as_str) == Some(alert.label("severity"))
        });
        let rule = rule.with_context(|| format!("no rule fires {alert:?}"))?;
        ensure!(
            rule.annotations.get("runbook_url") == alert.annotations.get("runbook_url"),
            "another runbook: {alert:?}"
        );
        let description = alert.annotations.get("description");
        let description = description.map_or("", String::as_str);
        for part in ["local_address", "remote_address"] {
            let value = alert.label(part);
            ensure!(
                description.contains(value),
                "{description:?} does not name {value}"
            );
        }
    }
    Ok(())
}

/// Everything that must be found in the series by now.
fn data(rules: &RuleFile, watchers: &[Watcher], oldest_native: &Prometheus, score: &mut Score) {
    for watcher in watchers {
        let name = watcher.name;
        for series in rule_series(rules) {
            let result = non_empty(&watcher.prometheus, series);
            score.take(&format!("{name}: rules: {series}"), &result);
        }
        score.take(
            &format!("{name}: connections fail, and the page for why stands for it"),
            &non_empty(&watcher.prometheus, SILENCED),
        );
        score.take(
            &format!("{name}: every rule evaluates"),
            &rules_evaluate(&watcher.prometheus, rules),
        );
        for (what, query) in panel_queries() {
            let result = draws(&watcher.prometheus, query);
            score.take(&format!("{name}: {what}"), &result);
        }
        score.take(
            &format!("{name}: exemplars name the client"),
            &exemplars(&watcher.prometheus),
        );
    }
    let natives = [
        ("newest", &watchers[1].prometheus),
        ("oldest-native", oldest_native),
    ];
    for (name, prometheus) in natives {
        score.take(
            &format!("{name}: native histogram"),
            &native_histogram(prometheus),
        );
    }
}

/// Every series the rules read or record, but for those of [`ABSENT`].
fn rule_series(rules: &RuleFile) -> BTreeSet<&str> {
    let read = rules.rules().flat_map(|rule| rules::series(&rule.expr));
    let recorded = rules.rules().filter_map(|rule| rule.record.as_deref());
    let absent = |name: &&str| ABSENT.iter().any(|(series, _)| series == name);
    read.chain(recorded).filter(|name| !absent(name)).collect()
}

/// Prometheus has all the rules, and no evaluation of one has failed.
fn rules_evaluate(prometheus: &Prometheus, rules: &RuleFile) -> Result<()> {
    let known = prometheus.api.rules()?;
    let wanted = rules.rules().count();
    ensure!(known.len() == wanted, "{} of {wanted} rules", known.len());
    for rule in known {
        ensure!(rule["health"] == "ok", "{rule}");
    }
    Ok(())
}

/// The query is valid, and has a result unless it may have none.
fn draws(prometheus: &Prometheus, query: &Query) -> Result<()> {
    let text = query.for_all(timelapse::WINDOW);
    if query.may_be_empty.is_some() {
        return prometheus.api.query(&text).map(drop);
    }
    non_empty(prometheus, &text)
}

/// What every dashboard draws, and where.
fn panel_queries() -> Vec<(String, &'static Query)> {
    let mut queries = Vec::new();
    for board in BOARDS {
        for panel in board.panels() {
            for query in panel.queries {
                queries.push((format!("{}: {}", board.uid, panel.title), query));
            }
        }
    }
    queries
}

fn non_empty(prometheus: &Prometheus, query: &str) -> Result<()> {
    wait::until(&format!("a result of {query}"), DATA_LIMIT, || {
        let result = prometheus.api.query(query)?;
        Ok((!result.is_empty()).then_some(()))
    })
}

/// The exemplar of a stale connection names a client of the traffic generator.
fn exemplars(prometheus: &Prometheus) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let query = "ipvs_lens_stale_connections_total";
    let found = prometheus.api.exemplars(query, now - 600, now + 60)?;
    let clients: Vec<_> = found
        .iter()
        .flat_map(|series| series["exemplars"].as_array().into_iter().flatten())
        .map(|exemplar| exemplar["labels"]["client"].as_str().unwrap_or_default())
        .collect();
    ensure!(
        clients.iter().any(|client| client.starts_with("10.0.0.2:")),
        "exemplars of {query} name {clients:?}, want a port of 10.0.0.2"
    );
    Ok(())
}

/// A native histogram has a count and quantiles without any `_bucket` series.
fn native_histogram(prometheus: &Prometheus) -> Result<()> {
    let query = "histogram_count(ipvs_lens_connect_delay_seconds{cause=\"ipvs_reuse\"}) > 0";
    non_empty(prometheus, query)?;
    let quantile = prometheus
        .api
        .query("histogram_quantile(0.5, ipvs_lens_connect_delay_seconds{cause=\"ipvs_reuse\"})")?;
    let seconds = value(&quantile).context("no quantile")?;
    if !(0.9..1.5).contains(&seconds) {
        bail!("half of the delayed connects took {seconds} s, want about 1 s");
    }
    Ok(())
}

/// The first value of an instant query's result.
fn value(result: &[Value]) -> Option<f64> {
    result.first()?["value"][1].as_str()?.parse().ok()
}
