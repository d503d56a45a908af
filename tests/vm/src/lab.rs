//! One clean run: the network is built, something is played, and nothing may be left.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use crate::bpf::Inventory;
use crate::report::Report;
use crate::socket::Close;
use crate::topology::{self, CLIENT, CLIENT_NETNS, Site, Topology, VIP};
use crate::traffic::{self, Background, Plan, Protocol};
use crate::{agent, director};

/// Time for one connection: above the third SYN (1 + 2 + 4 s), far above anything but a black hole.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// Connections at the same time where a scenario does not say: two for each CPU of the guest.
const WORKERS: usize = 4;

/// What a scenario plays with.
#[derive(Debug)]
pub struct Lab {
    /// The network.
    pub topology: Topology,
    /// BPF objects that were there before.
    pub bpf_before: Inventory,
    client_netns: &'static str,
}

impl Lab {
    /// Plays `scenario` in a fresh lab and takes the lab down, however it ended.
    ///
    /// # Errors
    /// The scenario's, with the agent's log; or something was left behind.
    pub fn play<T>(scenario: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let mut lab = Self::up()?;
        match scenario(&mut lab) {
            Ok(result) => lab.down().map(|()| result),
            Err(error) => {
                let log = std::fs::read_to_string(agent::LOG).unwrap_or_default();
                // The scenario's error says more than what taking the lab down may add.
                let _ = lab.down();
                Err(anyhow!("{error:#}\nagent's log:\n{log}"))
            }
        }
    }

    fn up() -> Result<Self> {
        topology::remove();
        director::reset_for_good()?;
        let _ = std::fs::remove_file(agent::LOG);
        Ok(Self {
            topology: Topology::up(Site::Main)?,
            bpf_before: Inventory::take()?,
            client_netns: CLIENT_NETNS,
        })
    }

    fn down(self) -> Result<()> {
        self.bpf_before.ensure_nothing_new()?;
        director::reset();
        self.topology.down()?;
        director::reset_for_good().context("after the scenario")
    }

    /// A plan for clean TCP connections, one from each of `ports`.
    pub fn plan(ports: Vec<u16>) -> Plan {
        Plan {
            source: CLIENT.into(),
            target: VIP.into(),
            protocol: Protocol::Tcp,
            ports,
            rounds: 1,
            workers: WORKERS,
            close: Close::Clean,
            timeout: CONNECT_LIMIT,
        }
    }

    /// Plays `plan` from the client.
    ///
    /// # Errors
    /// The client's network namespace is gone.
    pub fn run(&self, plan: &Plan) -> Result<Report> {
        traffic::run(Some(self.client_netns), plan)
    }

    /// Plays `plans` from the client, one after the other.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_all(&self, plans: &[Plan]) -> Result<Report> {
        traffic::run_all(Some(self.client_netns), plans)
    }

    /// As [`Self::run`]; every connection must be answered.
    ///
    /// # Errors
    /// Names connections that failed.
    pub fn run_all_answered(&self, plan: &Plan) -> Result<Report> {
        let report = self.run(plan)?;
        report.ensure_all_answered()?;
        Ok(report)
    }

    /// Starts playing `plan` from the client.
    pub fn start(&self, plan: Plan) -> Background {
        Background::start(Some(self.client_netns), plan)
    }
}
