//! The IPVS table as the agent reads it: every kind of service, forwarding and family.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::agent::Agent;
use crate::lab::Lab;
use crate::scrape::Scrape;
use crate::{command, director, wait};

/// Services and real servers as `ipvsadm -R` takes them. The captured bytes that the agent's unit
/// tests read are of exactly this table.
const RULES: &str = "\
-A -t 10.96.0.10:80 -s rr
-a -t 10.96.0.10:80 -r 10.1.1.2:8080 -m -w 1 -x 100 -y 50
-a -t 10.96.0.10:80 -r 10.1.2.2:8080 -m -w 3
-a -t 10.96.0.10:80 -r 10.1.3.2:8080 -m -w 0
-A -t 10.96.0.10:443 -s wrr -p 300
-a -t 10.96.0.10:443 -r 10.1.1.2:443 -g -w 7
-A -u 10.96.0.10:53 -s rr -o
-a -u 10.96.0.10:53 -r 10.1.2.2:53 -i -w 2
-A -t [fd96::10]:80 -s wlc -p 600 -M 64
-a -t [fd96::10]:80 -r [fd01:0:0:1::2]:8080 -m -w 65535
-A -f 258 -s sh
-a -f 258 -r 10.1.3.2:0 -g -w 5
-A -t 10.96.0.10:81 -s rr
";

/// Weights as the metrics must have them: service, real server, weight.
const WEIGHTS: [(&[&str; 4], &[&str; 2], u64); 7] = [
    (&["TCP", "10.96.0.10", "80", ""], &["10.1.1.2", "8080"], 1),
    (&["TCP", "10.96.0.10", "80", ""], &["10.1.2.2", "8080"], 3),
    (&["TCP", "10.96.0.10", "80", ""], &["10.1.3.2", "8080"], 0),
    (&["TCP", "10.96.0.10", "443", ""], &["10.1.1.2", "443"], 7),
    (&["UDP", "10.96.0.10", "53", ""], &["10.1.2.2", "53"], 2),
    (
        &["TCP", "fd96::10", "80", ""],
        &["fd01:0:0:1::2", "8080"],
        65_535,
    ),
    (&["FWM", "", "0", "00000102"], &["10.1.3.2", "0"], 5),
];

/// Reading often enough for a scenario of seconds.
const OPTIONS: [&str; 4] = ["--real-servers", "all", "--table-interval-s", "1"];
/// Two readings, under emulation.
const READ_LIMIT: Duration = Duration::from_secs(15);

/// Plays the story.
pub fn run(_: &mut Lab) -> Result<()> {
    director::load(&[])?;
    command::run_with_input("ipvsadm", &["-R"], RULES)?;
    let mut agent = Agent::spawn_with(&OPTIONS)?;
    agent.wait_ready()?;
    wait::until("the table to be read", READ_LIMIT, || {
        let scrape = agent.scrape()?;
        ensure_gauge(&scrape, "ipvs_lens_services", &[], 6)?;
        let state = |state| [("state", state)];
        ensure_gauge(&scrape, "ipvs_lens_real_servers", &state("available"), 6)?;
        ensure_gauge(&scrape, "ipvs_lens_real_servers", &state("draining"), 1)?;
        ensure_gauge(&scrape, "ipvs_lens_services_without_real_server", &[], 1)?;
        ensure_changes(&scrape, &[])?;
        ensure_weights(&scrape)
    })?;
    // What vanishes from the table vanishes from the scrape.
    command::line("ipvsadm -d -t 10.96.0.10:80 -r 10.1.3.2:8080")?;
    command::line("ipvsadm -D -f 258")?;
    wait::until("the removed to vanish", READ_LIMIT, || {
        let scrape = agent.scrape()?;
        ensure_gauge(&scrape, "ipvs_lens_services", &[], 5)?;
        let left = scrape.select(WEIGHT, &[]).len();
        ensure!(
            left == WEIGHTS.len() - 2,
            "{left} weights are shown, want 5"
        );
        let draining = scrape.select("ipvs_lens_draining_since_timestamp_seconds", &[]);
        ensure!(draining.is_empty(), "still draining: {draining:?}");
        // The service takes its real server along.
        ensure_changes(
            &scrape,
            &[("service_removed", 1), ("real_server_removed", 2)],
        )
    })?;
    command::line("ipvsadm -e -t 10.96.0.10:80 -r 10.1.2.2:8080 -m -w 4")?;
    command::line("ipvsadm -E -t 10.96.0.10:81 -s wrr")?;
    command::line("ipvsadm -a -t 10.96.0.10:81 -r 10.1.3.2:8080 -m -w 2")?;
    wait::until("the changes to be read", READ_LIMIT, || {
        let changes = [
            ("service_removed", 1),
            ("service_changed", 1),
            ("real_server_added", 1),
            ("real_server_removed", 2),
            ("real_server_changed", 1),
        ];
        ensure_changes(&agent.scrape()?, &changes)
    })?;
    agent.terminate()
}

const WEIGHT: &str = "ipvs_lens_real_server_weight";

/// Exactly these changes, and none of any other kind.
fn ensure_changes(scrape: &Scrape, wanted: &[(&str, u64)]) -> Result<()> {
    let all = wanted.iter().map(|(_, count)| count).sum();
    ensure_gauge(scrape, CHANGES, &[], all)?;
    wanted.iter().try_for_each(|(change, count)| {
        ensure_gauge(scrape, CHANGES, &[("change", change)], *count)
    })
}

const CHANGES: &str = "ipvs_lens_table_changes_total";

fn ensure_weights(scrape: &Scrape) -> Result<()> {
    for (service, server, weight) in WEIGHTS {
        let names = SERVICE_LABELS.iter().chain(&SERVER_LABELS);
        let values = service.iter().chain(server);
        let labels: Vec<_> = names.copied().zip(values.copied()).collect();
        let shown = scrape.select(WEIGHT, &labels).len();
        ensure!(
            shown == 1,
            "{shown} weights are shown of {labels:?}, want 1"
        );
        ensure_gauge(scrape, WEIGHT, &labels, weight)?;
    }
    let shown = scrape.select(WEIGHT, &[]).len();
    ensure!(
        shown == WEIGHTS.len(),
        "{shown} weights, want {}",
        WEIGHTS.len()
    );
    Ok(())
}

const SERVICE_LABELS: [&str; 4] = ["proto", "local_address", "local_port", "local_mark"];
const SERVER_LABELS: [&str; 2] = ["remote_address", "remote_port"];

fn ensure_gauge(scrape: &Scrape, name: &str, labels: &[(&str, &str)], wanted: u64) -> Result<()> {
    let found = scrape.count(name, labels)?;
    ensure!(
        found == wanted,
        "{name}{labels:?} is {found}, want {wanted}"
    );
    Ok(())
}
