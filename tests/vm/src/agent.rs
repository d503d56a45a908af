//! The agent under test, as a user meets it: its binary, its flags, its HTTP, its exit status.
//!
//! Must not know how the agent is built; what is used here is promised to users.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::expect::Expected;
use crate::http::{self, Response};
use crate::process::{Finished, Process};
use crate::scrape::Scrape;
use crate::wait;

/// Where the agent's binary is in the guest.
pub const BINARY: &str = "/bin/ipvs-lens";
/// Where `run` listens by default.
pub const LISTEN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9_742);
/// Output of the last agent started.
const STDOUT: &str = "/tmp/agent.stdout";
/// Log of the last agent started; shown when a scenario fails.
pub const LOG: &str = "/tmp/agent.stderr";
/// Output and log of a trace that runs at the same time.
const TRACE: &str = "/tmp/trace.stdout";
const TRACE_LOG: &str = "/tmp/trace.stderr";
/// Reading BTF and loading programs takes seconds under emulation.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// How long the numbers may take to reach the expected values.
const EXPECT_LIMIT: Duration = Duration::from_secs(15);
/// After that, how long they must stay: what would be counted twice comes late.
const SETTLE: Duration = Duration::from_millis(700);

/// A running `ipvs-lens run`; killed when dropped.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    address: SocketAddr,
    /// Header field sent with every request, with its line's end.
    authorization: &'static str,
}

/// How the start of an agent ended.
#[derive(Debug)]
pub enum Started {
    /// It is ready.
    Ready(Agent),
    /// It has ended.
    Ended(Finished),
}

impl Agent {
    /// Starts it with its defaults and waits until it says it is ready.
    ///
    /// # Errors
    /// It ended or is not ready in time.
    pub fn start() -> Result<Self> {
        let mut agent = Self::spawn()?;
        agent.wait_ready()?;
        Ok(agent)
    }

    /// Starts it with its defaults and returns at once.
    ///
    /// # Errors
    /// The binary cannot be started.
    pub fn spawn() -> Result<Self> {
        Self::spawn_with(&[])
    }

    /// Starts it with these options and returns at once.
    ///
    /// # Errors
    /// The binary cannot be started.
    pub fn spawn_with(options: &[&str]) -> Result<Self> {
        Self::spawn_command(Command::new(BINARY).arg("run").args(options))
    }

    /// Starts `run` by a command prepared by the caller and returns at once.
    ///
    /// # Errors
    /// The command cannot be started.
    pub fn spawn_command(command: &mut Command) -> Result<Self> {
        let process = start_command(command)?;
        Ok(Self {
            process,
            address: LISTEN.into(),
            authorization: "",
        })
    }

    /// Starts it with stderr at `log` and returns at once.
    ///
    /// # Errors
    /// The binary cannot be started.
    pub fn spawn_logging_to(log: Stdio, options: &[&str]) -> Result<Self> {
        let mut command = Command::new(BINARY);
        let stdout = File::create(STDOUT)?.into();
        let process = Process::start_with(command.arg("run").args(options), stdout, log)?;
        Ok(Self {
            process,
            address: LISTEN.into(),
            authorization: "",
        })
    }

    /// Asks with this header field from now on.
    pub const fn authorize(&mut self, field: &'static str) {
        self.authorization = field;
    }

    /// Waits for `/readyz` to answer 200.
    ///
    /// # Errors
    /// It ended or is not ready in time.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.wait_readyz(200).map(drop)
    }

    /// Waits for `/readyz` to answer with `status`.
    ///
    /// # Errors
    /// It ended or does not answer so in time.
    pub fn wait_readyz(&mut self, status: u16) -> Result<Response> {
        wait::until(&format!("/readyz to answer {status}"), READY_LIMIT, || {
            // Waiting on for a process that has ended would be in vain.
            if let Err(ended) = self.process.ensure_running() {
                return Ok(Err(ended));
            }
            let ready = self.get("/readyz")?;
            ensure!(
                ready.status == status,
                "/readyz: {} {}",
                ready.status,
                ready.body.trim()
            );
            Ok(Ok(ready))
        })?
    }

    /// Waits until it is ready or has ended.
    ///
    /// # Errors
    /// Neither in time.
    pub fn wait_started(mut self) -> Result<Started> {
        let ready = wait::until("/readyz to answer 200, or the end", READY_LIMIT, || {
            if self.process.ensure_running().is_err() {
                return Ok(false);
            }
            let ready = self.get("/readyz")?;
            ensure!(ready.status == 200, "/readyz: {}", ready.body.trim());
            Ok(true)
        })?;
        if ready {
            return Ok(Started::Ready(self));
        }
        self.process.finish().map(Started::Ended)
    }

    /// Asks the agent's HTTP server.
    ///
    /// # Errors
    /// It does not answer.
    pub fn get(&self, path: &str) -> Result<Response> {
        http::get(self.address, path, self.authorization)
    }

    /// `/status` as JSON.
    ///
    /// # Errors
    /// It does not answer with 200 and JSON.
    pub fn status(&self) -> Result<Value> {
        let answer = self.get("/status")?;
        ensure!(answer.status == 200, "/status: {}", answer.status);
        serde_json::from_str(&answer.body).with_context(|| format!("/status is {:?}", answer.body))
    }

    /// Scrapes `/metrics`.
    ///
    /// # Errors
    /// It does not answer with 200 and an exposition.
    pub fn scrape(&self) -> Result<Scrape> {
        scrape_at(self.address, self.authorization)
    }

    /// Waits until the metrics are exactly as expected, and sees that they stay so.
    ///
    /// # Errors
    /// Names every number that differs.
    pub fn expect(&self, expected: &Expected) -> Result<()> {
        expect_of(|| self.scrape(), expected)
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Asks it to stop and wants exit status 0.
    ///
    /// # Errors
    /// It does not stop in time, or with another status.
    pub fn terminate(self) -> Result<()> {
        self.process.terminate()
    }

    /// Stops it where it is; its programs in the kernel run on.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// Asks it to read its configuration again.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn hang_up(&self) -> Result<()> {
        self.process.hang_up()
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    /// Kills it without asking.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn kill(self) -> Result<()> {
        self.process.kill()
    }
}

