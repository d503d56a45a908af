//! PID 1 of the guest: mounts, runs what the host asked for, powers off. Where the host wants
//! systemd, PID 1 becomes systemd, which starts the rest of this as a unit of its own.
//!
//! It must always come to the power-off and say why: whatever can fail or hang runs in a child
//! process with a time limit, and a panic of its own is caught.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::panic::{UnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, sync};

use crate::cmdline::{self, Mode, Request};
use crate::command;
use crate::results::{Event, Outcome, Results};
use crate::scenarios::{self, Set};
use crate::systemd;

/// Where the userland's programs are.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Type and place of every file system, in order.
const MOUNTS: [(&str, &str); 10] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("devpts", "/dev/pts"),
    ("tracefs", "/sys/kernel/tracing"),
    ("debugfs", "/sys/kernel/debug"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
];
/// One scenario may take this long; the slowest takes a minute under emulation.
const SCENARIO_LIMIT: Duration = Duration::from_secs(300);
/// The matrix of rights may take this long; each of its cells has a limit of its own.
const RIGHTS_LIMIT: Duration = Duration::from_hours(4);
/// A scenario of many minutes may take this long.
const LONG_SCENARIO_LIMIT: Duration = Duration::from_mins(25);
/// The demo may take this long.
const DEMO_LIMIT: Duration = Duration::from_secs(240);
/// People may look at Prometheus for a day; the host ends it when it has seen enough.
const STACK_LIMIT: Duration = Duration::from_hours(24);
/// Pause between two looks at a child.
const CHILD_POLL: Duration = Duration::from_millis(20);
/// The measurement may take this long: an instruction takes a nanosecond of its clock.
const BENCH_LIMIT: Duration = Duration::from_secs(3_600);
/// What a scenario or the demo prints on stderr, for the host.
const DETAIL_PATH: &str = "/tmp/scenario.stderr";
/// Longest detail sent to the host, in bytes: its end says most.
const MAX_DETAIL_BYTES: usize = 16_384;

/// Runs the guest; never returns.
pub fn run() -> ! {
    finish(|| {
        prepare()?;
        let request = cmdline::parse(&fs::read_to_string("/proc/cmdline")?)?;
        if request.systemd {
            return systemd::become_process_1().map(|never| match never {});
        }
        serve(&request)
    })
}

/// Runs what the host asked for under another process 1; never returns.
pub fn run_as_unit() -> ! {
    finish(|| {
        // SAFETY: nothing has started a thread yet.
        unsafe { std::env::set_var("PATH", PATH) };
        serve(&cmdline::parse(&fs::read_to_string("/proc/cmdline")?)?)
    })
}

/// Does the work, reports why it failed, and powers off.
fn finish(work: impl FnOnce() -> Result<()> + UnwindSafe) -> ! {
    let ended = catch_unwind(work);
    let failure = match ended {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(_) => Some("init panicked; the console has the message".to_owned()),
    };
    if let Some(detail) = failure {
        eprintln!("lab: {detail}");
        Results::open().send(&Event::Error { detail: &detail });
    }
    power_off()
}

fn power_off() -> ! {
    sync();
    // Without power-off PID 1 must not end: the kernel would panic.
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    eprintln!("lab: power off: {error}");
    loop {
        std::thread::sleep(SCENARIO_LIMIT);
    }
}

fn prepare() -> Result<()> {
    for (kind, place) in MOUNTS {
        mount_one(kind, place)?;
    }
    // SAFETY: PID 1 has started no thread yet.
    unsafe { std::env::set_var("PATH", PATH) };
    let _ = symlink("/proc/self/fd", "/dev/fd");
    fs::write("/proc/sys/kernel/hostname", "director").context("set the host name")?;
    fs::write("/proc/sys/kernel/modprobe", find_program("modprobe")?)?;
    command::line("ip link set lo up").map(drop)
}

fn mount_one(kind: &str, place: &str) -> Result<()> {
    fs::create_dir_all(place).with_context(|| format!("create {place}"))?;
    let mounted = mount(
        Some(kind),
        place,
        Some(kind),
        MsFlags::empty(),
        None::<&str>,
    );
    match mounted {
        // The kernel may have mounted it itself (devtmpfs).
        Ok(()) | Err(nix::errno::Errno::EBUSY) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("mount {kind} on {place}")),
    }
}

fn find_program(name: &str) -> Result<String> {
    PATH.split(':')
        .map(|directory| format!("{directory}/{name}"))
        .find(|path| fs::metadata(path).is_ok())
        .with_context(|| format!("no program {name} in {PATH}"))
}

