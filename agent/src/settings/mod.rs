//! What all options of [`crate::cli`] have in common: values from the command line, the
//! environment, the configuration file or the default, in that order.
//!
//! clap parses every value, wherever it comes from, so a key of the file has the type, range and
//! names of its flag. The file's values replace clap's defaults once they have been checked.

#[cfg(test)]
mod tests;
pub mod values;

use std::error::Error as _;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, CommandFactory as _, FromArgMatches as _};
use thiserror::Error;

pub use values::{Attach, Emit, Events, Format, RealServers};

use crate::cli::Cli;

/// Prefix of the environment variables.
const PREFIX: &str = "IPVS_LENS_";

/// What to do, not how: neither in the environment nor in a file.
const FLAG_ONLY: &[&str] = &["once"];

/// A file cannot name the file.
const NOT_IN_FILE: &[&str] = &["once", "config"];

/// A configuration file is a few lines; more than this is some other file.
const FILE_BYTES_MAX: usize = 64 * 1024;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line; the option without dashes in front.
    Flag(String),
    /// An environment variable.
    Variable(String),
    /// The configuration file, and the key.
    File(PathBuf, String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(long) => write!(f, "--{long}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::File(path, key) => write!(f, "key {key} in {}", path.display()),
        }
    }
}

/// Why there are no settings.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// The command line is wrong, or asks for help; clap says it in its own way.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration file is not TOML.
    #[error("{} is not TOML: {reason}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// Where and why, in one line.
        reason: String,
    },
    /// A key that no option has.
    #[error("unknown key {key} in {}, expected one of {}", path.display(), known.join(", "))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The keys there are.
        known: Vec<String>,
    },
    /// A value that does not fit.
    #[error("{origin} is {found:?}, expected {allowed}")]
    BadValue {
        /// Whose value.
        origin: Origin,
        /// The value as it was written.
        found: String,
        /// What would fit.
        allowed: String,
    },
}

/// The command line with everything that was set elsewhere; `arguments` start with the program.
///
/// # Errors
/// [`SettingsError`]; all but [`SettingsError::Usage`] are one line that names the flag, variable
/// or key.
pub fn load(
    arguments: &[OsString],
    read: impl Fn(&Path) -> io::Result<String>,
) -> Result<Cli, SettingsError> {
    let cli = parse(command(), arguments)?;
    let Some(path) = &cli.command.common().config else {
        return Ok(cli);
    };
    let values = file(path, read)?;
    parse(with_defaults(command(), &values), arguments)
}

/// The command line as clap knows it, each option with its variable and what it allows.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command().mut_subcommands(|verb| {
        verb.mut_args(|option| {
            let Some(long) = option.get_long().filter(|long| !FLAG_ONLY.contains(long)) else {
                return option;
            };
            let variable = format!("{PREFIX}{}", key(long).to_uppercase());
            let option = option.env(variable).hide_env_values(true);
            let help = option.get_help().map(ToString::to_string);
            // Listed names show by themselves, and so does the kind of value.
            match (help, allowed(&option, "?")) {
                (Some(help), Err(Allowed::Described(range)))
                    if option.get_value_names() != Some(&[range.clone().into()]) =>
                {
                    option.help(format!("{help} [allowed: {range}]"))
                }
                _ => option,
            }
        })
    })
}

/// The key of an option in the file.
fn key(long: &str) -> String {
    long.replace('-', "_")
}

/// The options that a file may set, each once, in the order of the help.
fn options() -> Vec<Arg> {
    let mut options: Vec<Arg> = Vec::new();
    for verb in Cli::command().get_subcommands() {
        for option in verb.get_arguments() {
            let fits = option.get_long().is_some_and(|l| !NOT_IN_FILE.contains(&l));
            if fits
                && options
                    .iter()
                    .all(|known| known.get_id() != option.get_id())
            {
                options.push(option.clone());
            }
        }
    }
    options
}

fn parse(command: clap::Command, arguments: &[OsString]) -> Result<Cli, SettingsError> {
    let matches = command.try_get_matches_from(arguments).map_err(|error| {
        let Some((long, found, allowed)) = bad_value(&error) else {
            return SettingsError::Usage(error);
        };
        let typed = is_typed(&long, arguments);
        if typed && found.is_empty() {
            return SettingsError::Usage(error);
        }
        let origin = if typed {
            Origin::Flag(long)
        } else {
            Origin::Variable(format!("{PREFIX}{}", key(&long).to_uppercase()))
        };
        SettingsError::BadValue {
            origin,
            found,
            allowed: allowed.to_string(),
        }
    })?;
    Ok(Cli::from_arg_matches(&matches)?)
}

