//! Real servers come and go until the kernel's table of counters would be full many times over:
//! the agent empties it in time, and while it cannot, nothing is lost but names.
//!
//! [`run`] makes the table small, so that this takes seconds; [`pods`] and [`services`] play the
//! full size, which takes minutes.

use std::fmt::Write as _;
use std::net::SocketAddrV4;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::agent::Agent;
use crate::director::{self, Transport};
use crate::lab::Lab;
use crate::scrape::Scrape;
use crate::topology::{REAL_SERVERS, RS1, RS2, VIP};
use crate::traffic::Plan;
use crate::{command, wait};

/// Keys of the kernel's table.
const KEYS: &str = "256";
/// Real servers of one rollout: fewer than there are keys.
const PODS: u16 = 100;
/// Rollouts: more real servers than there are keys.
const ROLLOUTS: u16 = 6;
/// Real servers while the agent is stopped: more than there are keys.
const PODS_UNSEEN: u16 = 400;
/// Two readings of the tables, under emulation.
const READ: Duration = Duration::from_secs(4);
/// Until a scrape has them.
const LIMIT: Duration = Duration::from_secs(20);
/// Real servers of one rollout in [`pods`].
const MANY_PODS: u16 = 200;
/// Rollouts in [`pods`]: 18,000 real servers, where the kernel's table has 16,384 keys.
const MANY_ROLLOUTS: u16 = 90;
/// Services in [`services`], two real servers each.
const SERVICES: u16 = 10_000;
/// Services left when the others are removed.
const SERVICES_LEFT: u16 = 10;
/// Series of one exposition, whatever the number of services.
const SERIES_MAX: usize = 2_500;
/// Until a scrape has them, with thousands of services: to read their table takes seconds under
/// emulation, and the agent rests many times as long before it reads again.
const LIMIT_OF_MANY: Duration = Duration::from_mins(8);
/// Ports of the new service that lead to the real server that drains.
const STALE: usize = 30;

const CONNECTIONS: &str = "ipvs_lens_connections_total";
const NEW: &str = "ipvs_lens_new_connections_total";
const LOST: &str = "ipvs_lens_events_lost_total";
const HIDDEN: &str = "ipvs_lens_series_dropped";

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
    command::line(&format!("ipvsadm -A -t {} -s rr", churned()))?;
    let mut agent = Agent::spawn_with(&["--kernel-counts", KEYS, "--table-interval-s", "1"])?;
    agent.wait_ready()?;

    for rollout in 0..ROLLOUTS {
        roll_out(lab, 20_000 + rollout * PODS, PODS)?;
        sleep(READ);
    }
    let seen = u64::from(PODS * ROLLOUTS);
    let scrape = agent.scrape()?;
    let full = scrape.count(LOST, &[("reason", "counts_full")])?;
    ensure!(
        full == 0,
        "{full} counts lost their names: {:#?}",
        sums(&scrape)
    );
    ensure_count(&scrape, CONNECTIONS, &[], seen)?;
    ensure_count(&scrape, CONNECTIONS, &[("local_port", "81")], seen)?;
    ensure_count(&scrape, NEW, &[], seen)?;

    agent.pause()?;
    roll_out(lab, 22_000, PODS_UNSEEN)?;
    agent.resume()?;
    let all = seen + u64::from(PODS_UNSEEN);
    wait::until("everything to be read", LIMIT, || {
        ensure_count(&agent.scrape()?, CONNECTIONS, &[], all)
    })?;
    let scrape = agent.scrape()?;
    ensure_count(&scrape, NEW, &[], all)?;
    let other = scrape.count(CONNECTIONS, &[("local_address", "other")])?;
    ensure!(other > 0, "the table of {KEYS} keys was never full");
    ensure_count(&scrape, LOST, &[("reason", "counts_full")], other)?;

    sleep(READ);
    new_service(lab, &agent, all)?;
    agent.terminate()
}

/// 18,000 real servers through one service and a table of the usual size, then a new service.
pub fn pods(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
    command::line(&format!("ipvsadm -A -t {} -s rr", churned()))?;
    let agent = Agent::start()?;
    for rollout in 0..MANY_ROLLOUTS {
        roll_out(lab, 20_000 + rollout * MANY_PODS, MANY_PODS)?;
    }
    let all = u64::from(MANY_PODS * MANY_ROLLOUTS);
    wait::until("everything to be read", LIMIT, || {
        let scrape = agent.scrape()?;
        ensure_count(&scrape, CONNECTIONS, &[("local_port", "81")], all)?;
        ensure_count(&scrape, CONNECTIONS, &[], all)?;
        ensure_count(&scrape, NEW, &[], all)?;
        ensure_count(&scrape, LOST, &[("reason", "counts_full")], 0)
    })?;
    new_service(lab, &agent, all)?;
    agent.terminate()
}

