//! Everywhere the agent may be put: the rights of `deploy/` and less, on open and on locked
//! kernels. Each cell of the matrix ends with exact counts, or with a refusal that names what is
//! missing; `doctor` gives the same answer in the same words.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use rustix::thread::CapabilitySet;

use crate::agent::{self, Agent, Started};
use crate::director::{self, Transport};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::process::Finished;
use crate::results::Results;
use crate::rights::Rights;
use crate::shipped::{self, Shipped, capability_name};
use crate::sysctl;
use crate::topology::{REAL_SERVERS, RS1};

/// Exit status of a node that cannot be observed.
const CANNOT_OBSERVE: i32 = 3;
/// Longest refusal, in lines.
const REFUSAL_LINES: usize = 2;
/// Connections of each cell; round robin makes a third of them stale.
const CONNECTIONS: u16 = 9;
/// Source ports of the cells, used in turn.
const PORTS: std::ops::Range<u16> = 20_000..48_000;
/// Locked memory of [`Sandbox::LittleLocked`].
const LITTLE_LOCKED_BYTES: u64 = 65_536;
/// Where the kernel says how far it is locked down, and takes orders to lock further.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// How many of the shipped capabilities a cell has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Shipped,
    Without(CapabilitySet),
    All,
}

/// What is kept from the agent besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sandbox {
    None,
    /// What systemd or the container runtime does for the shipped options.
    Shipped,
    NoKallsyms,
    ReadOnlySys,
    NoTracefs,
    /// The usual limit of a shell's locked memory, which some kernels charge maps against.
    LittleLocked,
}

/// How far the kernel is locked down; it never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lockdown {
    None,
    Integrity,
    Confidentiality,
}

/// One place to put the agent.
#[derive(Clone, Debug)]
struct Cell<'a> {
    shipped: &'a Shipped,
    kept: Kept,
    sandbox: Sandbox,
    kptr_restrict: u8,
    perf_event_paranoid: u8,
    lockdown: Lockdown,
}

impl fmt::Display for Cell<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} (uid {}), ", self.shipped.name, self.shipped.uid)?;
        match self.kept {
            Kept::Shipped => write!(out, "its capabilities")?,
            Kept::Without(one) => write!(out, "without {}", capability_name(one))?,
            Kept::All => write!(out, "all capabilities")?,
        }
        write!(
            out,
            ", sandbox {:?}, kptr_restrict {}, perf_event_paranoid {}, lockdown {:?}",
            self.sandbox, self.kptr_restrict, self.perf_event_paranoid, self.lockdown
        )
    }
}

/// Plays the cells that show most.
pub fn chosen(lab: &mut Lab) -> Result<()> {
    let (unit, daemon_set) = (shipped::unit()?, shipped::daemon_set()?);
    play_all(lab, &chosen_cells(&unit, &daemon_set))
}

/// Plays every cell; takes hours.
pub fn all(lab: &mut Lab) -> Result<()> {
    let (unit, daemon_set) = (shipped::unit()?, shipped::daemon_set()?);
    play_all(lab, &every_cell(&unit, &daemon_set))
}

/// In the order of lockdown, which only goes up.
fn chosen_cells<'a>(unit: &'a Shipped, daemon_set: &'a Shipped) -> Vec<Cell<'a>> {
    let usual = |shipped| Cell {
        shipped,
        kept: Kept::Shipped,
        sandbox: Sandbox::Shipped,
        kptr_restrict: 1,
        perf_event_paranoid: 3,
        lockdown: Lockdown::None,
    };
    let mut cells = Vec::new();
    for shipped in [unit, daemon_set] {
        cells.push(usual(shipped));
        cells.push(Cell {
            kptr_restrict: 2,
            ..usual(shipped)
        });
    }
    cells.extend(unit.capabilities.iter().map(|one| Cell {
        kept: Kept::Without(one),
        ..usual(unit)
    }));
    for sandbox in [Sandbox::NoKallsyms, Sandbox::LittleLocked] {
        cells.push(Cell {
            sandbox,
            ..usual(unit)
        });
    }
    cells.push(Cell {
        lockdown: Lockdown::Integrity,
        ..usual(unit)
    });
    for shipped in [unit, daemon_set] {
        cells.push(Cell {
            lockdown: Lockdown::Confidentiality,
            ..usual(shipped)
        });
    }
    cells.push(Cell {
        kept: Kept::All,
        sandbox: Sandbox::None,
        kptr_restrict: 0,
        perf_event_paranoid: 1,
        lockdown: Lockdown::Confidentiality,
        ..usual(daemon_set)
    });
    cells
}

