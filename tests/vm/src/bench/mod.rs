//! What a packet costs without an observer, with empty programs, with programs that know a SYN and
//! no more, with the agent, with bpftrace.
//!
//! The host boots this guest with one CPU on which every instruction takes a nanosecond, so the
//! guest's clock counts instructions. Whoever watches is stopped while packets run: what is
//! measured is the packet's path, not the reading of results.

mod empty;
pub mod segment;
pub mod table;
mod traffic;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::agent::{Agent, BINARY};
use crate::director;
use crate::lab::Lab;
use crate::process::Process;
use crate::results::{Event, Results};
use crate::wait;
use empty::{Empty, Work};
use traffic::{SYNS, Traffic};

/// How often each variant is measured; what they differ by is noise.
const ROUNDS: u32 = 5;
/// After something was attached or taken off: what the kernel still does about it.
const SETTLE: Duration = Duration::from_secs(2);
/// bpftrace compiles its script with the whole of LLVM, under emulation.
const BPFTRACE_LIMIT: Duration = Duration::from_secs(600);
const BPFTRACE: &str = "/usr/bin/bpftrace";
/// Every kprobe there is.
const KPROBE_LIST: &str = "/sys/kernel/debug/kprobes/list";
/// Where the script is and where it writes to.
const SCRIPT: &str = "/tmp/stale.bt";
const SCRIPT_STDOUT: &str = "/tmp/bpftrace.stdout";
const SCRIPT_STDERR: &str = "/tmp/bpftrace.stderr";
/// What the script prints once it is attached.
const READY: &str = "ready";

/// The stale connections of 6.1.192, counted as a person would who knows its offsets: by real
/// server, at the return of the lookup, for SYNs that met an entry whose server has weight 0.
const STALE_BT: &str = r#"
BEGIN { printf("ready\n"); }
kprobe:ip_vs_conn_in_get_proto
{
    $iph = arg3;
    if (*(uint16 *)($iph + 14) == 6 && *(uint32 *)$iph == 0) {
        $tcp = *(uint64 *)(arg2 + 208) + *(uint32 *)($iph + 8);
        if ((*(uint8 *)($tcp + 13) & 0x12) == 2) { @syn[tid] = 1; }
    }
}
kretprobe:ip_vs_conn_in_get_proto
/@syn[tid]/
{
    delete(@syn[tid]);
    $conn = (uint64)retval;
    if ($conn != 0) {
        $dest = *(uint64 *)($conn + 184);
        if (*(uint32 *)($dest + 60) == 0) {
            @stale[*(uint32 *)($dest + 36), *(uint16 *)($dest + 34)] = count();
        }
    }
}
"#;

/// Who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Bare,
    EmptyFexit,
    FlagsFexit,
    AgentFexit,
    EmptyKprobe,
    FlagsKprobe,
    AgentKprobe,
    Bpftrace,
}

impl Variant {
    const ALL: [Self; 8] = [
        Self::Bare,
        Self::EmptyFexit,
        Self::FlagsFexit,
        Self::AgentFexit,
        Self::EmptyKprobe,
        Self::FlagsKprobe,
        Self::AgentKprobe,
        Self::Bpftrace,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Bare => "none",
            Self::EmptyFexit => "empty fexit",
            Self::FlagsFexit => "flags fexit",
            Self::AgentFexit => "agent fexit",
            Self::EmptyKprobe => "empty kprobe",
            Self::FlagsKprobe => "flags kprobe",
            Self::AgentKprobe => "agent kprobe",
            Self::Bpftrace => "bpftrace",
        }
    }
}

/// Measures every variant in turn, a few times over, and reports each measurement.
///
/// # Errors
/// A tool failed, a connection failed, or a watcher saw something else than what was sent.
pub fn run() -> Result<()> {
    let mut results = Results::open();
    Lab::play(|_| {
        director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
        let mut traffic = Traffic::up()?;
        let hooked = hooked_functions()?;
        let bpftrace = Path::new(BPFTRACE).exists();
        for round in 0..ROUNDS {
            for variant in Variant::ALL {
                if variant == Variant::Bpftrace && !bpftrace {
                    continue;
                }
                let measured = watched(variant, &hooked, &mut traffic)
                    .with_context(|| format!("round {round}, {}", variant.as_str()))?;
                results.send(&Event::Bench {
                    variant: variant.as_str(),
                    round,
                    established: measured.established,
                    scheduled: measured.scheduled,
                    reused: measured.reused,
                });
            }
        }
        Ok(())
    })?;
    results.send(&Event::Done);
    Ok(())
}

