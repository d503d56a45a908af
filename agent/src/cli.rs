//! The command line: each option is one field here, with its type, range, default and help.
//!
//! [`crate::settings`] adds what all options have in common: the environment variable, the key of
//! the configuration file, and the error that names which of them a bad value came from.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use agent_core::kernel::features::Feature;
use agent_core::top::view::SortBy;
use clap::{ArgAction, Args, Parser, Subcommand};
use log::LevelFilter;

use crate::settings::values::{
    Attach, Emit, Events, Format, RealServers, address, log_level, milliseconds, one_of, seconds,
};

/// Shows what IPVS decides about every new connection, from inside the kernel.
#[derive(Debug, Parser)]
#[command(name = "ipvs-lens", version, after_help = PRECEDENCE)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const PRECEDENCE: &str = "Each option can also be set by the environment variable shown and, under \
    its own name with `_` for `-`, in the TOML file of --config; the command line wins, then the \
    environment, then the file.\n\n\
    Exit status: 0 done or stopped on request, 1 failure (doctor: problems found), 2 usage, 3 this \
    node cannot be observed.";

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Observe this node and serve /metrics, /healthz, /readyz and /status.
    Run(RunArgs),
    /// Report what prevents this node from being observed, and what IPVS may do wrong on it.
    Doctor(DoctorArgs),
    /// Print findings as they happen, one line each.
    Trace(TraceArgs),
    /// Check the options of `run` and the files they name, without starting anything.
    CheckConfig(RunArgs),
    /// Show services and real servers live, with connection rates per real server.
    Top(TopArgs),
}

impl Command {
    /// Options of every verb.
    #[must_use]
    pub const fn common(&self) -> &CommonArgs {
        match self {
            Self::Run(args) | Self::CheckConfig(args) => &args.common,
            Self::Doctor(args) => &args.common,
            Self::Trace(args) => &args.common,
            Self::Top(args) => &args.common,
        }
    }
}

/// Options of every verb.
#[derive(Args, Clone, Debug)]
pub struct CommonArgs {
    /// TOML file with more options
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Least severe level that is logged
    #[arg(long, value_name = "LEVEL", default_value = "info", ignore_case = true, value_parser = log_level())]
    pub log_level: LevelFilter,
}

/// Options that decide whether a node can be observed: `doctor` has them too.
#[derive(Args, Clone, Debug)]
pub struct KernelArgs {
    /// How to attach to ip_vs functions
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub attach: Attach,
    /// How records leave the kernel
    #[arg(long, value_name = "BUFFER", default_value = "auto")]
    pub events: Events,
    /// Types of the kernel, of ip_vs or of both: a BTF file, or a directory searched by release
    #[arg(long, value_name = "FILE_OR_DIR")]
    pub btf: Option<PathBuf>,
}

impl KernelArgs {
    /// Features that must be there, with the option that asks for them.
    #[must_use]
    pub fn asked(&self) -> BTreeMap<Feature, String> {
        let fexit = (self.attach == Attach::Fexit).then_some((Feature::Fexit, "--attach fexit"));
        let ring = (self.events == Events::Ring).then_some((Feature::RingBuffer, "--events ring"));
        let asked = [fexit, ring].into_iter().flatten();
        asked
            .map(|(feature, option)| (feature, option.to_owned()))
            .collect()
    }
}