/// In the order of lockdown. A single thing kept from the agent is played with all it is shipped
/// with and with all there is; less than it is shipped with, with the shipped sandbox and with none.
fn every_cell<'a>(unit: &'a Shipped, daemon_set: &'a Shipped) -> Vec<Cell<'a>> {
    let mut cells = Vec::new();
    for lockdown in [
        Lockdown::None,
        Lockdown::Integrity,
        Lockdown::Confidentiality,
    ] {
        for kptr_restrict in 0..=2 {
            for perf_event_paranoid in [1, 3] {
                for shipped in [unit, daemon_set] {
                    cells.extend(rights_of(shipped).into_iter().map(|(kept, sandbox)| Cell {
                        shipped,
                        kept,
                        sandbox,
                        kptr_restrict,
                        perf_event_paranoid,
                        lockdown,
                    }));
                }
            }
        }
    }
    cells
}

fn rights_of(shipped: &Shipped) -> Vec<(Kept, Sandbox)> {
    let mut rights = Vec::new();
    for kept in [Kept::Shipped, Kept::All] {
        for sandbox in [
            Sandbox::None,
            Sandbox::Shipped,
            Sandbox::NoKallsyms,
            Sandbox::ReadOnlySys,
            Sandbox::NoTracefs,
            Sandbox::LittleLocked,
        ] {
            rights.push((kept, sandbox));
        }
    }
    for one in shipped.capabilities.iter() {
        for sandbox in [Sandbox::None, Sandbox::Shipped] {
            rights.push((Kept::Without(one), sandbox));
        }
    }
    rights
}

