//! What the agent gives up, it does without: programs are attached again with the capabilities it
//! keeps, and where it keeps none it says that it cannot.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::modes::FOLLOW;
use super::module_life::{self, ensure_waiting, play_once};
use crate::agent::{self, Agent};
use crate::confinement::{self, ensure_confined};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::rights::Rights;
use crate::{director, sysctl, wait};

/// User of the systemd unit, as far as the kernel is concerned: not root.
const USER: u32 = 1_000;
/// Exit status of a node that cannot be observed.
const CANNOT_OBSERVE: i32 = 3;
/// Who may use bpf(2) without capabilities.
const UNPRIVILEGED_BPF: &str = "kernel/unprivileged_bpf_disabled";
const UNPRIVILEGED_BPF_NAME: &str = "kernel.unprivileged_bpf_disabled";
const OPTION: &str = "--drop-all-capabilities";
/// A web configuration that lets no client in, and one that asks for nothing.
const WEB_CONFIG: &str = "/tmp/confined.yml";
const NOBODY_MAY: &str = "basic_auth_users:\n  alice: \
    $2b$04$abcdefghijklmnopqrstuuFmEfrkTQnczNzw475xE2VhDrK1uwJiC\n";
const ALICE: &str = "Authorization: Basic YWxpY2U6cmlnaHQ=\r\n";
/// In the log, of a module that is not attached to again.
const GIVEN_UP: &str = "the capabilities to attach to it were given up (--drop-all-capabilities)";

/// Plays the story of [`module_life`] with the rights of the unit, then with those of the DaemonSet.
pub fn attaches_again(lab: &mut Lab) -> Result<()> {
    let cases = [
        ("unit", Rights::of(USER, confinement::UNIT)),
        ("DaemonSet", Rights::of(0, confinement::DAEMONSET)),
    ];
    for (name, rights) in cases {
        let mut agent = Agent::spawn_command(&mut rights.agent(&["run"]))?;
        module_life::comes_and_goes(lab, &mut agent)
            .and_then(|()| ensure_confined(agent.id(), confinement::UNIT))
            .with_context(|| format!("with the rights of the {name}"))?;
        agent.terminate()?;
        director::unload()?;
    }
    Ok(())
}

/// Counts exactly with no capability at all, also after SIGHUP, and says that it cannot attach again.
pub fn without_capabilities(lab: &mut Lab) -> Result<()> {
    director::load(&FOLLOW)?;
    let rights = Rights::of(USER, confinement::UNIT);
    if maps_need_capabilities()? {
        let refused = agent::start_command(&mut rights.agent(&["run", OPTION]))?.finish()?;
        ensure!(
            refused.code == Some(CANNOT_OBSERVE) && refused.stderr.contains(UNPRIVILEGED_BPF_NAME),
            "exit status {:?}, want {CANNOT_OBSERVE} and {UNPRIVILEGED_BPF_NAME}:\n{}",
            refused.code,
            refused.stderr
        );
        lab.bpf_before.ensure_nothing_new()?;
        sysctl::write(UNPRIVILEGED_BPF, "0")?;
    }
    fs::write(WEB_CONFIG, NOBODY_MAY)?;
    let run = ["run", OPTION, "--web-config", WEB_CONFIG];
    let mut agent = Agent::spawn_command(&mut rights.agent(&run))?;
    agent.authorize(ALICE);
    agent.wait_ready()?;
    ensure_confined(agent.id(), 0)?;
    let first = play_once(lab, module_life::FIRST_PORTS)?;
    let counted = first.add_to(Expected::none());
    agent.expect(&counted)?;
    reload(&mut agent)?;
    ensure_confined(agent.id(), 0)?;

    director::unload()?;
    ensure_waiting(&mut agent).context("without the module")?;
    director::load(&FOLLOW)?;
    wait::until(
        "/status to name the option",
        module_life::ARMED_LIMIT,
        || {
            let status = agent.status()?;
            let reason = status["reason"].as_str().unwrap_or_default();
            ensure!(
                status["state"] == "waiting" && reason.contains(OPTION),
                "/status: {status}"
            );
            Ok(())
        },
    )?;
    play_once(lab, module_life::LATER_PORTS)?;
    agent.expect(&counted).context("not attached again")?;
    agent.wait_readyz(503)?;
    let log = fs::read_to_string(agent::LOG)?;
    let lines = log.lines().filter(|line| line.contains(GIVEN_UP)).count();
    ensure!(lines == 1, "{lines} lines name {OPTION}, want 1:\n{log}");
    agent.terminate()
}

/// The web configuration as it is now, which lets everybody in.
fn reload(agent: &mut Agent) -> Result<()> {
    agent.authorize("");
    let before = agent.get("/metrics")?.status;
    ensure!(before == 401, "/metrics without a user: {before}, want 401");
    fs::write(WEB_CONFIG, "{}\n")?;
    agent.hang_up()?;
    wait::until("/metrics without a user", module_life::ARMED_LIMIT, || {
        agent.scrape().map(drop)
    })?;
    wait::until("the log to name SIGHUP", module_life::ARMED_LIMIT, || {
        let log = fs::read_to_string(agent::LOG)?;
        ensure!(log.contains("SIGHUP: web configuration"), "{log}");
        Ok(())
    })
}

/// Whether this kernel lets only `CAP_BPF` read maps: before 5.19, by the parameter.
fn maps_need_capabilities() -> Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        anyhow::bail!("no version in {release:?}");
    };
    let disabled = fs::read_to_string(format!("/proc/sys/{UNPRIVILEGED_BPF}"))?;
    Ok((major, minor) < (5, 19) && disabled.trim() != "0")
}
