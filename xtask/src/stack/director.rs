//! The guest with the agent, seen from the host: booted, then sent one command after another.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::guest::{self, Extras, Flow};
use crate::kernel;
use crate::paths::Paths;
use crate::qemu::{Forward, Guest};
use crate::results::{self, Event};

/// From the power on to the agent's readiness, under emulation on a busy host.
const BOOT_LIMIT: Duration = Duration::from_mins(5);

/// Longest answer to a word: clients may wait seconds for their connections.
const ANSWER_LIMIT: Duration = Duration::from_mins(2);

/// The line that says that everything runs.
const READY: &str = "READY";

/// The agent's port in the guest.
const AGENT_PORT: u16 = 9_742;

/// The control's port in the guest.
const CONTROL_PORT: u16 = 9_743;

/// What happens next in the guest.
#[derive(Clone, Copy, Debug)]
pub enum Word {
    /// Clients vanish without closing and come back: IPVS drops their SYNs.
    Delay,
    /// Clients connect again and again, until the end.
    Begin,
    /// A real server gets weight 0.
    Drain,
    /// It goes away.
    Remove,
    /// The settings that the runbooks name.
    Cure,
}

impl Word {
    const fn text(self) -> &'static str {
        match self {
            Self::Delay => "delay",
            Self::Begin => "begin",
            Self::Drain => "drain",
            Self::Remove => "remove",
            Self::Cure => "cure",
        }
    }
}

/// The running guest; dropping it ends it.
pub struct Director {
    // Dropped first: the other holds its files.
    _guest: Guest,
    _prepared: guest::Prepared,
    control: u16,
}

impl Director {
    /// Boots a kernel and returns once the agent in it is ready, on these ports of the loopback
    /// address.
    ///
    /// # Errors
    /// When the guest does not come up; the end of its console is shown then.
    pub fn boot(paths: &Paths, kernel: &str, agent: u16, control: u16) -> Result<Self> {
        let name = format!("{kernel} stack");
        let prepared = guest::prepare(paths, kernel::find(kernel)?, &name, Extras::default())?;
        let forwards = [
            Forward {
                host: agent,
                guest: AGENT_PORT,
            },
            Forward {
                host: control,
                guest: CONTROL_PORT,
            },
        ];
        let mut failure = None;
        let words = ["lab.mode=stack".to_owned()];
        let guest = prepared.boot(&words, &forwards, BOOT_LIMIT, |line| {
            match results::parse(line) {
                None if line == READY => Flow::Finished,
                Some(Event::Error { detail }) => {
                    failure = Some(detail);
                    Flow::Finished
                }
                _ => Flow::Continue,
            }
        })?;
        if let Some(detail) = failure {
            bail!("the guest could not be set up: {detail}");
        }
        Ok(Self {
            _guest: guest,
            _prepared: prepared,
            control,
        })
    }

    /// Lets something happen and returns when it has.
    ///
    /// # Errors
    /// When the guest does not answer, or could not do it.
    pub fn say(&self, word: Word) -> Result<()> {
        let word = word.text();
        let answer = self
            .ask(word)
            .with_context(|| format!("the guest did not answer to {word:?}"))?;
        ensure!(answer == "ok", "the guest could not {word}: {answer}");
        Ok(())
    }

    fn ask(&self, word: &str) -> Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.control))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        writeln!(stream, "{word}")?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer.trim().to_owned())
    }
}
