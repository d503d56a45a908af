//! Settings: one checked value per option, from flag, environment, file or default, in that order.
//!
//! Everything is handed in (see [`Outside`]), so that tests need neither a process environment
//! nor files.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use log::LevelFilter;
use thiserror::Error;

use crate::cli::Typed;
use crate::outputs::metrics::table::RealServers;
use crate::probes::table::Way;
use crate::top::view::SortBy;

/// Every key of the configuration file; a flag has `-` for `_`, a variable is in capitals.
pub const KEYS: &[&str] = &[
    "listen",
    "web_config",
    "log_level",
    "drain_period_ms",
    "emit",
    "kernel_log",
    "attach",
    "events",
    "btf",
    "outcome_timeout_ms",
    "format",
    "table_interval_s",
    "forgotten_after_s",
    "real_servers",
    "facts",
    "save_facts",
    "interval_s",
    "sort",
    "filter",
];

/// Prefix of the environment variables.
const PREFIX: &str = "IPVS_LENS_";

/// A configuration file is a few lines; more than this is some other file.
const FILE_BYTES_MAX: usize = 64 * 1024;

/// Which attempts are told one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    /// Those that something was wrong with.
    Findings,
    /// Every one: one record per new connection.
    All,
}

/// How to hang on functions of ip_vs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// The best way this kernel has.
    Auto,
    /// This way or not at all.
    Only(Way),
}

/// How records leave the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// A ring buffer where the kernel has them, perf buffers elsewhere.
    Auto,
    /// One ring buffer for all CPUs (Linux 5.8).
    Ring,
    /// A perf buffer per CPU.
    Perf,
}

/// Form of output on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// All settings, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Address of the HTTP server.
    pub listen: SocketAddr,
    /// File with TLS and users of the HTTP server.
    pub web_config: Option<PathBuf>,
    /// Least severe level logged.
    pub log_level: LevelFilter,
    /// Time between two readings of the event ring.
    pub drain_period: Duration,
    /// Which attempts are told one by one.
    pub emit: Emit,
    /// Whether the kernel programs log.
    pub kernel_log: bool,
    /// How to hang on functions of ip_vs.
    pub attach: Attach,
    /// How records leave the kernel.
    pub events: Events,
    /// File that describes ip_vs instead of what the kernel publishes.
    pub btf: Option<PathBuf>,
    /// How long after its latest SYN an unanswered stale attempt has timed out.
    pub outcome_timeout: Duration,
    /// Form of output on stdout.
    pub format: Format,
    /// Time between two readings of the IPVS table, if they are cheap.
    pub table_interval: Duration,
    /// How long weight 0 without a connection is no finding.
    pub forgotten_after: Duration,
    /// Which real servers have series of their own.
    pub real_servers: RealServers,
    /// Saved facts to judge.
    pub facts: Option<PathBuf>,
    /// Where to save facts.
    pub save_facts: Option<PathBuf>,
    /// As `table_interval`, for `top`.
    pub top_interval: Duration,
    /// What `top` sorts by.
    pub sort: SortBy,
    /// What names in `top` must contain.
    pub filter: String,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag(&'static str),
    /// An environment variable.
    Variable(String),
    /// The configuration file.
    File(PathBuf, &'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(key) => write!(f, "--{}", key.replace('_', "-")),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::File(path, key) => write!(f, "key {key} in {}", path.display()),
        }
    }
}

/// Why there are no settings.
#[derive(Debug, Error)]
pub enum SettingsError {
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
    /// A key nobody knows.
    #[error("unknown key {key} in {}, wanted one of {}", path.display(), KEYS.join(", "))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A value that does not fit.
    #[error("{origin} is {found}, wanted {wanted}")]
    BadValue {
        /// Whose value.
        origin: Origin,
        /// The value as it was written.
        found: String,
        /// What would fit.
        wanted: &'static str,
    },
}

/// The world outside the command line.
pub trait Outside {
    /// An environment variable.
    fn variable(&self, name: &str) -> Option<OsString>;

    /// The text of a file.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn read(&self, path: &Path) -> io::Result<String>;
}

/// The process's own environment and files.
#[derive(Clone, Copy, Debug)]
pub struct Process;

