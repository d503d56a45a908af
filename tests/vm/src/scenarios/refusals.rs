//! What cannot work: one clear line on stderr, the promised exit status, nothing left behind.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount, umount};

use crate::agent::{self, Agent, BINARY, LISTEN};
use crate::director;
use crate::lab::Lab;
use crate::process::Finished;
use crate::wait;

/// Exit statuses, as documented for users.
const RUNTIME_FAILURE: i32 = 1;
const USAGE: i32 = 2;
const CANNOT_OBSERVE: i32 = 3;
/// A user without any right.
const NOBODY: u32 = 65_534;
/// Where the kernel publishes its types.
pub const BTF: &str = "/sys/kernel/btf";
/// How long the agent may take to notice that ip_vs is not loaded, on a busy host.
const START_LIMIT: Duration = Duration::from_secs(15);
/// A configuration that is no TOML.
const BROKEN_CONFIG: &str = "/tmp/broken.toml";

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    waits_for_ip_vs().context("ip_vs absent")?;
    lab.bpf_before.ensure_nothing_new()?;

    let config = "/nowhere/agent.toml";
    refused(
        "unknown flag",
        &["run", "--frobnicate"],
        USAGE,
        "--frobnicate",
    )?;
    refused(
        "config that is not there",
        &["run", "--config", config],
        USAGE,
        config,
    )?;
    fs::write(BROKEN_CONFIG, "listen = = 1\n")?;
    refused(
        "config that is no TOML",
        &["run", "--config", BROKEN_CONFIG],
        USAGE,
        BROKEN_CONFIG,
    )?;

    let taken = TcpListener::bind(LISTEN).with_context(|| format!("take {LISTEN}"))?;
    refused("port taken", &["run"], RUNTIME_FAILURE, &LISTEN.to_string())?;
    drop(taken);

    let unprivileged =
        agent::start_command(Command::new(BINARY).arg("run").uid(NOBODY))?.finish()?;
    ensure_refusal(&unprivileged, CANNOT_OBSERVE, "root").context("not root")?;

    without_btf(|| refused("no BTF", &["run"], CANNOT_OBSERVE, BTF))?;
    lab.bpf_before.ensure_nothing_new()
}

/// Waiting is no refusal: the agent is up, says why it is not ready, and arms itself.
fn waits_for_ip_vs() -> Result<()> {
    let mut agent = Agent::spawn()?;
    agent.wait_readyz(503)?;
    // `/readyz` answers 503 also while the agent starts.
    wait::until("ip_vs in /status", START_LIMIT, || {
        let status = agent.status()?.to_string();
        ensure!(
            status.contains("ip_vs"),
            "/status does not name ip_vs: {status}"
        );
        Ok(())
    })?;
    director::load(&[])?;
    agent.wait_ready()?;
    agent.terminate()
}

fn refused(what: &str, args: &[&str], code: i32, names: &str) -> Result<()> {
    let finished = agent::finish(args).with_context(|| what.to_owned())?;
    ensure_refusal(&finished, code, names).with_context(|| what.to_owned())
}

/// One line says why and names what it is about; nothing looks like a crash.
fn ensure_refusal(finished: &Finished, code: i32, names: &str) -> Result<()> {
    let stderr = &finished.stderr;
    ensure!(
        finished.code == Some(code),
        "exit status {:?}, want {code}; stderr:\n{stderr}",
        finished.code
    );
    let naming = stderr.lines().filter(|line| line.contains(names)).count();
    ensure!(
        naming == 1,
        "{naming} lines name {names}, want 1; stderr:\n{stderr}"
    );
    ensure!(!stderr.contains("panicked"), "it panicked:\n{stderr}");
    ensure!(
        finished.stdout.is_empty(),
        "printed on stdout: {}",
        finished.stdout
    );
    Ok(())
}

/// Hides the kernel's types from everybody while `work` runs.
pub fn without_btf(work: impl FnOnce() -> Result<()>) -> Result<()> {
    mount(
        Some("tmpfs"),
        BTF,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .with_context(|| format!("hide {BTF}"))?;
    let worked = work();
    umount(BTF).with_context(|| format!("show {BTF} again"))?;
    worked
}
