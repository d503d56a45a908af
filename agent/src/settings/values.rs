//! Types of option values, and what parses those that clap does not know.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use log::LevelFilter;

/// Which attempts are reported one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Emit {
    /// Those with a problem.
    Findings,
    /// Every one: one record per new connection.
    All,
}

/// How to attach to functions of ip_vs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Attach {
    /// The best way this kernel has.
    Auto,
    /// Trampolines at the functions' return, or not at all.
    Fexit,
    /// A kprobe and a kretprobe, or not at all.
    Kprobe,
}

/// How records leave the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Events {
    /// A ring buffer where the kernel has them, perf buffers elsewhere.
    Auto,
    /// One ring buffer for all CPUs (Linux 5.8).
    Ring,
    /// A perf buffer per CPU.
    Perf,
}

/// Format of output on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Which real servers have series of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RealServers {
    /// Every one, up to the cap.
    All,
    /// Those that drain, starve or are full.
    #[default]
    Abnormal,
    /// None.
    None,
}

/// Milliseconds within a range.
pub fn milliseconds(
    allowed: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| within(&allowed, text).map(Duration::from_millis)
}

/// Seconds within a range.
pub fn seconds(allowed: RangeInclusive<u64>) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| within(&allowed, text).map(Duration::from_secs)
}

/// The error is what would fit, as that of all parsers here.
fn within(allowed: &RangeInclusive<u64>, text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| allowed.contains(number));
    number.ok_or_else(|| format!("{} to {}", allowed.start(), allowed.end()))
}

/// An address with a port.
///
/// # Errors
/// What would fit.
pub fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "ADDR:PORT")
}

/// A level of the log.
pub fn log_level() -> impl TypedValueParser<Value = LevelFilter> {
    PossibleValuesParser::new(["off", "error", "warn", "info", "debug", "trace"])
        .try_map(|text| text.parse::<LevelFilter>())
}

/// A member of an enumeration that knows nothing of command lines, by its name.
pub fn one_of<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(all.iter().map(|member| name(*member))).try_map(move |text| {
        let member = all.iter().find(|member| name(**member) == text);
        member.copied().ok_or("a name that is listed")
    })
}