/// Options of the verbs that observe.
#[derive(Args, Clone, Debug)]
pub struct ObserveArgs {
    /// Milliseconds between two reads of the event ring
    #[arg(long = "drain-period-ms", value_name = "MS", default_value = "100", value_parser = milliseconds(10..=1000))]
    pub drain_period: Duration,
    /// Which attempts are reported one by one
    #[arg(long, value_name = "WHICH", default_value = "findings")]
    pub emit: Emit,
    /// Log the debug messages of the kernel programs
    #[arg(long, value_name = "BOOL", default_value = "false", action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub kernel_log: bool,
    /// What decides whether this node can be observed.
    #[command(flatten)]
    pub kernel: KernelArgs,
    // By default half of the shortest scrape interval in common use; a deleted pod drains for 30 s.
    /// Seconds between two reads of the IPVS table; automatically longer if a read is expensive
    #[arg(long = "table-interval-s", value_name = "S", default_value = "5", value_parser = seconds(1..=300))]
    pub table_interval: Duration,
    // The default is `table::draining::FORGOTTEN_AFTER`.
    /// Seconds a real server may have weight 0 and no connection before that is a finding
    #[arg(long = "forgotten-after-s", value_name = "S", default_value = "300", value_parser = seconds(1..=86_400))]
    pub forgotten_after: Duration,
    // From the first retransmit of a SYN up to twice the time IPVS keeps an unanswered one (60 s).
    /// Milliseconds without a reply after which a stale attempt counts as timed out
    #[arg(long = "outcome-timeout-ms", value_name = "MS", default_value = "16000", value_parser = milliseconds(1_000..=120_000))]
    pub outcome_timeout: Duration,
    /// Label sets that the kernel counts apart until the agent has read them
    #[arg(long, value_name = "N", default_value = "16384", value_parser = clap::value_parser!(u32).range(64..=16_384))]
    pub kernel_counts: u32,
}

/// Where the HTTP server of an agent is.
#[derive(Args, Clone, Debug)]
pub struct ListenArgs {
    /// Address of the agent's HTTP server; `doctor` asks it what has been observed
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9742", value_parser = address)]
    pub listen: SocketAddr,
}

/// Format of output on stdout.
#[derive(Args, Clone, Copy, Debug)]
pub struct FormatArgs {
    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Format,
}

/// `ipvs-lens run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Where it serves.
    #[command(flatten)]
    pub http: ListenArgs,
    /// Real servers with series of their own
    #[arg(long, value_name = "WHICH", default_value = "abnormal")]
    pub real_servers: RealServers,
    /// TLS, users and limits of the HTTP server, in the YAML format of Prometheus's exporters
    #[arg(long, value_name = "FILE")]
    pub web_config: Option<PathBuf>,
    /// Give up every capability once attached; if ip_vs is loaded again, exit instead of attaching to it
    #[arg(long, value_name = "BOOL", default_value = "false", action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub drop_all_capabilities: bool,
    /// How it observes.
    #[command(flatten)]
    pub observe: ObserveArgs,
    /// Options of every verb.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `ipvs-lens trace`.
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    /// How it prints.
    #[command(flatten)]
    pub output: FormatArgs,
    /// How it observes.
    #[command(flatten)]
    pub observe: ObserveArgs,
    /// Options of every verb.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `ipvs-lens top`.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Print the table after one interval, and stop
    #[arg(long)]
    pub once: bool,
    /// Seconds between two reads of the IPVS table
    #[arg(long = "interval-s", value_name = "S", default_value = "2", value_parser = seconds(1..=300))]
    pub interval: Duration,
    /// Column to sort by
    #[arg(long, value_name = "COLUMN", default_value = "name", value_parser = one_of(SortBy::ALL, SortBy::as_str))]
    pub sort: SortBy,
    /// Show only services and real servers whose name contains this
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub filter: String,
    /// How --once prints.
    #[command(flatten)]
    pub output: FormatArgs,
    /// How it observes.
    #[command(flatten)]
    pub observe: ObserveArgs,
    /// Options of every verb.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `ipvs-lens doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// How it prints.
    #[command(flatten)]
    pub output: FormatArgs,
    /// Where a running agent is asked.
    #[command(flatten)]
    pub http: ListenArgs,
    /// How `run` would observe.
    #[command(flatten)]
    pub kernel: KernelArgs,
    /// Check these saved facts instead of this node
    #[arg(long, value_name = "FILE")]
    pub facts: Option<PathBuf>,
    /// Save the facts of this node, to be checked elsewhere
    #[arg(long, value_name = "FILE")]
    pub save_facts: Option<PathBuf>,
    /// Options of every verb.
    #[command(flatten)]
    pub common: CommonArgs,
}
