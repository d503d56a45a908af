//! `cargo xtask demo --stack`: the incident, from the first stale connection to the page and back.

use std::io::{self, BufRead};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use super::director::{Director, Word};
use super::ports::{self, Ports};
use super::preview;
use super::programs;
use super::servers::{Alertmanager, Prometheus, Setup};
use super::timelapse;
use super::wait;
use super::webhook::{Alert, Webhook};
use crate::paths::Paths;
use crate::pins;

/// The page this is about.
const ALERT: &str = "IPVSStaleConnections";

/// From the cause to the page, and from the cure to its end: a time-lapse minute, thrice over for a
/// busy host.
const NOTICE_LIMIT: Duration = Duration::from_mins(3);

/// Clients go on for so long before anything happens, so that there is something to compare with.
const CALM: Duration = Duration::from_secs(10);

/// Name of this stack in paths of the webhook.
const NAME: &str = "demo";

/// Plays the incident and shows what arrives.
///
/// # Errors
/// When a port is taken, a part does not start, or the page or its end does not come.
pub fn run(paths: &Paths, kernel: &str, any_port: bool, keep: bool) -> Result<()> {
    let ports = if any_port {
        Ports::any()?
    } else {
        ports::USUAL
    };
    ports.check()?;
    // The newest has no pages in Debian's build.
    let programs = programs::ensure(paths, &pins::OLDEST_STACK)?;
    let pages = preview::routes(paths, ports.prometheus, timelapse::WINDOW)?;
    let webhook = Webhook::listen(ports.webhook, pages)?;
    let director = Director::boot(paths, kernel, ports.agent, ports.control)?;
    let alertmanager =
        Alertmanager::start(paths, &programs, NAME, ports.alertmanager, ports.webhook)?;
    let _prometheus = Prometheus::start(
        paths,
        &programs,
        &Setup {
            name: NAME,
            port: ports.prometheus,
            agent: ports.agent,
            alertmanager: Some(&alertmanager),
            native_histograms: false,
            scrape_settings: json!({}),
        },
    )?;
    introduce(ports);
    play(&director, &webhook)?;
    if keep {
        println!("\nEverything stays up until you press Enter.");
        io::stdin().lock().read_line(&mut String::new())?;
    }
    Ok(())
}

fn introduce(ports: Ports) {
    println!(
        "\nThe agent runs in the guest.\n\
         Time-lapse: every duration of the shipped rules and routes is divided by {}, and the agent\n\
         is scraped every {:.1} s instead of every 30 s. Thresholds are as shipped.\n\n  \
         agent         http://127.0.0.1:{}/metrics\n  \
         Prometheus    http://127.0.0.1:{}/classic/alerts\n  \
         Alertmanager  http://127.0.0.1:{}/api/v2/alerts (Debian's build has no pages)\n  \
         dashboards    http://127.0.0.1:{}/ (drawn without Grafana)\n",
        timelapse::FACTOR,
        Duration::from_millis(timelapse::SCRAPE_MS).as_secs_f64(),
        ports.agent,
        ports.prometheus,
        ports.alertmanager,
        ports.webhook,
    );
}

fn play(director: &Director, webhook: &Webhook) -> Result<()> {
    println!("Some clients vanish and come back during a first, short rollout: connects of 1 s.");
    director.say(Word::Delay)?;
    println!(
        "Then a client opens connections to TCP 10.96.0.10:80, from the same ports all the time."
    );
    director.say(Word::Begin)?;
    std::thread::sleep(CALM);
    println!("A rollout gives 10.1.1.2:8080 weight 0: nothing new should reach it.");
    director.say(Word::Drain)?;
    let start = Instant::now();
    let alert = wait_for(webhook, "firing")?;
    show(&alert, start);
    println!("\nThe rollout goes on: 10.1.1.2 is deleted.");
    director.say(Word::Remove)?;
    std::thread::sleep(CALM);
    println!("The cure of the runbook: sysctl net.ipv4.vs.conn_reuse_mode=1");
    director.say(Word::Cure)?;
    let start = Instant::now();
    show(&wait_for(webhook, "resolved")?, start);
    Ok(())
}

fn wait_for(webhook: &Webhook, status: &str) -> Result<Alert> {
    let what = format!("the page {ALERT} to be {status}");
    wait::until(&what, NOTICE_LIMIT, || {
        let notices = webhook.notices();
        let found = notices
            .into_iter()
            .map(|notice| notice.alert)
            .find(|alert| alert.label("alertname") == ALERT && alert.status == status);
        Ok(found)
    })
}

fn show(alert: &Alert, since: Instant) {
    println!(
        "\nAfter {} s the pager hears: {} {}",
        since.elapsed().as_secs(),
        ALERT,
        alert.status
    );
    for name in ["summary", "description", "runbook_url"] {
        if let Some(text) = alert.annotations.get(name) {
            println!("  {text}");
        }
    }
}