/// Plays cells in order, with a line for each; those that fail are named together at the end.
fn play_all(lab: &Lab, cells: &[Cell<'_>]) -> Result<()> {
    director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    let mut results = Results::open();
    let mut failed = Vec::new();
    for (cell, ports) in cells.iter().zip(ports()) {
        match play(lab, cell, &ports) {
            Ok(answer) => results.line(&format!("{cell}: {answer}")),
            Err(error) => {
                results.line(&format!("{cell}: FAILED: {error:#}"));
                failed.push(format!("{cell}: {error:#}"));
            }
        }
    }
    sysctl::write("kernel/kptr_restrict", "0")?;
    results.line(&format!("{} cells, {} failed", cells.len(), failed.len()));
    ensure!(
        failed.is_empty(),
        "{} of {} cells failed:\n{}",
        failed.len(),
        cells.len(),
        failed.join("\n")
    );
    Ok(())
}

/// Source ports for one cell after the other; IPVS forgets those of the first long before they
/// come again.
fn ports() -> impl Iterator<Item = Vec<u16>> {
    let starts = PORTS.step_by(CONNECTIONS.into()).cycle();
    starts.map(|start| (start..start + CONNECTIONS).collect())
}

/// Plays one cell and says how it ended.
fn play(lab: &Lab, cell: &Cell<'_>, ports: &[u16]) -> Result<String> {
    sysctl::write("kernel/kptr_restrict", &cell.kptr_restrict.to_string())?;
    sysctl::write(
        "kernel/perf_event_paranoid",
        &cell.perf_event_paranoid.to_string(),
    )?;
    lock_down(cell.lockdown)?;
    let rights = cell.rights();
    let judged = agent::start_command(&mut rights.agent(&["doctor"]))?.finish()?;
    director::set_weight(RS1, 1)?;
    let first = lab.run_all_answered(&Lab::plan(ports.to_vec()))?;
    let stale = first.answered_by(RS1.name);
    director::set_weight(RS1, 0)?;
    let started = Agent::spawn_command(&mut rights.agent(&["run"]))?.wait_started()?;
    let answer = match started {
        Started::Ended(ended) => refused(cell, &ended, &judged)?,
        Started::Ready(agent) => {
            lab.run_all_answered(&Lab::plan(ports.to_vec()))?;
            agent.expect(&Expected::none().came_back(first.attempts() - stale, stale, RS1))?;
            agent.terminate()?;
            ensure!(
                judged.code != Some(CANNOT_OBSERVE),
                "the agent observes this node, doctor says it cannot:\n{}",
                judged.stdout
            );
            format!("exact, {stale} stale")
        }
    };
    lab.bpf_before.ensure_nothing_new()?;
    Ok(answer)
}

/// A refusal has the promised status, is short, names what is missing, and doctor says the same.
fn refused(cell: &Cell<'_>, ended: &Finished, judged: &Finished) -> Result<String> {
    let stderr = ended.stderr.trim();
    ensure!(
        ended.code == Some(CANNOT_OBSERVE),
        "exit status {:?}, want {CANNOT_OBSERVE}:\n{stderr}",
        ended.code
    );
    let refusal = refusal(stderr);
    let missing = cell.missing();
    ensure!(
        !missing.is_empty(),
        "refused, and nothing is missing:\n{stderr}"
    );
    ensure!(
        (1..=REFUSAL_LINES).contains(&refusal.len()),
        "the refusal has {} lines, want 1 to {REFUSAL_LINES}:\n{stderr}",
        refusal.len()
    );
    ensure!(
        missing.iter().any(|name| stderr.contains(name.as_str())),
        "the refusal names none of {}:\n{stderr}",
        missing.join(", ")
    );
    let report = format!("{}{}", judged.stdout, judged.stderr);
    ensure!(
        judged.code == Some(CANNOT_OBSERVE),
        "doctor ends with {:?}, want {CANNOT_OBSERVE} as run:\n{report}\nrun: {stderr}",
        judged.code
    );
    for line in &refusal {
        ensure!(
            squeezed(&report).contains(&squeezed(line)),
            "doctor does not say what run says, `{line}`:\n{report}"
        );
    }
    Ok(format!("refused: {}", refusal.join(" / ")))
}

/// What of stderr is the refusal: every line, but for the program's own name before it.
fn refusal(stderr: &str) -> Vec<&str> {
    stderr
        .lines()
        .map(|line| line.strip_prefix("ipvs-lens: ").unwrap_or(line).trim())
        .filter(|line| !line.is_empty())
        .collect()
}

/// The text on one line with single blanks: a report for people breaks lines.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Cell<'_> {
    fn rights(&self) -> Rights {
        let capabilities = match self.kept {
            Kept::Shipped => Some(self.shipped.capabilities),
            Kept::Without(one) => Some(self.shipped.capabilities - one),
            Kept::All => None,
        };
        let mut rights = Rights {
            uid: self.shipped.uid,
            capabilities: capabilities.map(|set| set.bits()),
            no_new_privs: self.shipped.no_new_privs && self.kept != Kept::All,
            locked_bytes: self.shipped.locked_bytes,
            ..Rights::default()
        };
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        match self.sandbox {
            Sandbox::None => {}
            Sandbox::Shipped => {
                for confinement in &self.shipped.confinements {
                    rights.mask.extend(paths(confinement.masked));
                    rights.empty.extend(paths(confinement.emptied));
                    rights.read_only.extend(paths(confinement.read_only));
                }
            }
            Sandbox::NoKallsyms => rights.mask = paths(&["/proc/kallsyms"]),
            Sandbox::ReadOnlySys => rights.read_only = paths(&["/sys"]),
            Sandbox::NoTracefs => {
                rights.empty = paths(&["/sys/kernel/tracing", "/sys/kernel/debug"]);
            }
            Sandbox::LittleLocked => rights.locked_bytes = Some(LITTLE_LOCKED_BYTES),
        }
        rights
    }

    /// What a refusal may name, one of them; empty where there must be none.
    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if let Kept::Without(one) = self.kept {
            missing.push(capability_name(one));
        }
        if self.lockdown == Lockdown::Confidentiality {
            missing.push("lockdown".to_owned());
        }
        match self.sandbox {
            Sandbox::NoKallsyms => missing.push("/proc/kallsyms".to_owned()),
            Sandbox::NoTracefs => missing.push("/sys/kernel/tracing".to_owned()),
            Sandbox::LittleLocked => missing.push("RLIMIT_MEMLOCK".to_owned()),
            Sandbox::None | Sandbox::Shipped | Sandbox::ReadOnlySys => {}
        }
        missing
    }
}

