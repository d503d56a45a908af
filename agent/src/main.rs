//! `ipvs-lens`: command line, settings, verb, exit status. Everything else is in the library.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use ipvs_lens::cli::{Cli, Command};
use ipvs_lens::error::{Exit, Failure};
use ipvs_lens::settings::{Process, Settings, SettingsError};
use ipvs_lens::{doctor, run};
use log::LevelFilter;

fn main() -> ExitCode {
    // Wrong usage ends inside `parse`, with status 2.
    let cli = Cli::parse();
    match execute(&cli.command) {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("ipvs-lens: {error}");
            exit_of(&error).into()
        }
    }
}

fn execute(command: &Command) -> anyhow::Result<Exit> {
    let settings = Settings::load(&command.typed(), &Process)?;
    // Lines of the log would be written across the screen that `top` draws.
    let draws = matches!(command, Command::Top(args) if !args.once);
    let level = if draws {
        LevelFilter::Off
    } else {
        settings.log_level
    };
    env_logger::Builder::new()
        .filter_level(level)
        .target(env_logger::Target::Stderr)
        .try_init()
        .context("cannot set up logging")?;
    match command {
        Command::Run(_) => run::run(&settings)?,
        Command::Trace(_) => run::trace(&settings)?,
        Command::CheckConfig(_) => {
            run::check_config(&settings)?;
            println!("the configuration is good");
        }
        Command::Doctor(_) => return Ok(doctor::run(&settings, &mut std::io::stdout())?),
        Command::Top(args) => run::top(&settings, args.once)?,
    }
    Ok(Exit::Done)
}

fn exit_of(error: &anyhow::Error) -> Exit {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.exit;
    }
    if error.is::<SettingsError>() {
        return Exit::Usage;
    }
    Exit::Failed
}