fn serve(request: &Request) -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    match request.mode {
        Mode::Scenarios => run_scenarios(request, release.trim()),
        Mode::Bench => run_lab(&["bench"], BENCH_LIMIT),
        Mode::BenchTable => run_lab(&["bench-table"], BENCH_LIMIT),
        Mode::Demo => run_lab(&["demo"], DEMO_LIMIT),
        Mode::Stack => run_lab(&["stack"], STACK_LIMIT),
        Mode::Shell => run_shell(release.trim()),
    }
}

fn run_scenarios(request: &Request, release: &str) -> Result<()> {
    let mut results = Results::open();
    results.send(&Event::Booted { release });
    // Who names a scenario wants to see it, also where it cannot hold.
    let asked_for = !request.scenarios.is_empty();
    let names = if asked_for {
        request.scenarios.clone()
    } else {
        let names = request.set.names();
        names.into_iter().map(str::to_owned).collect()
    };
    for name in &names {
        scenarios::find(name)?;
    }
    for name in &names {
        results.send(&Event::Start { scenario: name });
        let start = Instant::now();
        let skipped = scenarios::reason_to_skip(name, &request.kernel).filter(|_| !asked_for);
        let (result, detail) = match skipped {
            Some(reason) => (Outcome::Skipped, reason.to_owned()),
            None => play(name),
        };
        println!("lab: {name}: {result:?} {detail}");
        results.send(&Event::End {
            scenario: name,
            result,
            seconds: start.elapsed().as_secs_f64(),
            detail: &detail,
        });
    }
    results.send(&Event::Done);
    Ok(())
}

/// Plays one scenario; how it ended, and why it failed.
fn play(name: &str) -> (Outcome, String) {
    let limit = if Set::Rights.names().contains(&name) {
        RIGHTS_LIMIT
    } else if Set::Long.names().contains(&name) {
        LONG_SCENARIO_LIMIT
    } else {
        SCENARIO_LIMIT
    };
    match run_lab(&["scenario", name], limit) {
        Ok(()) => (Outcome::Passed, String::new()),
        Err(error) => (Outcome::Failed, format!("{error:#}")),
    }
}

/// Runs this program as a process of its own: what it leaves running ends with it.
fn run_lab(arguments: &[&str], limit: Duration) -> Result<()> {
    let stderr = fs::File::create(DETAIL_PATH)?;
    let mut command = Command::new("/proc/self/exe");
    command.args(arguments).stderr(stderr).process_group(0);
    let status = run_child(&mut command, limit);
    let said = fs::read_to_string(DETAIL_PATH).unwrap_or_default();
    match status {
        Ok(0) => Ok(()),
        Ok(code) => bail!("{}", tail(&format!("{said}(exit status {code})"))),
        Err(error) => bail!("{}", tail(&format!("{said}{error:#}"))),
    }
}

fn tail(text: &str) -> &str {
    let from = text.ceil_char_boundary(text.len().saturating_sub(MAX_DETAIL_BYTES));
    &text[from..]
}

fn run_shell(release: &str) -> Result<()> {
    println!("Linux {release}. `lab list` shows the scenarios; leave with `exit`.");
    let _ = symlink("/init", "/bin/lab");
    // The console gives no size and no job control by itself: setsid and cttyhack do.
    run_child(
        Command::new("busybox")
            .args(["setsid", "cttyhack", "/bin/sh"])
            .env("HOME", "/"),
        Duration::MAX,
    )
    .map(drop)
}

/// Runs a child and, as PID 1 must, collects every process that ends meanwhile.
fn run_child(command: &mut Command, limit: Duration) -> Result<i32> {
    let child = command
        .stdin(Stdio::inherit())
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let start = Instant::now();
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::Exited(ended, code) if ended == pid => return Ok(code),
            WaitStatus::Signaled(ended, signal, _) if ended == pid => {
                bail!("killed by {signal}");
            }
            WaitStatus::StillAlive if start.elapsed() >= limit => {
                // Its group has the agent in it; a shell leads no group and dies alone.
                let _ = killpg(pid, Signal::SIGKILL).or_else(|_| kill(pid, Signal::SIGKILL));
                bail!("killed after {} s, the limit", limit.as_secs());
            }
            WaitStatus::StillAlive => std::thread::sleep(CHILD_POLL),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_keeps_the_end_at_a_character() {
        let long = format!("start{}é-end", "x".repeat(MAX_DETAIL_BYTES));
        assert!(tail(&long).ends_with("é-end"));
        assert!(tail(&long).len() <= MAX_DETAIL_BYTES);
        assert_eq!(tail("short"), "short");
    }
}