/// Locks the kernel down as far as this, and sees that it is so.
fn lock_down(to: Lockdown) -> Result<()> {
    let name = match to {
        Lockdown::None => "none",
        Lockdown::Integrity => "integrity",
        Lockdown::Confidentiality => "confidentiality",
    };
    if !fs::exists(LOCKDOWN)? {
        mount(
            Some("securityfs"),
            "/sys/kernel/security",
            Some("securityfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .context("mount securityfs")?;
    }
    let active = format!("[{name}]");
    let state = || fs::read_to_string(LOCKDOWN).with_context(|| format!("read {LOCKDOWN}"));
    if state()?.contains(&active) {
        return Ok(());
    }
    fs::write(LOCKDOWN, name).with_context(|| format!("write {name} to {LOCKDOWN}"))?;
    let state = state()?;
    if !state.contains(&active) {
        bail!("{LOCKDOWN} is {}, want {active}", state.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_is_played_once() {
        let (unit, daemon_set) = (shipped::unit().unwrap(), shipped::daemon_set().unwrap());
        let cells = every_cell(&unit, &daemon_set);
        let mut names: Vec<_> = cells.iter().map(ToString::to_string).collect();
        let rights: usize = [&unit, &daemon_set]
            .map(|shipped| 12 + 2 * shipped.capabilities.iter().count())
            .iter()
            .sum();
        assert_eq!(cells.len(), rights * 3 * 2 * 3);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), cells.len());
    }

    #[test]
    fn shipped_rights_may_be_refused_for_lockdown_alone() {
        let (unit, daemon_set) = (shipped::unit().unwrap(), shipped::daemon_set().unwrap());
        for cell in every_cell(&unit, &daemon_set) {
            if cell.kept == Kept::Shipped && cell.sandbox == Sandbox::Shipped {
                let locked = cell.lockdown == Lockdown::Confidentiality;
                assert_eq!(cell.missing().is_empty(), !locked, "{cell}");
            }
        }
    }

    #[test]
    fn lockdown_only_rises() {
        let (unit, daemon_set) = (shipped::unit().unwrap(), shipped::daemon_set().unwrap());
        for cells in [
            every_cell(&unit, &daemon_set),
            chosen_cells(&unit, &daemon_set),
        ] {
            let levels: Vec<_> = cells.iter().map(|cell| cell.lockdown as u8).collect();
            assert!(levels.is_sorted(), "{levels:?}");
        }
    }

    #[test]
    fn refusals_are_read_without_the_programs_name() {
        assert_eq!(
            refusal("ipvs-lens: no CAP_BPF\n  run as root\n"),
            ["no CAP_BPF", "run as root"]
        );
        assert_eq!(squeezed("no\n   CAP_BPF"), "no CAP_BPF");
    }
}
