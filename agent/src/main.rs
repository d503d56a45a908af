//! `ipvs-lens`: command line, settings, verb, exit status. Everything else is in the library.

use std::process::ExitCode;

use anyhow::Context;
use ipvs_lens::cli::Command;
use ipvs_lens::error::{Exit, Failure};
use ipvs_lens::settings::{self, SettingsError};
use ipvs_lens::{doctor, run};
use log::LevelFilter;

fn main() -> ExitCode {
    match execute() {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("ipvs-lens: {error}");
            exit_of(&error).into()
        }
    }
}

fn execute() -> anyhow::Result<Exit> {
    let arguments: Vec<_> = std::env::args_os().collect();
    let command = match settings::load(&arguments, |path| std::fs::read_to_string(path)) {
        // Prints the error and exits with status 2, or the help and exits with 0.
        Err(SettingsError::Usage(error)) => error.exit(),
        loaded => loaded?.command,
    };
    // Lines of the log would be written across the screen that `top` draws.
    let draws = matches!(&command, Command::Top(args) if !args.once);
    let level = if draws {
        LevelFilter::Off
    } else {
        command.common().log_level
    };
    env_logger::Builder::new()
        .filter_level(level)
        .target(env_logger::Target::Stderr)
        .try_init()
        .context("cannot set up logging")?;
    match &command {
        Command::Run(args) => run::run(args)?,
        Command::Trace(args) => run::trace(args)?,
        Command::CheckConfig(args) => {
            run::check_config(args)?;
            println!("the configuration is good");
        }
        Command::Doctor(args) => return Ok(doctor::run(args, &mut std::io::stdout())?),
        Command::Top(args) => run::top(args)?,
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
