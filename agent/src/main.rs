//! `ipvs-lens`: command line, settings, verb, exit status. Everything else is in the library.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use ipvs_lens::cli::{Command, RunArgs};
use ipvs_lens::error::{Exit, Failure};
use ipvs_lens::outputs::logger;
use ipvs_lens::settings::{self, SettingsError};
use ipvs_lens::syscall_filter::{self, Denied};
use ipvs_lens::{doctor, limits, privileges, run, signals};
use log::LevelFilter;

fn main() -> ExitCode {
    match execute() {
        Ok(exit) => {
            logger::finish(None);
            exit.into()
        }
        Err(error) => {
            logger::finish(Some(&error));
            exit_of(&error).into()
        }
    }
}

fn execute() -> anyhow::Result<Exit> {
    let arguments: Vec<_> = std::env::args_os().collect();
    let command = match read(&arguments) {
        // Prints the error and exits with status 2, or the help and exits with 0.
        Err(SettingsError::Usage(error)) => error.exit(),
        read => read?,
    };
    signals::survive_hangup()?;
    // Before any thread is started, which inherits it.
    let filtered = match &command {
        Command::Run(args) => confine(args)?,
        _ => Ok(()),
    };
    // Lines of the log would be written across the screen that `top` draws.
    let draws = matches!(&command, Command::Top(args) if !args.once);
    let level = if draws {
        LevelFilter::Off
    } else {
        command.common().log_level
    };
    logger::start(level)?;
    if let Err(error) = filtered {
        log::warn!("{error}; running without it");
    }
    match &command {
        Command::Run(args) => run::run(args, move || Ok(read(&arguments)?.common().log_level))?,
        Command::Trace(args) => run::trace(args)?,
        Command::CheckConfig(args) => {
            run::check_config(args)?;
            // The exit status is the answer, also where stdout takes nothing.
            if let Err(error) = writeln!(io::stdout(), "configuration OK") {
                log::debug!("cannot write to stdout: {error}");
            }
        }
        Command::Doctor(args) => return Ok(doctor::run(args, &mut io::stdout())?),
        Command::Top(args) => run::top(args)?,
    }
    Ok(Exit::Done)
}

/// Gives up what `run` never needs. A kernel or a sandbox without seccomp is no reason not to run:
/// the inner result says why there is no filter of system calls.
fn confine(args: &RunArgs) -> Result<Result<(), Failure>, Failure> {
    limits::raise();
    privileges::limit(args)?;
    Ok(syscall_filter::install(Denied::Unneeded))
}

/// The verb and its options from command line, environment and file as they are now.
fn read(arguments: &[OsString]) -> Result<Command, SettingsError> {
    let loaded = settings::load(arguments, |path| std::fs::read_to_string(path));
    loaded.map(|loaded| loaded.command)
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
