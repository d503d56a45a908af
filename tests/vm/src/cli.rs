//! The subcommands, for init and for a person in the guest's shell.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::bench;
use crate::demo;
use crate::director::{self, Transport};
use crate::init;
use crate::lab::Lab;
use crate::rights::Rights;
use crate::scenarios::{self, SCENARIOS};
use crate::socket::Close;
use crate::stack;
use crate::topology::{self, CLIENT, CLIENT_NETNS, Site, Topology, VIP};
use crate::traffic::{self, Plan, Protocol};

#[derive(Parser)]
#[command(about = "Tools of the test guest")]
enum Cli {
    /// Lists the scenarios.
    List,
    /// Plays one scenario in a fresh lab.
    Scenario {
        /// A name that `lab list` shows.
        name: String,
    },
    /// Runs what the host asked for as a unit of systemd, and powers off.
    Unit,
    /// Plays the incident for a person, in three acts.
    Demo,
    /// Plays the incident at the host's word, with Prometheus watching.
    Stack,
    /// Measures what a packet costs, with and without observers.
    Bench,
    /// Measures what a large table costs, compared with node_exporter.
    BenchTable,
    /// Builds the lab's network and serves until Enter is pressed, or removes it.
    #[command(subcommand)]
    Topology(TopologyCommand),
    /// Becomes a program that may do less.
    As {
        #[command(flatten)]
        rights: Rights,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Makes connections from chosen source ports and prints the report as JSON.
    Traffic(Traffic),
}

#[derive(Subcommand)]
enum TopologyCommand {
    /// Builds it, loads ip_vs with a TCP and a UDP service on the VIP, and waits for Enter.
    Up,
    /// Removes what is left of it.
    Down,
}

#[derive(clap::Args)]
struct Traffic {
    /// Network namespace to run in; `-` for this one.
    #[arg(long, default_value = CLIENT_NETNS)]
    netns: String,
    /// Client's address.
    #[arg(long, default_value_t = CLIENT.into())]
    source: IpAddr,
    /// Where to connect to.
    #[arg(long, default_value_t = VIP.into())]
    target: SocketAddr,
    /// Transport.
    #[arg(long, value_enum, default_value = "tcp")]
    protocol: Protocol,
    /// First source port.
    #[arg(long, default_value_t = 40_000)]
    port: u16,
    /// Number of source ports.
    #[arg(long, default_value_t = 1)]
    ports: u16,
    /// How often each port is used.
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Connections at the same time.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// How the client closes.
    #[arg(long, value_enum, default_value = "clean")]
    close: Close,
    /// Gives up connecting after so many seconds.
    #[arg(long, default_value_t = 20)]
    timeout_seconds: u64,
}

/// Does what the command line says.
///
/// # Errors
/// The subcommand's.
pub fn run() -> Result<()> {
    match Cli::parse() {
        Cli::List => {
            for scenario in SCENARIOS {
                println!("{:<14} {}", scenario.name, scenario.doc);
            }
            Ok(())
        }
        Cli::Scenario { name } => Lab::play(scenarios::find(&name)?.run),
        Cli::Unit => init::run_as_unit(),
        Cli::Demo => demo::run(),
        Cli::Stack => stack::run(),
        Cli::Bench => bench::run(),
        Cli::BenchTable => bench::table::run(),
        Cli::Topology(TopologyCommand::Up) => serve_by_hand(),
        Cli::Topology(TopologyCommand::Down) => {
            director::reset();
            topology::remove();
            director::reset_for_good()
        }
        Cli::As { rights, command } => {
            let (program, args) = command.split_first().context("no program")?;
            rights.exec(program, args).map(|never| match never {})
        }
        Cli::Traffic(arguments) => print_report(&arguments),
    }
}

fn serve_by_hand() -> Result<()> {
    let topology = Topology::up(Site::Main)?;
    director::load(&[])?;
    for transport in [Transport::Tcp, Transport::Udp] {
        director::add_service(transport, &topology::REAL_SERVERS)?;
    }
    println!("{VIP} is served; press Enter to take it down");
    std::io::stdin().read_line(&mut String::new())?;
    director::reset();
    topology.down()
}

fn print_report(arguments: &Traffic) -> Result<()> {
    let plan = Plan {
        source: arguments.source,
        target: arguments.target,
        protocol: arguments.protocol,
        ports: (0..arguments.ports)
            .map(|offset| arguments.port.wrapping_add(offset))
            .collect(),
        rounds: arguments.rounds,
        workers: arguments.workers,
        close: arguments.close,
        timeout: Duration::from_secs(arguments.timeout_seconds),
    };
    let netns = (arguments.netns != "-").then_some(arguments.netns.as_str());
    let report = traffic::run(netns, &plan)?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}