impl Outside for Process {
    fn variable(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }
}

impl Settings {
    /// The settings for what was typed.
    ///
    /// # Errors
    /// [`SettingsError`], in one line that names the flag, variable or key.
    pub fn load(typed: &Typed, outside: &dyn Outside) -> Result<Self, SettingsError> {
        let values = Values::gather(typed, outside)?;
        Ok(Self {
            listen: values.parsed("listen", "ADDR:PORT", "127.0.0.1:9742")?,
            web_config: values.text("web_config").map(PathBuf::from),
            log_level: values.parsed(
                "log_level",
                "off, error, warn, info, debug or trace",
                "info",
            )?,
            drain_period: values.checked("drain_period_ms", "10 to 1000", "100", period)?,
            emit: values.checked("emit", "findings or all", "findings", emit)?,
            kernel_log: values.parsed("kernel_log", "true or false", "false")?,
            attach: values.checked("attach", "auto, fexit or kprobe", "auto", attach)?,
            events: values.checked("events", "auto, ring or perf", "auto", events)?,
            btf: values.text("btf").map(PathBuf::from),
            outcome_timeout: values.checked(
                "outcome_timeout_ms",
                "1000 to 120000",
                "16000",
                outcome_timeout,
            )?,
            format: values.checked("format", "text or json", "text", format)?,
            table_interval: values.checked("table_interval_s", "1 to 300", "5", table_interval)?,
            forgotten_after: values.checked(
                "forgotten_after_s",
                "1 to 86400",
                "300",
                forgotten_after,
            )?,
            real_servers: values.checked(
                "real_servers",
                "all, abnormal or none",
                "abnormal",
                real_servers,
            )?,
            facts: values.text("facts").map(PathBuf::from),
            save_facts: values.text("save_facts").map(PathBuf::from),
            top_interval: values.checked("interval_s", "1 to 300", "2", table_interval)?,
            sort: values.checked("sort", "name, active, new, stale or draining", "name", sort)?,
            filter: values.text("filter").unwrap_or_default().to_owned(),
        })
    }
}

fn period(text: &str) -> Option<Duration> {
    let milliseconds: u64 = text.parse().ok()?;
    (10..=1000)
        .contains(&milliseconds)
        .then_some(Duration::from_millis(milliseconds))
}

/// Five seconds by default: half of the shortest scrape interval in common use, and a pod that is
/// deleted drains for thirty.
fn table_interval(text: &str) -> Option<Duration> {
    let seconds: u64 = text.parse().ok()?;
    (1..=300)
        .contains(&seconds)
        .then_some(Duration::from_secs(seconds))
}

/// Five minutes by default, see [`crate::table::draining::FORGOTTEN_AFTER`].
fn forgotten_after(text: &str) -> Option<Duration> {
    let seconds: u64 = text.parse().ok()?;
    (1..=86_400)
        .contains(&seconds)
        .then_some(Duration::from_secs(seconds))
}

fn real_servers(text: &str) -> Option<RealServers> {
    match text {
        "all" => Some(RealServers::All),
        "abnormal" => Some(RealServers::Abnormal),
        "none" => Some(RealServers::None),
        _ => None,
    }
}

fn sort(text: &str) -> Option<SortBy> {
    let found = SortBy::ALL.iter().find(|sort| sort.word() == text);
    found.copied()
}

/// From the first retransmit of a SYN up to the time IPVS forgets an unanswered one (60 s), doubled.
fn outcome_timeout(text: &str) -> Option<Duration> {
    let milliseconds: u64 = text.parse().ok()?;
    (1_000..=120_000)
        .contains(&milliseconds)
        .then_some(Duration::from_millis(milliseconds))
}

fn emit(text: &str) -> Option<Emit> {
    match text {
        "findings" => Some(Emit::Findings),
        "all" => Some(Emit::All),
        _ => None,
    }
}

fn attach(text: &str) -> Option<Attach> {
    match text {
        "auto" => Some(Attach::Auto),
        "fexit" => Some(Attach::Only(Way::Fexit)),
        "kprobe" => Some(Attach::Only(Way::Kprobe)),
        _ => None,
    }
}

