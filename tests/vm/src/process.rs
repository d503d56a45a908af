//! A process under test: started, watched, ended, and never left running.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// From SIGTERM to the exit.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// For a program that ends by itself; reading BTF takes seconds under emulation.
const FINISH_LIMIT: Duration = Duration::from_secs(120);

/// What a process holds of memory.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Now, in KiB.
    pub resident_kib: u64,
    /// At most so far, in KiB.
    pub peak_kib: u64,
}

/// What the kernel says of a process's memory (`/proc/PID/status`).
///
/// # Errors
/// There is no such process.
pub fn memory(process: u32) -> Result<Memory> {
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let kib = |field: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let value = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        value.with_context(|| format!("no {field} in {path}"))
    };
    Ok(Memory {
        resident_kib: kib("VmRSS:")?,
        peak_kib: kib("VmHWM:")?,
    })
}

/// How often each thread of a process has gone to sleep so far, by name and number of the thread
/// (`voluntary_ctxt_switches` of `/proc/PID/task/*/status`): each wake-up ends with it. Switches
/// that another process forces are not wake-ups.
///
/// # Errors
/// There is no such process.
pub fn wake_ups(process: u32) -> Result<BTreeMap<String, u64>> {
    let tasks = format!("/proc/{process}/task");
    let mut by_thread = BTreeMap::new();
    for task in fs::read_dir(&tasks).with_context(|| format!("read {tasks}"))? {
        let task = task?;
        // A thread may end meanwhile.
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let field = |name| {
            let mut fields = status.lines().filter_map(|line| line.split_once(':'));
            fields.find(|(field, _)| *field == name)
        };
        let count =
            field("voluntary_ctxt_switches").and_then(|(_, count)| count.trim().parse().ok());
        let name = field("Name").map_or("", |(_, name)| name.trim());
        let thread = format!("{name} {}", task.file_name().display());
        by_thread.insert(thread, count.unwrap_or(0));
    }
    Ok(by_thread)
}

/// A finished process.
#[derive(Debug)]
pub struct Finished {
    /// Exit status; `None` when it was killed by a signal.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it logged.
    pub stderr: String,
}

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command`; its output goes to `stdout` and `stderr`.
    ///
    /// # Errors
    /// The program does not exist, or a file cannot be created.
    pub fn start(command: &mut Command, stdout: &Path, stderr: &Path) -> Result<Self> {
        let create =
            |path: &Path| File::create(path).with_context(|| format!("create {}", path.display()));
        let outputs = (create(stdout)?.into(), create(stderr)?.into());
        let mut process = Self::start_with(command, outputs.0, outputs.1)?;
        stdout.clone_into(&mut process.stdout);
        stderr.clone_into(&mut process.stderr);
        Ok(process)
    }

    /// Starts `command` with outputs that are not read back here.
    ///
    /// # Errors
    /// The program does not exist.
    pub fn start_with(command: &mut Command, stdout: Stdio, stderr: Stdio) -> Result<Self> {
        let name = format!("{command:?}");
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        // The command keeps the descriptors it was given: a pipe's end among them would not end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self {
            child,
            name,
            stdout: PathBuf::new(),
            stderr: PathBuf::new(),
        })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    ///
    /// # Errors
    /// The file is gone.
    pub fn stdout(&self) -> Result<String> {
        fs::read_to_string(&self.stdout).with_context(|| format!("read {}", self.stdout.display()))
    }

    /// # Errors
    /// It has ended.
    pub fn ensure_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended with {status}", self.name),
            None => Ok(()),
        }
    }

    /// Asks it to stop and wants exit status 0.
    ///
    /// # Errors
    /// It does not stop in time, or with another status.
    pub fn terminate(mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = self.wait_exit(STOP_LIMIT)?;
        ensure!(
            status.code() == Some(0),
            "{}: after SIGTERM {status}, want 0",
            self.name
        );
        Ok(())
    }

    /// Stops it where it is; programs it has in the kernel run on.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Sends SIGHUP.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn hang_up(&self) -> Result<()> {
        self.signal(Signal::SIGHUP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Kills it without asking.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn kill(mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait_exit(STOP_LIMIT).map(drop)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It does not end in time; the message has its stderr.
    pub fn finish(mut self) -> Result<Finished> {
        let status = self.wait_exit(FINISH_LIMIT);
        let stderr = fs::read_to_string(&self.stderr)?;
        match status {
            Ok(status) => Ok(Finished {
                code: status.code(),
                stdout: self.stdout()?,
                stderr,
            }),
            Err(error) => bail!("{error:#}; its stderr:\n{stderr}"),
        }
    }

    fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        wait::until(&format!("{} to end", self.name), limit, || {
            self.child.try_wait()?.context("it still runs")
        })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, signal).with_context(|| format!("send {signal} to {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, name: &str) -> Process {
        let directory = std::env::temp_dir();
        let path = |kind| directory.join(format!("lab-process-{name}.{kind}"));
        Process::start(
            Command::new("sh").args(["-c", script]),
            &path("out"),
            &path("err"),
        )
        .unwrap()
    }

    #[test]
    fn a_finished_process_tells_everything() {
        let finished = shell("echo out; echo err >&2; exit 3", "finish")
            .finish()
            .unwrap();
        assert_eq!(finished.code, Some(3));
        assert_eq!(finished.stdout, "out\n");
        assert_eq!(finished.stderr, "err\n");
    }

    #[test]
    fn death_by_sigterm_is_no_clean_stop() {
        let error = shell("exec sleep 600", "term")
            .terminate()
            .unwrap_err()
            .to_string();
        assert!(error.contains("signal: 15"), "{error}");
    }
}
