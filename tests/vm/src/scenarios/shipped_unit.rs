//! The unit of `deploy/` under systemd itself: it starts, is active and ready, and counts exactly.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::agent::{self, BINARY};
use crate::director::{self, Transport};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::service::{ORDINARY, Service};
use crate::shipped;
use crate::topology::{CLIENT_NETNS, REAL_SERVERS, RS1, Site, Topology};
use crate::{command, http, sysctl, systemd, traffic, wait};

/// Name of the unit.
const UNIT: &str = "ipvs-lens.service";
/// From the start to `/readyz`: reading types and loading programs is slow under emulation.
const READY_LIMIT: Duration = Duration::from_secs(90);
/// Connections of each turn, a third of them stale.
const CONNECTIONS: u16 = 9;
/// First source port of the first turn.
const PORT: u16 = 40_000;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    install()?;
    director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    for kptr_restrict in 0..=2 {
        let first_port = PORT + CONNECTIONS * kptr_restrict;
        turn(lab, kptr_restrict, first_port)
            .with_context(|| format!("kptr_restrict={kptr_restrict}"))
            .with_context(|| format!("the unit's log:\n{}", systemd::log(UNIT)))?;
    }
    sysctl::write("kernel/kptr_restrict", "0")?;
    other_namespace().with_context(|| format!("the unit's log:\n{}", systemd::log(UNIT)))
}

/// IPVS in a second namespace, which has a name: the unit may enter it to read its table.
fn other_namespace() -> Result<()> {
    command::line(&format!("systemctl start {UNIT}"))?;
    wait_ready()?;
    wait_services(1)?;
    let site = Site::Second;
    let other = Topology::up(site)?;
    let service = Service {
        netns: site.director(),
        ..ORDINARY
    };
    service.create(&REAL_SERVERS)?;
    let client = site.netns(CLIENT_NETNS);
    let plan = Lab::plan((PORT..PORT + CONNECTIONS).collect());
    traffic::run(Some(&client), &plan)?.ensure_all_answered()?;
    wait_services(2)?;
    command::line(&format!("systemctl stop {UNIT}"))?;
    other.down()
}

/// Services in all tables that the unit reads.
fn wait_services(want: u64) -> Result<()> {
    wait::until("the tables to be read", READY_LIMIT, || {
        let found = agent::scrape_default()?.count("ipvs_lens_services", &[])?;
        ensure!(found == want, "{found} services, want {want}");
        Ok(())
    })
}

/// The program where the unit names it, and the unit as it is shipped.
fn install() -> Result<()> {
    let program = shipped::unit_program()?;
    fs::create_dir_all("/usr/local/bin")?;
    fs::copy(BINARY, program).with_context(|| format!("install {program}"))?;
    systemd::install(UNIT, shipped::UNIT)
}

/// One start of the unit.
fn turn(lab: &Lab, kptr_restrict: u16, first_port: u16) -> Result<()> {
    sysctl::write("kernel/kptr_restrict", &kptr_restrict.to_string())?;
    let plan = || Lab::plan((first_port..first_port + CONNECTIONS).collect());
    director::set_weight(RS1, 1)?;
    let first = lab.run_all_answered(&plan())?;
    let stale = first.answered_by(RS1.name);
    director::set_weight(RS1, 0)?;

    command::line(&format!("systemctl start {UNIT}"))?;
    wait_ready()?;
    ensure_state("active")?;
    ensure_confined()?;
    lab.run_all_answered(&plan())?;
    agent::expect_at_default(&Expected::none().came_back(first.attempts() - stale, stale, RS1))?;
    command::line(&format!("systemctl stop {UNIT}"))?;
    ensure_state("inactive")?;
    lab.bpf_before.ensure_nothing_new()
}

fn ensure_state(want: &str) -> Result<()> {
    let state = systemd::state(UNIT)?;
    ensure!(state == want, "{UNIT} is {state}, want {want}");
    Ok(())
}

fn wait_ready() -> Result<()> {
    wait::until("/readyz to answer 200", READY_LIMIT, || {
        if systemd::state(UNIT)? == "failed" {
            return Ok(Err(anyhow::anyhow!("{UNIT} has failed")));
        }
        let ready = http::get(agent::LISTEN.into(), "/readyz", "")?;
        ensure!(ready.status == 200, "/readyz: {}", ready.body.trim());
        Ok(Ok(()))
    })?
}

/// It runs as the unit says: not as root, and without a way to more rights.
fn ensure_confined() -> Result<()> {
    let pid = command::line(&format!("systemctl show --value --property=MainPID {UNIT}"))?;
    let path = format!("/proc/{}/status", pid.trim());
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|value| value.split_whitespace().next())
    };
    ensure!(
        field("Uid:").is_some_and(|uid| uid != "0") && field("NoNewPrivs:") == Some("1"),
        "{path}: want a user other than root and NoNewPrivs 1:\n{status}"
    );
    Ok(())
}
