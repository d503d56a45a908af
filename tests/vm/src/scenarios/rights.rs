//! Everything the shipped rights allow is counted exactly, whether kernel addresses are shown or
//! not; without them the causes that suffer are named, and nothing is counted wrongly.

use anyhow::{Context as _, Result, ensure};

use super::drops::netfilter::under;
use super::drops::{director_up, syns_in_vain};
use crate::agent::{self, Agent, BINARY};
use crate::confinement::{DAEMONSET, UNIT, capability, ensure_confined};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::rights::{Rights, with_kptr_restrict};
use crate::topology::VIP;

/// User of the systemd unit, as far as the kernel is concerned: not root.
const USER: u32 = 1_000;
const WITHOUT_SYSLOG: u64 = UNIT & !capability::SYSLOG;
/// A connection of each case.
const FIRST_PORT: u16 = 43_000;
/// A client whose SYN a rule drops, of each case.
const DROPPED_PORT: u16 = 43_100;

/// Who runs the agent, and how the kernel treats it.
struct Case {
    name: &'static str,
    rights: Rights,
    /// Capabilities it keeps, one bit each.
    kept: u64,
    kptr_restrict: &'static str,
    /// What the agent says hides addresses; `None` when it sees them.
    hidden_by: Option<&'static str>,
}

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    let cases = [
        Case {
            name: "root",
            rights: Rights::default(),
            kept: UNIT | capability::SYS_PTRACE,
            kptr_restrict: "2",
            hidden_by: Some("kernel.kptr_restrict=2"),
        },
        Case {
            name: "root as in the DaemonSet",
            rights: Rights {
                locked_bytes: None,
                ..Rights::of(0, DAEMONSET)
            },
            kept: UNIT,
            kptr_restrict: "1",
            hidden_by: None,
        },
        Case {
            name: "user with CAP_SYSLOG",
            rights: Rights::of(USER, UNIT),
            kept: UNIT,
            kptr_restrict: "1",
            hidden_by: None,
        },
        Case {
            name: "user without CAP_SYSLOG",
            rights: Rights::of(USER, WITHOUT_SYSLOG),
            kept: WITHOUT_SYSLOG,
            kptr_restrict: "1",
            hidden_by: Some("CAP_SYSLOG"),
        },
        Case {
            name: "user without a symbol table",
            rights: Rights {
                mask: vec!["/proc/kallsyms".into()],
                ..Rights::of(USER, UNIT)
            },
            kept: UNIT,
            kptr_restrict: "0",
            hidden_by: Some("/proc/kallsyms"),
        },
    ];
    director_up()?;
    for (number, case) in (0..).zip(cases) {
        let played = with_kptr_restrict(case.kptr_restrict, || play(lab, &case, number));
        played.with_context(|| format!("{}, kptr_restrict={}", case.name, case.kptr_restrict))?;
    }
    Ok(())
}

fn play(lab: &Lab, case: &Case, number: u16) -> Result<()> {
    let mut agent = Agent::spawn_command(&mut case.rights.agent(&["run"]))?;
    agent.wait_ready()?;
    lab.run_all_answered(&Lab::plan(vec![FIRST_PORT + number]))?;
    let rule = format!("PREROUTING -d {} -p tcp --syn -j DROP", VIP.ip());
    let dropped = under("raw", &rule, || {
        syns_in_vain(Lab::plan(vec![DROPPED_PORT + number]))
    })?;
    let counted = if case.hidden_by.is_none() || has_drop_reasons()? {
        dropped
    } else {
        0
    };
    agent.expect(
        &Expected::none()
            .decision("scheduled", 1)
            .syn_drops("netfilter", counted),
    )?;
    ensure_limitation(&agent, case.hidden_by)?;
    ensure_confined(agent.id(), case.kept)?;
    agent.terminate()
}

/// `/status` and one line of the log name the cause, or neither does.
fn ensure_limitation(agent: &Agent, hidden_by: Option<&str>) -> Result<()> {
    let status = agent.status()?;
    let limitations = &status["limitations"];
    let count = limitations.as_array().map_or(0, Vec::len);
    let because = limitations[0]["because"].as_str().unwrap_or_default();
    let log = std::fs::read_to_string(agent::LOG)?;
    let lines = log.lines().filter(|line| line.contains("SYN drops"));
    let lines: Vec<_> = lines.collect();
    match hidden_by {
        Some(cause) => {
            ensure!(
                count == 1 && because.contains(cause),
                "/status: {limitations}, want one that names {cause}"
            );
            ensure!(
                lines.len() == 1 && lines[0].contains(cause),
                "log: {lines:?}, want one line that names {cause}"
            );
        }
        None => ensure!(
            count == 0 && lines.is_empty(),
            "/status: {limitations}, log: {lines:?}; addresses are shown to {BINARY}"
        ),
    }
    Ok(())
}

/// Whether the kernel states why it drops a packet: 5.17 and newer.
fn has_drop_reasons() -> Result<bool> {
    let types = std::fs::read("/sys/kernel/btf/vmlinux").context("read the kernel's types")?;
    let name = b"SKB_DROP_REASON_NOT_SPECIFIED";
    Ok(types.windows(name.len()).any(|window| window == name))
}