fn events(text: &str) -> Option<Events> {
    match text {
        "auto" => Some(Events::Auto),
        "ring" => Some(Events::Ring),
        "perf" => Some(Events::Perf),
        _ => None,
    }
}

fn format(text: &str) -> Option<Format> {
    match text {
        "text" => Some(Format::Text),
        "json" => Some(Format::Json),
        _ => None,
    }
}

/// Texts with their origins, the strongest first.
struct Values(Vec<(&'static str, Origin, String)>);

impl Values {
    fn gather(typed: &Typed, outside: &dyn Outside) -> Result<Self, SettingsError> {
        let flags = typed.options.iter();
        let mut values: Vec<_> = flags
            .map(|(key, text)| (*key, Origin::Flag(key), text.clone()))
            .collect();
        for key in KEYS {
            let name = format!("{PREFIX}{}", key.to_uppercase());
            if let Some(text) = outside.variable(&name) {
                values.push((key, Origin::Variable(name), lossy(&text)));
            }
        }
        let config = typed.config.clone();
        if let Some(path) = config.or_else(|| outside.variable(&format!("{PREFIX}CONFIG"))) {
            values.extend(file(Path::new(&path), outside)?);
        }
        Ok(Self(values))
    }

    fn parsed<T: FromStr>(
        &self,
        key: &str,
        wanted: &'static str,
        default: &str,
    ) -> Result<T, SettingsError> {
        self.checked(key, wanted, default, |text| text.parse().ok())
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.given(key).map(|(_, text)| text)
    }

    /// The strongest text given for a key, and where it came from.
    fn given(&self, key: &str) -> Option<(&Origin, &str)> {
        let given = self.0.iter().find(|(of, _, _)| *of == key);
        given.map(|(_, origin, text)| (origin, text.as_str()))
    }

    fn checked<T>(
        &self,
        key: &str,
        wanted: &'static str,
        default: &str,
        check: impl Fn(&str) -> Option<T>,
    ) -> Result<T, SettingsError> {
        let given = self.given(key);
        let text = given.map_or(default, |(_, text)| text);
        check(text).ok_or_else(|| SettingsError::BadValue {
            origin: given.map_or(Origin::Flag(""), |(origin, _)| origin.clone()),
            found: format!("{text:?}"),
            wanted,
        })
    }
}

fn lossy(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}

fn file(
    path: &Path,
    outside: &dyn Outside,
) -> Result<Vec<(&'static str, Origin, String)>, SettingsError> {
    let unreadable = |source| SettingsError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let text = outside.read(path).map_err(unreadable)?;
    if text.len() > FILE_BYTES_MAX {
        let reason = format!("{} bytes, wanted at most {FILE_BYTES_MAX}", text.len());
        return Err(unreadable(io::Error::other(reason)));
    }
    let table: toml::Table = text
        .parse()
        .map_err(|error| not_toml(path, &text, &error))?;
    table
        .into_iter()
        .map(|(key, value)| {
            let known = KEYS.iter().find(|known| **known == key);
            let known = known.ok_or_else(|| SettingsError::UnknownKey {
                path: path.to_owned(),
                key: key.clone(),
            })?;
            let origin = Origin::File(path.to_owned(), known);
            Ok((*known, origin, plain(value)))
        })
        .collect()
}

/// A value as it would be typed.
fn plain(value: toml::Value) -> String {
    match value {
        toml::Value::String(text) => text,
        other => other.to_string(),
    }
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::table::draining::FORGOTTEN_AFTER;

    #[derive(Default)]
    struct Fake {
        variables: HashMap<&'static str, &'static str>,
        files: HashMap<&'static str, &'static str>,
    }

    impl Outside for Fake {
        fn variable(&self, name: &str) -> Option<OsString> {
            self.variables.get(name).map(OsString::from)
        }

        fn read(&self, path: &Path) -> io::Result<String> {
            let text = path.to_str().and_then(|path| self.files.get(path));
            text.map(|text| (*text).to_owned())
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        }
    }

    fn flags(options: &[(&'static str, &str)]) -> Typed {
        Typed {
            config: None,
            options: options.iter().map(|(k, v)| (*k, (*v).to_owned())).collect(),
        }
    }

    fn with_file(text: &'static str) -> (Typed, Fake) {
        let typed = Typed {
            config: Some("/etc/c.toml".into()),
            options: Vec::new(),
        };
        let fake = Fake {
            files: HashMap::from([("/etc/c.toml", text)]),
            ..Fake::default()
        };
        (typed, fake)
    }

    fn refusal(typed: &Typed, outside: &Fake) -> String {
        Settings::load(typed, outside).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults() {
        let settings = Settings::load(&Typed::default(), &Fake::default()).unwrap();
        let expected = Settings {
            listen: "127.0.0.1:9742".parse().unwrap(),
            web_config: None,
            log_level: LevelFilter::Info,
            drain_period: Duration::from_millis(100),
            emit: Emit::Findings,
            kernel_log: false,
            attach: Attach::Auto,
            events: Events::Auto,
            btf: None,
            outcome_timeout: Duration::from_secs(16),
            format: Format::Text,
            table_interval: Duration::from_secs(5),
            forgotten_after: FORGOTTEN_AFTER,
            real_servers: RealServers::Abnormal,
            facts: None,
            save_facts: None,
            top_interval: Duration::from_secs(2),
            sort: SortBy::Name,
            filter: String::new(),
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn flag_beats_variable_beats_file_beats_default() {
        let (mut typed, mut outside) = with_file(
            "listen = \"1.1.1.1:1\"\nemit = \"all\"\ndrain_period_ms = 50\nkernel_log = true\n",
        );
        typed.options = vec![("listen", "3.3.3.3:3".to_owned())];
        outside.variables = HashMap::from([
            ("IPVS_LENS_LISTEN", "2.2.2.2:2"),
            ("IPVS_LENS_DRAIN_PERIOD_MS", "20"),
        ]);
        let settings = Settings::load(&typed, &outside).unwrap();
        assert_eq!(settings.listen, "3.3.3.3:3".parse().unwrap());
        assert_eq!(settings.drain_period, Duration::from_millis(20));
        assert_eq!((settings.emit, settings.kernel_log), (Emit::All, true));
        assert_eq!(settings.format, Format::Text);
    }

    #[test]
    fn the_file_may_be_named_by_the_environment() {
        let (_, mut outside) = with_file("format = \"json\"\n");
        outside.variables = HashMap::from([("IPVS_LENS_CONFIG", "/etc/c.toml")]);
        let settings = Settings::load(&Typed::default(), &outside).unwrap();
        assert_eq!(settings.format, Format::Json);
    }

    #[test]
    fn bad_values_name_their_origin() {
        let none = Fake::default();
        assert_eq!(
            refusal(&flags(&[("drain_period_ms", "9")]), &none),
            "--drain-period-ms is \"9\", wanted 10 to 1000"
        );
        let variable = Fake {
            variables: HashMap::from([("IPVS_LENS_EMIT", "some")]),
            ..Fake::default()
        };
        assert_eq!(
            refusal(&Typed::default(), &variable),
            "environment variable IPVS_LENS_EMIT is \"some\", wanted findings or all"
        );
        let (typed, outside) = with_file("listen = 80\n");
        assert_eq!(
            refusal(&typed, &outside),
            "key listen in /etc/c.toml is \"80\", wanted ADDR:PORT"
        );
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let (typed, outside) = with_file("listne = \"1.1.1.1:1\"\n");
        assert_eq!(
            refusal(&typed, &outside),
            format!(
                "unknown key listne in /etc/c.toml, wanted one of {}",
                KEYS.join(", ")
            )
        );
    }

    #[test]
    fn broken_and_missing_files_are_one_line() {
        let (typed, outside) = with_file("emit = \"all\"\nlisten = = 3\n");
        let broken = refusal(&typed, &outside);
        assert!(
            broken.starts_with("/etc/c.toml is not TOML: line 2: "),
            "{broken}"
        );
        assert_eq!(broken.lines().count(), 1);
        assert_eq!(
            refusal(&typed, &Fake::default()),
            "cannot read the configuration file /etc/c.toml: entity not found"
        );
    }
}