fn scrape_at(address: SocketAddr, authorization: &str) -> Result<Scrape> {
    let answer = http::get(address, "/metrics", authorization)?;
    ensure!(answer.status == 200, "/metrics: {}", answer.status);
    Scrape::parse(&answer.body)
}

fn expect_of(scrape: impl Fn() -> Result<Scrape>, expected: &Expected) -> Result<()> {
    wait::until("the expected counts", EXPECT_LIMIT, || {
        expected.check(&scrape()?)
    })?;
    std::thread::sleep(SETTLE);
    expected
        .check(&scrape()?)
        .context("the counts did not stay")
}

/// As [`Agent::expect`], of an agent that something else started with its defaults.
///
/// # Errors
/// As [`Agent::expect`].
pub fn expect_at_default(expected: &Expected) -> Result<()> {
    expect_of(scrape_default, expected)
}

/// As [`Agent::scrape`], of an agent that something else started with its defaults.
///
/// # Errors
/// As [`Agent::scrape`].
pub fn scrape_default() -> Result<Scrape> {
    scrape_at(LISTEN.into(), "")
}

/// What the log of the last agent reports about `what` for this cause: the number behind `what`,
/// summed over its lines.
///
/// # Errors
/// The log cannot be read, or no number stands there.
pub fn logged_count(what: &str, cause: &str) -> Result<usize> {
    let log = std::fs::read_to_string(LOG).with_context(|| format!("read {LOG}"))?;
    let lines = log.lines().filter(|line| line.ends_with(cause));
    let numbers = lines.filter_map(|line| line.split_once(what)?.1.split_whitespace().next());
    numbers
        .map(|number| {
            let context = || format!("behind {what:?} stands {number:?}, want a number");
            number.parse::<usize>().with_context(context)
        })
        .sum()
}

/// Compares [`logged_count`] with what happened, once the agent has ended.
///
/// # Errors
/// As [`logged_count`], or the numbers differ.
pub fn ensure_logged(what: &str, cause: &str, want: usize) -> Result<()> {
    let logged = logged_count(what, cause)?;
    ensure!(
        logged == want,
        "the log reports {what:?} {logged} times for {cause}, want {want}"
    );
    Ok(())
}

/// The log must hold none of these words.
///
/// # Errors
/// The first it holds, with the log; or it cannot be read.
pub fn ensure_not_logged(words: &[&str]) -> Result<()> {
    let log = std::fs::read_to_string(LOG).with_context(|| format!("read {LOG}"))?;
    for word in words {
        ensure!(!log.contains(word), "the log contains {word:?}:\n{log}");
    }
    Ok(())
}

/// Starts the agent with `args`, not necessarily `run`; its output is kept for [`Process::stdout`].
///
/// # Errors
/// The binary cannot be started.
pub fn start_with(args: &[&str]) -> Result<Process> {
    start_command(Command::new(BINARY).args(args))
}

/// A trace in JSON that runs while the agent under test does, with an output of its own.
#[derive(Debug)]
pub struct Trace(Process);

/// Starts a [`Trace`] and waits until it observes.
///
/// # Errors
/// It cannot be started, or does not observe in time.
pub fn trace_aside() -> Result<Trace> {
    let mut command = Command::new(BINARY);
    command.args(["trace", "--format", "json"]);
    let mut process = Process::start(&mut command, Path::new(TRACE), Path::new(TRACE_LOG))?;
    wait::until("the trace to be attached", READY_LIMIT, || {
        if let Err(ended) = process.ensure_running() {
            return Ok(Err(ended));
        }
        let log = std::fs::read_to_string(TRACE_LOG)?;
        ensure!(log.contains("probes attached"), "not yet: {log}");
        Ok(Ok(()))
    })??;
    Ok(Trace(process))
}

impl Trace {
    /// Stops it; returns all it printed, what it reported at its end included.
    ///
    /// # Errors
    /// It does not stop.
    pub fn stop(self) -> Result<String> {
        self.0.terminate()?;
        std::fs::read_to_string(TRACE).with_context(|| format!("read {TRACE}"))
    }
}

/// Runs the agent with `args` until it ends by itself.
///
/// # Errors
/// The binary cannot be started, or does not end in time.
pub fn finish(args: &[&str]) -> Result<Finished> {
    start_with(args)?.finish()
}

/// As [`start_with`], for a command prepared by the caller.
///
/// # Errors
/// As [`start_with`].
pub fn start_command(command: &mut Command) -> Result<Process> {
    Process::start(command, Path::new(STDOUT), Path::new(LOG))
}