fn watched(
    variant: Variant,
    hooked: &BTreeSet<String>,
    traffic: &mut Traffic,
) -> Result<traffic::Measured> {
    let functions: Vec<&str> = hooked.iter().map(String::as_str).collect();
    match variant {
        Variant::Bare => settled(traffic),
        Variant::EmptyFexit => {
            let _held = Empty::fexit(&functions, Work::None)?;
            settled(traffic)
        }
        Variant::FlagsFexit => {
            let _held = Empty::fexit(&functions, Work::ReadFlags)?;
            settled(traffic)
        }
        Variant::EmptyKprobe => {
            let _held = Empty::kprobe(&functions, Work::None)?;
            settled(traffic)
        }
        Variant::FlagsKprobe => {
            let _held = Empty::kprobe(&functions, Work::ReadFlags)?;
            settled(traffic)
        }
        Variant::AgentFexit => with_agent("fexit", traffic),
        Variant::AgentKprobe => with_agent("kprobe", traffic),
        Variant::Bpftrace => with_bpftrace(traffic),
    }
}

fn settled(traffic: &mut Traffic) -> Result<traffic::Measured> {
    sleep(SETTLE);
    traffic.measure()
}

fn with_agent(way: &str, traffic: &mut Traffic) -> Result<traffic::Measured> {
    let mut agent = Agent::spawn_with(&["--attach", way])?;
    agent.wait_ready()?;
    agent.pause()?;
    let measured = settled(traffic);
    agent.resume()?;
    let measured = measured?;
    let stale = [("decision", "reused_stale")];
    wait::until("the agent's count", SETTLE, || {
        let counted = agent
            .scrape()?
            .count("ipvs_lens_connections_total", &stale)?;
        ensure!(
            counted == u64::from(SYNS),
            "the agent counted {counted} stale connections, {SYNS} were made"
        );
        Ok(())
    })?;
    agent.terminate()?;
    Ok(measured)
}

fn with_bpftrace(traffic: &mut Traffic) -> Result<traffic::Measured> {
    std::fs::write(SCRIPT, STALE_BT)?;
    let bpftrace = Process::start(
        Command::new(BPFTRACE).arg(SCRIPT),
        Path::new(SCRIPT_STDOUT),
        Path::new(SCRIPT_STDERR),
    )?;
    wait::until("bpftrace to attach", BPFTRACE_LIMIT, || {
        let errors = std::fs::read_to_string(SCRIPT_STDERR)?;
        ensure!(bpftrace.stdout()?.contains(READY), "not ready: {errors}");
        Ok(())
    })?;
    bpftrace.pause()?;
    let measured = settled(traffic);
    bpftrace.resume()?;
    let measured = measured?;
    bpftrace.terminate()?;
    let printed = std::fs::read_to_string(SCRIPT_STDOUT)?;
    ensure!(
        printed.contains(&format!("]: {SYNS}")),
        "bpftrace printed {printed:?}, want {SYNS} stale connections"
    );
    Ok(measured)
}

/// Functions that the agent hooks with trampolines or with kprobes, as configured. Those that get
/// a kprobe either way handle ICMP, and are on no path measured here.
fn hooked_functions() -> Result<BTreeSet<String>> {
    let all = kprobed_functions("kprobe")?;
    let always = kprobed_functions("fexit")?;
    let functions: BTreeSet<String> = all.difference(&always).cloned().collect();
    ensure!(
        !functions.is_empty(),
        "{BINARY} hooks nothing by fexit: with kprobes {all:?}, with fexit {always:?}"
    );
    Ok(functions)
}

/// Functions of ip_vs with a kprobe of the agent, as the kernel lists them.
fn kprobed_functions(way: &str) -> Result<BTreeSet<String>> {
    let mut agent = Agent::spawn_with(&["--attach", way])?;
    agent.wait_ready()?;
    let listed = std::fs::read_to_string(KPROBE_LIST)?;
    agent.terminate()?;
    Ok(listed_functions(&listed))
}

/// `ADDRESS KIND FUNCTION+OFFSET MODULE [FLAGS]` per line (Documentation/trace/kprobes.rst).
fn listed_functions(listed: &str) -> BTreeSet<String> {
    listed
        .lines()
        .filter(|line| line.split_whitespace().nth(3) == Some("ip_vs"))
        .filter_map(|line| line.split_whitespace().nth(2)?.split('+').next())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::listed_functions;

    #[test]
    fn functions_are_listed_once() {
        let listed = "ffffffffc0 k f+0x0 ip_vs [FTRACE]\nffffffffc0 r f+0x0 ip_vs\nffffffffc1 k g+0x4 ip_vs\nffffffff80 k h+0x0 [FTRACE]\n";
        let functions: Vec<_> = listed_functions(listed).into_iter().collect();
        assert_eq!(functions, ["f", "g"]);
    }
}