fn is_typed(long: &str, arguments: &[OsString]) -> bool {
    arguments.iter().any(|argument| {
        let rest = argument.to_str().and_then(|text| text.strip_prefix("--"));
        rest.is_some_and(|rest| rest.split('=').next() == Some(long))
    })
}

/// What an option allows.
#[derive(Debug, PartialEq, Eq)]
enum Allowed {
    /// One of these.
    Names(Vec<String>),
    /// What its parser says.
    Described(String),
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Described(text) => f.write_str(text),
            Self::Names(names) => match names.split_last() {
                Some((last, [])) => f.write_str(last),
                Some((last, before)) => write!(f, "{} or {last}", before.join(", ")),
                None => Ok(()),
            },
        }
    }
}

/// Option without dashes, value, and what would fit, if an error is about a value.
fn bad_value(error: &clap::Error) -> Option<(String, String, Allowed)> {
    let text = |kind| match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        _ => None,
    };
    if !matches!(
        error.kind(),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::InvalidUtf8
    ) {
        return None;
    }
    // `--emit <WHICH>`
    let shown = text(ContextKind::InvalidArg)?;
    let (option, value) = shown.split_once([' ', '[']).unwrap_or((&shown, ""));
    let long = option.strip_prefix("--")?.to_owned();
    let allowed = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(names)) if !names.is_empty() => Allowed::Names(names.clone()),
        _ => Allowed::Described(error.source().map_or_else(
            || value.trim_matches(['<', '>', '[', ']']).to_owned(),
            ToString::to_string,
        )),
    };
    let found = text(ContextKind::InvalidValue).unwrap_or_default();
    Some((long, found, allowed))
}

/// Whether the option takes this value, and if not, what it allows.
fn allowed(option: &Arg, value: &str) -> Result<(), Allowed> {
    let Some(long) = option.get_long() else {
        return Ok(());
    };
    let typed = format!("--{long}={value}");
    let option = option.clone().action(ArgAction::Set).num_args(1);
    let command = clap::Command::new("option")
        .no_binary_name(true)
        .arg(option);
    let error = command.try_get_matches_from([typed]).err();
    match error.as_ref().map(bad_value) {
        None => Ok(()),
        Some(Some((_, _, allowed))) => Err(allowed),
        Some(None) => Err(Allowed::Described("another value".to_owned())),
    }
}

/// Values of the configuration file, checked: options without dashes and texts.
type FileValues = Vec<(String, String)>;

fn file(
    path: &Path,
    read: impl Fn(&Path) -> io::Result<String>,
) -> Result<FileValues, SettingsError> {
    let unreadable = |source| SettingsError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let text = read(path).map_err(unreadable)?;
    if text.len() > FILE_BYTES_MAX {
        let reason = format!("{} bytes, expected at most {FILE_BYTES_MAX}", text.len());
        return Err(unreadable(io::Error::other(reason)));
    }
    let table: toml::Table =
        toml::from_str(&text).map_err(|error| not_toml(path, &text, &error))?;
    let options = options();
    let checked = |(name, value)| check(path, &options, name, value);
    table.into_iter().map(checked).collect()
}

fn check(
    path: &Path,
    options: &[Arg],
    name: String,
    value: toml::Value,
) -> Result<(String, String), SettingsError> {
    let longs = || options.iter().filter_map(Arg::get_long);
    let known = options
        .iter()
        .find(|option| option.get_long().is_some_and(|long| key(long) == name));
    let Some((option, long)) = known.and_then(|option| Some((option, option.get_long()?))) else {
        return Err(SettingsError::UnknownKey {
            path: path.to_owned(),
            key: name,
            known: longs().map(key).collect(),
        });
    };
    let text = plain(value);
    match allowed(option, &text) {
        Ok(()) => Ok((long.to_owned(), text)),
        Err(allowed) => Err(SettingsError::BadValue {
            origin: Origin::File(path.to_owned(), name),
            found: text,
            allowed: allowed.to_string(),
        }),
    }
}

/// A value as it would be typed.
fn plain(value: toml::Value) -> String {
    match value {
        toml::Value::String(text) => text,
        other => other.to_string(),
    }
}

/// The file's values in place of the defaults, for the verbs that have the option.
fn with_defaults(command: clap::Command, values: &FileValues) -> clap::Command {
    command.mut_subcommands(|verb| {
        verb.mut_args(|option| {
            let value = values
                .iter()
                .find(|(long, _)| option.get_long() == Some(long));
            match value {
                Some((_, text)) => option.default_value(text.clone()),
                None => option,
            }
        })
    })
}

fn not_toml(path: &Path, text: &str, error: &toml::de::Error) -> SettingsError {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(1, |before| before.matches('\n').count() + 1);
    let message = error.message().replace('\n', ", ");
    SettingsError::NotToml {
        path: path.to_owned(),
        reason: format!("line {line}: {message}"),
    }
}