/// A connection to each real server of 10,000 services; then most services are removed.
pub fn services(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
    command::run_with_input("ipvsadm", &["-R"], &many_services()?)?;
    let agent = Agent::start()?;
    let plans = (0..SERVICES).map(|number| Plan {
        target: many(number).into(),
        ports: vec![30_000, 30_001],
        workers: 1,
        ..Lab::plan(Vec::new())
    });
    let report = lab.run_all(&plans.collect::<Vec<_>>())?;
    let all = u64::from(SERVICES) * 2;
    ensure!(
        u64::try_from(report.failed().count())? == all && report.syns()? == report.attempts(),
        "want {all} connections refused at once, got {} of {} and {} SYNs",
        report.failed().count(),
        report.attempts(),
        report.syns()?
    );
    wait::until("everything to be read", LIMIT_OF_MANY, || {
        let scrape = agent.scrape()?;
        ensure_whole(&scrape, all)?;
        let hidden = scrape.count(HIDDEN, &[("family", CONNECTIONS)])?;
        ensure!(hidden > 0, "no service is hidden");
        Ok(())
    })?;
    let mut delete = String::new();
    for number in SERVICES_LEFT..SERVICES {
        writeln!(delete, "-D -t {}", many(number))?;
    }
    command::run_with_input("ipvsadm", &["-R"], &delete)?;
    wait::until("nothing to be hidden", LIMIT_OF_MANY, || {
        let scrape = agent.scrape()?;
        ensure_whole(&scrape, all)?;
        ensure_count(&scrape, HIDDEN, &[], 0)
    })?;
    agent.terminate()
}

fn ensure_whole(scrape: &Scrape, all: u64) -> Result<()> {
    ensure_count(scrape, CONNECTIONS, &[], all)?;
    ensure_count(scrape, NEW, &[], all)?;
    ensure_count(scrape, LOST, &[("reason", "counts_full")], 0)?;
    let series = scrape.samples.len();
    ensure!(
        series <= SERIES_MAX,
        "{series} series, want {SERIES_MAX} at most"
    );
    Ok(())
}

fn many(number: u16) -> SocketAddrV4 {
    SocketAddrV4::new(*VIP.ip(), 20_000 + number)
}

/// Their real servers refuse: nothing listens there.
fn many_services() -> Result<String> {
    let mut rules = String::new();
    for number in 0..SERVICES {
        writeln!(rules, "-A -t {} -s rr", many(number))?;
        for server in [RS1, RS2] {
            let real_server = SocketAddrV4::new(*server.address().ip(), 9);
            writeln!(rules, "-a -t {} -r {real_server} -m -w 1", many(number))?;
        }
    }
    Ok(rules)
}

/// What happens now has a name again.
fn new_service(lab: &Lab, agent: &Agent, before: u64) -> Result<()> {
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    let ports = 40_000..40_000 + 3 * u16::try_from(STALE)?;
    let first = lab.run_all_answered(&Lab::plan(ports.collect()))?;
    director::set_weight(RS1, 0)?;
    let again = lab.run_all_answered(&Lab::plan(first.ports_answered_by(RS1.name)))?;
    ensure!(
        again.attempts() == STALE,
        "{} of {STALE} drained",
        again.attempts()
    );
    let address = RS1.address().ip().to_string();
    let stale = [
        ("local_port", "80"),
        ("remote_address", address.as_str()),
        ("cause", "port_reuse"),
    ];
    let all = before + u64::try_from(first.attempts() + again.attempts())?;
    let counted = u64::try_from(STALE)?;
    wait::until("stale connections to be counted", LIMIT, || {
        let scrape = agent.scrape()?;
        ensure_count(
            &scrape,
            "ipvs_lens_stale_connections_total",
            &stale,
            counted,
        )?;
        ensure_count(&scrape, "ipvs_lens_stale_connections_total", &[], counted)?;
        ensure_count(&scrape, CONNECTIONS, &[], all)?;
        ensure_count(&scrape, NEW, &[], all)
    })
}

/// The service whose real servers come and go.
fn churned() -> SocketAddrV4 {
    SocketAddrV4::new(*VIP.ip(), 81)
}

/// `pods` new real servers, a connection to each, which it refuses, and their end.
fn roll_out(lab: &Lab, from: u16, pods: u16) -> Result<()> {
    let (mut add, mut delete) = (String::new(), String::new());
    for port in from..from + pods {
        let pod = SocketAddrV4::new(*RS1.address().ip(), port);
        writeln!(add, "-a -t {} -r {pod} -m -w 1", churned())?;
        writeln!(delete, "-d -t {} -r {pod}", churned())?;
    }
    command::run_with_input("ipvsadm", &["-R"], &add)?;
    let mut plan = Lab::plan((from..from + pods).collect());
    plan.target = churned().into();
    let report = lab.run(&plan)?;
    command::run_with_input("ipvsadm", &["-R"], &delete)?;
    let refused = report.failed().count();
    ensure!(
        refused == usize::from(pods) && report.syns()? == report.attempts(),
        "want {pods} connections refused at once, got {report:?}"
    );
    Ok(())
}

/// What a failure has to be judged by.
fn sums(scrape: &Scrape) -> Vec<String> {
    let of = |labels: &[(&str, &str)]| {
        format!(
            "{CONNECTIONS}{labels:?} is {}",
            scrape.sum(CONNECTIONS, labels)
        )
    };
    vec![
        of(&[]),
        of(&[("local_port", "81")]),
        of(&[("local_address", "other")]),
    ]
}

fn ensure_count(scrape: &Scrape, name: &str, labels: &[(&str, &str)], wanted: u64) -> Result<()> {
    let found = scrape.count(name, labels)?;
    ensure!(
        found == wanted,
        "{name}{labels:?} is {found}, want {wanted}"
    );
    Ok(())
}
