//! Everything that runs inside the test guest: as PID 1 its init, else a tool for use by hand.

mod agent;
mod bench;
mod bpf;
mod btf;
mod cli;
mod cmdline;
mod command;
mod confinement;
mod demo;
mod director;
mod expect;
mod http;
mod init;
mod lab;
mod listener;
mod netns;
mod netstat;
mod paths;
mod process;
mod report;
mod results;
mod rights;
mod scenarios;
mod scrape;
mod server;
mod service;
mod shipped;
mod socket;
mod stack;
mod sysctl;
mod systemd;
mod terminal;
mod topology;
mod traffic;
mod wait;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run();
    }
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}
